//! Clients that vanish are noticed in time, and clients that are there stay.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{
    Client, PING, PONG, RawSocket, TEXT, TestGateway, WEBSOCKET_HANDSHAKE, eventually, forge, frame, settings,
};

const PING_INTERVAL: Duration = Duration::from_millis(400);
/// Less than two more pings take, and long enough for a busy machine to answer.
const PONG_TIMEOUT: Duration = Duration::from_millis(1000);
const ROOM: &str = "room:1";
const STREAM: &str = "history:a";

async fn gateway(shards: usize) -> TestGateway {
    let mut settings = settings(shards);
    settings.client.ping_interval = Some(PING_INTERVAL);
    settings.client.pong_timeout = Some(PONG_TIMEOUT);
    TestGateway::start(settings).await
}

#[tokio::test]
async fn whoever_answers_pings_stays_and_whoever_does_not_goes() {
    for shards in [1, 3] {
        let gateway = gateway(shards).await;
        let mut lively = gateway.client().await;
        assert_eq!((&lively.connected["ping"], &lively.connected["pong"]), (&json!(1), &json!(true)));
        let mut mute = gateway.client().await;
        let listening = async {
            // The lively one answers while it waits for what never comes.
            let waited = tokio::time::timeout(4 * PING_INTERVAL, lively.next()).await;
            assert!(waited.is_err(), "{waited:?}");
        };
        let waiting = async {
            assert_eq!(mute.message().await, json!({}));
            let pinged = Instant::now();
            assert_eq!(mute.closed().await, (3012, "no pong".into()));
            assert!(pinged.elapsed() >= PONG_TIMEOUT / 2);
        };
        tokio::join!(listening, waiting);
        lively.nothing_more().await;
    }
}

#[tokio::test]
async fn other_traffic_is_no_pong_and_a_pong_unasked_is_a_mistake() {
    let gateway = gateway(1).await;
    let mut busy = gateway.client().await;
    assert_eq!(busy.message().await, json!({}));
    busy.command("unsubscribe", json!({"channel": "a"})).await;
    assert_eq!(busy.closed().await.0, 3012);

    let mut eager = gateway.client().await;
    assert_eq!(eager.message().await, json!({}));
    eager.socket.send(frame(TEXT, "{}\n{}")).await;
    assert_eq!(eager.closed().await.0, 3501);
}

/// While its answers wait for it a client is not read from, and its pong stands behind what it asked before.
#[tokio::test]
async fn whoever_still_reads_what_it_asked_for_is_not_taken_for_dead() {
    /// With 64 KB for each answer it is far more than the kernel takes for the client.
    const QUESTIONS: usize = 1000;
    /// The time that the client takes for each answer.
    const PAUSE: Duration = Duration::from_millis(4);
    /// Longer than the client needs for what the kernel has, and shorter than it needs for everything.
    const PATIENCE: Duration = Duration::from_secs(3);
    let mut settings = settings(1);
    settings.client.ping_interval = Some(PING_INTERVAL);
    settings.client.pong_timeout = Some(PATIENCE);
    // Room for as many answers as may be on their way to one client.
    settings.client.queue_bytes_max = 2 << 20;
    let gateway = TestGateway::start(settings).await;
    let mut publisher = gateway.client().await;
    for _ in 0..4 {
        publisher.publish(STREAM, json!("x".repeat(16 * 1024))).await;
    }
    let mut client = Client::connect_small(gateway.address).await;
    let asked = Instant::now();
    let history = json!({"channel": STREAM, "limit": -1});
    for id in client.commands((0..QUESTIONS).map(|_| ("history", history.clone()))).await {
        tokio::time::sleep(PAUSE).await;
        assert_eq!(client.next().await["id"], id);
    }
    assert!(asked.elapsed() > PING_INTERVAL + PATIENCE, "there was time to miss a pong");
    assert_eq!(client.present(ROOM).await, 0);
    client.nothing_more().await;
}

#[tokio::test]
async fn pings_may_be_those_of_the_transport() {
    let gateway = gateway(1).await;
    let mut socket = RawSocket::open(gateway.address).await;
    let request = WEBSOCKET_HANDSHAKE.replace("/websocket", "/websocket?cf_ws_frame_ping_pong=true");
    socket.upgrade(&request).await;
    socket.send(frame(TEXT, r#"{"id":1,"connect":{}}"#)).await;
    let connected: serde_json::Value = serde_json::from_str(socket.frame().await.unwrap().text()).unwrap();
    assert!(connected["connect"].get("ping").is_none() && connected["connect"].get("pong").is_none());
    for _ in 0..3 {
        assert_eq!(socket.frame().await.unwrap().opcode, PING);
        socket.send(frame(PONG, [])).await;
    }
    assert_eq!(socket.frame().await.unwrap().opcode, PING);
    assert_eq!(socket.closed().await.0, 3012);
}

#[tokio::test]
async fn a_client_that_sends_no_more_gets_its_answers_and_is_gone() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        // What tools such as netcat do: everything, and the end right behind it.
        let mut socket = RawSocket::websocket(gateway.address).await;
        socket.send([frame(TEXT, r#"{"id":1,"connect":{}}"#), frame(PING, "?")].concat()).await;
        socket.finish().await;
        assert!(socket.frame().await.unwrap().text().contains(r#""id":1"#));
        assert_eq!(socket.frame().await.unwrap().opcode, PONG);
        socket.ended().await;
        // The same in one go with the handshake.
        let mut socket = RawSocket::open(gateway.address).await;
        socket
            .send([WEBSOCKET_HANDSHAKE.as_bytes(), &frame(TEXT, r#"{"id":1,"connect":{}}"#)].concat())
            .await;
        socket.finish().await;
        assert!(socket.head().await.starts_with("HTTP/1.1 101 "));
        assert!(socket.frame().await.unwrap().text().contains(r#""id":1"#));
        socket.ended().await;
        gateway.deserted().await;
    }
}

#[tokio::test]
async fn whoever_vanishes_is_gone_within_ping_and_pong() {
    for shards in [1, 3] {
        let gateway = gateway(shards).await;
        // Pings are answered only while something is read, and an observer reads too seldom.
        let present = async || gateway.client().await.present(ROOM).await;
        let mut guests = Vec::new();
        for _ in 0..20 {
            let mut guest = gateway.client().await;
            guest.subscribe(ROOM).await;
            guests.push(guest);
        }
        let silent = guests.split_off(10);
        let cut = Instant::now();
        guests.into_iter().for_each(|guest| guest.socket.vanish());
        eventually("those who were cut are gone", async || present().await <= 10).await;
        eventually("and those of whom nothing is heard", async || present().await == 0).await;
        assert!(cut.elapsed() < 10 * (PING_INTERVAL + PONG_TIMEOUT), "{:?}", cut.elapsed());
        // They never follow the close, and their sockets are given back in spite of that.
        gateway.deserted().await;
        drop(silent);
    }
}

#[tokio::test]
async fn no_socket_is_kept_after_many_connections() {
    let gateway = TestGateway::start(settings(3)).await;
    for round in 0..100 {
        let mut client = gateway.client().await;
        match round % 4 {
            0 => client.socket.vanish(),
            1 => client.socket.finish().await,
            2 => drop(client),
            _ => drop(RawSocket::ask(gateway.address, "GET / HTTP/1.1\r\nHost: test\r\n\r\n").await),
        }
    }
    gateway.deserted().await;
}

#[tokio::test]
async fn a_stale_connection_is_closed() {
    let mut settings = settings(1);
    settings.client.stale_close_delay = Duration::from_millis(300);
    let gateway = TestGateway::start(settings).await;
    let opened = Instant::now();
    let mut client = Client::over(RawSocket::open(gateway.address).await).await;
    assert_eq!(client.closed().await, (3502, "stale".into()));
    assert!(opened.elapsed() >= Duration::from_millis(300));
}

/// Its pong stands behind commands that take longer than a pong may.
#[tokio::test]
async fn a_pong_that_was_not_read_yet_is_not_late() {
    const COMMANDS: usize = 20_000;
    /// Far less than so many signatures take, and enough for a client on a busy machine to write.
    const PATIENCE: Duration = Duration::from_secs(2);
    const LAST: u32 = 7_777_777;
    let mut settings = settings(1);
    settings.client.ping_interval = Some(PING_INTERVAL);
    settings.client.pong_timeout = Some(PATIENCE);
    let token = forge(&mut settings, ROOM);
    let gateway = TestGateway::start(settings).await;
    // All that it will say is made before, so that the client needs no time for it once it is pinged.
    let command = |id| json!({"id": id, "subscribe": {"channel": ROOM, "token": token}}).to_string();
    let mut words = Vec::new();
    for first in (10..10 + COMMANDS).step_by(100) {
        let commands: Vec<String> = (first..first + 100).map(command).collect();
        words.extend(frame(TEXT, commands.join("\n")));
    }
    words.extend(frame(TEXT, "{}"));
    words.extend(frame(TEXT, json!({"id": LAST, "unsubscribe": {"channel": ROOM}}).to_string()));
    let mut client = gateway.client().await;
    assert_eq!(client.message().await, json!({}));
    let pinged = Instant::now();
    let (mut read, mut write) = client.socket.into_stream().into_split();
    let talking = tokio::spawn(async move {
        write.write_all(&words).await.unwrap();
        write
    });
    let last = format!(r#"{{"id":{LAST},"#).into_bytes();
    let mut answers = Vec::new();
    while !answers.windows(last.len()).any(|bytes| bytes == last) {
        answers.drain(..answers.len().saturating_sub(last.len()));
        assert!(read.read_buf(&mut answers).await.unwrap() > 0, "closed: {answers:?}");
    }
    assert!(pinged.elapsed() > PATIENCE, "there was time to miss a pong");
    drop(talking.await.unwrap());
}
