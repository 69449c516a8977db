//! Any text as an object of known fields: read as serde reads it, but for the case of names.
#![no_main]

use fanwire_protocol::json::Object;
use fanwire_protocol::json::fields::{nested, object};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Request {
    #[serde(alias = "topic")]
    channel: String,
    limit: i64,
    #[serde(deserialize_with = "nested")]
    since: Option<Since>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Since {
    offset: u64,
}

fuzz_target!(|text: &str| {
    let read = object::<Request>(text);
    let error = read.as_ref().err().map(ToString::to_string);
    assert!(error.is_none_or(|error| error.len() < 200), "an error repeats nothing that was sent");
    // Where nothing can be in another case, it is read as by names alone.
    if !text.contains('\\') && !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let exact = serde_json::from_str::<Object<Request>>(text);
        assert_eq!(read.ok(), exact.ok().map(|Object(request)| request));
    }
});
