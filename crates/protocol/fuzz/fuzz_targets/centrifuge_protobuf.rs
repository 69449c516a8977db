//! Any bytes as a Protobuf frame: it ends, and says something.
#![no_main]

use fanwire_protocol::centrifuge::{Encoding, commands};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let mut refused = false;
    let mut count = 0;
    for command in commands(Encoding::Protobuf, frame) {
        assert!(!refused, "nothing follows a malformed command");
        count += 1;
        match command {
            Ok(command) => drop(command.into_request()),
            Err(_) => refused = true,
        }
    }
    assert!(count > 0, "a frame without a command is malformed");
});
