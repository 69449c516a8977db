//! `GET /subscribe?topic=a&topic=b`: topics as Server-Sent Events, for a browser's own `EventSource`.
//!
//! Tokens and permissions are those of other transports: `token` (or `Authorization: Bearer`) is the connection token,
//! and each `subscription_token` opens the topic that it names. Refusals come before the stream begins, with a status and
//! a JSON error. The stream has the publications from then on; there is no cursor yet.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use fanwire_hub::permission::may_subscribe;
use fanwire_hub::{ConnectionClaims, Expiry, NameError, TokenError, UnfitField};
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::plain::sse;
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::request::{self, Ask, Connect, Subscribe};
use fanwire_protocol::wire::{Pings, TransportMode, Wire};
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, AUTHORIZATION,
    HeaderValue, VARY,
};
use hyper::{Method, Request, StatusCode};
use rand::Rng;
use serde_json::json;
use tokio::task::yield_now;

use super::{Gate, Opening, write_header};
use crate::accept::origin::Origin;
use crate::response::{HttpResponse, only_get, refused_origin, respond};

/// The head of the stream. It ends with the connection, so it needs neither length nor chunks, and proxies are
/// asked not to buffer it.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
    content-type: text/event-stream; charset=utf-8\r\n\
    cache-control: private, no-cache, no-store, must-revalidate, max-age=0\r\n\
    x-accel-buffering: no\r\n\
    connection: close\r\n";

/// Between these a client waits before it comes back, so that many do not come back together.
const RETRY_MILLIS: std::ops::RangeInclusive<u64> = 1000..=5000;

/// The content of a query. Its lists hold at most one entry more than the limit, which is enough to refuse it.
#[derive(Debug, Default)]
struct Query<'q> {
    /// Each once, in the order of the query.
    topics: Vec<Cow<'q, str>>,
    token: Cow<'q, str>,
    subscription_tokens: Vec<Cow<'q, str>>,
}

/// A refusal before the stream begins.
struct StreamRefusal {
    status: StatusCode,
    error: RequestError,
    message: String,
}

impl StreamRefusal {
    fn new(status: StatusCode, error: RequestError, message: impl Into<String>) -> Self {
        Self { status, error, message: message.into() }
    }
}

/// Answers the request to open a stream.
pub(crate) async fn open(gate: &Gate, request: &Request<Incoming>) -> Result<Opening, Box<HttpResponse>> {
    let origin = gate.origins.judge(request.headers());
    if origin == Origin::Refused {
        return Err(Box::new(refused_origin()));
    }
    if request.method() == Method::OPTIONS {
        return Err(Box::new(preflight(request, &origin)));
    }
    only_get(request)?;
    let query = query(request, gate.node.settings.client.subscriptions_max);
    let first = requests(gate, query).await.map_err(|refusal| {
        let StreamRefusal { status, error, message } = refusal;
        let body = json!({"error": {"code": codes::error(error).number, "message": message}}).to_string();
        Box::new(allow_origin(respond(status, "application/json", body.into()), &origin))
    })?;
    let permit = gate.admit().map_err(|response| Box::new(allow_origin(*response, &origin)))?;
    let mut head = HEAD.to_vec();
    if let Origin::Allowed(origin) = origin {
        write_header(&mut head, &ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        write_header(&mut head, &ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    write_header(&mut head, &VARY, "Origin");
    head.extend_from_slice(b"\r\n");
    sse::retry(Duration::from_millis(rand::rng().random_range(RETRY_MILLIS)), &mut head);
    let mode = TransportMode { wire: Wire::Sse, pings: Pings::Keepalive };
    Ok(Opening { head: head.into(), mode, first, deflate: None, permit })
}

/// Reads the query in one pass. A token in the header comes before one in the query.
fn query(request: &Request<Incoming>, subscriptions_max: usize) -> Query<'_> {
    let mut query = parse(request.uri().query().unwrap_or(""), subscriptions_max);
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some((scheme, token)) = header.and_then(|value| value.split_once(' '))
        && scheme.eq_ignore_ascii_case("bearer")
    {
        query.token = token.trim().into();
    }
    query
}

fn parse(text: &str, subscriptions_max: usize) -> Query<'_> {
    let mut query = Query::default();
    let mut known = HashSet::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        match &*name {
            "topic" if query.topics.len() <= subscriptions_max && known.insert(value.clone()) => {
                query.topics.push(value);
            }
            "subscription_token" if query.subscription_tokens.len() <= subscriptions_max => {
                query.subscription_tokens.push(value);
            }
            "token" => query.token = value,
            _ => {}
        }
    }
    query
}

/// Returns the requests that a client of another wire would send for the same, all of them permitted: `EventSource` comes
/// back after every end of a stream, so a request that is not permitted must not begin one.
///
/// The connection token is verified first: a request without one costs nothing more. Limits come before names, names
/// before further signatures, of which each poll verifies one.
async fn requests(gate: &Gate, query: Query<'_>) -> Result<VecDeque<request::Request>, StreamRefusal> {
    let settings = &gate.node.settings;
    if query.topics.is_empty() {
        let message = "name at least one topic: ?topic=news&topic=weather";
        return Err(StreamRefusal::new(StatusCode::BAD_REQUEST, RequestError::BadRequest, message));
    }
    let claims = connection_claims(gate, &query.token)?;
    let user = claims.as_ref().map_or("", |claims| &claims.user);
    let granted: HashSet<&str> =
        claims.iter().flat_map(|claims| &claims.topics).map(|grant| &*grant.topic).collect();
    let personal = settings.client.personal_topic.as_ref().filter(|_| !user.is_empty());
    if let Some(personal) = personal {
        let topic = settings.namespaces.personal_topic(&personal.namespace, user);
        topic.map_err(|error| name_refusal(error, user))?;
    }
    // The connection token subscribes to what it grants already.
    let topics: Vec<_> = query.topics.into_iter().filter(|topic| !granted.contains(&**topic)).collect();
    let subscriptions_max = settings.client.subscriptions_max;
    let limit = |what| {
        let message = format!("more {what} than client.subscriptions_max = {subscriptions_max}");
        StreamRefusal::new(StatusCode::BAD_REQUEST, RequestError::LimitExceeded, message)
    };
    if topics.len() + granted.len() + usize::from(personal.is_some()) > subscriptions_max {
        return Err(limit("topics"));
    }
    if query.subscription_tokens.len() > subscriptions_max {
        return Err(limit("subscription tokens"));
    }
    for topic in granted.iter().copied().chain(topics.iter().map(|topic| &**topic)) {
        settings.namespaces.of(topic).map_err(|error| name_refusal(error, topic))?;
    }
    if let Some(claims) = &claims {
        claims.check(settings.client.info_format, &settings.namespaces).map_err(unfit_refusal)?;
    }
    let mut tokens = HashMap::new();
    for token in query.subscription_tokens {
        // Each signature waits for a turn of its own.
        yield_now().await;
        let verified = gate.node.tokens.verify_subscription(&token, gate.node.now().unix());
        let claims = verified.map_err(token_refusal)?;
        still_good(gate, claims.expiry)?;
        claims.check(&settings.namespaces).map_err(unfit_refusal)?;
        if *claims.user == *user {
            tokens.entry(claims.topic).or_insert(token);
        }
    }
    let connect = Connect { token: query.token.into_owned(), topics: Vec::new() };
    let mut requests = VecDeque::from([request::Request { id: 1, ask: Ask::Connect(connect) }]);
    for topic in topics {
        let namespace = settings.namespaces.of(&topic).map_err(|error| name_refusal(error, &topic))?;
        let token = tokens.remove(&*topic);
        if token.is_none() && !may_subscribe(&settings.client, &settings.namespaces, namespace, &topic, user)
        {
            let message = format!("permission denied: {topic}");
            return Err(StreamRefusal::new(StatusCode::FORBIDDEN, RequestError::PermissionDenied, message));
        }
        let token = token.unwrap_or_default().into_owned();
        let subscribe = Subscribe { topic: topic.into_owned(), token, ..Subscribe::default() };
        let id = requests.len() as u32 + 1;
        requests.push_back(request::Request { id, ask: Ask::Subscribe(subscribe) });
    }
    Ok(requests)
}

/// A token may be good while what it grants has ended.
fn still_good(gate: &Gate, expiry: Expiry) -> Result<(), StreamRefusal> {
    match expiry {
        Expiry::At(unix) if unix <= gate.node.now().unix() && !gate.node.settings.client.insecure => {
            let message = "what the token grants has expired";
            Err(StreamRefusal::new(StatusCode::UNAUTHORIZED, RequestError::Expired, message))
        }
        Expiry::At(_) | Expiry::Never => Ok(()),
    }
}

/// `None` for a client without a token, where that is allowed.
fn connection_claims(gate: &Gate, token: &str) -> Result<Option<ConnectionClaims>, StreamRefusal> {
    let client = &gate.node.settings.client;
    if !token.is_empty() {
        let claims =
            gate.node.tokens.verify_connection(token, gate.node.now().unix()).map_err(token_refusal)?;
        if claims.user.is_empty() && client.disallow_anonymous_connection_tokens && !client.insecure {
            let message = "client.disallow_anonymous_connection_tokens is on and the token names no user";
            return Err(StreamRefusal::new(StatusCode::FORBIDDEN, RequestError::PermissionDenied, message));
        }
        still_good(gate, claims.expiry)?;
        return Ok(Some(claims));
    }
    if client.insecure || client.allow_anonymous_connect_without_token {
        return Ok(None);
    }
    let message = "no token, and client.allow_anonymous_connect_without_token is off: \
        send ?token=JWT or 'Authorization: Bearer JWT'";
    Err(StreamRefusal::new(StatusCode::UNAUTHORIZED, RequestError::Unauthorized, message))
}

fn token_refusal(error: TokenError) -> StreamRefusal {
    let (status, code) = match error {
        TokenError::Expired => (StatusCode::UNAUTHORIZED, RequestError::TokenExpired),
        TokenError::Invalid(_) => (StatusCode::UNAUTHORIZED, RequestError::Unauthorized),
        TokenError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, RequestError::Internal),
    };
    StreamRefusal::new(status, code, error.to_string())
}

/// The token is good, and something in it cannot be shown to clients.
fn unfit_refusal(unfit: UnfitField) -> StreamRefusal {
    StreamRefusal::new(
        StatusCode::UNAUTHORIZED,
        RequestError::Unauthorized,
        format!("invalid token: {unfit}"),
    )
}

fn name_refusal(error: NameError, topic: &str) -> StreamRefusal {
    match error {
        NameError::UnknownNamespace => {
            StreamRefusal::new(StatusCode::NOT_FOUND, RequestError::UnknownTopic, format!("{error}: {topic}"))
        }
        _ => StreamRefusal::new(StatusCode::BAD_REQUEST, RequestError::BadRequest, error.to_string()),
    }
}

/// A browser asks before it sends a token in a header to another origin.
fn preflight(request: &Request<Incoming>, origin: &Origin<'_>) -> HttpResponse {
    const CACHED_SECONDS: HeaderValue = HeaderValue::from_static("300");
    let mut response = allow_origin(HttpResponse::default(), origin);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, OPTIONS"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, CACHED_SECONDS);
    headers.insert(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    if let Some(wanted) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    response
}

/// Lets the page that asked read the answer.
fn allow_origin(mut response: HttpResponse, origin: &Origin<'_>) -> HttpResponse {
    if let Origin::Allowed(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, (*origin).clone());
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_once_each_and_no_more_than_it_takes_to_refuse_them() {
        let query = parse("topic=a&topic=b&token=t&topic=a&subscription_token=s", 2);
        assert_eq!(query.topics, ["a", "b"]);
        assert_eq!((&*query.token, &*query.subscription_tokens), ("t", &["s".into()][..]));

        let many: Vec<String> = (0..1000).map(|n| format!("topic={n}&subscription_token={n}")).collect();
        let many = many.join("&");
        let query = parse(&many, 2);
        assert_eq!(query.topics, ["0", "1", "2"]);
        assert_eq!(query.subscription_tokens, ["0", "1", "2"]);
    }
}
