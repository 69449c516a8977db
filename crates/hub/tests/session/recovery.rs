//! Recovery: what the topic's owner is asked, and the exact fields of every result.

use fanwire_hub::effect::SubscriptionStart;
use fanwire_hub::{HistoryBounds, Namespace, RecoveryMode};
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::{ClientId, Publication};

use super::harness::{TestShard, at, recovered, topic};

fn recoverable(mode: RecoveryMode) -> Namespace {
    let ttl = std::time::Duration::from_secs(60);
    Namespace {
        allow_subscribe_for_client: true,
        history: Some(HistoryBounds { size: 10, ttl, meta_ttl: ttl }),
        force_recovery: true,
        recovery_mode: mode,
        ..Namespace::default()
    }
}

/// Checks the question to the owner after `request`, and the fields of the result that its answer leads to.
#[track_caller]
fn check(namespace: &Namespace, request: &str, asked: &str, start: SubscriptionStart, result: &str) {
    let mut shard = TestShard::new(namespace.clone(), []);
    let client = shard.connect("42");
    let command = format!(r#"{{"id":2,"subscribe":{{"channel":"news"{request}}}}}"#);
    shard.check(client, &command, &[&format!("news: subscribe 42{asked}")]);
    let lines = shard.started(client, "news", start);
    assert_eq!(lines, [format!(r#"{{"id":2,"subscribe":{{{result}}}}}"#)], "{request}");
}

const RECOVER_FROM_5: &str = r#","recover":true,"offset":5,"epoch":"abcdefgh""#;

#[test]
fn a_first_subscribe_gets_the_top() {
    let stream = recoverable(RecoveryMode::Stream);
    let wants = ", wants the position";
    check(&stream, "", wants, at(9), r#""recoverable":true,"epoch":"abcdefgh","offset":9,"positioned":true"#);
    // The place in the stream is told only to those that ask for recovery.
    let unasked = r#","offset":5,"epoch":"abcdefgh""#;
    check(
        &stream,
        unasked,
        wants,
        at(9),
        r#""recoverable":true,"epoch":"abcdefgh","offset":9,"positioned":true"#,
    );
    // An empty stream has an epoch, too.
    check(&stream, "", wants, at(0), r#""recoverable":true,"epoch":"abcdefgh","positioned":true"#);
}

#[test]
fn a_recovered_client_gets_what_it_missed_and_its_own_offset() {
    let stream = recoverable(RecoveryMode::Stream);
    let wants = ", wants what came after 5@abcdefgh";
    check(
        &stream,
        RECOVER_FROM_5,
        wants,
        recovered(7, &[6, 7]),
        concat!(
            r#""recoverable":true,"epoch":"abcdefgh","#,
            r#""publications":[{"data":60,"offset":6},{"data":70,"offset":7}],"#,
            r#""recovered":true,"offset":5,"positioned":true,"was_recovering":true"#
        ),
    );
    check(
        &stream,
        RECOVER_FROM_5,
        wants,
        recovered(5, &[]),
        r#""recoverable":true,"epoch":"abcdefgh","recovered":true,"offset":5,"positioned":true,"was_recovering":true"#,
    );
    check(
        &stream,
        r#","recover":true"#,
        ", wants what came after 0@",
        recovered(1, &[1]),
        concat!(
            r#""recoverable":true,"epoch":"abcdefgh","publications":[{"data":10,"offset":1}],"#,
            r#""recovered":true,"positioned":true,"was_recovering":true"#
        ),
    );
}

#[test]
fn an_unrecovered_client_gets_the_top_and_nothing_else() {
    let stream = recoverable(RecoveryMode::Stream);
    let lost = r#""recoverable":true,"epoch":"abcdefgh","offset":9,"positioned":true,"was_recovering":true"#;
    check(&stream, RECOVER_FROM_5, ", wants what came after 5@abcdefgh", at(9), lost);
    // The sentinel of client libraries whose state was invalidated.
    let sentinel = r#","recover":true,"epoch":"_""#;
    check(&stream, sentinel, ", wants what came after 0@_", at(9), lost);
    // Bit 1 of the flag means something else.
    let flag = format!(r#"{RECOVER_FROM_5},"flag":1"#);
    check(&stream, &flag, ", wants what came after 5@abcdefgh", at(9), lost);
}

#[test]
fn a_client_may_ask_for_an_error_instead() {
    for flag in [2, 3] {
        let mut shard = TestShard::new(recoverable(RecoveryMode::Stream), []);
        let client = shard.connect("42");
        shard.check(
            client,
            &format!(r#"{{"id":2,"subscribe":{{"channel":"news"{RECOVER_FROM_5},"flag":{flag}}}}}"#),
            &["news: subscribe 42, wants what came after 5@abcdefgh or nothing"],
        );
        assert_eq!(
            shard.subscribed(client, "news", Err(RequestError::UnrecoverablePosition)),
            [r#"{"id":2,"error":{"code":112,"message":"unrecoverable position"}}"#]
        );
    }
}

#[test]
fn nothing_is_recovered_where_that_is_not_allowed() {
    let positioned =
        Namespace { force_recovery: false, force_positioning: true, ..recoverable(RecoveryMode::Stream) };
    let result = r#""epoch":"abcdefgh","offset":9,"positioned":true"#;
    check(&positioned, RECOVER_FROM_5, ", wants the position", at(9), result);
    let plain = Namespace { force_recovery: false, ..recoverable(RecoveryMode::Stream) };
    check(&plain, RECOVER_FROM_5, "", SubscriptionStart::default(), "");
    // Even if the owner says where the stream stands.
    check(&plain, RECOVER_FROM_5, "", at(9), "");
    let granted = Namespace { allow_recovery: true, ..plain };
    check(
        &granted,
        &format!(r#"{RECOVER_FROM_5},"recoverable":true"#),
        ", wants what came after 5@abcdefgh",
        recovered(5, &[]),
        r#""recoverable":true,"epoch":"abcdefgh","recovered":true,"offset":5,"positioned":true,"was_recovering":true"#,
    );
}

#[test]
fn cache_mode_gives_the_newest() {
    let cache = recoverable(RecoveryMode::Cache);
    let wants = ", wants the newest, has 5@abcdefgh";
    let prefix = r#""recoverable":true,"epoch":"abcdefgh""#;
    // The offset is just below the newest, even if the client's own, of an earlier epoch, was above: clients drop
    // what is not above the offset of the result.
    check(
        &cache,
        RECOVER_FROM_5,
        wants,
        recovered(9, &[9]),
        &format!(
            r#"{prefix},"publications":[{{"data":90,"offset":9}}],"recovered":true,"offset":8,"positioned":true,"was_recovering":true"#
        ),
    );
    // It is there already.
    check(
        &cache,
        RECOVER_FROM_5,
        wants,
        recovered(5, &[]),
        &format!(r#"{prefix},"recovered":true,"offset":5,"positioned":true,"was_recovering":true"#),
    );
    // The newest is gone.
    check(
        &cache,
        RECOVER_FROM_5,
        wants,
        at(9),
        &format!(r#"{prefix},"offset":9,"positioned":true,"was_recovering":true"#),
    );
    check(&cache, "", ", wants the position", at(9), &format!(r#"{prefix},"offset":9,"positioned":true"#));
}

#[test]
fn cache_mode_may_give_the_newest_unasked() {
    let cache = Namespace { auto_cache_recover: true, ..recoverable(RecoveryMode::Cache) };
    let prefix = r#""recoverable":true,"epoch":"abcdefgh""#;
    check(
        &cache,
        "",
        ", wants the newest, has 0@",
        recovered(9, &[9]),
        &format!(
            r#"{prefix},"publications":[{{"data":90,"offset":9}}],"recovered":true,"offset":8,"positioned":true,"was_recovering":true"#
        ),
    );
    check(
        &cache,
        "",
        ", wants the newest, has 0@",
        at(0),
        &format!(r#"{prefix},"positioned":true,"was_recovering":true"#),
    );
    // It needs recovery, and cache mode.
    let positioned = Namespace { force_recovery: false, force_positioning: true, ..cache.clone() };
    check(
        &positioned,
        "",
        ", wants the position",
        at(9),
        r#""epoch":"abcdefgh","offset":9,"positioned":true"#,
    );
    let stream = Namespace { recovery_mode: RecoveryMode::Stream, ..cache };
    check(&stream, "", ", wants the position", at(9), &format!(r#"{prefix},"offset":9,"positioned":true"#));
}

#[test]
fn a_lost_position_ends_the_subscription() {
    let mut shard = TestShard::new(recoverable(RecoveryMode::Stream), []);
    let client = shard.connect("42");
    shard.check(
        client,
        r#"{"id":2,"subscribe":{"channel":"news"}}"#,
        &["news: subscribe 42, wants the position"],
    );
    assert_eq!(shard.started(client, "news", at(3)).len(), 1);
    let news = shard.registry.find(&topic("news")).expect("somebody is subscribed");
    assert_eq!(
        shard.with(client, |session, context| session.lose_position(context, news)),
        [
            "news: unsubscribe 42",
            r#"{"push":{"channel":"news","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#,
        ]
    );
    // It comes back at once, without having unsubscribed.
    shard.check(
        client,
        r#"{"id":3,"subscribe":{"channel":"news","recover":true,"offset":3,"epoch":"abcdefgh"}}"#,
        &["news: subscribe 42, wants what came after 3@abcdefgh"],
    );
}

#[test]
fn what_excludes_the_client_is_not_among_it() {
    let stream = recoverable(RecoveryMode::Stream);
    let mut shard = TestShard::new(stream, []);
    let client = shard.connect("42");
    shard.say(client, &format!(r#"{{"id":2,"subscribe":{{"channel":"news"{RECOVER_FROM_5}}}}}"#));
    let mut start = recovered(8, &[6, 7, 8]);
    let exclude =
        [Some(shard.session(client).client()), ClientId::parse("00000000-0000-4000-8000-000000000099"), None];
    for (publication, exclude) in start.recovered.iter_mut().flatten().zip(exclude) {
        *publication = Publication { exclude, ..Publication::clone(publication) }.into();
    }
    assert_eq!(
        shard.started(client, "news", start),
        [concat!(
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"abcdefgh","#,
            r#""publications":[{"data":70,"offset":7},{"data":80,"offset":8}],"#,
            r#""recovered":true,"offset":6,"positioned":true,"was_recovering":true}}"#
        )]
    );
}
