//! Refuses requests that two servers may read in two ways with 400: a proxy in front of the node may have decided about
//! another request than the node would serve.

use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{Request, StatusCode, Version};

use super::unreadable::REQUEST_HEADERS_MAX;
use crate::response::{HttpResponse, text};

/// The reasons for which a request is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("Bad Request: it has both Content-Length and Transfer-Encoding; one of them says where it ends.")]
    TwoLengths,
    #[error("Bad Request: it has no Host header, which HTTP/1.1 asks for.")]
    NoHost,
    #[error("Bad Request: it has more than one Host header.")]
    ManyHosts,
    #[error(
        "Bad Request: CONNECT opens WebSockets here, with the :protocol websocket (RFC 8441), and nothing else."
    )]
    Connect,
    #[error("There are more than {REQUEST_HEADERS_MAX} headers. Send fewer.")]
    ManyHeaders,
}

/// Judges a request by its headers, of which `Content-Length` may be gone: `has_one_length` says so.
pub(crate) fn check<B>(request: &Request<B>, has_one_length: bool) -> Result<(), Invalid> {
    if !has_one_length {
        return Err(Invalid::TwoLengths);
    }
    match request.headers().get_all(HOST).iter().count() {
        0 if request.version() > Version::HTTP_10 => Err(Invalid::NoHost),
        0 | 1 => Ok(()),
        _ => Err(Invalid::ManyHosts),
    }
}

impl Invalid {
    /// The response, which ends the connection, since the bytes that follow may be part of the request.
    pub(crate) fn answer(self) -> HttpResponse {
        let status = match self {
            Self::ManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut answer = text(status, self.to_string());
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        answer
    }
}
