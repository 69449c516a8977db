//! Connections that are open but deliver nothing: each is detected in time, and all channels are joined again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fanwire_broker::{Engine, Event, LinkError, LinkState, Redis, RedisSettings};
use fanwire_protocol::TopicName;

use crate::proxy::{Direction, Proxy};
use crate::redis_server::{RedisServer, wait_until_up};
use crate::start;
use crate::traffic::eventually;

const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
const TOPICS: usize = 20;

/// A node that reaches its server through a proxy, and has joined some topics.
struct Proxied {
    _server: RedisServer,
    proxy: Proxy,
    redis: Redis,
    engine: Engine,
    topics: Vec<TopicName>,
    arrived: Arc<AtomicUsize>,
    interrupted: Arc<AtomicUsize>,
}

impl Proxied {
    async fn start() -> Self {
        let server = RedisServer::start(&[]);
        let proxy = Proxy::start(server.port);
        let settings = RedisSettings {
            port: proxy.port,
            answer_timeout: ANSWER_TIMEOUT,
            probe_interval: PROBE_INTERVAL,
            ..RedisSettings::default()
        };
        let (arrived, interrupted) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counts = (Arc::clone(&arrived), Arc::clone(&interrupted));
        let redis = start(&settings, move |event| {
            let count = if matches!(event, Event::Gap { .. }) { &counts.1 } else { &counts.0 };
            count.fetch_add(1, Ordering::Relaxed);
        });
        wait_until_up(&redis).await;
        let engine = Engine::Redis(redis.clone());
        let topics: Vec<_> = (0..TOPICS).map(|number| TopicName::new(&number.to_string()).unwrap()).collect();
        for topic in &topics {
            engine.subscribe(topic).await.unwrap();
        }
        Self { _server: server, proxy, redis, engine, topics, arrived, interrupted }
    }

    /// Publishes into each topic, and waits until all publications have arrived.
    async fn check_topics(&self) {
        let before = self.arrived.load(Ordering::Relaxed);
        for topic in &self.topics {
            self.engine.publish(topic, Default::default()).await.unwrap();
        }
        let arrived = || self.arrived.load(Ordering::Relaxed) - before;
        eventually(|| arrived() == TOPICS, || format!("{} arrived", arrived())).await;
    }

    /// Waits until a connection is missing, within the allowed time.
    async fn wait_until_found(&self) -> LinkError {
        let since = Instant::now();
        let mut state = self.redis.state();
        let found = state.wait_for(|state| *state != LinkState::Up);
        let found = tokio::time::timeout(Duration::from_secs(10), found).await.unwrap().unwrap().clone();
        let took = since.elapsed();
        // Some time for a slow machine.
        let bound = ANSWER_TIMEOUT + 2 * PROBE_INTERVAL + Duration::from_millis(200);
        assert!(took <= bound, "{took:?}");
        match found {
            LinkState::Partial(error) => error,
            found => panic!("{found:?}"),
        }
    }
}

#[tokio::test]
async fn a_command_connection_that_is_half_open_is_replaced() {
    let node = Proxied::start().await;
    for direction in [Direction::ToServer, Direction::ToClient] {
        for _ in 0..2 {
            let (commands, _) = node.proxy.open_links();
            assert_eq!(commands.len(), 3);
            commands[0].stall(direction);
            assert_eq!(node.wait_until_found().await, LinkError::Silent, "{direction:?}");
            wait_until_up(&node.redis).await;
            node.check_topics().await;
        }
    }
    assert_eq!(node.redis.stats().reconnects, 4);
}

#[tokio::test]
async fn a_subscription_connection_that_is_half_open_is_replaced() {
    let node = Proxied::start().await;
    for (round, direction) in [Direction::ToServer, Direction::ToClient].into_iter().enumerate() {
        let (_, subscriptions) = node.proxy.open_links();
        assert_eq!(subscriptions.len(), 1);
        subscriptions[0].stall(direction);
        let error = node.wait_until_found().await;
        assert!(matches!(error, LinkError::Silent | LinkError::Deaf), "{direction:?}: {error:?}");
        wait_until_up(&node.redis).await;
        let told = || node.interrupted.load(Ordering::Relaxed);
        eventually(|| told() == (round + 1) * TOPICS, || format!("{} were told", told())).await;
        node.check_topics().await;
    }
}

/// It answers every command but delivers no messages.
#[tokio::test]
async fn a_subscription_connection_that_is_deaf_is_replaced() {
    let node = Proxied::start().await;
    node.proxy.set_mute(true);
    assert_eq!(node.wait_until_found().await, LinkError::Deaf);
    let stats = node.redis.stats();
    assert_eq!(stats.probes_missed, 2);
    assert_eq!(stats.links.iter().filter(|link| link.is_up).count(), 3);

    // A new connection that is deaf too does not count as open.
    let mut state = node.redis.state();
    let up = state.wait_for(|state| *state == LinkState::Up);
    assert!(tokio::time::timeout(4 * PROBE_INTERVAL, up).await.is_err());
    node.proxy.set_mute(false);
    wait_until_up(&node.redis).await;
    // The connection counts as open with its first probe, a moment before all topics may be joined again.
    for topic in &node.topics {
        node.engine.subscribe(topic).await.unwrap();
    }
    node.check_topics().await;
    assert!(node.redis.stats().round_trip.unwrap() < Duration::from_secs(1));
}
