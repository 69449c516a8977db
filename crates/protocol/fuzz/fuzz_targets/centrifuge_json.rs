//! Any bytes as a JSON frame: it ends, and every payload it yields is one JSON value.
#![no_main]

use fanwire_protocol::json;
use fanwire_protocol::request::Ask;
use fanwire_protocol::wire::{ClientMessage, Wire};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let mut refused = false;
    let mut count = 0;
    for request in Wire::CentrifugeJson.requests(ClientMessage::Binary(frame), 0) {
        assert!(!refused, "nothing follows a malformed command");
        count += 1;
        let Ok(request) = request else {
            refused = true;
            continue;
        };
        if let Ask::Publish(publish) = request.ask
            && !publish.data.is_empty()
        {
            assert_eq!(json::check(&publish.data), Ok(()));
        }
    }
    assert!(count > 0, "a frame without a command is malformed");
});
