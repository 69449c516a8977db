//! `POST /emulation`: the commands of a client whose replies come by a stream that another request opened.
//!
//! Any node takes them: the session's key leads to the shard and the node that hold the session. Replies go out by the
//! stream; the response says that the session has the commands, or why not.

use std::str::FromStr as _;

use bytes::Bytes;
use fanwire_protocol::centrifuge::{EmulationRequest, Encoding};
use fanwire_protocol::wire::{ClientMessage, Wire};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use uuid::Uuid;

use super::no_answer::NoAnswer;
use super::{Gate, content_type, limited_body};
use crate::accept::admission::ClientNetwork;
use crate::message::{SessionAnswer, SessionAsk};
use crate::response::{HttpResponse, bad_request, no_content, only, text};
use crate::session_key::SessionKey;

/// One answer for whatever is no session, so that nobody learns what a guess has hit.
pub(super) const GONE: &str = "No such session: it has ended, or its node has. Connect again.";

/// Answers a request with commands for a session. Calls that come to a session are counted there, all others here.
pub(crate) async fn serve(gate: &Gate, network: ClientNetwork, request: Request<Incoming>) -> HttpResponse {
    let calls = &gate.node.counters[gate.shard].session_calls;
    let (key, ask) = match read(gate, request).await {
        Ok(call) => call,
        Err(response) => {
            let is_gone = response.status() == StatusCode::NOT_FOUND;
            let counter = if is_gone { &calls.from_shards.gone } else { &calls.refused };
            counter.add(1);
            return *response;
        }
    };
    match hand_over(gate, network, key, ask).await {
        Ok(()) => no_content(),
        Err(response) => *response,
    }
}

/// Hands a call to its session. Returns the response to one that the session has not taken.
pub(super) async fn hand_over(
    gate: &Gate,
    network: ClientNetwork,
    key: SessionKey,
    ask: SessionAsk,
) -> Result<(), Box<HttpResponse>> {
    Err(Box::new(match gate.node.ask_session(network, key, ask).await {
        Ok(SessionAnswer::Taken) => return Ok(()),
        Ok(SessionAnswer::Full) => text(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many requests of this session wait for earlier commands, so it has ended. Connect again, and send commands \
             in order.",
        ),
        Ok(SessionAnswer::TooOften) => NoAnswer::TOO_OFTEN.in_words(),
        Ok(SessionAnswer::Busy) => NoAnswer::busy(gate).in_words(),
        Ok(_) => text(StatusCode::NOT_FOUND, GONE),
        Err(why) => match NoAnswer::unreachable(gate, why) {
            Some(no_answer) => no_answer.in_words(),
            None => text(StatusCode::NOT_FOUND, GONE),
        },
    }))
}

/// Reads a request: the session and its commands.
async fn read(
    gate: &Gate,
    request: Request<Incoming>,
) -> Result<(SessionKey, SessionAsk), Box<HttpResponse>> {
    only(&request, "POST")?;
    let is_binary = content_type::is(request.headers(), content_type::BINARY);
    let encoding = if is_binary { Encoding::Protobuf } else { Encoding::Json };
    let bytes_max = gate.node.settings.emulation.body_bytes_max;
    let body = limited_body::read(request, "emulation.body_bytes_max", bytes_max).await?;
    let (key, data) = read_body(encoding, &body)?;
    Ok((key, SessionAsk::Commands { first: first_id(encoding, &data), data }))
}

fn read_body(encoding: Encoding, body: &Bytes) -> Result<(SessionKey, Bytes), Box<HttpResponse>> {
    let request =
        EmulationRequest::decode_body(encoding, body).map_err(|mistake| bad_request(mistake.reason()))?;
    let Some(key) = SessionKey::parse(&request.session) else {
        return Err(Box::new(text(StatusCode::NOT_FOUND, GONE)));
    };
    if Uuid::from_str(&request.node) != Ok(key.node) {
        return Err(bad_request(
            "\"node\" is not the node of \"session\"; send both as the reply to connect has them",
        ));
    }
    Ok((key, request.data))
}

/// Returns the first id in commands. It stands at the begin, behind a few pongs at most. It is looked for here, in the time
/// that requests have: the session's shard takes thousands of calls in a turn.
pub(super) fn first_id(encoding: Encoding, data: &[u8]) -> Option<u32> {
    const LOOKED_AT_MAX: usize = 8;
    let wire = match encoding {
        Encoding::Json => Wire::CentrifugeLines,
        Encoding::Protobuf => Wire::CentrifugeStream,
    };
    let requests = wire.requests(ClientMessage::Binary(data), 0).take(LOOKED_AT_MAX);
    requests.map_while(Result::ok).map(|request| request.id).find(|id| *id != 0)
}
