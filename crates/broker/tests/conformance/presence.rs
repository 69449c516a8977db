//! Presence in a topic, by name and by number.

use fanwire_broker::{EngineError, Event, Member, PresenceStats};
use fanwire_protocol::TopicName;
use fanwire_protocol::reason::Left;

use crate::fixture::{Fixture, META_TTL, announced, client, info, quiet, told};

pub(crate) async fn nobody_is_present_at_first(fixture: Fixture) {
    let topic = fixture.topic("t");
    check(&fixture, &topic, &[], 0).await;
    fixture.engine.remove_presence(&topic, client(1), &Left::Gone).await.unwrap();
    check(&fixture, &topic, &[], 0).await;
}

pub(crate) async fn clients_are_present_until_removed(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    fixture.engine.add_presence(&topic, quiet("b", 2)).await.unwrap();
    check(&fixture, &topic, &[("a", 1), ("b", 2)], 2).await;
    fixture.engine.remove_presence(&topic, client(1), &Left::Gone).await.unwrap();
    check(&fixture, &topic, &[("b", 2)], 1).await;
    fixture.engine.remove_presence(&topic, client(1), &Left::Gone).await.unwrap();
    check(&fixture, &topic, &[("b", 2)], 1).await;
    fixture.engine.remove_presence(&topic, client(2), &Left::Gone).await.unwrap();
    check(&fixture, &topic, &[], 0).await;
}

/// More than one command of an engine.
pub(crate) async fn many_become_present_together(fixture: Fixture) {
    const CLIENTS: u32 = 1200;
    let topic = fixture.topic("t");
    let member = |number: u32| {
        Member::new(info(if number.is_multiple_of(2) { "even" } else { "odd" }, number.into()), false)
    };
    fixture.engine.add_presence(&topic, (1..=CLIENTS).map(member).collect()).await.unwrap();
    let stats = fixture.engine.presence_stats(&topic).await.unwrap();
    assert_eq!(stats, PresenceStats { clients: CLIENTS as usize, users: 2 });
    let mut present: Vec<_> =
        fixture.engine.presence(&topic, usize::MAX).await.unwrap().iter().map(|info| info.client).collect();
    present.sort();
    assert_eq!(present, (1..=CLIENTS).map(|number| client(number.into())).collect::<Vec<_>>());
    fixture.engine.add_presence(&topic, Vec::new()).await.unwrap();
}

pub(crate) async fn a_list_that_is_too_long_is_refused(fixture: Fixture) {
    let topic = fixture.topic("t");
    let members: Vec<_> = (1..=100).flat_map(|number| quiet("a", number)).collect();
    let bytes: usize = members.iter().map(|member| member.info.answer_bytes()).sum();
    fixture.engine.add_presence(&topic, members).await.unwrap();
    assert_eq!(fixture.engine.presence(&topic, bytes).await.unwrap().len(), 100);
    for bytes_max in [bytes - 1, bytes / 2, 0] {
        assert_eq!(fixture.engine.presence(&topic, bytes_max).await, Err(EngineError::TooLong));
    }
    assert_eq!(fixture.engine.presence(&fixture.topic("nobody"), 0).await, Ok(Vec::new()));
}

pub(crate) async fn a_client_is_replaced_by_its_newer_self(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    let mut newer = (*info("a", 1)).clone();
    newer.subscription = "{\"typing\":true}".into();
    fixture.engine.add_presence(&topic, vec![Member::new(newer.clone().into(), false)]).await.unwrap();
    assert_eq!(fixture.engine.presence(&topic, usize::MAX).await.unwrap(), [newer.into()]);
    check(&fixture, &topic, &[("a", 1)], 1).await;
}

pub(crate) async fn a_client_that_changes_its_user_is_counted_right(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    fixture.engine.add_presence(&topic, quiet("b", 1)).await.unwrap();
    check(&fixture, &topic, &[("b", 1)], 1).await;
    fixture.engine.remove_presence(&topic, client(1), &Left::Gone).await.unwrap();
    check(&fixture, &topic, &[], 0).await;
}

pub(crate) async fn users_are_counted_once(fixture: Fixture) {
    let topic = fixture.topic("t");
    for number in 1..=3 {
        fixture.engine.add_presence(&topic, quiet("a", number)).await.unwrap();
    }
    fixture.engine.add_presence(&topic, quiet("b", 4)).await.unwrap();
    check(&fixture, &topic, &[("a", 1), ("a", 2), ("a", 3), ("b", 4)], 2).await;
    for number in 1..=2 {
        fixture.engine.remove_presence(&topic, client(number), &Left::Gone).await.unwrap();
    }
    check(&fixture, &topic, &[("a", 3), ("b", 4)], 2).await;
    fixture.engine.remove_presence(&topic, client(3), &Left::Gone).await.unwrap();
    check(&fixture, &topic, &[("b", 4)], 1).await;
}

pub(crate) async fn anonymous_clients_are_one_user(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.add_presence(&topic, quiet("", 1)).await.unwrap();
    fixture.engine.add_presence(&topic, quiet("", 2)).await.unwrap();
    fixture.engine.add_presence(&topic, quiet("a", 3)).await.unwrap();
    check(&fixture, &topic, &[("", 1), ("", 2), ("a", 3)], 2).await;
}

pub(crate) async fn topics_do_not_share_presence(fixture: Fixture) {
    let (a, b) = (fixture.topic("a"), fixture.topic("b"));
    fixture.engine.add_presence(&a, quiet("u", 1)).await.unwrap();
    fixture.engine.add_presence(&b, quiet("u", 2)).await.unwrap();
    fixture.engine.remove_presence(&a, client(2), &Left::Gone).await.unwrap();
    check(&fixture, &a, &[("u", 1)], 1).await;
    check(&fixture, &b, &[("u", 2)], 1).await;
}

pub(crate) async fn presence_is_not_history(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    fixture.keep(&topic, "1").await;
    fixture.engine.remove_history(&topic).await.unwrap();
    fixture.engine.unsubscribe(&topic).await.unwrap();
    fixture.pass(META_TTL * 2).await;
    check(&fixture, &topic, &[("a", 1)], 1).await;
}

pub(crate) async fn an_announced_leave_is_told_once(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    fixture.engine.add_presence(&topic, announced("a", 1)).await.unwrap();
    fixture.engine.add_presence(&topic, announced("b", 2)).await.unwrap();
    assert_eq!(told(&fixture.events().await), [""; 0]);
    for _ in 0..2 {
        fixture.engine.remove_presence(&topic, client(1), &Left::Gone).await.unwrap();
    }
    fixture.engine.remove_presence(&topic, client(3), &Left::Gone).await.unwrap();
    let events = fixture.events().await;
    assert_eq!(events, [Event::Leave { topic: topic.clone(), info: info("a", 1) }]);
    check(&fixture, &topic, &[("b", 2)], 1).await;
    // A client that returns can leave again.
    fixture.engine.add_presence(&topic, announced("a", 1)).await.unwrap();
    fixture.engine.remove_presence(&topic, client(1), &Left::Gone).await.unwrap();
    assert_eq!(told(&fixture.events().await), ["-a"]);
}

pub(crate) async fn a_leave_that_is_not_announced_is_not_told(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    fixture.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    fixture.engine.remove_presence(&topic, client(1), &Left::Gone).await.unwrap();
    assert_eq!(told(&fixture.events().await), [""; 0]);
    // The last value counts.
    fixture.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    fixture.engine.add_presence(&topic, announced("a", 1)).await.unwrap();
    fixture.engine.add_presence(&topic, announced("b", 2)).await.unwrap();
    fixture.engine.add_presence(&topic, quiet("b", 2)).await.unwrap();
    for number in [1, 2] {
        fixture.engine.remove_presence(&topic, client(number), &Left::Gone).await.unwrap();
    }
    assert_eq!(told(&fixture.events().await), ["-a"]);
}

pub(crate) async fn joins_and_leaves_keep_their_order(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    let mut expected = Vec::new();
    for number in 0..20 {
        let info = info(&number.to_string(), number);
        fixture.engine.add_presence(&topic, vec![Member::new(info.clone(), true)]).await.unwrap();
        fixture.engine.publish_join(&topic, info).await.unwrap();
        fixture.engine.remove_presence(&topic, client(number), &Left::Gone).await.unwrap();
        expected.extend([format!("+{number}"), format!("-{number}")]);
    }
    assert_eq!(told(&fixture.events().await), expected);
}

pub(crate) async fn only_so_many_are_admitted(fixture: Fixture) {
    let topic = fixture.topic("t");
    for number in 1..=3 {
        assert!(fixture.engine.admit(&topic, info("a", number), 3).await.unwrap());
    }
    assert!(!fixture.engine.admit(&topic, info("a", 4), 3).await.unwrap());
    // A present client takes no further place.
    assert!(fixture.engine.admit(&topic, info("b", 2), 3).await.unwrap());
    check(&fixture, &topic, &[("a", 1), ("b", 2), ("a", 3)], 2).await;
    fixture.engine.remove_presence(&topic, client(1), &Left::Gone).await.unwrap();
    assert!(fixture.engine.admit(&topic, info("c", 4), 3).await.unwrap());
    assert!(!fixture.engine.admit(&topic, info("d", 5), 3).await.unwrap());
    check(&fixture, &topic, &[("b", 2), ("a", 3), ("c", 4)], 3).await;
    // Others may still be added, and are counted.
    fixture.engine.add_presence(&topic, quiet("e", 6)).await.unwrap();
    assert!(!fixture.engine.admit(&topic, info("d", 5), 4).await.unwrap());
    assert!(fixture.engine.admit(&topic, info("d", 5), 5).await.unwrap());
}

pub(crate) async fn who_was_admitted_goes_without_a_word(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    assert!(fixture.engine.admit(&topic, info("a", 1), 1).await.unwrap());
    fixture.engine.remove_presence(&topic, client(1), &Left::Gone).await.unwrap();
    assert_eq!(told(&fixture.events().await), [""; 0]);
    check(&fixture, &topic, &[], 0).await;
}

/// Checks that exactly these clients of that many users are present.
async fn check(fixture: &Fixture, topic: &TopicName, expected: &[(&str, u128)], users: usize) {
    let mut present = fixture.engine.presence(topic, usize::MAX).await.unwrap();
    present.sort_by_key(|info| info.client);
    let expected: Vec<_> = expected.iter().map(|(user, number)| ((*user).into(), client(*number))).collect();
    let seen: Vec<(Box<str>, _)> = present.iter().map(|info| (info.user.clone(), info.client)).collect();
    assert_eq!(seen, expected);
    let stats = fixture.engine.presence_stats(topic).await.unwrap();
    assert_eq!(stats, PresenceStats { clients: expected.len(), users });
}
