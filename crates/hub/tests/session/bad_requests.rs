//! Bad requests are told which field is wrong and what to do. That none goes without a sentence is asserted in
//! `harness/lines.rs`, for every effect of every test.

use fanwire_hub::{ConnectionClaims, PersonalTopic};

use super::harness::tokens::{grant, user};
use super::harness::{TestShard, open};

fn error(id: u32, why: &str) -> String {
    format!(r#"{{"id":{id},"error":{{"code":107,"message":"bad request: {why}"}}}}"#)
}

#[test]
fn a_name_that_cannot_be_is_told_why_by_every_command() {
    let long = "n".repeat(256);
    for (topic, why) in [
        (&*long, "channel: the topic's name is longer than topics.length_max; use a shorter one"),
        ("!control", "channel: names that begin with ! are the cluster's own; use another"),
        (
            "ü",
            "channel: the topic's name does not match its namespace's topic_regex, or is not ASCII; use another",
        ),
    ] {
        for command in ["subscribe", "publish", "presence", "presence_stats", "history"] {
            let mut shard = TestShard::new(open(), []);
            let client = shard.connect("42");
            let command = format!(r#"{{"id":2,"{command}":{{"channel":"{topic}","data":1}}}}"#);
            shard.check(client, &command, &[&error(2, why)]);
        }
    }
}

#[test]
fn fields_that_cannot_be_are_named() {
    for (command, why) in [
        (
            r#""subscribe":{"channel":"news","tf":{}}"#,
            "tf is off in this namespace (allow_tags_filter); leave it out",
        ),
        (r#""publish":{"channel":"news","data":1,"type":1}"#, "type is not 0; leave it out"),
        (
            r#""history":{"channel":"news","reverse":true,"since":{}}"#,
            "since.offset is 0, and nothing comes before it; leave out reverse",
        ),
        (r#""sub_refresh":{"channel":"on"}"#, "token is empty; send a new subscription token"),
        (r#""sub_refresh":{"channel":"on","token":"on","type":1}"#, "type is not 0; leave it out"),
    ] {
        let mut shard = TestShard::new(open(), []);
        let client = shard.connect("42");
        shard.subscribe(client, "on");
        shard.check(client, &format!(r#"{{"id":3,{command}}}"#), &[&error(3, why)]);
    }
}

#[test]
fn fields_that_end_the_connection_are_named() {
    for (command, why) in [
        (r#""refresh":{}"#, "token is empty; send a new connection token"),
        (
            r#""subscribe":{"channel":"news","delta":"other"}"#,
            r#"delta is unknown; send "fossil" or leave it out"#,
        ),
    ] {
        let mut shard = TestShard::new(open(), []);
        let client = shard.connect("42");
        let closed = format!("close 3501 bad request: {why}");
        shard.check(client, &format!(r#"{{"id":2,{command}}}"#), &["unregister 42", &closed]);
    }
    let mut shard = TestShard::new(open(), []);
    let client = shard.open();
    let connect = r#"{"id":1,"connect":{"token":"42","subs":{"nowhere:a":{}}}}"#;
    let why = "subs has a topic whose namespace is not configured; leave it out";
    shard.check(client, connect, &[&format!("close 3501 bad request: {why}")]);
}

#[test]
fn a_token_s_topic_that_cannot_be_is_told_why() {
    let mut shard = TestShard::new(open(), []);
    shard.tokens.add_connection("topic", ConnectionClaims { topics: vec![grant("!a")], ..user("42") });
    shard.tokens.add_connection("no name", ConnectionClaims { topics: vec![grant("")], ..user("42") });
    shard.tokens.add_connection("user", user("ü"));
    shard.settings.personal_topic = Some(PersonalTopic::default());
    for (token, why) in [
        (
            "topic",
            "channels or subs of the token: names that begin with ! are the cluster's own; use another",
        ),
        ("no name", "channels or subs of the token: the topic's name is empty"),
        (
            "user",
            "sub of the token, for its own topic: the topic's name does not match its namespace's topic_regex, or is not ASCII; use another",
        ),
    ] {
        let client = shard.open();
        let connect = format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#);
        shard.check(client, &connect, &[&error(1, why)]);
    }
}
