//! What is wrong with a value, in the words of who wrote it: the key comes first, and nobody has to know
//! what the program calls its types.

use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Keys that only `temps up` writes. They are in no manual, so they are offered to nobody.
const INTERNAL: [&str; 2] = ["standalone", "instance-program"];

/// Where the value of every key is, to find a key by a position.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<(Range<usize>, String)>);

impl Keys {
    pub(super) fn of(table: &DeTable<'_>) -> Self {
        let mut keys = Self::default();
        keys.add(table, "");
        keys
    }

    fn add(&mut self, table: &DeTable<'_>, parent: &str) {
        for (key, value) in table {
            let name = match parent {
                "" => key.get_ref().to_string(),
                _ => format!("{parent}.{}", key.get_ref()),
            };
            if let DeValue::Table(table) = value.get_ref() {
                self.add(table, &name);
            }
            self.0.push((value.span(), name));
        }
    }

    /// The innermost key whose value is at the position.
    pub(super) fn at(&self, position: usize) -> Option<&str> {
        let holds = |span: &Range<usize>| span.contains(&position);
        self.0
            .iter()
            .filter(|(span, _)| holds(span))
            .min_by_key(|(span, _)| span.len())
            .map(|(_, key)| key.as_str())
    }
}

/// The parser's message about the value of `key`, in our words.
pub(super) fn reworded(key: Option<&str>, message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return unknown_key(rest);
    }
    if message.starts_with("missing field ") {
        return message.to_owned();
    }
    let said = mismatch(message).unwrap_or_else(|| message.to_owned());
    match key {
        Some(key) => format!("{key}: {said}"),
        None => said,
    }
}

/// After `unknown field `: the key, and those that there are.
fn unknown_key(rest: &str) -> String {
    let (key, known) = rest.split_once(", ").unwrap_or((rest, ""));
    // Quoted ones are at the odd places.
    let known: Vec<String> = known
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|known| !INTERNAL.contains(known))
        .map(|known| format!("`{known}`"))
        .collect();
    if known.is_empty() {
        return format!("unknown key {key}");
    }
    format!("unknown key {key}; there are {}", known.join(", "))
}

/// A value that is not what is wanted.
fn mismatch(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (given, wanted) = rest.split_once(", expected ")?;
        return Some(format!("{wanted} is wanted, not {given}"));
    }
    let (is_type, rest) = match message.strip_prefix("invalid type: ") {
        Some(rest) => (true, rest),
        None => (false, message.strip_prefix("invalid value: ")?),
    };
    let (given, expected) = rest.rsplit_once(", expected ")?;
    let (wanted, given) = (wanted(expected, !is_type), self::given(given));
    Some(format!("{wanted} is wanted, not {given}"))
}

/// What the program calls `expected`; with its limits, if those are what was missed.
fn wanted(expected: &str, limits: bool) -> String {
    let range = match expected {
        "u8" => ("0", "255"),
        "u16" => ("0", "65535"),
        "u32" => ("0", "4294967295"),
        "u64" | "u128" | "usize" => ("0", ""),
        "i8" => ("-128", "127"),
        "i16" => ("-32768", "32767"),
        "i32" => ("-2147483648", "2147483647"),
        "i64" | "i128" | "isize" => ("", ""),
        "f32" | "f64" => return "a number".to_owned(),
        "a boolean" => return "true or false".to_owned(),
        "a string" | "string" | "string or table" => return "a text in quotes".to_owned(),
        "a sequence" => return "a list".to_owned(),
        "a map" => return "a table".to_owned(),
        _ if expected.starts_with("struct ") => return "a table".to_owned(),
        _ => return expected.to_owned(),
    };
    let whole = "a whole number";
    match range {
        (from, to) if limits && !to.is_empty() => format!("{whole} from {from} to {to}"),
        ("0", "") if limits => format!("{whole}, 0 or more,"),
        _ => whole.to_owned(),
    }
}

/// What the parser calls the value that is there.
fn given(value: &str) -> &str {
    match value {
        "sequence" => "a list",
        "map" => "a table",
        _ => ["string ", "integer ", "floating point ", "boolean "]
            .iter()
            .find_map(|kind| value.strip_prefix(kind))
            .unwrap_or(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_spoken_of_by_its_key() {
        for (message, expected) in [
            (
                "invalid type: string \"lots\", expected u64",
                "k: a whole number is wanted, not \"lots\"",
            ),
            (
                "invalid type: string \"a, expected b\", expected usize",
                "k: a whole number is wanted, not \"a, expected b\"",
            ),
            (
                "invalid value: integer `-1`, expected u64",
                "k: a whole number, 0 or more, is wanted, not `-1`",
            ),
            (
                "invalid value: integer `70000`, expected u16",
                "k: a whole number from 0 to 65535 is wanted, not `70000`",
            ),
            (
                "invalid type: integer `1`, expected a boolean",
                "k: true or false is wanted, not `1`",
            ),
            (
                "invalid type: map, expected a string",
                "k: a text in quotes is wanted, not a table",
            ),
            (
                "unknown variant `ftp`, expected `http` or `https`",
                "k: `http` or `https` is wanted, not `ftp`",
            ),
            ("`2 m` is not a duration", "k: `2 m` is not a duration"),
        ] {
            assert_eq!(reworded(Some("k"), message), expected);
        }
    }

    #[test]
    fn a_list_of_keys_leaves_out_those_of_temps_up() {
        let said = "unknown field `x`, expected one of `a`, `standalone`, `instance-program`, `b`";
        assert_eq!(reworded(None, said), "unknown key `x`; there are `a`, `b`");
        let said = "unknown field `x`, there are no fields";
        assert_eq!(reworded(None, said), "unknown key `x`");
    }
}
