//! `POST /emulation`: the commands of a client whose replies come by a stream that another request opened.
//!
//! Any node takes them: the session's key leads to the shard and the node that hold the session. Replies go out by the
//! stream; the response says that the session has the commands, or why not.

use std::str::FromStr as _;

use bytes::Bytes;
use fanwire_protocol::centrifuge::{EmulationRequest, Encoding};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode};
use uuid::Uuid;

use super::{Gate, content_type, limited_body};
use crate::message::{SessionAnswer, SessionAsk, Unreachable};
use crate::response::{HttpResponse, only, text};
use crate::session_key::SessionKey;

/// One answer for whatever is no session, so that nobody learns what a guess has hit.
const GONE: &str = "No such session: it has ended, or its node has. Connect again.";

/// Answers a request with commands for a session. Calls that come to a session are counted there, all others here.
pub(crate) async fn serve(gate: &Gate, request: Request<Incoming>) -> HttpResponse {
    let calls = &gate.node.counters[gate.shard].session_calls;
    let (key, data) = match read(gate, request).await {
        Ok(call) => call,
        Err(response) => {
            let is_gone = response.status() == StatusCode::NOT_FOUND;
            let counter = if is_gone { &calls.from_shards.gone } else { &calls.refused };
            counter.add(1);
            return *response;
        }
    };
    // Nothing is read from sockets either.
    if gate.node.inboxes.are_requests_full() {
        calls.busy.add(1);
        return later("The node has too many requests before it.");
    }
    match gate.node.ask_session(key, SessionAsk::Commands(data)).await {
        Ok(SessionAnswer::Taken) => {
            let mut response = HttpResponse::default();
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Ok(SessionAnswer::Gone) => text(StatusCode::NOT_FOUND, GONE),
        Ok(SessionAnswer::Full) => text(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many requests of this session wait for earlier commands, so it has ended. Connect again, and send commands \
             in order.",
        ),
        Err(Unreachable::NoSession) => {
            calls.from_shards.gone.add(1);
            text(StatusCode::NOT_FOUND, GONE)
        }
        Err(Unreachable::Late) => {
            calls.late.add(1);
            later("The session's node does not answer.")
        }
        Err(Unreachable::Redis) => {
            calls.unreachable.add(1);
            later("Redis does not answer, over which the session's node is asked.")
        }
    }
}

/// Reads a request: the session and its commands.
async fn read(gate: &Gate, request: Request<Incoming>) -> Result<(SessionKey, Bytes), Box<HttpResponse>> {
    only(&request, "POST")?;
    let is_binary = content_type::is(request.headers(), content_type::BINARY);
    let encoding = if is_binary { Encoding::Protobuf } else { Encoding::Json };
    let bytes_max = gate.node.settings.emulation.body_bytes_max;
    let body = limited_body::read(request, "emulation.body_bytes_max", bytes_max).await?;
    read_body(encoding, &body)
}

fn read_body(encoding: Encoding, body: &Bytes) -> Result<(SessionKey, Bytes), Box<HttpResponse>> {
    let refused = |why: &str| Box::new(text(StatusCode::BAD_REQUEST, format!("Bad Request: {why}.")));
    let request =
        EmulationRequest::decode_body(encoding, body).map_err(|mistake| refused(mistake.reason()))?;
    let Some(key) = SessionKey::parse(&request.session) else {
        return Err(Box::new(text(StatusCode::NOT_FOUND, GONE)));
    };
    if Uuid::from_str(&request.node) != Ok(key.node) {
        return Err(refused(
            "\"node\" is not the node of \"session\"; send both as the reply to connect has them",
        ));
    }
    Ok((key, request.data))
}

fn later(why: &str) -> HttpResponse {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
