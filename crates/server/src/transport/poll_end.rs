//! `POST /subscribe?end&session=...`: the end of a session that is polled, said by its client. A page that is left can still send it,
//! by `navigator.sendBeacon`.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};

use super::Gate;
use super::emulation::{GONE, hand_over};
use super::poll::PollQuery;
use crate::accept::admission::ClientNetwork;
use crate::body;
use crate::message::SessionAsk;
use crate::response::{HttpResponse, no_content, only, text};

/// Ends the session that the request names.
pub(crate) async fn serve(
    gate: &Gate,
    network: ClientNetwork,
    request: Request<Incoming>,
    query: PollQuery,
) -> HttpResponse {
    let response = match only(&request, "POST") {
        Ok(()) => end(gate, network, &query).await,
        Err(response) => *response,
    };
    body::unread(request.into_body(), response)
}

async fn end(gate: &Gate, network: ClientNetwork, query: &PollQuery) -> HttpResponse {
    let Some(key) = query.key() else {
        return text(StatusCode::NOT_FOUND, GONE);
    };
    match hand_over(gate, network, key, SessionAsk::End).await {
        Ok(()) => no_content(),
        Err(response) => *response,
    }
}
