//! Presence: joins and leaves come in order, and a reply is true at its moment.

use serde_json::json;

use crate::common::{TEXT, TestGateway, eventually, frame, identity, settings};

const ROOM: &str = "room:1";

#[tokio::test]
async fn a_client_is_told_of_its_own_join_after_the_reply_and_of_others_in_order() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut host = gateway.client().await;
        let id = host.command("subscribe", json!({"channel": ROOM})).await;
        assert_eq!(host.next().await["id"], id, "the reply comes first");
        let own = host.next().await["push"].take();
        assert_eq!(identity(&own, "join"), host.id());

        for _ in 0..5 {
            let mut guest = gateway.client().await;
            guest.subscribe(ROOM).await;
            assert_eq!(identity(&host.push().await, "join"), guest.id());
            assert_eq!(identity(&guest.push().await, "join"), guest.id());
            guest.unsubscribe(ROOM).await;
            assert_eq!(identity(&host.push().await, "leave"), guest.id());
        }
    }
}

#[tokio::test]
async fn joins_and_leaves_of_a_restless_client_alternate() {
    const ROUNDS: usize = 50;
    const GUESTS: usize = 4;
    let gateway = TestGateway::start(settings(3)).await;
    let mut host = gateway.client().await;
    host.subscribe(ROOM).await;
    host.push().await;
    let mut guests = Vec::new();
    for _ in 0..GUESTS {
        let mut guest = gateway.client().await;
        let round = ["subscribe", "unsubscribe"].map(|method| (method, json!({"channel": ROOM})));
        let all = std::iter::repeat_n(round, ROUNDS).flatten();
        guest.commands(all).await;
        guests.push(guest);
    }
    let mut is_in = std::collections::HashMap::new();
    for _ in 0..2 * GUESTS * ROUNDS {
        let push = host.push().await;
        let kind = if push.get("join").is_some() { "join" } else { "leave" };
        let was_in = is_in.insert(identity(&push, kind).to_owned(), kind == "join");
        assert_eq!(was_in.unwrap_or(false), kind == "leave", "{push}");
    }
    assert_eq!(host.present(ROOM).await, 1);
}

#[tokio::test]
async fn presence_is_true_at_every_reply() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut observer = gateway.client().await;
        let mut guests = Vec::new();
        for number in 1..=10 {
            let mut guest = gateway.client_with(&json!({"sub": "ann", "info": {"n": number}})).await;
            guest.subscribe(ROOM).await;
            assert_eq!(observer.present(ROOM).await, number);
            guests.push(guest);
        }
        let presence = observer.request("presence", json!({"channel": ROOM})).await.unwrap();
        for (number, guest) in (1..).zip(&guests) {
            let expected = json!({"user": "ann", "client": guest.id(), "conn_info": {"n": number}});
            assert_eq!(presence["presence"][guest.id()], expected);
        }
        for (number, mut guest) in (0..10).rev().zip(guests) {
            guest.unsubscribe(ROOM).await;
            assert_eq!(observer.present(ROOM).await, number);
        }
    }
}

#[tokio::test]
async fn whoever_goes_is_gone_whichever_way_it_goes() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut observer = gateway.client().await;
        let mut guests = Vec::new();
        for _ in 0..4 {
            let mut guest = gateway.client().await;
            guest.subscribe(ROOM).await;
            guests.push(guest);
        }
        let [mut polite, mut half, abrupt, mut wrong] = guests.try_into().ok().unwrap();

        polite.socket.send(frame(crate::common::CLOSE, [])).await;
        polite.closed().await;
        assert_eq!(observer.present(ROOM).await, 3, "the answer to a close says that all is done");

        wrong.socket.send(frame(TEXT, "no command")).await;
        assert_eq!(wrong.closed().await.0, 3501);
        assert_eq!(observer.present(ROOM).await, 2);

        half.socket.finish().await;
        eventually("a client that sends no more is gone", async || observer.present(ROOM).await == 1).await;

        abrupt.socket.vanish();
        eventually("a client that was cut is gone", async || observer.present(ROOM).await == 0).await;
    }
}
