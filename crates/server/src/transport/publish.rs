//! `POST /publish?topic=a`: a publication of a client, without a connection that stays.
//!
//! The token and the permissions are those of a session that is subscribed to nothing.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_broker::NewPublication;
use fanwire_hub::hook::PublishOptions;
use fanwire_hub::hook_settings::HookSlot;
use fanwire_hub::session::{Denial, Draft, RequestPublisher};
use fanwire_protocol::plain::bare;
use fanwire_protocol::reason::Mistake;
use fanwire_protocol::{ClientId, Tags, TopicName, json};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use tokio::time::timeout;
use uuid::Uuid;

use super::request_refusal::RequestRefusal;
use super::token::token;
use super::{Gate, KeptHeaders, content_type, limited_body};
use crate::accept::admission::ClientNetwork;
use crate::body;
use crate::message::Requester;
use crate::node::Node;
use crate::response::{HttpResponse, only, respond};

/// The time for which a publication may wait for the fan-out and the engine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Publishes the body of a request.
pub(crate) async fn publish(gate: &Gate, network: ClientNetwork, request: Request<Incoming>) -> HttpResponse {
    if let Err(response) = only(&request, "POST") {
        return body::unread(request.into_body(), *response);
    }
    let counters = &gate.node.counters[gate.shard];
    counters.requests_received.add(1);
    let refuse = |refusal: RequestRefusal| {
        counters.errors.count(refusal.number());
        refusal.into_response()
    };
    let checked = match check(gate, network, &request).await {
        Ok(checked) => checked,
        Err(refusal) => return body::unread(request.into_body(), refuse(refusal)),
    };
    let (kept, request) = match checked.hook.map(|_| gate.kept_headers(request.headers())) {
        None => (None, request),
        Some(Ok(kept)) => (kept, request),
        Some(Err(response)) => return body::unread(request.into_body(), *response),
    };
    let format = BodyFormat::of(request.headers());
    let bytes_max = gate.node.settings.publish.body_bytes_max;
    let body = match limited_body::read(request, "publish.body_bytes_max", bytes_max).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    match publish_body(&gate.node, checked, kept, format, body).await {
        Ok(()) => respond(StatusCode::OK, "application/json", Bytes::from_static(b"{}")),
        Err(refusal) => refuse(refusal),
    }
}

/// A request of which all but the body passed the checks.
struct Checked {
    topic: TopicName,
    publisher: RequestPublisher,
    /// The hook that decides on the publication.
    hook: Option<HookSlot>,
}

/// Checks everything but the body.
async fn check(
    gate: &Gate,
    network: ClientNetwork,
    request: &Request<Incoming>,
) -> Result<Checked, RequestRefusal> {
    let node = &gate.node;
    let settings = &node.settings;
    let query = PublishQuery::parse(request.uri().query().unwrap_or(""));
    let topic = query.topic()?.to_owned();
    let origin = gate.origins.judge(request.headers());
    let token_cookie = settings.subscribe.token_cookie.as_deref();
    let token = token(request.headers(), query.token, &origin, token_cookie);
    node.tokens.fetch_keys_of(&token).await;
    let publisher =
        RequestPublisher::new(&settings.client, &settings.namespaces, &node.tokens, node.now(), &token)?;
    let (topic, hook) = publisher.check(&settings.client, &settings.namespaces, &topic)?;
    let requester = Requester { user: publisher.user().into(), network };
    node.count_request(gate.shard, requester).await.map_err(RequestRefusal::too_many)?;
    Ok(Checked { topic, publisher, hook })
}

async fn publish_body(
    node: &Node,
    Checked { topic, publisher, hook }: Checked,
    kept: KeptHeaders,
    format: BodyFormat,
    body: Bytes,
) -> Result<(), RequestRefusal> {
    let namespaces = &node.settings.namespaces;
    let (data, tags) = format.data(body)?;
    RequestPublisher::check_data(namespaces, &topic, &data)?;
    let (client, draft) = (ClientId(Uuid::new_v4()), Draft { topic, data, tags });
    let (draft, options) = match hook {
        None => (draft, PublishOptions::default()),
        Some(slot) => {
            let kept = kept.map(|kept| *kept).unwrap_or_default();
            let question = publisher.question(&node.settings.client, slot, client, &draft, kept)?;
            let outcome = node.hooks.ask(question.into()).await;
            RequestPublisher::hooked(namespaces, draft, outcome).inspect_err(|denial| {
                if let Denial::UnfitAnswer(why) = denial {
                    node.hooks.unfit(slot, why);
                }
            })?
        }
    };
    let Draft { topic, data, tags } = draft;
    let PublishOptions { skip_history, idempotency_key, version, version_epoch } = options;
    let history = namespaces.of(&topic).ok().and_then(Node::history_options).filter(|_| !skip_history);
    let publication = NewPublication {
        data,
        tags,
        info: Some(Arc::new(publisher.into_info(client))),
        history,
        idempotency_key,
        version,
        version_epoch,
        ..NewPublication::default()
    };
    let published = async { node.publish(topic, publication).await?.await };
    match timeout(PATIENCE, published).await {
        Ok(published) => published.map(drop).map_err(|error| RequestRefusal::of(&error.into())),
        Err(_) => Err(RequestRefusal::late(&format!(
            "no answer of the topic's owner within {} seconds; the body may have been published",
            PATIENCE.as_secs()
        ))),
    }
}

/// The meaning of a body, by its content type.
#[derive(Clone, Copy, Debug)]
enum BodyFormat {
    Json,
    Bytes,
    /// As a bare WebSocket sends it.
    Text,
}

impl BodyFormat {
    fn of(headers: &HeaderMap) -> Self {
        if content_type::is(headers, content_type::JSON) {
            Self::Json
        } else if content_type::is(headers, content_type::BINARY) {
            Self::Bytes
        } else {
            Self::Text
        }
    }

    /// Returns the data that a body is published as, with its tags.
    fn data(self, body: Bytes) -> Result<(Bytes, Option<Arc<Tags>>), RequestRefusal> {
        let malformed = |why: Cow<'static, str>| RequestRefusal::mistake(Mistake::Malformed(why));
        match self {
            Self::Bytes => Ok((body, None)),
            Self::Json => match json::check(&body) {
                Ok(()) => Ok((body, None)),
                Err(error) => Err(malformed(format!("the body is {error}").into())),
            },
            Self::Text => match std::str::from_utf8(&body) {
                Ok(text) => Ok(bare::data(text)),
                Err(_) => {
                    Err(malformed("the body is no text in UTF-8; send it as application/octet-stream".into()))
                }
            },
        }
    }
}

#[derive(Debug, Default)]
struct PublishQuery<'q> {
    topic: Option<Cow<'q, str>>,
    has_other_topic: bool,
    token: Cow<'q, str>,
}

impl<'q> PublishQuery<'q> {
    fn parse(text: &'q str) -> Self {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "topic" | "channel" => {
                    query.has_other_topic |= query.topic.as_ref().is_some_and(|topic| *topic != value);
                    query.topic = Some(value);
                }
                "token" => query.token = value,
                _ => {}
            }
        }
        query
    }

    fn topic(&self) -> Result<&str, RequestRefusal> {
        let why = match self.topic.as_deref() {
            None | Some("") => "name the topic to publish to: ?topic=news",
            Some(_) if self.has_other_topic => "name one topic; a request publishes to one",
            Some(topic) => return Ok(topic),
        };
        Err(RequestRefusal::mistake(Mistake::Malformed(why.into())))
    }
}
