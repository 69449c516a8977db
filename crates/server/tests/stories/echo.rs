//! Publications that do not reach the client that published them, or one that the API excludes.

use fanwire_hub::{NameRules, Namespaces};
use fanwire_server::Settings;
use fanwire_server::settings::EngineSettings;
use serde_json::{Value, json};

use crate::common::{Client, OwnRedis, RawSocket, TestGateway, eventually, settings};

/// Clients do not get their own publications in `quiet`, which has history and presence.
pub(crate) fn without_echo(settings: &mut Settings) {
    let named = settings.namespaces.named().cloned().collect::<Vec<_>>();
    let mut quiet = named.iter().find(|namespace| namespace.name == "history").unwrap().clone();
    quiet.name = "quiet".into();
    quiet.presence = true;
    quiet.no_echo = true;
    let default = settings.namespaces.default.clone();
    settings.namespaces = Namespaces::new(NameRules::default(), default, named.into_iter().chain([quiet]));
}

fn quiet(shards: usize) -> Settings {
    let mut settings = settings(shards);
    without_echo(&mut settings);
    settings
}

/// Two tabs of one user, both subscribed.
async fn tabs(gateway: &TestGateway, topic: &str) -> [Client; 2] {
    let mut tabs = [
        gateway.client_with(&json!({"sub": "ann"})).await,
        gateway.client_with(&json!({"sub": "ann"})).await,
    ];
    for tab in &mut tabs {
        tab.subscribe(topic).await;
    }
    tabs
}

async fn data(client: &mut Client) -> Value {
    client.publication().await.1["data"].take()
}

fn all_data(publications: &Value) -> Vec<Value> {
    publications.as_array().unwrap().iter().map(|publication| publication["data"].clone()).collect()
}

#[tokio::test]
async fn the_other_tab_gets_it_and_the_publisher_s_own_does_not() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(quiet(shards)).await;
        let [mut here, mut there] = tabs(&gateway, "quiet:a").await;
        let delivered = gateway.metric("fanwire_messages_delivered_total").await;
        here.publish("quiet:a", json!("mine")).await;
        there.publish("quiet:a", json!("yours")).await;
        assert_eq!(data(&mut here).await, "yours");
        assert_eq!(data(&mut there).await, "mine");
        here.nothing_more().await;
        there.nothing_more().await;
        let count = async || gateway.metric("fanwire_messages_delivered_total").await - delivered;
        eventually("two were delivered", async || count().await == 2.0).await;

        // Where the namespace has no such option, a publisher hears itself.
        let [mut here, mut there] = tabs(&gateway, "history:a").await;
        here.publish("history:a", json!("mine")).await;
        assert_eq!((data(&mut here).await, data(&mut there).await), (json!("mine"), json!("mine")));
    }
}

#[tokio::test]
async fn the_api_excludes_one_client() {
    let gateway = TestGateway::start(quiet(3)).await;
    let mut backend = gateway.backend().await;
    for topic in ["plain", "history:a", "quiet:a"] {
        let [mut here, mut there] = tabs(&gateway, topic).await;
        let mut publish = async |data, exclude: &str| {
            backend.call("publish", json!({"channel": topic, "data": data, "exclude": exclude})).await;
        };
        publish(1, here.id()).await;
        publish(2, "").await;
        publish(3, there.id()).await;
        // Nobody's id leaves nobody out.
        publish(4, "00000000-0000-4000-8000-000000000001").await;
        for (client, expected) in [(&mut here, [2, 3, 4]), (&mut there, [1, 2, 4])] {
            for expected in expected {
                assert_eq!(data(client).await, expected);
            }
            client.nothing_more().await;
        }
        let to_all = json!({"channels": [topic], "data": 5, "exclude": there.id()});
        backend.call("broadcast", to_all).await;
        assert_eq!(data(&mut here).await, 5);
        there.nothing_more().await;
    }
    assert_eq!(backend.error("publish", json!({"channel": "a", "data": 1, "exclude": "ann"})).await, 107);
}

#[tokio::test]
async fn recovery_leaves_it_out_for_that_connection_and_no_other() {
    let gateway = TestGateway::start(quiet(2)).await;
    let [mut here, mut there] = tabs(&gateway, "quiet:a").await;
    here.publish("quiet:a", json!("mine")).await;
    there.publish("quiet:a", json!("yours")).await;
    here.publish("quiet:a", json!("mine too")).await;
    here.unsubscribe("quiet:a").await;
    let from_start = json!({"channel": "quiet:a", "recover": true, "offset": 0});
    let recovered = here.request("subscribe", from_start.clone()).await.unwrap();
    assert_eq!(recovered["recovered"], true);
    assert_eq!(all_data(&recovered["publications"]), ["yours"]);

    let all = ["mine", "yours", "mine too"];
    let mut later = gateway.client_with(&json!({"sub": "ann"})).await;
    let recovered = later.request("subscribe", from_start).await.unwrap();
    assert_eq!(all_data(&recovered["publications"]), all);
    // A page of history is what the topic keeps, whoever asks.
    let page = here.request("history", json!({"channel": "quiet:a", "limit": 10})).await.unwrap();
    assert_eq!(all_data(&page["publications"]), all);
}

/// Everybody publishes at once, so that publications of many are delivered together.
#[tokio::test]
async fn everybody_gets_what_the_others_publish_in_one_order() {
    const CLIENTS: usize = 6;
    const EACH: usize = 150;
    let gateway = TestGateway::start(quiet(2)).await;
    let mut watcher = gateway.client().await;
    watcher.subscribe("quiet:a").await;
    let mut subscribers = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = gateway.client().await;
        client.subscribe("quiet:a").await;
        subscribers.push(client);
    }
    let mut clients = Vec::new();
    for (number, mut client) in subscribers.into_iter().enumerate() {
        clients.push(tokio::spawn(async move {
            let publish = |count| ("publish", json!({"channel": "quiet:a", "data": [number, count]}));
            for id in client.commands((0..EACH).map(publish)).await {
                client.reply(id).await.unwrap();
            }
            let mut heard = Vec::new();
            for _ in 0..(CLIENTS - 1) * EACH {
                heard.push(client.publication().await.1);
            }
            client.nothing_more().await;
            heard
        }));
    }
    let mut all = Vec::new();
    for _ in 0..CLIENTS * EACH {
        all.push(watcher.publication().await.1);
    }
    for (number, client) in clients.into_iter().enumerate() {
        let others = all.iter().filter(|publication| publication["data"][0] != number);
        assert!(client.await.unwrap().iter().eq(others), "client {number}");
    }
}

/// A listener to several topics gets each publication with a cursor of its own.
#[tokio::test]
async fn a_listener_to_several_topics_goes_on_behind_it() {
    let gateway = TestGateway::start(quiet(2)).await;
    let mut backend = gateway.backend().await;
    let mut listener = RawSocket::open(gateway.address).await;
    let query = "topic=quiet:a&topic=history:b&as=ndjson";
    listener.send(format!("GET /subscribe?{query} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    listener.until("\"subscribed\"").await;
    listener.until("\n").await;
    let present = backend.call("presence", json!({"channel": "quiet:a"})).await;
    let listening = present["presence"].as_object().unwrap().keys().next().unwrap().clone();

    let said = [("quiet:a", 1, true), ("quiet:a", 2, false), ("history:b", 3, true), ("history:b", 4, false)];
    for (topic, data, is_excluded) in said {
        let exclude = if is_excluded { &*listening } else { "" };
        backend.call("publish", json!({"channel": topic, "data": data, "exclude": exclude})).await;
    }
    let mut cursor = String::new();
    for expected in [2, 4] {
        let line: Value = serde_json::from_str(&listener.until("\n").await).unwrap();
        assert_eq!(line["data"], expected, "{line}");
        cursor = line["cursor"].as_str().unwrap().to_owned();
    }
    backend.call("publish", json!({"channel": "quiet:a", "data": 5, "exclude": listening})).await;
    // Whoever comes back by the cursor is another client.
    let mut back = RawSocket::open(gateway.address).await;
    back.send(format!("GET /subscribe?{query}&cursor={cursor} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    back.until("\"subscribed\"").await;
    back.until("\n").await;
    let line: Value = serde_json::from_str(&back.until("\n").await).unwrap();
    assert_eq!(line["data"], 5, "{line}");
}

#[tokio::test]
async fn it_stays_left_out_where_a_gap_is_repaired() {
    if !crate::ON_REDIS {
        return;
    }
    let mut redis = OwnRedis::start();
    let mut settings = quiet(2);
    settings.engine = EngineSettings::Redis(redis.settings.clone());
    let gateway = TestGateway::start(settings).await;
    let [mut here, mut there] = tabs(&gateway, "quiet:a").await;
    redis.silence();
    here.publish("quiet:a", json!("mine")).await;
    there.publish("quiet:a", json!("yours")).await;
    redis.speak();
    assert_eq!(data(&mut here).await, "yours");
    assert_eq!(data(&mut there).await, "mine");
    here.nothing_more().await;
    there.nothing_more().await;
}
