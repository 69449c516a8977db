//! The checked settings of a node. The gateway builds them from the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use fanwire_broker::{MemoryStatusBounds, OutboxOptions, RedisSettings, StatusOptions};
use fanwire_hub::{ClientSettings, Namespaces};
pub use fanwire_protocol::EventMask;
pub use fanwire_protocol::plain::bare::HeartbeatWord;
use fanwire_protocol::reason::{Close, Refused};
use fanwire_protocol::wire::Wire;
pub use hyper::header::{HeaderName, HeaderValue};
pub use ipnet::IpNet;
use secrecy::SecretString;

use crate::accept::admission::{GroupLimit, GroupLimits, Shares, Times};
pub use crate::backend::{BackendUrl, UrlError};

#[derive(Clone, Debug)]
pub struct Settings {
    /// Files that the process may open, if that is limited.
    pub files_max: Option<u64>,
    /// The node's name in `info` and in logs.
    pub name: String,
    /// The address of the client port.
    pub client_address: SocketAddr,
    /// TLS on the client port; `None` if a proxy in front does it.
    pub tls: Option<TlsSettings>,
    /// The address of the internal port.
    pub internal_address: SocketAddr,
    /// Threads that own connections, at least 1.
    pub shards: usize,
    pub client: ClientSettings,
    /// The application's backends. Slots of the hub's settings are places in this list.
    pub hooks: Vec<HookSettings>,
    pub namespaces: Namespaces,
    pub origins: Origins,
    pub connection_tokens: TokenSettings,
    /// For subscription tokens; `None` uses `connection_tokens`.
    pub subscription_tokens: Option<TokenSettings>,
    pub admission: AdmissionSettings,
    pub websocket: WebSocketSettings,
    pub subscribe: SubscribeSettings,
    pub publish: PublishSettings,
    pub http_stream: StreamSettings,
    pub sse: StreamSettings,
    /// Requests with the commands of clients of those two.
    pub emulation: StreamSettings,
    pub probe: ProbeSettings,
    pub uni_websocket: UniWebSocketSettings,
    pub uni_http_stream: StreamSettings,
    pub uni_sse: StreamSettings,
    pub api: ApiSettings,
    pub engine: EngineSettings,
    /// The status of users, if a namespace has it.
    pub status: Option<StatusSettings>,
    /// The receiver of events; `None`: the application reads them from their streams.
    pub webhook: Option<WebhookSettings>,
    pub shutdown: ShutdownSettings,
    /// Serves a page and its tokens. Set by `--dev` alone, which also holds the listeners to loopback.
    pub dev: Option<DevSettings>,
}

impl Settings {
    pub(crate) fn limits(&self) -> GroupLimits {
        /// Some round trips of a phone.
        const PATIENCE: Duration = Duration::from_secs(1);
        let AdmissionSettings { silent_connections_max, http_connections_max, post_connections_max, .. } =
            self.admission;
        // A TLS handshake waits for its client in between; a request comes as a whole, or almost.
        let in_request = if self.tls.is_some() { PATIENCE } else { Duration::ZERO };
        GroupLimits {
            silent: GroupLimit { max: silent_connections_max, patience: PATIENCE },
            requests: GroupLimit { max: http_connections_max, patience: in_request },
            posts: GroupLimit { max: post_connections_max, patience: Duration::ZERO },
            api: GroupLimit { max: self.api.connections_max, patience: Duration::ZERO },
        }
    }

    /// Returns the wires that routes serve, without the echo of test suites.
    pub(crate) fn wires(&self) -> Vec<Wire> {
        let always = [
            Wire::CentrifugeJson,
            Wire::CentrifugeProtobuf,
            Wire::Events,
            Wire::Lines,
            Wire::Poll,
            Wire::Bare,
            Wire::BareJson,
        ];
        let if_served = [
            (Wire::CentrifugeLines, self.http_stream.path.is_some()),
            (Wire::CentrifugeStream, self.http_stream.path.is_some()),
            (Wire::CentrifugeEvents, self.sse.path.is_some()),
            (Wire::UniWebSocket, self.uni_websocket.path.is_some()),
            (Wire::UniLines, self.uni_http_stream.path.is_some()),
            (Wire::UniEvents, self.uni_sse.path.is_some()),
        ];
        let served = if_served.into_iter().filter_map(|(wire, is_served)| is_served.then_some(wire));
        always.into_iter().chain(served).collect()
    }

    /// Returns the shares of the limit on open files, where there is one.
    pub(crate) fn files(&self) -> Option<Shares> {
        /// Connections without commands: heartbeats, subscriptions, and two that are being replaced.
        const OTHER_LINKS: usize = 4;
        let links = match &self.engine {
            EngineSettings::Memory(_) => 0,
            EngineSettings::Redis(redis) => redis.command_links + OTHER_LINKS,
        };
        self.files_max.map(|max| Shares::new(max, self.shards, links))
    }

    /// The events of a user's connections.
    pub(crate) fn user_events(&self) -> EventMask {
        let status = if self.status.is_some() { EventMask::STATUS } else { EventMask::NONE };
        self.client.events | status
    }

    /// Returns the number of client connections that the limit on open files allows, where there is one.
    pub fn clients_possible(&self) -> Option<usize> {
        self.files().map(|shares| shares.clients)
    }

    pub(crate) fn internal_limits(&self) -> GroupLimits {
        let requests = self.admission.internal_connections_max;
        GroupLimits { requests: GroupLimit { max: requests, patience: Duration::ZERO }, ..self.limits() }
    }

    pub(crate) fn times(&self) -> Times {
        let AdmissionSettings {
            request_header_timeout: head, idle_timeout: idle, write_timeout: write, ..
        } = self.admission;
        Times { head, idle, idle_api: self.api.idle_timeout, write }
    }

    /// A scraper of metrics keeps its connection like a caller of the API.
    pub(crate) fn internal_times(&self) -> Times {
        Times { idle: self.api.idle_timeout, ..self.times() }
    }
}

/// The certificate of the client port.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// PEM: the node's own certificate first, then those that lead to a known issuer.
    pub certificate_file: PathBuf,
    /// PEM, without a passphrase.
    pub key_file: PathBuf,
    /// The interval at which the files are looked at; `None` reloads on request alone.
    pub reload_interval: Option<Duration>,
    /// Clients may speak HTTP/2.
    pub http2: bool,
}

/// The web pages that may connect.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Globs such as `https://*.example.com`; `*` takes every page. Requests without an `Origin` header,
    /// which no browser sends, always pass.
    pub allowed: Vec<String>,
}

/// Limits on what may come in.
#[derive(Clone, Debug)]
pub struct AdmissionSettings {
    /// Client connections on this node; more are answered 503. 0 sets no limit.
    pub connections_max: usize,
    /// New client connections a second on this node; more are answered 503. 0 sets no limit.
    pub connections_per_second_max: usize,
    /// Proxies before the port for clients that are trusted to name their clients.
    pub trusted_proxies: Vec<IpNet>,
    /// Accepted connections of one shard, or of the internal port, that have sent nothing. At the limit the oldest is
    /// dropped, from the address with the most of them first.
    pub silent_connections_max: usize,
    /// Connections of one shard with a TLS handshake or a request that is in no other group. At the limit one that the
    /// node waits for is dropped, chosen in the same way. A WebSocket or stream that is open is none of them.
    pub http_connections_max: usize,
    /// The same of those whose last request was a publication or the commands of a client. If the node works for all of
    /// them, further ones are answered 503, as are those of a network that has as many as are left for others.
    pub post_connections_max: usize,
    /// Bytes that the clients of one network may have forwarded to other nodes in a second; 0 for no limit.
    pub forwarded_bytes_per_second_max: usize,
    /// The same for the internal port.
    pub internal_connections_max: usize,
    /// From the first byte of a request to the end of its head; for the first request, from accept.
    pub request_header_timeout: Duration,
    /// The time that a connection is kept between two requests, unless they are calls of the API.
    pub idle_timeout: Duration,
    /// The time that a peer may take nothing of what it was sent.
    pub write_timeout: Duration,
    /// The connections that the kernel queues for each shard.
    pub backlog: u32,
}

#[derive(Clone, Debug)]
pub struct WebSocketSettings {
    pub path: String,
    /// One whole message from a client.
    pub message_bytes_max: usize,
    /// A route that sends every message back, for protocol test suites; `None` serves none.
    pub echo_path: Option<String>,
    /// Compresses messages to and from clients that offer it; `None` never does.
    pub deflate: Option<DeflateSettings>,
}

#[derive(Clone, Copy, Debug)]
pub struct DeflateSettings {
    /// 1, the fastest, to 9, the smallest.
    pub level: u32,
    /// Shorter messages are sent as they are.
    pub payload_bytes_min: usize,
}

/// `GET /subscribe`, for clients without a library.
#[derive(Clone, Debug)]
pub struct SubscribeSettings {
    /// `None` serves none.
    pub path: Option<String>,
    /// A cookie that may hold the connection token, also of a request to publish.
    pub token_cookie: Option<String>,
    /// Those that bare WebSockets may have.
    pub subprotocols: Subprotocols,
    /// Texts of bare WebSockets that are answered by the node.
    pub heartbeats: Vec<HeartbeatWord>,
    pub polls: PollSettings,
}

/// Polls of clients, which have no connection that stays.
#[derive(Clone, Copy, Debug)]
pub struct PollSettings {
    /// The longest time that a poll waits.
    pub wait_max: Duration,
    /// The time that a session lasts without a poll.
    pub grace: Duration,
    /// Answers as scripts are given to pages that ask for them.
    pub jsonp: bool,
}

/// Sub-protocols that are confirmed to clients that offer them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subprotocols {
    All,
    These(Vec<String>),
}

impl Subprotocols {
    pub(crate) fn takes(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.iter().any(|taken| taken == name),
        }
    }
}

/// `POST /publish`, for clients without a connection that stays.
#[derive(Clone, Debug)]
pub struct PublishSettings {
    /// `None` serves none.
    pub path: Option<String>,
    /// A request's body; a larger one is answered 413.
    pub body_bytes_max: usize,
}

/// The address by which pages and balancers learn that the node serves clients.
#[derive(Clone, Debug)]
pub struct ProbeSettings {
    /// `None` serves none.
    pub path: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct UniWebSocketSettings {
    /// `None` serves none.
    pub path: Option<String>,
}

/// A transport whose connections are responses that stay open, or the address for the commands of its clients.
#[derive(Clone, Debug, Default)]
pub struct StreamSettings {
    /// `None` serves none.
    pub path: Option<String>,
    /// The body of a request; a longer one is answered 413.
    pub body_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Its path, without a final slash: `/api`.
    pub path: String,
    pub on_client_port: bool,
    pub on_internal_port: bool,
    /// Any of these opens the API. Without one it answers 401.
    pub keys: Vec<SecretString>,
    /// Needs no key. For development.
    pub insecure: bool,
    /// Callers' connections on one shard, and on the internal port. At the limit one that the node waits for is dropped,
    /// as for [`AdmissionSettings::http_connections_max`].
    pub connections_max: usize,
    /// The time that a caller's connection is kept between two calls.
    pub idle_timeout: Duration,
    /// A request's body; a larger one is answered 413.
    pub body_bytes_max: usize,
    /// Commands in one batch or pipeline, and topics in one broadcast.
    pub commands_max: usize,
    /// Topics in one `channels` answer.
    pub topics_max: usize,
    /// The answers to all commands of one request.
    pub answer_bytes_max: usize,
    /// Errors as HTTP statuses instead of bodies with status 200.
    pub transport_errors: bool,
}

/// A backend that decides on what clients do.
#[derive(Clone, Debug)]
pub struct HookSettings {
    /// In logs and metrics.
    pub name: String,
    pub url: BackendUrl,
    pub tls: BackendTlsSettings,
    /// From the connection to the last byte of the answer.
    pub timeout: Duration,
    /// Requests under way at a time.
    pub requests_max: usize,
    /// Calls that wait for one of those; more fail at once.
    pub waiting_max: usize,
    /// The time for which a call waits; then it fails.
    pub wait_max: Duration,
    /// The time that a connection is kept between two requests.
    pub idle_timeout: Duration,
    /// The body of an answer; a longer one is not read.
    pub answer_bytes_max: usize,
    /// Headers of the request that opened the client's connection.
    pub http_headers: Vec<HeaderName>,
    /// Headers by the client's own word.
    pub emulated_headers: Vec<HeaderName>,
    /// Names of the cookies that are sent where `http_headers` does not have `Cookie`.
    pub cookies: Vec<String>,
    /// Headers that are always sent.
    pub static_headers: Vec<(HeaderName, HeaderValue)>,
    /// Data is sent in Base64.
    pub binary_encoding: bool,
    pub include_connection_meta: bool,
    /// Sign each call; none: calls are not signed.
    pub signature_secrets: Vec<SecretString>,
    /// The backend is not called for a while when it fails too often.
    pub breaker: bool,
    /// Statuses other than 200 that say something.
    pub status_meanings: Vec<(u16, StatusMeaning)>,
}

/// A receiver of events.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    pub url: BackendUrl,
    pub tls: BackendTlsSettings,
    /// From the connection to the last byte of the answer.
    pub timeout: Duration,
    /// Events in one request.
    pub batch_events: usize,
    /// The body of a request, but for a single event.
    pub batch_bytes: usize,
    /// Attempts after which an event that is refused is a dead letter.
    pub attempts_max: u32,
    /// Headers that are always sent.
    pub static_headers: Vec<(HeaderName, HeaderValue)>,
    /// Sign each request; none: requests are not signed.
    pub signature_secrets: Vec<SecretString>,
}

/// The meaning of a status for the client.
#[derive(Clone, Debug)]
pub enum StatusMeaning {
    Error(Refused),
    Close(Close),
}

impl StatusMeaning {
    /// An error by its number, with words for the client; `is_temporary`: the same request may succeed later.
    pub fn error(number: u32, words: String, is_temporary: bool) -> Self {
        Self::Error(Refused::by_application(number, words, is_temporary))
    }

    /// The end of the connection.
    pub fn close(number: u16, words: String) -> Self {
        Self::Close(Close::by_application(number, words))
    }
}

/// TLS to a backend.
#[derive(Clone, Debug, Default)]
pub struct BackendTlsSettings {
    /// PEM: the authorities that are trusted; `None` trusts those of the system.
    pub ca_file: Option<PathBuf>,
    /// The node's own certificate, for backends that ask for one.
    pub identity: Option<IdentityFiles>,
    /// The name in the backend's certificate, where it is not that of the URL.
    pub server_name: Option<String>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

/// The engine, which keeps the topics.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a node has one")]
pub enum EngineSettings {
    Memory(MemoryEngineSettings),
    Redis(RedisSettings),
}

#[derive(Clone, Debug)]
pub struct MemoryEngineSettings {
    /// Names, positions and publications in the memory engine, all topics together.
    pub history_bytes_max: usize,
    pub idempotency_ttl: Duration,
    /// The outboxes of members' events; without, members have no events.
    pub outbox: Option<OutboxOptions>,
}

/// The status of users.
#[derive(Clone, Debug)]
pub struct StatusSettings {
    pub options: StatusOptions,
    /// The path that takes heartbeats of users without a connection; `None`: there is none.
    pub heartbeat_path: Option<String>,
    /// For the memory engine.
    pub in_memory: MemoryStatusBounds,
}

#[derive(Clone, Debug)]
pub struct ShutdownSettings {
    /// The time for which the node still accepts clients, until load balancers have learnt that it leaves.
    pub propagation: Duration,
    /// The time over which clients are closed evenly. A node with few takes less: at least
    /// [`ShutdownSettings::CLOSES_PER_SECOND_MIN`] are closed in a second.
    pub window: Duration,
    /// The time that the last clients have to leave once they are closed.
    pub timeout: Duration,
}

impl ShutdownSettings {
    pub const CLOSES_PER_SECOND_MIN: u32 = 100;
}

#[derive(Clone, Debug)]
pub struct DevSettings {
    /// Signs the tokens of the page; new at every start, and [`TokenSettings::dev_secret`] too.
    pub token_secret: SecretString,
    /// The page.
    pub pages: StaticFiles,
}

/// Files that are served as they are.
#[derive(Clone, Copy, Debug)]
pub struct StaticFiles {
    pub files: &'static [StaticFile],
    /// The content security policy of all files.
    pub security_policy: &'static str,
}

/// A file, with the path that serves it.
#[derive(Debug)]
pub struct StaticFile {
    pub path: &'static str,
    pub content_type: &'static str,
    pub body: &'static str,
}

impl StaticFiles {
    /// Returns the file with this path.
    pub fn file(&self, path: &str) -> Option<&'static StaticFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// The keys that verify tokens. A token whose algorithm has no key here is invalid.
#[derive(Clone, Debug, Default)]
pub struct TokenSettings {
    /// HS256, HS384, HS512.
    pub hmac_secret: Option<SecretString>,
    /// Still taken while a new secret is rolled out.
    pub hmac_previous_secret: Option<SecretString>,
    /// The last second in which it is accepted, since 1970; `None` is without end.
    pub hmac_previous_secret_valid_until: Option<i64>,
    /// Signs the tokens of `--dev`, so that none of them is good where the configured secret is.
    pub dev_secret: Option<SecretString>,
    /// RS256, RS384, RS512; PEM.
    pub rsa_public_key: Option<String>,
    /// ES256 or ES384, as the key's curve says; PEM.
    pub ecdsa_public_key: Option<String>,
    /// EdDSA with Ed25519; PEM.
    pub ed25519_public_key: Option<String>,
    /// Replaces all keys above.
    pub jwks: Option<KeySetSettings>,
    pub audience: Option<Expected>,
    pub issuer: Option<Expected>,
    /// The claim that holds the user, when it is not `sub`.
    pub user_claim: Option<String>,
    /// Takes any signature. For development.
    pub insecure_skip_signature: bool,
    /// Connections of tokens that are revoked are closed.
    pub is_revocable: bool,
}

/// The keys that an identity provider publishes.
#[derive(Clone, Debug)]
pub struct KeySetSettings {
    /// With `{{name}}` for a group of the issuer's or the audience's pattern.
    pub url: String,
    pub ttl: Duration,
    /// The time between two fetches.
    pub refresh_min: Duration,
    /// The time for which keys are used while newer ones cannot be fetched.
    pub stale_max: Duration,
    pub timeout: Duration,
    pub tls: BackendTlsSettings,
}

/// The value that a claim has to have.
#[derive(Clone, Debug)]
pub enum Expected {
    Exactly(String),
    Matching(regex::Regex),
}
