//! Any bytes as a Protobuf frame: it ends, and says something.
#![no_main]

use fanwire_protocol::wire::{ClientMessage, Wire};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let mut refused = false;
    let mut count = 0;
    for request in Wire::CentrifugeProtobuf.requests(ClientMessage::Binary(frame), 0) {
        assert!(!refused, "nothing follows a malformed command");
        count += 1;
        refused = request.is_err();
    }
    assert!(count > 0, "a frame without a command is malformed");
});
