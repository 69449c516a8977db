//! The headers that let a page of an allowed origin read an answer, also one that refuses it: without them a browser
//! reports a CORS error in place of the status and the sentence.

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, VARY,
};
use hyper::{Method, Request};

use crate::accept::origin::Origin;
use crate::response::{HttpResponse, no_content, refused_origin, write_header};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
/// The headers that a page reads, beside those that every page may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("ETag, Fanwire-Session, Retry-After");
const ON_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const ON_SITE: HeaderValue = HeaderValue::from_static("Sec-Fetch-Site");
const ON_REQUEST_HEADERS: HeaderValue = HeaderValue::from_static("Access-Control-Request-Headers");
/// The time for which a browser keeps the answer, in seconds.
const KEPT: HeaderValue = HeaderValue::from_static("300");

/// Returns true for the request with which a browser asks for permission to send another.
pub(crate) fn is_preflight(request: &Request<Incoming>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers a preflight. The request that follows has its own answer, with headers of its own.
pub(crate) fn preflight(request: &Request<Incoming>, origin: &Origin<'_>) -> HttpResponse {
    if *origin == Origin::Refused {
        return refused_origin();
    }
    let mut response = no_content();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, KEPT);
    headers.insert(VARY, ON_REQUEST_HEADERS);
    if let Some(wanted) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    response
}

/// Returns the headers that let the page that asked read the answer, and that keep caches from giving it to another. Under
/// `--dev` the answer also depends on where the page is.
pub(crate) fn headers(
    origin: &Origin<'_>,
    is_dev: bool,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
    let of_page = match origin {
        Origin::Allowed(origin) => Some([
            (ACCESS_CONTROL_ALLOW_ORIGIN, (*origin).clone()),
            (ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
            (ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
        ]),
        Origin::None | Origin::Refused => None,
    };
    of_page.into_iter().flatten().chain([(VARY, ON_ORIGIN)]).chain(is_dev.then_some((VARY, ON_SITE)))
}

/// Adds the headers to a response.
pub(crate) fn share(response: &mut HttpResponse, headers: impl Iterator<Item = (HeaderName, HeaderValue)>) {
    for (name, value) in headers {
        response.headers_mut().append(name, value);
    }
}

/// Returns the headers as lines, for the head of a connection that opens.
pub(crate) fn lines(origin: &Origin<'_>, is_dev: bool) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in headers(origin, is_dev) {
        write_header(&mut lines, &name, value);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_origins_may_read_and_every_answer_depends_on_the_origin() {
        let page = HeaderValue::from_static("https://a.example");
        let expected = "access-control-allow-origin: https://a.example\r\n\
            access-control-allow-credentials: true\r\n\
            access-control-expose-headers: ETag, Fanwire-Session, Retry-After\r\n\
            vary: Origin\r\n";
        assert_eq!(String::from_utf8(lines(&Origin::Allowed(&page), false)).unwrap(), expected);
        for origin in [Origin::None, Origin::Refused] {
            assert_eq!(lines(&origin, false), b"vary: Origin\r\n");
            assert_eq!(lines(&origin, true), b"vary: Origin\r\nvary: Sec-Fetch-Site\r\n");
        }
    }
}
