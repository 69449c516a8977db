//! Queries: of any text no more is read than what refuses it, and each topic once.
#![no_main]

use std::collections::HashSet;

use fanwire_protocol::plain::query::Query;
use libfuzzer_sys::fuzz_target;

const MAX: usize = 3;

fuzz_target!(|text: &str| {
    let query = Query::parse(text, MAX);
    assert!(query.topics.len() <= MAX + 1 && query.subscription_tokens.len() <= MAX + 1);
    let once: HashSet<_> = query.topics.iter().collect();
    assert_eq!(once.len(), query.topics.len());
});
