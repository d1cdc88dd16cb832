//! The transient unit of an instance: what it may and what it has, as properties on the bus
//! (systemd.exec(5), systemd.resource-control(5)).

use super::directory::InstanceDirectory;
use super::launch::{CREDENTIAL, EXEC, ROOT};
use super::manager::Properties;
use super::{name, stderr};
use crate::port::InstanceSpec;
use nix::libc;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zbus::Variant;

/// How instances are limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes; swap is not used beside it.
    pub memory: u64,
    /// CPU time in percent of one processor; as much as there is if absent.
    pub cpu_percent: Option<u32>,
    /// Processes and threads.
    pub tasks: u64,
    /// Open files of each process.
    pub open_files: u64,
    /// How long it may take to end after SIGTERM.
    pub stop_grace: Duration,
}

/// How much each instance counts under contention; the daemons' slice has more than an app.
const CPU_WEIGHT: u64 = 50;

/// Starts of a socket-activated instance within the interval before it is taken for one that crashes.
/// One that ends as soon as it is idle is started now and then; a crash loop gets there in seconds.
const START_BURST: u32 = 20;
const START_INTERVAL: Duration = Duration::from_secs(60);

/// What the app finds in LISTEN_FDNAMES: the process of the Procfile that its socket is for.
const SOCKET: &str = "web";

/// Connections that may wait while the app starts; the kernel's own limit is no higher.
const BACKLOG: u32 = 4096;

/// Lines per half minute that one instance may add to the journal, which it shares with the system.
/// Later ones are dropped and counted there. The journal multiplies it by up to six while it has room
/// (about four for 4 GiB), so this is some 270 lines a second for as long as one likes. If each is as
/// long as a line can be (48 KiB), it takes five minutes, not seconds, until the largest journal (4 GiB)
/// has forgotten what the system said before; at the usual length it takes most of a day.
const LOG_BURST: u32 = 2_000;
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Where instances are, and that as a control group.
const SLICE: &str = "temps-apps.slice";
const SLICE_GROUP: &str = "/sys/fs/cgroup/temps.slice/temps-apps.slice";

/// What an instance does not see. `/run` and `/srv` are replaced as a whole.
const HIDDEN: [&str; 10] = [
    "-/var/lib/temps",
    "-/etc/temps",
    // Container engines keep what their containers have in files that all may read.
    "-/var/lib/docker",
    "-/var/lib/containers",
    "-/var/lib/containerd",
    "-/var/log",
    "-/var/spool",
    "-/var/backups",
    "-/boot",
    // The machine's terminals, of which there are 4096 in all. The node of a new one leads there, too.
    "-/dev/pts",
];

/// What an instance has in its place: an empty directory of memory, which counts as its own.
const REPLACED: [(&str, &str); 4] = [
    ("/run", "ro,mode=0755,size=1M"),
    ("/srv", "ro,mode=0755,size=1M"),
    // The names of all units of the machine; its own comes back (`own_control_group`).
    ("/sys/fs/cgroup", "ro,mode=0755,size=1M"),
    // Everybody's on the machine.
    ("/dev/shm", "nosuid,nodev,mode=1777"),
];

/// Of `/run`: what names are looked up with, since the instance's own user is a dynamic one.
const SHOWN_OF_RUN: &str = "/run/systemd/userdb";

/// What ordinary programs call; by name in systemd.exec(5). V8, the JVM, Python and Go run with it.
const SYSTEM_CALLS: [&str; 1] = ["@system-service"];

/// What is not called all the same, as in containers: where the kernel has had most holes. Programs
/// that would use it do without (libuv has threads for it), since it is refused on many machines.
const REFUSED_CALLS: [&str; 5] = [
    "@keyring",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "userfaultfd",
];

/// AF_NETLINK is how the C library, Go and Node list interfaces; it gives no right to change them.
const FAMILIES: [&str; 4] = ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"];

/// What is always the same.
fn sandbox() -> Properties {
    let words =
        |list: &[&str]| -> Vec<String> { list.iter().map(|&word| word.to_owned()).collect() };
    let replaced = REPLACED.map(|(path, options)| (path.to_owned(), options.to_owned()));
    vec![
        // A user that exists while an instance of the app runs, and has nothing but the app's data.
        ("DynamicUser", true.into()),
        ("NoNewPrivileges", true.into()),
        ("CapabilityBoundingSet", 0_u64.into()),
        ("AmbientCapabilities", 0_u64.into()),
        ("ProtectSystem", "strict".into()),
        ("ProtectHome", "yes".into()),
        ("PrivateTmp", true.into()),
        ("PrivateDevices", true.into()),
        ("PrivateMounts", true.into()),
        ("PrivateIPC", true.into()),
        ("DevicePolicy", "closed".into()),
        ("ProtectClock", true.into()),
        ("ProtectHostname", true.into()),
        ("ProtectKernelLogs", true.into()),
        ("ProtectKernelModules", true.into()),
        ("ProtectKernelTunables", true.into()),
        ("ProtectProc", "invisible".into()),
        ("LockPersonality", true.into()),
        ("RestrictNamespaces", 0_u64.into()),
        ("RestrictRealtime", true.into()),
        ("RestrictSUIDSGID", true.into()),
        ("RemoveIPC", true.into()),
        ("KeyringMode", "private".into()),
        ("RestrictAddressFamilies", (true, words(&FAMILIES)).into()),
        ("SystemCallArchitectures", words(&["native"]).into()),
        ("SystemCallFilter", (true, words(&SYSTEM_CALLS)).into()),
        ("SystemCallFilter", (false, words(&REFUSED_CALLS)).into()),
        ("SystemCallErrorNumber", libc::EPERM.into()),
        // Not MemoryDenyWriteExecute: compilers at run time (V8, the JVM) write what they execute.
        // Not ProcSubset=pid: runtimes read /proc/meminfo and /proc/cpuinfo.
        ("UMask", 0o077_u32.into()),
        // Not ProtectControlGroups: it would show what is replaced.
        ("TemporaryFileSystem", replaced.to_vec().into()),
        ("InaccessiblePaths", words(&HIDDEN).into()),
    ]
}

/// The properties of the instance's unit. `root` is the release's directory.
pub(super) fn properties(
    spec: &InstanceSpec,
    root: &Path,
    directory: &InstanceDirectory,
    limits: &Limits,
) -> Properties {
    let text = |path: PathBuf| path.display().to_string();
    // Source, destination, whether it may be missing, and MS_REC.
    let bind = |source: String, to: &str| (source, to.to_owned(), false, 0_u64);
    let same = |path: String| (path.clone(), path, true, 0_u64);
    let unit = name::unit(&spec.id);
    let shown = vec![
        bind(text(root.to_owned()), ROOT),
        bind(text(directory.hosts()), "/etc/hosts"),
        bind(text(directory.resolver()), "/etc/resolv.conf"),
        same(SHOWN_OF_RUN.to_owned()),
        same(own_control_group(&unit)),
    ];
    let command = (EXEC.to_owned(), vec![EXEC.to_owned()], false);
    let before = (
        EXEC.to_owned(),
        vec![
            EXEC.to_owned(),
            stderr::FLAG.to_owned(),
            spec.app.to_string(),
            unit,
        ],
        ["ignore-failure", "privileged"].map(str::to_owned).to_vec(),
    );
    let namespace = name::namespace_unit(&spec.id);
    let fields: Vec<Vec<u8>> = [
        format!("TEMPS_APP={}", spec.app),
        format!("TEMPS_RELEASE={}", spec.release),
        format!("TEMPS_INSTANCE={}", spec.id),
    ]
    .map(String::into_bytes)
    .to_vec();
    let mut all: Properties = vec![
        ("Description", format!("Temps: app {}", spec.app).into()),
        ("Slice", SLICE.into()),
        // Started means that the program was executed, so what hinders that is told.
        ("Type", "exec".into()),
        ("ExecStart", vec![command].into()),
        // Leaves one stream with the manager; the instance does not see where one notifies it.
        ("ExecStartPreEx", vec![before].into()),
        ("NotifyAccess", "exec".into()),
        ("FileDescriptorStoreMax", 1_u32.into()),
        // One that ends by itself stays to be seen, however it ended; its socket could not start it
        // again then.
        ("RemainAfterExit", (!spec.socket_activated).into()),
        ("CollectMode", "inactive".into()),
        // It is deployd that decides what runs; or its socket.
        ("Restart", "no".into()),
        ("StartLimitBurst", START_BURST.into()),
        ("StartLimitIntervalUSec", micros(START_INTERVAL).into()),
        // A shell that runs several commands does not pass SIGTERM on: all of them get it.
        ("KillMode", "control-group".into()),
        ("TimeoutStopUSec", micros(limits.stop_grace).into()),
        ("OOMPolicy", "kill".into()),
        ("User", name::user(&spec.app).into()),
        ("StateDirectory", vec![name::data(&spec.app)].into()),
        ("StateDirectoryMode", 0o700_u32.into()),
        ("WorkingDirectory", ROOT.into()),
        ("BindReadOnlyPaths", shown.into()),
        (
            "LoadCredential",
            vec![(CREDENTIAL.to_owned(), text(directory.launch()))].into(),
        ),
        (
            "NetworkNamespacePath",
            format!("/run/netns/{}", name::namespace(&spec.id)).into(),
        ),
        ("BindsTo", vec![namespace.clone()].into()),
        ("After", vec![namespace].into()),
        ("MemoryMax", limits.memory.into()),
        ("MemorySwapMax", 0_u64.into()),
        ("TasksMax", limits.tasks.into()),
        ("CPUWeight", CPU_WEIGHT.into()),
        ("LimitNOFILE", limits.open_files.into()),
        ("LimitNOFILESoft", limits.open_files.into()),
        ("LimitCORE", 0_u64.into()),
        ("StandardInput", "null".into()),
        ("StandardOutput", "journal".into()),
        ("StandardError", "journal".into()),
        // A line that begins with `<3>` is the app's own text.
        ("SyslogLevelPrefix", false.into()),
        ("SyslogIdentifier", spec.app.to_string().into()),
        ("LogExtraFields", fields.into()),
        ("LogRateLimitIntervalUSec", micros(LOG_INTERVAL).into()),
        ("LogRateLimitBurst", LOG_BURST.into()),
    ];
    if let Some(percent) = limits.cpu_percent {
        // Of each second.
        all.push(("CPUQuotaPerSecUSec", (u64::from(percent) * 10_000).into()));
    }
    all.extend(sandbox());
    all
}

/// Where the unit's own control group is, as `/proc/self/cgroup` says it: Go and the JVM read their limits
/// there. It is not there on a machine with the old hierarchies.
fn own_control_group(unit: &str) -> String {
    format!("{SLICE_GROUP}/{unit}")
}

/// The most that is read of a table of sockets, of which an app may have as many as it may have files.
/// Those that listen come first.
pub(super) const MAX_TABLE: u64 = 1 << 20;

/// The properties of the unit of the instance's socket, which listens in the instance's own network.
pub(super) fn socket(spec: &InstanceSpec, port: u16) -> Properties {
    let namespace = name::namespace_unit(&spec.id);
    let shutdown = || vec!["shutdown.target".to_owned()];
    vec![
        (
            "Description",
            format!("Temps: socket of app {}", spec.app).into(),
        ),
        ("Slice", SLICE.into()),
        // By default it comes before what the namespace's unit comes after.
        ("DefaultDependencies", false.into()),
        ("Conflicts", shutdown().into()),
        ("Before", shutdown().into()),
        (
            "Listen",
            vec![("Stream".to_owned(), format!("0.0.0.0:{port}"))].into(),
        ),
        ("FileDescriptorName", SOCKET.into()),
        ("Backlog", BACKLOG.into()),
        (
            "NetworkNamespacePath",
            format!("/run/netns/{}", name::namespace(&spec.id)).into(),
        ),
        ("BindsTo", vec![namespace.clone()].into()),
        ("After", vec![namespace].into()),
        ("CollectMode", "inactive".into()),
    ]
}

/// A unit that writes what listens in the instance's namespace to its file.
pub(super) fn look(spec: &str, id: &temps_ipc::id::InstanceId, to: &Path) -> Properties {
    let most = MAX_TABLE.to_string();
    let argv = [
        "/usr/bin/head",
        "--quiet",
        "--bytes",
        &most,
        "/proc/self/net/tcp",
        "/proc/self/net/tcp6",
    ];
    let command = (
        argv[0].to_owned(),
        argv.iter().map(|&word| word.to_owned()).collect::<Vec<_>>(),
        // There may be no IPv6 at all.
        true,
    );
    let file: Variant<'static> = to.display().to_string().into();
    let mut all: Properties = vec![
        (
            "Description",
            format!("Temps: what {spec} listens on").into(),
        ),
        ("Slice", "temps-daemons.slice".into()),
        ("Type", "oneshot".into()),
        ("ExecStart", vec![command].into()),
        ("CollectMode", "inactive-or-failed".into()),
        ("TimeoutStartUSec", micros(Duration::from_secs(5)).into()),
        ("StandardOutputFileToTruncate", file),
        ("StandardError", "null".into()),
        (
            "NetworkNamespacePath",
            format!("/run/netns/{}", name::namespace(id)).into(),
        ),
    ];
    all.extend(sandbox());
    all
}

/// A unit that removes the data of an app that is gone. Root's, since the data is another user's; all
/// it may write is the directory above.
pub(super) fn erase(data: &str) -> Properties {
    let place = format!("/var/lib/private/{data}");
    let link = format!("/var/lib/{data}");
    let argv = ["/bin/rm", "-rf", "--one-file-system", "--", &place, &link];
    let command = (
        argv[0].to_owned(),
        argv.iter().map(|&word| word.to_owned()).collect::<Vec<_>>(),
        false,
    );
    // CAP_DAC_OVERRIDE, CAP_FOWNER: linux/capability.h numbers them 1 and 3.
    let capabilities: u64 = 1 << 1 | 1 << 3;
    vec![
        ("Description", format!("Temps: removes {link}").into()),
        ("Slice", "temps-daemons.slice".into()),
        ("Type", "oneshot".into()),
        ("ExecStart", vec![command].into()),
        ("CollectMode", "inactive-or-failed".into()),
        ("TimeoutStartUSec", micros(Duration::from_secs(300)).into()),
        ("CapabilityBoundingSet", capabilities.into()),
        ("NoNewPrivileges", true.into()),
        ("PrivateNetwork", true.into()),
        ("PrivateDevices", true.into()),
        ("ProtectSystem", "strict".into()),
        ("ProtectHome", "yes".into()),
        (
            "ReadWritePaths",
            vec![
                format!("-/var/lib/private/{}", name::DATA),
                format!("-/var/lib/{}", name::DATA),
            ]
            .into(),
        ),
    ]
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
