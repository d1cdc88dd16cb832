//! temps.toml(5) against the daemons: every setting is in it, with its type and its real default.
//!
//! In the page a setting is `.It Cm KEY No = Li VALUE`, the default in TOML, or `.It Cm KEY` if it has
//! none; the next line is its type. A table of proxy.toml is a `.Ss [TABLE]`.

use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use temps_unit::config::{ConfigError, Text, parse};

const PAGE: &str = "man/temps.toml.5";

/// What only `temps up` sets.
const INTERNAL: [&str; 2] = ["standalone", "instance-program"];

/// A setting as the page has it.
#[derive(Debug)]
struct Setting {
    /// Empty at the top level.
    table: String,
    key: String,
    default: Option<String>,
    kind: String,
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(PAGE);
    std::fs::read_to_string(path).expect("the page is there")
}

/// The settings in the section of `file` (`PROXY.TOML`).
fn documented(page: &str, file: &str) -> Vec<Setting> {
    let begin = format!("\n.Sh {file}\n");
    let (_, rest) = page.split_once(&begin).expect("the file has a section");
    let (section, _) = rest.split_once("\n.Sh ").expect("another section follows");
    let mut table = String::new();
    let mut settings = Vec::new();
    let mut lines = section.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix(".Ss ") {
            table = heading.trim_matches(['[', ']']).to_owned();
        }
        let Some(item) = line.strip_prefix(".It Cm ") else {
            continue;
        };
        let item = item.replace("\\-", "-").replace("\\(dq", "\"");
        let (key, default) = match item.split_once(" No = Li ") {
            Some((key, default)) => (key.to_owned(), Some(default.to_owned())),
            None => (item, None),
        };
        let kind = lines.next().and_then(|line| line.strip_prefix(".Pq "));
        settings.push(Setting {
            table: table.clone(),
            kind: kind
                .unwrap_or_else(|| panic!("{key} has no type"))
                .to_owned(),
            key,
            default,
        });
    }
    settings
}

/// Everything that is documented with a default, as a file would say it.
fn as_file(settings: &[Setting]) -> String {
    let mut text = String::new();
    let mut table = "";
    for setting in settings {
        if setting.table != table {
            table = &setting.table;
            text.push_str(&format!("[{table}]\n"));
        }
        if let Some(default) = &setting.default {
            text.push_str(&format!("{} = {default}\n", setting.key));
        }
    }
    text
}

fn read<T: DeserializeOwned>(text: String) -> Result<T, ConfigError> {
    let file = PAGE.to_owned();
    parse(&[Text { file, text }])
}

/// The keys of a table, by what the daemon says when it is given another one.
fn keys<T: DeserializeOwned + Debug>(table: &str) -> BTreeSet<String> {
    let heading = match table {
        "" => String::new(),
        table => format!("[{table}]\n"),
    };
    let refusal = read::<T>(format!("{heading}no-such-key = 1\n"))
        .expect_err("there is no such key")
        .to_string();
    let (_, expected) = refusal
        .split_once("there are ")
        .expect("it says which keys there are");
    let names = expected.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

/// Whether a value in TOML can be of the documented type.
fn fits(kind: &str, value: &str) -> bool {
    let inner = value.trim_matches('"');
    match kind {
        "boolean" => matches!(value, "true" | "false"),
        "integer" => value.parse::<u64>().is_ok(),
        "duration" => temps_unit::duration::parse(inner).is_ok() && inner != value,
        "path" => inner.starts_with('/') && inner != value,
        "text" => inner != value,
        "list" => value.starts_with('[') && value.ends_with(']'),
        _ => false,
    }
}

fn holds<T: DeserializeOwned + Default + Debug>(file: &str, tables: &[&str]) {
    let settings = documented(&page(), file);
    for table in tables {
        let mut wanted = keys::<T>(table);
        if table.is_empty() {
            // They have headings of their own.
            wanted.retain(|key| !tables.contains(&key.as_str()));
        }
        let found: BTreeSet<String> = settings
            .iter()
            .filter(|setting| setting.table == *table)
            .map(|setting| setting.key.clone())
            // Offered to nobody.
            .filter(|key| !INTERNAL.contains(&key.as_str()))
            .collect();
        assert_eq!(
            found, wanted,
            "[{table}] of {file}, in the page and in the daemon"
        );
    }
    for setting in &settings {
        assert!(tables.contains(&setting.table.as_str()), "{setting:?}");
        let value = setting.default.as_deref();
        let kinds = ["boolean", "integer", "duration", "path", "text", "list"];
        assert!(kinds.contains(&setting.kind.as_str()), "{setting:?}");
        assert!(
            value.is_none_or(|value| fits(&setting.kind, value)),
            "{setting:?}"
        );
    }
    let stated: T = read(as_file(&settings)).expect("the page's defaults are a file");
    assert_eq!(
        format!("{stated:#?}"),
        format!("{:#?}", T::default()),
        "{file}"
    );
}

#[test]
fn every_setting_of_the_proxy_is_documented_with_its_default() {
    let tables = ["", "timeouts", "limits", "probes", "spool"];
    holds::<temps_proxy::config::Settings>("PROXY.TOML", &tables);
}

#[test]
fn every_setting_of_deployd_is_documented_with_its_default() {
    holds::<temps_deployd::config::Settings>("DEPLOYD.TOML", &[""]);
}

/// The settings of an example file: each stands behind a `#` without a blank.
fn example(name: &str) -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/examples");
    let text = std::fs::read_to_string(root.join(name)).expect("the example is there");
    let lines = text.lines().filter_map(|line| line.strip_prefix('#'));
    let mut table = "";
    let mut settings = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with(' ')) {
        match line.split_once(" = ") {
            Some((key, value)) => settings.push((table.into(), key.into(), value.into())),
            None => table = line.trim_matches(['[', ']']),
        }
    }
    settings
}

/// The example `name` shows every setting of the page's section `file` that an operator would write,
/// with its default; one that has none, or an empty list, is shown with a value of its type.
fn shows<T: DeserializeOwned>(name: &str, file: &str, internal: &[&str]) {
    let page = documented(&page(), file);
    let shown = example(name);
    let mut text = String::new();
    for (table, key, value) in &shown {
        let setting = page
            .iter()
            .find(|setting| setting.table == *table && setting.key == *key);
        let setting = setting.unwrap_or_else(|| panic!("{name}: {key} is not in the page"));
        match setting.default.as_deref() {
            None | Some("[]") => assert!(fits(&setting.kind, value), "{name}: {key} = {value}"),
            Some(default) => assert_eq!(value, default, "{name}: {key}"),
        }
        if table.is_empty() {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    assert!(read::<T>(text).is_ok(), "{name} is a file that is taken");
    for setting in page {
        let there = shown
            .iter()
            .any(|(table, key, _)| *table == setting.table && *key == setting.key);
        let expected = !internal.contains(&setting.key.as_str());
        assert_eq!(there, expected, "{name}: {}", setting.key);
    }
}

#[test]
fn the_examples_show_every_setting_with_its_default() {
    shows::<temps_deployd::config::Settings>("deployd.toml", "DEPLOYD.TOML", &INTERNAL);
    shows::<temps_proxy::config::Settings>("proxy.toml", "PROXY.TOML", &INTERNAL);
}

#[test]
fn a_setting_without_a_default_is_one_that_may_be_left_out() {
    let settings = documented(&page(), "DEPLOYD.TOML");
    let none = settings.iter().filter(|setting| setting.default.is_none());
    let none: Vec<&str> = none.map(|setting| setting.key.as_str()).collect();
    let default = format!("{:?}", temps_deployd::config::Settings::default());
    for key in none {
        let field = format!("{}: None", key.replace('-', "_"));
        assert!(default.contains(&field), "{key} has a default");
    }
}

#[test]
fn what_the_page_says_wrongly_would_be_found() {
    let page = "\n.Sh X\n.It Cm a\\-b No = Li \\(dq1s\\(dq\n.Pq duration\n.Ss [t]\n.It Cm c\n.Pq path\n.Sh Y\n";
    let settings = documented(page, "X");
    assert_eq!(as_file(&settings), "a-b = \"1s\"\n[t]\n");
    assert!(fits("duration", "\"1s\"") && !fits("duration", "1") && !fits("integer", "\"1\""));
    assert!(keys::<temps_proxy::config::Settings>("spool").contains("bytes"));
}

/// `systemctl stop` of the target alone returns while they still write.
#[test]
fn the_restoration_of_a_backup_waits_for_every_service() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("man/temps.7")).unwrap();
    let page = page.replace("\\e\n", " ").replace("\\-", "-");
    let stop = page
        .lines()
        .find(|line| line.starts_with("systemctl stop temps.target "))
        .expect("it stops what has a name");
    let stopped: Vec<&str> = stop.split_ascii_whitespace().collect();
    let units = std::fs::read_dir(root.join("systemd/system")).unwrap();
    let mut services = 0;
    for unit in units.map(|unit| unit.unwrap().path()) {
        let is_service = unit.extension().is_some_and(|kind| kind == "service");
        let name = unit.file_name().unwrap().to_string_lossy().into_owned();
        let is_part = || {
            let text = std::fs::read_to_string(&unit).unwrap();
            text.lines().any(|line| line == "PartOf=temps.target")
        };
        if is_service && is_part() {
            services += 1;
            assert!(stopped.contains(&name.as_str()), "{name}: {stop}");
        }
    }
    assert_eq!(services, 4);
}
