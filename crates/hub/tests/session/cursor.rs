//! Sessions whose clients keep a cursor: the places from which they go on, and those up to which they were sent everything.

use std::sync::{Arc, Mutex};

use fanwire_hub::effect::Completion;
use fanwire_hub::session::{Control, ServerSubscribe};
use fanwire_hub::{ConnectionClaims, Expiry, GrantOptions, HistoryBounds, Namespace};
use fanwire_protocol::Cursor;
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::request::{Ask, Connect, ConnectExtras, Request, Subscribe};
use fanwire_protocol::wire::{Pings, TransportMode, Wire};

use super::harness::tokens::{grant, user};
use super::harness::{TestShard, at, position, topic};

const EVENTS: TransportMode = TransportMode { wire: Wire::Events, pings: Pings::Keepalive };

/// Topics with history, where whoever wishes so has a position and recovers; `plain` keeps nothing.
fn shard() -> TestShard {
    let ttl = std::time::Duration::from_secs(60);
    let stream = Namespace {
        history: Some(HistoryBounds { size: 10, ttl, meta_ttl: ttl }),
        allow_subscribe_for_client: true,
        allow_positioning: true,
        allow_recovery: true,
        ..Namespace::default()
    };
    let plain = Namespace { name: "plain".into(), history: None, ..stream.clone() };
    let forced = Namespace { name: "forced".into(), force_positioning: true, ..stream.clone() };
    let mut shard = TestShard::new(stream, [plain, forced]);
    shard.tokens.add_connection("token", ConnectionClaims { topics: vec![grant("mine")], ..user("42") });
    shard
}

fn cursor(places: &[(&str, u64)]) -> Cursor {
    let mut cursor = Cursor::default();
    places.iter().for_each(|(topic, offset)| cursor.set(topic, position(*offset)));
    cursor
}

/// A client that goes on from a cursor, with the topic of its token; the lines that ask for that.
fn connect(shard: &mut TestShard, mode: TransportMode, cursor: Option<Cursor>) -> (u32, Vec<String>) {
    let client = shard.open_as(mode);
    let extras = ConnectExtras { cursor: cursor.map(Box::new), ..ConnectExtras::default() };
    let connect = Connect { token: "token".into(), extras: Some(Box::new(extras)), ..Connect::default() };
    let request = Request { id: 1, ask: Ask::Connect(connect) };
    assert_eq!(shard.with(client, |session, context| session.request(context, request)), ["register 42"]);
    let lines = shard.registered(client, Ok(()));
    (client, lines)
}

fn subscribe(shard: &mut TestShard, client: u32, topic: &str, offset: Option<u64>) {
    let wishes = Subscribe { positioned: true, recoverable: true, ..Subscribe::default() };
    let request = Request { id: 2, ask: Ask::Subscribe(Subscribe { topic: topic.into(), ..wishes }) };
    shard.with(client, |session, context| session.request(context, request));
    shard.started(client, topic, offset.map_or_else(Default::default, at));
}

#[test]
fn topics_of_the_token_go_on_at_the_cursor() {
    let mut shard = shard();
    for (known, expected) in [
        (Some(cursor(&[])), "mine: subscribe 42, wants the position"),
        (Some(cursor(&[("other", 7)])), "mine: subscribe 42, wants the position"),
        (Some(cursor(&[("mine", 7)])), "mine: subscribe 42, wants what came after 7@abcdefgh"),
        // Other clients have to wish for a position, which they cannot for these.
        (None, "mine: subscribe 42"),
    ] {
        assert_eq!(connect(&mut shard, EVENTS, known.clone()).1, [expected], "{known:?}");
    }
}

#[test]
fn a_cursor_has_the_places_up_to_which_everything_was_sent() {
    let mut shard = shard();
    let (client, _) = connect(&mut shard, EVENTS, Some(Cursor::default()));
    shard.started(client, "mine", at(3));
    assert_eq!(shard.session(client).cursor(&shard.registry), cursor(&[("mine", 3)]));
    assert!(!shard.session(client).has_own_cursor(), "one topic has one cursor for all");
    subscribe(&mut shard, client, "plain:a", None);
    assert!(shard.session(client).has_own_cursor());
    subscribe(&mut shard, client, "other", Some(5));
    // Somebody else subscribes later, and stands where all stand.
    let (somebody, _) = connect(&mut shard, EVENTS, Some(Cursor::default()));
    shard.started(somebody, "mine", at(4));
    let (mine, other) =
        (shard.registry.find(&topic("mine")).unwrap(), shard.registry.find(&topic("other")).unwrap());
    let session = shard.session(client);
    assert_eq!(session.cursor(&shard.registry), cursor(&[("mine", 4), ("other", 5)]));
    assert_eq!(session.cursor_at(&shard.registry, other, position(6)), cursor(&[("mine", 4), ("other", 6)]));
    // What a delivery brings moves everybody on; where there is no position, it moves nobody.
    shard.registry.set_position(mine, position(9));
    let plain = shard.registry.find(&topic("plain:a")).unwrap();
    shard.registry.set_position(plain, position(1));
    let session = shard.session(client);
    assert_eq!(session.cursor(&shard.registry), cursor(&[("mine", 9), ("other", 5)]));
    assert_eq!(session.cursor_at(&shard.registry, plain, position(2)), cursor(&[("mine", 9), ("other", 5)]));
}

/// A topic that its cursor has no place for would be lost in silence when the client comes back.
#[test]
fn the_api_subscribes_to_no_more_topics_with_a_position_than_a_cursor_holds() {
    let mut shard = shard();
    let centrifuge = TransportMode { wire: Wire::CentrifugeJson, pings: Pings::Messages };
    for (mode, known, is_bounded) in [(EVENTS, Some(Cursor::default()), true), (centrifuge, None, false)] {
        let (client, _) = connect(&mut shard, mode, known);
        shard.started(client, "mine", at(1));
        let mut order = |topic: &str| {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let tell = heard.clone();
            let completion =
                Completion(Arc::new(move |error: RequestError| tell.lock().unwrap().push(error)));
            let subscribe = ServerSubscribe {
                topic: self::topic(topic),
                options: GrantOptions::default(),
                expiry: Expiry::Never,
                recover_since: None,
            };
            let control = Control::Subscribe(Arc::new(subscribe));
            let asked = shard.control_with(client, &control, completion);
            let heard = std::mem::take(&mut *heard.lock().unwrap());
            (asked.len(), heard)
        };
        let places = Cursor::TOPICS_MAX - usize::from(is_bounded);
        // Those on their way take their places, too.
        for number in 0..places {
            assert_eq!(order(&format!("forced:{number}")), (1, Vec::new()), "{number}");
        }
        let refused = (0, vec![RequestError::LimitExceeded]);
        assert_eq!(order("forced:more"), if is_bounded { refused } else { (1, Vec::new()) });
        // One without a position needs none.
        assert_eq!(order("plain:a"), (1, Vec::new()));
    }
}

#[test]
fn only_clients_that_keep_a_cursor_have_their_own() {
    let mut shard = shard();
    let centrifuge = TransportMode { wire: Wire::CentrifugeJson, pings: Pings::Messages };
    let (client, _) = connect(&mut shard, centrifuge, None);
    shard.started(client, "mine", at(3));
    subscribe(&mut shard, client, "other", Some(5));
    assert!(!shard.session(client).has_own_cursor());
    // Without a place in any topic there is nothing to keep apart.
    shard.tokens.add_connection("token", user("42"));
    let (client, _) = connect(&mut shard, EVENTS, Some(Cursor::default()));
    for topic in ["plain:a", "plain:b"] {
        subscribe(&mut shard, client, topic, None);
    }
    assert!(!shard.session(client).has_own_cursor());
}
