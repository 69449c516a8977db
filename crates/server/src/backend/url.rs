//! The address of a backend, as the settings have it.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

/// An address such as `https://backend.example:8443/centrifugo/connect`.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendUrl {
    is_https: bool,
    /// A name or an address, without the brackets of IPv6.
    host: String,
    port: u16,
    /// The `Host` header.
    authority: String,
    /// The path with the query.
    path: Uri,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("is empty; set the backend's address, such as \"https://backend.example/connect\"")]
    Empty,
    #[error("is no URL; it looks like \"https://backend.example/connect\"")]
    NoUrl,
    #[error("gRPC hooks come later; use http or https")]
    Grpc,
    #[error("must begin with http:// or https://")]
    Scheme,
    #[error("has no host")]
    NoHost,
    #[error("holds a user or password; send them as the header Authorization, by static_headers")]
    Password,
    #[error("has a fragment (#), which is not sent")]
    Fragment,
}

impl BackendUrl {
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.is_empty() {
            return Err(UrlError::Empty);
        }
        if text.contains('#') {
            return Err(UrlError::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::NoUrl)?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some("grpc" | "grpcs") => return Err(UrlError::Grpc),
            Some(_) | None => return Err(UrlError::Scheme),
        };
        let authority = uri.authority().ok_or(UrlError::NoHost)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::Password);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(UrlError::NoHost);
        }
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let path = uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
        Ok(Self { is_https, host, port, authority: authority.as_str().to_owned(), path })
    }

    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Returns true if what is sent does not leave this machine.
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the path with the query, as a request has it.
    pub(crate) fn path(&self) -> &Uri {
        &self.path
    }
}

/// A query may hold a key, so it is not shown.
impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path.path())
    }
}

impl fmt::Debug for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, is_https, host, port, path) in [
            ("http://127.0.0.1:3000/connect", false, "127.0.0.1", 3000, "/connect"),
            ("https://backend.example", true, "backend.example", 443, "/"),
            ("http://backend/a/b?key=1", false, "backend", 80, "/a/b?key=1"),
            ("https://[::1]:8443/x", true, "::1", 8443, "/x"),
        ] {
            let url = BackendUrl::parse(text).unwrap();
            let parts = (url.is_https(), url.host(), url.port(), &*url.path().to_string());
            assert_eq!(parts, (is_https, host, port, path), "{text}");
        }
        for (text, error) in [
            ("", UrlError::Empty),
            ("backend", UrlError::Scheme),
            ("/connect", UrlError::Scheme),
            ("grpc://backend:50051", UrlError::Grpc),
            ("ftp://backend/", UrlError::Scheme),
            ("http://", UrlError::NoUrl),
            ("http://:80/", UrlError::NoHost),
            ("http://me:secret@backend/", UrlError::Password),
            ("http://backend/#a", UrlError::Fragment),
            ("http://a b/", UrlError::NoUrl),
        ] {
            assert_eq!(BackendUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_query_is_not_shown() {
        let url = BackendUrl::parse("https://backend:8443/a?key=secret").unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://backend:8443/a https://backend:8443/a");
    }

    #[test]
    fn what_stays_on_the_machine_is_local() {
        for (text, is_local) in [
            ("http://localhost:1", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]/", true),
            ("http://10.0.0.1/", false),
            ("http://backend/", false),
        ] {
            assert_eq!(BackendUrl::parse(text).unwrap().is_local(), is_local, "{text}");
        }
    }
}
