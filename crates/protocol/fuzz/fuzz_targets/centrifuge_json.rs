//! Any bytes as a JSON frame: it ends, and every payload it yields is one JSON value.
#![no_main]

use fanwire_protocol::centrifuge::{Encoding, Request, commands};
use fanwire_protocol::json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let mut refused = false;
    let mut count = 0;
    for command in commands(Encoding::Json, frame) {
        assert!(!refused, "nothing follows a malformed command");
        count += 1;
        let Ok(command) = command else {
            refused = true;
            continue;
        };
        if let (_, Some(Request::Publish(publish))) = command.into_request()
            && !publish.data.is_empty()
        {
            assert_eq!(json::check(&publish.data), Ok(()));
        }
    }
    assert!(count > 0, "a frame without a command is malformed");
});
