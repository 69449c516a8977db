//! `POST /connection/http_stream?wait=15`: the Centrifuge protocol for clients that can read no stream, not even an unfinished
//! response. The body holds commands, of which the first connects. The answer is the lines that there are, at once or as soon as
//! there are any; the header `fanwire-session` names the session, for the parameter `session` of the next poll.

use bytes::Bytes;
use fanwire_hub::reorder::Reorder;
use fanwire_protocol::centrifuge::Encoding;
use fanwire_protocol::wire::{Pings, TransportMode, Wire};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};

use super::emulation::{GONE, first_id, hand_over};
use super::poll::{AnswerForm, Look, Poll, PollOf, PollQuery, Polled, look, read_session_name, wait};
use super::stream::check_connect;
use super::{Arrival, Gate, Head, Opening, Routed, WireState, content_type, limited_body};
use crate::accept::admission::ClientNetwork;
use crate::message::{PollAsk, SessionAsk};
use crate::response::{HttpResponse, bad_request, only, text};
use crate::session_key::SessionKey;
use crate::{body, cors};

/// There are no topics in the address.
const NO_TOPICS: u64 = 0;

/// Returns true if the request of this query is a poll.
pub(crate) fn is_asked_for(query: &PollQuery) -> bool {
    query.wait.is_some() || query.session.is_some()
}

/// Answers a poll, or has it wait.
pub(crate) async fn serve(
    gate: &Gate,
    network: ClientNetwork,
    request: Request<Incoming>,
    query: PollQuery,
) -> Routed {
    poll(gate, network, request, query).await.unwrap_or_else(|response| Routed::Response(*response))
}

async fn poll(
    gate: &Gate,
    network: ClientNetwork,
    request: Request<Incoming>,
    query: PollQuery,
) -> Result<Routed, Box<HttpResponse>> {
    only(&request, "POST")?;
    if content_type::is(request.headers(), content_type::BINARY) {
        return Err(Box::new(body::unread(request.into_body(), *bad_request("polls are in JSON"))));
    }
    let settings = &gate.node.settings;
    let wait = match wait(query.wait.as_deref(), settings.subscribe.polls.wait_max) {
        Ok(wait) => wait,
        Err(why) => return Err(Box::new(body::unread(request.into_body(), *bad_request(why)))),
    };
    let (kept, request) = gate.kept_before_body(request)?;
    let origin = gate.origins.judge(request.headers());
    let headers = cors::lines(&origin, settings.dev.is_some()).into();
    let form = AnswerForm { headers, callback: None, known: None, is_lines: true };
    let bytes_max = settings.http_stream.body_bytes_max;
    let body = limited_body::read(request, "http_stream.body_bytes_max", bytes_max).await?;
    let Some(name) = query.session else {
        check_connect(Wire::CentrifugeLines, &body)?;
        let place = Some(gate.admit_poller(network)?);
        let opening = Opening {
            mode: TransportMode { wire: Wire::CentrifugeLines, pings: Pings::Unanswered },
            first: Default::default(),
            head: Head::Now(Bytes::new()),
            state: Some(WireState::Polled(Polled::new(
                NO_TOPICS,
                network,
                place,
                Some(Reorder::starting_with(&body)),
            ))),
            deflate: None,
            permit: gate.admit(network)?,
            kept,
        };
        let of = PollOf::Opening(Box::new(opening));
        return Ok(Routed::Arrival(Arrival::Poll(Poll { of, wait, form, network })));
    };
    let gone = || Box::new(text(StatusCode::NOT_FOUND, GONE));
    let (key, number) = read_session_name(&name).ok_or_else(gone)?;
    send_commands(gate, network, key, body).await?;
    let ask = PollAsk::new(number, wait, NO_TOPICS);
    match look(gate, network, key, ask, &form).await? {
        Look::Answered(response) => Ok(Routed::Response(response)),
        Look::Waits => {
            Ok(Routed::Arrival(Arrival::Poll(Poll { of: PollOf::Session(key, ask), wait, form, network })))
        }
        Look::OtherTopics | Look::Gone => Err(gone()),
    }
}

/// Hands the commands of a poll to its session.
async fn send_commands(
    gate: &Gate,
    network: ClientNetwork,
    key: SessionKey,
    commands: Bytes,
) -> Result<(), Box<HttpResponse>> {
    if commands.trim_ascii().is_empty() {
        return Ok(());
    }
    let ask = SessionAsk::Commands { first: first_id(Encoding::Json, &commands), data: commands };
    hand_over(gate, network, key, ask).await
}
