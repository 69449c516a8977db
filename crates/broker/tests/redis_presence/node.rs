//! A node of these tests: an engine with the joins and leaves that it delivered, which can be paused.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanwire_broker::{
    Engine, Event, Incompatible, LinkState, Member, NewPublication, Peer, Redis, RedisSettings,
};
use fanwire_protocol::{ClientId, ClientInfo, TopicName};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use uuid::Uuid;

use crate::redis_server::{RedisServer, wait_until_up};

pub(crate) const LEASE: Duration = Duration::from_millis(600);

/// The time after the end of a lease within which the members leave.
pub(crate) const REAPING: Duration = Duration::from_secs(1);

/// An engine with the joins and leaves that it delivered.
pub(crate) struct Node {
    pub(crate) redis: Redis,
    pub(crate) engine: Engine,
    pub(crate) delivered: Arc<Mutex<Vec<Event>>>,
}

impl Node {
    pub(crate) fn start(name: &str, settings: RedisSettings) -> Self {
        let delivered = Arc::<Mutex<Vec<Event>>>::default();
        let sink = Arc::clone(&delivered);
        let deliver = Arc::new(move |event| sink.lock().unwrap().push(event));
        let redis = Redis::start(settings, peer(name), deliver).unwrap();
        Self { engine: Engine::Redis(redis.clone()), redis, delivered }
    }

    /// A node that has joined.
    pub(crate) async fn up(name: &str, settings: RedisSettings) -> Self {
        let node = Self::start(name, settings);
        wait_until_up(&node.redis).await;
        node.redis.peers().await.unwrap();
        node
    }

    pub(crate) async fn join(&self, topic: &TopicName, users: &[&str]) {
        for user in users {
            self.engine.add_presence(topic, announced(user)).await.unwrap();
        }
    }

    /// The users present.
    pub(crate) async fn present(&self, topic: &TopicName) -> Vec<String> {
        let present = self.engine.presence(topic, usize::MAX).await.unwrap();
        let mut present: Vec<_> = present.iter().map(|info| info.user.to_string()).collect();
        present.sort();
        present
    }

    pub(crate) async fn wait_for_present(&self, topic: &TopicName, expected: &[&str], within: Duration) {
        let asked = Instant::now();
        loop {
            // Redis may be lost.
            let present = self.engine.presence(topic, usize::MAX).await.ok();
            let users = present.map(|present| {
                let mut users: Vec<_> = present.iter().map(|info| info.user.to_string()).collect();
                users.sort();
                users
            });
            if users.as_deref().is_some_and(|users| users == expected) {
                return;
            }
            assert!(asked.elapsed() < within, "{users:?} instead of {expected:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The users who left, sorted.
    pub(crate) fn left(&self) -> Vec<String> {
        let left = |event: &Event| match event {
            Event::Leave { info, .. } => Some(info.user.to_string()),
            _ => None,
        };
        let mut left: Vec<_> = self.delivered.lock().unwrap().iter().filter_map(left).collect();
        left.sort();
        left
    }

    pub(crate) async fn wait_for_left(&self, expected: &[&str], within: Duration) {
        eventually(
            within,
            || self.left() == expected,
            || format!("{:?} left, not {expected:?}", self.left()),
        )
        .await;
    }

    pub(crate) async fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.redis.peers().await.unwrap().iter().map(|peer| peer.name.to_string()).collect();
        names.sort();
        names
    }

    /// Waits until all earlier publications have arrived.
    pub(crate) async fn settle(&self) {
        let barrier = topic("the last of all events");
        self.engine.subscribe(&barrier).await.unwrap();
        self.engine.publish(&barrier, NewPublication::default()).await.unwrap();
        let is_barrier =
            |event: &Event| matches!(event, Event::Publication { topic, .. } if *topic == barrier);
        let arrived = || self.delivered.lock().unwrap().iter().any(is_barrier);
        eventually(Duration::from_secs(10), arrived, || "the barrier does not arrive".to_owned()).await;
        self.delivered.lock().unwrap().retain(|event| !is_barrier(event));
    }

    pub(crate) async fn wait_until_refused(&self) -> Incompatible {
        let mut state = self.redis.state();
        let refused = state.wait_for(|state| matches!(state, LinkState::Refused(_)));
        let refused = tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap().unwrap().clone();
        let LinkState::Refused(reason) = refused else { unreachable!("awaited above") };
        reason
    }
}

/// A node on its own thread, which can be paused.
pub(crate) struct Pausable {
    pub(crate) node: Node,
    pub(crate) pause: mpsc::UnboundedSender<Duration>,
}

impl Pausable {
    pub(crate) async fn up(name: &'static str, settings: RedisSettings) -> Self {
        let (pause, mut pauses) = mpsc::unbounded_channel::<Duration>();
        let (started, start) = tokio::sync::oneshot::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let node = Node::up(name, settings).await;
                started.send((node.redis, node.delivered)).ok().unwrap();
                // The whole node runs on this thread, so it is paused meanwhile.
                while let Some(pause) = pauses.recv().await {
                    thread::sleep(pause);
                }
            });
        });
        let (redis, delivered) = start.await.unwrap();
        Self { node: Node { engine: Engine::Redis(redis.clone()), redis, delivered }, pause }
    }

    pub(crate) fn pause(&self, pause: Duration) {
        self.pause.send(pause).unwrap();
    }
}

/// Adds clients to each topic at once; returns their users by topic.
pub(crate) async fn join_many(node: &Node, topics: &[TopicName], clients: usize) -> Vec<String> {
    let at_once = LocalSet::new();
    let mut users = Vec::new();
    for topic in topics {
        let in_topic: Vec<_> = (0..clients).map(|number| format!("{topic}/{number}")).collect();
        users.extend(in_topic.iter().cloned());
        let (engine, topic) = (Engine::Redis(node.redis.clone()), topic.clone());
        at_once.spawn_local(async move {
            for user in in_topic {
                engine.add_presence(&topic, announced(&user)).await.unwrap();
            }
        });
    }
    at_once.await;
    users
}

pub(crate) fn settings(server: &RedisServer) -> RedisSettings {
    // Reconnects take much less than a lease.
    let retry_max = Duration::from_millis(200);
    RedisSettings { lease: LEASE, retry_max, ..server.settings() }
}

pub(crate) fn peer(name: &str) -> Peer {
    Peer { id: Uuid::new_v4(), name: name.into() }
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

/// The client of a user with one client.
pub(crate) fn client(user: &str) -> ClientId {
    let mut id = [0; 16];
    id[..user.len()].copy_from_slice(user.as_bytes());
    ClientId(Uuid::from_bytes(id))
}

pub(crate) fn info(user: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        user: user.into(),
        client: client(user),
        connection: Bytes::new(),
        subscription: Bytes::new(),
    })
}

/// One member whose leave is not announced.
pub(crate) fn quiet(user: &str) -> Vec<Member> {
    vec![Member::new(info(user), false)]
}

/// One member whose leave is announced.
pub(crate) fn announced(user: &str) -> Vec<Member> {
    vec![Member::new(info(user), true)]
}

pub(crate) fn keys(server: &RedisServer) -> Vec<String> {
    server.ask("KEYS *")
}

/// Negative for a key that does not expire.
pub(crate) fn ttl(server: &RedisServer, key: &str) -> i64 {
    server.ask(&format!("PTTL {key}"))
}

/// The number of commands that Redis has run, those of scripts included.
pub(crate) fn commands(server: &RedisServer) -> u64 {
    let info: String = server.ask("INFO commandstats");
    let calls =
        info.lines().filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok());
    calls.sum()
}

pub(crate) async fn eventually(within: Duration, holds: impl Fn() -> bool, complaint: impl Fn() -> String) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "{}", complaint());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
