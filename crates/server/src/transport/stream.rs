//! `/connection/http_stream` and `/connection/sse`: clients of the Centrifuge protocol without WebSocket. Replies and pushes
//! come by the response, which stays open; commands go by [`super::emulation`].
//!
//! The request holds the first commands, as a frame does. Connect is the first of them. What the session says to them is in
//! the stream, a refusal too.

use bytes::Bytes;
use fanwire_hub::reorder::Reorder;
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::Mistake;
use fanwire_protocol::request::{self, Ask};
use fanwire_protocol::wire::{ClientMessage, Pings, TransportMode, Wire};
use hyper::body::Incoming;
use hyper::{Method, Request};

use super::content_type::{self, BINARY};
use super::stream_head::{EVENTS, LINES, cf_connect, head};
use super::{Gate, Head, KeptHeaders, Opening, WireState, limited_body};
use crate::accept::admission::ClientNetwork;
use crate::response::{HttpResponse, bad_request, only};

/// Opens a stream of lines, or of messages in Protobuf.
pub(crate) async fn http_stream(
    gate: &Gate,
    network: ClientNetwork,
    request: Request<Incoming>,
) -> Result<Opening, Box<HttpResponse>> {
    only(&request, "POST")?;
    let (wire, content_type) = match content_type::is(request.headers(), BINARY) {
        true => (Wire::CentrifugeStream, BINARY),
        false => (Wire::CentrifugeLines, LINES),
    };
    let head = head(gate, &request, content_type);
    let (kept, request) = gate.kept_before_body(request)?;
    let bytes_max = gate.node.settings.http_stream.body_bytes_max;
    let body = limited_body::read(request, "http_stream.body_bytes_max", bytes_max).await?;
    open(gate, network, wire, body, head, kept)
}

/// Opens a stream of Server-Sent Events, for a library that uses the browser's `EventSource`.
pub(crate) async fn sse(
    gate: &Gate,
    network: ClientNetwork,
    request: Request<Incoming>,
) -> Result<Opening, Box<HttpResponse>> {
    only(&request, "GET, POST")?;
    let head = head(gate, &request, EVENTS);
    let (kept, request) = gate.kept_before_body(request)?;
    let body = if request.method() == Method::GET {
        cf_connect(&request).unwrap_or_default().into_owned().into()
    } else {
        let bytes_max = gate.node.settings.sse.body_bytes_max;
        limited_body::read(request, "sse.body_bytes_max", bytes_max).await?
    };
    open(gate, network, Wire::CentrifugeEvents, body, head, kept)
}

/// Checks that the first command connects, since nothing else can follow from a first request.
pub(super) fn check_connect(wire: Wire, body: &Bytes) -> Result<(), Box<HttpResponse>> {
    match wire.requests(ClientMessage::Binary(body), 0).next() {
        Some(Ok(request::Request { ask: Ask::Connect(_), .. })) => Ok(()),
        Some(Err(malformed)) => Err(bad_request(malformed.reason())),
        Some(Ok(_)) | None => Err(bad_request(&codes::mistake(&Mistake::NoConnect))),
    }
}

fn open(
    gate: &Gate,
    network: ClientNetwork,
    wire: Wire,
    body: Bytes,
    head: Vec<u8>,
    kept: KeptHeaders,
) -> Result<Opening, Box<HttpResponse>> {
    check_connect(wire, &body)?;
    Ok(Opening {
        mode: TransportMode { wire, pings: Pings::Messages },
        first: Default::default(),
        head: Head::Now(head.into()),
        state: Some(WireState::Emulated(Reorder::starting_with(&body))),
        deflate: None,
        permit: gate.admit(network)?,
        kept,
    })
}
