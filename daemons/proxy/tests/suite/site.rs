//! Static sites over the wire.

use crate::support::{PATIENCE, Proxy, site};
use std::fs;
use std::time::Duration;
use temps_ipc::types::Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A proxy with one site.
struct Files {
    proxy: Proxy,
    root: tempfile::TempDir,
    release: String,
}

async fn files(spa: bool, not_found: bool) -> Files {
    let root = tempfile::tempdir().unwrap();
    let base = root.path().join("site");
    fs::create_dir_all(base.join("docs")).unwrap();
    fs::create_dir_all(base.join(".git")).unwrap();
    fs::write(base.join("index.html"), "<h1>home</h1>").unwrap();
    fs::write(base.join("docs/index.html"), "docs").unwrap();
    fs::write(base.join("app.js"), "0123456789").unwrap();
    fs::write(base.join("main.3f2a1b9c.css"), "css").unwrap();
    fs::write(base.join("empty.txt"), "").unwrap();
    fs::write(base.join("big.bin"), vec![7; 1_000_000]).unwrap();
    fs::write(base.join(".git/config"), "hidden").unwrap();
    fs::write(root.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", base.join("link")).unwrap();
    if not_found {
        fs::write(base.join("404.html"), "our 404").unwrap();
    }
    let proxy = Proxy::new().await;
    let route = site("s.test", base, spa);
    let release = route.release.to_string();
    proxy.apply(vec![route]).await.unwrap();
    Files {
        proxy,
        root,
        release,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_lead_to_files_and_nowhere_else() {
    let files = files(false, false).await;
    for (path, status, body) in [
        ("/", 200, "<h1>home</h1>"),
        ("/docs/", 200, "docs"),
        ("/docs/index.html", 200, "docs"),
        ("/app.js?v=1", 200, "0123456789"),
        ("/%61pp.js", 200, "0123456789"),
        ("/empty.txt", 200, ""),
        ("/docs", 301, ""),
    ] {
        let answer = files.proxy.get("s.test", path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{path}"
        );
        assert_eq!(
            answer.header("x-release"),
            Some(files.release.as_str()),
            "{path}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
    }
    for path in [
        "/none",
        "/app.js/",
        "/docs/none",
        "/link",
        "/.git/config",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "/../secret",
        "/docs/../../secret",
        "//secret",
        "/docs//",
    ] {
        let answer = files.proxy.get("s.test", path).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        assert!(!answer.body.contains("secret"), "{path}");
    }
    assert_eq!(files.proxy.get("s.test", "/%zz").await.status, 400);
    let answer = files.proxy.get("s.test", "/docs?a=b").await;
    assert_eq!(answer.header("location"), Some("/docs/?a=b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn types_and_caching_are_said() {
    let files = files(false, false).await;
    for (path, kind, cache) in [
        ("/", "text/html; charset=utf-8", "no-cache"),
        ("/app.js", "text/javascript; charset=utf-8", "no-cache"),
        (
            "/main.3f2a1b9c.css",
            "text/css; charset=utf-8",
            "public, max-age=31536000, immutable",
        ),
        ("/big.bin", "application/octet-stream", "no-cache"),
    ] {
        let answer = files.proxy.get("s.test", path).await;
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        assert_eq!(answer.header("cache-control"), Some(cache), "{path}");
        assert!(
            answer
                .header("last-modified")
                .is_some_and(|date| date.ends_with("GMT")),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_and_conditions_are_honoured() {
    let files = files(false, false).await;
    let proxy = &files.proxy;
    let whole = proxy.get("s.test", "/app.js").await;
    let etag = whole.header("etag").unwrap().to_owned();
    let date = whole.header("last-modified").unwrap().to_owned();
    assert!(etag.starts_with('"'), "{etag}");
    for (lines, status, body, range) in [
        (
            "Range: bytes=2-4\r\n".to_owned(),
            206,
            "234",
            Some("bytes 2-4/10"),
        ),
        (
            "Range: bytes=-3\r\n".to_owned(),
            206,
            "789",
            Some("bytes 7-9/10"),
        ),
        (
            "Range: bytes=8-\r\n".to_owned(),
            206,
            "89",
            Some("bytes 8-9/10"),
        ),
        (
            "Range: bytes=10-\r\n".to_owned(),
            416,
            "",
            Some("bytes */10"),
        ),
        (
            "Range: bytes=0-1,4-5\r\n".to_owned(),
            200,
            "0123456789",
            None,
        ),
        (
            format!("Range: bytes=2-4\r\nIf-Range: {etag}\r\n"),
            206,
            "234",
            Some("bytes 2-4/10"),
        ),
        (
            "Range: bytes=2-4\r\nIf-Range: \"other\"\r\n".to_owned(),
            200,
            "0123456789",
            None,
        ),
        (format!("If-None-Match: {etag}\r\n"), 304, "", None),
        (format!("If-None-Match: \"x\", W/{etag}\r\n"), 304, "", None),
        (
            "If-None-Match: \"x\"\r\n".to_owned(),
            200,
            "0123456789",
            None,
        ),
        (format!("If-Modified-Since: {date}\r\n"), 304, "", None),
        (
            "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".to_owned(),
            200,
            "0123456789",
            None,
        ),
    ] {
        let answer = proxy.request("GET", "s.test", "/app.js", &lines).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{lines}"
        );
        assert_eq!(answer.header("content-range"), range, "{lines}");
    }
    let head = proxy.request("HEAD", "s.test", "/app.js", "").await;
    assert_eq!(
        (
            head.status,
            head.body.as_str(),
            head.header("content-length")
        ),
        (200, "", Some("10"))
    );
    let big = proxy.get("s.test", "/big.bin").await;
    assert_eq!(big.body.len(), 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_get_and_head_are_allowed() {
    let files = files(false, false).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = files
            .proxy
            .request(method, "s.test", "/", "Content-Length: 0\r\n")
            .await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_lead_to_the_page_the_site_wants() {
    let files = files(false, true).await;
    let answer = files.proxy.get("s.test", "/none").await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "our 404"));
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    drop(files);
    let files = self::files(true, false).await;
    let answer = files.proxy.get("s.test", "/deep/link").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "<h1>home</h1>")
    );
    assert_eq!(files.proxy.get("s.test", "/missing.js").await.status, 404);
    let page = files
        .proxy
        .request("GET", "s.test", "/user/jo.doe", "Accept: text/html\r\n")
        .await;
    assert_eq!(page.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_holds_its_lease_while_a_file_is_sent() {
    let files = files(false, false).await;
    let base = files.root.path().join("site");
    fs::write(base.join("huge.bin"), vec![1; 40_000_000]).unwrap();
    let route = site("s.test", base, false);
    let Backend::Static(backend) = route.backend.clone() else {
        panic!()
    };
    files.proxy.apply(vec![route]).await.unwrap();
    let mut stream = files.proxy.connect().await;
    stream
        .write_all(b"GET /huge.bin HTTP/1.1\r\nHost: s.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 1024];
    stream.read_exact(&mut first).await.unwrap();
    files.proxy.apply(vec![]).await.unwrap();
    let wait = Duration::from_millis(10);
    let drain = files.proxy.drained(&backend.id, wait).await;
    assert_eq!((drain.leases, drain.routed), (1, false));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() > 39_000_000);
    assert_eq!(files.proxy.drained(&backend.id, PATIENCE).await.leases, 0);
}
