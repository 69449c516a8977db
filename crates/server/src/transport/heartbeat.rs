//! `POST /heartbeat`: keeps a user online who holds no connection, for `status.heartbeat_ttl`.

use std::borrow::Cow;
use std::time::Duration;

use fanwire_hub::session::RequestPublisher;
use fanwire_protocol::reason::RequestError;
use hyper::Request;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::Gate;
use super::request_refusal::RequestRefusal;
use super::subscribe::refusal::StreamRefusal;
use super::token::token;
use crate::accept::admission::ClientNetwork;
use crate::body;
use crate::message::Requester;
use crate::response::{HttpResponse, no_content, only};

/// The time for which a heartbeat may wait for the engine.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn beat(gate: &Gate, network: ClientNetwork, request: Request<Incoming>) -> HttpResponse {
    let response = match only(&request, "POST") {
        Ok(()) => take(gate, network, &request).await.unwrap_or_else(|refusal| {
            gate.node.counters[gate.shard].errors.count(refusal.number());
            refusal.into_response()
        }),
        Err(response) => *response,
    };
    body::unread(request.into_body(), response)
}

async fn take(
    gate: &Gate,
    network: ClientNetwork,
    request: &Request<Incoming>,
) -> Result<HttpResponse, RequestRefusal> {
    let node = &gate.node;
    let settings = &node.settings;
    node.counters[gate.shard].requests_received.add(1);
    let origin = gate.origins.judge(request.headers());
    let cookie = settings.subscribe.token_cookie.as_deref();
    let query = request.uri().query().unwrap_or("");
    let in_query = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "token").last();
    let in_query = in_query.map_or(Cow::Borrowed(""), |(_, token)| token);
    let token = token(request.headers(), in_query, &origin, cookie);
    node.tokens.fetch_keys_of(&token).await;
    let client =
        RequestPublisher::new(&settings.client, &settings.namespaces, &node.tokens, node.now(), &token)?;
    let user = client.user();
    if user.is_empty() {
        let why = "a heartbeat needs a connection token that names a user";
        return Err(RequestRefusal::new(StreamRefusal::new(RequestError::Unauthorized, why)));
    }
    node.count_request(gate.shard, Requester { user: user.into(), network })
        .await
        .map_err(RequestRefusal::too_many)?;
    let beaten = match &node.statuses {
        Some(statuses) => timeout(PATIENCE, statuses.heartbeat(user, settings.user_events())).await,
        // The path is served with status alone.
        None => Ok(Ok(())),
    };
    match beaten {
        Ok(Ok(())) => Ok(no_content()),
        Ok(Err(_)) | Err(_) => Err(RequestRefusal::of(&RequestError::Internal.into())),
    }
}
