//! The status of users while Redis does not answer.

use std::time::Duration;

use fanwire_server::settings::{EngineSettings, RedisSettings};
use serde_json::json;

use crate::common::{OwnRedis, RawSocket, TestGateway, token};
use crate::status::{has, heartbeat, tab, told, with_status};

#[tokio::test]
async fn what_changed_while_nothing_was_heard_is_told_afterwards() {
    let mut redis = OwnRedis::start();
    let mut settings = with_status(2);
    let EngineSettings::Redis(engine) = &settings.engine else { panic!("not on Redis") };
    settings.engine =
        EngineSettings::Redis(RedisSettings { outbox: engine.outbox, ..redis.settings.clone() });
    let node = TestGateway::start(settings).await;
    let mut bob = tab(&node, "bob").await;
    let ann = tab(&node, "ann").await;
    let eve = tab(&node, "eve").await;
    for user in ["ann", "eve", "dan"] {
        has(&node, user, usize::from(user != "dan")).await;
        bob.subscribe(&format!("online:{user}")).await;
    }
    redis.silence();
    drop(ann);
    let dan = tab(&node, "dan").await;
    has(&node, "ann", 0).await;
    has(&node, "dan", 1).await;
    redis.speak();
    let mut all = [told(&mut bob).await, told(&mut bob).await];
    all.sort();
    assert_eq!(all, [("ann".into(), false), ("dan".into(), true)]);
    drop((dan, eve));
    let mut all = [told(&mut bob).await, told(&mut bob).await];
    all.sort();
    assert_eq!(all, [("dan".into(), false), ("eve".into(), false)]);
    bob.nothing_more().await;
}

#[tokio::test]
async fn heartbeats_are_limited_and_need_redis() {
    let mut redis = OwnRedis::start();
    let mut settings = with_status(1);
    settings.client.commands_per_second_max = 1;
    settings.client.commands_burst_max = 3;
    let EngineSettings::Redis(engine) = &settings.engine else { panic!("not on Redis") };
    let answer_timeout = Duration::from_millis(500);
    settings.engine = EngineSettings::Redis(RedisSettings {
        outbox: engine.outbox,
        answer_timeout,
        ..redis.settings.clone()
    });
    let node = TestGateway::start(settings).await;
    let beat = async |user: &str| {
        let query = format!("?token={}", token(&json!({"sub": user})));
        RawSocket::ask(node.address, &heartbeat("POST", &query, "")).await
    };
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(beat("ann").await.status);
    }
    assert_eq!(statuses[..3], [204; 3]);
    assert!(statuses.contains(&429), "{statuses:?}");
    redis.pause(Duration::from_secs(2));
    let response = beat("bob").await;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")), "{response:?}");
}
