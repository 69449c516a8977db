//! `GET /subscribe?topic=a&topic=b`: topics as Server-Sent Events, for a browser's own `EventSource`.
//!
//! The request becomes the requests that a client of another wire would send: connect with `token` (or `Authorization:
//! Bearer`), and a subscribe for each topic, with the `subscription_token` that names it. The session checks all
//! of them before anything follows, then answers each. The answers decide on the response: a stream, or a status and a JSON
//! error, since `EventSource` comes back after every end of a stream. The stream has the publications from then on; there is no cursor yet.

mod events;
mod query;
pub(super) mod refusal;

use fanwire_protocol::wire::{Pings, TransportMode, Wire};
use hyper::Request;
use hyper::body::Incoming;

use self::refusal::refused;
use super::{Decided, Gate, Head, Opening};
use crate::cors;
use crate::response::{HttpResponse, only_get, respond};

/// Answers the request to open a stream.
pub(crate) fn open(gate: &Gate, request: &Request<Incoming>) -> Result<Opening, Box<HttpResponse>> {
    only_get(request)?;
    let settings = &gate.node.settings;
    let subscriptions_max = settings.client.subscriptions_max;
    let origin = gate.origins.judge(request.headers());
    let query = query::read(request, &origin, settings.subscribe.token_cookie.as_deref(), subscriptions_max);
    query
        .check(subscriptions_max)
        .map_err(|refusal| Box::new(respond(refusal.status(), "application/json", refusal.body().into())))?;
    let permit = gate.admit()?;
    let topics: Vec<String> = query.topics.iter().map(|topic| topic.to_string()).collect();
    let headers = cors::lines(&origin, settings.dev.is_some());
    let decided = Decided { accepted: events::accepted(&headers), refused, headers: headers.into(), topics };
    Ok(Opening {
        mode: TransportMode { wire: Wire::Events, pings: Pings::Keepalive },
        first: query.into_requests(),
        head: Head::Decided(Box::new(decided)),
        deflate: None,
        permit,
    })
}
