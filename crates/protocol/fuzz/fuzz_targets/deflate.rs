//! Any bytes as a compressed payload, and as a message to compress: what is inflated is within the limit, what was
//! compressed comes back.
#![no_main]

use fanwire_protocol::websocket::{Deflater, Inflater, Opcode, write_frame};
use libfuzzer_sys::fuzz_target;

const BYTES_MAX: usize = 10_000;

fuzz_target!(|input: &[u8]| {
    let mut inflater = Inflater::default();
    let first = inflater.inflate(input, BYTES_MAX).map(<[u8]>::to_vec);
    assert!(first.as_ref().map_or(0, Vec::len) <= BYTES_MAX);

    let mut frame = Vec::new();
    write_frame(Opcode::Binary, input, &mut frame);
    if let Some(deflated) = Deflater::new(1, 1).frame(&frame) {
        let header = match deflated[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        assert!(deflated.len() < frame.len());
        assert_eq!(inflater.inflate(&deflated[header..], input.len()), Ok(input));
    }

    // What came in between left nothing behind.
    assert_eq!(inflater.inflate(input, BYTES_MAX).map(<[u8]>::to_vec), first);
});
