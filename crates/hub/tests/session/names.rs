//! The meaning of a topic's name: its namespace, its users, its mark of privacy, in every command that has a topic.

use fanwire_hub::{NameRules, Namespace, Namespaces};
use regex::Regex;

use super::harness;
use super::harness::Outcome::{Asks, Error};
use super::harness::TestShard;

/// A namespace under a name, in which everybody may do everything, also in topics that list users.
fn open(name: &str) -> Namespace {
    Namespace { name: name.into(), allow_user_limited_topics: true, ..harness::open() }
}

/// Commands that look the topic's namespace up, with `TOPIC` for its name.
const COMMANDS: [&str; 5] = [
    r#""subscribe":{"channel":"TOPIC"}"#,
    r#""publish":{"channel":"TOPIC","data":1}"#,
    r#""presence":{"channel":"TOPIC"}"#,
    r#""presence_stats":{"channel":"TOPIC"}"#,
    r#""history":{"channel":"TOPIC"}"#,
];

#[test]
fn every_command_looks_the_name_up() {
    let long = "n".repeat(256);
    let longest = &long[1..];
    let lower = Namespace { topic_regex: Regex::new("^[a-zä]+$").ok(), ..open("lower") };
    for (topic, expected) in [
        ("news", Asks),
        (longest, Asks),
        (&long, Error(107)),
        ("chat:general", Asks),
        // The namespace ends at the first boundary.
        ("chat:a:b", Asks),
        ("chat:", Asks),
        ("nowhere:general", Error(102)),
        (":general", Error(102)),
        ("Chat:general", Error(102)),
        ("nowhere:chat:x", Error(102)),
        ("für-alle", Error(107)),
        ("chat:für-alle", Error(107)),
        ("lower:spät", Asks),
        ("lower:SPAT", Error(107)),
        // An expression is for what comes after the namespace.
        ("lower:lower:", Error(107)),
    ] {
        for command in COMMANDS {
            let mut shard = TestShard::new(open(""), [open("chat"), lower.clone()]);
            let client = shard.connect("42");
            let outcome = shard.outcome(client, &command.replace("TOPIC", topic));
            assert_eq!(outcome, expected, "{command} {topic}");
        }
    }
}

#[test]
fn a_private_topic_belongs_to_the_namespace_behind_its_mark() {
    for (topic, expected) in
        [("$chat:a", Error(103)), ("$nowhere:a", Error(102)), ("$a", Error(103)), ("$$chat:a", Error(102))]
    {
        let mut shard = TestShard::new(open(""), [open("chat")]);
        let client = shard.connect("42");
        assert_eq!(shard.outcome(client, &COMMANDS[1].replace("TOPIC", topic)), expected, "{topic}");
    }
}

#[test]
fn the_characters_can_be_configured() {
    let rules = NameRules {
        length_max: 12,
        private_prefix: "~~".into(),
        namespace_boundary: "/".into(),
        user_boundary: "@".into(),
        user_separator: "+".into(),
    };
    for (topic, expected) in [
        ("chat/a", Asks),
        ("chat:a", Asks),
        ("nowhere/a", Error(102)),
        ("~~chat/a", Error(103)),
        ("$chat/a", Error(102)),
        ("dialog@1+42", Asks),
        ("dialog@1,42", Error(103)),
        ("dialog#1", Asks),
        ("123456789012", Asks),
        ("1234567890123", Error(107)),
    ] {
        let mut shard = TestShard::default();
        shard.topics = Namespaces::new(rules.clone(), open(""), [open("chat")]);
        let client = shard.connect("42");
        assert_eq!(shard.outcome(client, &COMMANDS[0].replace("TOPIC", topic)), expected, "{topic}");
    }
}

#[test]
fn what_needs_no_namespace_takes_any_name() {
    let mut shard = TestShard::new(open(""), []);
    let client = shard.connect("42");
    for topic in ["nowhere:a", "für-alle", &"n".repeat(300)] {
        shard.check(
            client,
            &format!(r#"{{"id":2,"unsubscribe":{{"channel":"{topic}"}}}}"#),
            &[r#"{"id":2,"unsubscribe":{}}"#],
        );
        let refresh = format!(r#""sub_refresh":{{"channel":"{topic}","token":"news"}}"#);
        assert_eq!(shard.outcome(client, &refresh), Error(103));
    }
}
