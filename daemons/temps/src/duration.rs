//! Durations as people write them: `90s`, `2m`, `1m30s`, `500ms`.

use std::time::Duration;

/// The units, longest name first where one is the start of another.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a duration: one or more of NUMBER and `ms`, `s`, `m`, `h` or `d`, or `0`.
///
/// # Errors
/// Says what a duration looks like.
pub fn parse(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let bad = || format!("`{text}` is not a duration: write it like 90s, 2m, 1m30s or 500ms");
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let (_, millis) = UNITS
            .into_iter()
            .find(|(name, _)| *name == &rest[..letters])
            .ok_or_else(bad)?;
        rest = &rest[letters..];
        total = number
            .checked_mul(millis)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(bad)?;
    }
    if text.is_empty() {
        return Err(bad());
    }
    Ok(Duration::from_millis(total))
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
            let error = parse(text).unwrap_err();
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
