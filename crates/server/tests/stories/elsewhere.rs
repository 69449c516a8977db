//! A client's commands reach its session from any node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fanwire_server::settings::EngineSettings;
use serde_json::json;

use crate::cluster::cluster;
use crate::common::{Emulated, OwnRedis, RawSocket, TestGateway, emulate, eventually, post, settings};
use crate::emulation::{flipped, publish_in_disorder};

#[tokio::test]
async fn commands_keep_their_order_over_all_nodes() {
    let nodes = cluster(|_| ()).await;
    let mut client = Emulated::connect(nodes[0].address).await;
    let others: Vec<SocketAddr> = nodes[1..].iter().map(|node| node.address).collect();
    publish_in_disorder(&mut client, &others).await;
    let all: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    publish_in_disorder(&mut Emulated::connect(nodes[1].address).await, &all).await;
    let taken = nodes[0].metric_of("fanwire_session_calls_total", "from=\"node\",result=\"taken\"").await;
    assert_eq!(taken, 200.0);
}

#[tokio::test]
async fn a_key_is_checked_by_any_node() {
    let nodes = cluster(|_| ()).await;
    let mut client = Emulated::connect(nodes[0].address).await;
    let (session, node) = (client.session().to_owned(), client.node().to_owned());
    let body = |session: &str| json!({"session": session, "node": node, "data": "{}"}).to_string();
    for byte in [16, 18, 22, 26, 42, 59] {
        assert_eq!(
            emulate(nodes[1].address, &body(&flipped(&session, byte))).await.status,
            404,
            "byte {byte}"
        );
    }
    // The node of the session has not heard of them.
    assert_eq!(nodes[0].metric_of("fanwire_session_calls_total", "from=\"node\",result=\"gone\"").await, 0.0);
    let refused = nodes[1].metric_of("fanwire_session_calls_total", "from=\"shard\",result=\"gone\"").await;
    assert_eq!(refused, 6.0);
    // No node has this id, and no letter has to be waited for.
    let elsewhere = "00000000-0000-4000-8000-000000000000";
    let foreign = flipped(&session, 0);
    let foreign_node = {
        let mut id = uuid::Uuid::parse_str(&node).unwrap().into_bytes();
        id[0] ^= 1;
        uuid::Uuid::from_bytes(id).to_string()
    };
    let began = Instant::now();
    for _ in 0..5 {
        let body = json!({"session": foreign, "node": foreign_node, "data": "{}"}).to_string();
        assert_eq!(emulate(nodes[1].address, &body).await.status, 404);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "five letters would take ten seconds");
    let body = json!({"session": session, "node": elsewhere, "data": "{}"}).to_string();
    assert_eq!(emulate(nodes[1].address, &body).await.status, 400);

    client.request(nodes[1].address, "subscribe", json!({"channel": "a"})).await.unwrap();
    let too_long = client.body(&"x".repeat(64 << 10));
    assert_eq!(emulate(nodes[1].address, &too_long).await.status, 413);
    let (_, far) = client.command("presence_stats", json!({"channel": "room:1"}));
    let many: Vec<String> =
        (0..70).map(|_| client.command("presence_stats", json!({"channel": "room:1"})).1).collect();
    // One of them was left out, so the others wait, and those behind them have no room.
    assert_eq!(client.send(nodes[1].address, &many[1..].join("\n")).await, 204);
    let next = client.command("presence_stats", json!({"channel": "room:1"})).1;
    if client.send(nodes[1].address, &next).await == 429 {
        assert_eq!(client.closed().await, 3013);
    } else {
        // The time of the gap was over before the second came.
        assert_eq!(client.send(nodes[1].address, &far).await, 204);
    }
}

#[tokio::test]
async fn an_address_has_only_so_much_forwarded() {
    /// Of which each request counts 256 more than its content, and those of two seconds may come at once.
    const BYTES_PER_SECOND: usize = 1024;
    let nodes = cluster(|settings| {
        settings.admission.forwarded_bytes_per_second_max = BYTES_PER_SECOND;
    })
    .await;
    let mut client = Emulated::connect(nodes[0].address).await;
    let mut body = || {
        let command = client.command("presence_stats", json!({"channel": "room:1"})).1;
        client.body(&command)
    };
    let mut refused = None;
    for _ in 0..100 {
        let answer = emulate(nodes[1].address, &body()).await;
        if answer.status != 204 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a hundred letters are more than that");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.body.contains("server.forwarded_bytes_per_second_max"), "{refused:?}");
    let busy = nodes[1].metric_of("fanwire_session_calls_total", "result=\"busy\"").await;
    assert_eq!(busy, 1.0);
    // Its own node takes what it can.
    for _ in 0..20 {
        assert_eq!(emulate(nodes[0].address, &body()).await.status, 204);
    }
    eventually("there is room again", async || emulate(nodes[1].address, &body()).await.status == 204).await;
}

#[tokio::test]
async fn guesses_at_once_ask_for_the_secret_once() {
    const GUESSES: usize = 8;
    let nodes = cluster(|_| ()).await;
    let client = Emulated::connect(nodes[0].address).await;
    let forged =
        json!({"session": flipped(client.session(), 59), "node": client.node(), "data": "{}"}).to_string();
    let published =
        async || nodes[1].metric_of("fanwire_redis_call_duration_seconds_count", "kind=\"publish\"").await;
    let before = published().await;
    let mut sockets = Vec::new();
    for _ in 0..GUESSES {
        sockets.push(RawSocket::open(nodes[1].address).await);
    }
    for socket in &mut sockets {
        socket.send(post("/emulation", &forged)).await;
    }
    for socket in &mut sockets {
        assert_eq!(socket.response().await.status, 404);
    }
    assert_eq!(published().await - before, 1.0);
}

#[tokio::test]
async fn an_order_finds_a_session_of_another_node_by_its_key() {
    let nodes = cluster(|_| ()).await;
    let mut client = Emulated::connect(nodes[0].address).await;
    let mut backend = nodes[2].backend().await;
    backend.call("disconnect", json!({"session": flipped(client.session(), 59)})).await;
    backend.call("subscribe", json!({"session": client.session(), "channel": "a"})).await;
    assert_eq!(client.next().await["push"]["channel"], "a");
    backend.call("disconnect", json!({"session": client.session()})).await;
    assert_eq!(client.closed().await, 3503);
    assert_eq!(client.send(nodes[1].address, "{}").await, 404);
}

#[tokio::test]
async fn a_session_ends_with_its_node() {
    let mut nodes = cluster(|_| ()).await;
    let mut client = Emulated::connect(nodes[0].address).await;
    client.request(nodes[1].address, "subscribe", json!({"channel": "a"})).await.unwrap();
    drop(nodes.remove(0));
    client.stream.ended().await;
    // Until its lease is over, nobody knows that the node is dead.
    let body = client.body("{}");
    let answer = emulate(nodes[0].address, &body).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    assert_eq!(nodes[0].metric_of("fanwire_session_calls_total", "result=\"late\"").await, 1.0);
    eventually("the node is known to be dead", async || emulate(nodes[0].address, &body).await.status == 404)
        .await;

    let mut drained = Emulated::connect(nodes[0].address).await;
    let shutdown = tokio::spawn(nodes.remove(0).shutdown());
    assert_eq!(drained.closed().await, 3001);
    shutdown.await.unwrap();
    assert_eq!(drained.send(nodes[0].address, "{}").await, 404);
}

#[tokio::test]
async fn without_redis_commands_wait_at_the_client() {
    let mut redis = OwnRedis::start();
    let mut settings = settings(2);
    settings.engine = EngineSettings::Redis(redis.settings.clone());
    let nodes = [TestGateway::start(settings.clone()).await, TestGateway::start(settings).await];
    let client = Emulated::connect(nodes[0].address).await;
    redis.pause(Duration::from_secs(5));
    let body = client.body("{}");
    let answer = emulate(nodes[1].address, &body).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    eventually("redis is back", async || emulate(nodes[1].address, &body).await.status != 503).await;
}
