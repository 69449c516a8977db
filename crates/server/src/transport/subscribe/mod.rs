//! `GET /subscribe?topic=a&topic=b`: topics as Server-Sent Events, for a browser's own `EventSource`.
//!
//! The request becomes the requests that a client of another wire would send: connect with `token` (or `Authorization:
//! Bearer`), and a subscribe for each topic, with the `subscription_token` that names it. The session answers them, and the
//! answers decide on the response: a stream, or a status and a JSON error, since `EventSource` comes back after every end
//! of a stream. The stream has the publications from then on; there is no cursor yet.

mod events;
mod query;
mod refusal;

use fanwire_protocol::wire::{Pings, TransportMode, Wire};
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue, VARY,
};
use hyper::{Method, Request, StatusCode};

use self::refusal::refused;
use super::{Decided, Gate, Head, Opening, write_header};
use crate::accept::origin::Origin;
use crate::response::{HttpResponse, only_get, refused_origin, respond};

/// The id of the first subscribe; connect has 1.
const FIRST_SUBSCRIBE: u32 = 2;

/// Answers the request to open a stream.
pub(crate) fn open(gate: &Gate, request: &Request<Incoming>) -> Result<Opening, Box<HttpResponse>> {
    let origin = gate.origins.judge(request.headers());
    if origin == Origin::Refused {
        return Err(Box::new(refused_origin()));
    }
    if request.method() == Method::OPTIONS {
        return Err(Box::new(preflight(request, &origin)));
    }
    only_get(request)?;
    let subscriptions_max = gate.node.settings.client.subscriptions_max;
    let query = query::read(request, subscriptions_max);
    query.check(subscriptions_max).map_err(|refusal| {
        let response = respond(refusal.status(), "application/json", refusal.body().into());
        Box::new(allow_origin(response, &origin))
    })?;
    let permit = gate.admit().map_err(|response| Box::new(allow_origin(*response, &origin)))?;
    let topics: Vec<String> = query.topics.iter().map(|topic| topic.to_string()).collect();
    let mut headers = Vec::new();
    if let Origin::Allowed(origin) = origin {
        write_header(&mut headers, &ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        write_header(&mut headers, &ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    write_header(&mut headers, &VARY, "Origin");
    let decided = Decided { accepted: events::accepted(&headers), refused, headers: headers.into(), topics };
    Ok(Opening {
        mode: TransportMode { wire: Wire::Sse, pings: Pings::Keepalive },
        first: query.into_requests(),
        head: Head::Decided(Box::new(decided)),
        deflate: None,
        permit,
    })
}

/// A browser asks before it sends a token in a header to another origin.
fn preflight(request: &Request<Incoming>, origin: &Origin<'_>) -> HttpResponse {
    const CACHED_SECONDS: HeaderValue = HeaderValue::from_static("300");
    let mut response = allow_origin(HttpResponse::default(), origin);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, OPTIONS"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, CACHED_SECONDS);
    headers.insert(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    if let Some(wanted) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    response
}

/// Lets the page that asked read the answer.
fn allow_origin(mut response: HttpResponse, origin: &Origin<'_>) -> HttpResponse {
    if let Origin::Allowed(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, (*origin).clone());
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    response
}
