//! A bare WebSocket: each publication's data is a message, and each message of the client is published. With an envelope a
//! message is an object that holds the data and a cursor.

use bytes::Bytes;
use fanwire_protocol::TopicName;
use fanwire_protocol::cursor::Parsed;
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::wire::{Pings, TransportMode, Wire};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::{Request, StatusCode};

use super::query::StreamQuery;
use super::refusal::{StreamRefusal, refused};
use crate::permit::AdmissionPermit;
use crate::response::{HttpResponse, text};
use crate::settings::Subprotocols;
use crate::transport::websocket::{self, Handshake, has_token, words};
use crate::transport::{Gate, Head, Opening, Responses, WireState};

/// Sub-protocols that begin so are the Centrifuge protocol, which has an address of its own.
const CENTRIFUGE: &str = "centrifuge-";

/// Returns true if the request asks for a WebSocket.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// Checks the handshake.
pub(super) fn handshake(
    gate: &Gate,
    request: &mut Request<Incoming>,
) -> Result<Handshake, Box<HttpResponse>> {
    let settings = &gate.node.settings;
    let offered = words(request.headers(), &SEC_WEBSOCKET_PROTOCOL);
    let subprotocol = choose(offered, &settings.subscribe.subprotocols).map_err(|Centrifuge| {
        let path = &settings.websocket.path;
        let why = format!("The Centrifuge protocol is spoken at {path}. Leave out the sub-protocol {CENTRIFUGE}*, or go there.");
        Box::new(text(StatusCode::BAD_REQUEST, why))
    })?;
    let subprotocol = subprotocol.map(str::to_owned);
    websocket::handshake(gate, request, subprotocol.as_deref())
}

/// The client wants the Centrifuge protocol.
#[derive(Debug, PartialEq, Eq)]
struct Centrifuge;

/// Returns the sub-protocol to confirm: the first that is offered and taken.
fn choose<'r>(
    offered: impl Iterator<Item = &'r str>,
    taken: &Subprotocols,
) -> Result<Option<&'r str>, Centrifuge> {
    let mut chosen = None;
    for name in offered.filter(|name| !name.is_empty()) {
        if name.starts_with(CENTRIFUGE) {
            return Err(Centrifuge);
        }
        chosen = chosen.or(Some(name).filter(|name| taken.takes(name)));
    }
    Ok(chosen)
}

/// The messages of a connection.
pub(super) struct Messages {
    /// The form of those to the client.
    wire: Wire,
    /// The topic that those of the client are published to.
    publish: Option<TopicName>,
}

pub(super) fn messages(gate: &Gate, query: &StreamQuery<'_>) -> Result<Messages, StreamRefusal> {
    Ok(Messages { wire: wire(query.asked.envelope.as_deref())?, publish: publish_topic(gate, query)? })
}

fn wire(envelope: Option<&str>) -> Result<Wire, StreamRefusal> {
    match envelope {
        None => Ok(Wire::Bare),
        Some("json") => Ok(Wire::BareJson),
        Some(_) => Err(StreamRefusal::new(
            RequestError::BadRequest,
            "envelope: say json, or leave it out for bare data",
        )),
    }
}

/// Returns the topic that messages of the client are published to: the one that it names, else the only one that it asks
/// for.
fn publish_topic(gate: &Gate, query: &StreamQuery<'_>) -> Result<Option<TopicName>, StreamRefusal> {
    match (&query.asked.publish, &*query.asked.topics) {
        (Some(name), _) => match gate.node.topic(name) {
            Ok((topic, _)) => Ok(Some(topic)),
            Err(error) => Err(StreamRefusal::new(error.into(), format!("publish: {error}"))),
        },
        // The session checks the name.
        (None, [name]) => Ok(TopicName::new(name)),
        (None, _) => Ok(None),
    }
}

/// Opens the connection once the query is granted.
pub(super) fn opening(
    handshake: Handshake,
    messages: Messages,
    query: StreamQuery<'_>,
    resume: Option<Parsed>,
    headers: Bytes,
    permit: AdmissionPermit,
) -> Opening {
    let Handshake { head, deflate } = handshake;
    let Messages { wire, publish } = messages;
    let topics = query.asked.topics.iter().map(|topic| topic.to_string()).collect();
    let first = query.into_requests(resume.as_ref(), false);
    let responses = Responses { accepted: head, refused, headers, topics, resume };
    Opening {
        mode: TransportMode { wire, pings: Pings::Frames },
        first,
        head: Head::ByAnswers(Box::new(responses)),
        state: Some(WireState::Bare { publish }),
        deflate,
        permit,
        kept: None,
    }
}
