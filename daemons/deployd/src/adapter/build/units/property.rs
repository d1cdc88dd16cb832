//! The sandbox of a unit, in the manager's properties (systemd.exec(5), systemd.resource-control(5)).
//!
//! The root of its file system is an empty directory ([`ROOT`]) in which only what is named here is
//! seen: the system's programs, what it works on, and for a stranger `/etc` and its own directories.
//! Neither `/run` with its sockets, nor `/var`, `/home` or `/srv` exist there. (An empty root by
//! `TemporaryFileSystem=/` is undone by `ProtectSystem=strict`, which a dynamic user implies.)

use super::launch::Streams;
use super::unit::{Identity, Unit, emptying, emptying_home};
use crate::adapter::systemd::JobNetwork;
use crate::adapter::systemd::manager::Properties;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use zbus::{Fd, Variant};

/// The directory that is the root of every job (tmpfiles.d makes it). It stays empty but for the
/// directories that the manager needs to mount on.
pub(super) const ROOT: &str = "/run/temps/job-root";

/// Where a job works, as it sees it: where the app will see its files, since builds write down where
/// they were made.
const WORK: &str = "/srv/app";

/// Who takes its jobs along when it ends, however it ends.
pub(super) const OWNER: &str = "temps-deployd.service";

/// The system's programs. What is not there is left out.
const PROGRAMS: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32"];

/// What programs of a stranger need beside: names, certificates and settings, further programs, and
/// who has which number.
const SYSTEM: [&str; 4] = [
    "/etc",
    "/opt",
    "/run/systemd/resolve",
    "/run/systemd/userdb",
];

/// `MS_REC`: with what is mounted below.
const RECURSIVE: u64 = 0x4000;

/// What a job has in its place: an empty directory of memory.
const REPLACED: [(&str, &str); 3] = [
    // The names of all apps that have been built: its own directories are mounted in it.
    ("/var/cache", "ro,mode=0755,size=1M"),
    // The names of all units of the machine; its own comes back, since compilers read their limits there.
    ("/sys/fs/cgroup", "ro,mode=0755,size=1M"),
    // Everybody's on the machine.
    ("/dev/shm", "nosuid,nodev,mode=1777"),
];

/// Where jobs are, and that as a control group.
const SLICE: &str = "temps-builds.slice";
const SLICE_GROUP: &str = "/sys/fs/cgroup/temps.slice/temps-builds.slice";

/// Largest file, in bytes: what all files together may have.
const FILE: u64 = 8 << 30;

/// The mode of a stranger's directories. Others have no way to them: `/var/cache/private` is root's
/// alone, and no job sees those of another. The stranger itself may need it: where the file system allows
/// it, systemd 257 lets such directories belong to `nobody` and maps that to the user of the unit in its
/// own mounts of them, but not in ours at [`WORK`]. So what is made there belongs on the disk to the
/// stranger, and is removed by that path.
const CACHE_MODE: u32 = 0o777;

/// No answer in time is the end: SIGKILL at once, since nothing that it could save is kept. What is
/// left of this time is for emptying its directories.
const STOP: u64 = 60_000_000;

type Bind = (String, String, bool, u64);

fn bind(from: &str, to: &str) -> Bind {
    (from.to_owned(), to.to_owned(), false, RECURSIVE)
}

fn bind_if_there(path: &str) -> Bind {
    (path.to_owned(), path.to_owned(), true, RECURSIVE)
}

/// The command line as `Exec…=` takes it: the program, its arguments, and whether its failure counts.
fn exec(command: Vec<String>, may_fail: bool) -> (String, Vec<String>, bool) {
    let program = command.first().cloned().unwrap_or_default();
    (program, command, may_fail)
}

fn fd(of: &OwnedFd) -> io::Result<Variant<'static>> {
    Ok(Variant::from(Fd::from(of.try_clone()?)))
}

fn text(text: impl Into<String>) -> Variant<'static> {
    Variant::from(text.into())
}

fn texts(texts: &[&str]) -> Variant<'static> {
    let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
    Variant::from(texts)
}

/// Everything about the unit. One without a `network` has none, whatever it wants.
pub(super) fn properties(
    unit: &Unit,
    streams: &Streams,
    network: Option<&JobNetwork>,
) -> io::Result<Properties> {
    let mut needed = vec![OWNER.to_owned()];
    needed.extend(network.map(|network| network.unit.clone()));
    let mut all: Properties = vec![
        ("Description", text(&*unit.description)),
        ("Slice", text(SLICE)),
        ("BindsTo", Variant::from(needed.clone())),
        ("After", Variant::from(needed)),
        // Its start is over when its work is.
        ("Type", text("oneshot")),
        ("CollectMode", text("inactive")),
        (
            "ExecStart",
            Variant::from(vec![exec(unit.command.clone(), false)]),
        ),
        ("StandardInputFileDescriptor", fd(&streams.stdin)?),
        ("StandardOutputFileDescriptor", fd(&streams.stdout)?),
        ("StandardErrorFileDescriptor", fd(&streams.stderr)?),
        ("KillSignal", Variant::from(9_i32)),
        ("TimeoutStopUSec", Variant::from(STOP)),
        ("TimeoutStartUSec", Variant::from(micros(unit))),
    ];
    all.extend(limits(unit));
    all.extend(sandbox(unit, network));
    all.extend(places(unit, network));
    Ok(all)
}

fn micros(unit: &Unit) -> u64 {
    u64::try_from(unit.limits.time.as_micros()).unwrap_or(u64::MAX - 1)
}

fn limits(unit: &Unit) -> Properties {
    let limits = unit.limits;
    vec![
        ("MemoryMax", Variant::from(limits.memory)),
        ("OOMPolicy", text("kill")),
        ("OOMScoreAdjust", Variant::from(500_i32)),
        ("TasksMax", Variant::from(limits.tasks)),
        // Per second.
        (
            "CPUQuotaPerSecUSec",
            Variant::from(u64::from(limits.cpu_percent) * 10_000),
        ),
        ("CPUWeight", Variant::from(20_u64)),
        ("IOWeight", Variant::from(20_u64)),
        ("Nice", Variant::from(10_i32)),
        ("LimitFSIZE", Variant::from(FILE)),
        ("LimitCORE", Variant::from(0_u64)),
    ]
}

fn sandbox(unit: &Unit, network: Option<&JobNetwork>) -> Properties {
    let replaced = REPLACED.map(|(path, options)| (path.to_owned(), options.to_owned()));
    let group = format!("{SLICE_GROUP}/{}", unit.name);
    let mut all: Properties = vec![
        ("CapabilityBoundingSet", Variant::from(0_u64)),
        ("AmbientCapabilities", Variant::from(0_u64)),
        ("NoNewPrivileges", Variant::from(true)),
        ("RootDirectory", text(ROOT)),
        ("MountAPIVFS", Variant::from(true)),
        ("ProtectSystem", text("strict")),
        ("ProtectProc", text("invisible")),
        ("PrivateTmp", Variant::from(true)),
        ("PrivateDevices", Variant::from(true)),
        ("PrivateMounts", Variant::from(true)),
        ("PrivateIPC", Variant::from(true)),
        ("DevicePolicy", text("closed")),
        // The machine's terminals, of which there are 4096 in all; `+`: as the job sees it.
        ("InaccessiblePaths", texts(&["-+/dev/pts"])),
        // Not ProtectControlGroups: it would show what is replaced.
        ("TemporaryFileSystem", Variant::from(replaced.to_vec())),
        (
            "BindReadOnlyPaths",
            Variant::from(vec![bind_if_there(&group)]),
        ),
        ("ProtectClock", Variant::from(true)),
        ("ProtectHostname", Variant::from(true)),
        ("ProtectKernelLogs", Variant::from(true)),
        ("ProtectKernelModules", Variant::from(true)),
        ("ProtectKernelTunables", Variant::from(true)),
        ("LockPersonality", Variant::from(true)),
        ("RestrictNamespaces", Variant::from(0_u64)),
        ("RestrictRealtime", Variant::from(true)),
        ("RestrictSUIDSGID", Variant::from(true)),
        ("KeyringMode", text("private")),
        ("RemoveIPC", Variant::from(true)),
        ("UMask", Variant::from(0o022_u32)),
        ("SystemCallArchitectures", texts(&["native"])),
        ("SystemCallErrorNumber", Variant::from(libc_eperm())),
        ("SystemCallFilter", filter(true, &["@system-service"])),
        // What a build has no use for and the kernel has had most holes in.
        (
            "SystemCallFilter",
            filter(
                false,
                &[
                    "@keyring",
                    "io_uring_setup",
                    "io_uring_enter",
                    "io_uring_register",
                    "userfaultfd",
                ],
            ),
        ),
    ];
    if !unit.generates_code {
        all.push(("MemoryDenyWriteExecute", Variant::from(true)));
    }
    if let Some(network) = network {
        let families = ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"];
        all.push(("RestrictAddressFamilies", filter(true, &families)));
        all.push(("NetworkNamespacePath", text(&*network.namespace)));
    } else {
        all.push(("RestrictAddressFamilies", filter(true, &["AF_UNIX"])));
        all.push(("PrivateNetwork", Variant::from(true)));
    }
    all
}

/// Whom it is, and what it sees.
fn places(unit: &Unit, network: Option<&JobNetwork>) -> Properties {
    let mut readable: Vec<Bind> = PROGRAMS.iter().map(|path| bind_if_there(path)).collect();
    let mut all: Properties = vec![("WorkingDirectory", text(WORK))];
    match &unit.identity {
        Identity::Owner { directory } => {
            all.push(("ProcSubset", text("pid")));
            all.push((
                "BindPaths",
                Variant::from(vec![bind(&shown(directory), WORK)]),
            ));
        }
        Identity::Stranger {
            user,
            work,
            temporary,
            home,
        } => {
            readable.extend(SYSTEM.iter().map(|path| bind_if_there(path)));
            let inside = |cache: &str| format!("/var/cache/{cache}");
            let passing = [WORK.to_owned(), inside(temporary)];
            let mut caches = vec![work.clone(), temporary.clone()];
            caches.extend(home.clone());
            let mut after = vec![exec(emptying(0, &passing), true)];
            if let Some(home) = home {
                after.push(exec(emptying_home(&inside(home)), true));
            }
            let environment = vec![
                format!(
                    "HOME={}",
                    home.as_deref().map_or("/nonexistent".to_owned(), inside)
                ),
                format!("TMPDIR={}", inside(temporary)),
            ];
            all.extend([
                ("DynamicUser", Variant::from(true)),
                ("User", text(&**user)),
                ("CacheDirectory", Variant::from(caches)),
                ("CacheDirectoryMode", Variant::from(CACHE_MODE)),
                ("Environment", Variant::from(environment)),
                (
                    "ExecStartPre",
                    Variant::from(vec![exec(emptying(0, &passing), false)]),
                ),
                ("ExecStopPost", Variant::from(after)),
                // `+`: as the job sees it.
                ("InaccessiblePaths", texts(&["-+/etc/temps", "-+/etc/ssh"])),
                (
                    "BindPaths",
                    Variant::from(vec![bind(&format!("/var/cache/private/{work}"), WORK)]),
                ),
            ]);
        }
    }
    if let Some(path) = &unit.readable {
        readable.push(bind(&shown(path), &shown(path)));
    }
    if let Some(network) = network {
        readable.push(bind(&shown(&network.resolver), "/etc/resolv.conf"));
    }
    all.push(("BindReadOnlyPaths", Variant::from(readable)));
    all
}

/// A path of ours, which is text.
fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A list of what is allowed, or of what is not.
fn filter(allows: bool, names: &[&str]) -> Variant<'static> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    Variant::from((allows, names))
}

/// What a denied system call answers.
fn libc_eperm() -> i32 {
    nix::errno::Errno::EPERM as i32
}

#[cfg(test)]
mod tests {
    use super::super::unit::Limits;
    use super::*;
    use std::fs::File;
    use std::time::Duration;

    fn names(identity: Identity, network: bool) -> Vec<&'static str> {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        let streams = Streams {
            stdin: null(),
            stdout: null(),
            stderr: null(),
        };
        let unit = Unit {
            name: "temps-job-x.service".to_owned(),
            description: "x".to_owned(),
            what: "build",
            command: vec!["/bin/true".to_owned()],
            identity,
            network,
            generates_code: false,
            readable: None,
            limits: Limits {
                what: "build",
                memory: 1,
                cpu_percent: 100,
                tasks: 1,
                time: Duration::from_secs(1),
            },
        };
        let made = JobNetwork {
            unit: "temps-netns@job-x.service".to_owned(),
            namespace: "/run/netns/temps-job-x".to_owned(),
            resolver: "/x/resolv.conf".into(),
        };
        let all = properties(&unit, &streams, network.then_some(&made)).unwrap();
        all.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn who_is_root_has_no_network_and_who_has_one_is_nobody() {
        let owner = Identity::Owner {
            directory: "/x".into(),
        };
        let owner = names(owner, false);
        assert!(owner.contains(&"PrivateNetwork") && !owner.contains(&"DynamicUser"));
        let stranger = Identity::Stranger {
            user: "u".to_owned(),
            work: "w".to_owned(),
            temporary: "t".to_owned(),
            home: None,
        };
        let stranger = names(stranger, true);
        assert!(stranger.contains(&"DynamicUser") && stranger.contains(&"NetworkNamespacePath"));
        for both in [owner, stranger] {
            for name in [
                "RootDirectory",
                "CapabilityBoundingSet",
                "NoNewPrivileges",
                "MemoryMax",
                "TasksMax",
                "BindsTo",
                "SystemCallFilter",
            ] {
                assert!(both.contains(&name), "{name}");
            }
        }
    }
}
