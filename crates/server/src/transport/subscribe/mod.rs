//! `GET /subscribe?topic=a&topic=b`: topics as Server-Sent Events, for a browser's own `EventSource`, as lines of JSON, as
//! the messages of a bare WebSocket, for a browser's own `WebSocket`, or as answers to polls.
//!
//! The request becomes the requests that a client of another wire would send: connect with `token` (or `Authorization:
//! Bearer`), and a subscribe for each topic, with the `subscription_token` that names it. The session checks all
//! of them before anything follows, then answers each. The answers decide on the response: a stream, or a status and a JSON
//! error, since `EventSource` comes back after every end of a stream. A client that comes back with a cursor, as
//! `EventSource` does, goes on from there.

mod bare;
mod format;
mod poll;
mod query;
pub(super) mod refusal;

use fanwire_protocol::wire::{Pings, TransportMode};
use hyper::Request;
use hyper::body::Incoming;

use self::format::Format;
use self::refusal::{refuse, refused};
use super::{Arrival, Gate, Head, Opening, Responses, Routed};
use crate::accept::admission::ClientNetwork;
use crate::cors;
use crate::response::{HttpResponse, only_get};

/// Answers the request to open a stream, or a poll.
pub(crate) async fn open(gate: &Gate, network: ClientNetwork, request: Request<Incoming>) -> Routed {
    begin(gate, network, request).await.unwrap_or_else(|response| Routed::Response(*response))
}

async fn begin(
    gate: &Gate,
    network: ClientNetwork,
    mut request: Request<Incoming>,
) -> Result<Routed, Box<HttpResponse>> {
    only_get(&request)?;
    let websocket = match bare::is_asked_for(request.headers()) {
        true => Some(bare::handshake(gate, &mut request)?),
        false => None,
    };
    let settings = &gate.node.settings;
    let subscriptions_max = settings.client.subscriptions_max;
    let origin = gate.origins.judge(request.headers());
    let query = query::read(&request, &origin, settings.subscribe.token_cookie.as_deref(), subscriptions_max);
    query.check(subscriptions_max).map_err(refuse)?;
    let format = Format::of(query.asked.format.as_deref(), request.headers()).map_err(refuse)?;
    let headers = cors::lines(&origin, settings.dev.is_some());
    if format == Format::Poll && websocket.is_none() {
        return poll::open(gate, network, request.headers(), query, headers).await;
    }
    query.check_stream().map_err(refuse)?;
    let resume = query.resume().map_err(refuse)?;
    let websocket = match websocket {
        Some(handshake) => Some((handshake, bare::messages(gate, &query).map_err(refuse)?)),
        None => None,
    };
    let kept = gate.kept_headers(request.headers())?;
    let permit = gate.admit(network)?;
    if let Some((handshake, messages)) = websocket {
        let opening =
            Opening { kept, ..bare::opening(handshake, messages, query, resume, headers.into(), permit) };
        return Ok(Routed::Arrival(Arrival::Opening(Box::new(opening))));
    }
    let topics: Vec<String> = query.asked.topics.iter().map(|topic| topic.to_string()).collect();
    let first = query.into_requests(resume.as_ref(), false);
    let accepted = format.accepted(&headers);
    let responses = Responses { accepted, refused, headers: headers.into(), topics, resume };
    Ok(Routed::Arrival(Arrival::Opening(Box::new(Opening {
        mode: TransportMode { wire: format.wire(), pings: Pings::Keepalive },
        first,
        head: Head::ByAnswers(Box::new(responses)),
        state: None,
        deflate: None,
        permit,
        kept,
    }))))
}
