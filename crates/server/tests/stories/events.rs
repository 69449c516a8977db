//! The events of clients, as the application reads them from Redis.

use std::sync::Arc;
use std::time::Duration;

use fanwire_broker::{Engine, Peer, Redis, StoredEvent};
use fanwire_hub::{HistoryBounds, Namespace, Namespaces};
use fanwire_server::Settings;
use fanwire_server::settings::{EngineSettings, EventMask, OutboxOptions};
use serde_json::json;
use uuid::Uuid;

use crate::common::{Client, TestGateway, eventually, open, settings};

const ALL: EventMask = EventMask::from_bits(15);

/// Reads the events of a cluster.
struct Application(Redis);

impl Application {
    fn new(settings: &Settings) -> Self {
        let EngineSettings::Redis(redis) = &settings.engine else { panic!("not on Redis") };
        let node = Peer { id: Uuid::new_v4(), name: "application".into() };
        Self(Redis::start(redis.clone(), node, Arc::new(|_| ())).unwrap())
    }

    async fn events(&self) -> Vec<StoredEvent> {
        let engine = Engine::Redis(self.0.clone());
        let outbox = engine.outbox().unwrap();
        let Ok(slots) = outbox.slots().await else { return Vec::new() };
        outbox.read(&slots, 10_000).await.unwrap_or_default()
    }

    /// Waits until these are the events of the user's connections, or of a topic.
    async fn has(&self, of: &str, expected: &[&str]) {
        let mut seen = Vec::new();
        eventually(&format!("{of} has {expected:?}"), async || {
            seen = told(&self.events().await, of);
            seen == expected
        })
        .await;
    }
}

/// Events in short: of a topic, or of a user beside topics.
fn told(events: &[StoredEvent], of: &str) -> Vec<String> {
    let is_meant = |event: &&StoredEvent| match &event.topic {
        Some(topic) => topic.as_str() == of,
        None => event.user.as_deref() == Some(of),
    };
    let tell = |event: &StoredEvent| {
        let user = event.user.as_ref().filter(|_| event.topic.is_some());
        let user = user.map(|user| format!(" {user}")).unwrap_or_default();
        let reason = event.reason.as_ref().map(|(code, text)| format!(" {code} {text}")).unwrap_or_default();
        format!("{}{user}{reason}", event.kind.as_str())
    };
    events.iter().filter(is_meant).map(tell).collect()
}

/// Settings with all events: of clients, and of namespaces `seen`, which has presence, and `hidden`, which has not.
fn with_events(offline_delay: Duration) -> Settings {
    let mut settings = settings(2);
    let hour = Duration::from_secs(3600);
    let hidden = Namespace {
        name: "hidden".into(),
        events: ALL,
        history: Some(HistoryBounds { size: 1000, ttl: hour, meta_ttl: hour }),
        force_recovery: true,
        ..open()
    };
    let seen = Namespace { name: "seen".into(), events: ALL, presence: true, ..open() };
    settings.namespaces = Namespaces::new(settings.namespaces.rules, open(), [hidden, seen]);
    settings.client.events = ALL;
    if let EngineSettings::Redis(redis) = &mut settings.engine {
        redis.outbox = Some(OutboxOptions { offline_delay, ..OutboxOptions::default() });
    }
    settings
}

#[tokio::test]
async fn coming_and_going_is_told_with_its_reason() {
    let settings = with_events(Duration::ZERO);
    let application = Application::new(&settings);
    let (a, b) = (TestGateway::start(settings.clone()).await, TestGateway::start(settings).await);
    let mut ann = a.client_with(&json!({"sub": "ann"})).await;
    ann.subscribe("seen:t").await;
    ann.unsubscribe("seen:t").await;
    ann.subscribe("seen:t").await;
    let mut bob = b.client_with(&json!({"sub": "bob"})).await;
    bob.subscribe("seen:t").await;
    let second = b.client_with(&json!({"sub": "ann"})).await;
    let ids = [ann.id().to_owned(), second.id().to_owned()];
    drop(second);
    let twice = ["user_online", "connected", "connected", "disconnected 3000 connection closed"];
    application.has("ann", &twice).await;
    drop(ann);
    let all = [&twice[..], &["disconnected 3000 connection closed", "user_offline"]].concat();
    application.has("ann", &all).await;

    let mut backend = a.backend().await;
    // Done all the same: the application counts as a node, and answers no other.
    let unsubscribe = json!({"user": "bob", "channel": "seen:t"});
    assert_eq!(backend.error("unsubscribe", unsubscribe).await, 100);
    let disconnect = json!({"user": "bob", "disconnect": {"code": 4001, "reason": "bye"}});
    assert_eq!(backend.error("disconnect", disconnect).await, 100);
    assert_eq!(bob.closed().await.0, 4001);
    let expected = [
        "topic_occupied",
        "subscribed ann",
        "unsubscribed ann 0 client unsubscribed",
        "topic_vacated",
        "topic_occupied",
        "subscribed ann",
        "subscribed bob",
        "unsubscribed ann 3000 connection closed",
        "unsubscribed bob 2000 server unsubscribe",
        "topic_vacated",
    ];
    application.has("seen:t", &expected).await;
    application.has("bob", &["user_online", "connected", "disconnected 4001 bye", "user_offline"]).await;
    drop(a.client().await);
    application.has("", &["connected", "disconnected 3000 connection closed"]).await;

    let events = application.events().await;
    let clients: Vec<_> = events
        .iter()
        .filter(|event| event.kind.as_str() == "connected" && event.user.as_deref() == Some("ann"))
        .map(|event| event.client.unwrap().to_string())
        .collect();
    assert_eq!(clients, ids, "the clients' own ids");
    // What the events were kept for is gone.
    assert_eq!(bob_is_present(&b, "seen:t").await, 0);
}

async fn bob_is_present(node: &TestGateway, topic: &str) -> u64 {
    node.client_with(&json!({"sub": "bob"})).await.present(topic).await
}

#[tokio::test]
async fn members_that_are_kept_for_events_alone_are_shown_to_nobody() {
    let settings = with_events(Duration::ZERO);
    let application = Application::new(&settings);
    let node = TestGateway::start(settings).await;
    let mut ann = node.client_with(&json!({"sub": "ann"})).await;
    ann.subscribe("hidden:t").await;
    application.has("hidden:t", &["topic_occupied", "subscribed ann"]).await;
    for method in ["presence", "presence_stats"] {
        let error = ann.request(method, json!({"channel": "hidden:t"})).await.unwrap_err();
        assert_eq!(error["code"], 108);
    }
    let mut bob = node.client_with(&json!({"sub": "bob"})).await;
    bob.subscribe("hidden:t").await;
    bob.unsubscribe("hidden:t").await;
    ann.nothing_more().await;
}

/// A recovery that takes more than it may at first is asked for again, which is no event.
#[tokio::test]
async fn who_recovers_much_subscribes_once() {
    let settings = with_events(Duration::ZERO);
    let application = Application::new(&settings);
    let node = TestGateway::start(settings).await;
    let mut ann = node.client_with(&json!({"sub": "ann"})).await;
    let at = ann.subscribe("hidden:t").await;
    ann.unsubscribe("hidden:t").await;
    for _ in 0..20 {
        ann.publish("hidden:t", json!("x".repeat(10_000))).await;
    }
    let recover = json!({
        "channel": "hidden:t", "recover": true, "offset": at["offset"], "epoch": at["epoch"],
    });
    let again = ann.request("subscribe", recover).await.unwrap();
    assert_eq!(again["publications"].as_array().unwrap().len(), 20);
    ann.unsubscribe("hidden:t").await;
    let once =
        ["topic_occupied", "subscribed ann", "unsubscribed ann 0 client unsubscribed", "topic_vacated"];
    application.has("hidden:t", &[once, once].concat()).await;
}

#[tokio::test]
async fn who_is_soon_back_on_another_node_was_online_all_the_time() {
    const DELAY: Duration = Duration::from_secs(2);
    let settings = with_events(DELAY);
    let application = Application::new(&settings);
    let (a, b) = (TestGateway::start(settings.clone()).await, TestGateway::start(settings).await);
    let ann = a.client_with(&json!({"sub": "ann"})).await;
    drop(ann);
    let mut ann = a.client_with(&json!({"sub": "ann"})).await;
    ann.subscribe("seen:t").await;
    // A drain: its clients come back elsewhere.
    let ((code, _), ()) = tokio::join!(closed(ann), a.shutdown());
    assert_eq!(code, 3001);
    let mut ann = b.client_with(&json!({"sub": "ann"})).await;
    ann.subscribe("seen:t").await;
    let online = [
        "user_online",
        "connected",
        "disconnected 3000 connection closed",
        "connected",
        "disconnected 3001 shutdown",
        "connected",
    ];
    application.has("ann", &online).await;
    tokio::time::sleep(DELAY + Duration::from_secs(1)).await;
    application.has("ann", &online).await;
    drop(ann);
    let offline = [&online[..], &["disconnected 3000 connection closed", "user_offline"]].concat();
    application.has("ann", &offline).await;
    let expected = [
        "topic_occupied",
        "subscribed ann",
        "unsubscribed ann 3001 shutdown",
        "subscribed ann",
        "unsubscribed ann 3000 connection closed",
        "topic_vacated",
    ];
    application.has("seen:t", &expected).await;
}

async fn closed(mut client: Client) -> (u16, String) {
    client.closed().await
}
