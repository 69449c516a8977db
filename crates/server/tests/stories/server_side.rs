//! Subscriptions that the connection's token makes: nothing of them comes before the reply to connect.

use serde_json::json;

use crate::common::{Client, RawSocket, TEXT, TestGateway, frame, settings, token};

#[tokio::test]
async fn nothing_overtakes_the_reply_to_connect() {
    const PUBLICATIONS: u32 = 3000;
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let (stream, plain) = ("history:rush", "rush");
        let mut publishers = Vec::new();
        for topic in [stream, plain] {
            let mut publisher = gateway.client().await;
            publishers
                .push(tokio::spawn(async move { publisher.publish_all(topic, 1..PUBLICATIONS + 1).await }));
        }
        // Connect waits for all of these, while the first two have long begun.
        let mut topics = vec![stream.to_owned(), plain.to_owned()];
        topics.extend((0..30).map(|number| format!("history:quiet{number}")));
        let token = token(&json!({"sub": "ann", "channels": topics}));
        while publishers.iter().any(|publisher| !publisher.is_finished()) {
            let mut client = Client::over(RawSocket::open(gateway.address).await).await;
            let id = client.command("connect", json!({"token": token})).await;
            let first = client.next().await;
            assert_eq!(first["id"], id, "{first}");
            let mut offset = first["connect"]["subs"][stream]["offset"].as_u64().unwrap_or(0);
            // From the reply on, both topics go on without a hole.
            let mut last_plain = None;
            while offset < PUBLICATIONS.into() {
                let (topic, publication) = client.publication().await;
                let number = publication["data"].as_u64().unwrap();
                if topic == stream {
                    offset += 1;
                    assert_eq!(publication["offset"], offset);
                    if number % 50 == 0 {
                        break;
                    }
                } else {
                    assert_eq!(number, last_plain.map_or(number, |last: u64| last + 1));
                    last_plain = Some(number);
                }
            }
        }
        for publisher in publishers {
            publisher.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_user_has_its_own_topic() {
    let mut settings = settings(3);
    settings.client.personal_topic = Some(fanwire_hub::PersonalTopic::default());
    let gateway = TestGateway::start(settings).await;
    let mut ann = gateway.client_with(&json!({"sub": "ann"})).await;
    let mut bob = gateway.client_with(&json!({"sub": "bob"})).await;
    assert!(ann.connected["subs"].get("#ann").is_some(), "{}", ann.connected);
    let refused = bob.request("publish", json!({"channel": "#ann", "data": 1})).await.unwrap_err();
    assert_eq!(refused["code"], 103);
    let publish = json!({"channel": "#ann", "data": "for ann alone"});
    gateway.backend().await.call("publish", publish).await;
    let (topic, publication) = ann.publication().await;
    assert_eq!((topic.as_str(), &publication["data"]), ("#ann", &json!("for ann alone")));
}

#[tokio::test]
async fn a_user_whose_name_would_make_a_topic_of_others_is_refused() {
    let mut settings = settings(1);
    settings.client.personal_topic = Some(fanwire_hub::PersonalTopic::default());
    let gateway = TestGateway::start(settings).await;
    let token = token(&json!({"sub": "1,2"}));
    let mut client = RawSocket::websocket(gateway.address).await;
    client.send(frame(TEXT, json!({"id": 1, "connect": {"token": token}}).to_string())).await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, 3501);
    assert!(reason.contains("separator"), "{reason}");
    let request = format!("GET /subscribe?topic=room:a&token={token}&as=sse HTTP/1.1\r\nHost: test\r\n\r\n");
    let response = RawSocket::ask(gateway.address, &request).await;
    assert_eq!(response.status, 400);
    assert!(response.body.contains("separator"), "{}", response.body);
}
