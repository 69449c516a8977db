//! The properties of a subscription: the namespace's options, a token's overrides on top, then the wishes that
//! the namespace grants.

use fanwire_hub::registry::{Subscriber, SubscriberKind};
use fanwire_hub::{
    GrantOptions, HistoryBounds, Namespace, Overrides, RecoveryMode, SlowPolicy, SubscriptionClaims,
};
use fanwire_protocol::EventMask;

use super::harness::tokens::to;
use super::harness::{TestShard, at, topic};

fn history() -> Option<HistoryBounds> {
    let ttl = std::time::Duration::from_secs(60);
    Some(HistoryBounds { size: 10, ttl, meta_ttl: ttl })
}

fn open() -> Namespace {
    Namespace { allow_subscribe_for_client: true, ..Namespace::default() }
}

fn with_history() -> Namespace {
    Namespace { history: history(), ..open() }
}

/// The request to the topic's owner, the result, and whether joins are told and the position is watched.
#[track_caller]
fn check(
    namespace: Namespace,
    overrides: Overrides,
    wishes: &str,
    asked: &str,
    result: &str,
    fanout: (bool, bool),
) {
    let mut shard = TestShard::new(namespace, []);
    let options = GrantOptions { overrides, ..GrantOptions::default() };
    shard.tokens.add_subscription("token", SubscriptionClaims { options, ..to("news") });
    let client = shard.connect("42");
    let token = if overrides == Overrides::default() { "" } else { r#","token":"token""# };
    let command = format!(r#"{{"id":2,"subscribe":{{"channel":"news"{token}{wishes}}}}}"#);
    shard.check(client, &command, &[&format!("news: subscribe 42{asked}")]);
    let lines = shard.started(client, "news", at(7));
    assert_eq!(lines, [format!(r#"{{"id":2,"subscribe":{{{result}}}}}"#)]);
    let topic = shard.registry.topic(shard.registry.find(&topic("news")).expect("the topic is there"));
    let [Subscriber { kind, positioned, .. }] = topic.subscribers[..] else { panic!("{topic:?}") };
    let SubscriberKind { joins, .. } = shard.registry.kinds()[usize::from(kind)];
    assert_eq!((joins, positioned), fanout);
}

const PLAIN: (bool, bool) = (false, false);
const POSITIONED: (bool, bool) = (false, true);
const JOINS: (bool, bool) = (true, false);
const AT_7: &str = r#""epoch":"abcdefgh","offset":7,"positioned":true"#;
const RECOVERABLE_AT_7: &str = r#""recoverable":true,"epoch":"abcdefgh","offset":7,"positioned":true"#;
const WANTS_POSITION: &str = ", wants the position";

#[test]
fn the_namespace_decides() {
    let no = Overrides::default();
    check(open(), no, "", "", "", PLAIN);
    check(Namespace { presence: true, ..open() }, no, "", " +presence", "", PLAIN);
    check(Namespace { join_leave: true, ..open() }, no, "", " +join_leave", "", PLAIN);
    let pushed = Namespace { join_leave: true, force_push_join_leave: true, ..open() };
    check(pushed, no, "", " +join_leave", "", JOINS);
    // Membership is kept for events too, though nobody may read it.
    let with_events = || Namespace { events: EventMask::JOIN, ..open() };
    check(with_events(), no, "", " +presence", "", PLAIN);
    check(with_events(), Overrides { presence: Some(false), ..no }, "", "", "", PLAIN);
    // There is nothing to push where nothing is told.
    check(Namespace { force_push_join_leave: true, ..open() }, no, "", "", "", PLAIN);
    let positioned = Namespace { force_positioning: true, ..with_history() };
    check(positioned, no, "", WANTS_POSITION, AT_7, POSITIONED);
    let recoverable = Namespace { force_recovery: true, ..with_history() };
    check(recoverable, no, "", WANTS_POSITION, RECOVERABLE_AT_7, POSITIONED);
    // Without a stream there is neither.
    check(Namespace { force_positioning: true, force_recovery: true, ..open() }, no, "", "", "", PLAIN);
}

#[test]
fn a_token_turns_options_on() {
    let on = |set: fn(&mut Overrides, Option<bool>)| {
        let mut overrides = Overrides::default();
        set(&mut overrides, Some(true));
        overrides
    };
    check(open(), on(|o, v| o.presence = v), "", " +presence", "", PLAIN);
    check(open(), on(|o, v| o.join_leave = v), "", " +join_leave", "", PLAIN);
    let told = Namespace { join_leave: true, ..open() };
    check(told, on(|o, v| o.force_push_join_leave = v), "", " +join_leave", "", JOINS);
    check(with_history(), on(|o, v| o.force_positioning = v), "", WANTS_POSITION, AT_7, POSITIONED);
    check(with_history(), on(|o, v| o.force_recovery = v), "", WANTS_POSITION, RECOVERABLE_AT_7, POSITIONED);
    check(open(), on(|o, v| o.force_recovery = v), "", "", "", PLAIN);
}

#[test]
fn a_token_turns_options_off() {
    let all = || Namespace {
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        force_positioning: true,
        force_recovery: true,
        ..with_history()
    };
    let off = |set: fn(&mut Overrides, Option<bool>)| {
        let mut overrides = Overrides::default();
        set(&mut overrides, Some(false));
        overrides
    };
    let both = " +presence +join_leave, wants the position";
    check(all(), Overrides::default(), "", both, RECOVERABLE_AT_7, (true, true));
    check(
        all(),
        off(|o, v| o.presence = v),
        "",
        " +join_leave, wants the position",
        RECOVERABLE_AT_7,
        (true, true),
    );
    check(
        all(),
        off(|o, v| o.join_leave = v),
        "",
        " +presence, wants the position",
        RECOVERABLE_AT_7,
        POSITIONED,
    );
    check(all(), off(|o, v| o.force_push_join_leave = v), "", both, RECOVERABLE_AT_7, POSITIONED);
    check(all(), off(|o, v| o.force_recovery = v), "", both, AT_7, (true, true));
    // What can be recovered has a position.
    check(all(), off(|o, v| o.force_positioning = v), "", both, RECOVERABLE_AT_7, (true, true));
    let neither =
        Overrides { force_positioning: Some(false), force_recovery: Some(false), ..Overrides::default() };
    check(all(), neither, "", " +presence +join_leave", "", JOINS);
}

#[test]
fn wishes_are_granted_where_the_namespace_allows_them() {
    let no = Overrides::default();
    let positioned = r#","positioned":true"#;
    let recoverable = r#","recoverable":true"#;
    let join_leave = r#","join_leave":true"#;

    check(with_history(), no, positioned, "", "", PLAIN);
    let allowed = || Namespace { allow_positioning: true, ..with_history() };
    check(allowed(), no, positioned, WANTS_POSITION, AT_7, POSITIONED);
    check(allowed(), no, recoverable, "", "", PLAIN);
    check(Namespace { history: None, ..allowed() }, no, positioned, "", "", PLAIN);

    check(with_history(), no, recoverable, "", "", PLAIN);
    let allowed = || Namespace { allow_recovery: true, ..with_history() };
    check(allowed(), no, recoverable, WANTS_POSITION, RECOVERABLE_AT_7, POSITIONED);
    check(allowed(), no, positioned, "", "", PLAIN);

    // Whoever may read history may as well; a subscriber-to-be counts as a subscriber.
    let readable = || Namespace { allow_history_for_subscriber: true, ..with_history() };
    check(readable(), no, positioned, WANTS_POSITION, AT_7, POSITIONED);
    check(readable(), no, recoverable, WANTS_POSITION, RECOVERABLE_AT_7, POSITIONED);

    let told = || Namespace { join_leave: true, ..open() };
    check(told(), no, join_leave, " +join_leave", "", PLAIN);
    for readable in [
        Namespace { allow_presence_for_subscriber: true, ..told() },
        Namespace { allow_presence_for_client: true, ..told() },
    ] {
        check(readable, no, join_leave, " +join_leave", "", JOINS);
    }
    check(Namespace { allow_presence_for_client: true, ..open() }, no, join_leave, "", "", PLAIN);

    // Wishes come on top of a token's overrides.
    let off = Overrides { force_recovery: Some(false), ..no };
    let forced = Namespace { force_recovery: true, allow_recovery: true, ..with_history() };
    check(forced, off, recoverable, WANTS_POSITION, RECOVERABLE_AT_7, POSITIONED);
}

#[test]
fn an_anonymous_client_s_wishes_need_the_option_for_anonymous_clients() {
    for (for_anonymous, asked) in
        [(false, "news: subscribe nobody"), (true, "news: subscribe nobody, wants the position")]
    {
        let namespace = Namespace {
            allow_subscribe_for_anonymous: true,
            allow_history_for_subscriber: true,
            allow_history_for_anonymous: for_anonymous,
            ..with_history()
        };
        let mut shard = TestShard::new(namespace, []);
        let client = shard.connect("nobody");
        shard.check(client, r#"{"id":2,"subscribe":{"channel":"news","positioned":true}}"#, &[asked]);
    }
}

/// Returns the treatment of publications for which a subscriber of such a namespace is too slow.
fn slow_policy(namespace: Namespace, overrides: Overrides, wishes: &str) -> SlowPolicy {
    let mut shard = TestShard::new(namespace, []);
    let options = GrantOptions { overrides, ..GrantOptions::default() };
    shard.tokens.add_subscription("token", SubscriptionClaims { options, ..to("news") });
    let client = shard.connect("42");
    shard.say(client, &format!(r#"{{"id":2,"subscribe":{{"channel":"news","token":"token"{wishes}}}}}"#));
    shard.started(client, "news", at(7));
    let topic = shard.registry.topic(shard.registry.find(&topic("news")).expect("the topic is there"));
    let [Subscriber { kind, .. }] = topic.subscribers[..] else { panic!("{topic:?}") };
    let SubscriberKind { slow, .. } = shard.registry.kinds()[usize::from(kind)];
    slow
}

#[test]
fn whoever_has_a_position_in_a_stream_gets_all_of_it_or_is_closed() {
    const POSITIONED: &str = r#","positioned":true"#;
    const RECOVERABLE: &str = r#","recoverable":true"#;
    let no = Overrides::default();
    for policy in [SlowPolicy::Close, SlowPolicy::DropOldest, SlowPolicy::KeepLatest] {
        let kept = || Namespace {
            slow_policy: policy,
            allow_positioning: true,
            allow_recovery: true,
            ..with_history()
        };
        // Without a position, whether there is a stream or not: a wish that is not granted is none.
        for namespace in [kept(), Namespace { history: None, ..kept() }] {
            assert_eq!(slow_policy(namespace, no, ""), policy);
        }
        let not_allowed = Namespace { allow_positioning: false, allow_recovery: false, ..kept() };
        let no_stream = Namespace { history: None, ..kept() };
        for namespace in [not_allowed, no_stream] {
            assert_eq!(slow_policy(namespace, no, &[POSITIONED, RECOVERABLE].concat()), policy);
        }
        // With one, whoever wanted it.
        for wishes in [POSITIONED, RECOVERABLE] {
            assert_eq!(slow_policy(kept(), no, wishes), SlowPolicy::Close, "{policy:?}, {wishes}");
        }
        for namespace in
            [Namespace { force_positioning: true, ..kept() }, Namespace { force_recovery: true, ..kept() }]
        {
            assert_eq!(slow_policy(namespace, no, ""), SlowPolicy::Close, "{policy:?}");
        }
        let forced = Overrides { force_positioning: Some(true), ..no };
        assert_eq!(slow_policy(kept(), forced, ""), SlowPolicy::Close, "{policy:?}");
        let forced = Namespace { force_positioning: true, ..kept() };
        let freed = Overrides { force_positioning: Some(false), ..no };
        assert_eq!(slow_policy(forced, freed, ""), policy);
        // Of a cache only the newest matters, and that is never dropped.
        let cache = || Namespace { recovery_mode: RecoveryMode::Cache, ..kept() };
        for wishes in ["", POSITIONED, RECOVERABLE] {
            assert_eq!(slow_policy(cache(), no, wishes), policy, "{wishes}");
        }
        assert_eq!(slow_policy(Namespace { force_recovery: true, ..cache() }, no, ""), policy);
    }
}
