//! Durations as people write them: `90s`, `2m`, `1m30s`, `500ms`; the same in every configuration
//! and on the command line.

use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// The units and their milliseconds, from small to large.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write it like 90s, 2m, 1m30s or 500ms")]
pub struct NoDuration(String);

/// Reads a duration: one or more of NUMBER and `ms`, `s`, `m`, `h` or `d`, or `0`.
///
/// # Errors
/// Says what a duration looks like.
pub fn parse(text: &str) -> Result<Duration, NoDuration> {
    read(text).ok_or_else(|| NoDuration(text.to_owned()))
}

fn read(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let mut units = UNITS.into_iter();
        let (_, millis) = units.find(|(name, _)| *name == &rest[..letters])?;
        rest = &rest[letters..];
        total = total.checked_add(number.checked_mul(millis)?)?;
    }
    (!text.is_empty()).then_some(Duration::from_millis(total))
}

/// Reads a duration of a configuration: `#[serde(deserialize_with = "duration::deserialize")]`.
///
/// # Errors
/// As [`parse`], and for what is no text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

/// Writes a duration so that [`parse`] reads it back; parts under a second are left out above a
/// minute.
pub fn show(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis < 1_000 {
        return if millis == 0 {
            "0s".to_owned()
        } else {
            format!("{millis}ms")
        };
    }
    let mut rest = millis;
    let mut text = String::new();
    for (name, unit) in UNITS.into_iter().rev().filter(|(name, _)| *name != "ms") {
        if rest >= unit {
            text.push_str(&format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    if rest > 0 && millis < 60_000 {
        text.push_str(&format!("{rest}ms"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("90s", 90_000),
            ("2m", 120_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1h", 3_600_000),
            ("1d1ms", 86_400_001),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in [
            "",
            "s",
            "5",
            "5x",
            "-5s",
            "5 s",
            "1.5s",
            "5S",
            "é",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("1m30s"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for millis in [0, 5, 1_000, 1_500, 60_000, 90_000, 3_661_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&show(duration)), Ok(duration), "{}", show(duration));
        }
        assert_eq!(show(Duration::from_millis(120_000)), "2m");
        assert_eq!(show(Duration::from_millis(61_250)), "1m1s");
    }
}
