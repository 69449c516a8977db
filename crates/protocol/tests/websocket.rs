//! RFC 6455 as the reader keeps it: every rule by name, and the same messages however the bytes are cut.

use std::ops::ControlFlow;

use fanwire_protocol::websocket::{
    Deflater, Inflater, Limits, Message, Opcode, Reader, Stop, Violation, frame_header, write_frame,
};
use proptest::prelude::*;

const LIMITS: Limits = Limits { message_bytes_max: 1000 };

/// A message that outlives the call which read it.
#[derive(Clone, Debug, PartialEq)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Message<'_>> for Got {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Binary(bytes) => Self::Binary(bytes.to_owned()),
            Message::Ping(bytes) => Self::Ping(bytes.to_owned()),
            Message::Pong(bytes) => Self::Pong(bytes.to_owned()),
            Message::Close(close) => Self::Close(close.map(|(code, reason)| (code, reason.to_owned()))),
        }
    }
}

fn text(text: &str) -> Got {
    Got::Text(text.to_owned())
}

/// A masked frame: `first` is its first byte, so that tests can set it wrong.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x1B, 0xA7, 0x00, 0xFE];
    let mut frame = frame_header(Opcode::Binary, payload.len()).as_bytes().to_vec();
    frame[0] = first;
    frame[1] |= 0x80;
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

const FINAL: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Reads pieces one after the other, to the first violation.
fn read_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Got>, Result<Reader, Violation>) {
    read_pieces_with(None, pieces)
}

fn read_pieces_with<'a>(
    mut inflater: Option<Inflater>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Got>, Result<Reader, Violation>) {
    let mut reader = Reader::default();
    let mut got = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_owned();
        let outcome = reader.read(&mut piece, LIMITS, inflater.as_mut(), &mut |message| {
            got.push(message.into());
            ControlFlow::Continue(())
        });
        if let Err(violation) = outcome {
            assert!(is_idle(&reader), "a failed reader keeps nothing");
            return (got, Err(violation));
        }
        assert_eq!(outcome, Ok(0));
    }
    (got, Ok(reader))
}

fn is_idle(reader: &Reader) -> bool {
    format!("{reader:?}") == "Reader { partial: None }"
}

/// Both at once and byte by byte, a stream gives these messages and then this outcome.
#[track_caller]
fn check(stream: &[u8], expected: &[Got], outcome: Result<(), Violation>) {
    for piece_length in [stream.len(), 1, 3] {
        let (got, read) = read_pieces(stream.chunks(piece_length));
        assert_eq!(got, expected, "in pieces of {piece_length}");
        match read {
            Ok(reader) => {
                assert_eq!(Ok(()), outcome);
                assert!(is_idle(&reader), "in pieces of {piece_length}: {reader:?}");
            }
            Err(violation) => assert_eq!(Err(violation), outcome),
        }
    }
}

#[track_caller]
fn check_messages(frames: &[Vec<u8>], expected: &[Got]) {
    check(&frames.concat(), expected, Ok(()));
}

#[track_caller]
fn check_violation(frames: &[Vec<u8>], violation: Violation) {
    check(&frames.concat(), &[], Err(violation));
}

#[test]
fn whole_messages() {
    check_messages(&[frame(FINAL | TEXT, b"")], &[text("")]);
    check_messages(&[frame(FINAL | TEXT, "ä€😀".as_bytes())], &[text("ä€😀")]);
    check_messages(&[frame(FINAL | BINARY, b"\xff\0")], &[Got::Binary(b"\xff\0".to_vec())]);
    check_messages(&[frame(FINAL | PING, b"")], &[Got::Ping(vec![])]);
    check_messages(&[frame(FINAL | PONG, &[7; 125])], &[Got::Pong(vec![7; 125])]);
    for length in [125, 126, 127, 999, 1000] {
        check_messages(&[frame(FINAL | BINARY, &vec![1; length])], &[Got::Binary(vec![1; length])]);
    }
    // The mask of RFC 6455 section 5.7's example.
    check(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58], &[text("Hello")], Ok(()));
}

#[test]
fn fragments_are_joined_around_control_frames() {
    check_messages(
        &[
            frame(TEXT, "a€".as_bytes().split_at(2).0),
            frame(FINAL | PING, b"one"),
            frame(CONTINUATION, &"€".as_bytes()[1..2]),
            frame(FINAL | PONG, b""),
            frame(CONTINUATION, b""),
            frame(FINAL | CONTINUATION, &"€z".as_bytes()[2..]),
            frame(FINAL | TEXT, b"next"),
        ],
        &[Got::Ping(b"one".to_vec()), Got::Pong(vec![]), text("a€z"), text("next")],
    );
    check_messages(&[frame(TEXT, b""), frame(FINAL | CONTINUATION, b"")], &[text("")]);
    check_messages(
        &[frame(BINARY, b"\xff"), frame(FINAL | CONTINUATION, b"\xfe")],
        &[Got::Binary(b"\xff\xfe".to_vec())],
    );
}

#[test]
fn header_rules() {
    for reserved_bit in [0x40, 0x20, 0x10] {
        check_violation(&[frame(FINAL | reserved_bit | TEXT, b"a")], Violation::ReservedBit);
    }
    for reserved_opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        check_violation(&[frame(FINAL | reserved_opcode, b"a")], Violation::ReservedOpcode);
    }
    check(&[0x81, 0x01, b'a'], &[], Err(Violation::NotMasked));
    for control in [CLOSE, PING, PONG] {
        check_violation(&[frame(control, b"")], Violation::ControlFragmented);
        check_violation(&[frame(FINAL | control, &[0; 126])], Violation::ControlTooLong);
        check(&[FINAL | control, 0xFF], &[], Err(Violation::ControlTooLong));
    }
    check(&[0x82, 0xFE, 0, 125], &[], Err(Violation::LengthNotMinimal));
    check(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], &[], Err(Violation::LengthNotMinimal));
    check(&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], &[], Err(Violation::LengthTooLarge));
}

#[test]
fn message_rules() {
    check_violation(&[frame(FINAL | CONTINUATION, b"a")], Violation::NothingToContinue);
    check_violation(&[frame(CONTINUATION, b"")], Violation::NothingToContinue);
    check_violation(&[frame(TEXT, b"a"), frame(FINAL | TEXT, b"b")], Violation::MessageUnfinished);
    check_violation(&[frame(TEXT, b""), frame(BINARY, b"")], Violation::MessageUnfinished);
    check(
        &[frame(FINAL | TEXT, b"a"), frame(FINAL | CONTINUATION, b"b")].concat(),
        &[text("a")],
        Err(Violation::NothingToContinue),
    );
}

#[test]
fn the_limit_is_for_the_whole_message_and_judged_by_its_headers() {
    let masked = |header: &[u8]| [header, &[0; 4]].concat();
    check_violation(&[masked(&[0x82, 0xFE, 0x03, 0xE9])], Violation::TooBig);
    check_violation(
        &[masked(&[0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])],
        Violation::TooBig,
    );
    check_violation(&[frame(BINARY, &[0; 600]), masked(&[0x80, 0xFE, 0x01, 0x91])], Violation::TooBig);
    check_messages(
        &[frame(BINARY, &[0; 600]), frame(FINAL | CONTINUATION, &[0; 400])],
        &[Got::Binary(vec![0; 1000])],
    );
    // A character that is cut between two frames counts as well.
    let cut = ["x".repeat(997).as_bytes(), b"\xf0\x9f"].concat();
    check_violation(&[frame(TEXT, &cut), frame(FINAL | CONTINUATION, b"\x98\x80")], Violation::TooBig);
    // Control frames have their own limit.
    check_messages(
        &[frame(BINARY, &[0; 1000]), frame(FINAL | PING, &[0; 125]), frame(FINAL | CONTINUATION, b"")],
        &[Got::Ping(vec![0; 125]), Got::Binary(vec![0; 1000])],
    );
}

#[test]
fn text_must_be_utf8_from_its_first_byte_on() {
    check_violation(&[frame(FINAL | TEXT, b"\xc3\x28")], Violation::NotUtf8);
    check_violation(&[frame(FINAL | TEXT, b"a\xe2\x82")], Violation::NotUtf8);
    check_violation(&[frame(TEXT, b"a\xe2\x82"), frame(FINAL | CONTINUATION, b"")], Violation::NotUtf8);
    check_violation(&[frame(TEXT, b"a\xf4"), frame(CONTINUATION, b"\x90")], Violation::NotUtf8);
    // Known to be wrong long before the frame is complete.
    let long = frame(FINAL | TEXT, &[b"\xed\xa0", &[b'x'; 500][..]].concat());
    check(&long[..8 + 2], &[], Err(Violation::NotUtf8));
}

#[test]
fn close_frames() {
    let close = |code: u16, reason: &[u8]| frame(FINAL | CLOSE, &[&code.to_be_bytes(), reason].concat());

    check_messages(&[frame(FINAL | CLOSE, b"")], &[Got::Close(None)]);
    for code in
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
    {
        check_messages(&[close(code, "grüß".as_bytes())], &[Got::Close(Some((code, "grüß".to_owned())))]);
    }
    check_messages(&[close(1000, &[b'x'; 123])], &[Got::Close(Some((1000, "x".repeat(123))))]);

    check_violation(&[frame(FINAL | CLOSE, b"\x03")], Violation::ClosePayload);
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        check_violation(&[close(code, b"")], Violation::CloseCode);
    }
    check_violation(&[close(1000, b"\xff")], Violation::NotUtf8);
    check_violation(&[close(1000, &[&[b'x'; 124][..]].concat())], Violation::ControlTooLong);
}

#[test]
fn violations_know_their_close_code() {
    assert_eq!(Violation::NotMasked.close_code(), 1002);
    assert_eq!(Violation::CloseCode.close_code(), 1002);
    assert_eq!(Violation::NotUtf8.close_code(), 1007);
    assert_eq!(Violation::TooBig.close_code(), 1009);
}

#[test]
fn ending_drops_the_rest() {
    let mut stream =
        [frame(TEXT, b"a"), frame(FINAL | PING, b""), frame(FINAL | CONTINUATION, b"b")].concat();
    let mut reader = Reader::default();
    let mut calls = 0;
    let outcome = reader.read(&mut stream, LIMITS, None, &mut |_| {
        calls += 1;
        ControlFlow::Break(Stop::End)
    });
    assert_eq!((outcome, calls), (Ok(0), 1));
    assert!(is_idle(&reader));
}

#[test]
fn pausing_leaves_the_rest_as_it_came() {
    let frames = [
        frame(TEXT, b"a"),
        frame(FINAL | PING, b"1"),
        frame(FINAL | CONTINUATION, b"b"),
        frame(FINAL | TEXT, b"c"),
        frame(TEXT, b"cut")[..7].to_vec(),
    ];
    let mut stream = frames.concat();
    let mut rest = &mut stream[..];
    let mut reader = Reader::default();
    let mut got = Vec::new();
    for (index, expected) in [Got::Ping(b"1".to_vec()), text("ab"), text("c")].into_iter().enumerate() {
        let outcome = reader.read(rest, LIMITS, None, &mut |message| {
            got.push(Got::from(message));
            ControlFlow::Break(Stop::Pause)
        });
        let length = frames[index + 2..].iter().map(Vec::len).sum::<usize>();
        assert_eq!(outcome, Ok(length));
        let taken = rest.len() - length;
        rest = &mut rest[taken..];
        assert_eq!(got.pop(), Some(expected));
    }
    assert_eq!(reader.read(rest, LIMITS, None, &mut |_| unreachable!()), Ok(0));
    assert!(!is_idle(&reader));
}

/// The compressed payload of a message that compresses.
fn deflated(message: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    write_frame(Opcode::Binary, message, &mut plain);
    let frame = Deflater::new(1, 1).frame(&plain).expect("a message that gets shorter");
    frame[if frame[1] < 126 { 2 } else { 4 }..].to_vec()
}

const DEFLATED: u8 = 0x40;

#[track_caller]
fn check_deflated(frames: &[Vec<u8>], expected: &[Got], outcome: Result<(), Violation>) {
    let stream = frames.concat();
    for piece_length in [stream.len(), 1, 3] {
        let (got, read) = read_pieces_with(Some(Inflater::default()), stream.chunks(piece_length));
        assert_eq!(got, expected, "in pieces of {piece_length}");
        assert_eq!(read.map(|reader| assert!(is_idle(&reader))), outcome, "in pieces of {piece_length}");
    }
}

#[test]
fn compressed_messages_are_inflated() {
    let message = "€ and again €, ".repeat(30);
    let payload = deflated(message.as_bytes());
    let (one, rest) = payload.split_at(5);
    check_deflated(
        &[
            frame(FINAL | DEFLATED | TEXT, &payload),
            frame(FINAL | TEXT, b"plain"),
            frame(DEFLATED | BINARY, one),
            frame(FINAL | PING, b""),
            frame(CONTINUATION, b""),
            frame(FINAL | CONTINUATION, rest),
            frame(TEXT, b"in "),
            frame(FINAL | CONTINUATION, b"two"),
            // The empty message, whole and in two.
            frame(FINAL | DEFLATED | TEXT, &[0]),
            frame(DEFLATED | TEXT, b""),
            frame(FINAL | CONTINUATION, &[0]),
        ],
        &[
            text(&message),
            text("plain"),
            Got::Ping(vec![]),
            Got::Binary(message.as_bytes().to_vec()),
            text("in two"),
            text(""),
            text(""),
        ],
        Ok(()),
    );
}

#[test]
fn compressed_messages_have_their_rules() {
    let payload = deflated(&[b'x'; 100]);
    for wrong in [
        frame(FINAL | DEFLATED | PING, b""),
        frame(FINAL | DEFLATED | CLOSE, b""),
        frame(FINAL | DEFLATED | 0x20 | TEXT, &payload),
        frame(FINAL | 0x10 | TEXT, b""),
    ] {
        check_deflated(&[wrong], &[], Err(Violation::ReservedBit));
    }
    check_deflated(
        &[frame(DEFLATED | TEXT, &payload), frame(FINAL | DEFLATED | CONTINUATION, b"")],
        &[],
        Err(Violation::ReservedBit),
    );
    check_deflated(&[frame(FINAL | DEFLATED | TEXT, b"")], &[], Err(Violation::NotDeflate));
    check_deflated(&[frame(FINAL | DEFLATED | TEXT, &payload[..2])], &[], Err(Violation::NotDeflate));
    check_deflated(
        &[frame(DEFLATED | BINARY, &[0xff; 8]), frame(FINAL | CONTINUATION, b"")],
        &[],
        Err(Violation::NotDeflate),
    );
    // The bytes are valid as they come, but not as what they become.
    let not_text = deflated(&[0xff; 100]);
    check_deflated(&[frame(FINAL | DEFLATED | TEXT, &not_text)], &[], Err(Violation::NotUtf8));
    check_deflated(&[frame(FINAL | DEFLATED | BINARY, &not_text)], &[Got::Binary(vec![0xff; 100])], Ok(()));
    let bomb = deflated(&[b'x'; 1001]);
    check_deflated(&[frame(FINAL | DEFLATED | TEXT, &bomb)], &[], Err(Violation::TooBig));
    check_deflated(
        &[frame(DEFLATED | TEXT, &bomb), frame(FINAL | CONTINUATION, b"")],
        &[],
        Err(Violation::TooBig),
    );
    // The limit is for what comes, too.
    check_deflated(&[frame(FINAL | DEFLATED | TEXT, &[0; 1001])], &[], Err(Violation::TooBig));
    assert_eq!(Violation::NotDeflate.close_code(), 1007);
}

#[test]
fn a_declared_length_costs_nothing_until_it_arrives() {
    let limits = Limits { message_bytes_max: usize::MAX };
    let mut stream = vec![0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, b'x'];
    let mut reader = Reader::default();
    assert_eq!(reader.read(&mut stream, limits, None, &mut |_| ControlFlow::Continue(())), Ok(0));
    assert!(!is_idle(&reader));
}

#[test]
fn sixteen_mebibytes_in_every_manner() {
    const BYTES: usize = 16 << 20;
    let payload = vec![b'x'; BYTES];
    let one_frame = frame(FINAL | TEXT, &payload);
    let mut fragments = frame(TEXT, b"");
    for fragment in payload.chunks(64) {
        fragments.extend(frame(CONTINUATION, fragment));
    }
    fragments.extend(frame(FINAL | CONTINUATION, b""));

    for stream in [one_frame, fragments] {
        for piece_length in [997, 64 << 10, usize::MAX] {
            let mut reader = Reader::default();
            let mut lengths = Vec::new();
            for piece in stream.clone().chunks_mut(piece_length) {
                let limits = Limits { message_bytes_max: BYTES };
                let outcome = reader.read(piece, limits, None, &mut |message| {
                    lengths.push(match message {
                        Message::Text(text) => text.len(),
                        _ => 0,
                    });
                    ControlFlow::Continue(())
                });
                assert_eq!(outcome, Ok(0));
            }
            assert_eq!(lengths, [BYTES]);
        }
    }
}

/// A message with the lengths of its fragments, or a control frame.
fn any_message() -> impl Strategy<Value = (Got, Vec<usize>)> {
    let message = prop_oneof![
        any::<String>().prop_map(Got::Text),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Got::Binary),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(Got::Ping),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(Got::Pong),
        prop::option::of((3000..5000_u16, "[a-zß€]{0,40}")).prop_map(Got::Close),
    ];
    (message, prop::collection::vec(0..100_usize, 0..5))
}

/// The frames of a message, in fragments where it may be.
fn frames((message, fragment_lengths): &(Got, Vec<usize>)) -> Vec<Vec<u8>> {
    let (opcode, payload) = match message {
        Got::Text(text) => (TEXT, text.as_bytes()),
        Got::Binary(bytes) => (BINARY, &bytes[..]),
        Got::Ping(bytes) => return vec![frame(FINAL | PING, bytes)],
        Got::Pong(bytes) => return vec![frame(FINAL | PONG, bytes)],
        Got::Close(None) => return vec![frame(FINAL | CLOSE, b"")],
        Got::Close(Some((code, reason))) => {
            return vec![frame(FINAL | CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())];
        }
    };
    let mut rest = payload;
    let mut opcode = opcode;
    let mut frames = Vec::new();
    for length in fragment_lengths {
        let (fragment, after) = rest.split_at((*length).min(rest.len()));
        frames.push(frame(opcode, fragment));
        (opcode, rest) = (CONTINUATION, after);
    }
    frames.push(frame(FINAL | opcode, rest));
    frames
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_messages(
        messages in prop::collection::vec(any_message(), 0..8),
        piece_lengths in prop::collection::vec(1..60_usize, 1..40),
    ) {
        let stream = messages.iter().flat_map(frames).flatten().collect::<Vec<u8>>();
        let mut rest = &stream[..];
        let mut lengths = piece_lengths.iter().cycle();
        let pieces = std::iter::from_fn(|| {
            let (piece, after) = rest.split_at((*lengths.next()?).min(rest.len()));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        });
        let (got, outcome) = read_pieces(pieces);
        let expected = messages.into_iter().map(|(message, _)| message).collect::<Vec<_>>();
        prop_assert_eq!(got, expected);
        prop_assert!(outcome.is_ok_and(|reader| is_idle(&reader)));
    }

    /// Whatever comes, cutting it does not change what is made of it.
    #[test]
    fn noise_is_judged_alike_in_one_piece_and_in_many(
        noise in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x81), Just(0x80), Just(0x01)], 0..200),
    ) {
        let (whole_got, whole) = read_pieces([&noise[..]]);
        let (got, outcome) = read_pieces(noise.chunks(1));
        prop_assert_eq!(got, whole_got);
        prop_assert_eq!(outcome.err(), whole.err());
    }

    #[test]
    fn compressed_noise_is_judged_alike_in_one_piece_and_in_many(
        noise in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xC1), Just(0x80), Just(0x41)], 0..200),
    ) {
        let inflater = || Some(Inflater::default());
        let (whole_got, whole) = read_pieces_with(inflater(), [&noise[..]]);
        let (got, outcome) = read_pieces_with(inflater(), noise.chunks(1));
        prop_assert_eq!(got, whole_got);
        prop_assert_eq!(outcome.err(), whole.err());
    }
}
