//! Requests of HTTP/2 as those of HTTP/1.1, which routes and transports know, and heads of HTTP/1.1 as responses.

use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::header::{
    CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    UPGRADE,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};

use crate::accept::unreadable::REQUEST_HEADERS_MAX;
use crate::accept::validity::Invalid;

/// A key for handshakes, which have none here: the answer to it is dropped.
const NO_KEY: HeaderValue = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");

/// Makes a request what it would be in HTTP/1.1. Returns the stream that a request for a WebSocket is to become (RFC 8441).
pub(super) fn as_http1(request: &mut Request<Incoming>) -> Result<Option<OnUpgrade>, Invalid> {
    check_headers(request.headers())?;
    *request.version_mut() = Version::HTTP_11;
    name_host(request)?;
    join_cookies(request.headers_mut());
    if request.method() != Method::CONNECT {
        return Ok(None);
    }
    if request.extensions().get::<Protocol>().is_none_or(|protocol| protocol.as_str() != "websocket") {
        return Err(Invalid::Connect);
    }
    let upgrade = hyper::upgrade::on(&mut *request);
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_KEY, NO_KEY);
    Ok(Some(upgrade))
}

/// Bounds the number of headers, as the parser of HTTP/1.1 does. A browser may send each cookie in one of its own.
fn check_headers(headers: &HeaderMap) -> Result<(), Invalid> {
    let cookies = headers.get_all(COOKIE).iter().count();
    match headers.len() - cookies.saturating_sub(1) > REQUEST_HEADERS_MAX {
        true => Err(Invalid::ManyHeaders),
        false => Ok(()),
    }
}

/// Has the host in `Host`, where HTTP/1.1 has it.
fn name_host<B>(request: &mut Request<B>) -> Result<(), Invalid> {
    let Some(authority) = request.uri().authority() else { return Ok(()) };
    let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| Invalid::NoHost)?;
    match request.headers().get(HOST) {
        Some(host) if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => Err(Invalid::ManyHosts),
        Some(_) => Ok(()),
        None => {
            request.headers_mut().insert(HOST, authority);
            Ok(())
        }
    }
}

/// Puts the cookies into one header: here each may have its own (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// A head that a shard wrote.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    /// It agreed to an upgrade, which is a success here.
    pub(super) is_upgraded: bool,
}

impl Head {
    /// Reads a whole head. Headers of the connection are left out.
    pub(super) fn read(head: &[u8]) -> Option<Self> {
        const OF_CONNECTION: [HeaderName; 3] = [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT];
        let head = std::str::from_utf8(head).ok()?;
        let mut lines = head.strip_suffix("\r\n\r\n")?.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse::<StatusCode>().ok()?;
        let is_upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
        let mut response = Response::new(());
        *response.status_mut() = if is_upgraded { StatusCode::OK } else { status };
        for line in lines {
            let (name, value) = line.split_once(':')?;
            let (name, value) = (name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?);
            if !OF_CONNECTION.contains(&name) {
                response.headers_mut().append(name, value);
            }
        }
        Some(Self { response, is_upgraded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_becomes_a_response() {
        let read = |head: &str| Head::read(head.as_bytes());
        let head = read(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nvary: a\r\nvary: b\r\nconnection: close\r\n\r\n",
        );
        let Head { response, is_upgraded } = head.unwrap();
        let headers: Vec<_> =
            response.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        assert_eq!((response.status(), is_upgraded), (StatusCode::OK, false));
        assert_eq!(headers, ["content-type: text/plain", "vary: a", "vary: b"]);
        let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\
                    connection: Upgrade\r\nsec-websocket-protocol: centrifuge-json\r\n\r\n";
        let Head { response, is_upgraded } = read(head).unwrap();
        assert_eq!((response.status(), is_upgraded, response.headers().len()), (StatusCode::OK, true, 1));
        for mistake in
            ["", "\r\n\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 x\r\n\r\n", "HTTP/1.1 200 OK\r\nx\r\n\r\n"]
        {
            assert!(read(mistake).is_none(), "{mistake}");
        }
    }

    #[test]
    fn more_than_100_headers_are_refused_and_cookies_are_one() {
        let mut headers = HeaderMap::new();
        for _ in 0..200 {
            headers.append(COOKIE, HeaderValue::from_static("a=b"));
        }
        for _ in 0..99 {
            headers.append("x", HeaderValue::from_static("y"));
        }
        assert_eq!(check_headers(&headers), Ok(()));
        headers.append("x", HeaderValue::from_static("y"));
        assert_eq!(check_headers(&headers), Err(Invalid::ManyHeaders));
        assert_eq!(Invalid::ManyHeaders.answer().status(), 431);
    }

    #[test]
    fn one_host_is_named_and_cookies_are_joined() {
        let request = |host: Option<&'static str>| {
            let mut request = Request::builder().uri("https://a.example:1/x").body(()).unwrap();
            if let Some(host) = host {
                request.headers_mut().insert(HOST, HeaderValue::from_static(host));
            }
            name_host(&mut request).map(|()| request.headers()[HOST].clone())
        };
        assert_eq!(request(None).unwrap(), "a.example:1");
        assert_eq!(request(Some("A.example:1")).unwrap(), "A.example:1");
        assert_eq!(request(Some("b.example")), Err(Invalid::ManyHosts));
        let mut headers = HeaderMap::new();
        for cookie in ["a=1", "b=2"] {
            headers.append(COOKIE, HeaderValue::from_static(cookie));
        }
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
