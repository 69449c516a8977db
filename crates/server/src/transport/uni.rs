//! `/connection/uni_sse`, `/connection/uni_http_stream` and `/connection/uni_websocket`: clients that connect, and from then
//! on only listen.
//!
//! The request holds a connect request without a command around it, or none, which is one without fields. Its topics and
//! those of its token are what the client gets, as pushes without a reply around them.

use std::collections::VecDeque;

use fanwire_protocol::request;
use fanwire_protocol::wire::{ClientMessage, Pings, TransportMode, Wire};
use hyper::body::Incoming;
use hyper::{Method, Request};

use super::stream_head::{EVENTS, LINES, cf_connect, head, retry};
use super::{Gate, Head, KeptHeaders, Opening, limited_body, websocket};
use crate::accept::admission::ClientNetwork;
use crate::response::{HttpResponse, bad_request, only};

/// Opens a stream of Server-Sent Events, for a browser's own `EventSource`.
pub(crate) async fn sse(
    gate: &Gate,
    network: ClientNetwork,
    request: Request<Incoming>,
) -> Result<Opening, Box<HttpResponse>> {
    only(&request, "GET, POST")?;
    let mut head = head(gate, &request, EVENTS);
    // A browser comes back by itself, and all do when a node ends.
    retry(&mut head);
    let (kept, request) = gate.kept_before_body(request)?;
    let first = if request.method() == Method::GET {
        connect(Wire::UniEvents, cf_connect(&request).unwrap_or_default().as_bytes())?
    } else {
        let bytes_max = gate.node.settings.uni_sse.body_bytes_max;
        let body = limited_body::read(request, "uni_sse.body_bytes_max", bytes_max).await?;
        connect(Wire::UniEvents, &body)?
    };
    open(gate, network, Wire::UniEvents, first, head, kept)
}

/// Opens a stream of lines.
pub(crate) async fn http_stream(
    gate: &Gate,
    network: ClientNetwork,
    request: Request<Incoming>,
) -> Result<Opening, Box<HttpResponse>> {
    only(&request, "POST")?;
    let head = head(gate, &request, LINES);
    let (kept, request) = gate.kept_before_body(request)?;
    let bytes_max = gate.node.settings.uni_http_stream.body_bytes_max;
    let body = limited_body::read(request, "uni_http_stream.body_bytes_max", bytes_max).await?;
    open(gate, network, Wire::UniLines, connect(Wire::UniLines, &body)?, head, kept)
}

/// Opens a WebSocket. Without a connect request in the query, the first message is one.
pub(crate) fn websocket(
    gate: &Gate,
    network: ClientNetwork,
    request: Request<Incoming>,
) -> Result<Opening, Box<HttpResponse>> {
    let first = match cf_connect(&request) {
        Some(message) => connect(Wire::UniWebSocket, message.as_bytes())?,
        None => VecDeque::new(),
    };
    let mode = TransportMode { wire: Wire::UniWebSocket, pings: Pings::Frames };
    let opening = websocket::upgrade(gate, network, request, mode, None)?;
    Ok(Opening { first, ..opening })
}

fn open(
    gate: &Gate,
    network: ClientNetwork,
    wire: Wire,
    first: VecDeque<request::Request>,
    head: Vec<u8>,
    kept: KeptHeaders,
) -> Result<Opening, Box<HttpResponse>> {
    let permit = gate.admit(network)?;
    let mode = TransportMode { wire, pings: Pings::Unanswered };
    Ok(Opening { mode, first, head: Head::Now(head.into()), state: None, deflate: None, permit, kept })
}

fn connect(wire: Wire, message: &[u8]) -> Result<VecDeque<request::Request>, Box<HttpResponse>> {
    let requests = wire.requests(ClientMessage::Binary(message), 0).collect::<Result<_, _>>();
    requests.map_err(|malformed| bad_request(malformed.reason()))
}
