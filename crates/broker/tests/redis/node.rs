//! A node of these tests: an engine with the events that it delivered.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanwire_broker::{
    Engine, EngineError, Event, HistoryOptions, LinkError, LinkState, Member, NewPublication, Peer,
    PresenceStats, Published, Redis, RedisSettings,
};
use fanwire_protocol::{ClientId, ClientInfo, Position, TopicName};
use uuid::Uuid;

use crate::redis_server::{RedisServer, wait_until_up};

pub(crate) const META_TTL: Duration = Duration::from_secs(60);

pub(crate) const HISTORY: HistoryOptions =
    HistoryOptions { size: 1000, ttl: Duration::from_secs(30), meta_ttl: META_TTL };

/// An engine and its delivered events.
pub(crate) struct Node {
    pub(crate) redis: Redis,
    pub(crate) engine: Engine,
    pub(crate) delivered: Arc<Mutex<Vec<Event>>>,
}

impl Node {
    pub(crate) fn start(settings: RedisSettings) -> Self {
        let delivered = Arc::<Mutex<Vec<Event>>>::default();
        let sink = Arc::clone(&delivered);
        let node = Peer { id: Uuid::new_v4(), name: "test".into() };
        let redis =
            Redis::start(settings, node, Arc::new(move |event| sink.lock().unwrap().push(event))).unwrap();
        Self { engine: Engine::Redis(redis.clone()), redis, delivered }
    }

    pub(crate) async fn up(settings: RedisSettings) -> Self {
        let node = Self::start(settings);
        wait_until_up(&node.redis).await;
        node
    }

    pub(crate) async fn keep(&self, topic: &TopicName, data: &str) -> Result<Position, EngineError> {
        self.engine.publish(topic, kept(data)).await.map(|published| published.position.unwrap())
    }

    pub(crate) async fn keep_group(&self, topic: &TopicName, data: &[&str]) -> Vec<Position> {
        let results = self.engine.publish_group(topic, data.iter().map(|data| kept(data)).collect()).await;
        results.into_iter().map(|result| result.unwrap().position.unwrap()).collect()
    }

    pub(crate) async fn send(&self, topic: &TopicName, data: &str) -> Result<Published, EngineError> {
        self.engine.publish(topic, live(data)).await
    }

    /// The delivered events, in short.
    pub(crate) fn told(&self) -> Vec<String> {
        let tell = |event: &Event| match event {
            Event::Publication { publication, .. } => String::from_utf8(publication.data.to_vec()).unwrap(),
            Event::Join { info, .. } => format!("+{}", info.user),
            Event::Leave { info, .. } => format!("-{}", info.user),
            Event::Gap { topic } => format!("interrupted {topic}"),
        };
        self.delivered.lock().unwrap().iter().map(tell).collect()
    }

    pub(crate) async fn wait_for_told(&self, expected: &[&str]) {
        eventually(|| self.told() == expected, || format!("{:?} instead of {expected:?}", self.told())).await;
    }

    pub(crate) async fn wait_until_down(&self) -> LinkError {
        let mut state = self.redis.state();
        let down =
            state.wait_for(|state| matches!(state, LinkState::Down(error) if *error != LinkError::NotYet));
        let down = tokio::time::timeout(Duration::from_secs(20), down).await.unwrap().unwrap().clone();
        let LinkState::Down(error) = down else { unreachable!("awaited above") };
        error
    }

    pub(crate) async fn check_present(&self, topic: &TopicName, numbers: &[u128], users: usize) {
        let mut present = self.engine.presence(topic, usize::MAX).await.unwrap();
        present.sort_by_key(|info| info.client);
        let present: Vec<_> = present.iter().map(|info| info.client).collect();
        assert_eq!(present, numbers.iter().copied().map(client).collect::<Vec<_>>());
        let stats = self.engine.presence_stats(topic).await.unwrap();
        assert_eq!(stats, PresenceStats { clients: numbers.len(), users });
    }
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

pub(crate) fn kept(data: &str) -> NewPublication {
    NewPublication { history: Some(HISTORY), ..live(data) }
}

pub(crate) fn live(data: &str) -> NewPublication {
    NewPublication { data: Bytes::copy_from_slice(data.as_bytes()), ..NewPublication::default() }
}

pub(crate) fn client(number: u128) -> ClientId {
    ClientId(Uuid::from_u128(number))
}

/// One member whose leave is not announced.
pub(crate) fn quiet(user: &str, number: u128) -> Vec<Member> {
    let info = ClientInfo {
        user: user.into(),
        client: client(number),
        connection: Bytes::new(),
        subscription: Bytes::new(),
    };
    vec![Member::new(Arc::new(info), false)]
}

/// The joined channels, without those of probes.
pub(crate) fn channels(server: &RedisServer) -> Vec<String> {
    let mut channels: Vec<String> = server.ask("PUBSUB CHANNELS");
    channels.retain(|channel| !channel.contains("{!"));
    channels
}

/// The number of connections that the server has accepted.
pub(crate) fn connections(server: &RedisServer) -> u64 {
    let info: String = server.ask("INFO stats");
    let count = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    count.unwrap().trim().parse().unwrap()
}

pub(crate) async fn wait_for_present(node: &Node, topic: &TopicName, clients: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.engine.presence(topic, usize::MAX).await.unwrap().len() != clients {
        assert!(Instant::now() < deadline, "{:?}", node.engine.presence(topic, usize::MAX).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn eventually(holds: impl Fn() -> bool, complaint: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{}", complaint());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
