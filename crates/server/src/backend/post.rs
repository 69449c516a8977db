//! Requests that bring a backend JSON.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request};

use super::{BackendUrl, Signer, signature};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Makes a request that is sent at this second since 1970.
pub(crate) fn post(
    url: &BackendUrl,
    mut headers: HeaderMap,
    signer: Option<&Signer>,
    body: Bytes,
    unix: i64,
) -> Request<Full<Bytes>> {
    headers.insert(CONTENT_TYPE, JSON);
    if let Ok(host) = HeaderValue::from_str(url.authority()) {
        headers.insert(HOST, host);
    }
    if let Some(signer) = signer
        && let Ok(value) = HeaderValue::from_str(&signer.sign(unix, &body))
    {
        headers.insert(HeaderName::from_static(signature::HEADER), value);
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.path().clone();
    *request.headers_mut() = headers;
    request
}
