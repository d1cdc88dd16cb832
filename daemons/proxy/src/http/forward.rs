//! Headers that tell the target about the client. We are the first hop, so whatever a client claims
//! in them is dropped and set anew.

use crate::http::origin::Origin;
use pingora_core::Result;
use pingora_http::RequestHeader;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Claims of a client that a target might trust.
const CLAIMS: [&str; 10] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-real-ip",
    "x-request-id",
];

/// A new id for a request: unique on this machine, and no secret.
pub fn request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static START: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let start = START.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |since| since.as_nanos() as u64)
    });
    format!("{start:016x}{:016x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Replaces the claims in `request` by what is so. `host` is the request's host as the client wrote
/// it, with a port if it had one.
pub fn mark(
    request: &mut RequestHeader,
    origin: &Origin,
    host: &str,
    request_id: &str,
) -> Result<()> {
    for claim in CLAIMS {
        request.remove_header(claim);
    }
    // CGI and WSGI make the same variable of `X_Forwarded_For`, and of `Proxy` the one that many HTTP
    // clients take for their proxy (CVE-2016-5385).
    let disguised: Vec<_> = request
        .headers
        .keys()
        .filter(|name| {
            let plain = name.as_str().replace('_', "-");
            plain == "proxy" || (plain != name.as_str() && CLAIMS.contains(&plain.as_str()))
        })
        .cloned()
        .collect();
    for name in disguised {
        request.remove_header(&name);
    }
    let scheme = if origin.tls.is_some() {
        "https"
    } else {
        "http"
    };
    request.insert_header("X-Forwarded-For", canonical(origin.client.ip()).to_string())?;
    request.insert_header("X-Forwarded-Proto", scheme)?;
    request.insert_header("X-Forwarded-Host", host)?;
    request.insert_header("X-Forwarded-Port", port(host, origin).to_string())?;
    request.insert_header("X-Request-Id", request_id)?;
    Ok(())
}

/// The port the client asked for: ours may be behind a redirection of the packet filter.
fn port(host: &str, origin: &Origin) -> u16 {
    let named = host
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    named.unwrap_or(if origin.tls.is_some() { 443 } else { 80 })
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The name in a Host field: lower case, without port and trailing dot; nothing for an address or
/// something that is no name.
pub fn host_name(host: &str) -> Option<String> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) => return None,
        None => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
    (!name.is_empty() && name.len() <= 253 && name.bytes().all(plain))
        .then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(tls: bool) -> Origin {
        Origin {
            client: "[::ffff:203.0.113.9]:4711".parse().unwrap(),
            local: "[::1]:8443".parse().unwrap(),
            tls: tls.then(|| "a.test".to_owned()),
            activity: std::sync::Arc::default(),
        }
    }

    #[test]
    fn claims_of_the_client_are_replaced() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for claim in CLAIMS {
            request.append_header(claim, "spoofed").unwrap();
            request.append_header(claim, "twice").unwrap();
        }
        for disguised in ["X_Forwarded_For", "x-real_ip", "Proxy"] {
            request.append_header(disguised, "spoofed").unwrap();
        }
        request.append_header("X_Own", "kept").unwrap();
        mark(&mut request, &origin(true), "a.test:8443", "id").unwrap();
        let get = |name: &str| {
            let values: Vec<_> = request
                .headers
                .get_all(name)
                .iter()
                .map(|v| v.to_str().unwrap())
                .collect();
            values.join("|")
        };
        assert_eq!(
            get("x_forwarded_for") + &get("x-real_ip") + &get("proxy"),
            ""
        );
        assert_eq!(get("x_own"), "kept");
        assert_eq!(get("x-forwarded-for"), "203.0.113.9");
        assert_eq!(get("x-forwarded-proto"), "https");
        assert_eq!(get("x-forwarded-host"), "a.test:8443");
        assert_eq!(get("x-forwarded-port"), "8443");
        assert_eq!(get("x-request-id"), "id");
        for gone in ["forwarded", "x-real-ip", "x-forwarded-prefix"] {
            assert_eq!(get(gone), "", "{gone}");
        }
    }

    #[test]
    fn a_host_field_is_reduced_to_its_name() {
        for (host, expected) in [
            ("Shop.Example", Some("shop.example")),
            ("shop.example:8080", Some("shop.example")),
            ("shop.example.", Some("shop.example")),
            ("shop.example.:80", Some("shop.example")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]:80", None),
            ("", None),
            (".", None),
            ("a b", None),
            ("a:b", None),
            ("a/b", None),
            ("a@b", None),
        ] {
            assert_eq!(host_name(host).as_deref(), expected, "{host}");
        }
    }

    #[test]
    fn request_ids_differ() {
        assert_ne!(request_id(), request_id());
        assert_eq!(request_id().len(), 32);
    }
}
