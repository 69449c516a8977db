//! Any bytes as the answer of a hook: read or refused, with a short reason that names a field.
#![no_main]

// Of `fanwire-server`, whose TLS and HTTP have no part in this.
#[path = "../../../server/src/hooks/answer.rs"]
mod answer;
#[path = "../../../server/src/overrides.rs"]
mod overrides;

use bytes::Bytes;
use fanwire_hub::hook::{HookDenial, HookEvent};
use fanwire_protocol::TopicName;
use fanwire_protocol::centrifuge::codes;
use libfuzzer_sys::fuzz_target;

fn events() -> [HookEvent; 7] {
    let topic = || TopicName::new("a").expect("a name");
    let (name, version) = Default::default();
    [
        HookEvent::Connect { data: Bytes::new(), name, version, topics: Vec::new() },
        HookEvent::Refresh,
        HookEvent::Subscribe { topic: topic(), data: Bytes::new() },
        HookEvent::SubRefresh { topic: topic() },
        HookEvent::Publish { topic: topic(), data: Bytes::new(), tags: None },
        HookEvent::Call { method: "a".into(), data: Bytes::new() },
        HookEvent::Send { method: None, data: Bytes::new() },
    ]
}

fuzz_target!(|body: &[u8]| {
    for event in events() {
        match answer::read(&event, body) {
            Err(unusable) => {
                assert!(unusable.to_string().len() < 300, "an error repeats nothing that was sent")
            }
            Ok(Err(HookDenial::Close(close))) => {
                let (code, words) = codes::close(&close);
                assert!((3000..=4999).contains(&code) && words.len() <= 123, "{code} {words}");
            }
            Ok(Ok(_) | Err(HookDenial::Error(_) | HookDenial::Failed)) => {}
        }
    }
});
