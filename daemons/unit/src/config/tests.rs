use super::*;
use serde::Deserialize;
use std::os::unix::fs::symlink;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Settings {
    name: String,
    limits: Limits,
    hosts: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            limits: Limits::default(),
            hosts: Vec::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Limits {
    max_open: u32,
    max_busy: u32,
}

fn text(file: &str, text: &str) -> Text {
    Text {
        file: file.to_owned(),
        text: text.to_owned(),
    }
}

fn settings(texts: &[Text]) -> Result<Settings, ConfigError> {
    parse(texts)
}

#[test]
fn no_file_is_the_default() {
    assert_eq!(settings(&[]).unwrap(), Settings::default());
}

#[test]
fn tables_are_merged_and_everything_else_is_replaced() {
    let got = settings(&[
        text(
            "a",
            "hosts = ['x', 'y']\n[limits]\nmax-open = 1\nmax-busy = 1\n",
        ),
        text("b", "name = 'b'\nhosts = ['z']\nlimits.max-busy = 2\n"),
    ])
    .unwrap();
    let limits = Limits {
        max_open: 1,
        max_busy: 2,
    };
    assert_eq!((got.name.as_str(), got.limits), ("b", limits));
    assert_eq!(got.hosts, ["z"]);
}

#[test]
fn every_error_names_file_and_line() {
    let good = text("good.toml", "name = 'x'\n\n[limits]\nmax-open = 1\n");
    for (bad, line, message) in [
        (
            "# c\nnmae = 'y'\n",
            2,
            "unknown key `nmae`; there are `name`, ",
        ),
        (
            "[limits]\n\nmax-bsuy = 1\n",
            3,
            "unknown key `max-bsuy`; there are `max-open`, ",
        ),
        (
            "[limits]\nmax-open = 'many'\n",
            2,
            "limits.max-open: a whole number is wanted, not \"many\"",
        ),
        ("limits = 3\n", 1, "limits: a table is wanted, not `3`"),
        ("name = 'a'\nname = 'b'\n", 2, "duplicate key"),
        ("name = \n", 1, "expected"),
        (
            "[limits]\nmax-open = -1",
            2,
            "limits.max-open: a whole number from 0 to",
        ),
        (
            "hosts = [\n'a',\n 3]",
            3,
            "hosts: a text in quotes is wanted, not `3`",
        ),
    ] {
        let bad = text("bad.toml", bad);
        for texts in [
            [good.clone(), bad.clone()].as_slice(),
            &[bad.clone(), text("other.toml", "# nothing\n")],
        ] {
            let error = settings(texts).unwrap_err().to_string();
            let expected = format!("bad.toml:{line}: ");
            assert!(error.starts_with(&expected), "{bad:?} gave {error:?}");
            assert!(error.contains(message), "{bad:?} gave {error:?}");
        }
    }
}

#[test]
fn what_is_missing_from_all_files_names_them_all() {
    #[derive(Debug, Deserialize)]
    struct Needy {
        #[expect(dead_code, reason = "only its absence matters")]
        domain: String,
    }
    let none = parse::<Needy>(&[]).unwrap_err().to_string();
    assert_eq!(none, "missing field `domain` (read: no file)");
    let two = parse::<Needy>(&[text("a", ""), text("b", "")]).unwrap_err();
    assert!(two.to_string().ends_with("(read: a, b)"), "{two}");
}

#[test]
fn later_directories_win_and_mask_drop_ins_of_the_same_name() {
    let root = tempfile::tempdir().unwrap();
    let [vendor, admin] = ["usr", "etc"].map(|name| root.path().join(name));
    let write = |directory: &Path, file: &str, text: &str| {
        let path = directory.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        &vendor,
        "proxy.toml",
        "name = 'vendor'\nlimits.max-open = 1",
    );
    write(&vendor, "proxy.toml.d/10-a.toml", "limits.max-busy = 10");
    write(&vendor, "proxy.toml.d/20-b.toml", "hosts = ['vendor']");
    write(&vendor, "proxy.toml.d/.hidden.toml", "nonsense");
    write(&vendor, "proxy.toml.d/README", "nonsense");
    write(&admin, "proxy.toml", "name = 'admin'");
    write(&admin, "proxy.toml.d/10-a.toml", "limits.max-open = 3");
    symlink("/dev/null", admin.join("proxy.toml.d/20-b.toml")).unwrap();
    let got: Settings = load("proxy", &[vendor, admin]).unwrap();
    let limits = Limits {
        max_open: 3,
        max_busy: 0,
    };
    assert_eq!((got.name.as_str(), got.limits), ("admin", limits));
    assert!(got.hosts.is_empty(), "masked by the link to /dev/null");
}

#[test]
fn drop_ins_apply_in_the_order_of_their_names_over_all_directories() {
    let root = tempfile::tempdir().unwrap();
    let [vendor, admin] = ["usr", "etc"].map(|name| root.path().join(name));
    for (directory, file) in [(&vendor, "90-z.toml"), (&admin, "10-a.toml")] {
        let directory = directory.join("proxy.toml.d");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(file), format!("name = '{file}'")).unwrap();
    }
    let got: Settings = load("proxy", &[vendor, admin]).unwrap();
    assert_eq!(got.name, "90-z.toml");
}

#[test]
fn devices_named_as_configuration_end_in_an_error() {
    let root = tempfile::tempdir().unwrap();
    symlink("/dev/zero", root.path().join("proxy.toml")).unwrap();
    let error = load::<Settings>("proxy", &[root.path().to_owned()]).unwrap_err();
    assert!(matches!(error, ConfigError::Limit { .. }), "{error}");
}

#[test]
fn the_variable_replaces_the_directories_of_the_system() {
    assert_eq!(directories_from(None), SYSTEM_DIRS.map(PathBuf::from));
    let given = directories_from(Some("/a::/b".into()));
    assert_eq!(given, ["/a", "/b"].map(PathBuf::from));
}
