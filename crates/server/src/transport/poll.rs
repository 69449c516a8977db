//! Polls: requests that are answered with what there is for a client, or wait until there is something. Between them the session
//! of the client stays where it is, without a connection.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_hub::polls::Polls;
use fanwire_hub::reorder::Reorder;
use fanwire_protocol::ClientId;
use hyper::header::{CACHE_CONTROL, ETAG, HeaderName, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use hyper::{Request, StatusCode};

use super::no_answer::NoAnswer;
use super::stream_head::LINES;
use super::subscribe::refusal::StreamRefusal;
use super::{Gate, Opening};
use crate::accept::admission::ClientNetwork;
use crate::message::{ParkedAt, PollAnswer, PollAsk, SessionAnswer, SessionAsk};
use crate::peers::Sending;
use crate::permit::PollerPlace;
use crate::response::{HttpResponse, last_response, respond};
use crate::session_key::SessionKey;

/// The name of the session and of its last answer, where the body has no place for them.
const SESSION: HeaderName = HeaderName::from_static("fanwire-session");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

const JSON: &str = "application/json";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A poll that is to wait.
#[derive(Debug)]
pub(crate) struct Poll {
    pub of: PollOf,
    pub wait: Duration,
    pub form: AnswerForm,
    /// The network of the client.
    pub network: ClientNetwork,
}

/// The session that is polled.
#[derive(Debug)]
pub(crate) enum PollOf {
    /// One that there is.
    Session(SessionKey, PollAsk),
    /// A new one.
    Opening(Box<Opening>),
}

/// A poll that waits on a shard.
#[derive(Debug)]
pub(crate) struct Parked {
    /// The time at which it is answered though its session says nothing.
    pub until_millis: u64,
    /// The session that answers. It is told if the client goes.
    pub session: Option<SessionKey>,
    /// The question to the session, if that is on another node.
    pub asking: Option<Sending>,
    /// The network of the client.
    pub network: ClientNetwork,
    pub form: AnswerForm,
    /// The copy by which the shard counts it, until its socket has gone.
    pub counted: Rc<()>,
    /// The copy by which the shard counts it among the polls of one node, if that is another.
    #[expect(dead_code, reason = "it is held, not read")]
    pub of_node: Option<Rc<()>>,
}

/// The state of a session that is polled.
#[derive(Debug)]
pub(crate) struct Polled {
    pub polls: Polls<ParkedAt>,
    /// Set once the session is there. Its key outlives the session, to tell the client why it ended.
    pub client: ClientId,
    /// The fingerprint of the client's topics.
    pub topics: u64,
    /// The network that the client came from.
    pub network: ClientNetwork,
    /// The begin of the first answer.
    pub beginning: Bytes,
    /// The first answer does not wait.
    pub has_news: bool,
    /// The client has been told of the session, and can poll it.
    pub is_named: bool,
    /// The place of the client between its polls; `None` for one poll alone.
    pub place: Option<PollerPlace>,
    /// The order of the client's commands, on wires that have any.
    pub reorder: Option<Box<Reorder>>,
}

impl Polled {
    /// Without a place the session ends with its first answer.
    pub(crate) fn new(
        topics: u64,
        network: ClientNetwork,
        place: Option<PollerPlace>,
        reorder: Option<Reorder>,
    ) -> Self {
        Self {
            polls: Polls::new(u64::MAX),
            client: ClientId(uuid::Uuid::nil()),
            topics,
            network,
            beginning: Bytes::new(),
            has_news: false,
            is_named: false,
            place,
            reorder: reorder.map(Box::new),
        }
    }

    /// Returns false for one poll alone.
    pub(crate) fn lasts(&self) -> bool {
        self.place.is_some()
    }
}

/// The form of an answer.
#[derive(Debug)]
pub(crate) struct AnswerForm {
    /// Lines for its head.
    pub headers: Bytes,
    /// The function that a script calls with the answer.
    pub callback: Option<Box<str>>,
    /// The cursor that the client has, if it asks only for something newer.
    pub known: Option<Box<str>>,
    /// The answer is lines of a protocol, not an object.
    pub is_lines: bool,
}

/// The result of a look at a session.
pub(super) enum Look {
    Answered(HttpResponse),
    /// There is nothing yet, or much: the poll is to wait.
    Waits,
    /// The client's topics are not those of the session.
    OtherTopics,
    Gone,
}

/// The parameters of a query by which a request polls a session, or ends it. Of several of one name the last counts,
/// everywhere: else a request would be judged by one, and served by another.
#[derive(Debug, Default)]
pub(crate) struct PollQuery {
    pub session: Option<String>,
    pub wait: Option<String>,
    /// The session is to end.
    pub is_end: bool,
}

impl PollQuery {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let mut query = Self::default();
        let text = request.uri().query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "session" => query.session = Some(value.into_owned()),
                "wait" => query.wait = Some(value.into_owned()),
                "end" => query.is_end = true,
                _ => {}
            }
        }
        query
    }

    /// Returns the session that is polled or ended.
    pub(crate) fn key(&self) -> Option<SessionKey> {
        read_session_name(self.session.as_deref()?).map(|(key, _)| key)
    }
}

/// Asks a session for what there is, before the poll is made to wait. So only a poll that waits, or whose answer is long, takes its
/// connection away from further requests.
pub(super) async fn look(
    gate: &Gate,
    network: ClientNetwork,
    key: SessionKey,
    ask: PollAsk,
    form: &AnswerForm,
) -> Result<Look, Box<HttpResponse>> {
    Ok(match gate.node.ask_session(network, key, SessionAsk::Poll(ask)).await {
        Ok(SessionAnswer::Poll(answer)) => Look::Answered(form.response(Some(key), answer)),
        Ok(SessionAnswer::Nothing) => {
            gate.admit_waiting(key.node)?;
            Look::Waits
        }
        Ok(SessionAnswer::OtherTopics) => Look::OtherTopics,
        Ok(SessionAnswer::Busy) => return Err(form.refusal(&NoAnswer::busy(gate))),
        Ok(SessionAnswer::TooOften) => return Err(form.refusal(&NoAnswer::TOO_OFTEN)),
        Ok(_) => Look::Gone,
        Err(why) => match NoAnswer::unreachable(gate, why) {
            // The session may live, with what waits in it.
            Some(no_answer) => return Err(form.refusal(&no_answer)),
            None => Look::Gone,
        },
    })
}

/// Reads the time that a poll is to wait, in seconds.
pub(super) fn wait(text: Option<&str>, wait_max: Duration) -> Result<Duration, &'static str> {
    const USUAL: Duration = Duration::from_secs(15);
    let wait = match text {
        None => USUAL,
        Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Duration::from_secs(text.parse().unwrap_or(u64::MAX))
        }
        Some(_) => return Err("wait: say seconds, such as 15"),
    };
    Ok(wait.min(wait_max))
}

impl PollAsk {
    pub(super) fn new(number: u32, wait: Duration, topics: u64) -> Self {
        let wait_millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        Self { number, wait_millis, topics }
    }
}

/// An answer to a poll in HTTP.
struct Parts {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Parts {
    fn into_response(self) -> HttpResponse {
        let Self { status, content_type, body, headers } = self;
        let mut response = respond(status, content_type, body);
        response.headers_mut().extend(headers);
        response
    }
}

impl AnswerForm {
    /// Returns the response, for a connection that stays.
    pub(crate) fn response(&self, key: Option<SessionKey>, answer: PollAnswer) -> HttpResponse {
        self.parts(key, answer).into_response()
    }

    /// Returns the response to a poll that gets no answer, for a connection that stays.
    pub(super) fn refusal(&self, why: &NoAnswer) -> Box<HttpResponse> {
        Box::new(self.no_answer(why).into_response())
    }

    /// Returns the response as bytes, for a connection that ends with it.
    pub(crate) fn last_response(&self, key: Option<SessionKey>, answer: PollAnswer) -> Bytes {
        self.bytes(self.parts(key, answer))
    }

    /// Returns the response to a poll that gets no answer, as bytes, for a connection that ends with it.
    pub(crate) fn last_refusal(&self, why: &NoAnswer) -> Bytes {
        self.bytes(self.no_answer(why))
    }

    fn bytes(&self, parts: Parts) -> Bytes {
        let Parts { status, content_type, body, headers } = parts;
        last_response(status, content_type, &headers, &self.headers, &body)
    }

    fn no_answer(&self, why: &NoAnswer) -> Parts {
        let NoAnswer { status, error, sentence } = *why;
        let (content_type, body) = match self.is_lines {
            true => ("text/plain; charset=utf-8", format!("{sentence}\n")),
            false => (JSON, StreamRefusal::new(error, sentence).body()),
        };
        let headers = vec![(CACHE_CONTROL, NO_STORE), (RETRY_AFTER, HeaderValue::from_static("1"))];
        Parts { status, content_type, body: body.into(), headers }
    }

    fn parts(&self, key: Option<SessionKey>, answer: PollAnswer) -> Parts {
        let PollAnswer { number, body, has_news, cursor } = answer;
        let tag = cursor.as_ref().and_then(|cursor| HeaderValue::try_from(format!("\"{cursor}\"")).ok());
        // A browser that keeps an answer brings it again for every 304, and to other pages.
        let mut headers = vec![(CACHE_CONTROL, NO_STORE)];
        headers.extend(tag.map(|tag| (ETAG, tag)));
        let is_known = self.known.is_some() && cursor.as_deref() == self.known.as_deref();
        if is_known && !has_news {
            return Parts {
                status: StatusCode::NOT_MODIFIED,
                content_type: JSON,
                body: Bytes::new(),
                headers,
            };
        }
        if self.is_lines {
            let name = key.and_then(|key| HeaderValue::try_from(session_name(&key, number)).ok());
            headers.extend(name.map(|name| (SESSION, name)));
        }
        let (content_type, body) = match &self.callback {
            Some(callback) => {
                headers.push((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
                (SCRIPT, script(callback, &body))
            }
            None => (if self.is_lines { LINES } else { JSON }, body),
        };
        Parts { status: StatusCode::OK, content_type, body, headers }
    }
}

/// Returns the script that calls a function with an object. The comment in front keeps others from giving the first bytes of the
/// answer a meaning of their own. Two characters that texts in JSON may have end a line of a script: they are escaped.
fn script(callback: &str, object: &[u8]) -> Bytes {
    let mut script = format!("/**/{callback}(").into_bytes();
    let mut object = object;
    while let Some(place) = object.windows(3).position(|bytes| matches!(bytes, [0xE2, 0x80, 0xA8 | 0xA9])) {
        script.extend_from_slice(&object[..place]);
        script.extend_from_slice(if object[place + 2] == 0xA8 { b"\\u2028" } else { b"\\u2029" });
        object = &object[place + 3..];
    }
    script.extend_from_slice(object);
    script.extend_from_slice(b");");
    script.into()
}

/// Returns the name by which the client's next poll means the session, and the last answer of it that arrived.
pub(crate) fn session_name(key: &SessionKey, number: u32) -> String {
    format!("{key}.{number}")
}

/// Reads such a name. Each session and number has one.
pub(super) fn read_session_name(name: &str) -> Option<(SessionKey, u32)> {
    let (key, number) = name.split_once('.')?;
    let (key, number) = (SessionKey::parse(key)?, number.parse().ok()?);
    (session_name(&key, number) == name).then_some((key, number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Anything, or what looks like the name of a session.
    const NAMES: &str = "(?s).{0,90}|[A-Za-z0-9_-]{80}\\.[0-9]{1,11}";

    proptest! {
        #[test]
        fn any_wait_and_session_are_read_or_refused(text in "(?s).{0,20}|[0-9]{0,25}", name in NAMES) {
            let max = Duration::from_secs(60);
            let read = wait(Some(&text), max);
            prop_assert_eq!(read.is_ok(), !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
            prop_assert!(read.is_err() || read.is_ok_and(|wait| wait <= max));
            if let Some((key, number)) = read_session_name(&name) {
                prop_assert_eq!(session_name(&key, number), name);
            }
        }
    }

    #[test]
    fn of_several_parameters_of_one_name_the_last_counts() {
        let request = Request::get("/subscribe?session=a&wait=1&session=b").body(()).unwrap();
        let PollQuery { session, wait, is_end } = PollQuery::of(&request);
        assert_eq!((session.as_deref(), wait.as_deref()), (Some("b"), Some("1")));
        assert!(!is_end);
    }

    fn form() -> AnswerForm {
        AnswerForm {
            headers: Bytes::from_static(b"vary: Origin\r\n"),
            callback: None,
            known: None,
            is_lines: false,
        }
    }

    fn answer(cursor: Option<&str>, has_news: bool) -> PollAnswer {
        PollAnswer { number: 1, body: Bytes::from_static(b"{}"), has_news, cursor: cursor.map(str::to_owned) }
    }

    #[test]
    fn an_answer_is_a_whole_response() {
        let bytes = form().last_response(None, answer(None, true));
        let text = str::from_utf8(&bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "{}");
        for line in [
            "content-type: application/json",
            "content-length: 2",
            "cache-control: no-store",
            "connection: close",
            "vary: Origin",
        ] {
            assert!(head.contains(line), "{line}: {head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ndate: "), "{head}");
    }

    #[test]
    fn a_poll_without_an_answer_is_told_why_in_the_form_of_the_others() {
        let why = NoAnswer::unavailable("Poll again.");
        let lines = AnswerForm { is_lines: true, ..form() };
        let json = r#"{"error":{"code":100,"message":"Poll again."}}"#;
        let of_lines = ("text/plain; charset=utf-8", "Poll again.\n");
        for (form, (content_type, body)) in [(form(), (JSON, json)), (lines, of_lines)] {
            let bytes = form.last_refusal(&why);
            let text = str::from_utf8(&bytes).unwrap();
            let content_type = format!("content-type: {content_type}");
            assert!(
                text.starts_with("HTTP/1.1 503 ") && text.ends_with(&format!("\r\n\r\n{body}")),
                "{text}"
            );
            for line in ["cache-control: no-store", "retry-after: 1", "vary: Origin", &content_type] {
                assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
            }
            let response = form.refusal(&why);
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
            assert_eq!(response.headers()[RETRY_AFTER], "1");
        }
    }

    #[test]
    fn what_the_client_knows_is_not_told_again() {
        let known = || AnswerForm { known: Some("C".into()), ..form() };
        for (cursor, has_news, status) in
            [(Some("C"), false, 304), (Some("C"), true, 200), (Some("D"), false, 200), (None, false, 200)]
        {
            let response = known().response(None, answer(cursor, has_news));
            assert_eq!(response.status().as_u16(), status, "{cursor:?} {has_news}");
            let tag = response.headers().get(ETAG).map(|tag| tag.to_str().unwrap().to_owned());
            assert_eq!(tag, cursor.map(|cursor| format!("\"{cursor}\"")));
        }
    }

    #[test]
    fn a_script_calls_the_function() {
        let form = AnswerForm { callback: Some("a.b".into()), ..form() };
        let bytes = form.last_response(None, answer(None, true));
        let text = str::from_utf8(&bytes).unwrap();
        assert!(text.ends_with("\r\n\r\n/**/a.b({});"), "{text}");
        assert!(text.contains("x-content-type-options: nosniff\r\n"), "{text}");
        assert!(text.contains("content-type: text/javascript; charset=utf-8\r\n"), "{text}");
    }

    #[test]
    fn no_text_ends_a_line_of_a_script() {
        let object = "{\"a\":\"\u{2028}b\u{2029}\u{2028}\u{2027}\u{202A}\"}";
        let expected = "/**/f({\"a\":\"\\u2028b\\u2029\\u2028\u{2027}\u{202A}\"});";
        assert_eq!(script("f", object.as_bytes()), expected);
    }

    #[test]
    fn a_poll_waits_for_whole_seconds_within_the_limit() {
        let max = Duration::from_secs(60);
        for (text, expected) in
            [(None, 15), (Some("0"), 0), (Some("20"), 20), (Some("999999999999999999999"), 60)]
        {
            assert_eq!(wait(text, max), Ok(Duration::from_secs(expected)), "{text:?}");
        }
        assert_eq!(wait(None, Duration::from_secs(1)), Ok(Duration::from_secs(1)));
        for text in ["", "-1", "+1", "1.5", "15s"] {
            assert_eq!(wait(Some(text), max), Err("wait: say seconds, such as 15"), "{text}");
        }
    }

    #[test]
    fn a_session_has_one_name() {
        for name in ["", ".", ".1", "key.1", "1"] {
            assert_eq!(read_session_name(name), None, "{name}");
        }
        let key = SessionKey::from_bytes(&[7; 60]).unwrap();
        let name = session_name(&key, 3);
        assert_eq!(read_session_name(&name), Some((key, 3)));
        for number in ["", "-1", "+1", "01", "00", "4294967296", "1.2", "x"] {
            assert_eq!(read_session_name(&format!("{key}.{number}")), None, "{number}");
        }
    }
}
