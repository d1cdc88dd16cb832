//! `Range` with one range of bytes (RFC 9110 section 14). Pure. Several ranges, other units and
//! malformed fields are ignored, as the RFC allows: the whole file is the answer.

use http::HeaderMap;
use http::header::RANGE;

/// The part of a file to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    Whole,
    /// `count` (at least one) bytes from `start`.
    Bytes {
        /// Offset of the first.
        start: u64,
        /// How many.
        count: u64,
    },
    /// The range lies outside.
    Unsatisfiable,
}

/// The part of a file of `length` bytes that is asked for.
pub fn requested(headers: &HeaderMap, length: u64) -> Part {
    let mut fields = headers.get_all(RANGE).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Part::Whole;
    };
    field
        .to_str()
        .ok()
        .and_then(|field| parse(field, length))
        .unwrap_or(Part::Whole)
}

fn parse(field: &str, length: u64) -> Option<Part> {
    let (unit, range) = field.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    if first.is_empty() {
        let wanted = number(last)?;
        let count = wanted.min(length);
        return Some(if count == 0 {
            Part::Unsatisfiable
        } else {
            Part::Bytes {
                start: length - count,
                count,
            }
        });
    }
    let start = number(first)?;
    let end = if last.is_empty() {
        u64::MAX
    } else {
        number(last)?
    };
    if end < start {
        return None;
    }
    if start >= length {
        return Some(Part::Unsatisfiable);
    }
    let end = end.min(length - 1);
    Some(Part::Bytes {
        start,
        count: end - start + 1,
    })
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number too large for us is larger than any file.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_understood_and_the_rest_ignored() {
        let bytes = |start, count| Part::Bytes { start, count };
        for (field, expected) in [
            ("bytes=0-0", bytes(0, 1)),
            ("bytes=2-4", bytes(2, 3)),
            ("bytes=5-", bytes(5, 5)),
            ("bytes=5-99", bytes(5, 5)),
            ("bytes=-3", bytes(7, 3)),
            ("bytes=-99", bytes(0, 10)),
            ("Bytes=0-99999999999999999999", bytes(0, 10)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=4-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=-", Part::Whole),
            ("items=0-1", Part::Whole),
            ("bytes", Part::Whole),
            ("bytes=+1-2", Part::Whole),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, field.parse().unwrap());
            assert_eq!(requested(&headers, 10), expected, "{field}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, "bytes=0-0".parse().unwrap());
        assert_eq!(requested(&headers, 0), Part::Unsatisfiable);
    }
}
