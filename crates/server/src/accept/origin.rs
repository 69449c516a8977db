//! The web pages that may connect. A browser names the page's origin in every request that the page makes, and no other
//! client does. So a request without an origin passes, and a page has to be allowed by name.

use hyper::header::{HeaderMap, HeaderValue, ORIGIN};
use wildmatch::WildMatch;

use crate::settings::Origins;

#[derive(Clone, Debug)]
pub(crate) struct AllowedOrigins(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    glob: WildMatch,
    /// It ended with `:*`: any port, also the scheme's own, which browsers leave out.
    any_port: bool,
}

/// The verdict on a request's `Origin` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin<'r> {
    /// Not a browser's page.
    None,
    Allowed(&'r HeaderValue),
    Refused,
}

impl AllowedOrigins {
    pub(crate) fn new(origins: &Origins) -> Self {
        Self(origins.allowed.iter().map(|glob| Pattern::new(&glob.to_ascii_lowercase())).collect())
    }

    pub(crate) fn judge<'r>(&self, headers: &'r HeaderMap) -> Origin<'r> {
        let Some(origin) = headers.get(ORIGIN) else { return Origin::None };
        // Scheme and host are case-insensitive (RFC 6454 section 4).
        let text = origin.to_str().unwrap_or("").to_ascii_lowercase();
        let is_allowed = !text.is_empty() && self.0.iter().any(|pattern| pattern.matches(&text));
        if is_allowed { Origin::Allowed(origin) } else { Origin::Refused }
    }
}

impl Pattern {
    fn new(glob: &str) -> Self {
        match glob.strip_suffix(":*") {
            Some(glob) => Self { glob: WildMatch::new(glob), any_port: true },
            None => Self { glob: WildMatch::new(glob), any_port: false },
        }
    }

    fn matches(&self, origin: &str) -> bool {
        let without_port =
            origin.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        self.glob.matches(origin)
            || self.any_port && without_port.is_some_and(|(origin, _)| self.glob.matches(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_pages_pass() {
        let allowed = ["https://example.com", "https://*.example.org", "http://localhost:*"];
        let origins = AllowedOrigins::new(&Origins { allowed: allowed.map(str::to_owned).into() });
        let judge = |origin: &'static str| {
            let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
            matches!(origins.judge(&headers), Origin::Allowed(_))
        };
        assert!(judge("https://example.com"));
        assert!(judge("HTTPS://Example.COM"));
        assert!(judge("https://a.b.example.org"));
        assert!(judge("http://localhost:3000"));
        assert!(judge("http://localhost"));
        assert!(!judge("http://localhost:3000.evil.example"));
        assert!(!judge("http://localhost.evil.example:3000"));
        assert!(!judge("https://example.com.evil.net"));
        assert!(!judge("http://example.com"));
        assert!(!judge("null"));
        assert!(!judge(""));
        assert_eq!(origins.judge(&HeaderMap::new()), Origin::None);
        let nobody = AllowedOrigins::new(&Origins::default());
        let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("https://example.com"))]);
        assert_eq!(nobody.judge(&headers), Origin::Refused);
    }
}
