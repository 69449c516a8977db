//! Any bytes, in one piece and cut as the first byte says, compressed messages allowed if it is odd: the same messages,
//! the same verdict, all within the limit.
#![no_main]

use std::ops::ControlFlow;

use fanwire_protocol::websocket::{CONTROL_BYTES_MAX, Inflater, Limits, Message, Reader, Violation};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { message_bytes_max: 300 };

fuzz_target!(|input: &[u8]| {
    let Some((cut, stream)) = input.split_first() else { return };
    let deflates = cut % 2 == 1;
    let whole = read(stream, usize::MAX, deflates);
    assert_eq!(whole, read(stream, usize::from(*cut).max(1), deflates));
    assert_eq!(whole, read(stream, 1, deflates));
});

fn read(stream: &[u8], piece_length: usize, deflates: bool) -> (Vec<String>, Result<usize, Violation>) {
    let mut inflater = deflates.then(Inflater::default);
    let mut reader = Reader::default();
    let mut messages = Vec::new();
    for piece in stream.to_owned().chunks_mut(piece_length) {
        let outcome = reader.read(piece, LIMITS, inflater.as_mut(), &mut |message| {
            let length_max = match message {
                Message::Text(_) | Message::Binary(_) => LIMITS.message_bytes_max,
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) => CONTROL_BYTES_MAX,
            };
            assert!(message.payload_bytes() <= length_max);
            messages.push(format!("{message:?}"));
            ControlFlow::Continue(())
        });
        if outcome.is_err() {
            return (messages, outcome);
        }
    }
    (messages, Ok(0))
}
