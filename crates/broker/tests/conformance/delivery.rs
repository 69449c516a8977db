//! The delivered events, their order and their contents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use fanwire_broker::{Event, NewPublication};
use fanwire_protocol::Publication;

use crate::fixture::{Fixture, client, info, kept, live, told};

pub(crate) async fn subscribed_topics_deliver_and_others_do_not(fixture: Fixture) {
    let (a, b) = (fixture.topic("a"), fixture.topic("b"));
    fixture.engine.subscribe(&a).await.unwrap();
    for topic in [&a, &b] {
        fixture.publish(topic, live(topic.as_str())).await;
        fixture.keep(topic, &format!("{topic} kept")).await;
        fixture.engine.publish_join(topic, info(topic.as_str(), 1)).await.unwrap();
        fixture.engine.publish_leave(topic, info(topic.as_str(), 1)).await.unwrap();
    }
    assert_eq!(told(&fixture.events().await), ["a", "a kept", "+a", "-a"]);
}

pub(crate) async fn unsubscribed_topics_are_silent(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    fixture.keep(&topic, "1").await;
    fixture.settle().await;
    fixture.engine.unsubscribe(&topic).await.unwrap();
    fixture.keep(&topic, "2").await;
    fixture.settle().await;
    fixture.engine.subscribe(&topic).await.unwrap();
    fixture.keep(&topic, "3").await;
    assert_eq!(told(&fixture.events().await), ["1", "3"]);
}

pub(crate) async fn subscribing_twice_delivers_once(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    fixture.engine.subscribe(&topic).await.unwrap();
    fixture.keep(&topic, "1").await;
    fixture.settle().await;
    fixture.engine.unsubscribe(&topic).await.unwrap();
    fixture.engine.unsubscribe(&topic).await.unwrap();
    fixture.keep(&topic, "2").await;
    assert_eq!(told(&fixture.events().await), ["1"]);
}

pub(crate) async fn events_of_a_topic_keep_their_order(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    let mut expected = Vec::new();
    for number in 0..50 {
        let user = number.to_string();
        fixture.engine.publish_join(&topic, info(&user, number)).await.unwrap();
        fixture.publish(&topic, live(&format!("live {number}"))).await;
        fixture.keep(&topic, &format!("kept {number}")).await;
        fixture.engine.publish_leave(&topic, info(&user, number)).await.unwrap();
        expected.extend([
            format!("+{user}"),
            format!("live {number}"),
            format!("kept {number}"),
            format!("-{user}"),
        ]);
    }
    assert_eq!(told(&fixture.events().await), expected);
}

pub(crate) async fn publications_arrive_whole(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    let tags = Arc::new(BTreeMap::from([("kind".to_owned(), "test".to_owned())]));
    let whole = |publish: NewPublication| NewPublication {
        info: Some(info("u", 1)),
        tags: Some(Arc::clone(&tags)),
        exclude: Some(client(2)),
        ..publish
    };
    let begun = unix_millis();
    fixture.publish(&topic, whole(live("live"))).await;
    let position = fixture.publish(&topic, whole(kept("kept"))).await.position.unwrap();
    let events = fixture.events().await;
    // Redis' clock is that of this machine, in whole milliseconds.
    let known = begun - 1000..=unix_millis() + 1000;

    let time = |place: usize| match &events[place] {
        Event::Publication { publication, .. } => publication.time,
        other => panic!("{other:?}"),
    };
    assert!(known.contains(&time(0)) && known.contains(&time(1)), "{events:?} {known:?}");
    let expected = |data: &'static str, offset, time| Publication {
        data: data.into(),
        info: Some(info("u", 1)),
        tags: Some(Arc::clone(&tags)),
        offset,
        time,
        exclude: Some(client(2)),
    };
    let event = |publication, epoch| Event::Publication {
        topic: topic.clone(),
        publication: Arc::new(publication),
        epoch,
    };
    let kept = expected("kept", 1, time(1));
    let live = event(expected("live", 0, time(0)), None);
    assert_eq!(events, [live, event(kept.clone(), Some(position.epoch))]);
    let recovery = fixture.recover(&topic, 0, "").await;
    assert_eq!(recovery.publications, [Arc::new(kept)]);
}

fn unix_millis() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}
