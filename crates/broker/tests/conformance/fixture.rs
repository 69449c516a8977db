//! An engine under test with its events and its clock, and helpers for scenarios.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanwire_broker::{
    Engine, Event, HistoryOptions, HistoryPage, HistoryQuery, Member, MemoryOutbox, MemorySettings,
    NewPublication, OutboxOptions, Peer, Published, Recovery, Redis, RedisSettings, Since, StoredEvent,
};
use fanwire_protocol::{ClientId, ClientInfo, Position, Publication, TopicName};
use uuid::Uuid;

use crate::redis_server::{RedisServer, wait_until_up};

/// Whole seconds, far enough apart for an engine with a real clock.
pub(crate) const HISTORY_TTL: Duration = Duration::from_secs(4);
pub(crate) const META_TTL: Duration = Duration::from_secs(10);
pub(crate) const IDEMPOTENCY_TTL: Duration = Duration::from_secs(3);
pub(crate) const OFFLINE_DELAY: Duration = Duration::from_secs(2);

pub(crate) const HISTORY: HistoryOptions = HistoryOptions { size: 5, ttl: HISTORY_TTL, meta_ttl: META_TTL };

pub(crate) struct Fixture {
    pub(crate) engine: Engine,
    delivered: Arc<Mutex<Vec<Event>>>,
    /// With a server, time is real.
    server: Option<RedisServer>,
}

impl Fixture {
    pub(crate) fn memory() -> Self {
        Self::memory_with(outbox(Duration::ZERO))
    }

    fn memory_with(outbox: OutboxOptions) -> Self {
        let delivered = Arc::<Mutex<Vec<Event>>>::default();
        let sink = Arc::clone(&delivered);
        let settings = MemorySettings {
            idempotency_ttl: IDEMPOTENCY_TTL,
            outbox: Some(MemoryOutbox::new(outbox)),
            ..MemorySettings::default()
        };
        let engine = Engine::memory(settings, Box::new(move |event| sink.lock().unwrap().push(event)));
        Self { engine, delivered, server: None }
    }

    /// With a user of the server who has only the documented rights.
    pub(crate) async fn redis() -> Self {
        let server = RedisServer::start(&[]);
        allow_least(&server);
        Self::redis_with(server, outbox(Duration::ZERO)).await
    }

    async fn redis_with(server: RedisServer, outbox: OutboxOptions) -> Self {
        let delivered = Arc::<Mutex<Vec<Event>>>::default();
        let sink = Arc::clone(&delivered);
        let settings = RedisSettings {
            idempotency_ttl: IDEMPOTENCY_TTL,
            outbox: Some(outbox),
            ..least_settings(&server)
        };
        let node = Peer { id: Uuid::new_v4(), name: "test".into() };
        let redis =
            Redis::start(settings, node, Arc::new(move |event| sink.lock().unwrap().push(event))).unwrap();
        wait_until_up(&redis).await;
        Self { engine: Engine::Redis(redis), delivered, server: Some(server) }
    }

    /// Returns a new engine that says vacancies with a delay.
    pub(crate) async fn with_offline_delay(self) -> Self {
        match self.server {
            Some(server) => Self::redis_with(server, outbox(OFFLINE_DELAY)).await,
            None => Self::memory_with(outbox(OFFLINE_DELAY)),
        }
    }

    /// The events in all outboxes.
    pub(crate) async fn stored(&self) -> Vec<StoredEvent> {
        let outbox = self.engine.outbox().unwrap();
        outbox.read(&outbox.slots().await.unwrap(), 10_000).await.unwrap()
    }

    pub(crate) async fn say_due(&self) {
        self.engine.outbox().unwrap().say_due().await.unwrap();
    }

    /// A topic of this fixture alone.
    pub(crate) fn topic(&self, name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    /// Lets time pass, with a node's sweeps.
    pub(crate) async fn pass(&self, duration: Duration) {
        if self.server.is_some() {
            tokio::time::sleep(duration).await;
            return;
        }
        for _ in 0..duration.as_secs() {
            tokio::time::advance(Duration::from_secs(1)).await;
            self.engine.sweep();
        }
        tokio::time::advance(Duration::from_nanos(duration.subsec_nanos().into())).await;
    }

    /// All events of earlier calls since the last call of this function.
    pub(crate) async fn events(&self) -> Vec<Event> {
        self.settle().await;
        std::mem::take(&mut *self.delivered.lock().unwrap())
    }

    /// Waits until all events of earlier calls are delivered.
    pub(crate) async fn settle(&self) {
        if self.server.is_none() {
            return;
        }
        // Events arrive in Redis' order, across topics.
        let barrier = self.topic("the last of all events");
        self.engine.subscribe(&barrier).await.unwrap();
        self.publish(&barrier, live("")).await;
        let is_barrier =
            |event: &Event| matches!(event, Event::Publication { topic, .. } if *topic == barrier);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.delivered.lock().unwrap().iter().any(is_barrier) {
            assert!(Instant::now() < deadline, "the barrier does not arrive");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.delivered.lock().unwrap().retain(|event| !is_barrier(event));
    }

    /// Publishes with history.
    pub(crate) async fn keep(&self, topic: &TopicName, data: &str) -> Position {
        let published = self.publish(topic, kept(data)).await;
        assert!(!published.suppressed);
        published.position.unwrap()
    }

    pub(crate) async fn publish(&self, topic: &TopicName, publish: NewPublication) -> Published {
        self.engine.publish(topic, publish).await.unwrap()
    }

    pub(crate) async fn top(&self, topic: &TopicName) -> Position {
        self.engine.recover(topic, None, 0, META_TTL).await.unwrap().top
    }

    pub(crate) async fn recover(&self, topic: &TopicName, offset: u64, epoch: &str) -> Recovery {
        self.engine.recover(topic, Some(Since { offset, epoch }), 100, META_TTL).await.unwrap()
    }

    pub(crate) async fn history(&self, topic: &TopicName, query: HistoryQuery<'_>) -> HistoryPage {
        self.engine.history(topic, query, META_TTL).await.unwrap()
    }

    /// The offsets of all stored publications.
    pub(crate) async fn kept_offsets(&self, topic: &TopicName) -> Vec<u64> {
        offsets(
            &self
                .history(topic, HistoryQuery { limit: 100.into(), ..HistoryQuery::default() })
                .await
                .publications,
        )
    }
}

fn outbox(offline_delay: Duration) -> OutboxOptions {
    OutboxOptions { offline_delay, ..OutboxOptions::default() }
}

/// A thousand bytes.
pub(crate) static LONG: LazyLock<String> = LazyLock::new(|| "x".repeat(1000));

/// Creates the documented user, who has the rights that a node needs and no other.
fn allow_least(server: &RedisServer) {
    let documentation = include_str!("../../../../docs/operations.md");
    let rule = documentation.split("ACL SETUSER ").nth(1).and_then(|rest| rest.split("\n```").next());
    let words = rule.unwrap().split_whitespace().filter(|word| *word != "\\");
    let words: Vec<&str> = words.map(|word| word.trim_matches('\'')).collect();
    redis::cmd("ACL").arg("SETUSER").arg(words).exec(&mut server.client().get_connection().unwrap()).unwrap();
}

/// Settings of a node with that user.
fn least_settings(server: &RedisServer) -> RedisSettings {
    RedisSettings {
        username: Some("fanwire".into()),
        password: Some("PASSWORD".to_owned().into()),
        prefix: "myapp".into(),
        ..server.settings()
    }
}

/// A publication with history.
pub(crate) fn kept(data: &str) -> NewPublication {
    NewPublication { history: Some(HISTORY), ..live(data) }
}

/// A publication without history.
pub(crate) fn live(data: &str) -> NewPublication {
    NewPublication { data: Bytes::copy_from_slice(data.as_bytes()), ..NewPublication::default() }
}

pub(crate) fn client(number: u128) -> ClientId {
    ClientId(Uuid::from_u128(number))
}

pub(crate) fn info(user: &str, number: u128) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        user: user.into(),
        client: client(number),
        connection: Bytes::from_static(b"{\"name\":\"n\"}"),
        subscription: Bytes::new(),
    })
}

/// One member whose leave is not announced.
pub(crate) fn quiet(user: &str, number: u128) -> Vec<Member> {
    vec![Member::new(info(user, number), false)]
}

/// One member whose leave is announced.
pub(crate) fn announced(user: &str, number: u128) -> Vec<Member> {
    vec![Member::new(info(user, number), true)]
}

pub(crate) fn offsets(publications: &[Arc<Publication>]) -> Vec<u64> {
    publications.iter().map(|publication| publication.offset).collect()
}

/// An event in short: a publication's payload, `+user` or `-user`.
pub(crate) fn told(events: &[Event]) -> Vec<String> {
    let tell = |event: &Event| match event {
        Event::Publication { publication, .. } => String::from_utf8(publication.data.to_vec()).unwrap(),
        Event::Join { info, .. } => format!("+{}", info.user),
        Event::Leave { info, .. } => format!("-{}", info.user),
        Event::Gap { .. } => "interrupted".to_owned(),
    };
    events.iter().map(tell).collect()
}
