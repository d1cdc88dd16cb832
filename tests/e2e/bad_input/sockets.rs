//! Strangers and nonsense on the platform's own sockets.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::command;
use temps_ipc::Fault;
use temps_ipc::rpc::DeploydClient;
use temps_ipc::types::{Actor, DeployRequest, LogKind, LogQuery, Outcome, Source};
use temps_ipc::wire::client::{Link, Repeat};
use temps_ipc::wire::upload;

use crate::world::{PATIENCE, World};

const SOCKETS: [&str; 3] = ["deployd.sock", "deployd-upload.sock", "proxy.sock"];
const NOBODY: u32 = 65534;

#[test]
fn nonsense_and_oversize_frames_end_the_connection_and_nothing_else() {
    let world = World::up();
    let release = world
        .live("shop", "python", "healthy", &["--watch", "1s"])
        .release;
    world.ok(["status"]);
    let pids = || {
        (
            world.temps().daemon_pid("deployd"),
            world.temps().daemon_pid("proxy"),
        )
    };
    let before = pids();
    let random: Vec<u8> = (0..70_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let small = [&[0, 0, 0, 32][..], &random[..32]].concat();
    let oversize = [&(64_u32 << 20).to_be_bytes()[..], &random].concat();
    let all: [(&str, &[u8]); 6] = [
        ("a length of 4 GiB", &[0xFF; 8]),
        ("a frame over the limit", &oversize),
        ("random bytes", &random),
        ("a frame of random bytes", &small),
        ("an empty frame", &[0; 4]),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ];
    for socket in SOCKETS {
        for (what, bytes) in all {
            let path = world.temps().runtime_dir().join(socket);
            let mut stream = UnixStream::connect(path).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            stream
                .set_write_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            // It may hang up before all is written.
            let _ = stream.write_all(bytes);
            let begun = Instant::now();
            let mut answer = Vec::new();
            let ended = stream.read_to_end(&mut answer);
            println!(
                "{socket}: {what}: {} bytes back, {ended:?} after {:.1?}",
                answer.len(),
                begun.elapsed()
            );
            let is_closed = match &ended {
                Ok(_) => true,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            };
            assert!(is_closed, "{socket}: {what}: not closed: {ended:?}");
        }
        // And one that says nothing at all is no burden.
        std::mem::forget(UnixStream::connect(world.temps().runtime_dir().join(socket)).unwrap());
    }
    world.ok(["status"]);
    assert_eq!(pids(), before, "nobody died of it");
    assert_eq!(world.get("shop", "/").release(), release);
    world.live("shop", "python", "healthy", &["--watch", "1s"]);
}

#[test]
fn other_users_are_refused_by_file_mode_and_by_name() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: only root can become another user");
        return;
    }
    let world = World::up();
    world.live("shop", "python", "healthy", &["--watch", "1s"]);
    let runtime = world.temps().runtime_dir();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(runtime), 0o700);
    for socket in SOCKETS {
        assert_eq!(mode(&runtime.join(socket)), 0o600, "{socket}");
    }
    assert_eq!(mode(&world.deployd_state()), 0o700);
    for secret in ["deployd/key", "deployd/deployd.db", "proxy/local-ca.key"] {
        let path = world.temps().state().join(secret);
        assert_eq!(mode(&path) & 0o077, 0, "{secret}: {:o}", mode(&path));
    }
    // Where the other user can run it.
    let shared = tempfile::Builder::new()
        .prefix("t-")
        .tempdir_in("/tmp")
        .unwrap();
    std::fs::set_permissions(shared.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = shared.path().join("temps");
    std::fs::copy(harness::temps::binary().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env("TEMPS_RUNTIME_DIR", runtime)
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/");
        command::run(&mut command, PATIENCE).unwrap()
    };
    let output = as_nobody(&["app", "list"]);
    println!(
        "by file mode: exit {}: {}",
        output.status,
        output.stderr.trim()
    );
    assert_eq!(output.status, 77, "{output:?}");
    // Even where the modes would let it in.
    std::fs::set_permissions(runtime, PermissionsExt::from_mode(0o755)).unwrap();
    for socket in SOCKETS {
        std::fs::set_permissions(runtime.join(socket), PermissionsExt::from_mode(0o666)).unwrap();
    }
    for arguments in [
        &["app", "list"][..],
        &["env", "list", "shop", "--reveal"],
        &["app", "destroy", "shop", "--yes"],
        &["deploy", "x", "--static", "/usr/share/doc"],
    ] {
        let output = as_nobody(arguments);
        println!(
            "{}: exit {}: {}",
            arguments.join(" "),
            output.status,
            output.stderr.trim().replace('\n', " | ")
        );
        assert_eq!(output.status, 77, "{output:?}");
        assert!(
            output.stderr.contains("65534") && output.stdout.is_empty(),
            "{output:?}"
        );
    }
    world.ok(["app", "show", "shop"]);
}

/// Sends an archive as `temps deploy` would, and deploys it.
fn deploy_archive(world: &World, archive: &[u8]) -> Result<(Outcome, String), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let directory = world.temps().runtime_dir();
        let deployd: Link<DeploydClient> = Link::new(directory.join("deployd.sock"));
        let ticket = deployd
            .call(Repeat::Idempotent, PATIENCE, |client, context| async move {
                client.upload(context).await
            })
            .await?;
        let socket = directory.join("deployd-upload.sock");
        let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        upload::send_ticket(&mut stream, &ticket).await.unwrap();
        for chunk in archive.chunks(upload::MAX_CHUNK) {
            upload::send_chunk(&mut stream, chunk).await.unwrap();
        }
        upload::send_chunk(&mut stream, &[]).await.unwrap();
        upload::receive_answer(&mut stream).await.unwrap()?;
        let request = DeployRequest {
            app: "hostile".parse().unwrap(),
            source: Source::Static {
                upload: ticket,
                label: "hostile".to_owned(),
                spa: false,
            },
            runtime: None,
            domain: None,
            health: None,
            health_timeout_ms: None,
            watch_ms: Some(0),
            actor: Actor::new("nobody", "test"),
            socket_activated: None,
        };
        let mut view = deployd
            .call(Repeat::Never, PATIENCE, |client, context| {
                let request = request.clone();
                async move { client.deploy(context, request).await }
            })
            .await?;
        while view.phase.outcome().is_none() {
            let (id, seen) = (view.id.clone(), view.revision);
            view = deployd
                .call(Repeat::Idempotent, PATIENCE, |client, context| {
                    let id = id.clone();
                    async move { client.deployment(context, id, seen, 5_000).await }
                })
                .await?;
        }
        Ok((view.phase.outcome().unwrap(), view.reason))
    })
}

fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().unwrap()
}

/// An entry with the name as it is, however wrong.
fn entry(
    builder: &mut tar::Builder<Vec<u8>>,
    name: &str,
    kind: tar::EntryType,
    link: &str,
    data: &[u8],
) {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4777);
    header.set_size(data.len() as u64);
    header.set_cksum();
    builder.append(&header, data).unwrap();
}

#[test]
fn hostile_archives_write_nothing_outside_and_leave_nothing() {
    use tar::EntryType::{Block, Fifo, Link as Hard, Regular, Symlink};
    let world = World::up();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("x").display().to_string();
    let one =
        |name: &str, kind, link: &str| archive(|builder| entry(builder, name, kind, link, b""));
    let through = archive(|builder| {
        entry(
            builder,
            "dir",
            Symlink,
            outside.path().to_str().unwrap(),
            b"",
        );
        entry(builder, "dir/x", Regular, "", b"x");
    });
    let many = archive(|builder| {
        for number in 0..200_100 {
            entry(builder, &format!("f{number}"), Regular, "", b"");
        }
    });
    let mut short = one("index.html", Regular, "");
    short.truncate(200);
    let cases: [(&str, Vec<u8>); 10] = [
        ("../", one("../../../../x", Regular, "")),
        ("an absolute path", one(&target, Regular, "")),
        ("a link out", one("x", Symlink, "/etc/passwd")),
        ("a link up", one("x", Symlink, "../../../key")),
        ("a hard link out", one("x", Hard, "/etc/passwd")),
        ("through a link", through),
        ("a fifo", one("x", Fifo, "")),
        ("a device", one("x", Block, "")),
        ("too many entries", many),
        ("cut off", short),
    ];
    for (what, bytes) in cases {
        let outcome = deploy_archive(&world, &bytes);
        println!("{what}: {outcome:?}");
        let (outcome, reason) = outcome.expect("the upload itself is fine");
        assert_eq!(outcome, Outcome::Refused, "{what}");
        assert!(
            reason.contains("entry") || reason.contains("archive") || reason.contains("entries"),
            "{what}: {reason}"
        );
        assert!(!outside.path().join("x").exists(), "{what}");
        assert!(
            world.files("releases").is_empty(),
            "{what}: {:?}",
            world.files("releases")
        );
        assert!(
            world.files("material").is_empty() && world.files("uploads").is_empty(),
            "{what}"
        );
    }
    assert!(deploy_archive(&world, b"").is_ok_and(|(outcome, _)| outcome == Outcome::Refused));
    let fine = archive(|builder| entry(builder, "index.html", Regular, "", b"fine"));
    assert_eq!(deploy_archive(&world, &fine).unwrap().0, Outcome::Live);
    assert_eq!(world.get("hostile", "/").text(), "fine");
}

#[test]
fn a_query_for_an_endless_page_is_bounded() {
    let world = World::up();
    world.live("shop", "python", "healthy", &["--watch", "1s"]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let query = LogQuery {
        app: "shop".parse().unwrap(),
        release: None,
        kind: LogKind::Runtime,
        after: Some("../../key:0".to_owned()),
        tail: None,
        limit: u32::MAX,
        wait_ms: u64::MAX,
    };
    let begun = Instant::now();
    let answer = runtime.block_on(async {
        let deployd: Link<DeploydClient> =
            Link::new(world.temps().runtime_dir().join("deployd.sock"));
        deployd
            .call(Repeat::Idempotent, PATIENCE, |client, context| {
                let query = query.clone();
                async move { client.logs(context, query).await }
            })
            .await
    });
    println!(
        "{:?} after {:.1?}",
        answer.as_ref().map(|page| page.lines.len()),
        begun.elapsed()
    );
    assert!(begun.elapsed() < Duration::from_secs(25));
}
