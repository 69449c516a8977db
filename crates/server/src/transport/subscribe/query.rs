//! The query of a request, and the requests that a client of another wire would send for the same.

use std::collections::{HashMap, VecDeque};

use fanwire_protocol::Cursor;
use fanwire_protocol::cursor::Parsed;
use fanwire_protocol::plain::query::Query;
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::request::{
    self, Ask, Connect, ConnectExtras, StreamPosition, Subscribe, SubscribeExtras,
};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderName;

use super::refusal::StreamRefusal;
use crate::accept::origin::Origin;
use crate::auth::topic_of;
use crate::transport::FIRST_SUBSCRIBE;
use crate::transport::token::token;

/// A query, and the token and the cursor from wherever they are.
#[derive(Debug, Default)]
pub(super) struct StreamQuery<'q> {
    pub(super) asked: Query<'q>,
    /// A browser sends the cursor by itself, and did not choose it.
    is_from_browser: bool,
}

/// An `EventSource` that comes back sends the last `id` that it received.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Reads the query in one pass, and the token from wherever it is. What a header says comes before the same in the query.
pub(super) fn read<'r>(
    request: &'r Request<Incoming>,
    origin: &Origin<'_>,
    token_cookie: Option<&str>,
    subscriptions_max: usize,
) -> StreamQuery<'r> {
    let mut asked = Query::parse(request.uri().query().unwrap_or(""), subscriptions_max);
    // A script is read by any page.
    let token_cookie = token_cookie.filter(|_| asked.callback.is_none());
    asked.token = token(request.headers(), asked.token, origin, token_cookie);
    let last_id = request.headers().get(LAST_EVENT_ID).filter(|id| !id.is_empty());
    if let Some(id) = last_id {
        asked.cursor = String::from_utf8_lossy(id.as_bytes());
    }
    StreamQuery { asked, is_from_browser: last_id.is_some() }
}

impl StreamQuery<'_> {
    /// Checks what no session has to be asked for.
    pub(super) fn check(&self, subscriptions_max: usize) -> Result<(), StreamRefusal> {
        if self.asked.topics.iter().any(|topic| topic.is_empty()) {
            return Err(StreamRefusal::new(RequestError::BadRequest, "a topic is empty; leave it out"));
        }
        let counts = [
            (self.asked.topics.len(), "topics"),
            (self.asked.subscription_tokens.len(), "subscription tokens"),
        ];
        match counts.into_iter().find(|(count, _)| *count > subscriptions_max) {
            None => Ok(()),
            Some((_, what)) => {
                let message = format!("more {what} than client.subscriptions_max = {subscriptions_max}");
                Err(StreamRefusal::new(RequestError::LimitExceeded, message))
            }
        }
    }

    /// Checks that a stream is asked for nothing that only polls have.
    pub(super) fn check_stream(&self) -> Result<(), StreamRefusal> {
        let of_polls = [("wait", &self.asked.wait), ("callback", &self.asked.callback)];
        match of_polls.into_iter().find(|(_, value)| value.is_some()) {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("{name}: it is for polls; leave it out, or say as=poll");
                Err(StreamRefusal::new(RequestError::BadRequest, message))
            }
        }
    }

    /// Returns the cursor from which the client goes on. An `EventSource` that is refused never comes back, so what is none in
    /// its header is one whose places cannot be read: it is told that it has missed something.
    pub(super) fn resume(&self) -> Result<Option<Parsed>, StreamRefusal> {
        if self.asked.cursor.is_empty() {
            return Ok(None);
        }
        let parsed = match Cursor::parse(&self.asked.cursor) {
            Err(_) if self.is_from_browser => Ok(Parsed::OtherVersion),
            parsed => parsed,
        };
        parsed.map(Some).map_err(|error| StreamRefusal::new(RequestError::BadRequest, error.to_string()))
    }

    /// Returns the requests that a client of another wire would send for the same, which goes on where `resume`
    /// says. A subscription token goes with the topic that it names; the session verifies it. A client that is `unseen` only
    /// looks what there is.
    pub(super) fn into_requests(self, resume: Option<&Parsed>, unseen: bool) -> VecDeque<request::Request> {
        let cursor = match resume {
            Some(Parsed::Cursor(cursor)) => cursor.clone(),
            Some(Parsed::OtherVersion) | None => Cursor::default(),
        };
        let mut tokens = HashMap::new();
        for token in self.asked.subscription_tokens {
            if let Some(topic) = topic_of(&token) {
                tokens.entry(topic).or_insert(token);
            }
        }
        let subscribes = self.asked.topics.into_iter().zip(FIRST_SUBSCRIBE..).map(|(topic, id)| {
            let token = tokens.remove(&*topic).unwrap_or_default().into_owned();
            let since = cursor.position(&topic).map(StreamPosition::from);
            let extras = since.map(|since| SubscribeExtras { since: Some(since), ..Default::default() });
            let subscribe = Subscribe {
                topic: topic.into_owned(),
                token,
                positioned: true,
                recoverable: true,
                unseen,
                extras: extras.map(Box::new),
                ..Subscribe::default()
            };
            request::Request { id, ask: Ask::Subscribe(subscribe) }
        });
        let subscribes: Vec<_> = subscribes.collect();
        let token = self.asked.token.into_owned();
        let extras = ConnectExtras { cursor: Some(Box::new(cursor)), ..ConnectExtras::default() };
        let connect = Connect { token, unseen, extras: Some(Box::new(extras)), ..Connect::default() };
        let connect = request::Request { id: FIRST_SUBSCRIBE - 1, ask: Ask::Connect(connect) };
        std::iter::once(connect).chain(subscribes).collect()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What a peer may send in place of a query, and in its header.
        #[test]
        fn any_query_is_refused_or_asks_for_what_it_names(
            parts in prop::collection::vec(
                ("topic|channel|token|subscription_token|publish|cursor|session|wait|callback|as|envelope|[a-z]{0,3}", "[=&+;]?", "(?s).{0,20}"),
                0..20,
            ),
            is_from_browser in any::<bool>(),
        ) {
            let text: String = parts.iter().map(|(name, equals, value)| format!("{name}{equals}{value}&")).collect();
            let query = StreamQuery { asked: Query::parse(&text, 4), is_from_browser };
            prop_assert!(query.asked.topics.len() <= 5 && query.asked.subscription_tokens.len() <= 5);
            let Ok(()) = query.check(4) else { return Ok(()) };
            let resume = query.resume();
            prop_assert!(resume.is_ok() || !is_from_browser, "a browser that is refused never comes back");
            let topics: Vec<String> = query.asked.topics.iter().map(|topic| topic.to_string()).collect();
            let requests = query.into_requests(resume.ok().flatten().as_ref(), false);
            prop_assert_eq!(requests.len(), 1 + topics.len());
            for (request, topic) in requests.iter().skip(1).zip(&topics) {
                let Ask::Subscribe(subscribe) = &request.ask else { panic!("{request:?}") };
                prop_assert_eq!(&subscribe.topic, topic);
            }
        }
    }

    fn requests(text: &str) -> Vec<(u32, String, String)> {
        let read = |request: request::Request| match request.ask {
            Ask::Connect(connect) => (request.id, String::new(), connect.token),
            Ask::Subscribe(subscribe) => (request.id, subscribe.topic, subscribe.token),
            other => panic!("{other:?}"),
        };
        StreamQuery { asked: Query::parse(text, 10), is_from_browser: false }
            .into_requests(None, false)
            .into_iter()
            .map(read)
            .collect()
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
}
