//! From the path of a request to a path below the release directory. Pure.

use percent_encoding::percent_decode_str;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Relative, decoded, without empty, `.`, `..` or hidden segments; empty for the root.
    pub path: Vec<u8>,
    /// It ended with a slash.
    pub slash: bool,
    /// As it was asked for, without a slash at its end.
    pub raw: String,
}

impl Wanted {
    /// The last segment.
    pub fn last(&self) -> Option<&[u8]> {
        self.path
            .rsplit(|byte| *byte == b'/')
            .next()
            .filter(|name| !name.is_empty())
    }
}

/// `directory` and `name` as one path.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        return name.to_vec();
    }
    [directory, b"/", name].concat()
}

/// Reads the `raw` path of a request.
///
/// # Errors
/// The status to answer with: 400 for what is no path, 404 for what is never there.
pub fn wanted(raw: &str) -> Result<Wanted, u16> {
    let rest = raw.strip_prefix('/').ok_or(400_u16)?;
    if rest.starts_with('/') {
        return Err(404);
    }
    let slash = rest.is_empty() || rest.ends_with('/');
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let mut path = Vec::with_capacity(rest.len());
    if !rest.is_empty() {
        for (position, segment) in rest.split('/').enumerate() {
            let name = decode(segment)?;
            // An empty segment would make `//host` of a redirection.
            let known = position == 0 && name == b".well-known";
            if name.is_empty() || (name.starts_with(b".") && !known) {
                return Err(404);
            }
            path = join(&path, &name);
        }
    }
    let raw = raw.strip_suffix('/').unwrap_or(raw).to_owned();
    Ok(Wanted { path, slash, raw })
}

/// One segment, decoded once.
fn decode(segment: &str) -> Result<Vec<u8>, u16> {
    let bytes = segment.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        let digits = bytes.get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(400);
        }
    }
    let name: Vec<u8> = percent_decode_str(segment).collect();
    if name.contains(&0) {
        return Err(400);
    }
    // An encoded slash is a character of a name, and no file name has one.
    if name.contains(&b'/') || name.len() > 255 {
        return Err(404);
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(raw: &str) -> Result<(String, bool), u16> {
        wanted(raw).map(|wanted| (String::from_utf8(wanted.path).unwrap(), wanted.slash))
    }

    #[test]
    fn paths_are_decoded_once() {
        for (raw, expected, slash) in [
            ("/", "", true),
            ("/a", "a", false),
            ("/a/b/", "a/b", true),
            ("/a%20b/%C3%A9", "a b/é", false),
            ("/%252e%252e/x", "%2e%2e/x", false),
            ("/.well-known/acme", ".well-known/acme", false),
            ("/a\\..\\b", "a\\..\\b", false),
        ] {
            assert_eq!(path(raw), Ok((expected.to_owned(), slash)), "{raw}");
        }
    }

    #[test]
    fn nothing_leads_out_of_the_directory_or_to_hidden_files() {
        for raw in [
            "/..",
            "/../etc/passwd",
            "/a/../b",
            "/%2e%2e/x",
            "/.%2e/x",
            "/a/%2E%2E/%2e%2e/x",
            "/.",
            "/a/./b",
            "//",
            "//evil.test",
            "/a//b",
            "/..%2f..%2fetc",
            "/a%2fb",
            "/.git/config",
            "/a/.env",
            "/x/.well-known/y",
            "/%2egit/config",
        ] {
            assert_eq!(path(raw), Err(404), "{raw}");
        }
        for raw in ["", "a", "/%", "/%2", "/%zz", "/a%00.html", "*"] {
            assert_eq!(path(raw), Err(400), "{raw}");
        }
    }
}
