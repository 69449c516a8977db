//! Any bytes, in one piece and cut as the first byte says: the same messages, the same verdict, all within the limit.
#![no_main]

use std::ops::ControlFlow;

use fanwire_protocol::websocket::{CONTROL_BYTES_MAX, Limits, Message, Reader, Violation};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { message_bytes_max: 300 };

fuzz_target!(|input: &[u8]| {
    let Some((cut, stream)) = input.split_first() else { return };
    let whole = read(stream, usize::MAX);
    assert_eq!(whole, read(stream, usize::from(*cut).max(1)));
    assert_eq!(whole, read(stream, 1));
});

fn read(stream: &[u8], piece_length: usize) -> (Vec<String>, Result<(), Violation>) {
    let mut reader = Reader::default();
    let mut messages = Vec::new();
    for piece in stream.to_owned().chunks_mut(piece_length) {
        let outcome = reader.read(piece, LIMITS, &mut |message| {
            let (length, length_max) = match message {
                Message::Text(text) => (text.len(), LIMITS.message_bytes_max),
                Message::Binary(bytes) => (bytes.len(), LIMITS.message_bytes_max),
                Message::Ping(bytes) | Message::Pong(bytes) => (bytes.len(), CONTROL_BYTES_MAX),
                Message::Close(close) => (close.map_or(0, |(_, reason)| 2 + reason.len()), CONTROL_BYTES_MAX),
            };
            assert!(length <= length_max);
            messages.push(format!("{message:?}"));
            ControlFlow::Continue(())
        });
        if outcome.is_err() {
            return (messages, outcome);
        }
    }
    (messages, Ok(()))
}
