//! Bare WebSocket messages: texts and data, both ways.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::json;
use fanwire_protocol::plain::bare::{HeartbeatWord, data, message, refusal};
use fanwire_protocol::reason::{CloseReason, Mistake, Refused, RequestError};
use fanwire_protocol::reply::{Push, Reply};
use fanwire_protocol::request::{Ask, Publish, Request};
use fanwire_protocol::websocket::{Opcode, frame_header};
use fanwire_protocol::wire::{ClientMessage, Form, Pings, Wire};
use fanwire_protocol::{Cursor, Epoch, Position, Publication, Tags, TopicName};
use proptest::prelude::*;

fn news() -> TopicName {
    TopicName::new("news").expect("a name")
}

fn publication(data: impl Into<Bytes>, tags: Option<Arc<Tags>>) -> Publication {
    Publication { data: data.into(), tags, ..Publication::default() }
}

fn tagged(name: &str) -> Option<Arc<Tags>> {
    Some(Arc::new(Tags::from([(name.to_owned(), "true".to_owned())])))
}

/// The text that bare clients receive when another published this one.
fn back(text: &str) -> String {
    let (data, tags) = data(text);
    assert_eq!(json::check(&data), Ok(()), "{data:?}");
    let publication = publication(data, tags);
    let (opcode, payload) = message(&publication);
    assert_eq!(opcode, Opcode::Text);
    String::from_utf8(payload.into_owned()).expect("a text is UTF-8")
}

#[test]
fn json_is_published_as_it_is_and_any_other_text_as_a_string() {
    for text in [r#"{"a": [1, 2]}"#, "1", "null", "true", r#""quoted""#, " 1 ", r#""\ud800""#] {
        assert_eq!(data(text), (Bytes::copy_from_slice(text.as_bytes()), None), "{text}");
    }
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    for (text, string) in [
        ("hello", r#""hello""#.to_owned()),
        ("", r#""""#.to_owned()),
        ("01", r#""01""#.to_owned()),
        ("a\n\"b\"\u{1}", r#""a\n\"b\"\u0001""#.to_owned()),
        (&deep, format!("\"{deep}\"")),
    ] {
        let (data, tags) = data(text);
        assert_eq!(data, string);
        assert_eq!(tags, tagged("text"));
    }
}

#[test]
fn data_is_text_if_it_is_json_and_else_binary() {
    type Case = (&'static [u8], Option<Arc<Tags>>, Opcode, &'static [u8]);
    let cases: [Case; 7] = [
        (br#"{"a":1}"#, None, Opcode::Text, br#"{"a":1}"#),
        (br#""hello""#, None, Opcode::Text, br#""hello""#),
        (br#""hello""#, tagged("text"), Opcode::Text, b"hello"),
        (br#""hello""#, tagged("other"), Opcode::Text, br#""hello""#),
        // A tag that does not fit changes nothing.
        (br#"{"a":1}"#, tagged("text"), Opcode::Text, br#"{"a":1}"#),
        (b"\xFF\x00", None, Opcode::Binary, b"\xFF\x00"),
        (b"\xFF\x00", tagged("text"), Opcode::Binary, b"\xFF\x00"),
    ];
    for (data, tags, opcode, payload) in cases {
        let publication = publication(data, tags);
        let (is, bytes) = message(&publication);
        assert_eq!((is, &*bytes), (opcode, payload), "{publication:?}");
    }
}

#[test]
fn a_message_is_published_into_the_topic() {
    let publish = |data: &'static [u8], tags| {
        let data = Bytes::from_static(data);
        Ask::Publish(Publish { topic: "news".into(), data, tags, is_unserved: false })
    };
    let no_topic = || Ask::Refused(Mistake::NoPublishTopic);
    for (message, topic, ask) in [
        (ClientMessage::Text("1"), Some(news()), publish(b"1", None)),
        (ClientMessage::Text("hi"), Some(news()), publish(br#""hi""#, tagged("text"))),
        (ClientMessage::Text(""), Some(news()), publish(br#""""#, tagged("text"))),
        (ClientMessage::Binary(b"hi"), Some(news()), publish(b"hi", None)),
        (ClientMessage::Text("hi"), None, no_topic()),
    ] {
        for wire in [Wire::Bare, Wire::BareJson] {
            let requests = || wire.requests(message, 0).publishing_to(topic.clone());
            let all: Vec<_> = requests().collect();
            assert_eq!(all, [Ok(Request { id: 1, ask: ask.clone() })], "{message:?}");
            let mut requests = requests();
            assert_eq!(requests.taken(), 0);
            requests.next();
            assert_eq!(requests.taken(), message.bytes().len());
        }
    }
}

#[test]
fn heartbeats_are_texts_that_are_answered() {
    let heartbeats = [("ping", "pong"), (r#"{"type":"ping"}"#, "")]
        .map(|(word, answer)| HeartbeatWord { word: word.into(), answer: answer.into() });
    for (message, answer) in [
        (ClientMessage::Text("ping"), Some(&b"\x81\x04pong"[..])),
        (ClientMessage::Text(r#"{"type":"ping"}"#), Some(b"\x81\x00")),
        (ClientMessage::Text("Ping"), None),
        (ClientMessage::Text("ping "), None),
        (ClientMessage::Text(""), None),
        (ClientMessage::Binary(b"ping"), None),
    ] {
        assert_eq!(Wire::Bare.answer(message, &heartbeats).as_deref(), answer, "{message:?}");
        assert_eq!(Wire::BareJson.answer(message, &heartbeats).as_deref(), answer, "{message:?}");
        assert_eq!(Wire::CentrifugeJson.answer(message, &heartbeats), None);
    }
}

#[test]
fn a_refusal_is_a_text_with_code_and_sentence() {
    let cases: [(Refused, _); 4] = [
        (
            RequestError::PermissionDenied.into(),
            r#"{"error":{"code":103,"message":"this client may not publish to the topic: see allow_publish_for_client, allow_publish_for_subscriber and allow_publish_for_anonymous of its namespace"}}"#,
        ),
        (
            Mistake::NoPublishTopic.into(),
            r#"{"error":{"code":107,"message":"name the topic to publish to: ?publish=TOPIC"}}"#,
        ),
        (
            Mistake::TopicName("it is too long".into()).into(),
            r#"{"error":{"code":107,"message":"it is too long"}}"#,
        ),
        (RequestError::TooManyRequests.into(), r#"{"error":{"code":111,"message":"too many requests"}}"#),
    ];
    for (refused, text) in cases {
        let frame = refusal(&refused);
        let reply = Reply { id: 1, result: Err(refused) };
        assert_eq!(Wire::BareJson.reply(&reply), Form::Bytes(frame.clone()));
        assert_eq!(frame[0], 0x81, "a text");
        assert!(frame.ends_with(text.as_bytes()), "{frame:?}");
    }
}

fn text_frame(payload: &str) -> Vec<u8> {
    [frame_header(Opcode::Text, payload.len()).as_bytes(), payload.as_bytes()].concat()
}

/// A publication in an envelope, kept at this offset, or not at all.
fn enveloped(data: &[u8], tags: Option<Arc<Tags>>, offset: u64) -> Push {
    let publication = Publication { offset, ..publication(Bytes::copy_from_slice(data), tags) };
    let epoch = (offset > 0).then(|| Epoch::from_random(7));
    Push::Publication { topic: news(), publication: Arc::new(publication), epoch, shows_time: false }
}

fn cursor(topics: usize, offset: u64) -> Cursor {
    let mut cursor = Cursor::default();
    let at = |offset| Position { epoch: Epoch::from_random(7), offset };
    cursor.set("news", at(offset));
    (1..topics).for_each(|number| cursor.set(&format!("topic {number}"), at(u64::MAX)));
    cursor
}

#[test]
fn an_envelope_holds_topic_data_and_cursor() {
    let one = cursor(1, 7).text();
    for (data, tags, offset, payload) in [
        (&b"1"[..], None, 7, format!(r#"{{"cursor":"{one}","topic":"news","data":1,"offset":7}}"#)),
        (b"1", None, 0, r#"{"topic":"news","data":1}"#.to_owned()),
        (br#""hi""#, tagged("text"), 0, r#"{"topic":"news","data":"hi","tags":{"text":"true"}}"#.to_owned()),
        (b"\xFF\x00", None, 0, r#"{"topic":"news","data":null,"b64data":"/wA="}"#.to_owned()),
    ] {
        let push = enveloped(data, tags, offset);
        let shared = Wire::BareJson.encode(&push, None);
        assert_eq!(shared.bytes, text_frame(&payload));
        // Made of the same publication as another client gets it, or another of it.
        for kin in [Wire::Lines, Wire::Events] {
            let other = kin.encode(&push, None);
            assert_eq!(Wire::BareJson.encode(&push, Some((kin, &other))), shared);
            assert_eq!(kin.encode(&push, Some((Wire::BareJson, &shared))), other);
        }
    }
}

#[test]
fn envelopes_begin_with_the_topics_and_a_cursor() {
    let (topic, cursor) = (news(), Cursor::default());
    for (recovered, told) in
        [(None, ""), (Some(true), r#","recovered":true"#), (Some(false), r#","recovered":false"#)]
    {
        let mut to = Vec::new();
        Wire::BareJson.begin([(&topic, recovered)].into_iter(), &cursor, &mut to);
        assert_eq!(
            to,
            text_frame(&format!(r#"{{"subscribed":[{{"topic":"news"{told}}}],"cursor":"Ad5bO5M"}}"#))
        );
    }
    assert_eq!(Wire::BareJson.ping(Pings::Frames), &b"\x89\x00"[..]);
    assert_eq!(Wire::BareJson.goodbye(&CloseReason::Shutdown.into()), &b"\x88\x0a\x0b\xb9shutdown"[..]);
}

proptest! {
    /// Also where it makes the header of the frame longer.
    #[test]
    fn another_cursor_takes_the_place_of_the_first(
        length in prop_oneof![0..200_usize, 64_000..66_000_usize],
        topics in 1..=Cursor::TOPICS_MAX,
        offset in 1..u64::MAX,
    ) {
        let data = format!("\"{}\"", "x".repeat(length));
        let shared = Wire::BareJson.encode(&enveloped(data.as_bytes(), None, offset), None);
        let cursor = cursor(topics, offset);
        let [before, rest] = Wire::BareJson.with_cursor(&shared, &cursor);
        prop_assert_eq!(rest.as_ptr_range().end, shared.bytes.as_ptr_range().end, "it is not copied");
        let payload =
            format!(r#"{{"cursor":"{}","topic":"news","data":{data},"offset":{offset}}}"#, cursor.text());
        prop_assert_eq!([before, rest].concat(), text_frame(&payload));
    }

    #[test]
    fn any_text_comes_back_as_it_was(text in ".*") {
        prop_assert_eq!(back(&text), text);
    }

    #[test]
    fn any_text_of_json_comes_back_as_it_was(words in prop::collection::vec(prop::sample::select(WORDS), 0..30)) {
        let text = words.concat();
        prop_assert_eq!(back(&text), text);
    }

    /// Whatever was published, and whatever its tags say.
    #[test]
    fn any_data_becomes_a_message(data: Vec<u8>, is_tagged: bool) {
        let publication = publication(data.clone(), is_tagged.then(|| tagged("text")).flatten());
        let (opcode, payload) = message(&publication);
        if opcode == Opcode::Text {
            prop_assert!(std::str::from_utf8(&payload).is_ok());
        } else {
            prop_assert_eq!(&*payload, &*data);
        }
    }
}

const WORDS: &[&str] = &[
    "{", "}", "[", "]", ":", ",", " ", "\n", "null", "1", "\"", "\\", "\\u0000", "\\ud800", "\"a\"", "\0",
    "ä",
];
