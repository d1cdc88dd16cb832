//! Static sites: files of a release directory, served by the proxy itself.
//!
//! | request | answer |
//! |---|---|
//! | a file | 200, 206, 304 or 416 |
//! | a directory without its slash | 301 to the path with it |
//! | a directory | its `index.html` |
//! | nothing there | with `spa` the root's `index.html`, if a page may be meant; else `404.html` or our page |
//! | a method other than GET and HEAD | 405 |
//!
//! The path is used as it is, also under a route's prefix, as it is for apps. Hidden files
//! (`.git`, `.env`) are never there, except `/.well-known/`. Links are never followed.

mod condition;
mod file;
mod path;
mod range;

use crate::engine::table::{Route, Site};
use bytes::Bytes;
use condition::Tags;
use file::{Found, Opened};
use http::header::{
    ACCEPT, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    LAST_MODIFIED, LOCATION,
};
use http::{HeaderMap, Method};
use path::Wanted;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use range::Part;
use std::path::Path;

/// Names the release in every answer from files.
pub const RELEASE_HEADER: &str = "X-Release";

/// What to answer with.
enum Plan {
    /// Our page for this status.
    Page(u16),
    /// The path with a slash.
    Redirect(String),
    /// A file, found by this name, with this status if it is sent whole.
    File(Opened, Vec<u8>, u16),
}

/// Answers from `site`; a status if the caller is to answer with our page for it.
pub async fn serve(
    session: &mut Session,
    site: &Site,
    route: &Route,
    request_id: &str,
) -> Result<Option<u16>> {
    let request = session.req_header();
    if request.method != Method::GET && request.method != Method::HEAD {
        return Ok(Some(405));
    }
    let wanted = match path::wanted(request.uri.path()) {
        Ok(wanted) => wanted,
        Err(status) => return Ok(Some(status)),
    };
    let (root, spa) = (
        site.root.clone(),
        site.spa && page_may_be_meant(&request.headers, &wanted),
    );
    let plan = tokio::task::spawn_blocking(move || plan(&root, spa, wanted))
        .await
        .map_err(|error| Error::because(ErrorType::InternalError, "reading a file", error))?;
    let release = route.release.as_str();
    match plan {
        Plan::Page(status) => Ok(Some(status)),
        Plan::Redirect(mut location) => {
            if let Some(query) = session.req_header().uri.query() {
                location = format!("{location}?{query}");
            }
            let mut head = head(301, release, request_id)?;
            head.insert_header(LOCATION, location)?;
            head.insert_header(CONTENT_LENGTH, 0)?;
            session.write_response_header(Box::new(head), true).await?;
            Ok(None)
        }
        Plan::File(opened, name, status) => {
            send(session, opened, &name, status, release, request_id).await?;
            Ok(None)
        }
    }
}

/// A script that is missing must not be answered with a page.
fn page_may_be_meant(headers: &HeaderMap, wanted: &Wanted) -> bool {
    let html = |value: &http::HeaderValue| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/html"))
    };
    headers.get_all(ACCEPT).iter().any(html)
        || !wanted.last().is_some_and(|name| name.contains(&b'.'))
}

/// Decides; blocks on the disk.
fn plan(root: &Path, spa: bool, wanted: Wanted) -> Plan {
    let root = match file::open_root(root) {
        Ok(root) => root,
        Err(error) => {
            tracing::debug!(%error, root = %root.display(), "the release directory cannot be read");
            return Plan::Page(503);
        }
    };
    let found = match file::open(&root, &wanted.path) {
        Ok(Found::Directory) if !wanted.slash => return Plan::Redirect(format!("{}/", wanted.raw)),
        Ok(Found::Directory) => {
            let index = path::join(&wanted.path, b"index.html");
            file::open(&root, &index).map(|found| (found, index))
        }
        Ok(Found::File(_)) if wanted.slash => Ok((Found::Nothing, Vec::new())),
        other => other.map(|found| (found, wanted.path)),
    };
    match found {
        Ok((Found::File(opened), name)) => return Plan::File(opened, name, 200),
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(%error, "a file cannot be read");
            return Plan::Page(file::status(&error));
        }
    }
    let fallback = if spa {
        (&b"index.html"[..], 200)
    } else {
        (&b"404.html"[..], 404)
    };
    match file::open(&root, fallback.0) {
        Ok(Found::File(opened)) => Plan::File(opened, fallback.0.to_vec(), fallback.1),
        _ => Plan::Page(404),
    }
}

fn head(status: u16, release: &str, request_id: &str) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(status, Some(12))?;
    head.insert_header("X-Content-Type-Options", "nosniff")?;
    head.insert_header(RELEASE_HEADER, release)?;
    head.insert_header("X-Request-Id", request_id)?;
    Ok(head)
}

async fn send(
    session: &mut Session,
    opened: Opened,
    name: &[u8],
    status: u16,
    release: &str,
    request_id: &str,
) -> Result<()> {
    let tags = Tags::of(&opened.metadata);
    let length = opened.metadata.len();
    let headers = &session.req_header().headers;
    // A substitute page has no validators of its own path.
    let whole = status == 200;
    if whole && tags.unchanged(headers) {
        let mut head = head(304, release, request_id)?;
        tags.write(&mut head)?;
        head.insert_header(CACHE_CONTROL, cache_control(name))?;
        return session.write_response_header(Box::new(head), true).await;
    }
    let part = if whole && tags.range_applies(headers) {
        range::requested(headers, length)
    } else {
        Part::Whole
    };
    let (status, start, count) = match part {
        Part::Whole => (status, 0, length),
        Part::Bytes { start, count } => (206, start, count),
        Part::Unsatisfiable => {
            let mut head = head(416, release, request_id)?;
            head.insert_header(CONTENT_RANGE, format!("bytes */{length}"))?;
            head.insert_header(CONTENT_LENGTH, 0)?;
            return session.write_response_header(Box::new(head), true).await;
        }
    };
    let mut head = head(status, release, request_id)?;
    head.insert_header(CONTENT_TYPE, content_type(name))?;
    head.insert_header(CONTENT_LENGTH, count)?;
    head.insert_header(
        CACHE_CONTROL,
        if whole {
            cache_control(name)
        } else {
            "no-store"
        },
    )?;
    if whole {
        head.insert_header(ACCEPT_RANGES, "bytes")?;
        tags.write(&mut head)?;
    }
    if status == 206 {
        head.insert_header(
            CONTENT_RANGE,
            format!("bytes {start}-{}/{length}", start + count - 1),
        )?;
    }
    let body = count > 0 && session.req_header().method != Method::HEAD;
    session.write_response_header(Box::new(head), !body).await?;
    if body {
        stream(session, opened, start, count).await?;
    }
    Ok(())
}

/// Sends `count` bytes from `start`, a piece at a time.
async fn stream(session: &mut Session, opened: Opened, start: u64, count: u64) -> Result<()> {
    let mut reader = file::Reader::new(opened, start, count);
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let piece = reader.next_piece();
            (reader, piece)
        });
        let (next, piece) = read
            .await
            .map_err(|error| Error::because(ErrorType::InternalError, "reading a file", error))?;
        reader = next;
        // A file that was cut while it was sent: only ending the connection can say so now.
        let piece = piece
            .map_err(|error| Error::because(ErrorType::InternalError, "reading a file", error))?;
        let end = reader.is_done();
        session
            .write_response_body(Some(Bytes::from(piece)), end)
            .await?;
        if end {
            return Ok(());
        }
    }
}

fn content_type(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let kind = mime_guess::from_path(name.as_ref()).first_or_octet_stream();
    let text = kind.type_() == mime_guess::mime::TEXT
        || matches!(
            kind.essence_str(),
            "application/javascript"
                | "application/json"
                | "application/xml"
                | "application/manifest+json"
                | "image/svg+xml"
        );
    if text {
        format!("{}; charset=utf-8", kind.essence_str())
    } else {
        kind.essence_str().to_owned()
    }
}

/// A name with a fingerprint never gets other content; everything else may change with the next
/// release, so it is asked for again, which costs a 304.
fn cache_control(name: &[u8]) -> &'static str {
    let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut parts: Vec<&[u8]> = file
        .split(|byte| matches!(byte, b'.' | b'-' | b'_'))
        .collect();
    let page = parts
        .pop()
        .is_some_and(|extension| extension.eq_ignore_ascii_case(b"html"));
    let fingerprint = |part: &&[u8]| {
        part.len() >= 8
            && part.iter().all(u8::is_ascii_hexdigit)
            && part.iter().any(u8::is_ascii_digit)
            && part.iter().any(u8::is_ascii_alphabetic)
    };
    if !page && parts.iter().any(fingerprint) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    }
}

impl Tags {
    fn write(&self, head: &mut ResponseHeader) -> Result<()> {
        head.insert_header(ETAG, self.etag())?;
        if let Some(modified) = self.last_modified() {
            head.insert_header(LAST_MODIFIED, modified)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_a_charset_where_there_is_text() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/style.css", "text/css; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("data.json", "application/json; charset=utf-8"),
            ("logo.svg", "image/svg+xml; charset=utf-8"),
            ("photo.png", "image/png"),
            ("module.wasm", "application/wasm"),
            ("unknown", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn only_names_with_a_fingerprint_are_kept_without_asking() {
        for name in ["main.3f2a1b9c.js", "a/index-0123abcdef.css"] {
            assert!(
                cache_control(name.as_bytes()).contains("immutable"),
                "{name}"
            );
        }
        for name in [
            "index.html",
            "main.js",
            "jquery-3.7.1.min.js",
            "p-20240101.js",
            "3f2a1b9c.html",
            "feedface.js",
        ] {
            assert_eq!(cache_control(name.as_bytes()), "no-cache", "{name}");
        }
    }
}
