//! Any bytes as the body of a request with commands: it is whole, or a few words say what is wrong.
#![no_main]

use bytes::Bytes;
use fanwire_protocol::centrifuge::{EmulationRequest, Encoding};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let body = Bytes::copy_from_slice(body);
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        match EmulationRequest::decode_body(encoding, &body) {
            Ok(request) => {
                assert!(!request.node.is_empty() && !request.session.is_empty() && !request.data.is_empty());
                assert!(request.data.len() <= body.len());
            }
            Err(malformed) => assert!(malformed.reason().len() < 200, "nothing that was sent is repeated"),
        }
    }
});
