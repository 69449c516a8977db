//! Any bytes as the connect request of a one-way transport: one request without fields that were not there, or a few words
//! say what is wrong.
#![no_main]

use fanwire_protocol::request::Ask;
use fanwire_protocol::wire::{ClientMessage, Wire};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    for wire in [Wire::UniWebSocket, Wire::UniLines, Wire::UniEvents] {
        let mut requests = wire.requests(ClientMessage::Binary(message), 0);
        match requests.next() {
            Some(Ok(request)) => match request.ask {
                Ask::Connect(connect) => {
                    let names: usize = connect.topics.iter().map(|(topic, _)| topic.len()).sum();
                    assert!(connect.token.len() + names <= message.len(), "escapes only get shorter");
                }
                other => panic!("a client that only listens asks for {other:?}"),
            },
            Some(Err(malformed)) => {
                assert!(malformed.reason().len() < 200, "nothing that was sent is repeated");
            }
            None => panic!("a connect request is missing"),
        }
        assert!(requests.next().is_none(), "one message is one request");
    }
});
