//! Publications by requests that wait for Redis.

use std::time::{Duration, Instant};

use fanwire_server::settings::{EngineSettings, RedisSettings};

use crate::common::{OwnRedis, RawSocket, TestGateway, eventually, settings};

const POST: &str = "POST /publish?topic=room:a HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n1";

#[tokio::test]
async fn they_keep_nobody_from_connecting() {
    const PAUSE: Duration = Duration::from_secs(2);
    const POSTS: usize = 2;
    let mut redis = OwnRedis::start();
    let mut settings = settings(1);
    (settings.admission.http_connections_max, settings.admission.post_connections_max) = (POSTS, POSTS);
    settings.engine = EngineSettings::Redis(redis.settings.clone());
    let gateway = TestGateway::start(settings).await;
    redis.pause(PAUSE);
    let paused = Instant::now();
    let mut posts = Vec::new();
    for _ in 0..POSTS {
        let mut post = RawSocket::open(gateway.address).await;
        post.send(POST).await;
        let answer = tokio::time::timeout(PAUSE / 20, post.response()).await;
        assert!(answer.is_err(), "{answer:?}");
        posts.push(post);
    }
    let refused = RawSocket::ask(gateway.address, POST).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.body.contains("server.post_connections_max"), "{refused:?}");
    RawSocket::websocket(gateway.address).await;
    assert!(paused.elapsed() < PAUSE, "{:?}", paused.elapsed());
    for mut post in posts {
        assert_eq!(post.response().await.status, 200);
    }
}

#[tokio::test]
async fn a_crowd_from_one_address_leaves_room_for_others() {
    const POSTS: usize = 8;
    let mut redis = OwnRedis::start();
    let mut settings = settings(1);
    settings.admission.post_connections_max = POSTS;
    settings.admission.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    settings.engine = EngineSettings::Redis(redis.settings.clone());
    let gateway = TestGateway::start(settings).await;
    redis.pause(Duration::from_secs(3));
    let post = async |client: &str| {
        let mut post = RawSocket::open(gateway.address).await;
        post.send(POST.replace("\r\n\r\n", &format!("\r\nX-Forwarded-For: {client}\r\n\r\n"))).await;
        post
    };
    let mut waiting = Vec::new();
    let crowd = ["192.0.2.66"; POSTS / 2 + 1];
    for client in crowd.into_iter().chain(["192.0.2.1", "192.0.2.2"]) {
        waiting.push(post(client).await);
        eventually("it waits", async || {
            gateway.metric_of("fanwire_http_connections", r#"state="post""#).await == waiting.len() as f64
        })
        .await;
        if waiting.len() >= crowd.len() {
            let refused = post(crowd[0]).await.response().await;
            assert!(refused.status == 503 && refused.body.contains("this address"), "{refused:?}");
        }
    }
    // Those that waited are answered, by Redis or by the end of their time.
    for mut post in waiting {
        post.response().await;
    }
}

/// The client sends a long body at once and reads only then.
#[tokio::test]
async fn a_refusal_reaches_a_client_that_still_sends() {
    let mut redis = OwnRedis::start();
    let mut settings = settings(1);
    settings.admission.post_connections_max = 1;
    settings.engine = EngineSettings::Redis(redis.settings.clone());
    settings.publish.body_bytes_max = 8 << 20;
    let gateway = TestGateway::start(settings).await;
    redis.pause(Duration::from_secs(2));
    let mut waiting = RawSocket::open(gateway.address).await;
    waiting.send(POST).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), waiting.response()).await.is_err());
    let mut refused = RawSocket::open(gateway.address).await;
    refused
        .send("POST /publish?topic=room:a HTTP/1.1\r\nHost: test\r\nContent-Length: 8000000\r\n\r\n")
        .await;
    refused.send(vec![b'1'; 8_000_000]).await;
    let refused = refused.response().await;
    assert_eq!((refused.status, refused.header("connection")), (503, Some("close")), "{refused:?}");
    assert_eq!(waiting.response().await.status, 200);
}

#[tokio::test]
async fn they_are_answered_in_time() {
    let pause = Duration::from_secs(8);
    let mut redis = OwnRedis::start();
    let mut settings = settings(1);
    settings.engine =
        EngineSettings::Redis(RedisSettings { answer_timeout: 2 * pause, ..redis.settings.clone() });
    let gateway = TestGateway::start(settings).await;
    redis.pause(pause);
    let asked = Instant::now();
    let answer = RawSocket::ask(gateway.address, POST).await;
    assert!(asked.elapsed() < pause, "{:?}", asked.elapsed());
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    assert!(answer.body.contains("5 seconds"), "{answer:?}");
}
