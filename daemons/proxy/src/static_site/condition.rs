//! Conditional requests (RFC 9110 section 13): the tags of a file, and whether the client has it. Pure.

use http::HeaderMap;
use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE};
use httpdate::{fmt_http_date, parse_http_date};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What identifies the content of a file. A release never changes, so inode, size and modification
/// time in nanoseconds do, without reading it.
#[derive(Debug, Clone)]
pub struct Tags {
    etag: String,
    /// In whole seconds, as HTTP has them.
    modified: Option<SystemTime>,
}

impl Tags {
    /// The tags of a file.
    pub fn of(metadata: &Metadata) -> Self {
        let modified = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            etag: format!(
                "\"{:x}-{:x}-{:x}\"",
                metadata.ino(),
                metadata.len(),
                modified.map_or(0, |since| since.as_nanos())
            ),
            modified: modified.map(|since| UNIX_EPOCH + Duration::from_secs(since.as_secs())),
        }
    }

    /// The strong entity tag.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// As a date of HTTP.
    pub fn last_modified(&self) -> Option<String> {
        self.modified.map(fmt_http_date)
    }

    /// Whether the client says that it has this content.
    pub fn unchanged(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(IF_NONE_MATCH) {
            let values = headers
                .get_all(IF_NONE_MATCH)
                .iter()
                .filter_map(|value| value.to_str().ok());
            return values
                .flat_map(|value| value.split(','))
                .map(str::trim)
                .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag);
        }
        let since = headers
            .get(IF_MODIFIED_SINCE)
            .and_then(|value| value.to_str().ok());
        match (
            since.and_then(|since| parse_http_date(since).ok()),
            self.modified,
        ) {
            (Some(since), Some(modified)) => modified <= since,
            _ => false,
        }
    }

    /// Whether a range may be cut from this content: without `If-Range`, or if it names it.
    pub fn range_applies(&self, headers: &HeaderMap) -> bool {
        let Some(named) = headers.get(IF_RANGE) else {
            return true;
        };
        let Ok(named) = named.to_str() else {
            return false;
        };
        // Compared strongly: a weak tag never fits.
        named == self.etag
            || (self.modified.is_some() && parse_http_date(named).ok() == self.modified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags() -> Tags {
        Tags {
            etag: "\"1-2-3\"".into(),
            modified: Some(UNIX_EPOCH + Duration::from_secs(784_111_777)),
        }
    }

    fn headers(fields: &[(http::HeaderName, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_client_that_has_it_is_recognised() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let earlier = "Sun, 06 Nov 1994 08:49:36 GMT";
        for (fields, expected) in [
            (vec![], false),
            (vec![(IF_NONE_MATCH, "\"1-2-3\"")], true),
            (vec![(IF_NONE_MATCH, "\"x\", W/\"1-2-3\"")], true),
            (vec![(IF_NONE_MATCH, "*")], true),
            (vec![(IF_NONE_MATCH, "\"x\"")], false),
            (vec![(IF_MODIFIED_SINCE, date)], true),
            (vec![(IF_MODIFIED_SINCE, earlier)], false),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], false),
            (
                vec![(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, date)],
                false,
            ),
        ] {
            assert_eq!(tags().unchanged(&headers(&fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_range_is_cut_only_from_the_content_named() {
        for (value, expected) in [
            ("\"1-2-3\"", true),
            ("W/\"1-2-3\"", false),
            ("\"x\"", false),
            ("Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", false),
        ] {
            assert_eq!(
                tags().range_applies(&headers(&[(IF_RANGE, value)])),
                expected,
                "{value}"
            );
        }
        assert!(tags().range_applies(&HeaderMap::new()));
    }
}
