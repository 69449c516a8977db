//! Publishing by a hook.

use std::sync::Arc;

use fanwire_hub::effect::{Answer, Effect, TopicRequest};
use fanwire_hub::hook::{PublishChange, PublishOptions};
use fanwire_protocol::Tags;
use fanwire_protocol::request::{Ask, Publish, Request};

use super::super::harness::Outcome;
use super::*;

fn publish(id: u32, topic: &str, data: u32) -> String {
    format!(r#"{{"id":{id},"publish":{{"channel":"{topic}","data":{data}}}}}"#)
}

fn change(change: PublishChange) -> Hooked {
    Ok(HookResult::Publish(change.into()))
}

#[test]
fn every_answer_has_its_consequence() {
    let unfit = "unfit data is not JSON in UTF-8; send JSON, or set publication_format to \"not_empty\"";
    let long_key = PublishOptions { version_epoch: "e".repeat(257).into(), ..Default::default() };
    let options = PublishOptions { skip_history: true, version: 7, ..Default::default() };
    let table: [(Hooked, Vec<String>); 8] = [
        (unchanged(), vec!["news: publish #2 1 by 42".into()]),
        (
            change(PublishChange { data: Some("9".into()), tags: None, options: options.clone() }),
            vec![format!("news: publish #2 9 by 42 {options:?}")],
        ),
        (refused(), vec![refusal(2)]),
        (failed(), vec![failure(2)]),
        (granted(), vec![failure(2)]),
        (sent_away(), vec!["unregister 42".into(), "close 4001 go".into()]),
        (
            change(PublishChange { data: Some("{".into()), ..Default::default() }),
            vec![unfit.into(), failure(2)],
        ),
        (
            change(PublishChange { options: long_key, ..Default::default() }),
            vec!["unfit idempotency_key or version_epoch is longer than 256 bytes".into(), failure(2)],
        ),
    ];
    for (answer, expected) in table {
        let mut shard = hooked();
        let client = shard.connect("42");
        shard.check(client, &publish(2, "news", 1), &["hook 1: publish news 1 by 42"]);
        let of = format!("{answer:?}");
        assert_eq!(shard.hooked(client, 1, answer), expected, "{of}");
        assert_eq!(shard.hooked(client, 1, unchanged()), [""; 0], "{of}: an answer counts once");
    }
}

#[test]
fn the_hook_takes_the_place_of_permissions_and_of_nothing_else() {
    let mut shard = hooked();
    let client = shard.connect("42");
    for (publish, outcome) in [
        (r#""channel":"other:news","data":1"#, Outcome::Error(102)),
        (r#""channel":"!news","data":1"#, Outcome::Error(107)),
        (r#""channel":"news""#, Outcome::Error(107)),
        (r#""channel":"news","data":1,"type":1"#, Outcome::Error(107)),
        (r#""channel":"news","data":1"#, Outcome::Asks),
    ] {
        assert_eq!(shard.outcome(client, &format!(r#""publish":{{{publish}}}"#)), outcome, "{publish}");
    }
}

#[test]
fn the_hook_sees_the_tags_and_may_change_them() {
    let tags = |value: &str| Some(Arc::new(Tags::from([("tag".to_owned(), value.to_owned())])));
    let mut shard = hooked();
    let client = shard.connect("42");
    for changed in [None, tags("new")] {
        let publish =
            Publish { topic: "news".into(), data: "1".into(), tags: tags("old"), ..Publish::default() };
        let request = Request { id: 2, ask: Ask::Publish(publish) };
        let lines = shard.with(client, |session, context| session.request(context, request));
        assert_eq!(lines, ["hook 1: publish news 1 tag=old by 42"]);
        let expected = changed.clone().or(tags("old"));
        let answer = change(PublishChange { tags: changed, ..Default::default() });
        let answer = Answer::Hooked(fanwire_hub::hook::HookAnswer { number: 1, outcome: answer }.into());
        let effects = shard.effects(client, |session, context| session.answer(context, answer));
        let [Effect::Topic(_, TopicRequest::Publish { tags, options: None, .. })] = &effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(*tags, expected);
    }
}

/// One topic at a time, and topics side by side.
#[test]
fn publications_of_a_topic_keep_their_order() {
    let mut shard = hooked();
    let client = shard.connect("42");
    shard.check(client, &publish(2, "a", 1), &["hook 1: publish a 1 by 42"]);
    shard.check(client, &publish(3, "a", 2), &[]);
    shard.check(client, &publish(4, "b", 3), &["hook 2: publish b 3 by 42"]);
    shard.check(client, r#"{"id":5,"unsubscribe":{"channel":"a"}}"#, &[]);
    shard.check(client, &publish(6, "a", 4), &[]);
    shard.check(client, r#"{"id":7,"rpc":{"method":"m"}}"#, &["hook 3: rpc m by 42"]);
    assert_eq!(shard.hooked(client, 2, unchanged()), ["b: publish #4 3 by 42"]);
    assert_eq!(shard.hooked(client, 1, unchanged()), ["a: publish #2 1 by 42", "hook 4: publish a 2 by 42"]);
    assert_eq!(
        shard.hooked(client, 4, refused()),
        [refusal(3), r#"{"id":5,"unsubscribe":{}}"#.to_owned(), "hook 5: publish a 4 by 42".to_owned()]
    );
    assert_eq!(shard.hooked(client, 5, unchanged()), ["a: publish #6 4 by 42"]);
    assert_eq!(shard.session(client).waiting_bytes(), 0);
}

#[test]
fn what_waits_has_its_bounds() {
    let mut shard = hooked();
    shard.settings.pending_commands_max = 3;
    let client = shard.connect("42");
    let lines: Vec<_> = (1..=4).flat_map(|id| shard.say(client, &publish(id, "a", id))).collect();
    assert_eq!(lines, ["hook 1: publish a 1 by 42"]);
    assert!(shard.session(client).lets_requests_wait());
    let full = shard.say(client, &publish(5, "a", 5));
    assert_eq!(full, ["unregister 42", "close 3013 too many requests"]);
    assert_eq!(shard.session(client).waiting_bytes(), 0);

    let client = shard.connect("42");
    for number in 0..16 {
        assert!(!shard.session(client).is_busy());
        shard.say(client, &publish(2, &format!("topic {number}"), 1));
    }
    assert!(shard.session(client).is_busy(), "16 questions are enough");
    shard.hooked(client, 7, failed());
    assert!(!shard.session(client).is_busy());
}
