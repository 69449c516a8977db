//! Entries of `client.allowed_origins`, converted to the form in which browsers send a page's origin (RFC 6454, section
//! 6.2). An entry that can match no page is an error, which names the entry that was meant.

use url::Url;

/// A valid entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// As browsers send it: in lowercase, without the scheme's default port, international names in Punycode.
    pub(super) origin: String,
    pub(super) warning: Option<String>,
}

impl Judged {
    fn fine(origin: impl Into<String>) -> Result<Self, String> {
        Ok(Self { origin: origin.into(), warning: None })
    }
}

/// Checks an entry: `*`, `null`, or `scheme://host` and `scheme://host:port`, in which `*` stands for any characters.
pub(super) fn judge(entry: &str) -> Result<Judged, String> {
    let unquoted = entry.trim_matches(['"', '\'', '`']);
    if unquoted != entry && !unquoted.is_empty() {
        return Err(format!("{entry} has quotes around it. Use {unquoted}"));
    }
    if entry.contains(|letter: char| letter.is_whitespace() || matches!(letter, ',' | ';')) {
        return Err(format!("\"{entry}\" is more than one origin. Give each an entry of its own"));
    }
    let entry = entry.to_lowercase();
    if matches!(&*entry, "*" | "null") {
        return Judged::fine(entry);
    }
    // A star at the beginning may stand for the scheme as well.
    let (scheme, rest) = match entry.split_once("://") {
        Some(parts) => parts,
        None if entry.starts_with('*') => ("", &*entry),
        None => {
            return Err(match entry.is_empty() {
                true => "is empty".to_owned(),
                false => format!("\"{entry}\" has no scheme. Use \"https://{entry}\""),
            });
        }
    };
    if matches!(scheme, "ws" | "wss") {
        let page = scheme.replace("ws", "http");
        return Err(format!(
            "\"{entry}\" is an address to connect to. Pages have origins such as \"{page}://{rest}\""
        ));
    }
    if !is_scheme(scheme) {
        return Err(format!("\"{entry}\" has no usable scheme. Use \"https://\" and the host"));
    }
    if rest.contains('@') {
        return Err("has a user or password in it; origins have none".to_owned());
    }
    let separator = if entry.contains("://") { "://" } else { "" };
    let is_web = matches!(scheme, "http" | "https");
    if let Some(end) = rest.find(['/', '?', '#', '\\']) {
        let origin = format!("{scheme}{separator}{}", &rest[..end]);
        return Err(match origin.ends_with("://") {
            true => format!("\"{entry}\" has no host"),
            false => format!("\"{entry}\" has a path; origins have none. Use \"{origin}\""),
        });
    }
    let (host, port) = split_port(rest);
    let host = match host {
        "" if is_web => return Err(format!("\"{entry}\" has no host")),
        "" => String::new(),
        _ => as_sent(host).ok_or_else(|| format!("\"{entry}\" has no usable host"))?,
    };
    let port = match (scheme, port) {
        (_, None) | ("http", Some("80")) | ("https", Some("443")) => String::new(),
        (_, Some(port)) if port.contains('*') || port.parse::<u16>().is_ok_and(|number| number > 0) => {
            format!(":{port}")
        }
        _ => return Err(format!("\"{entry}\" has no usable port; it is 1 to 65535, or * for any")),
    };
    let warning = stranger(&host).map(|stranger| {
        format!("\"{entry}\" takes pages of https://{stranger} as well, which may be a stranger's. A star is safe in place of whole labels at the beginning, as in \"https://*.example.com\"")
    });
    Ok(Judged { origin: format!("{scheme}{separator}{host}{port}"), warning })
}

/// Returns true also for a scheme with stars, and for none.
fn is_scheme(scheme: &str) -> bool {
    !scheme.starts_with(|first: char| first.is_ascii_digit())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.*".contains(&byte))
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The last colon may belong to an IPv6 address.
        Some((_, port)) if port.contains(']') => (authority, None),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

/// Returns the host as browsers send it, label by label if it has stars.
fn as_sent(host: &str) -> Option<String> {
    let whole = |host: &str| Some(Url::parse(&format!("https://{host}")).ok()?.host_str()?.to_owned());
    if !host.contains('*') {
        return whole(host);
    }
    let label = |label: &str| {
        let is_plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte));
        match is_plain {
            true => Some(label.to_owned()),
            // In a label in Punycode a star would stand for unknown letters.
            false if label.contains('*') => None,
            // A number alone would be parsed as an IPv4 address.
            false => whole(&format!("x.{label}"))?.strip_prefix("x.").map(str::to_owned),
        }
    };
    let labels: Option<Vec<String>> = host.split('.').map(label).collect();
    labels.map(|labels| labels.join("."))
}

/// Returns a host that the glob matches as well and that somebody else may own.
fn stranger(glob: &str) -> Option<String> {
    if glob == "*" {
        // Matches every page, and says so.
        return None;
    }
    let is_open_at_end = glob.ends_with('*');
    let is_open_in_label = glob.match_indices('*').any(|(at, _)| !glob[at + 1..].starts_with(['.', '*']));
    (is_open_at_end || is_open_in_label).then(|| {
        let filled = glob.trim_start_matches("*.");
        if is_open_at_end {
            filled.replace(".*", "*").replace('*', ".stranger.example")
        } else {
            filled.replace('*', "strangers-")
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_become_what_browsers_send() {
        for (entry, origin) in [
            ("*", "*"),
            ("null", "null"),
            ("NULL", "null"),
            ("https://example.com", "https://example.com"),
            ("HTTPS://Example.COM", "https://example.com"),
            ("https://example.com:443", "https://example.com"),
            ("http://example.com:80", "http://example.com"),
            ("http://example.com:443", "http://example.com:443"),
            ("https://example.com:8443", "https://example.com:8443"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("https://BÜCHER.example:443", "https://xn--bcher-kva.example"),
            ("https://*.bücher.example", "https://*.xn--bcher-kva.example"),
            ("https://例え.テスト", "https://xn--r8jz45g.xn--zckzah"),
            ("http://localhost:*", "http://localhost:*"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://[::1]:*", "http://[::1]:*"),
            ("https://[2001:DB8:0::1]", "https://[2001:db8::1]"),
            ("https://*.example.com", "https://*.example.com"),
            ("https://*.*.example.com:*", "https://*.*.example.com:*"),
            ("*://example.com", "*://example.com"),
            ("*.example.com", "*.example.com"),
            ("https://*", "https://*"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
            ("file://", "file://"),
        ] {
            assert_eq!(judge(entry), Judged::fine(origin), "{entry}");
        }
    }

    #[test]
    fn entries_that_match_no_page_are_refused_with_the_remedy() {
        for (entry, expected) in [
            ("", "is empty"),
            ("\"https://a.example\"", "\"https://a.example\" has quotes around it. Use https://a.example"),
            ("'https://a.example'", "has quotes around it"),
            (
                "https://a.example/",
                "\"https://a.example/\" has a path; origins have none. Use \"https://a.example\"",
            ),
            ("https://a.example:8443/app?x", "Use \"https://a.example:8443\""),
            ("https://a.example#top", "has a path"),
            ("example.com", "has no scheme. Use \"https://example.com\""),
            ("localhost:3000", "has no scheme"),
            ("https://a.example https://b.example", "is more than one origin"),
            ("https://a.example,https://b.example", "is more than one origin"),
            ("wss://a.example", "Pages have origins such as \"https://a.example\""),
            ("ws://a.example:8000", "\"http://a.example:8000\""),
            ("https://", "has no host"),
            ("https:///", "has no host"),
            ("https://:443", "has no host"),
            ("https://a.example:", "has no usable port"),
            ("https://a.example:0", "has no usable port"),
            ("https://a.example:70000", "has no usable port"),
            ("https://a.example:http", "has no usable port"),
            ("https://a b", "is more than one"),
            ("https://a%zz", "has no usable host"),
            ("https://[::1", "has no usable host"),
            ("1https://a", "has no usable scheme"),
        ] {
            let error = judge(entry).unwrap_err();
            assert!(error.contains(expected), "{entry}: {error}");
        }
        assert!(!judge("https://user:hunter2@a.example").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn stars_that_let_strangers_in_are_told() {
        for (entry, stranger) in [
            ("https://*example.com", "https://strangers-example.com"),
            ("https://example.*", "https://example.stranger.example"),
            ("http://localhost*", "https://localhost.stranger.example"),
            ("https://app-*.example.com", ""),
            ("https://*.example.com", ""),
        ] {
            let warning = judge(entry).unwrap().warning.unwrap_or_default();
            assert_eq!(warning.is_empty(), stranger.is_empty(), "{entry}: {warning}");
            assert!(warning.contains(stranger), "{entry}: {warning}");
        }
    }

    proptest! {
        /// Whatever is taken stays as it is when it is judged again.
        #[test]
        fn what_was_judged_is_fine(entry in "[a-zA-ZüÜ:/.*0-9@\\[\\]\"' %-]{0,24}|(https?://)[a-zü*.:0-9]{0,20}|\\PC*") {
            if let Ok(judged) = judge(&entry) {
                prop_assert_eq!(judge(&judged.origin).map(|again| again.origin), Ok(judged.origin));
            }
        }
    }
}
