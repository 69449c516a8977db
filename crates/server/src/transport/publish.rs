//! `POST /publish?topic=a`: a publication of a client, without a connection that stays.
//!
//! The token and the permissions are those of a session that is subscribed to nothing.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_broker::NewPublication;
use fanwire_hub::session::{Denial, Publisher};
use fanwire_protocol::plain::bare;
use fanwire_protocol::reason::{Mistake, Refused, RequestError};
use fanwire_protocol::request;
use fanwire_protocol::{ClientId, Tags, json};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use uuid::Uuid;

use super::Gate;
use super::subscribe::refusal::StreamRefusal;
use super::token::token;
use crate::body::{self, BodyError};
use crate::node::Node;
use crate::response::{HttpResponse, respond, text};

/// Publishes the body of a request.
pub(crate) async fn publish(gate: &Gate, request: Request<Incoming>) -> HttpResponse {
    let (head, mut body) = request.into_parts();
    let counters = &gate.node.counters[gate.shard];
    counters.requests_received.add(1);
    match answer(gate, &head, &mut body).await {
        Ok(()) => respond(StatusCode::OK, "application/json", Bytes::from_static(b"{}")),
        Err(refusal) => {
            if let PublishRefusal::Client(refusal) = &refusal {
                counters.errors.count(refusal.number());
            }
            let mut response = refusal.into_response();
            if !body.is_end_stream() {
                // A client that still sends has to be able to read the refusal.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                body::discard(body);
            }
            response
        }
    }
}

async fn answer(gate: &Gate, head: &Parts, body: &mut Incoming) -> Result<(), PublishRefusal> {
    let node = &gate.node;
    let settings = &node.settings;
    if head.method != Method::POST {
        return Err(PublishRefusal::OnlyPost);
    }
    let query = Query::parse(head.uri.query().unwrap_or(""));
    let topic = query.topic()?.to_owned();
    let origin = gate.origins.judge(&head.headers);
    let token = token(&head.headers, query.token, &origin, settings.subscribe.token_cookie.as_deref());
    let (client, namespaces) = (&settings.client, &settings.namespaces);
    let publisher = Publisher::new(client, namespaces, &node.tokens, node.now(), &token)?;
    if !node.may_request(gate.shard, publisher.user()).await {
        return Err(PublishRefusal::TooMany);
    }
    let body = body::read(body, settings.publish.body_bytes_max).await?;
    let (data, tags) = data(&head.headers, body)?;
    let request = request::Publish { topic, data, tags, is_unserved: false };
    let topic = publisher.check(client, namespaces, &request)?;
    let history = namespaces.of(&topic).ok().and_then(Node::history_options);
    let info = publisher.into_info(ClientId(Uuid::new_v4()));
    let request::Publish { data, tags, .. } = request;
    let publication =
        NewPublication { data, tags, info: Some(Arc::new(info)), history, ..NewPublication::default() };
    let published = async { node.publish(topic, publication).await?.await };
    published.await.map(drop).map_err(|error| PublishRefusal::of(&error.into()))
}

/// Returns the data that a body is published as. JSON and bytes are named by their types; any other body is a text, as a
/// bare WebSocket sends it.
fn data(headers: &HeaderMap, body: Bytes) -> Result<(Bytes, Option<Arc<Tags>>), PublishRefusal> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (media_type, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    match media_type.trim().to_ascii_lowercase().as_str() {
        "application/octet-stream" => Ok((body, None)),
        "application/json" => match json::check(&body) {
            Ok(()) => Ok((body, None)),
            Err(error) => {
                Err(PublishRefusal::mistake(Mistake::Malformed(format!("the body is {error}").into())))
            }
        },
        _ => match std::str::from_utf8(&body) {
            Ok(text) => Ok(bare::data(text)),
            Err(_) => {
                let why = "the body is no text in UTF-8; send it as application/octet-stream";
                Err(PublishRefusal::mistake(Mistake::Malformed(why.into())))
            }
        },
    }
}

#[derive(Debug, Default)]
struct Query<'q> {
    topic: Option<Cow<'q, str>>,
    has_other_topic: bool,
    token: Cow<'q, str>,
}

impl<'q> Query<'q> {
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

    fn topic(&self) -> Result<&str, PublishRefusal> {
        let why = match self.topic.as_deref() {
            None | Some("") => "name the topic to publish to: ?topic=news",
            Some(_) if self.has_other_topic => "name one topic; a request publishes to one",
            Some(topic) => return Ok(topic),
        };
        Err(PublishRefusal::mistake(Mistake::Malformed(why.into())))
    }
}

#[derive(Debug)]
enum PublishRefusal {
    OnlyPost,
    Body(BodyError),
    /// Of one user, for the time being.
    TooMany,
    Client(StreamRefusal),
}

impl PublishRefusal {
    fn of(refused: &Refused) -> Self {
        Self::Client(StreamRefusal::new(refused.error, bare::sentence(refused)))
    }

    fn mistake(mistake: Mistake) -> Self {
        Self::of(&mistake.into())
    }

    fn into_response(self) -> HttpResponse {
        match self {
            Self::OnlyPost => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "This takes POST requests only.");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                response
            }
            Self::Body(BodyError::TooLong(bytes_max)) => text(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "The body is longer than {bytes_max} bytes, the limit that publish.body_bytes_max sets."
                ),
            ),
            Self::Body(BodyError::TooSlow(timeout)) => text(
                StatusCode::REQUEST_TIMEOUT,
                format!("The body did not arrive within {} seconds.", timeout.as_secs()),
            ),
            Self::Body(BodyError::Broken) => text(StatusCode::BAD_REQUEST, "The body ended too early."),
            Self::TooMany => {
                let why = "too many requests of the user: client.user_commands_per_second_max";
                let refusal = StreamRefusal::new(RequestError::TooManyRequests, why);
                later(StatusCode::TOO_MANY_REQUESTS, &refusal)
            }
            Self::Client(refusal) => match refusal.status() {
                status @ StatusCode::SERVICE_UNAVAILABLE => later(status, &refusal),
                status => respond(status, "application/json", refusal.body().into()),
            },
        }
    }
}

/// Tells the client when to come again.
fn later(status: StatusCode, refusal: &StreamRefusal) -> HttpResponse {
    let mut response = respond(status, "application/json", refusal.body().into());
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

impl From<BodyError> for PublishRefusal {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<Denial> for PublishRefusal {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Reply(refused) => match refused.error {
                RequestError::TokenExpired | RequestError::Expired => {
                    Self::Client(StreamRefusal::of_reply(&refused))
                }
                _ => Self::of(&refused),
            },
            Denial::Close(close) => Self::Client(StreamRefusal::of_close(&close)),
        }
    }
}
