//! The transports of clients, a section for each.

use fanwire_server::settings::{
    DeflateSettings, HeartbeatWord, PollSettings, ProbeSettings, PublishSettings, StreamSettings,
    Subprotocols, SubscribeSettings, UniWebSocketSettings, WebSocketSettings,
};

use super::checks::Checks;
use super::defaults;
use super::section::section;
use super::values::{Period, Size};

section! {
    /// The WebSocket transport: JSON, or Protobuf when a client asks for it.
    WebSocket {
        /// The path that serves it.
        path: String = defaults::WEBSOCKET_PATH.into(),
        /// Maximum size of one whole message from a client; a larger one closes the connection with code 1009.
        message_bytes_max: Size = defaults::MESSAGE_BYTES_MAX,
        /// A path that sends every message back, for protocol test suites. Not set: there is none.
        echo_path: Option<String> = None,
        sections {
            /// Compression of messages (permessage-deflate) for clients that offer it, as browsers do. A publication is
            /// compressed once for all of them, and connections need no memory for it.
            deflate: Deflate,
        }
    }
}

section! {
    /// Compression of messages (permessage-deflate) for clients that offer it, as browsers do. A publication is
    /// compressed once for all of them, and connections need no memory for it.
    Deflate {
        /// Compression saves bandwidth and costs CPU time, most of it for messages from clients and for messages to one
        /// client only. Compressing secrets together with data that others choose reveals them through the length of
        /// messages, even with TLS (CRIME, BREACH): leave it off where one reply mixes secrets with other people's
        /// data.
        enabled: bool = false,
        /// From 1, the fastest, to 9, the smallest.
        level: u8 = defaults::DEFLATE_LEVEL,
        /// Shorter messages are sent as they are, as are messages that compression does not make shorter.
        min_bytes: Size = defaults::DEFLATE_MIN_BYTES,
    }
}

section! {
    /// Topics for clients without a library, such as a browser's own EventSource: `/subscribe?topic=news`.
    Subscribe {
        /// Serves it.
        enabled: bool = true,
        /// The path that serves it.
        path: String = defaults::SUBSCRIBE_PATH.into(),
        /// The name of a cookie that may hold the connection token, here and in requests to `[publish]`. It counts only
        /// for pages of client.allowed_origins: list the server's own origin too, whose pages send it with a WebSocket and a
        /// POST. Empty: none.
        token_cookie: String = String::new(),
        /// Sub-protocols that bare WebSockets may have: the first that a client offers is confirmed. `"*"` takes any but
        /// those of the Centrifuge protocol. Not listed: the connection has none, and browsers end one that asked.
        subprotocols: Vec<String> = Vec::new(),
        /// Texts of bare WebSockets that are answered at once and published nowhere, each with its answer.
        heartbeats: Vec<String> = vec![defaults::HEARTBEAT.into()],
        /// The longest time that a poll may wait for something, whatever its address asks for. Proxies between have to
        /// wait for longer.
        poll_wait_max: Period = defaults::POLL_WAIT_MAX,
        /// The time between two polls for which a client stays in its topics and their presence. What comes meanwhile
        /// waits for it, within client.queue_bytes_max.
        poll_grace: Period = defaults::POLL_GRACE,
        /// Answers polls with `?callback=` by a script that calls it, for pages in browsers that can read answers of
        /// other hosts in no other way. Every page can run such a script.
        jsonp: bool = false,
    }
}

section! {
    /// Publishing by clients without a connection that stays: `POST /publish?topic=news`.
    Publish {
        /// Serves it.
        enabled: bool = true,
        /// The path that serves it.
        path: String = defaults::PUBLISH_PATH.into(),
        /// Maximum size of a request's body; a larger one is answered 413.
        body_bytes_max: Size = defaults::CLIENT_BODY_BYTES_MAX,
    }
}

section! {
    /// An address that answers 200 while the node takes clients: for pages that watch their network, and for balancers
    /// that see the port for clients alone.
    Probe {
        /// Serves it.
        enabled: bool = true,
        /// The path that serves it.
        path: String = defaults::PROBE_PATH.into(),
    }
}

section! {
    /// HTTP streams, for libraries of the Centrifuge protocol where WebSockets do not get through: replies and publications
    /// come by one response, and commands go to `[emulation]`.
    HttpStream {
        /// Serves it.
        enabled: bool = true,
        /// The path that serves it.
        path: String = defaults::HTTP_STREAM_PATH.into(),
        /// Maximum size of the body of a request, which is a connect command and others behind it; a larger one is answered
        /// 413.
        body_bytes_max: Size = defaults::STREAM_BODY_BYTES_MAX,
    }
}

section! {
    /// The same as server-sent events, for libraries that use a browser's EventSource. A browser's own EventSource, without
    /// a library, is for `[subscribe]`.
    Sse {
        /// Serves it.
        enabled: bool = true,
        /// The path that serves it.
        path: String = defaults::SSE_PATH.into(),
        /// Maximum size of the body of a request, which is a connect command and others behind it; a larger one is answered
        /// 413.
        body_bytes_max: Size = defaults::STREAM_BODY_BYTES_MAX,
    }
}

section! {
    /// Requests with the commands of clients of `[http_stream]` and `[sse]`. Served while one of these is.
    Emulation {
        /// The path that serves it.
        path: String = defaults::EMULATION_PATH.into(),
        /// Maximum size of the body of a request; a larger one is answered 413.
        body_bytes_max: Size = defaults::STREAM_BODY_BYTES_MAX,
    }
}

section! {
    /// One-way WebSockets: clients that connect, and from then on only listen. Limits are those of [websocket].
    UniWebSocket {
        /// Serves it.
        enabled: bool = true,
        /// The path that serves it.
        path: String = defaults::UNI_WEBSOCKET_PATH.into(),
    }
}

section! {
    /// One-way HTTP streams: one JSON message a line.
    UniHttpStream {
        /// Serves it.
        enabled: bool = true,
        /// The path that serves it.
        path: String = defaults::UNI_HTTP_STREAM_PATH.into(),
        /// Maximum size of the body of a request, which is a connect request; a larger one is answered 413.
        body_bytes_max: Size = defaults::STREAM_BODY_BYTES_MAX,
    }
}

section! {
    /// One-way server-sent events, for a browser's own EventSource and the Centrifuge protocol's connect request.
    UniSse {
        /// Serves it.
        enabled: bool = true,
        /// The path that serves it.
        path: String = defaults::UNI_SSE_PATH.into(),
        /// Maximum size of the body of a request, which is a connect request; a larger one is answered 413.
        body_bytes_max: Size = defaults::STREAM_BODY_BYTES_MAX,
    }
}

impl WebSocket {
    pub(super) fn settings(&self, checks: &mut Checks) -> WebSocketSettings {
        WebSocketSettings {
            path: checks.path("websocket.path", &self.path),
            message_bytes_max: checks.at_least_one("websocket.message_bytes_max", self.message_bytes_max.0),
            echo_path: self.echo_path.as_ref().map(|path| checks.path("websocket.echo_path", path)),
            deflate: self.deflate.settings(checks),
        }
    }
}

impl Deflate {
    /// Returns `None` when it is off; its values are checked all the same.
    fn settings(&self, checks: &mut Checks) -> Option<DeflateSettings> {
        if !(1..=9).contains(&self.level) {
            checks.error("websocket.deflate.level", "must be 1 to 9");
        }
        self.enabled
            .then_some(DeflateSettings { level: u32::from(self.level), payload_bytes_min: self.min_bytes.0 })
    }
}

/// Takes every sub-protocol.
const ANY_SUBPROTOCOL: &str = "*";

/// Returns true for bytes of a token (RFC 9110 section 5.6.2), which names of cookies and sub-protocols are.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl Subscribe {
    pub(super) fn settings(&self, checks: &mut Checks) -> SubscribeSettings {
        if !self.token_cookie.bytes().all(is_token_byte) {
            checks.error("subscribe.token_cookie", "must be a cookie's name, such as \"fanwire_token\"");
        }
        SubscribeSettings {
            path: checks.endpoint("subscribe.path", self.enabled, &self.path),
            subprotocols: self.checked_subprotocols(checks),
            heartbeats: self.checked_heartbeats(checks),
            polls: PollSettings {
                wait_max: checks.longer_than_zero("subscribe.poll_wait_max", self.poll_wait_max),
                grace: checks.longer_than_zero("subscribe.poll_grace", self.poll_grace),
                jsonp: self.jsonp,
            },
            token_cookie: Some(self.token_cookie.clone()).filter(|name| !name.is_empty()),
        }
    }
}

/// Words of a list, and bytes of a word: enough for every library there is.
const WORDS_MAX: usize = 16;
const WORD_BYTES_MAX: usize = 64;

impl Subscribe {
    fn checked_subprotocols(&self, checks: &mut Checks) -> Subprotocols {
        const KEY: &str = "subscribe.subprotocols";
        if self.subprotocols.len() > WORDS_MAX {
            checks.error(KEY, format!("has more than {WORDS_MAX}"));
        }
        for name in self.subprotocols.iter().filter(|name| *name != ANY_SUBPROTOCOL) {
            if name.is_empty() || name.len() > WORD_BYTES_MAX || !name.bytes().all(is_token_byte) {
                checks.error(KEY, format!("\"{name}\" cannot be a sub-protocol: 1 to {WORD_BYTES_MAX} letters, digits or one of .-_"));
            }
            if name.starts_with("centrifuge-") {
                checks.error(
                    KEY,
                    format!("\"{name}\" is the Centrifuge protocol, which websocket.path speaks"),
                );
            }
        }
        match self.subprotocols.iter().any(|name| name == ANY_SUBPROTOCOL) {
            true => Subprotocols::All,
            false => Subprotocols::These(self.subprotocols.clone()),
        }
    }

    fn checked_heartbeats(&self, checks: &mut Checks) -> Vec<HeartbeatWord> {
        const KEY: &str = "subscribe.heartbeats";
        if self.heartbeats.len() > WORDS_MAX {
            checks.error(KEY, format!("has more than {WORDS_MAX}"));
        }
        let mut heartbeats: Vec<HeartbeatWord> = Vec::new();
        for text in &self.heartbeats {
            match text.split_once('=') {
                Some((word, answer)) if !word.is_empty() && word.len().max(answer.len()) <= WORD_BYTES_MAX => {
                    if heartbeats.iter().any(|heartbeat| heartbeat.word == word) {
                        checks.error(KEY, format!("\"{word}\" is there twice"));
                    }
                    heartbeats.push(HeartbeatWord { word: word.to_owned(), answer: answer.to_owned() });
                }
                _ => checks.error(
                    KEY,
                    format!("\"{text}\" must be a text and its answer, such as \"ping=pong\", each at most {WORD_BYTES_MAX} bytes"),
                ),
            }
        }
        heartbeats
    }
}

impl Publish {
    pub(super) fn settings(&self, checks: &mut Checks) -> PublishSettings {
        PublishSettings {
            path: checks.endpoint("publish.path", self.enabled, &self.path),
            body_bytes_max: checks.at_least_one("publish.body_bytes_max", self.body_bytes_max.0),
        }
    }
}

impl Probe {
    pub(super) fn settings(&self, checks: &mut Checks) -> ProbeSettings {
        ProbeSettings { path: checks.endpoint("probe.path", self.enabled, &self.path) }
    }
}

impl HttpStream {
    pub(super) fn settings(&self, checks: &mut Checks) -> StreamSettings {
        stream("http_stream", self.enabled, &self.path, self.body_bytes_max, checks)
    }
}

impl Sse {
    pub(super) fn settings(&self, checks: &mut Checks) -> StreamSettings {
        stream("sse", self.enabled, &self.path, self.body_bytes_max, checks)
    }
}

impl Emulation {
    pub(super) fn settings(&self, is_needed: bool, checks: &mut Checks) -> StreamSettings {
        stream("emulation", is_needed, &self.path, self.body_bytes_max, checks)
    }
}

impl UniWebSocket {
    pub(super) fn settings(&self, checks: &mut Checks) -> UniWebSocketSettings {
        UniWebSocketSettings { path: checks.endpoint("uni_websocket.path", self.enabled, &self.path) }
    }
}

impl UniHttpStream {
    pub(super) fn settings(&self, checks: &mut Checks) -> StreamSettings {
        stream("uni_http_stream", self.enabled, &self.path, self.body_bytes_max, checks)
    }
}

impl UniSse {
    pub(super) fn settings(&self, checks: &mut Checks) -> StreamSettings {
        stream("uni_sse", self.enabled, &self.path, self.body_bytes_max, checks)
    }
}

fn stream(
    section: &str,
    enabled: bool,
    path: &str,
    body_bytes_max: Size,
    checks: &mut Checks,
) -> StreamSettings {
    let path = checks.endpoint(&format!("{section}.path"), enabled, path);
    let body_bytes_max = checks.at_least_one(&format!("{section}.body_bytes_max"), body_bytes_max.0);
    StreamSettings { path, body_bytes_max }
}
