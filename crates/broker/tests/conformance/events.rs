//! The events of members: each once, in order, whatever is repeated.

use std::time::Duration;

use fanwire_broker::{EngineError, Member, StoredEvent};
use fanwire_protocol::reason::{Close, CloseReason, Left, Unsubscribed};
use fanwire_protocol::{EventMask, TopicName};

use crate::fixture::{Fixture, OFFLINE_DELAY, client, info, quiet, told};

const ALL: EventMask = EventMask::from_bits(15);

pub(crate) async fn the_first_occupies_and_the_last_vacates(fixture: Fixture) {
    let topic = fixture.topic("t");
    join(&fixture, &topic, "a", 1).await;
    join(&fixture, &topic, "b", 2).await;
    leave(&fixture, &topic, 1).await;
    leave(&fixture, &topic, 2).await;
    let expected = [
        "t occupied",
        "t a +1",
        "t b +2",
        "t a -1 0 client unsubscribed",
        "t b -2 0 client unsubscribed",
        "t vacated",
    ];
    check(&fixture, &expected).await;
    let events = fixture.stored().await;
    assert!(events.is_sorted_by(|before, after| before.id < after.id));
    assert!(events.iter().all(|event| event.time > 1_700_000_000_000));
    assert_eq!(events[1].topic, Some(topic));
    assert_eq!(events[1].id.to_string().split('-').count(), 3);
}

pub(crate) async fn repeats_are_said_once(fixture: Fixture) {
    let topic = fixture.topic("t");
    for _ in 0..3 {
        join(&fixture, &topic, "a", 1).await;
    }
    for _ in 0..3 {
        leave(&fixture, &topic, 1).await;
    }
    leave(&fixture, &topic, 2).await;
    check(&fixture, &["t occupied", "t a +1", "t a -1 0 client unsubscribed", "t vacated"]).await;
}

pub(crate) async fn events_of_users_have_their_own_names(fixture: Fixture) {
    let user = fixture.topic("!user:42");
    join(&fixture, &user, "42", 1).await;
    assert!(fixture.engine.admit(&user, member("42", 2, ALL), 2).await.unwrap());
    assert!(!fixture.engine.admit(&user, member("42", 3, ALL), 2).await.unwrap());
    let gone = Left::Closed(CloseReason::Shutdown.into());
    for number in [1, 2] {
        fixture.engine.remove_presence(&user, client(number), &gone).await.unwrap();
    }
    let anonymous = fixture.topic("!anonymous:n:0");
    let connections = EventMask::JOIN | EventMask::LEAVE;
    fixture.engine.add_presence(&anonymous, vec![member("", 7, connections)]).await.unwrap();
    fixture.engine.remove_presence(&anonymous, client(7), &Left::Gone).await.unwrap();
    let expected = [
        "- 42 online",
        "- 42 connected 1",
        "- 42 connected 2",
        "- 42 disconnected 1 3001 shutdown",
        "- 42 disconnected 2 3001 shutdown",
        "- 42 offline",
    ];
    let events = told_events(&fixture.stored().await);
    let (of_user, others): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.contains("42"));
    assert_eq!(of_user, expected);
    assert_eq!(others, ["-  connected 7", "-  disconnected 7 3000 connection closed"]);
}

pub(crate) async fn reasons_are_told(fixture: Fixture) {
    let topic = fixture.topic("t");
    let words = Left::Closed(Close::by_application(4200, "ünder maintenance".into()));
    let reasons = [
        (Left::Unsubscribed, "0 client unsubscribed"),
        (Left::ByServer(Unsubscribed::ByServer), "2000 server unsubscribe"),
        (Left::ByServer(Unsubscribed::Expired), "2501 subscription expired"),
        (Left::Gone, "3000 connection closed"),
        (Left::Closed(CloseReason::Slow.into()), "3008 slow"),
        (words, "4200 ünder maintenance"),
        (Left::Refused, "2 request refused"),
    ];
    for (left, expected) in reasons {
        let only_leaves = member("u", 1, EventMask::LEAVE);
        fixture.engine.add_presence(&topic, vec![only_leaves]).await.unwrap();
        fixture.engine.remove_presence(&topic, client(1), &left).await.unwrap();
        check(&fixture, &[&format!("t u -1 {expected}")]).await;
        take_all(&fixture).await;
    }
}

pub(crate) async fn only_what_is_wanted_is_written(fixture: Fixture) {
    for (name, mask, expected) in [
        ("joins", EventMask::JOIN, vec!["joins a +1"]),
        ("leaves", EventMask::LEAVE, vec!["leaves a -1 0 client unsubscribed"]),
        ("occupied", EventMask::OCCUPIED, vec!["occupied occupied"]),
        ("vacated", EventMask::VACATED, vec!["vacated vacated"]),
        ("nothing", EventMask::NONE, vec![]),
    ] {
        let topic = fixture.topic(name);
        fixture.engine.add_presence(&topic, vec![member("a", 1, mask)]).await.unwrap();
        leave(&fixture, &topic, 1).await;
        check(&fixture, &expected).await;
        take_all(&fixture).await;
    }
    assert_eq!(fixture.engine.presence(&fixture.topic("joins"), usize::MAX).await.unwrap(), []);
}

pub(crate) async fn members_with_events_are_present_as_others(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    let announced = Member::new(info("a", 1), true).with_events(ALL);
    fixture.engine.add_presence(&topic, vec![announced, member("b", 2, ALL)]).await.unwrap();
    let stats = fixture.engine.presence_stats(&topic).await.unwrap();
    assert_eq!((stats.clients, stats.users), (2, 2));
    let mut users: Vec<_> = fixture.engine.presence(&topic, usize::MAX).await.unwrap();
    users.sort_by_key(|info| info.client);
    assert_eq!(users, [info("a", 1), info("b", 2)]);
    leave(&fixture, &topic, 1).await;
    leave(&fixture, &topic, 2).await;
    assert_eq!(told(&fixture.events().await), ["-a"]);
    assert_eq!(fixture.engine.presence_stats(&topic).await.unwrap().clients, 0);
}

pub(crate) async fn many_join_together(fixture: Fixture) {
    const CLIENTS: u128 = 1200;
    let topic = fixture.topic("t");
    let members = (1..=CLIENTS).map(|number| member(&"ü".repeat(100), number, ALL));
    fixture.engine.add_presence(&topic, members.collect()).await.unwrap();
    let events = fixture.stored().await;
    assert_eq!(events.len(), 1 + CLIENTS as usize);
    assert_eq!(events[0].user, None);
    let clients: Vec<_> = events[1..].iter().map(|event| event.client.unwrap()).collect();
    assert_eq!(clients, (1..=CLIENTS).map(client).collect::<Vec<_>>());
    assert!(events[1..].iter().all(|event| event.user.as_deref() == Some(&*"ü".repeat(100))));
}

pub(crate) async fn who_comes_back_soon_was_never_away(fixture: Fixture) {
    let fixture = fixture.with_offline_delay().await;
    let topic = fixture.topic("!user:u");
    join(&fixture, &topic, "u", 1).await;
    leave(&fixture, &topic, 1).await;
    fixture.say_due().await;
    join(&fixture, &topic, "u", 2).await;
    fixture.pass(OFFLINE_DELAY + Duration::from_secs(1)).await;
    fixture.say_due().await;
    let stayed =
        ["- u online", "- u connected 1", "- u disconnected 1 0 client unsubscribed", "- u connected 2"];
    check(&fixture, &stayed).await;

    leave(&fixture, &topic, 2).await;
    check(&fixture, &[&stayed[..], &["- u disconnected 2 0 client unsubscribed"]].concat()).await;
    fixture.pass(OFFLINE_DELAY + Duration::from_secs(1)).await;
    for _ in 0..2 {
        fixture.say_due().await;
        let left = [&stayed[..], &["- u disconnected 2 0 client unsubscribed", "- u offline"]].concat();
        check(&fixture, &left).await;
    }
    join(&fixture, &topic, "u", 3).await;
    let events = told_events(&fixture.stored().await);
    assert_eq!(events[6..], ["- u online", "- u connected 3"]);
}

pub(crate) async fn two_members_of_one_user_are_one(fixture: Fixture) {
    let user = fixture.topic("!user:u");
    for _ in 0..2 {
        join(&fixture, &user, "u", 1).await;
        join(&fixture, &user, "u", 2).await;
        leave(&fixture, &user, 1).await;
        join(&fixture, &user, "u", 3).await;
        leave(&fixture, &user, 2).await;
        leave(&fixture, &user, 3).await;
    }
    let gone = |number| format!("- u disconnected {number} 0 client unsubscribed");
    let come = |number| format!("- u connected {number}");
    let visit = [
        "- u online".to_owned(),
        come(1),
        come(2),
        gone(1),
        come(3),
        gone(2),
        gone(3),
        "- u offline".to_owned(),
    ];
    assert_eq!(told_events(&fixture.stored().await), [&visit[..], &visit[..]].concat());
}

pub(crate) async fn what_was_read_is_removed(fixture: Fixture) {
    let topic = fixture.topic("t");
    for number in 1..=5 {
        join(&fixture, &topic, "u", number).await;
    }
    let outbox = fixture.engine.outbox().unwrap();
    let slots = outbox.slots().await.unwrap();
    assert_eq!(slots.len(), 1);
    let first = outbox.read(&slots, 3).await.unwrap();
    assert_eq!(told_events(&first), ["t occupied", "t u +1", "t u +2"]);
    assert_eq!(outbox.read(&slots, 3).await.unwrap(), first);
    outbox.remove(&[first[2].id]).await.unwrap();
    outbox.remove(&[first[0].id]).await.unwrap();
    let rest = outbox.read(&slots, 100).await.unwrap();
    assert_eq!(told_events(&rest), ["t u +3", "t u +4", "t u +5"]);
    outbox.remove(&[rest[2].id]).await.unwrap();
    assert_eq!(outbox.read(&slots, 100).await.unwrap(), []);
    // Ids grow all the same.
    leave(&fixture, &topic, 1).await;
    let next = outbox.read(&slots, 100).await.unwrap();
    assert!(next.len() == 1 && next[0].id > rest[2].id);
}

pub(crate) async fn a_topic_without_events_has_no_outbox(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    leave(&fixture, &topic, 1).await;
    assert_eq!(fixture.engine.outbox().unwrap().slots().await, Ok::<_, EngineError>(Vec::new()));
}

fn member(user: &str, number: u128, events: EventMask) -> Member {
    Member::new(info(user, number), false).with_events(events)
}

pub(crate) async fn join(fixture: &Fixture, topic: &TopicName, user: &str, number: u128) {
    fixture.engine.add_presence(topic, vec![member(user, number, ALL)]).await.unwrap();
}

pub(crate) async fn leave(fixture: &Fixture, topic: &TopicName, number: u128) {
    fixture.engine.remove_presence(topic, client(number), &Left::Unsubscribed).await.unwrap();
}

async fn take_all(fixture: &Fixture) {
    for event in fixture.stored().await {
        fixture.engine.outbox().unwrap().remove(&[event.id]).await.unwrap();
    }
}

async fn check(fixture: &Fixture, expected: &[&str]) {
    assert_eq!(told_events(&fixture.stored().await), expected);
}

/// Events in short: topic or `-`, user, what, client, reason.
pub(crate) fn told_events(events: &[StoredEvent]) -> Vec<String> {
    events.iter().map(tell).collect()
}

fn tell(event: &StoredEvent) -> String {
    let topic = event.topic.as_ref().map_or("-", |topic| topic.as_str());
    let user = event.user.as_ref().map(|user| format!(" {user}")).unwrap_or_default();
    let kind = event.kind.as_str();
    let kind = match kind {
        "subscribed" => "+",
        "unsubscribed" => "-",
        kind => kind.trim_start_matches("topic_").trim_start_matches("user_"),
    };
    let gap = if kind.len() > 1 { " " } else { "" };
    let client = event.client.map(|client| format!("{gap}{}", client.0.as_u128())).unwrap_or_default();
    let reason = event.reason.as_ref().map(|(code, text)| format!(" {code} {text}")).unwrap_or_default();
    format!("{topic}{user} {kind}{client}{reason}")
}
