//! Deliveries are encoded once for each body of their wires. Payloads that JSON cannot hold are counted when they are
//! encoded, in the whole process, so nothing else is tested in this file.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_hub::delivery::Delivery;
use fanwire_protocol::json::payload::written_in_base64;
use fanwire_protocol::reply::Push;
use fanwire_protocol::wire::Wire;
use fanwire_protocol::{Publication, TopicName};

/// Wires whose body is the Centrifuge protocol's JSON, or its push.
const IN_JSON: [Wire; 6] = [
    Wire::CentrifugeJson,
    Wire::CentrifugeLines,
    Wire::CentrifugeEvents,
    Wire::UniWebSocket,
    Wire::UniLines,
    Wire::UniEvents,
];

fn delivery() -> Delivery {
    let topic = TopicName::new("news").expect("the name is not empty");
    let publication = Publication { data: Bytes::from_static(b"\xff"), offset: 7, ..Publication::default() };
    Delivery::new(Push::Publication {
        topic,
        publication: Arc::new(publication),
        epoch: None,
        shows_time: false,
    })
}

fn encodings(of: impl FnOnce()) -> u64 {
    let before = written_in_base64();
    of();
    written_in_base64() - before
}

#[test]
fn wires_with_a_body_in_common_are_encoded_once() {
    for first in IN_JSON {
        let delivery = delivery();
        assert!(!delivery.bytes(Wire::CentrifugeProtobuf).is_empty());
        assert_eq!(encodings(|| assert!(!delivery.bytes(first).is_empty())), 1);
        let others = || assert!(IN_JSON.iter().all(|wire| !delivery.bytes(*wire).is_empty()));
        assert_eq!(encodings(others), 0, "{first:?} first");
        assert_eq!(encodings(|| assert!(!delivery.bytes(Wire::Events).is_empty())), 1);
        let frame = delivery.bytes(Wire::CentrifugeProtobuf).as_ptr_range();
        assert!(
            frame.contains(&delivery.bytes(Wire::CentrifugeStream).as_ptr()),
            "it is cut out of the frame"
        );
    }
    // Also where shards ask at once.
    for _ in 0..200 {
        let delivery = delivery();
        let ask = |turn: usize| {
            let delivery = &delivery;
            move || {
                IN_JSON.iter().cycle().skip(turn).take(IN_JSON.len()).for_each(|wire| {
                    delivery.bytes(*wire);
                })
            }
        };
        let all = || std::thread::scope(|scope| (0..4).for_each(|turn| drop(scope.spawn(ask(turn)))));
        assert_eq!(encodings(all), 1);
    }
}
