//! Answers are bounded in bytes: whoever asks for much gets it in pieces, and whoever does not read holds little.

use std::collections::HashSet;
use std::time::Duration;

use fanwire_server::Settings;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::common::{Client, TestGateway, eventually, settings, within};

const QUEUE_BYTES: &str = "fanwire_send_queue_bytes";
const CLOSED: &str = "fanwire_connections_closed_total";
const RECOVERIES: &str = "fanwire_recoveries_total";

const STREAM: &str = "history:long";

/// The bytes of answers read from topics that a shard has in progress at most.
const ANSWERS_BYTES_MAX: f64 = (24 << 20) as f64;

/// The bytes that one connection may add to that: the longest answer and its other messages.
const SLACK_BYTES: f64 = (4 << 20) as f64;

/// The bounds that a node has by default.
fn bounded(shards: usize) -> Settings {
    let mut settings = settings(shards);
    settings.client.answer_bytes_max = 1 << 20;
    settings.client.recovery_bytes_max = 4 << 20;
    settings
}

/// A node, and in it a stream of so many publications of that length.
async fn with_stream(settings: Settings, publications: usize, length: usize) -> (TestGateway, Client) {
    let gateway = TestGateway::start(settings).await;
    let mut publisher = gateway.client().await;
    for number in 0..publications {
        publisher.publish(STREAM, json!({"number": number, "text": "x".repeat(length)})).await;
    }
    (gateway, publisher)
}

fn everything() -> Value {
    json!({"channel": STREAM, "limit": -1})
}

fn numbers(result: &Value) -> Vec<u64> {
    let publications = result["publications"].as_array().into_iter().flatten();
    publications.map(|publication| publication["data"]["number"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_long_history_comes_in_pages() {
    for shards in [1, 3] {
        let mut settings = bounded(shards);
        settings.client.answer_bytes_max = 256 << 10;
        let (gateway, mut client) = with_stream(settings, 40, 20_000).await;
        let (mut all, mut pages) = (Vec::new(), 0);
        let mut since = json!({"offset": 0, "epoch": ""});
        loop {
            let page = json!({"channel": STREAM, "limit": -1, "since": since});
            let page = client.request("history", page).await.unwrap();
            assert!(page.to_string().len() < 300_000);
            all.extend(numbers(&page));
            pages += 1;
            let last = &page["publications"].as_array().unwrap().last().unwrap()["offset"];
            if *last == page["offset"] {
                break;
            }
            since = json!({"offset": last, "epoch": page["epoch"]});
        }
        assert_eq!(all, (0..40).collect::<Vec<_>>());
        assert_eq!(pages, 4);
        // Backward just so.
        let page = client
            .request("history", json!({"channel": STREAM, "limit": -1, "reverse": true}))
            .await
            .unwrap();
        assert_eq!(numbers(&page), (27..40).rev().collect::<Vec<_>>());
        // One always comes, and a page that is small by its count is whole.
        let page = client.request("history", json!({"channel": STREAM, "limit": 3})).await.unwrap();
        assert_eq!(numbers(&page), [0, 1, 2]);
        gateway.shutdown().await;
    }
}

#[tokio::test]
async fn a_publication_longer_than_a_page_comes_alone() {
    let mut settings = bounded(1);
    settings.client.answer_bytes_max = 10_000;
    let (_gateway, mut client) = with_stream(settings, 3, 50_000).await;
    assert_eq!(numbers(&client.request("history", everything()).await.unwrap()), [0]);
}

/// Short answers do not overtake long ones, nor do other commands for the topic.
#[tokio::test]
async fn replies_of_a_topic_keep_their_order_however_long_they_are() {
    for shards in [1, 3] {
        let (_gateway, mut client) = with_stream(bounded(shards), 60, 10_000).await;
        let mut ids = Vec::new();
        for round in 0..10 {
            let publish = json!({"channel": STREAM, "data": {"number": 60 + 2 * round}});
            let commands = [
                ("history", everything()),
                ("publish", publish),
                ("history", json!({"channel": STREAM, "limit": 1})),
                ("publish", json!({"channel": STREAM, "data": {"number": 61 + 2 * round}})),
            ];
            ids.extend(client.commands(commands).await);
        }
        for (place, id) in ids.into_iter().enumerate() {
            let reply = client.reply(id).await.unwrap();
            match place % 4 {
                // What was published behind a question is not in its answer.
                0 => assert_eq!(numbers(&reply), (0..60 + place as u64 / 2).collect::<Vec<_>>()),
                2 => assert_eq!(numbers(&reply), [0]),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_presence_list_that_is_too_long_is_refused() {
    const ROOM: &str = "room:1";
    for shards in [1, 3] {
        let mut settings = bounded(shards);
        settings.client.answer_bytes_max = 1000;
        let gateway = TestGateway::start(settings).await;
        let mut members = Vec::new();
        for number in 0..20 {
            let mut member = gateway.client().await;
            member.subscribe(ROOM).await;
            members.push(member);
            let answer = members[0].request("presence", json!({"channel": ROOM})).await;
            // Each takes 64 bytes, and nothing was said of anybody.
            if number < 15 {
                assert_eq!(answer.unwrap()["presence"].as_object().unwrap().len(), number + 1);
            } else {
                assert_eq!(answer.unwrap_err(), json!({"code": 106, "message": "limit exceeded"}));
            }
        }
        assert_eq!(members[0].present(ROOM).await, 20);
    }
}

#[tokio::test]
async fn what_was_missed_is_recovered_up_to_its_bytes() {
    for shards in [1, 3] {
        let mut settings = bounded(shards);
        settings.client.recovery_bytes_max = 500_000;
        let (gateway, mut client) = with_stream(settings, 60, 10_000).await;
        let epoch = client.request("history", json!({"channel": STREAM})).await.unwrap()["epoch"].take();
        let recover = |offset: u64, flag: u32| json!({"channel": STREAM, "recover": true, "offset": offset, "epoch": epoch, "flag": flag});
        for (offset, recovered) in [(0, false), (5, false), (15, true), (58, true), (60, true)] {
            let joined = client.request("subscribe", recover(offset, 0)).await.unwrap();
            assert_eq!(joined["was_recovering"], true);
            assert_eq!(joined.get("recovered").is_some(), recovered, "{offset}");
            assert_eq!(numbers(&joined), if recovered { (offset..60).collect() } else { Vec::new() });
            let position = if recovered { offset } else { 60 };
            assert_eq!(joined["offset"].as_u64().unwrap_or(0), position);
            client.unsubscribe(STREAM).await;
        }
        assert_eq!(gateway.metric_of(RECOVERIES, r#"result="too_long""#).await, 2.0);
        assert_eq!(gateway.metric_of(RECOVERIES, r#"result="complete""#).await, 3.0);
        // Whoever wants it all or nothing is told so.
        let refused = client.request("subscribe", recover(0, 2)).await.unwrap_err();
        assert_eq!(refused["code"], 112);
        // From then on nothing is missed.
        client.request("subscribe", recover(0, 0)).await.unwrap();
        client.publish(STREAM, json!({"number": 60})).await;
        assert_eq!(client.publication().await.1["data"]["number"], 60);
    }
}

/// The subscriptions of one connect have one bound together.
#[tokio::test]
async fn a_connect_recovers_no_more_than_one_subscribe() {
    for shards in [1, 3] {
        let mut settings = bounded(shards);
        settings.client.recovery_bytes_max = 100_000;
        let gateway = TestGateway::start(settings).await;
        let mut publisher = gateway.client().await;
        let topics: Vec<String> = (0..12).map(|number| format!("history:{number}")).collect();
        let mut subs = serde_json::Map::new();
        for (place, topic) in topics.iter().enumerate() {
            for number in 0..4 {
                // Short ones and long ones.
                let length = if place % 2 == 0 { 2000 } else { 12_000 };
                publisher.publish(topic, json!({"number": number, "text": "x".repeat(length)})).await;
            }
            let epoch =
                publisher.request("history", json!({"channel": topic})).await.unwrap()["epoch"].take();
            subs.insert(topic.clone(), json!({"recover": true, "offset": 0, "epoch": epoch}));
        }
        let client = Client::connect(gateway.address, json!({"subs": subs})).await;
        let joined = client.connected["subs"].as_object().unwrap();
        assert_eq!(joined.len(), topics.len());
        let mut recovered = 0;
        for result in joined.values() {
            assert_eq!(result["was_recovering"], true);
            match result.get("recovered") {
                Some(_) => {
                    assert_eq!(numbers(result), [0, 1, 2, 3]);
                    recovered += 1;
                }
                None => assert_eq!((numbers(result), &result["offset"]), (vec![], &json!(4))),
            }
        }
        // All six that are short and one of the others, or only two of the others if those were answered first.
        assert!((2..=7).contains(&recovered), "{recovered}");
        assert!(client.connected.to_string().len() < 130_000);
    }
}

/// Takes a node's figure again and again while something goes on, and returns the greatest.
async fn greatest(gateway: &TestGateway, name: &str, until: impl Future<Output = ()>) -> f64 {
    let mut greatest: f64 = 0.0;
    let look = async {
        loop {
            greatest = greatest.max(gateway.metric(name).await);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = look => {}
        () = until => {}
    }
    greatest
}

/// Everybody asks for two hundred times what a connection may hold, and reads nothing. Others are served meanwhile, with
/// long answers too, and in the end everything is given back.
#[tokio::test]
async fn a_crowd_that_asks_and_does_not_read_holds_little_and_gives_way() {
    const CROWD: usize = 30;
    for shards in [1, 3] {
        let mut settings = bounded(shards);
        // The witness does not listen while the crowd comes and goes.
        settings.client.ping_interval = None;
        let (gateway, mut witness) = with_stream(settings, 150, 20_000).await;
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            let mut client = Client::connect_small(gateway.address).await;
            client.commands((0..100).map(|_| ("history", everything()))).await;
            crowd.push(client);
        }
        let is_answered = async {
            for _ in 0..20 {
                witness.present("room:1").await;
            }
            // Room is made for whoever reads.
            eventually("a long answer", async || {
                let page = witness.request("history", everything()).await;
                page.is_ok_and(|page| numbers(&page).len() > 40)
            })
            .await;
        };
        let most = greatest(&gateway, QUEUE_BYTES, within("honest clients are served", is_answered)).await;
        assert!(most <= shards as f64 * (ANSWERS_BYTES_MAX + SLACK_BYTES), "{most}");
        crowd.drain(..).for_each(|client| client.socket.vanish());
        eventually("nothing waits", async || gateway.metric(QUEUE_BYTES).await == 0.0).await;
        // Nobody else was closed.
        witness.nothing_more().await;
    }
}

/// Those that hold the room and take nothing are let go, and those who read get everything.
#[tokio::test]
async fn whoever_reads_is_answered_and_whoever_does_not_is_let_go() {
    let mut settings = bounded(1);
    // The kernel takes half of it at most.
    settings.client.answer_bytes_max = 3 << 20;
    let (gateway, _witness) = with_stream(settings, 150, 20_000).await;
    let mut crowd = Vec::new();
    for _ in 0..60 {
        let mut client = Client::connect_small(gateway.address).await;
        client.commands((0..10).map(|_| ("history", everything()))).await;
        crowd.push(client);
    }
    let mut reader = gateway.client().await;
    let mut missing: HashSet<u32> =
        reader.commands((0..10).map(|_| ("history", everything()))).await.collect();
    while !missing.is_empty() {
        let reply = reader.next().await;
        assert!(missing.remove(&(reply["id"].as_u64().unwrap() as u32)));
    }
    eventually("some are let go", async || gateway.metric_of(CLOSED, r#"code="3008""#).await > 0.0).await;
    drop(crowd);
    eventually("nothing waits", async || gateway.metric(QUEUE_BYTES).await == 0.0).await;
}

/// Those that take a little again and again, so that what they hold would be held for long, make room as well.
#[tokio::test]
async fn whoever_takes_little_gives_way_to_those_who_wait() {
    const CROWD: usize = 30;
    let mut settings = bounded(1);
    settings.client.answer_bytes_max = 3 << 20;
    let (gateway, mut witness) = with_stream(settings, 150, 20_000).await;
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..CROWD {
        let mut client = Client::connect_small(gateway.address).await;
        client.commands((0..10).map(|_| ("history", everything()))).await;
        crowd.spawn(async move {
            // 40 KB a second: what waits for it would take a minute.
            let (mut stream, mut piece) = (client.socket.into_stream(), vec![0; 16 << 10]);
            while stream.read(&mut piece).await.is_ok_and(|count| count > 0) {
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
        });
    }
    eventually("the crowd holds the room", async || {
        gateway.metric(QUEUE_BYTES).await > ANSWERS_BYTES_MAX / 4.0
    })
    .await;
    // Room goes to others of the crowd as well.
    eventually("a long answer", async || {
        let page = witness.request("history", everything()).await;
        page.is_ok_and(|page| numbers(&page).len() > 100)
    })
    .await;
}
