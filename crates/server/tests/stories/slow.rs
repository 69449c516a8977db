//! A client that does not read costs itself only, and whatever was begun is still finished.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use crate::common::{CLOSE, Client, PING, TestGateway, eventually, frame, settings};

const ROOM: &str = "room:1";
const QUEUE_BYTES: &str = "fanwire_send_queue_bytes";
const CLOSED: &str = "fanwire_connections_closed_total";
const COMMANDS: &str = "fanwire_commands_received_total";
const DROPPED: &str = "fanwire_publications_dropped_total";

/// Publishes until so many clients are left; returns how many publications it took.
async fn publish_until_left(publisher: &mut Client, clients: u64) -> u32 {
    // If the kernel takes more than this, nobody is slow.
    const PUBLICATIONS_MAX: u32 = 100_000;
    let text = "x".repeat(4096);
    for number in 0..PUBLICATIONS_MAX {
        publisher.publish(ROOM, json!({"number": number, "text": text})).await;
        if number % 16 == 0 && publisher.present(ROOM).await == clients {
            return number + 1;
        }
    }
    panic!("the slow client was never closed");
}

/// Reads publications until the one that says it is the last, and counts them.
async fn read_all(mut client: Client) -> u32 {
    let mut count = 0;
    loop {
        let push = client.push().await;
        if push.get("pub").is_none() {
            continue;
        }
        if push["pub"]["data"] == "last" {
            return count;
        }
        assert_eq!(push["pub"]["data"]["number"], count);
        count += 1;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_others_get_everything() {
    for shards in [1, 3] {
        let mut settings = settings(shards);
        settings.client.queue_bytes_max = 64 * 1024;
        let gateway = TestGateway::start(settings).await;
        let mut slow = Client::connect_small(gateway.address).await;
        slow.subscribe(ROOM).await;
        let mut readers = Vec::new();
        for _ in 0..3 {
            let mut reader = gateway.client().await;
            reader.subscribe(ROOM).await;
            readers.push(tokio::spawn(read_all(reader)));
        }
        let mut publisher = gateway.client().await;
        let published = publish_until_left(&mut publisher, 3).await;
        publisher.publish(ROOM, json!("last")).await;
        for reader in readers {
            assert_eq!(reader.await.unwrap(), published);
        }

        // At most one message that was begun still waits for it, and the goodbye. Its shard may be the last to know.
        eventually("the rest is dropped", async || gateway.metric(QUEUE_BYTES).await < 2.0 * 4096.0).await;
        // What it was sent before is whole and in order, and then it is told why no more comes.
        let mut number = 0;
        let closed = loop {
            let frame = slow.socket.frame().await.unwrap();
            if frame.opcode == CLOSE {
                break frame.close();
            }
            let message: serde_json::Value = serde_json::from_str(frame.text()).unwrap();
            if message["push"].get("pub").is_some() {
                assert_eq!(message["push"]["pub"]["data"]["number"], number);
                number += 1;
            }
        };
        assert_eq!(closed, (3008, "slow".into()));
        slow.socket.ended().await;
        assert!(number > 0 && number < published);
        eventually("nothing waits", async || gateway.metric(QUEUE_BYTES).await == 0.0).await;
    }
}

/// As many publications of 4 KiB as make a reply that no socket buffer holds.
const PUBLICATIONS: u32 = 2000;

/// A node with a small bound, and in it a topic whose history is far longer than the bound.
async fn with_long_history() -> (TestGateway, Client) {
    with_long_history_and(16 * 1024).await
}

async fn with_long_history_and(queue_bytes_max: usize) -> (TestGateway, Client) {
    let mut settings = settings(1);
    // A pong is a command too, and would be counted.
    settings.client.ping_interval = None;
    settings.client.queue_bytes_max = queue_bytes_max;
    let gateway = TestGateway::start(settings).await;
    let mut publisher = gateway.client().await;
    let text = "x".repeat(4096);
    for number in 0..PUBLICATIONS {
        publisher.publish("history:long", json!({"number": number, "text": text})).await;
    }
    (gateway, publisher)
}

#[tokio::test]
async fn one_long_reply_fits_an_empty_queue() {
    let (gateway, _) = with_long_history().await;
    let mut client = Client::connect_small(gateway.address).await;
    let history = client.request("history", json!({"channel": "history:long", "limit": -1})).await.unwrap();
    assert_eq!(history["publications"].as_array().unwrap().len(), PUBLICATIONS as usize);
    client.nothing_more().await;
}

#[tokio::test]
async fn what_waits_for_a_client_is_given_back_when_it_vanishes() {
    let (gateway, _) = with_long_history().await;
    let mut client = Client::connect_small(gateway.address).await;
    client.command("history", json!({"channel": "history:long", "limit": -1})).await;
    eventually("the reply waits", async || gateway.metric(QUEUE_BYTES).await > 0.0).await;
    client.socket.vanish();
    eventually("nothing waits", async || gateway.metric(QUEUE_BYTES).await == 0.0).await;
}

#[tokio::test]
async fn a_message_that_was_begun_is_finished_before_the_goodbye() {
    let (gateway, mut publisher) = with_long_history().await;
    let mut slow = Client::connect_small(gateway.address).await;
    slow.subscribe(ROOM).await;
    let history = slow.command("history", json!({"channel": "history:long", "limit": -1})).await;
    publish_until_left(&mut publisher, 0).await;
    // It reads at last, and gets the reply to its last byte, and after it the reason.
    let mut has_history = false;
    let closed = loop {
        let frame = slow.socket.frame().await.expect("a close frame before the end");
        if frame.opcode == CLOSE {
            break frame.close();
        }
        let message: serde_json::Value = serde_json::from_str(frame.text()).unwrap();
        has_history |= message["id"] == history;
    };
    assert!(has_history);
    assert_eq!(closed.0, 3008);
    slow.socket.ended().await;
}

#[tokio::test]
async fn a_client_that_asks_and_does_not_read_is_let_go() {
    let mut settings = settings(1);
    settings.client.queue_bytes_max = 16 * 1024;
    settings.client.ping_interval = Some(Duration::from_millis(600));
    settings.client.pong_timeout = Some(Duration::from_millis(300));
    let gateway = TestGateway::start(settings).await;
    let mut witness = gateway.client().await;
    let mut greedy = Client::connect_small(gateway.address).await;
    greedy.subscribe(ROOM).await;
    let pings = frame(PING, [b'x'; 100]).repeat(1000);
    let asks = async {
        loop {
            // At the end the server may take no more.
            greedy.socket.try_send(&pings).await;
        }
    };
    let is_let_go = async { while witness.present(ROOM).await == 1 {} };
    tokio::select! {
        () = asks => {}
        () = is_let_go => {}
    }
    // Its answers were more than may wait, or it was left unread until its pong was missed.
    let (code, reason) = greedy.closed().await;
    assert!([3008, 3012].contains(&code), "{code} {reason}");
    eventually("the queue is given back", async || gateway.metric(QUEUE_BYTES).await == 0.0).await;
}

/// Commands in one message wait as the bytes in which they came: made all at once they would take a hundred times
/// as much. Commands are counted when they are made.
#[tokio::test]
async fn what_a_client_asks_and_does_not_read_is_not_even_looked_at() {
    const CLIENTS: usize = 4;
    /// A frame of 60 KB; a few of them may be with topics' owners at a time.
    const QUESTIONS: usize = 1000;
    /// The part of the long answer that the kernel does not take is more than half of it.
    const QUEUE_BYTES_MAX: usize = 4 << 20;
    let (gateway, mut publisher) = with_long_history_and(QUEUE_BYTES_MAX).await;
    let before = gateway.metric(COMMANDS).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect_small(gateway.address).await;
        // The first answer does not fit the socket, and what else is asked has to wait until it was read.
        let history = ("history", json!({"channel": "history:long", "limit": -1}));
        let questions = (0..QUESTIONS).map(|_| ("presence_stats", json!({"channel": ROOM})));
        let ids = client.commands(std::iter::once(history).chain(questions)).await;
        clients.push((client, ids));
    }
    let waiting = (CLIENTS * 1024 * 1024) as f64;
    eventually("all histories wait", async || gateway.metric(QUEUE_BYTES).await > waiting).await;
    // Others are served meanwhile.
    publisher.publish(ROOM, json!(1)).await;
    let made = gateway.metric(COMMANDS).await - before;
    assert!(made < (CLIENTS * QUESTIONS / 10) as f64, "{made} commands were made");
    for (mut client, ids) in clients {
        let mut missing: HashSet<u32> = ids.collect();
        while !missing.is_empty() {
            let id = client.next().await["id"].take();
            assert!(id.as_u64().is_some_and(|id| missing.remove(&(id as u32))), "{id}");
        }
    }
    let all = (CLIENTS * (1 + 1 + QUESTIONS) + 1) as f64;
    assert_eq!(gateway.metric(COMMANDS).await - before, all);
}

/// Publishes numbers into a topic, from the given one on, until enough of what a metric counts came of it; returns
/// the last number.
async fn publish_until(
    gateway: &TestGateway,
    publisher: &mut Client,
    topic: &str,
    from: u64,
    (metric, label, enough): (&str, &str, f64),
) -> u64 {
    /// If the kernel takes more than this, nobody is slow; and histories keep as many.
    const PUBLICATIONS_MAX: u64 = 10_000;
    let text = "x".repeat(4096);
    for number in from..from + PUBLICATIONS_MAX {
        publisher.publish(topic, json!({"number": number, "text": text})).await;
        if number % 16 == 0 && gateway.metric_of(metric, label).await >= enough {
            return number;
        }
    }
    panic!("it never came to that");
}

/// So many publications were dropped for a client that does not read.
const ENOUGH_DROPPED: (&str, &str, f64) = (DROPPED, "", 100.0);

/// Reads publications up to one with a number, and finds them in order with one gap; returns how many came behind it.
async fn read_with_a_gap(slow: &mut Client, last: u64) -> usize {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let publication = slow.push().await["pub"]["data"].take();
        numbers.extend(publication["number"].as_u64());
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let gap = numbers.windows(2).position(|pair| pair[1] > pair[0] + 1).expect("some were dropped");
    let behind = &numbers[gap + 1..];
    assert!(behind.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    behind.len()
}

#[tokio::test]
async fn where_the_namespace_says_so_old_publications_give_way_and_the_client_stays() {
    for (topic, waiting_max) in [("newest:1", 16), ("latest:1", 1)] {
        let mut settings = settings(1);
        settings.client.queue_bytes_max = 64 * 1024;
        let gateway = TestGateway::start(settings).await;
        let mut slow = Client::connect_small(gateway.address).await;
        slow.subscribe(topic).await;
        slow.subscribe("plain").await;
        let mut publisher = gateway.client().await;
        let last = publish_until(&gateway, &mut publisher, topic, 0, ENOUGH_DROPPED).await;
        // What must not be dropped waits beside it.
        publisher.publish("plain", json!("kept")).await;
        assert!(gateway.metric(QUEUE_BYTES).await <= 64.0 * 1024.0);

        // It reads on: in order, with one gap, to the newest, and then everything as before.
        let behind = read_with_a_gap(&mut slow, last).await;
        assert!(behind <= waiting_max, "{behind}");
        assert_eq!(slow.publication().await.1["data"], "kept");
        publisher.publish(topic, json!({"number": last + 1})).await;
        assert_eq!(slow.push().await["pub"]["data"]["number"], last + 1);
    }
}

#[tokio::test]
async fn where_publications_give_way_a_client_with_a_position_is_closed_and_misses_nothing() {
    const TOPIC: &str = "stream:1";
    let mut settings = settings(1);
    settings.client.queue_bytes_max = 64 * 1024;
    let gateway = TestGateway::start(settings).await;
    let mut positioned = Client::connect_small(gateway.address).await;
    let wish = json!({"channel": TOPIC, "positioned": true, "recoverable": true});
    let position = positioned.request("subscribe", wish).await.unwrap();
    assert_eq!((&position["positioned"], &position["recoverable"]), (&json!(true), &json!(true)));
    let mut carefree = Client::connect_small(gateway.address).await;
    assert!(carefree.subscribe(TOPIC).await.get("positioned").is_none());
    let mut publisher = gateway.client().await;

    let closed = (CLOSED, r#"code="3008""#, 1.0);
    let last = publish_until(&gateway, &mut publisher, TOPIC, 0, closed).await;
    let mut count = 0;
    loop {
        let frame = positioned.socket.frame().await.unwrap();
        if frame.opcode == CLOSE {
            assert_eq!(frame.close(), (3008, "slow".into()));
            break;
        }
        let message: serde_json::Value = serde_json::from_str(frame.text()).unwrap();
        if message["push"].get("pub").is_some() {
            assert_eq!(message["push"]["pub"]["data"]["number"], count);
            count += 1;
        }
    }
    assert!(count > 0 && count <= last);
    // It comes back and has all of the stream.
    let mut again = gateway.client().await;
    let request = json!({"channel": TOPIC, "recover": true, "recoverable": true, "offset": count, "epoch": position["epoch"]});
    let joined = again.request("subscribe", request).await.unwrap();
    assert_eq!(joined["recovered"], true);
    let missed = joined["publications"].as_array().unwrap().iter();
    let missed: Vec<_> = missed.map(|missed| missed["data"]["number"].as_u64().unwrap()).collect();
    assert_eq!(missed, (count..=last).collect::<Vec<_>>());
    drop(again);

    // The one beside it stays, and has a gap.
    let last = publish_until(&gateway, &mut publisher, TOPIC, last + 1, ENOUGH_DROPPED).await;
    read_with_a_gap(&mut carefree, last).await;
    carefree.nothing_more().await;
    assert_eq!(gateway.metric_of(CLOSED, r#"code="3008""#).await, 1.0);
}
