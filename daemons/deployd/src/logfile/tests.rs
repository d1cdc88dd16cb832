use super::*;
use std::fs;
use temps_ipc::types::LogStream::{Platform, Stderr, Stdout};

fn texts(lines: Vec<Entry>) -> Vec<String> {
    lines.into_iter().map(|(.., text)| text).collect()
}

#[test]
fn what_is_written_is_read_back_by_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs/web.log");
    let reader = Reader::new(&path);
    assert_eq!(reader.read(None, 10).unwrap().0, Vec::new());
    let mut writer = Writer::open(&path).unwrap();
    writer.line(Stdout, "one");
    writer.line(Stderr, "two");
    let (lines, cursor) = reader.read(None, 10).unwrap();
    assert_eq!((lines[0].1, lines[1].1), (Stdout, Stderr));
    assert_eq!(texts(lines), ["one", "two"]);
    writer.line(Platform, "three");
    let (lines, next) = reader.read(Some(cursor), 10).unwrap();
    assert_eq!(texts(lines), ["three"]);
    assert_eq!(reader.read(Some(next), 10).unwrap(), (Vec::new(), next));
    assert_eq!(next.to_string().parse::<Cursor>(), Ok(next));
}

#[test]
fn a_limit_is_kept_and_the_cursor_stands_after_the_last_line_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path).unwrap();
    (0..5).for_each(|n| writer.line(Stdout, &n.to_string()));
    let reader = Reader::new(&path);
    let (lines, cursor) = reader.read(None, 2).unwrap();
    assert_eq!(texts(lines), ["0", "1"]);
    let (lines, _) = reader.read(Some(cursor), 2).unwrap();
    assert_eq!(texts(lines), ["2", "3"]);
}

#[test]
fn a_cursor_survives_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path).unwrap().with_max_file(400);
    let reader = Reader::new(&path);
    let mut cursor = None;
    let mut seen = Vec::new();
    for n in 0..200 {
        writer.line(Stdout, &format!("line {n}"));
        if n % 7 == 0 {
            let (lines, next) = reader.read(cursor, 100).unwrap();
            seen.extend(texts(lines));
            cursor = Some(next);
        }
    }
    seen.extend(texts(reader.read(cursor, 100).unwrap().0));
    let all: Vec<String> = (0..200).map(|n| format!("line {n}")).collect();
    assert_eq!(seen, all);
    assert!(path.with_extension("1").exists() || dir.path().join("log.1").exists());
    assert!(!dir.path().join("log.2").exists());
}

#[test]
fn two_writers_and_a_rotation_lose_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut one = Writer::open(&path).unwrap().with_max_file(2000);
    let mut two = Writer::open(&path).unwrap().with_max_file(2000);
    for n in 0..100 {
        one.line(Stdout, &format!("{n} one"));
        two.line(Stderr, &format!("{n} two"));
    }
    let (lines, _) = Reader::new(&path).tail(40).unwrap();
    let lines = texts(lines);
    assert_eq!(lines.len(), 40);
    assert_eq!(lines[38..], ["99 one", "99 two"]);
    assert_eq!(lines[..2], ["80 one", "80 two"]);
}

#[test]
fn the_tail_reaches_into_the_rotated_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path).unwrap().with_max_file(500);
    (0..40).for_each(|n| writer.line(Stdout, &format!("line {n}")));
    let (lines, cursor) = Reader::new(&path).tail(20).unwrap();
    assert_eq!(texts(lines)[0], "line 20");
    writer.line(Stdout, "after");
    assert_eq!(
        texts(Reader::new(&path).read(Some(cursor), 9).unwrap().0),
        ["after"]
    );
}

#[test]
fn a_line_that_is_being_written_is_not_read_yet() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "1 o whole\n2 o hal").unwrap();
    let reader = Reader::new(&path);
    let (lines, cursor) = reader.read(None, 10).unwrap();
    assert_eq!(texts(lines), ["whole"]);
    fs::write(&path, "1 o whole\n2 o half\n").unwrap();
    assert_eq!(texts(reader.read(Some(cursor), 10).unwrap().0), ["half"]);
}

#[test]
fn a_writer_that_was_killed_within_a_line_spoils_only_that_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "1 o whole\n2").unwrap();
    Writer::open(&path).unwrap().line(Stdout, "next");
    assert_eq!(
        texts(Reader::new(&path).read(None, 10).unwrap().0),
        ["whole", "next"]
    );
}

#[test]
fn odd_bytes_become_one_printable_line() {
    for (bytes, text) in [
        (&b"a\0b\x07\r"[..], "ab"),
        (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        (b"tab\there \x1b[31mred", "tab\there \x1b[31mred"),
        ("csi \u{9b}31m".as_bytes(), "csi 31m"),
    ] {
        assert_eq!(clean(bytes), text, "{bytes:?}");
    }
    assert!(clean(&[0xff; 2 * MAX_LINE]).len() <= MAX_LINE);
}

#[test]
fn an_endless_line_takes_bounded_memory_and_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path).unwrap();
    let mut splitter = Splitter::new(Stdout);
    for _ in 0..100 {
        splitter.feed(&[b'x'; 4096], &mut writer);
    }
    splitter.feed(b"\nnext", &mut writer);
    splitter.finish(&mut writer);
    writer.flush();
    let lines = texts(Reader::new(&path).read(None, 10).unwrap().0);
    assert_eq!(lines[0].len(), MAX_LINE);
    assert_eq!(lines[1], "next");
}

#[test]
fn a_full_disk_drops_lines_and_says_how_many() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    // Every write to it fails with ENOSPC.
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let mut writer = Writer::open(&path).unwrap();
    writer.line(Stdout, "lost");
    writer.line(Stdout, "lost too");
    fs::remove_file(&path).unwrap();
    writer.line(Stdout, "kept");
    let lines = texts(Reader::new(&path).read(None, 10).unwrap().0);
    assert_eq!(
        lines,
        [
            "2 lines are missing here: the log could not be written",
            "kept"
        ]
    );
}

#[test]
fn lines_since_a_moment_are_found_across_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path).unwrap().with_max_file(300);
    for n in 0..30 {
        writer.push(Timestamp(1000 + n), Stdout, format!("line {n}").as_bytes());
        writer.flush();
    }
    let lines = texts(Reader::new(&path).since(Timestamp(1020)).unwrap());
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[0], "line 20");
}

#[test]
fn the_last_mark_and_what_was_written_behind_it_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let reader = Reader::new(&path);
    let marked = || {
        let found = reader.marked().unwrap();
        found.map(|(mark, behind)| (mark, texts(behind)))
    };
    assert_eq!(marked(), None);
    let mut writer = Writer::open(&path).unwrap().with_max_file(300_000);
    writer.line(Stdout, "1 c forged .");
    assert_eq!(marked(), None);
    for mark in ["s=1;i=1", "s=1;i=2"] {
        writer.push(Timestamp(1), Stdout, b"before");
        writer.mark(mark);
        writer.flush();
    }
    assert_eq!(marked(), Some(("s=1;i=2".to_owned(), vec![])));
    writer.line(Platform, "behind");
    // Further than one look at the end, and over a rotation.
    let long = "x".repeat(10_000);
    (0..40).for_each(|_| writer.line(Stderr, &long));
    let (mark, behind) = marked().unwrap();
    assert_eq!(mark, "s=1;i=2");
    assert_eq!((behind.len(), behind[0].as_str()), (41, "behind"));
    assert!(
        texts(reader.read(None, 5).unwrap().0)
            .iter()
            .all(|line| !line.contains("s=1"))
    );
}

#[test]
fn a_mark_that_was_written_in_part_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "1 c s=1;i=1 .\n2 o line\n3 c s=1;i=2").unwrap();
    let reader = Reader::new(&path);
    let (mark, behind) = reader.marked().unwrap().unwrap();
    assert_eq!(
        (mark.as_str(), texts(behind)),
        ("s=1;i=1", vec!["line".to_owned()])
    );
    Writer::open(&path).unwrap().line(Stdout, "next");
    let (mark, behind) = reader.marked().unwrap().unwrap();
    assert_eq!((mark.as_str(), behind.len()), ("s=1;i=1", 2));
}
