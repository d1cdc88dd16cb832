//! Stored state that is damaged, and a disk that is full.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{app, http};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{PATIENCE, Setup, World, within};

const SHORT: &[&str] = &["--watch", "1s", "--health-timeout", "5s"];

/// Inverts some bytes in the middle of a file.
fn damage(path: &Path) {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("it is there");
    let middle = file.metadata().unwrap().len() / 2;
    let mut bytes = [0; 16];
    file.seek(SeekFrom::Start(middle)).unwrap();
    let read = file.read(&mut bytes).unwrap();
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&bytes[..read]).unwrap();
}

#[test]
fn a_damaged_snapshot_is_set_aside_and_made_anew() {
    let mut world = World::up();
    let release = world.live("shop", "python", "healthy", SHORT).release;
    let site = app::make("static", "healthy", "v1").unwrap();
    world
        .temps()
        .deploy_json(["site", "--static", site.arg()])
        .unwrap()
        .live()
        .unwrap();
    let ports = (world.temps().http(), world.temps().https());
    for (host, files) in [
        ("a.test", &["snapshot"][..]),
        ("b.test", &["snapshot", "snapshot.previous"]),
    ] {
        // Each change of the routes makes what was served before the previous snapshot.
        world.ok(["domain", "add", "shop", host]);
        assert_eq!(world.temps_mut().stop().unwrap(), 0);
        files
            .iter()
            .for_each(|file| damage(&world.proxy_state().join(file)));
        world.start_on(Some(ports)).unwrap();
        let log = world.temps().log();
        assert!(log.contains("snapshot.corrupt-"), "{log}");
        assert_eq!(world.get("shop", "/").release(), release);
        assert_eq!(world.get("site", "/").status, 200);
    }
    let kept = std::fs::read_dir(world.proxy_state()).unwrap();
    let kept = kept.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("corrupt")
    });
    println!("{} damaged files are kept for people", kept.count());
}

/// The process that answers for `shop`.
fn pid(world: &World) -> Option<i32> {
    let temps = world.temps();
    let answer = http::get(temps.http(), &temps.host("shop"), "/").ok()?;
    i32::try_from(answer.json().ok()?["pid"].as_i64()?).ok()
}

/// Writes what is no database over the files of one.
fn ruin(path: &Path) {
    for suffix in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        let _ = std::fs::remove_file(beside);
    }
    std::fs::write(path, [0x5A; 8192]).unwrap();
}

#[test]
fn a_damaged_database_is_replaced_by_its_last_good_copy() {
    let mut world = World::up();
    let release = world.live("shop", "python", "healthy", SHORT).release;
    world.settled("shop");
    world.ok(["env", "set", "shop", "COLOUR=red"]);
    let database = world.deployd_state().join("deployd.db");
    let copy = world.deployd_state().join("deployd.db.last-good");
    let ports = (world.temps().http(), world.temps().https());
    // While it runs: deployd is killed, and finds the damage at its next start. The log of what was
    // written last is as good as the database.
    let log_lost = |database: &Path| {
        std::fs::remove_file(database.with_extension("db-wal")).unwrap();
    };
    let load = world.light_load("shop");
    for (name, damage) in [("SIZE", &ruin as &dyn Fn(&Path)), ("SHAPE", &log_lost)] {
        let settled = std::fs::metadata(&copy).unwrap().modified().unwrap();
        world.ok(["env", "set", "shop", &format!("{name}=x")]);
        let is_copied = || std::fs::metadata(&copy).unwrap().modified().unwrap() > settled;
        assert!(within(PATIENCE, is_copied));
        world.temps().kill_daemon("deployd").unwrap();
        damage(&database);
        assert!(within(PATIENCE, || world.run(["app", "list"]).is_success()));
        let variables = world.ok(["env", "list", "shop"]).stdout;
        assert!(
            variables.contains("COLOUR") && variables.contains(name),
            "{variables}"
        );
    }
    let report = load.stop_blocking();
    println!("{report}");
    report.assert_no_failure();
    // Over a start of everything: the app is back too.
    assert_eq!(world.temps_mut().stop().unwrap(), 0);
    ruin(&database);
    world.start_on(Some(ports)).unwrap();
    assert_eq!(world.get("shop", "/").release(), release);
    let log = world.temps().log();
    assert!(log.contains("its last good copy is used"), "{log}");
    let doctor = world.run(["doctor"]).stdout;
    assert!(doctor.contains("deployd.db.damaged-"), "{doctor}");
    let next = world.live("shop", "python", "healthy", SHORT).release;
    assert_ne!(next, release);
    world.only(&[&next]);
}

#[test]
fn with_a_damaged_database_and_copy_routes_serve_and_commands_say_what_to_do() {
    let world = World::up();
    let release = world.live("shop", "python", "healthy", SHORT).release;
    world.settled("shop");
    let load = world.light_load("shop");
    let database = world.deployd_state().join("deployd.db");
    let copy = world.deployd_state().join("deployd.db.last-good");
    assert!(within(PATIENCE, || copy.exists()));
    let whole = std::fs::read(&copy).unwrap();
    world.temps().kill_daemon("deployd").unwrap();
    ruin(&database);
    ruin(&copy);
    let is_told = within(PATIENCE, || {
        world
            .temps()
            .log()
            .contains("temps-deployd exited with status 78")
    });
    assert!(is_told, "{}", world.temps().log());
    let log = world.temps().log();
    assert!(
        log.contains("cannot be used") && log.contains("deployd.db"),
        "{log}"
    );
    for command in ["status", "doctor"] {
        let begun = Instant::now();
        let output = world.run([command]);
        println!(
            "{command}: exit {} after {:.1?}: {}",
            output.status,
            begun.elapsed(),
            output.stderr.trim().replace('\n', " | ")
        );
        assert_ne!(output.status, 0);
    }
    let made = app::make("python", "healthy", "v2").unwrap();
    let begun = Instant::now();
    let output = world.run(["deploy", "shop", "--source", made.arg()]);
    println!(
        "deploy: exit {} after {:.1?}: {}",
        output.status,
        begun.elapsed(),
        output.stderr.trim().replace('\n', " | ")
    );
    assert!([69, 78].contains(&output.status), "{output:?}");
    assert!(output.stderr.contains("hint:"), "{output:?}");
    assert_eq!(world.get("shop", "/").release(), release);
    // The way out: the database from a backup.
    std::fs::write(&database, whole).unwrap();
    assert!(within(Duration::from_secs(25), || world
        .run(["app", "list"])
        .is_success()));
    let report = load.stop_blocking();
    println!("{report}");
    report.assert_no_failure();
}

#[test]
fn a_full_disk_refuses_deployments_stops_nothing_and_has_a_way_out() {
    let setup = Setup {
        tmpfs: Some("400m"),
        ..Setup::default()
    };
    let Some(world) = World::on_tmpfs(setup) else {
        println!("SKIPPED: a tmpfs cannot be mounted here");
        return;
    };
    let site = app::make("static", "healthy", "v1").unwrap();
    world.ok(["deploy", "site", "--static", site.arg()]);
    let release = world.live("shop", "python", "healthy", SHORT).release;
    world.settled("shop");
    let load = world.light_load("shop");
    let ballast = world.temps().state().join("ballast");
    let fill = |bytes: u64| {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&ballast)
            .unwrap();
        let block = vec![0; 1 << 20];
        let mut written = 0;
        while written < bytes && file.write_all(&block).is_ok() {
            written += block.len() as u64;
        }
        println!("filled {} MiB", written >> 20);
    };
    let made = app::make("python", "healthy", "v2").unwrap();
    let refused = |when: &str| {
        let output = world.run(["deploy", "shop", "--source", made.arg()]);
        println!(
            "{when}: exit {}: {}",
            output.status,
            output.stderr.trim().replace('\n', " | ")
        );
        assert_eq!(output.status, 74, "{output:?}");
        assert!(output.stderr.contains("hint:"), "{output:?}");
        assert_eq!(world.get("shop", "/").release(), release);
    };
    fill(200 << 20);
    refused("200 MiB left");
    fill(u64::MAX);
    refused("nothing left");
    let set = world.run(["env", "set", "shop", "A=b"]);
    println!(
        "env set: exit {}: {}",
        set.status,
        set.stderr.trim().replace('\n', " | ")
    );
    assert!([0, 74].contains(&set.status), "{set:?}");
    let status = world.ok(["status"]);
    println!("{}", status.stdout);
    let doctor = world.run(["doctor"]);
    assert!(
        doctor.status == 1 && doctor.stdout.contains("MiB free"),
        "{doctor:?}"
    );
    assert_eq!(world.get("shop", "/").release(), release);
    let report = load.stop_blocking();
    println!("{report}");
    report.assert_no_failure();
    // What dies is started again all the same, and an app can be removed to make room.
    let old = pid(&world).expect("it answers");
    kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
    let is_back = || pid(&world).is_some_and(|new| new != old);
    assert!(
        within(Duration::from_secs(60), is_back),
        "{}",
        world.temps().log()
    );
    fill(u64::MAX);
    world.ok(["app", "destroy", "site", "--yes"]);
    std::fs::remove_file(&ballast).unwrap();
    let next = world
        .deploy_path("shop", made.path(), SHORT)
        .live()
        .unwrap()
        .release;
    world.only(&[&next]);
}
