//! The proxy's own answers: small, without a hint at the software, as HTML where a browser asks.

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

/// What a status means here, for the visitor.
fn sentence(status: u16) -> &'static str {
    match status {
        400 => "The request is malformed.",
        403 => "This may not be read.",
        404 => "Nothing is served here.",
        405 => "This method is not allowed here.",
        408 => "The request took too long.",
        421 => "This connection is for another host. Connect again.",
        431 => "The request header is too large.",
        502 => "The app did not give a valid answer.",
        503 => "The app is not available. Try again in a moment.",
        504 => "The app did not answer in time.",
        505 => "This version of HTTP is not spoken here.",
        _ => "Something went wrong.",
    }
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error")
}

/// Whether the client prefers a page to plain text.
fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(ACCEPT).iter();
    accept
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
}

/// The body for `status`, and its type.
fn body(status: u16, html: bool) -> (String, &'static str) {
    let (reason, sentence) = (reason(status), sentence(status));
    if html {
        let page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{status} {reason}</title><style>body{{font:16px/1.5 \
             system-ui,sans-serif;margin:20vh auto;max-width:32em;padding:0 1em}}</style>\
             <h1>{status} {reason}</h1><p>{sentence}</p></html>\n"
        );
        (page, "text/html; charset=utf-8")
    } else {
        (
            format!("{status} {reason}: {sentence}\n"),
            "text/plain; charset=utf-8",
        )
    }
}

/// Answers with the page for `status`.
pub async fn send(session: &mut Session, status: u16, request_id: &str) -> Result<()> {
    send_with(session, status, request_id, None).await
}

/// Answers 405 and says what is allowed.
pub async fn not_allowed(session: &mut Session, request_id: &str, allow: &str) -> Result<()> {
    send_with(session, 405, request_id, Some(allow)).await
}

async fn send_with(
    session: &mut Session,
    status: u16,
    request_id: &str,
    allow: Option<&str>,
) -> Result<()> {
    let (text, kind) = body(status, wants_html(&session.req_header().headers));
    let mut header = ResponseHeader::build(status, Some(8))?;
    header.insert_header(CONTENT_TYPE, kind)?;
    header.insert_header(CONTENT_LENGTH, text.len())?;
    header.insert_header(CACHE_CONTROL, "no-store")?;
    header.insert_header("X-Content-Type-Options", "nosniff")?;
    header.insert_header("X-Request-Id", request_id)?;
    if let Some(allow) = allow {
        header.insert_header(ALLOW, allow)?;
    }
    if status == 503 {
        header.insert_header("Retry-After", "1")?;
    }
    let head_only = session.req_header().method == Method::HEAD;
    session
        .write_response_header(Box::new(header), head_only)
        .await?;
    if !head_only {
        session
            .write_response_body(Some(Bytes::from(text)), true)
            .await?;
    }
    Ok(())
}

/// A whole answer as bytes, for a request that is no HTTP; the connection ends after it.
pub fn raw(status: u16, why: &str) -> Vec<u8> {
    let text = format!("{status} {}: {why}\n", reason(status));
    format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{text}",
        reason(status),
        text.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_a_page_and_a_program_gets_a_line() {
        let mut headers = HeaderMap::new();
        assert!(!wants_html(&headers));
        headers.insert(
            ACCEPT,
            "text/html,application/xhtml+xml;q=0.9".parse().unwrap(),
        );
        assert!(wants_html(&headers));
        assert!(body(404, true).0.contains("<h1>404 Not Found</h1>"));
        assert_eq!(
            body(404, false).0,
            "404 Not Found: Nothing is served here.\n"
        );
    }

    #[test]
    fn a_raw_answer_closes_and_names_no_software() {
        let text = String::from_utf8(raw(431, "too large")).unwrap();
        assert!(text.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
        assert!(text.contains("Connection: close\r\n") && !text.contains("Server"));
    }
}
