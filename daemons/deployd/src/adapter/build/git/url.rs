//! Which repositories and references we hand to git, which takes far more than that for one.

use temps_ipc::Fault;

/// Longest URL and reference in bytes.
const MAX_URL: usize = 2_048;
const MAX_REFERENCE: usize = 255;

/// A repository we may fetch from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    url: String,
    /// `user:password` of the URL, if it has one.
    secret: Option<String>,
}

impl Remote {
    /// Takes `https`, `ssh` and `file` URLs, `user@host:path`, and absolute paths.
    pub(super) fn parse(url: &str) -> Result<Self, Fault> {
        let refuse = |what: &str| {
            Err(Fault::invalid(format!("this is not a git URL: {what}"))
                .hint("use https://…, file://… or an absolute path"))
        };
        if url.is_empty() || url.len() > MAX_URL {
            return refuse("it is empty or too long");
        }
        if url.chars().any(char::is_control) {
            return refuse("it has a control character");
        }
        if url.starts_with('-') {
            return refuse("it starts with `-`");
        }
        if url.starts_with('/') {
            return Ok(Self::without_secret(url));
        }
        if let Some((scheme, rest)) = url.split_once("://") {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            let is_local = scheme == "file";
            if !matches!(scheme, "https" | "ssh" | "file") {
                return refuse("only https, ssh and file are allowed");
            }
            // `ssh` would take it for an option.
            if host.starts_with('-') || user.starts_with('-') || (host.is_empty() && !is_local) {
                return refuse("its host name is not one");
            }
            if is_local && (!authority.is_empty() || path.is_empty()) {
                return refuse("a file URL has three slashes and a path");
            }
            let secret = (user.contains(':') || (scheme == "https" && !user.is_empty()))
                .then(|| user.to_owned());
            return Ok(Self {
                url: url.to_owned(),
                secret,
            });
        }
        let is_scp = url.split_once(':').is_some_and(|(host, path)| {
            let name = host.rsplit_once('@').map_or(host, |(_, name)| name);
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@".contains(&byte);
            // `ext::sh -c …` and its kind have a second colon.
            !name.is_empty()
                && !name.starts_with('-')
                && host.bytes().all(plain)
                && !path.starts_with(':')
                && !path.is_empty()
        });
        if is_scp {
            Ok(Self::without_secret(url))
        } else {
            refuse("it has neither a scheme nor an absolute path")
        }
    }

    fn without_secret(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            secret: None,
        }
    }

    /// As it is, secrets included.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is fetched by ssh.
    pub(super) fn is_ssh(&self) -> bool {
        match self.url.split_once("://") {
            Some((scheme, _)) => scheme == "ssh",
            None => !self.url.starts_with('/'),
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        self.redact(&self.url)
    }

    /// The text without the URL's secret.
    pub(super) fn redact(&self, text: &str) -> String {
        let Some(secret) = &self.secret else {
            return text.to_owned();
        };
        let mut text = text
            .replace(&format!("{secret}@"), "")
            .replace(secret.as_str(), "***");
        if let Some((_, password)) = secret
            .split_once(':')
            .filter(|(_, password)| !password.is_empty())
        {
            text = text.replace(password, "***");
        }
        text
    }
}

/// Refuses what git would take for an option, a pattern or a pair.
pub(super) fn check_reference(reference: &str) -> Result<(), Fault> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let is_bad = reference.is_empty()
        || reference.len() > MAX_REFERENCE
        || reference.starts_with(['-', '/', '.', '+'])
        || reference.ends_with(['/', '.'])
        || reference.contains("..")
        || reference.contains("@{")
        || reference.contains(odd);
    if is_bad {
        let shown: String = reference.chars().take(80).collect();
        return Err(Fault::invalid(format!(
            "{shown:?} cannot be the name of a branch, tag or commit"
        )));
    }
    Ok(())
}

/// Whether the text can be (the start of) a commit's id.
pub(super) fn may_be_commit(reference: &str) -> bool {
    (4..=64).contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_a_key_is_told_from_what_takes_none() {
        for (url, is_ssh) in [
            ("ssh://git@example.org/shop.git", true),
            ("git@example.org:team/shop.git", true),
            ("example.org:shop.git", true),
            ("https://git@example.org/shop.git", false),
            ("file:///srv/git/shop.git", false),
            ("/srv/git/a:b", false),
        ] {
            assert_eq!(Remote::parse(url).unwrap().is_ssh(), is_ssh, "{url}");
        }
    }

    #[test]
    fn usual_urls_are_taken() {
        for url in [
            "https://example.org/shop.git",
            "https://example.org:8443/a/b",
            "ssh://git@example.org:22/shop.git",
            "git@example.org:team/shop.git",
            "file:///srv/git/shop.git",
            "/srv/git/shop with space",
        ] {
            assert!(Remote::parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_git_would_run_or_misread_is_refused() {
        for url in [
            "",
            "--upload-pack=touch /tmp/x",
            "-oProxyCommand=x",
            "ext::sh -c touch% /tmp/x",
            "fd::17",
            "http://example.org/plain",
            "git://example.org/plain",
            "ftp://example.org/x",
            "ssh://-oProxyCommand=x/y",
            "ssh://-oProxyCommand=x@host/y",
            "-host:path",
            "user@-host:path",
            "https://",
            "file://host/path",
            "file://",
            "relative/path",
            "../up",
            "https://example.org/a\nb",
            "host:",
        ] {
            assert!(Remote::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn references_that_mean_more_than_a_name_are_refused() {
        for reference in [
            "main",
            "v1.2.3",
            "feature/x-1",
            "4f2c1d0",
            "refs/heads/main",
        ] {
            assert!(check_reference(reference).is_ok(), "{reference}");
        }
        for reference in [
            "", "-b", "--all", "a:b", "+a", "a*", "a..b", "HEAD^", "HEAD~1", "a b", "a\n", "@{u}",
            "/a", "a/",
        ] {
            assert!(check_reference(reference).is_err(), "{reference}");
        }
    }

    #[test]
    fn a_token_in_a_url_is_never_shown() {
        let remote = Remote::parse("https://bob:t0psecret@example.org/shop.git").unwrap();
        assert_eq!(remote.shown(), "https://example.org/shop.git");
        let line =
            "fatal: unable to access 'https://bob:t0psecret@example.org/shop.git/': t0psecret";
        assert!(!remote.redact(line).contains("t0psecret"));
        let remote = Remote::parse("https://ghp_token@example.org/shop.git").unwrap();
        assert!(!remote.shown().contains("ghp_token"));
    }
}
