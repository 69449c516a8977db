//! The WebSocket reader: bytes in pieces of several shapes to messages; and compression, both ways.

use std::hint::black_box;
use std::ops::ControlFlow;

use fanwire_protocol::websocket::{
    Deflater, Inflater, Limits, Message, Opcode, Reader, frame_header, write_frame,
};

use crate::harness::{Case, repeat};

pub(crate) const CASES: [Case; 8] = [
    Case {
        name: "websocket: 64 small frames in one buffer, each",
        rounds: 500,
        run: |rounds| {
            let frame = masked(FINAL_TEXT, &ascii(SMALL_BYTES));
            read(rounds, frame.repeat(SMALL_FRAMES), usize::MAX, SMALL_FRAMES)
        },
    },
    Case {
        name: "websocket: a ping",
        rounds: 20_000,
        run: |rounds| read(rounds, masked(FINAL_PING, b""), usize::MAX, 1),
    },
    Case {
        name: "websocket: text of 16 KiB",
        rounds: 1_000,
        run: |rounds| read(rounds, masked(FINAL_TEXT, &ascii(LARGE_BYTES)), usize::MAX, 1),
    },
    Case {
        name: "websocket: text of 16 KiB in 16 fragments",
        rounds: 500,
        run: |rounds| read(rounds, fragmented(&ascii(LARGE_BYTES), 16), usize::MAX, 1),
    },
    Case {
        name: "websocket: text of 16 KiB outside ASCII",
        rounds: 100,
        run: |rounds| read(rounds, masked(FINAL_TEXT, &beyond_ascii(LARGE_BYTES)), usize::MAX, 1),
    },
    Case {
        name: "websocket: text of 16 KiB outside ASCII, cut into segments",
        rounds: 100,
        run: |rounds| read(rounds, masked(FINAL_TEXT, &beyond_ascii(LARGE_BYTES)), SEGMENT_BYTES, 1),
    },
    Case { name: "websocket: a frame of 512 bytes, compressed", rounds: 200, run: deflate },
    Case { name: "websocket: a frame of 512 bytes, inflated", rounds: 500, run: inflate },
];

const TEXT: u8 = Opcode::Text as u8;
const CONTINUATION: u8 = Opcode::Continuation as u8;
const FINAL: u8 = 0x80;
const FINAL_TEXT: u8 = FINAL | TEXT;
const FINAL_PING: u8 = FINAL | Opcode::Ping as u8;

const SMALL_FRAMES: usize = 64;
const SMALL_BYTES: usize = 40;
const LARGE_BYTES: usize = 16 * 1024;
/// The bytes of a stream that Ethernet carries at once. They end inside a character of three bytes.
const SEGMENT_BYTES: usize = 1_448;

/// Reads the same bytes in each round, at most so many at once.
fn read(rounds: u64, bytes: Vec<u8>, piece_bytes_max: usize, messages: usize) -> u64 {
    read_with(None, rounds, bytes, piece_bytes_max, messages)
}

fn read_with(
    mut inflater: Option<Inflater>,
    rounds: u64,
    mut bytes: Vec<u8>,
    piece_bytes_max: usize,
    messages: usize,
) -> u64 {
    let mut reader = Reader::default();
    repeat(rounds, messages, || {
        let mut read = 0;
        let mut on = |message: Message<'_>| {
            black_box(message);
            read += 1;
            ControlFlow::Continue(())
        };
        for piece in bytes.chunks_mut(piece_bytes_max) {
            reader
                .read(black_box(piece), Limits::default(), inflater.as_mut(), &mut on)
                .expect("the frames keep the rules");
        }
        assert_eq!(read, messages);
    })
}

fn deflate(rounds: u64) -> u64 {
    let frame = compressible_frame();
    let mut deflater = Deflater::new(1, 1);
    repeat(rounds, 1, || {
        black_box(deflater.frame(black_box(&frame)).expect("it gets shorter"));
    })
}

fn inflate(rounds: u64) -> u64 {
    let deflated = Deflater::new(1, 1).frame(&compressible_frame()).expect("it gets shorter");
    let header_length = if deflated[1] < 126 { 2 } else { 4 };
    let frame = masked(deflated[0], &deflated[header_length..]);
    read_with(Some(Inflater::default()), rounds, frame, usize::MAX, 1)
}

/// JSON whose names repeat and whose values do not.
fn compressible_frame() -> Vec<u8> {
    const PAYLOAD_BYTES: usize = 512;
    let entries = (0_u32..).map(|number| format!(r#"{{"id":{number},"price":{}}},"#, number * 7919 % 1000));
    let payload: Vec<u8> = entries.flat_map(String::into_bytes).take(PAYLOAD_BYTES).collect();
    let mut frame = Vec::new();
    write_frame(Opcode::Text, &payload, &mut frame);
    frame
}

/// A frame masked with zeros: unmasking takes the same steps and leaves the bytes fit to be read again, so that no
/// copy is counted.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame_header(Opcode::Binary, payload.len()).as_bytes().to_vec();
    frame[0] = first;
    frame[1] |= 0x80;
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// One message in so many frames of equal length.
fn fragmented(payload: &[u8], fragments: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    for (index, piece) in payload.chunks(payload.len() / fragments).enumerate() {
        let opcode = if index == 0 { TEXT } else { CONTINUATION };
        let is_final = if index + 1 == fragments { FINAL } else { 0 };
        frames.extend(masked(is_final | opcode, piece));
    }
    frames
}

fn ascii(length: usize) -> Vec<u8> {
    b"abcdefghijklmnop".iter().copied().cycle().take(length).collect()
}

/// Characters of three bytes, and ASCII for the rest of the length.
fn beyond_ascii(length: usize) -> Vec<u8> {
    let mut text = "€".repeat(length / 3);
    text.extend("a".chars().cycle().take(length % 3));
    text.into_bytes()
}
