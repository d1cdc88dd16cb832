use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn open(archive: &Path) -> File {
    File::open(archive).unwrap()
}

/// Makes tar archives by hand, since no honest program writes what is tested here.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    /// An entry of the type with a name as it is.
    fn entry(mut self, kind: u8, name: &str, link: &str, content: &[u8]) -> Self {
        self.header(kind, name, link, content.len() as u64, 0o644);
        self.content(content);
        self
    }

    fn mode(mut self, name: &str, mode: u32) -> Self {
        self.header(b'0', name, "", 0, mode);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(b'0', name, "", content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(b'5', name, "", b"")
    }

    fn link(self, name: &str, to: &str) -> Self {
        self.entry(b'2', name, to, b"")
    }

    fn hard(self, name: &str, to: &str) -> Self {
        self.entry(b'1', name, to, b"")
    }

    fn pax(self, kind: u8, key: &str, value: &str) -> Self {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len() + 1;
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        self.entry(kind, "pax", "", format!("{length}{rest}").as_bytes())
    }

    fn header(&mut self, kind: u8, name: &str, link: &str, size: u64, mode: u32) {
        let mut header = tar::Header::new_ustar();
        header.set_mode(mode);
        header.set_size(size);
        header.set_entry_type(tar::EntryType::new(kind));
        let bytes = header.as_mut_bytes();
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    fn content(&mut self, content: &[u8]) {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn unpack(&self) -> Unpacked {
        self.unpack_within(Limits::default())
    }

    fn unpack_within(&self, limits: Limits) -> Unpacked {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive.tar");
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len() + 1024, 0);
        fs::write(&archive, bytes).unwrap();
        let root = dir.path().join("outer/root");
        fs::create_dir_all(&root).unwrap();
        fs::write(dir.path().join("outer/secret"), "secret").unwrap();
        let result = unpack(
            open(&archive),
            &root,
            limits,
            Links::Within,
            &AtomicBool::new(false),
        );
        Unpacked { dir, result }
    }
}

struct Unpacked {
    dir: tempfile::TempDir,
    result: Result<Summary, ArchiveError>,
}

impl Unpacked {
    fn read(&self, name: &str) -> String {
        assert!(self.result.is_ok(), "{:?}", self.result);
        fs::read_to_string(self.dir.path().join("outer/root").join(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        let path = self.dir.path().join("outer/root").join(name);
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn untouched_outside(&self) {
        let outer = self.dir.path().join("outer");
        assert_eq!(fs::read_to_string(outer.join("secret")).unwrap(), "secret");
        let names: Vec<_> = fs::read_dir(outer)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

#[test]
fn an_honest_archive_is_unpacked_whole() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let unpacked = Tar::default()
        .pax(b'g', "comment", "4f2c1d0")
        .dir("./")
        .file("./index.html", "hello")
        .file("a/b/c.txt", "deep")
        .link("a/up", "../index.html")
        .hard("copy.html", "./index.html")
        .entry(b'L', "././@LongLink", "", format!("{long}\0").as_bytes())
        .file("short", "gnu")
        .pax(b'x', "path", "päx/name")
        .file("ignored", "pax")
        .unpack();
    assert_eq!(unpacked.read("index.html"), "hello");
    assert_eq!(unpacked.read("a/b/c.txt"), "deep");
    assert_eq!(unpacked.read("a/up"), "hello");
    assert_eq!(unpacked.read("copy.html"), "hello");
    assert_eq!(unpacked.read(&long), "gnu");
    assert_eq!(unpacked.read("päx/name"), "pax");
    assert_eq!(unpacked.result.as_ref().unwrap().bytes, 5 + 4 + 3 + 3);
}

#[test]
fn what_would_write_or_point_outside_is_refused_by_name() {
    let t = Tar::default;
    let table = [
        ("parent directory", t().file("../secret", "x"), "leads out"),
        (
            "parent in the middle",
            t().file("a/../../secret", "x"),
            "leads out",
        ),
        ("absolute name", t().file("/tmp/x", "x"), "absolute"),
        (
            "pax name",
            t().pax(b'x', "path", "../secret").file("a", "x"),
            "leads out",
        ),
        (
            "long name",
            t().entry(b'L', "l", "", b"../secret\0").file("a", "x"),
            "leads out",
        ),
        ("absolute link", t().link("a", "/etc/passwd"), "absolute"),
        ("link out", t().link("a", "../secret"), "leads out"),
        (
            "link out of a folder",
            t().link("a/b", "../../secret"),
            "leads out",
        ),
        ("link to the outside root", t().link("a", ".."), "leads out"),
        (
            "write through a link",
            t().link("a", "b").dir("b").file("a/x", "x"),
            "no directory",
        ),
        (
            "write through a link out",
            t().link("a", "..").file("a/secret", "x"),
            "no directory",
        ),
        (
            // Each link alone stays inside; together they do not.
            "link through a link",
            t().dir("a/b")
                .link("a/b/up", "../..")
                .link("x", "a/b/up/.."),
            "leads out",
        ),
        (
            "link that is harmless until a later one",
            t().link("x", "d/secret").link("d", "e/../..").dir("e"),
            "leads out",
        ),
        ("hard link out", t().hard("a", "../secret"), "outside"),
        (
            "absolute hard link",
            t().hard("a", "/etc/passwd"),
            "outside",
        ),
        (
            "hard link through a link",
            t().link("d", "..").hard("a", "d/secret"),
            "no directory",
        ),
        (
            "hard link to a link",
            t().file("f", "").link("l", "f").hard("a", "l"),
            "no file",
        ),
        (
            "hard link to a directory",
            t().dir("d").hard("a", "d"),
            "no file",
        ),
        (
            "hard link to what is not there",
            t().hard("a", "b"),
            "does not come before",
        ),
        (
            "character device",
            t().entry(b'3', "null", "", b""),
            "device",
        ),
        ("block device", t().entry(b'4', "sda", "", b""), "device"),
        ("named pipe", t().entry(b'6', "pipe", "", b""), "pipe"),
        ("sparse file", t().entry(b'S', "sparse", "", b""), "sparse"),
        (
            "pax sparse file",
            t().pax(b'x', "GNU.sparse.major", "1").file("a", ""),
            "sparse",
        ),
        (
            "unknown kind",
            t().entry(b'V', "volume", "", b""),
            "unknown",
        ),
        (
            "global name",
            t().pax(b'g', "path", "a").file("b", ""),
            "every entry",
        ),
        (
            "two sizes",
            t().pax(b'x', "size", "9").file("a", "x"),
            "two different sizes",
        ),
        (
            "no size",
            t().pax(b'x', "size", "-1").file("a", "x"),
            "no number",
        ),
        (
            "link without a target",
            t().link("a", ""),
            "without a target",
        ),
        (
            "directory with content",
            t().entry(b'5', "d", "", b"x"),
            "has content",
        ),
        (
            "file over a directory",
            t().dir("d").file("d", "x"),
            "name of a directory",
        ),
        ("name of the root", t().link(".", "a"), "directory itself"),
    ];
    for (what, tar, why) in table {
        let unpacked = tar.unpack();
        let error = unpacked.result.as_ref().expect_err(what).to_string();
        assert!(error.contains(why), "{what}: {error}");
        unpacked.untouched_outside();
    }
}

#[test]
fn a_name_in_an_error_cannot_draw_on_a_terminal() {
    let error = Tar::default()
        .file("../\u{1b}[2J\n", "x")
        .unpack()
        .result
        .unwrap_err();
    assert!(!error.to_string().contains(['\u{1b}', '\n']), "{error}");
}

#[test]
fn entries_that_come_twice_replace_each_other_and_never_what_a_link_names() {
    let unpacked = Tar::default()
        .file("target", "kept")
        .link("a", "target")
        .file("a", "new")
        .unpack();
    assert_eq!(unpacked.read("target"), "kept");
    assert_eq!(unpacked.read("a"), "new");

    let unpacked = Tar::default()
        .file("one", "1")
        .hard("two", "one")
        .file("one", "new")
        .unpack();
    assert_eq!(
        (unpacked.read("one"), unpacked.read("two")),
        ("new".to_owned(), "1".to_owned())
    );

    let unpacked = Tar::default()
        .link("d", "..")
        .dir("d")
        .file("d/secret", "inside")
        .unpack();
    assert_eq!(unpacked.read("d/secret"), "inside");
    unpacked.untouched_outside();
}

#[test]
fn modes_are_plain_whatever_the_archive_says() {
    let unpacked = Tar::default()
        .mode("setuid", 0o6755)
        .mode("open", 0o777)
        .mode("plain", 0o666)
        .mode("closed", 0o000)
        .dir("d")
        .unpack();
    for (name, mode) in [
        ("setuid", 0o755),
        ("open", 0o755),
        ("plain", 0o644),
        ("closed", 0o644),
        ("d", 0o755),
    ] {
        assert_eq!(unpacked.mode(name), mode, "{name}");
    }
}

#[test]
fn an_archive_that_holds_too_much_is_refused_before_it_is_written() {
    let limits = Limits {
        bytes: 1000,
        entries: 10,
        depth: 5,
    };
    let big = "x".repeat(600);
    let table = [
        (Tar::default().file("a", &big).file("b", &big), "1000 bytes"),
        (
            (0..11).fold(Tar::default(), |tar, n| tar.dir(&format!("d{n}"))),
            "10 entries",
        ),
        (
            (0..4).fold(Tar::default(), |tar, n| {
                tar.file(&format!("d{n}/a/b/c"), "")
            }),
            "10 entries",
        ),
        (Tar::default().dir("1/2/3/4/5/6"), "too deeply"),
        (
            Tar::default()
                .file(&"n".repeat(100), "")
                .pax(b'x', "path", &"n".repeat(300))
                .file("a", ""),
            "too long",
        ),
        (
            Tar::default()
                .pax(b'x', "path", &"n/".repeat(4000))
                .file("a", ""),
            "too long",
        ),
        (
            Tar::default()
                .pax(b'x', "comment", &"n".repeat(100_000))
                .file("a", ""),
            "65536",
        ),
    ];
    for (tar, why) in table {
        let error = tar.unpack_within(limits).result.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    // One header may claim what it likes: 8 EiB here.
    let mut tar = Tar::default();
    tar.header(b'0', "huge", "", 0, 0o644);
    let mut header = tar::Header::new_gnu();
    header.set_path("huge").unwrap();
    header.set_size(i64::MAX as u64);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    let error = Tar(header.as_bytes().to_vec())
        .unpack_within(limits)
        .result
        .unwrap_err();
    assert!(matches!(error, ArchiveError::TooLarge(_)), "{error}");
}

#[test]
fn what_is_no_archive_or_half_of_one_is_refused() {
    let mut cut = Tar::default().file("a", &"x".repeat(5000));
    cut.0.truncate(2048);
    let dir = tempfile::tempdir().unwrap();
    for (bytes, why) in [
        (cut.0, "ends"),
        (vec![0x1f, 0x8b, 8, 0, 0, 0], "tar archive"),
        (b"PK\x03\x04".repeat(200), "tar archive"),
        (vec![0; 1024], "empty"),
        (Vec::new(), "empty"),
    ] {
        let archive = dir.path().join("archive");
        fs::write(&archive, bytes).unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(&root).unwrap();
        let error = unpack(
            open(&archive),
            &root,
            Limits::default(),
            Links::Within,
            &AtomicBool::new(false),
        )
        .unwrap_err();
        assert!(error.to_string().contains(why), "{error} ({why})");
    }
}

#[test]
fn a_full_disk_is_said_as_such() {
    let error = ArchiveError::io(io::Error::from(nix::errno::Errno::ENOSPC));
    assert_eq!(Fault::from(error).code, Code::NoSpace);
}

#[test]
fn a_caller_that_went_away_ends_the_unpacking() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    fs::write(&archive, Tar::default().file("a", "x").0).unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(&root).unwrap();
    let error = unpack(
        open(&archive),
        &root,
        Limits::default(),
        Links::Within,
        &AtomicBool::new(true),
    )
    .unwrap_err();
    assert!(matches!(error, ArchiveError::Cancelled));
}
