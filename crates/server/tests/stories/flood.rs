//! A client may ask faster than the node answers: it gets every answer, in order, and others are served meanwhile.

use std::time::Duration;

use fanwire_server::settings::{EngineSettings, MemoryEngineSettings};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{PING, PONG, RawSocket, TEXT, TestGateway, eventually, forge, frame, settings, within};

const ROOM: &str = "room:1";
const OTHER_ROOM: &str = "room:2";
const STREAM: &str = "history:a";

#[tokio::test]
async fn whoever_asks_too_fast_waits_alone() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut floods = Vec::new();
        for _ in 0..4 {
            let mut socket = RawSocket::websocket(gateway.address).await;
            socket.send(frame(TEXT, r#"{"id":1,"connect":{}}"#)).await;
            floods.push(tokio::spawn(flood(socket)));
        }
        // Each of these would wait behind all that was ever sent, if all of it were taken in at once.
        let mut other = gateway.client().await;
        for number in 0..50 {
            within("a subscribe beside a flood", other.subscribe(OTHER_ROOM)).await;
            within("a publish beside a flood", other.publish(OTHER_ROOM, json!(number))).await;
            within("an unsubscribe beside a flood", other.unsubscribe(OTHER_ROOM)).await;
        }
        for flood in floods {
            assert!(!flood.is_finished(), "it flooded all the time");
            flood.abort();
        }
    }
}

/// Publishes as fast as the node takes it.
async fn flood(socket: RawSocket) {
    let commands: Vec<String> =
        (2..502).map(|id| json!({"id": id, "publish": {"channel": ROOM, "data": 1}}).to_string()).collect();
    send_for_ever(socket, frame(TEXT, commands.join("\n"))).await;
}

/// Sends the same again and again, as fast as the node takes it, and drops the answers. Never ends by itself.
async fn send_for_ever(socket: RawSocket, commands: Vec<u8>) {
    let (mut read, mut write) = socket.into_stream().into_split();
    let reading = async {
        let mut answers = vec![0; 64 * 1024];
        while read.read(&mut answers).await.unwrap() > 0 {}
    };
    let writing = async {
        loop {
            write.write_all(&commands).await.unwrap();
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

/// However much the shard has to say to one, it looks often at what others send.
#[tokio::test]
async fn whoever_is_answered_without_end_keeps_nobody_from_being_heard() {
    const QUESTIONS: u32 = 700;
    /// A few turns of the shard, of which each answers 16.
    const ANSWERED_MEANWHILE_MAX: f64 = 400.0;
    let mut settings = settings(1);
    settings.client.queue_bytes_max = 4 << 20;
    settings.client.ping_interval = None;
    let gateway = TestGateway::start(settings).await;
    let mut other = gateway.client().await;
    for _ in 0..4 {
        other.publish(STREAM, json!("x".repeat(16 * 1024))).await;
    }
    let greedy = gateway.client().await;
    let history = |id| json!({"id": id, "history": {"channel": STREAM, "limit": -1}}).to_string();
    let questions: Vec<String> = (2..2 + QUESTIONS).map(history).collect();
    let greedy = tokio::spawn(send_for_ever(greedy.socket, frame(TEXT, questions.join("\n"))));
    let answered = async || gateway.metric("fanwire_commands_received_total").await;
    eventually("it asks", async || answered().await > f64::from(QUESTIONS)).await;
    let mut meanwhile = Vec::new();
    for _ in 0..15 {
        let before = answered().await;
        other.socket.send(frame(PING, "heard?")).await;
        assert_eq!(other.socket.frame().await.unwrap().opcode, PONG);
        meanwhile.push(answered().await - before);
    }
    assert!(!greedy.is_finished(), "it asked all the time");
    greedy.abort();
    meanwhile.sort_by(f64::total_cmp);
    assert!(meanwhile[meanwhile.len() / 2] <= ANSWERED_MEANWHILE_MAX, "{meanwhile:?}");
}

/// A signature costs as much to verify as many plain commands, and somebody who has none may send any number of them.
#[tokio::test]
async fn signatures_are_verified_a_few_at_a_time() {
    const FORGERS: usize = 16;
    /// In one frame, and about as many in one read.
    const FORGERIES: usize = 50;
    /// A few turns of the shard. When reads had no time of their own, each turn verified what came in one read of each.
    const VERIFIED_MEANWHILE_MAX: f64 = 300.0;
    let mut settings = settings(1);
    let token = forge(&mut settings, ROOM);
    settings.client.ping_interval = None;
    let gateway = TestGateway::start(settings).await;
    let mut other = gateway.client().await;
    let forgery = |id| json!({"id": id, "subscribe": {"channel": ROOM, "token": token}}).to_string();
    let forgeries: Vec<String> = (2..2 + FORGERIES).map(forgery).collect();
    let forgeries = frame(TEXT, forgeries.join("\n"));
    let mut forgers = Vec::new();
    for _ in 0..FORGERS {
        let forger = gateway.client().await;
        forgers.push(tokio::spawn(send_for_ever(forger.socket, forgeries.clone())));
    }
    let verified = async || gateway.metric("fanwire_commands_received_total").await;
    eventually("all of them are at it", async || verified().await > (2 * FORGERS * FORGERIES) as f64).await;
    let mut meanwhile = Vec::new();
    for _ in 0..15 {
        let before = verified().await;
        other.socket.send(frame(PING, "heard?")).await;
        assert_eq!(other.socket.frame().await.unwrap().opcode, PONG);
        meanwhile.push(verified().await - before);
    }
    for forger in forgers {
        assert!(!forger.is_finished(), "it sent all the time");
        forger.abort();
    }
    meanwhile.sort_by(f64::total_cmp);
    assert!(meanwhile[meanwhile.len() / 2] <= VERIFIED_MEANWHILE_MAX, "{meanwhile:?}");
}

#[tokio::test]
async fn a_thousand_questions_at_once_are_all_answered_in_order() {
    const QUESTIONS: usize = 1000;
    for shards in [1, 3] {
        let mut settings = settings(shards);
        // A few answers are more than may wait at a time.
        settings.client.queue_bytes_max = 64 * 1024;
        let gateway = TestGateway::start(settings).await;
        let mut client = gateway.client().await;
        for number in 0..4 {
            client.publish(STREAM, json!({"number": number, "text": "x".repeat(1000)})).await;
        }
        let history = json!({"channel": STREAM, "limit": 10});
        let ids = client.commands((0..QUESTIONS).map(|_| ("history", history.clone()))).await;
        for id in ids {
            let message = client.message().await;
            assert_eq!(message["id"], id);
            assert_eq!(message["history"]["publications"].as_array().unwrap().len(), 4);
        }
    }
}

/// Requests that need no token, each with more topics than any client may have, many of them sent at once.
#[tokio::test]
async fn pipelined_requests_keep_nobody_waiting() {
    const REQUESTS: usize = 300;
    let topics: Vec<String> = (0..3240).map(|number| format!("topic={number:03x}")).collect();
    let request = format!("GET /subscribe?{}&as=sse HTTP/1.1\r\nHost: test\r\n\r\n", topics.join("&"));
    let gateway = TestGateway::start(settings(1)).await;
    let mut other = gateway.client().await;
    let (mut read, mut write) = RawSocket::open(gateway.address).await.into_stream().into_split();
    let asking = tokio::spawn(async move {
        for _ in 0..REQUESTS {
            write.write_all(request.as_bytes()).await.unwrap();
        }
        write
    });
    let (began, begins) = tokio::sync::oneshot::channel();
    let answered = tokio::spawn(async move {
        let (mut began, mut answers, mut text) = (Some(began), 0, Vec::new());
        while answers < REQUESTS {
            assert!(read.read_buf(&mut text).await.unwrap() > 0, "closed after {answers} answers");
            const REFUSED: &[u8] = b"HTTP/1.1 400 ";
            while let Some(at) = text.windows(REFUSED.len()).position(|bytes| bytes == REFUSED) {
                text.drain(..at + REFUSED.len());
                answers += 1;
            }
            began.take().map(|began| began.send(()));
        }
    });
    within("the first answer", begins).await.unwrap();
    for number in 0..20 {
        within("a publish beside a flood", other.publish(OTHER_ROOM, json!(number))).await;
    }
    assert!(!answered.is_finished(), "a client is answered often while the requests are");
    within("all answers", answered).await.unwrap();
    drop(asking.await.unwrap());
}

/// A client above its rate is answered at once and in order, stays connected, and costs another client nothing.
#[tokio::test]
async fn whoever_is_above_its_rate_is_told_so_and_stays() {
    const ASKED: usize = 60;
    let mut settings = settings(1);
    settings.client.commands_per_second_max = 1;
    settings.client.commands_burst_max = 20;
    let gateway = TestGateway::start(settings).await;
    let mut greedy = gateway.client().await;
    let presence = json!({"channel": ROOM});
    let ids = greedy.commands((0..ASKED).map(|_| ("presence", presence.clone()))).await;
    let mut refused = 0;
    for id in ids {
        let message = greedy.message().await;
        assert_eq!(message["id"], id);
        refused += usize::from(message["error"]["code"] == 111);
    }
    assert!(refused > 0 && refused <= ASKED - 20, "{refused} of {ASKED} were refused");
    let counted = gateway.metric_of("fanwire_reply_errors_total", r#"code="111""#).await;
    assert_eq!(counted, refused as f64);
    let mut other = gateway.client().await;
    within("another client's subscribe", other.subscribe(OTHER_ROOM)).await;
}

/// One client makes names as fast as it can: the memory they take is bounded and can be watched, and a topic that others
/// made before keeps its publication.
#[tokio::test]
async fn a_flood_of_names_costs_no_other_topic() {
    const NAMES: usize = 3000;
    const BYTES_MAX: usize = 1 << 20;
    let mut settings = settings(1);
    settings.engine = EngineSettings::Memory(MemoryEngineSettings {
        history_bytes_max: BYTES_MAX,
        idempotency_ttl: Duration::from_secs(60),
        outbox: None,
    });
    let gateway = TestGateway::start(settings).await;
    let mut innocent = gateway.client().await;
    innocent.publish("history:innocent", json!("here")).await;
    let mut flooder = gateway.client().await;
    for number in 0..NAMES {
        let topic = format!("history:{number}");
        flooder.subscribe(&topic).await;
        flooder.publish(&topic, json!(number)).await;
        flooder.unsubscribe(&topic).await;
    }
    eventually("some names were forgotten", async || {
        gateway.metric("fanwire_memory_engine_positions_forgotten_total").await > 100.0
    })
    .await;
    assert!(gateway.metric("fanwire_memory_engine_bytes").await <= BYTES_MAX as f64);
    let history =
        innocent.request("history", json!({"channel": "history:innocent", "limit": 10})).await.unwrap();
    assert_eq!(history["publications"][0]["data"], "here", "{history}");
}
