use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn packed(root: &Path, rules: Rules) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    pack(root, rules, &mut bytes)?;
    Ok(bytes)
}

/// Path and content (or target) of everything in an archive, in its order.
fn listed(bytes: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        if let Some(target) = entry.link_name().unwrap() {
            text = format!("-> {}", target.display());
        }
        (path, text)
    });
    entries.collect()
}

fn names(root: &Path, rules: Rules) -> Vec<String> {
    let listed = listed(&packed(root, rules).unwrap());
    listed
        .into_iter()
        .map(|(path, _)| path.trim_end_matches('/').to_owned())
        .collect()
}

#[test]
fn the_same_tree_gives_the_same_bytes_in_order_without_owner() {
    let dir = tree(&[
        ("b.txt", "2"),
        ("a/z.txt", "1"),
        ("a/b/c", "3"),
        (".env.example", "x"),
    ]);
    let one = packed(dir.path(), Rules::Source).unwrap();
    assert_eq!(one, packed(dir.path(), Rules::Source).unwrap());
    assert_eq!(
        names(dir.path(), Rules::Source),
        [".env.example", "a", "a/b", "a/b/c", "a/z.txt", "b.txt"]
    );
    let mut archive = tar::Archive::new(&one[..]);
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.header().uid().unwrap(), 0);
        assert_eq!(entry.header().gid().unwrap(), 0);
        assert!(entry.header().mtime().unwrap() > 1_600_000_000);
    }
}

#[test]
fn ignore_rules_are_followed_and_git_is_never_packed() {
    let dir = tree(&[
        (".git/config", "secret"),
        ("sub/.git/config", "secret"),
        (".gitignore", "node_modules\n*.log\ndist\n"),
        (".tempsignore", "!dist\nnotes.md\n"),
        ("node_modules/x/index.js", ""),
        ("a.log", ""),
        ("notes.md", ""),
        ("dist/app.js", ""),
        ("sub/.gitignore", "private\n"),
        ("sub/private", ""),
        ("sub/public", ""),
    ]);
    assert_eq!(
        names(dir.path(), Rules::Source),
        [
            ".gitignore",
            ".tempsignore",
            "dist",
            "dist/app.js",
            "sub",
            "sub/.gitignore",
            "sub/public"
        ]
    );
    let files = names(dir.path(), Rules::Files);
    assert!(
        files.contains(&"a.log".to_owned()),
        "only .tempsignore counts for files"
    );
    assert!(!files.contains(&"notes.md".to_owned()));
    assert!(
        files.iter().all(|name| !name.contains(".git/")),
        "{files:?}"
    );
}

#[test]
fn rules_of_directories_above_do_not_count() {
    let dir = tree(&[
        (".gitignore", "*\n"),
        (".tempsignore", "*\n"),
        ("app/index.html", "x"),
    ]);
    assert_eq!(
        names(&dir.path().join("app"), Rules::Source),
        ["index.html"]
    );
}

#[test]
fn links_inside_stay_links_and_links_outside_are_named() {
    let dir = tree(&[("a/file", "1"), ("b/other", "2")]);
    symlink("../a/file", dir.path().join("b/link")).unwrap();
    symlink("b", dir.path().join("dir-link")).unwrap();
    let listed: BTreeMap<_, _> = listed(&packed(dir.path(), Rules::Source).unwrap())
        .into_iter()
        .collect();
    assert_eq!(listed["b/link"], "-> ../a/file");
    assert_eq!(listed["dir-link"], "-> b");
    assert!(
        !listed.contains_key("dir-link/other"),
        "links are not followed"
    );
    for target in ["../../etc/passwd", "/etc/passwd", "../a/../../x"] {
        let link = dir.path().join("b/bad");
        symlink(target, &link).unwrap();
        let error = packed(dir.path(), Rules::Source).unwrap_err();
        assert!(
            error.to_string().contains("b/bad") && error.to_string().contains(target),
            "{error}"
        );
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn an_ignored_bad_link_does_no_harm() {
    let dir = tree(&[("a", "1"), (".tempsignore", "bad\n")]);
    symlink("/etc/passwd", dir.path().join("bad")).unwrap();
    assert_eq!(names(dir.path(), Rules::Source), [".tempsignore", "a"]);
}

#[test]
fn special_and_unreadable_files_are_refused_by_name() {
    let dir = tree(&[("a", "1")]);
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let error = packed(dir.path(), Rules::Source).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`pipe` is a named pipe, which a release cannot hold"
    );
    fs::remove_file(pipe).unwrap();
    if !nix::unistd::geteuid().is_root() {
        let path = dir.path().join("a");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let error = packed(dir.path(), Rules::Source).unwrap_err();
        assert!(
            error.to_string().starts_with("`a` cannot be read"),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_shrinks_is_noticed() {
    let dir = tree(&[("a", "12345")]);
    let file = File::open(dir.path().join("a")).unwrap();
    let mut exact = Exact {
        file,
        left: 9,
        failed: None,
    };
    let mut bytes = Vec::new();
    assert!(exact.read_to_end(&mut bytes).is_err());
    assert_eq!(exact.failed.unwrap().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn long_paths_survive() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
    let dir = tree(&[(&long, "deep")]);
    let listed = listed(&packed(dir.path(), Rules::Source).unwrap());
    assert_eq!(listed[1], (long, "deep".to_owned()));
}

#[test]
fn an_empty_directory_and_no_directory_are_refused() {
    let dir = tree(&[
        (".gitignore", "*\n"),
        (".tempsignore", ".gitignore\n.tempsignore\n"),
    ]);
    assert!(matches!(
        packed(dir.path(), Rules::Source),
        Err(ArchiveError::Empty(_))
    ));
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(
        packed(&nowhere, Rules::Source),
        Err(ArchiveError::NotADirectory(_))
    ));
}
