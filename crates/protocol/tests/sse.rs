//! Server-Sent Events, to the byte.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_protocol::plain::event;
use fanwire_protocol::reason::{Close, CloseReason};
use fanwire_protocol::reply::Push;
use fanwire_protocol::wire::{Form, Pings, Wire};
use fanwire_protocol::{ClientId, ClientInfo, Cursor, Epoch, Position, Publication, TopicName};

fn news() -> TopicName {
    TopicName::new("news").expect("the name is not empty")
}

#[track_caller]
fn check(write: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let mut to = Vec::new();
    write(&mut to);
    assert_eq!(String::from_utf8_lossy(&to), expected);
}

#[track_caller]
fn check_publication(publication: &Publication, expected: &str) {
    check_with_time(publication, false, expected);
}

#[track_caller]
fn check_with_time(publication: &Publication, shows_time: bool, expected: &str) {
    let publication = Arc::new(publication.clone());
    let push = Push::Publication { topic: news(), publication, epoch: None, shows_time };
    let Form::Bytes(event) = Wire::Events.push(&push) else { panic!("a publication has a form") };
    assert_eq!(String::from_utf8_lossy(&event), expected);
}

#[test]
fn publications() {
    let bare = Publication { data: Bytes::from_static(b"{\"a\":1}"), ..Publication::default() };
    check_publication(&bare, "data: {\"topic\":\"news\",\"data\":{\"a\":1}}\n\n");

    let info = ClientInfo {
        user: "42".into(),
        client: ClientId::parse("00000000-0000-0000-0000-000000000007").expect("this is a UUID"),
        connection: Bytes::from_static(b"{\n}"),
        subscription: Bytes::new(),
    };
    let full = Publication {
        data: Bytes::from_static(b"{\r\n  \"a\": \"\\n\"\r\n}\n"),
        info: Some(Arc::new(info)),
        tags: Some(Arc::new(BTreeMap::from([("k".to_owned(), "line\nline".to_owned())]))),
        offset: 7,
        ..Publication::default()
    };
    check_publication(
        &full,
        concat!(
            r#"data: {"topic":"news","data":{  "a": "\n"},"offset":7,"tags":{"k":"line\nline"},"#,
            r#""info":{"user":"42","client":"00000000-0000-0000-0000-000000000007","conn_info":{}}}"#,
            "\n\n"
        ),
    );

    let timed = Publication { time: 1_764_457_200_000, ..bare.clone() };
    check_publication(&timed, "data: {\"topic\":\"news\",\"data\":{\"a\":1}}\n\n");
    let told = "data: {\"topic\":\"news\",\"data\":{\"a\":1},\"time\":1764457200000}\n\n";
    check_with_time(&timed, true, told);

    let empty = Publication { data: Bytes::new(), tags: Some(Arc::default()), ..bare };
    check_publication(&empty, "data: {\"topic\":\"news\"}\n\n");
}

/// The cursor of one topic is part of what all share; another takes its place without a copy of the rest.
#[test]
fn a_publication_that_is_kept_has_a_cursor() {
    let publication = Publication { data: Bytes::from_static(b"1"), offset: 7, ..Publication::default() };
    let at = Position { epoch: Epoch::parse(b"abcdefgh").expect("eight letters"), offset: 7 };
    let (topic, publication, epoch) = (news(), Arc::new(publication), Some(at.epoch));
    let push = Push::Publication { topic, publication, epoch, shows_time: false };
    let shared = Wire::Events.encode(&push, None);
    let mut cursor = Cursor::default();
    cursor.set("news", at);
    let event = |cursor: &Cursor| {
        format!("id: {}\ndata: {{\"topic\":\"news\",\"data\":1,\"offset\":7}}\n\n", cursor.text())
    };
    assert_eq!(shared.bytes, event(&cursor));
    check_line(&push, &cursor, &cursor);

    let one = cursor.clone();
    cursor.set("weather", Position { offset: 300, ..at });
    let pieces = Wire::Events.with_cursor(&shared, &cursor);
    assert_eq!(pieces.concat(), event(&cursor).as_bytes());
    let bytes = shared.bytes.as_ptr_range();
    assert!(bytes.contains(&pieces[1].as_ptr()) && pieces[1].as_ptr_range().end == bytes.end);
    check_line(&push, &one, &cursor);
}

/// As a line, with the cursor of its topic alone and with another; made by itself and of the event.
#[track_caller]
fn check_line(push: &Push, one: &Cursor, other: &Cursor) {
    let line = |cursor: &Cursor| {
        format!("{{\"cursor\":\"{}\",\"topic\":\"news\",\"data\":1,\"offset\":7}}\n", cursor.text())
    };
    let shared = Wire::Lines.encode(push, None);
    assert_eq!(shared.bytes, line(one));
    let event = Wire::Events.encode(push, None);
    assert_eq!(Wire::Lines.encode(push, Some((Wire::Events, &event))), shared);
    assert_eq!(Wire::Events.encode(push, Some((Wire::Lines, &shared))), event);
    assert_eq!(Wire::Lines.with_cursor(&shared, other).concat(), line(other).as_bytes());
}

#[test]
fn a_stream_begins_with_its_topics() {
    let (news, weather) = (news(), TopicName::new("weather").expect("the name is not empty"));
    let cursor = Cursor::default();
    let begin = |topics: &[(&TopicName, Option<bool>)], to: &mut Vec<u8>| {
        Wire::Events.begin(topics.iter().copied(), &cursor, to);
    };
    check(
        |to| begin(&[(&news, Some(true)), (&weather, Some(false))], to),
        concat!(
            "event: subscribed\nid: Ad5bO5M\n",
            r#"data: {"subscribed":[{"topic":"news","recovered":true},{"topic":"weather","recovered":false}],"#,
            r#""cursor":"Ad5bO5M"}"#,
            "\n\n"
        ),
    );
    check(
        |to| begin(&[(&news, None)], to),
        concat!(
            "event: subscribed\nid: Ad5bO5M\n",
            r#"data: {"subscribed":[{"topic":"news"}],"cursor":"Ad5bO5M"}"#,
            "\n\n"
        ),
    );
}

#[test]
fn what_is_not_json_is_written_in_base64() {
    let binary = Publication { data: Bytes::from_static(b"\xff"), offset: 1, ..Publication::default() };
    check_publication(
        &binary,
        "data: {\"topic\":\"news\",\"data\":null,\"b64data\":\"/w==\",\"offset\":1}\n\n",
    );
}

#[test]
fn disconnects() {
    check(
        |to| event::disconnect(&CloseReason::Shutdown.into(), to),
        "event: disconnect\ndata: {\"code\":3001,\"reason\":\"shutdown\",\"reconnect\":true}\n\n",
    );
    check(
        |to| event::disconnect(&Close::by_application(4500, "a\nb".to_owned()), to),
        "event: disconnect\ndata: {\"code\":4500,\"reason\":\"a\\nb\",\"reconnect\":false}\n\n",
    );
    check(
        |to| to.extend_from_slice(&Wire::Lines.goodbye(&CloseReason::Shutdown.into())),
        "{\"disconnect\":{\"code\":3001,\"reason\":\"shutdown\",\"reconnect\":true}}\n",
    );
}

#[test]
fn lines() {
    let publication = Publication { data: Bytes::from_static(b"1"), ..Publication::default() };
    let push = Push::Publication {
        topic: news(),
        publication: Arc::new(publication),
        epoch: None,
        shows_time: false,
    };
    assert_eq!(Wire::Lines.encode(&push, None).bytes, "{\"topic\":\"news\",\"data\":1}\n");
    assert_eq!(Wire::Lines.ping(Pings::Keepalive), "\n");
    let (topic, cursor) = (news(), Cursor::default());
    check(
        |to| Wire::Lines.begin([(&topic, Some(false))].into_iter(), &cursor, to),
        "{\"subscribed\":[{\"topic\":\"news\",\"recovered\":false}],\"cursor\":\"Ad5bO5M\"}\n",
    );
}

/// The answer to a poll is one object, whose cursor stands for all that is in it.
#[test]
fn answers_to_polls() {
    let publication = Publication { data: Bytes::from_static(b"1"), offset: 7, ..Publication::default() };
    let epoch = Epoch::parse(b"abcdefgh");
    let push =
        Push::Publication { topic: news(), publication: Arc::new(publication), epoch, shows_time: false };
    let item = Wire::Poll.encode(&push, None);
    assert_eq!(item.bytes, r#"{"topic":"news","data":1,"offset":7},"#);
    for other in [Wire::Events, Wire::Lines] {
        let encoded = other.encode(&push, None);
        assert_eq!(Wire::Poll.encode(&push, Some((other, &encoded))), item, "{other:?}");
        assert_eq!(other.encode(&push, Some((Wire::Poll, &item))), encoded, "{other:?}");
    }
    assert!(Wire::Poll.ping(Pings::Keepalive).is_empty());
    let topic = news();
    check(
        |to| {
            Wire::Poll.begin([(&topic, Some(true))].into_iter(), &Cursor::default(), to);
            to.extend_from_slice(&item.bytes);
            to.extend_from_slice(&item.bytes);
            event::answer_end("CURSOR", Some("KEY.1"), to);
        },
        concat!(
            r#"{"subscribed":[{"topic":"news","recovered":true}],"#,
            r#""messages":[{"topic":"news","data":1,"offset":7},{"topic":"news","data":1,"offset":7}],"#,
            r#""cursor":"CURSOR","session":"KEY.1"}"#
        ),
    );
    check(
        |to| {
            event::answer(to);
            event::answer_end("CURSOR", None, to);
        },
        r#"{"messages":[],"cursor":"CURSOR"}"#,
    );
    check(
        |to| to.extend_from_slice(&Wire::Poll.goodbye(&CloseReason::Shutdown.into())),
        r#"{"messages":[],"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}"#,
    );
}

/// Messages of a bare WebSocket are data. Only where something may be missing the first is another.
#[test]
fn bare_sockets_are_told_of_what_may_be_missing() {
    let (topic, cursor) = (news(), Cursor::default());
    let begin = |recovered| {
        let mut to = Vec::new();
        Wire::Bare.begin([(&topic, recovered)].into_iter(), &cursor, &mut to);
        to
    };
    assert!(begin(None).is_empty() && begin(Some(true)).is_empty());
    let text = br#"{"subscribed":[{"topic":"news","recovered":false}]}"#;
    assert_eq!(begin(Some(false)), [&[0x81, text.len() as u8][..], text].concat());
}

#[test]
fn retry() {
    check(|to| event::retry(Duration::from_millis(1500), to), "retry: 1500\n\n");
}
