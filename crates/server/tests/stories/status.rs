//! The status of users: watched by clients, asked for by backends, kept up by heartbeats.

use std::time::Duration;

use fanwire_hub::{Namespace, Namespaces};
use fanwire_server::Settings;
use fanwire_server::settings::{
    EngineSettings, MemoryStatusBounds, OutboxOptions, StatusOptions, StatusSettings,
};
use serde_json::{Value, json};

use crate::common::{Client, RawSocket, TestGateway, eventually, open, settings, token};

const BEAT: Duration = Duration::from_secs(4);

/// Settings with the status of users in the namespace `online`, which is told at once.
pub(crate) fn with_status(shards: usize) -> Settings {
    let mut settings = settings(shards);
    let online = Namespace { name: "online".into(), status: true, ..open() };
    settings.namespaces = Namespaces::new(settings.namespaces.rules, open(), [online]);
    settings.status = Some(StatusSettings {
        options: StatusOptions {
            prefix: "online:".into(),
            heartbeat_ttl: BEAT,
            last_seen_ttl: Duration::from_secs(3600),
        },
        heartbeat_path: Some("/heartbeat".into()),
        in_memory: MemoryStatusBounds { offline_delay: Duration::ZERO, bytes_max: 1 << 20 },
    });
    if let EngineSettings::Redis(redis) = &mut settings.engine {
        redis.outbox = Some(OutboxOptions { offline_delay: Duration::ZERO, ..OutboxOptions::default() });
    }
    settings
}

/// Nodes of one cluster.
async fn nodes(count: usize) -> Vec<TestGateway> {
    let settings = with_status(2);
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(TestGateway::start(settings.clone()).await);
    }
    nodes
}

pub(crate) async fn tab(node: &TestGateway, user: &str) -> Client {
    node.client_with(&json!({"sub": user})).await
}

/// The status that a client is told next: of whom, and whether it is online.
pub(crate) async fn told(watcher: &mut Client) -> (String, bool) {
    let (topic, publication) = watcher.publication().await;
    let data = &publication["data"];
    assert_eq!(topic, format!("online:{}", data["user"].as_str().unwrap()));
    assert!(data["last_seen"].as_i64().unwrap() > 1_700_000_000_000, "{data}");
    (data["user"].as_str().unwrap().to_owned(), data["online"].as_bool().unwrap())
}

async fn status_of(node: &TestGateway, users: &[&str]) -> Value {
    node.backend().await.call("user_status", json!({"users": users})).await["users"].take()
}

/// Waits until a user has so many connections.
pub(crate) async fn has(node: &TestGateway, user: &str, connections: usize) {
    eventually(&format!("{user} has {connections}"), async || {
        status_of(node, &[user]).await[user]["connections"] == connections
    })
    .await;
}

#[tokio::test]
async fn a_friend_is_offline_once_its_last_tab_is_closed() {
    let counts: &[usize] = if crate::ON_REDIS { &[1, 3] } else { &[1] };
    for &count in counts {
        let nodes = nodes(count).await;
        let mut bob = tab(&nodes[0], "bob").await;
        let subscribed = bob.subscribe("online:ann").await;
        assert_eq!(subscribed["data"], json!({"user": "ann", "online": false}));
        assert_eq!(subscribed["publications"][0]["data"], subscribed["data"]);
        assert_eq!((subscribed.get("recovered"), subscribed.get("offset")), (None, None));
        let first = tab(&nodes[count - 1], "ann").await;
        assert_eq!(told(&mut bob).await, ("ann".into(), true));
        let second = tab(&nodes[count / 2], "ann").await;
        has(&nodes[0], "ann", 2).await;
        // Who comes later is told the present status.
        let mut eve = tab(&nodes[0], "eve").await;
        assert_eq!(eve.subscribe("online:ann").await["data"]["online"], true);
        let mut eve = tab(&nodes[count - 1], "eve").await;
        assert_eq!(eve.subscribe("online:ann").await["data"]["online"], true);
        drop(first);
        has(&nodes[0], "ann", 1).await;
        bob.nothing_more().await;
        drop(second);
        for watcher in [&mut bob, &mut eve] {
            assert_eq!(told(watcher).await, ("ann".into(), false));
        }
        has(&nodes[0], "ann", 0).await;
        let again = tab(&nodes[0], "ann").await;
        assert_eq!(told(&mut bob).await, ("ann".into(), true));
        drop(again);
        assert_eq!(told(&mut bob).await, ("ann".into(), false));
        let known = bob.request("unsubscribe", json!({"channel": "online:ann"})).await;
        assert!(known.is_ok());
        let offline = bob.subscribe("online:ann").await;
        let status = &status_of(&nodes[count - 1], &["ann", "nobody"]).await;
        assert_eq!(offline["data"]["last_seen"], status["ann"]["last_seen"]);
        assert_eq!(status["nobody"], json!({"online": false, "connections": 0}));
    }
}

#[tokio::test]
async fn nobody_publishes_a_status() {
    let nodes = nodes(1).await;
    let mut ann = tab(&nodes[0], "ann").await;
    ann.subscribe("online:bob").await;
    let publish = json!({"channel": "online:bob", "data": {"user": "bob", "online": true}});
    assert_eq!(ann.request("publish", publish.clone()).await.unwrap_err()["code"], 108);
    let mut backend = nodes[0].backend().await;
    assert_eq!(backend.error("publish", publish).await, 108);
    let post = "POST /publish?topic=online:bob HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n1";
    let response = RawSocket::ask(nodes[0].address, post).await;
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.body.contains("108"), "{response:?}");
    assert_eq!(ann.request("subscribe", json!({"channel": "online:"})).await.unwrap_err()["code"], 107);
    ann.nothing_more().await;
}

pub(crate) fn heartbeat(method: &str, query: &str, headers: &str) -> String {
    format!("{method} /heartbeat{query} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_heartbeat_stands_for_a_connection() {
    let nodes = nodes(if crate::ON_REDIS { 2 } else { 1 }).await;
    let other = &nodes[nodes.len() - 1];
    let mut bob = tab(other, "bob").await;
    bob.subscribe("online:ann").await;
    let ann = token(&json!({"sub": "ann"}));
    let bearer = format!("Authorization: Bearer {ann}\r\n");
    for (query, headers) in [(String::new(), &*bearer), (format!("?token={ann}"), "")] {
        let response = RawSocket::ask(nodes[0].address, &heartbeat("POST", &query, headers)).await;
        assert_eq!((response.status, &*response.body), (204, ""), "{response:?}");
    }
    assert_eq!(told(&mut bob).await, ("ann".into(), true));
    let status = status_of(other, &["ann"]).await;
    assert_eq!((&status["ann"]["online"], &status["ann"]["connections"]), (&json!(true), &json!(0)));
    // A tab that is closed meanwhile does not end it.
    drop(tab(&nodes[0], "ann").await);
    has(&nodes[0], "ann", 0).await;
    assert_eq!(status_of(other, &["ann"]).await["ann"]["online"], true);
    assert_eq!(told(&mut bob).await, ("ann".into(), false));
    bob.nothing_more().await;

    let expired = format!("?token={}", token(&json!({"sub": "ann", "exp": 1})));
    let anonymous = format!("?token={}", token(&json!({})));
    for (method, query, status) in [
        ("POST", "", 401),
        ("POST", "?token=x", 401),
        ("POST", &*expired, 401),
        ("POST", &*anonymous, 401),
        ("GET", "", 405),
    ] {
        let response = RawSocket::ask(nodes[0].address, &heartbeat(method, query, "")).await;
        assert_eq!(response.status, status, "{method} {query}: {response:?}");
    }
}

#[tokio::test]
async fn backends_ask_for_up_to_a_thousand_users() {
    let nodes = nodes(1).await;
    let ann = tab(&nodes[0], "ann").await;
    has(&nodes[0], "ann", 1).await;
    let mut backend = nodes[0].backend().await;
    let mut users: Vec<String> = (1..1000).map(|number| number.to_string()).collect();
    users.push("ann".to_owned());
    let answer = backend.call("user_status", json!({"users": users})).await;
    let answer = answer["users"].as_object().unwrap();
    assert_eq!(answer.len(), 1000);
    assert_eq!(answer.values().filter(|status| status["online"] == true).count(), 1);
    assert_eq!(answer["ann"]["connections"], 1);
    users.push("1000".to_owned());
    for users in [json!(users), json!([]), json!(["a", ""]), Value::Null] {
        assert_eq!(backend.error("user_status", json!({"users": users})).await, 107);
    }
    drop(ann);
    let node = TestGateway::start(crate::common::settings(1)).await;
    assert_eq!(node.backend().await.error("user_status", json!({"users": ["a"]})).await, 108);
    let response = RawSocket::ask(node.address, &heartbeat("POST", "", "")).await;
    assert_eq!(response.status, 404, "{response:?}");
}
