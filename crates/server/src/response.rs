//! Whole HTTP responses, and the parts of a request that they depend on.

use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::Full;
use httpdate::HttpDate;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode, Version};

pub(crate) type HttpResponse = Response<Full<Bytes>>;

pub(crate) fn only_get(request: &Request<Incoming>) -> Result<(), Box<HttpResponse>> {
    only(request, "GET")
}

/// Refuses methods that are not in a list such as `GET, POST`.
pub(crate) fn only(request: &Request<Incoming>, methods: &'static str) -> Result<(), Box<HttpResponse>> {
    if methods.split(", ").any(|method| method == request.method()) {
        return Ok(());
    }
    let sentence = format!("This takes {} requests only.", methods.replace(", ", " and "));
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, sentence);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    Err(Box::new(response))
}

pub(crate) fn refused_origin() -> HttpResponse {
    text(
        StatusCode::FORBIDDEN,
        "Pages of this origin may not connect: it is not in client.allowed_origins. List the server's own origin too.",
    )
}

/// Refuses a request that has better prospects in a second.
pub(crate) fn later(why: impl Into<String>) -> HttpResponse {
    later_with(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// The same with another status.
pub(crate) fn later_with(status: StatusCode, why: impl Into<String>) -> HttpResponse {
    let mut response = text(status, why);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> HttpResponse {
    let mut body = body.into();
    body.push('\n');
    respond(status, "text/plain; charset=utf-8", body.into())
}

/// Returns the response to a request that is not as it should be.
pub(crate) fn bad_request(why: &str) -> Box<HttpResponse> {
    Box::new(text(StatusCode::BAD_REQUEST, format!("Bad Request: {why}.")))
}

/// Returns the response that says no more than that the request was carried out.
pub(crate) fn no_content() -> HttpResponse {
    let mut response = HttpResponse::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

pub(crate) fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> HttpResponse {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Returns a response as bytes, for a connection that ends with it and that hyper does not serve. `lines` are more lines of
/// its head.
pub(crate) fn last_response(
    status: StatusCode,
    content_type: &str,
    headers: &[(HeaderName, HeaderValue)],
    lines: &[u8],
    body: &[u8],
) -> Bytes {
    let date = HttpDate::from(SystemTime::now());
    let mut response = format!("HTTP/1.1 {status}\r\ndate: {date}\r\n").into_bytes();
    for (name, value) in headers {
        write_header(&mut response, name, value);
    }
    if status != StatusCode::NOT_MODIFIED {
        write_header(&mut response, &CONTENT_TYPE, content_type);
        write_header(&mut response, &CONTENT_LENGTH, body.len().to_string());
    }
    write_header(&mut response, &CONNECTION, "close");
    response.extend_from_slice(lines);
    response.extend_from_slice(b"\r\n");
    response.extend_from_slice(body);
    response.into()
}

/// Returns true if the client wants the connection closed after this request.
pub(crate) fn is_last(request: &Request<Incoming>) -> bool {
    let connection = request.headers().get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut words = connection.flat_map(|value| value.split(',').map(str::trim));
    match request.version() {
        Version::HTTP_11 => words.any(|word| word.eq_ignore_ascii_case("close")),
        _ => !words.any(|word| word.eq_ignore_ascii_case("keep-alive")),
    }
}

pub(crate) fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Appends a line of a head.
pub(crate) fn write_header(head: &mut Vec<u8>, name: &HeaderName, value: impl AsRef<[u8]>) {
    head.extend_from_slice(name.as_str().as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value.as_ref());
    head.extend_from_slice(b"\r\n");
}
