//! From history to live while publications rush in: no gap, no duplicate.

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::common::{Client, TestGateway, settings};

pub(crate) const PUBLICATIONS: u64 = 3000;

/// Fills a topic at full speed, from a connection of its own.
pub(crate) async fn fill(gateway: &TestGateway, topic: &'static str) -> JoinHandle<()> {
    let mut publisher = gateway.client().await;
    tokio::spawn(async move { publisher.publish_all(topic, 1..PUBLICATIONS as u32 + 1).await })
}

fn offsets(publications: &Value) -> Vec<u64> {
    let publications = publications.as_array().map_or(&[][..], Vec::as_slice);
    publications.iter().map(|publication| publication["offset"].as_u64().unwrap()).collect()
}

/// Subscribes from a position, checks that reply and live publications are one stream, and leaves after some of
/// them. Returns the position then.
pub(crate) async fn follow_for_a_while(client: &mut Client, topic: &str, epoch: &str, from: u64) -> u64 {
    let request = json!({"channel": topic, "recover": true, "offset": from, "epoch": epoch});
    let joined = client.request("subscribe", request).await.unwrap();
    assert_eq!((&joined["recovered"], &joined["was_recovering"]), (&json!(true), &json!(true)), "{joined}");
    let missed = offsets(&joined["publications"]);
    let mut position = from + missed.len() as u64;
    assert_eq!(missed, (from + 1..=position).collect::<Vec<_>>());
    for _ in 0..40 {
        if position == PUBLICATIONS {
            break;
        }
        let (_, publication) = client.publication().await;
        position += 1;
        assert_eq!(publication["offset"], position);
        assert_eq!(publication["data"], position);
    }
    let unsubscribed = client.command("unsubscribe", json!({"channel": topic})).await;
    // What was on its way before the unsubscribe belongs to the stream as well.
    loop {
        let message = client.next().await;
        if message["id"] == unsubscribed {
            return position;
        }
        position += 1;
        assert_eq!(message["push"]["pub"]["offset"], position, "{message}");
    }
}

#[tokio::test]
async fn subscribers_join_a_rushing_stream_without_gap_or_duplicate() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let topic = "history:race";
        let epoch = gateway.client().await.subscribe(topic).await["epoch"].as_str().unwrap().to_owned();
        let publisher = fill(&gateway, topic).await;
        let mut joiners = Vec::new();
        for _ in 0..20 {
            let (mut client, epoch) = (gateway.client().await, epoch.clone());
            joiners.push(tokio::spawn(async move {
                let mut position = 0;
                while position < PUBLICATIONS {
                    position = follow_for_a_while(&mut client, topic, &epoch, position).await;
                }
            }));
        }
        for joiner in joiners {
            joiner.await.unwrap();
        }
        publisher.await.unwrap();
    }
}

#[tokio::test]
async fn the_newest_and_then_live_ones_without_a_duplicate() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let topic = "cache:race";
        let publisher = fill(&gateway, topic).await;
        let mut client = gateway.client().await;
        let mut position = 0;
        while position < PUBLICATIONS {
            let request = json!({"channel": topic, "recover": true, "offset": 0, "epoch": ""});
            let joined = client.request("subscribe", request).await.unwrap();
            let newest = offsets(&joined["publications"]);
            assert!(newest.len() <= 1, "{joined}");
            // Without a newest one the stream is empty, and the first is still to come.
            position = newest.last().copied().unwrap_or(0);
            for _ in 0..10 {
                if position < PUBLICATIONS {
                    position += 1;
                    assert_eq!(client.publication().await.1["offset"], position);
                }
            }
            let unsubscribed = client.command("unsubscribe", json!({"channel": topic})).await;
            while client.next().await["id"] != unsubscribed {
                position += 1;
            }
        }
        publisher.await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_recovered_is_said() {
    let gateway = TestGateway::start(settings(3)).await;
    let mut client = gateway.client().await;
    client.publish_all("history:known", 0..5).await;
    let strange = json!({"channel": "history:known", "recover": true, "offset": 3, "epoch": "other"});
    let joined = client.request("subscribe", strange).await.unwrap();
    assert_eq!(joined["was_recovering"], true);
    assert_eq!((&joined["recovered"], &joined["publications"]), (&Value::Null, &Value::Null));
    assert_eq!(joined["offset"], 5);
    client.unsubscribe("history:known").await;
    let again = json!({"channel": "history:known", "recover": true, "offset": 3, "epoch": joined["epoch"]});
    let joined = client.request("subscribe", again).await.unwrap();
    assert_eq!((&joined["recovered"], &joined["offset"]), (&json!(true), &json!(3)));
    assert_eq!(offsets(&joined["publications"]), [4, 5]);
}
