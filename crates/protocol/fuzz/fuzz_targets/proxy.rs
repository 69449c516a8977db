//! Any bytes: a header lies within them, and is incomplete at every cut before its end.
#![no_main]

use fanwire_protocol::proxy::{HEADER_BYTES_MAX, Start, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let start = read(input);
    if let Start::Header(header) = start {
        assert!(header.length <= input.len().min(HEADER_BYTES_MAX));
        assert_eq!(read(&input[..header.length]), start);
        for length in 0..header.length {
            assert_eq!(read(&input[..length]), Start::Incomplete);
        }
    }
});
