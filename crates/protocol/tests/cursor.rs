//! Cursors: to the byte, back and forth, and all that is no cursor.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanwire_protocol::cursor::{CursorError, Parsed};
use fanwire_protocol::{Cursor, Epoch, Position};
use proptest::prelude::*;

fn at(epoch: &[u8; 8], offset: u64) -> Position {
    Position { epoch: Epoch::parse(epoch).expect("eight letters and digits"), offset }
}

fn parse(text: &str) -> Cursor {
    match Cursor::parse(text) {
        Ok(Parsed::Cursor(cursor)) => cursor,
        other => panic!("{text}: {other:?}"),
    }
}

/// The bytes of the cursor of these places.
fn bytes(places: &[&[u8]]) -> Vec<u8> {
    let application = [0xDE, 0x5B, 0x3B, 0x93];
    [&[1][..], &application, &places.concat()].concat()
}

fn refused(bytes: &[u8]) -> CursorError {
    Cursor::parse(&URL_SAFE_NO_PAD.encode(bytes)).expect_err("it is no cursor")
}

/// FNV-1a of `a`, epoch `10000000` (its first letter counts ones), offset 300.
const A: &[u8] = &[0x8C, 0xEC, 0x01, 0x86, 0x4C, 0xDC, 0x63, 0xAF, 1, 0, 0, 0, 0, 0, 0xAC, 2];

#[test]
fn a_cursor_to_the_byte() {
    let mut cursor = Cursor::default();
    assert_eq!(URL_SAFE_NO_PAD.decode(cursor.text()).unwrap(), bytes(&[]));
    cursor.set("a", at(b"10000000", 300));
    assert_eq!(URL_SAFE_NO_PAD.decode(cursor.text()).unwrap(), bytes(&[A]));
    assert_eq!(cursor.text(), "Ad5bO5OM7AGGTNxjrwEAAAAAAKwC");
}

#[test]
fn one_topic_is_written_alike_in_both_ways() {
    for offset in [0, 1, 127, 128, 300, u64::MAX] {
        let (mut cursor, mut text) = (Cursor::default(), b"id: ".to_vec());
        cursor.set("chat:lobby", at(b"zzzzzzzz", offset));
        Cursor::write_one("chat:lobby", at(b"zzzzzzzz", offset), &mut text);
        assert_eq!(String::from_utf8_lossy(&text[4..]), cursor.text());
        assert!((27..=39).contains(&cursor.text().len()), "{}", cursor.text());
        assert_eq!(parse(&cursor.text()), cursor);
    }
}

#[test]
fn the_newest_place_of_a_topic_counts() {
    let mut cursor = Cursor::default();
    cursor.set("a", at(b"abcdefgh", 1));
    cursor.set("b", at(b"abcdefgh", 7));
    cursor.set("a", at(b"ABCDEFGH", 2));
    assert_eq!(cursor.position("a"), Some(at(b"ABCDEFGH", 2)));
    assert_eq!(cursor.position("b"), Some(at(b"abcdefgh", 7)));
    assert_eq!(cursor.position("c"), None);
    cursor.advance("b", at(b"abcdefgh", 8));
    cursor.advance("c", at(b"abcdefgh", 8));
    assert_eq!((cursor.position("b"), cursor.position("c")), (Some(at(b"abcdefgh", 8)), None));
}

#[test]
fn a_full_cursor_is_the_longest_text() {
    let mut cursor = Cursor::default();
    for number in 0..100 {
        cursor.set(&format!("topic {number}"), at(b"zzzzzzzz", u64::MAX));
    }
    assert_eq!(cursor.text().len(), 519);
    assert!(cursor.position("topic 15").is_some() && cursor.position("topic 16").is_none());
    assert_eq!(parse(&cursor.text()), cursor);
}

#[test]
fn other_versions_are_told_apart_from_what_is_no_cursor() {
    for version in [0, 2, 255] {
        let text = URL_SAFE_NO_PAD.encode([&[version][..], b"whatever it holds"].concat());
        assert_eq!(Cursor::parse(&text), Ok(Parsed::OtherVersion));
    }
    for text in ["", "A", "A===", "AQ==", "%41", "AB", "\u{e9}", "Ad5bO5OM7AGGTNxjrwEAAAAAAKwC ", "Ad5bO5P"] {
        assert_eq!(Cursor::parse(text), Err(CursorError::Malformed), "{text}");
    }
    assert_eq!(Cursor::parse(&"A".repeat(521)), Err(CursorError::TooLong));
    assert_eq!(Cursor::parse(&"A".repeat(1 << 20)), Err(CursorError::TooLong));
}

#[test]
fn a_cursor_has_one_form() {
    let ok = bytes(&[A]);
    for length in 1..ok.len() {
        let end = [0, bytes(&[]).len()];
        if !end.contains(&length) {
            assert_eq!(refused(&ok[..length]), CursorError::Malformed, "cut to {length}");
        }
    }
    assert_eq!(refused(&bytes(&[A, A])), CursorError::Malformed, "one topic twice");
    let (name, place) = A.split_at(8);
    let longer = [name, &[1, 0, 0, 0, 0, 0, 0xAC, 0x82, 0]].concat();
    assert_eq!(refused(&bytes(&[&longer])), CursorError::Malformed, "an offset with a zero in front");
    let too_large = [&[0xFF; 9][..], &[2]].concat();
    assert_eq!(
        refused(&bytes(&[name, &place[..6], &too_large])),
        CursorError::Malformed,
        "an offset of 65 bits"
    );
    let endless = [0x80; 12];
    assert_eq!(refused(&bytes(&[name, &place[..6], &endless])), CursorError::Malformed);
    assert_eq!(refused(&bytes(&[name, &[0xFF; 6], &[0]])), CursorError::Malformed, "more than eight letters");
    let seventeen: Vec<Vec<u8>> = (0..17_u8).map(|n| [&[n; 8][..], &place[..6], &[0]].concat()).collect();
    let seventeen: Vec<&[u8]> = seventeen.iter().map(|place| &**place).collect();
    assert_eq!(refused(&bytes(&seventeen)), CursorError::Malformed);
    assert!(Cursor::parse(&URL_SAFE_NO_PAD.encode(bytes(&seventeen[..16]))).is_ok());
    let mut foreign = ok;
    foreign[4] ^= 1;
    assert_eq!(refused(&foreign), CursorError::OtherApplication);
}

#[test]
fn every_error_says_what_to_send() {
    assert_eq!(CursorError::TooLong.to_string(), "cursor: longer than 520 bytes");
    let malformed = "cursor: send one as an answer of this server had it";
    assert_eq!(CursorError::Malformed.to_string(), malformed);
    assert_eq!(CursorError::OtherApplication.to_string(), "cursor: of another application");
}

fn places() -> impl Strategy<Value = Vec<(String, Position)>> {
    let offset = prop_oneof![any::<u64>(), 0..200_u64];
    let position = (any::<u64>(), offset)
        .prop_map(|(bits, offset)| Position { epoch: Epoch::from_random(bits), offset });
    prop::collection::vec((".{1,20}", position), 0..20)
}

proptest! {
    #[test]
    fn what_is_written_is_read(places in places()) {
        let mut cursor = Cursor::default();
        for (topic, at) in &places {
            cursor.set(topic, *at);
        }
        let read = parse(&cursor.text());
        prop_assert_eq!(&read, &cursor);
        for (topic, _) in &places {
            prop_assert_eq!(read.position(topic), cursor.position(topic));
        }
    }

    #[test]
    fn any_text_is_refused_or_written_as_it_was(text in "[A-Za-z0-9_-]{0,60}|.{0,60}") {
        if let Ok(Parsed::Cursor(cursor)) = Cursor::parse(&text) {
            prop_assert_eq!(cursor.text(), text);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_written_as_they_were(
        rest in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let text = URL_SAFE_NO_PAD.encode(bytes(&[&rest]));
        if let Ok(Parsed::Cursor(cursor)) = Cursor::parse(&text) {
            prop_assert_eq!(cursor.text(), text);
        }
    }

    #[test]
    fn an_epoch_is_its_number(bits: u64) {
        let epoch = Epoch::from_random(bits);
        prop_assert_eq!(Epoch::from_number(epoch.number()), Some(epoch));
        prop_assert!(epoch.number() < 1 << 48);
    }
}
