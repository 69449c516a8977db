//! `GET /subscribe?topic=a&topic=b`: topics as Server-Sent Events, for a browser's own `EventSource`.
//!
//! The request becomes the requests that a client of another wire would send: connect with `token` (or `Authorization:
//! Bearer`), and a subscribe for each topic, with the `subscription_token` that names it. The session answers them, and the
//! answers decide on the response: a stream, or a status and a JSON error, since `EventSource` comes back after every end
//! of a stream. The stream has the publications from then on; there is no cursor yet.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use fanwire_hub::{NameError, TokenError};
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::plain::sse;
use fanwire_protocol::reason::{Close, CloseReason, Detail, Mistake, Refused, RequestError};
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

use super::{Decided, Gate, Head, Opening, OpeningRefusal, write_header};
use crate::accept::origin::Origin;
use crate::auth::topic_of;
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

/// The id of the first subscribe; connect has 1.
const FIRST_SUBSCRIBE: u32 = 2;

/// The content of a query. Its lists hold at most one entry more than the limit, which is enough to refuse it.
#[derive(Debug, Default)]
struct Query<'q> {
    /// Each once, in the order of the query.
    topics: Vec<Cow<'q, str>>,
    token: Cow<'q, str>,
    subscription_tokens: Vec<Cow<'q, str>>,
}

/// Answers the request to open a stream.
pub(crate) fn open(gate: &Gate, request: &Request<Incoming>) -> Result<Opening, Box<HttpResponse>> {
    let origin = gate.origins.judge(request.headers());
    if origin == Origin::Refused {
        return Err(Box::new(refused_origin()));
    }
    if request.method() == Method::OPTIONS {
        return Err(Box::new(preflight(request, &origin)));
    }
    only_get(request)?;
    let subscriptions_max = gate.node.settings.client.subscriptions_max;
    let query = query(request, subscriptions_max);
    query.check(subscriptions_max).map_err(|refusal| {
        let response = respond(refusal.status(), "application/json", refusal.body().into());
        Box::new(allow_origin(response, &origin))
    })?;
    let permit = gate.admit().map_err(|response| Box::new(allow_origin(*response, &origin)))?;
    let topics: Vec<String> = query.topics.iter().map(|topic| topic.to_string()).collect();
    let mut headers = Vec::new();
    if let Origin::Allowed(origin) = origin {
        write_header(&mut headers, &ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        write_header(&mut headers, &ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    write_header(&mut headers, &VARY, "Origin");
    let mut accepted = [HEAD, &headers[..], &b"\r\n"[..]].concat();
    sse::retry(Duration::from_millis(rand::rng().random_range(RETRY_MILLIS)), &mut accepted);
    let decided = Decided { accepted: accepted.into(), refused, headers: headers.into(), topics };
    Ok(Opening {
        mode: TransportMode { wire: Wire::Sse, pings: Pings::Keepalive },
        first: query.into_requests(),
        head: Head::Decided(Box::new(decided)),
        deflate: None,
        permit,
    })
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

impl Query<'_> {
    /// Checks what no session has to be asked for.
    fn check(&self, subscriptions_max: usize) -> Result<(), StreamRefusal> {
        if self.topics.iter().all(|topic| topic.is_empty()) {
            let message = "name at least one topic: ?topic=news&topic=weather";
            return Err(StreamRefusal::new(RequestError::BadRequest, message));
        }
        if self.topics.iter().any(|topic| topic.is_empty()) {
            return Err(StreamRefusal::new(RequestError::BadRequest, "a topic is empty; leave it out"));
        }
        let counts = [(self.topics.len(), "topics"), (self.subscription_tokens.len(), "subscription tokens")];
        match counts.into_iter().find(|(count, _)| *count > subscriptions_max) {
            None => Ok(()),
            Some((_, what)) => {
                let message = format!("more {what} than client.subscriptions_max = {subscriptions_max}");
                Err(StreamRefusal::new(RequestError::LimitExceeded, message))
            }
        }
    }

    /// Returns the requests that a client of another wire would send for the same. A subscription token goes with the
    /// topic that it names; the session verifies it.
    fn into_requests(self) -> VecDeque<request::Request> {
        let mut tokens = HashMap::new();
        for token in self.subscription_tokens {
            if let Some(topic) = topic_of(&token) {
                tokens.entry(topic).or_insert(token);
            }
        }
        let connect = Connect { token: self.token.into_owned(), topics: Vec::new() };
        let connect = request::Request { id: FIRST_SUBSCRIBE - 1, ask: Ask::Connect(connect) };
        let subscribes = self.topics.into_iter().zip(FIRST_SUBSCRIBE..).map(|(topic, id)| {
            let token = tokens.remove(&*topic).unwrap_or_default().into_owned();
            let subscribe = Subscribe { topic: topic.into_owned(), token, ..Subscribe::default() };
            request::Request { id, ask: Ask::Subscribe(subscribe) }
        });
        std::iter::once(connect).chain(subscribes).collect()
    }
}

/// A refusal before the stream begins.
#[derive(Debug)]
struct StreamRefusal {
    error: RequestError,
    message: String,
}

impl StreamRefusal {
    fn new(error: RequestError, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }

    fn of_reply(refused: &Refused) -> Self {
        let message = match (refused.error, refused.mistake.as_deref()) {
            (_, Some(mistake)) => sentence(mistake),
            (RequestError::UnknownTopic, None) => NameError::UnknownNamespace.to_string().into(),
            (RequestError::TokenExpired, None) => TokenError::Expired.to_string().into(),
            (RequestError::Expired, None) => "what the token grants has expired".into(),
            (RequestError::LimitExceeded, None) => "more topics than client.subscriptions_max".into(),
            (error, None) => codes::error(error).text.into(),
        };
        Self::new(refused.error, message)
    }

    fn of_close(close: &Close) -> Self {
        let mistake = match close.detail.as_deref() {
            Some(Detail::Mistake(mistake)) => Some(mistake),
            Some(Detail::Words(_)) | None => None,
        };
        match (close.reason, mistake) {
            (CloseReason::BadRequest, Some(mistake @ Mistake::NoToken)) => {
                let message = sentence(mistake);
                let message = format!("{message}: send ?token=JWT or 'Authorization: Bearer JWT'");
                Self::new(RequestError::Unauthorized, message)
            }
            (CloseReason::BadRequest, Some(mistake)) => {
                Self::new(RequestError::BadRequest, sentence(mistake))
            }
            (CloseReason::TopicLimit, _) => {
                Self::new(RequestError::LimitExceeded, "more topics than client.subscriptions_max")
            }
            (CloseReason::ConnectionLimit, _) => {
                let message = "more connections of the user than client.user_connections_max or \
                    client.personal_topic.single_connection allows";
                Self::new(RequestError::LimitExceeded, message)
            }
            (CloseReason::PermissionDenied, _) => {
                let message = "client.disallow_anonymous_connection_tokens is on and the token names no user";
                Self::new(RequestError::PermissionDenied, message)
            }
            (CloseReason::InvalidToken, _) => Self::new(RequestError::Unauthorized, codes::close(close).1),
            // The API sent the client away.
            _ => Self::new(RequestError::PermissionDenied, codes::close(close).1),
        }
    }

    fn status(&self) -> StatusCode {
        match self.error {
            RequestError::Unauthorized | RequestError::TokenExpired | RequestError::Expired => {
                StatusCode::UNAUTHORIZED
            }
            RequestError::PermissionDenied => StatusCode::FORBIDDEN,
            RequestError::UnknownTopic => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn body(&self) -> String {
        let code = codes::error(self.error).number;
        json!({"error": {"code": code, "message": self.message}}).to_string()
    }
}

/// Returns the sentence for a mistake, which may have stood in the query.
fn sentence(mistake: &Mistake) -> Cow<'_, str> {
    match mistake {
        Mistake::TopicName(why) => (&**why).into(),
        mistake => codes::mistake(mistake),
    }
}

/// Returns the response to a request whose stream does not begin. Its sentence ends with the topic, if it is about one.
fn refused(decided: &Decided, refusal: &OpeningRefusal<'_>) -> Bytes {
    let (id, mut refusal) = match *refusal {
        OpeningRefusal::Reply(id, refused) => (id, StreamRefusal::of_reply(refused)),
        OpeningRefusal::Close(id, close) => {
            let is_of_request = matches!(close.reason, CloseReason::InvalidToken | CloseReason::BadRequest);
            (if is_of_request { id } else { 0 }, StreamRefusal::of_close(close))
        }
    };
    let place = id.checked_sub(FIRST_SUBSCRIBE);
    if let Some(topic) = place.and_then(|place| decided.topics.get(place as usize)) {
        refusal.message = format!("{}: {topic}", refusal.message);
    }
    let (status, body) = (refusal.status(), refusal.body());
    let mut response = format!(
        "HTTP/1.1 {status}\r\n\
         content-type: application/json\r\n\
         content-length: {}\r\n\
         connection: close\r\n",
        body.len()
    )
    .into_bytes();
    response.extend_from_slice(&decided.headers);
    response.extend_from_slice(b"\r\n");
    response.extend_from_slice(body.as_bytes());
    response.into()
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
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

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

    fn requests(text: &str) -> Vec<(u32, String, String)> {
        let read = |request: request::Request| match request.ask {
            Ask::Connect(connect) => (request.id, String::new(), connect.token),
            Ask::Subscribe(subscribe) => (request.id, subscribe.topic, subscribe.token),
            other => panic!("{other:?}"),
        };
        parse(text, 10).into_requests().into_iter().map(read).collect()
    }

    #[test]
    fn a_subscription_token_goes_with_the_topic_that_it_names() {
        let token = |claims: &str| format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims));
        let (for_b, again) = (token(r#"{"channel":"b"}"#), token(r#"{"channel":"b","sub":"1"}"#));
        let others = [token("{}"), token(r#"{"channel":"z"}"#), "no.token".into()];
        let text = format!("topic=a&topic=b&token=t&subscription_token={for_b}&subscription_token={again}");
        let text = others.iter().fold(text, |text, other| format!("{text}&subscription_token={other}"));
        let expected = [(1, "", "t"), (2, "a", ""), (3, "b", &*for_b)];
        let expected = expected.map(|(id, topic, token)| (id, topic.to_owned(), token.to_owned()));
        assert_eq!(requests(&text), expected);
    }

    fn decided() -> Decided {
        let headers = Bytes::from_static(b"vary: Origin\r\n");
        Decided { accepted: Bytes::new(), refused, headers, topics: vec!["a".into(), "b".into()] }
    }

    /// The status, the code and the sentence.
    fn read(response: &[u8]) -> (u16, u64, String) {
        let response = str::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("\r\nconnection: close\r\n") && head.ends_with("\r\nvary: Origin"), "{head}");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let error = &body["error"];
        (status, error["code"].as_u64().unwrap(), error["message"].as_str().unwrap().to_owned())
    }

    #[test]
    fn the_status_follows_from_the_reason() {
        let token = || Mistake::Token("info is not JSON".into());
        let replies: [(Refused, _); 9] = [
            (RequestError::Unauthorized.into(), (401, 101, "unauthorized: b")),
            (RequestError::TokenExpired.into(), (401, 109, "the token has expired or is not valid yet: b")),
            (RequestError::Expired.into(), (401, 110, "what the token grants has expired: b")),
            (RequestError::PermissionDenied.into(), (403, 103, "permission denied: b")),
            (RequestError::UnknownTopic.into(), (404, 102, "no namespace of this name is configured: b")),
            (RequestError::LimitExceeded.into(), (400, 106, "more topics than client.subscriptions_max: b")),
            (RequestError::NotAvailable.into(), (400, 108, "not available: b")),
            (Mistake::TopicName("too long".into()).into(), (400, 107, "too long: b")),
            (token().into(), (400, 107, "info is not JSON: b")),
        ];
        for (reason, (status, code, message)) in replies {
            let response = refused(&decided(), &OpeningRefusal::Reply(3, &reason));
            assert_eq!(read(&response), (status, code, message.to_owned()), "{reason:?}");
        }
        let no_token = "no token, and client.allow_anonymous_connect_without_token is off: \
            send ?token=JWT or 'Authorization: Bearer JWT'";
        let too_many = "more connections of the user than client.user_connections_max or \
            client.personal_topic.single_connection allows";
        let no_user = "client.disallow_anonymous_connection_tokens is on and the token names no user";
        let by_application = Close::by_application(4500, "not today".to_owned());
        let closes: [(u32, Close, _); 8] = [
            (1, Close::mistake(Mistake::NoToken), (401, 101, no_token)),
            (1, CloseReason::InvalidToken.into(), (401, 101, "invalid token")),
            (2, CloseReason::InvalidToken.into(), (401, 101, "invalid token: a")),
            (1, Close::unfit_token("info is not JSON"), (401, 101, "invalid token: info is not JSON")),
            (1, CloseReason::PermissionDenied.into(), (403, 103, no_user)),
            (1, CloseReason::ConnectionLimit.into(), (400, 106, too_many)),
            (1, CloseReason::TopicLimit.into(), (400, 106, "more topics than client.subscriptions_max")),
            (2, by_application, (403, 103, "not today")),
        ];
        for (id, reason, (status, code, message)) in closes {
            let response = refused(&decided(), &OpeningRefusal::Close(id, &reason));
            assert_eq!(read(&response), (status, code, message.to_owned()), "{reason:?}");
        }
    }
}
