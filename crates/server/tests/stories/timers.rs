//! Credentials come to their end, and with them what they opened. Their times are whole seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanwire_server::Settings;
use serde_json::{Value, json};

use crate::common::{Client, TestGateway, settings, token};

fn in_seconds(seconds: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds
}

fn impatient(shards: usize) -> Settings {
    let mut settings = settings(shards);
    settings.client.expired_close_delay = Duration::from_millis(300);
    settings.client.expired_subscription_close_delay = Duration::from_millis(300);
    settings
}

#[tokio::test]
async fn an_expired_connection_is_closed_unless_it_is_refreshed() {
    let gateway = TestGateway::start(impatient(3)).await;
    let claims = |seconds| json!({"sub": "ann", "exp": in_seconds(seconds)});
    let mut forgetful = gateway.client_with(&claims(2)).await;
    let mut careful = gateway.client_with(&claims(2)).await;
    assert_eq!(forgetful.connected["expires"], true);
    assert!((1..=2).contains(&forgetful.connected["ttl"].as_u64().unwrap()));
    let refreshed = careful.request("refresh", json!({"token": token(&claims(100))})).await.unwrap();
    assert_eq!(refreshed["expires"], true);
    assert!(refreshed["ttl"].as_u64() > Some(90));
    assert_eq!(forgetful.closed().await, (3005, "connection expired".into()));
    careful.nothing_more().await;
}

async fn subscribe(client: &mut Client, expires: u64) -> Value {
    let token = token(&json!({"sub": "ann", "channel": "$private", "exp": expires}));
    client.request("subscribe", json!({"channel": "$private", "token": token})).await.unwrap()
}

#[tokio::test]
async fn an_expired_subscription_ends_unless_it_is_refreshed() {
    let gateway = TestGateway::start(impatient(3)).await;
    let ann = json!({"sub": "ann"});
    let mut forgetful = gateway.client_with(&ann).await;
    let mut careful = gateway.client_with(&ann).await;
    assert_eq!(subscribe(&mut forgetful, in_seconds(2)).await["expires"], true);
    subscribe(&mut careful, in_seconds(2)).await;
    let fresh = token(&json!({"sub": "ann", "channel": "$private", "exp": in_seconds(100)}));
    careful.request("sub_refresh", json!({"channel": "$private", "token": fresh})).await.unwrap();
    let push = forgetful.push().await;
    assert_eq!(push["channel"], "$private");
    assert_eq!(push["unsubscribe"], json!({"code": 2501, "reason": "subscription expired"}));
    // Only the subscription is over: it may be made again, and the other one goes on.
    subscribe(&mut forgetful, in_seconds(100)).await;
    careful.publish("$private", json!("both")).await;
    for client in [&mut forgetful, &mut careful] {
        assert_eq!(client.publication().await.1["data"], "both");
    }
}

#[tokio::test]
async fn a_connection_that_its_topics_outlive_is_closed_at_its_end() {
    let gateway = TestGateway::start(impatient(1)).await;
    let claims = json!({"sub": "ann", "exp": in_seconds(1), "channels": ["room:1"]});
    let mut client = gateway.client_with(&claims).await;
    assert_eq!(client.closed().await.0, 3005);
    assert_eq!(gateway.client().await.present("room:1").await, 0);
}

#[tokio::test]
async fn an_expired_subscription_of_the_server_closes_the_connection() {
    let gateway = TestGateway::start(impatient(3)).await;
    let mut client = gateway.client_with(&json!({"sub": "ann"})).await;
    let subscribe = json!({"user": "ann", "channel": "a", "expire_at": in_seconds(1)});
    gateway.backend().await.call("subscribe", subscribe).await;
    assert!(client.push().await.get("subscribe").is_some());
    assert_eq!(client.closed().await, (3006, "subscription expired".into()));
}
