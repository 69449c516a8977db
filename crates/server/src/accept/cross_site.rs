//! Refuses requests that a page of another site makes a browser send. `--dev` and an API with `api.insecure` ask for no
//! key, so without this any page could call the node through its visitors' browsers.
//!
//! A browser names the page in `Origin`, or at least sends `Sec-Fetch-Site: cross-site`. A page whose own name was
//! pointed at the node (DNS rebinding) passes both tests, since the browser takes it for a page of the node. Its name is
//! in `Host`.

use std::net::{IpAddr, Ipv6Addr};

use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{StatusCode, Uri};

use crate::response::{HttpResponse, text};

/// The headers of a browser that an answer depends on where requests are judged here.
pub(crate) const VARY_ON: HeaderValue = HeaderValue::from_static("Origin, Sec-Fetch-Site");

/// The values of `Host` that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// Names and addresses of this machine.
    Loopback,
    /// Addresses, and names that nobody can register in public DNS.
    Private,
}

/// The reasons to refuse a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CrossSite {
    #[error(
        "Forbidden: the Host of this request is no name of this machine. \
         With --dev use localhost, 127.0.0.1 or [::1]."
    )]
    Host,
    #[error(
        "Forbidden: the Host of this request may be a stranger's name, and api.insecure asks for no key. \
         Use an address, a name without a dot or one below .internal, .local or .svc, or set api.keys."
    )]
    PublicHost,
    #[error("Forbidden: a web page of another origin sent this request, and it has no key.")]
    Page,
}

impl CrossSite {
    pub(crate) fn answer(self) -> HttpResponse {
        tracing::debug!(reason = ?self, "request of another site's page refused");
        text(StatusCode::FORBIDDEN, self.to_string())
    }
}

/// Passes a request that no other site's page sent: from a program, or from a page of this machine or of the node.
pub(crate) fn check(headers: &HeaderMap, uri: &Uri, hosts: Hosts) -> Result<(), CrossSite> {
    check_host(headers, uri, hosts)?;
    check_site(headers)?;
    check_origin(headers)
}

/// Passes a request whose `Host` is the node's own. A request without one, in HTTP/1.0, is not from a browser.
pub(crate) fn check_host(headers: &HeaderMap, uri: &Uri, hosts: Hosts) -> Result<(), CrossSite> {
    let named = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or(""));
    let mut all = named.chain(uri.authority().map(Authority::as_str));
    if all.all(|authority| hosts.include(authority)) {
        return Ok(());
    }
    Err(match hosts {
        Hosts::Loopback => CrossSite::Host,
        Hosts::Private => CrossSite::PublicHost,
    })
}

/// Refuses what a page of another site sends without its origin, as images and links do.
pub(crate) fn check_site(headers: &HeaderMap) -> Result<(), CrossSite> {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let is_foreign = !headers.contains_key(ORIGIN)
        && headers
            .get_all(SEC_FETCH_SITE)
            .iter()
            .any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site"));
    if is_foreign { Err(CrossSite::Page) } else { Ok(()) }
}

/// Refuses the origins of other machines' pages. A page of the node itself has the node's `Host`, checked before.
fn check_origin(headers: &HeaderMap) -> Result<(), CrossSite> {
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_own = |origin: &str| {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let is_page = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        is_page
            && (own.is_some_and(|own| own.eq_ignore_ascii_case(authority))
                || Hosts::Loopback.include(authority))
    };
    let all_own = headers.get_all(ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(is_own));
    if all_own { Ok(()) } else { Err(CrossSite::Page) }
}

impl Hosts {
    /// Takes a host with or without a port: a name, an IPv4 address, or an IPv6 address in brackets.
    fn include(self, authority: &str) -> bool {
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if is_port(port) => host,
            _ => authority,
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if let Some(address) = address(&host) {
            return self == Self::Private || address.to_canonical().is_loopback();
        }
        if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        {
            return false;
        }
        let is_below = |parent: &&str| host.ends_with(*parent);
        match self {
            Self::Loopback => host == "localhost" || is_below(&".localhost"),
            Self::Private => !host.contains('.') || NOT_PUBLIC.iter().any(is_below),
        }
    }
}

/// Reserved for such use (RFC 2606, 6761, 6762, 8375; ICANN for `internal`), but for `svc`: Kubernetes' short form of
/// `svc.cluster.local`, which no registry has.
const NOT_PUBLIC: [&str; 6] = [".localhost", ".local", ".internal", ".test", ".home.arpa", ".svc"];

fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(headers: &[(&'static str, &'static str)], hosts: Hosts) -> Result<(), CrossSite> {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, value);
        }
        check(&map, &Uri::from_static("/api/publish"), hosts)
    }

    #[test]
    fn names_of_this_machine_pass_and_others_do_not() {
        for host in [
            "localhost:8000",
            "LOCALHOST",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1",
            "127.1.2.3:1",
            "[::1]:8000",
        ] {
            assert_eq!(judge(&[("host", host)], Hosts::Loopback), Ok(()), "{host}");
            assert_eq!(judge(&[("host", host)], Hosts::Private), Ok(()), "{host}");
        }
        for host in [
            "10.0.0.1:9000",
            "[fd00::1]",
            "0.0.0.0:1",
            "fanwire",
            "fanwire:9000",
            "fanwire.realtime.svc:9000",
            "box.local",
            "fanwire.realtime.svc.cluster.local.",
            "fanwire.internal",
            "metadata.home.arpa",
            "a.test",
        ] {
            assert_eq!(judge(&[("host", host)], Hosts::Loopback), Err(CrossSite::Host), "{host}");
            assert_eq!(judge(&[("host", host)], Hosts::Private), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example.",
            "local.evil.example",
            "notlocalhost.example",
            "",
            "[localhost]",
            "a b",
        ] {
            assert_eq!(judge(&[("host", host)], Hosts::Loopback), Err(CrossSite::Host), "{host}");
            assert_eq!(judge(&[("host", host)], Hosts::Private), Err(CrossSite::PublicHost), "{host}");
        }
        let both = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(judge(&both, Hosts::Loopback), Err(CrossSite::Host));
        let absolute = Uri::from_static("http://evil.example/dev/token");
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost"))]);
        assert_eq!(check(&headers, &absolute, Hosts::Loopback), Err(CrossSite::Host));
        assert_eq!(judge(&[], Hosts::Loopback), Ok(()));
    }

    #[test]
    fn pages_of_this_machine_or_of_the_node_itself_pass() {
        let origin = |host, origin, hosts| judge(&[("host", host), ("origin", origin)], hosts);
        for own in [
            "http://localhost:3000",
            "https://127.0.0.1",
            "HTTP://LocalHost",
            "http://[::1]:8000",
            "http://a.localhost",
        ] {
            assert_eq!(origin("localhost:8000", own, Hosts::Loopback), Ok(()), "{own}");
            assert_eq!(origin("10.0.0.1:9000", own, Hosts::Private), Ok(()), "{own}");
        }
        for cross_site in [
            "https://evil.example",
            "null",
            "",
            "http://10.0.0.1",
            "http://localhost.evil.example",
            "http://evil.localhost.example",
            "http://localhost:1.evil.example",
            "localhost",
            "chrome-extension://localhost",
            "http://fanwire",
        ] {
            assert_eq!(
                origin("localhost:8000", cross_site, Hosts::Loopback),
                Err(CrossSite::Page),
                "{cross_site}"
            );
            assert_eq!(
                origin("10.0.0.2:9000", cross_site, Hosts::Private),
                Err(CrossSite::Page),
                "{cross_site}"
            );
        }
        assert_eq!(origin("10.0.0.1:9000", "http://10.0.0.1:9000", Hosts::Private), Ok(()));
        assert_eq!(origin("10.0.0.1:9000", "http://10.0.0.1:80", Hosts::Private), Err(CrossSite::Page));
        let rebound = origin("evil.example:9000", "http://evil.example:9000", Hosts::Private);
        assert_eq!(rebound, Err(CrossSite::PublicHost));
        let two = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "https://evil.example")];
        assert_eq!(judge(&two, Hosts::Loopback), Err(CrossSite::Page));
    }

    #[test]
    fn a_foreign_site_without_an_origin_is_refused() {
        let site = |site| judge(&[("host", "localhost"), ("sec-fetch-site", site)], Hosts::Loopback);
        assert_eq!(site("cross-site"), Err(CrossSite::Page));
        assert_eq!(site("Cross-Site"), Err(CrossSite::Page));
        for own in ["same-origin", "same-site", "none"] {
            assert_eq!(site(own), Ok(()));
        }
        // To a browser a page of localhost is one of another site than 127.0.0.1.
        let loopback =
            [("host", "127.0.0.1"), ("origin", "http://localhost:3000"), ("sec-fetch-site", "cross-site")];
        assert_eq!(judge(&loopback, Hosts::Loopback), Ok(()));
    }
}
