//! Many clients that come, subscribe, leave and break off in every order; at the end nothing of them is left.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::common::{CLOSE, Client, TestGateway, eventually, frame, settings, token};

const CLIENTS: u64 = 24;
const ROUNDS: usize = 8;
const TOPICS: usize = 6;

/// Lives through some connections, each with its own burst of commands and its own end.
async fn live(address: std::net::SocketAddr, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..ROUNDS {
        let topics = ["room:server", "history:server"];
        let token = token(&json!({"sub": format!("user{}", seed % 5), "channels": topics}));
        let mut client = Client::connect(address, json!({"token": token})).await;
        let mut commands = Vec::new();
        for _ in 0..random.random_range(1..60) {
            let namespace = ["", "history:", "cache:", "room:"][random.random_range(0..4)];
            let topic = format!("{namespace}{}", random.random_range(0..TOPICS));
            commands.push(match random.random_range(0..6) {
                0..3 => ("subscribe", json!({"channel": topic})),
                3..5 => ("unsubscribe", json!({"channel": topic})),
                _ => ("publish", json!({"channel": topic, "data": seed})),
            });
        }
        let ids = client.commands(commands).await;
        match random.random_range(0..5) {
            // With everything still on its way.
            0 => client.socket.vanish(),
            1 => drop(client),
            2 => client.socket.finish().await,
            3 => {
                client.socket.send(frame(CLOSE, 3000u16.to_be_bytes())).await;
                assert_eq!(client.closed().await.0, 3000);
            }
            // Every command was answered once.
            _ => {
                let mut open: std::collections::HashSet<u32> = ids.collect();
                while !open.is_empty() {
                    let message = client.next().await;
                    if let Some(id) = message["id"].as_u64() {
                        assert!(open.remove(&(id as u32)), "answered twice: {message}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_storm_leaves_nothing_behind() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let storm: Vec<_> = (0..CLIENTS).map(|seed| tokio::spawn(live(gateway.address, seed))).collect();
        for client in storm {
            client.await.unwrap();
        }
        gateway.deserted().await;
        {
            let mut observer = gateway.client().await;
            let rooms = (0..TOPICS).map(|topic| format!("room:{topic}")).chain(["room:server".to_owned()]);
            for room in rooms {
                eventually("presence is empty", async || observer.present(&room).await == 0).await;
            }
        }
        for gauge in [
            "fanwire_subscriptions",
            "fanwire_topics",
            "fanwire_users",
            "fanwire_connections",
            "fanwire_clients",
            "fanwire_send_queue_bytes",
        ] {
            eventually(gauge, async || gateway.metric(gauge).await == 0.0).await;
        }
        // The node is as good as new.
        let (mut one, mut other) = (gateway.client().await, gateway.client().await);
        one.subscribe("room:0").await;
        assert_eq!(other.present("room:0").await, 1);
        other.publish("room:0", json!("still here")).await;
        one.push().await;
        assert_eq!(one.publication().await.1["data"], "still here");
    }
}
