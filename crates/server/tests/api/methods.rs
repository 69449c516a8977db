//! The effects of methods: publications, presence and commands for clients.

use serde_json::{Value, json};

use crate::calls::{call, client_of, post, start};
use crate::common::eventually;

#[tokio::test]
async fn publications_are_kept_and_read_back() {
    for shards in [1, 3] {
        let gateway = start(shards).await;
        let mut client = gateway.client().await;
        let epoch = client.subscribe("history:a").await["epoch"].clone();
        for number in 1..=3 {
            let publish = json!({"channel": "history:a", "data": {"n": number}, "tags": {"k": "v"}});
            let expected = json!({"offset": number, "epoch": epoch});
            assert_eq!(call(&gateway, "publish", publish).await, expected);
            let (topic, publication) = client.publication().await;
            assert_eq!(topic, "history:a");
            assert_eq!(publication["data"], json!({"n": number}));
            assert_eq!((&publication["offset"], &publication["tags"]), (&json!(number), &json!({"k": "v"})));
        }
        let offsets = async |query: Value| {
            let mut query = query;
            query["channel"] = "history:a".into();
            let history = call(&gateway, "history", query).await;
            assert_eq!((&history["offset"], &history["epoch"]), (&json!(3), &epoch));
            let publications = history["publications"].as_array().unwrap();
            publications.iter().map(|publication| publication["offset"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert!(offsets(json!({})).await.is_empty());
        assert!(offsets(json!({"limit": 0})).await.is_empty());
        assert_eq!(offsets(json!({"limit": 2})).await, [1, 2]);
        assert_eq!(offsets(json!({"limit": -1})).await, [1, 2, 3]);
        assert_eq!(offsets(json!({"limit": 10, "since": {"offset": 1, "epoch": epoch}})).await, [2, 3]);
        assert_eq!(offsets(json!({"limit": 1, "reverse": true})).await, [3]);
        assert_eq!(offsets(json!({"limit": 9, "reverse": true, "since": {"offset": 3}})).await, [2, 1]);
        let exact = post(&gateway, "history", r#"{"channel":"history:a","limit":1}"#).await.body;
        let epoch = epoch.as_str().unwrap();
        assert_eq!(
            exact,
            format!(
                r#"{{"result":{{"publications":[{{"data":{{"n":1}},"offset":1,"tags":{{"k":"v"}}}}],"epoch":"{epoch}","offset":3}}}}"#
            )
        );
        call(&gateway, "history_remove", json!({"channel": "history:a"})).await;
        assert!(offsets(json!({"limit": -1})).await.is_empty());
    }
}

#[tokio::test]
async fn repeats_and_old_versions_are_not_published_again() {
    let gateway = start(2).await;
    let mut client = gateway.client().await;
    client.subscribe("history:a").await;
    let publish = async |data: &str, more: Value| {
        let mut request = more;
        (request["channel"], request["data"]) = ("history:a".into(), data.into());
        call(&gateway, "publish", request).await["offset"].as_u64().unwrap()
    };
    assert_eq!(publish("once", json!({"idempotency_key": "k"})).await, 1);
    assert_eq!(publish("twice", json!({"idempotency_key": "k"})).await, 1);
    assert_eq!(publish("v5", json!({"version": 5})).await, 2);
    assert_eq!(publish("v4", json!({"version": 4})).await, 2);
    assert_eq!(publish("v1 of b", json!({"version": 1, "version_epoch": "b"})).await, 3);
    for expected in ["once", "v5", "v1 of b"] {
        assert_eq!(client.publication().await.1["data"], expected);
    }
}

#[tokio::test]
async fn broadcasts_reach_every_topic() {
    let gateway = start(3).await;
    let mut client = gateway.client().await;
    for topic in ["a", "history:b"] {
        client.subscribe(topic).await;
    }
    let result =
        call(&gateway, "broadcast", json!({"channels": ["a", "history:b", "nowhere:c"], "data": [1]})).await;
    assert_eq!(result["responses"][0], json!({"result": {}}));
    assert_eq!(result["responses"][1]["result"]["offset"], 1);
    assert_eq!(result["responses"][2], json!({"error": {"code": 102, "message": "unknown channel"}}));
    let mut received = [client.publication().await, client.publication().await].map(|(topic, _)| topic);
    received.sort_unstable();
    assert_eq!(received, ["a", "history:b"]);
}

#[tokio::test]
async fn presence_tells_who_is_there() {
    for shards in [1, 3] {
        let gateway = start(shards).await;
        let mut alice = gateway.client_with(&json!({"sub": "alice", "info": {"name": "A"}})).await;
        let mut again = client_of(&gateway, "alice").await;
        for client in [&mut alice, &mut again] {
            client.subscribe("room:a").await;
        }
        let presence = call(&gateway, "presence", json!({"channel": "room:a"})).await;
        let expected = json!({
            alice.id(): {"user": "alice", "client": alice.id(), "conn_info": {"name": "A"}},
            again.id(): {"user": "alice", "client": again.id()},
        });
        assert_eq!(presence, json!({"presence": expected}));
        let stats = call(&gateway, "presence_stats", json!({"channel": "room:a"})).await;
        assert_eq!(stats, json!({"num_clients": 2, "num_users": 1}));
    }
}

#[tokio::test]
async fn clients_are_subscribed_and_unsubscribed() {
    for shards in [1, 3] {
        let gateway = start(shards).await;
        let mut alice = client_of(&gateway, "alice").await;
        let mut bob = client_of(&gateway, "bob").await;
        for number in 1..=3 {
            call(&gateway, "publish", json!({"channel": "history:a", "data": number})).await;
        }
        let epoch = call(&gateway, "history", json!({"channel": "history:a"})).await["epoch"].clone();
        let subscribe = json!({
            "user": "alice", "channel": "history:a", "data": {"hello": 1}, "info": [7],
            "recover_since": {"offset": 1, "epoch": epoch},
        });
        call(&gateway, "subscribe", subscribe.clone()).await;
        let push = alice.push().await;
        assert_eq!(
            (&push["channel"], &push["subscribe"]["data"]),
            (&json!("history:a"), &json!({"hello": 1}))
        );
        assert_eq!(push["subscribe"]["recoverable"], true);
        for number in [2, 3] {
            assert_eq!(alice.publication().await.1["data"], number);
        }
        // It is there already, which is as good.
        call(&gateway, "subscribe", subscribe).await;

        // One client of the user alone, by its id, and not by another user's name.
        let bob_id = bob.id().to_owned();
        call(&gateway, "subscribe", json!({"user": "alice", "client": bob_id, "channel": "a"})).await;
        call(&gateway, "subscribe", json!({"user": "bob", "session": "s", "channel": "a"})).await;
        call(&gateway, "subscribe", json!({"client": bob_id, "channel": "b"})).await;
        assert_eq!(bob.push().await["channel"], "b");
        call(&gateway, "publish", json!({"channel": "b", "data": "only here"})).await;
        assert_eq!(bob.publication().await.0, "b");

        call(&gateway, "unsubscribe", json!({"user": "alice", "channel": "history:a"})).await;
        let push = alice.push().await;
        assert_eq!((&push["channel"], &push["unsubscribe"]["code"]), (&json!("history:a"), &json!(2000)));
    }
}

#[tokio::test]
async fn overrides_and_infos_belong_to_the_subscription() {
    let gateway = start(2).await;
    let client = client_of(&gateway, "alice").await;
    let subscribe = async |topic: &str, more: Value| {
        let mut request = more;
        (request["user"], request["channel"]) = ("alice".into(), topic.into());
        call(&gateway, "subscribe", request).await;
        call(&gateway, "presence", json!({"channel": topic})).await["presence"][client.id()].clone()
    };
    assert_eq!(subscribe("room:a", json!({"info": {"role": 1}})).await["chan_info"], json!({"role": 1}));
    assert_eq!(subscribe("room:b", json!({"b64info": "WzFd"})).await["chan_info"], json!([1]));
    assert_eq!(subscribe("room:c", json!({"override": {"presence": {"value": false}}})).await, Value::Null);
}

#[tokio::test]
async fn clients_are_refreshed_and_disconnected() {
    for shards in [1, 3] {
        let gateway = start(shards).await;
        let mut alice = client_of(&gateway, "alice").await;
        call(&gateway, "refresh", json!({"user": "alice", "expire_at": 4_102_444_800_u64})).await;
        let push = alice.push().await;
        assert_eq!(push["refresh"]["expires"], true);
        call(&gateway, "refresh", json!({"client": alice.id()})).await;
        assert_eq!(alice.push().await, json!({"refresh": {}}));
        call(&gateway, "refresh", json!({"user": "alice", "expired": true})).await;
        assert_eq!(alice.closed().await, (3005, "connection expired".into()));

        let mut plain = client_of(&gateway, "bob").await;
        let mut kept = client_of(&gateway, "bob").await;
        call(&gateway, "disconnect", json!({"user": "bob", "whitelist": [kept.id()]})).await;
        assert_eq!(plain.closed().await, (3503, "force disconnect".into()));
        kept.subscribe("a").await;
        let reason = "ä".repeat(100);
        let with = json!({"code": 4123, "reason": reason});
        call(&gateway, "disconnect", json!({"client": kept.id(), "disconnect": with})).await;
        assert_eq!(kept.closed().await, (4123, "ä".repeat(61)));
    }
}

#[tokio::test]
async fn the_node_tells_of_itself() {
    let gateway = start(3).await;
    let mut clients = Vec::new();
    for user in ["alice", "alice", "bob"] {
        let mut client = client_of(&gateway, user).await;
        client.subscribe("a").await;
        client.subscribe(&format!("of-{user}")).await;
        clients.push(client);
    }
    let channels = call(&gateway, "channels", json!({})).await;
    let expected =
        json!({"a": {"num_clients": 3}, "of-alice": {"num_clients": 2}, "of-bob": {"num_clients": 1}});
    assert_eq!(channels["channels"], expected);
    let counts = json!({"num_clients": 3, "num_users": 2, "num_subs": 6, "num_channels": 3});
    eventually("the node's counts are right", async || {
        let info = call(&gateway, "info", json!({})).await;
        let node = &info["nodes"][0];
        assert_eq!(node["name"], "test");
        assert!(node["uid"].is_string() && node["version"].is_string() && node["uptime"].is_u64(), "{node}");
        counts.as_object().unwrap().iter().all(|(name, count)| node[name] == *count)
    })
    .await;
}
