//! A node in this process, with small limits, and the tokens that it takes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fanwire_hub::{
    ClientSettings, HistoryBounds, NameRules, Namespace, Namespaces, RecoveryMode, SlowPolicy,
};
use fanwire_server::settings::{
    AdmissionSettings, ApiSettings, EngineSettings, HeartbeatWord, MemoryEngineSettings, Origins,
    PollSettings, ProbeSettings, PublishSettings, ShutdownSettings, StreamSettings, Subprotocols,
    SubscribeSettings, TokenSettings, UniWebSocketSettings, WebSocketSettings,
};
use fanwire_server::{Running, Settings, start};
use jsonwebtoken::{EncodingKey, Header};
use secrecy::SecretString;
use serde_json::Value;

use super::{Backend, Client, RawSocket, eventually, redis_settings};

const SECRET: &str = "a secret of the tests";

/// A namespace in which every client may do everything.
pub(crate) fn open() -> Namespace {
    Namespace {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_anonymous: true,
        allow_presence_for_client: true,
        allow_presence_for_anonymous: true,
        allow_history_for_client: true,
        allow_history_for_anonymous: true,
        ..Namespace::default()
    }
}

/// A node that anybody may use in every way, with these namespaces:
///
/// - none: nothing is kept;
/// - `history`: publications are kept, subscriptions recover;
/// - `cache`: the same, and recovery gives the newest publication;
/// - `newest`: nothing is kept, and for a slow client the oldest of what waits is dropped;
/// - `latest`: the same, but only the newest waits;
/// - `stream`: as `newest`, but publications are kept, and whoever wishes so has a position and recovers;
/// - `room`: presence, and everybody is told of joins and leaves.
pub(crate) fn settings(shards: usize) -> Settings {
    let open = open();
    let hour = Duration::from_secs(3600);
    let history = Namespace {
        name: "history".into(),
        history: Some(HistoryBounds { size: 10_000, ttl: hour, meta_ttl: hour }),
        force_recovery: true,
        ..open.clone()
    };
    let cache = Namespace { name: "cache".into(), recovery_mode: RecoveryMode::Cache, ..history.clone() };
    let dropping = |name: &str, slow_policy| Namespace { name: name.into(), slow_policy, ..open.clone() };
    let [newest, latest] =
        [dropping("newest", SlowPolicy::DropOldest), dropping("latest", SlowPolicy::KeepLatest)];
    let stream = Namespace {
        history: history.history,
        allow_positioning: true,
        allow_recovery: true,
        ..dropping("stream", SlowPolicy::DropOldest)
    };
    let room = Namespace {
        name: "room".into(),
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        ..open.clone()
    };
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Settings {
        files_max: None,
        name: "test".into(),
        client_address: anywhere,
        tls: None,
        internal_address: anywhere,
        shards,
        client: ClientSettings {
            allow_anonymous_connect_without_token: true,
            recovery_max: 10_000,
            history_page_max: 10_000,
            answer_bytes_max: 16 << 20,
            recovery_bytes_max: 64 << 20,
            // Tests ask as fast as they can.
            commands_per_second_max: 0,
            ..ClientSettings::default()
        },
        hooks: Vec::new(),
        webhook: None,
        namespaces: Namespaces::new(
            NameRules::default(),
            open,
            [history, cache, room, newest, latest, stream],
        ),
        origins: Origins::default(),
        connection_tokens: TokenSettings {
            hmac_secret: Some(SecretString::from(SECRET)),
            ..TokenSettings::default()
        },
        subscription_tokens: None,
        admission: AdmissionSettings {
            connections_max: 0,
            connections_per_second_max: 0,
            trusted_proxies: Vec::new(),
            silent_connections_max: 64,
            http_connections_max: 16,
            post_connections_max: 16,
            forwarded_bytes_per_second_max: 0,
            internal_connections_max: 16,
            request_header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            backlog: 1024,
        },
        websocket: WebSocketSettings {
            path: "/connection/websocket".into(),
            message_bytes_max: 64 * 1024,
            echo_path: Some("/echo".into()),
            deflate: None,
        },
        subscribe: SubscribeSettings {
            path: Some("/subscribe".into()),
            token_cookie: None,
            subprotocols: Subprotocols::These(vec!["chat".into()]),
            heartbeats: vec![HeartbeatWord { word: "ping".into(), answer: "pong".into() }],
            polls: PollSettings {
                wait_max: Duration::from_secs(60),
                grace: Duration::from_secs(15),
                jsonp: false,
            },
        },
        publish: PublishSettings { path: Some("/publish".into()), body_bytes_max: 64 * 1024 },
        http_stream: stream_at("/connection/http_stream"),
        sse: stream_at("/connection/sse"),
        emulation: stream_at("/emulation"),
        probe: ProbeSettings { path: Some("/probe".into()) },
        uni_websocket: UniWebSocketSettings { path: Some("/connection/uni_websocket".into()) },
        uni_http_stream: stream_at("/connection/uni_http_stream"),
        uni_sse: stream_at("/connection/uni_sse"),
        api: ApiSettings {
            path: "/api".into(),
            on_client_port: true,
            on_internal_port: true,
            keys: Vec::new(),
            insecure: true,
            connections_max: 16,
            idle_timeout: Duration::from_secs(75),
            body_bytes_max: 1 << 20,
            commands_max: 1000,
            topics_max: 1000,
            answer_bytes_max: 64 << 20,
            transport_errors: false,
        },
        engine: if crate::ON_REDIS {
            EngineSettings::Redis(redis_settings())
        } else {
            EngineSettings::Memory(MemoryEngineSettings {
                history_bytes_max: 64 << 20,
                idempotency_ttl: Duration::from_secs(60),
                outbox: None,
            })
        },
        status: None,
        shutdown: ShutdownSettings {
            propagation: Duration::ZERO,
            window: Duration::ZERO,
            timeout: Duration::from_secs(10),
        },
        dev: None,
    }
}

fn stream_at(path: &str) -> StreamSettings {
    StreamSettings { path: Some(path.to_owned()), body_bytes_max: 64 * 1024 }
}

/// A token with these claims, signed with the node's secret.
pub(crate) fn token(claims: &impl serde::Serialize) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// Ends when it is dropped, without a word to its clients.
pub(crate) struct TestGateway {
    running: Running,
    pub(crate) address: SocketAddr,
    pub(crate) internal_address: SocketAddr,
}

impl TestGateway {
    /// A node that is ready: it may have to reach Redis first.
    pub(crate) async fn start(settings: Settings) -> Self {
        let running = start(settings).unwrap();
        let (address, internal_address) = (running.client_address(), running.internal_address());
        let request = "GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n";
        eventually("the node is ready", async || {
            RawSocket::ask(internal_address, request).await.status == 200
        })
        .await;
        Self { running, address, internal_address }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address, serde_json::json!({})).await
    }

    /// A client with a token of these claims.
    pub(crate) async fn client_with(&self, claims: &Value) -> Client {
        Client::connect(self.address, serde_json::json!({"token": token(claims)})).await
    }

    pub(crate) async fn backend(&self) -> Backend {
        Backend::new(self.address).await
    }

    pub(crate) async fn shutdown(self) {
        self.running.shutdown().await;
    }

    /// Waits until the node holds no connection to any client.
    pub(crate) async fn deserted(&self) {
        eventually("no connection is left", async || self.sockets() == 0).await;
    }

    /// Sockets of clients that this process holds open on the node's side, whatever their state.
    pub(crate) fn sockets(&self) -> usize {
        const LISTENING: &str = "0A";
        let local = format!(":{:04X}", self.address.port());
        let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // The kernel lists sockets that belong to no process any more with inode 0.
        rows.filter(|row| row[1].ends_with(&local) && row[3] != LISTENING && row[9] != "0").count()
    }

    pub(crate) fn reload_certificate(&self) {
        self.running.reload_certificate();
    }

    /// The value of a metric, all its labels together.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.metric_of(name, "").await
    }

    /// The same of those that have a label, as in `result="ok"`.
    pub(crate) async fn metric_of(&self, name: &str, label: &str) -> f64 {
        let request = "GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n";
        let metrics = RawSocket::ask(self.internal_address, request).await.body;
        let rows = metrics.lines().filter_map(|line| line.rsplit_once(' '));
        let mut values = rows
            .filter(|(key, _)| key.split('{').next() == Some(name) && key.contains(label))
            .map(|(_, value)| value.parse::<f64>().unwrap())
            .peekable();
        assert!(values.peek().is_some(), "no {name} in {metrics}");
        values.sum()
    }
}
