//! Methods and messages for the application.

use std::collections::HashMap;

use super::super::harness::Outcome;
use super::*;

fn call(id: u32, method: &str) -> String {
    format!(r#"{{"id":{id},"rpc":{{"method":"{method}","data":[1]}}}}"#)
}

#[test]
fn every_answer_has_its_consequence() {
    let table: [(Hooked, Vec<String>); 6] = [
        (Ok(HookResult::Called("[2]".into())), vec![r#"{"id":2,"rpc":{"data":[2]}}"#.into()]),
        (Ok(HookResult::Called("".into())), vec![r#"{"id":2,"rpc":{}}"#.into()]),
        (refused(), vec![refusal(2)]),
        (failed(), vec![failure(2)]),
        (Ok(HookResult::Sent), vec![failure(2)]),
        (sent_away(), vec!["unregister 42".into(), "close 4001 go".into()]),
    ];
    for (answer, expected) in table {
        let mut shard = hooked();
        let client = shard.connect("42");
        shard.check(client, &call(2, "m"), &["hook 1: rpc m [1] by 42"]);
        let of = format!("{answer:?}");
        assert_eq!(shard.hooked(client, 1, answer), expected, "{of}");
    }
}

#[test]
fn methods_have_namespaces() {
    let mut shard = hooked();
    let rpc = &mut shard.settings.hooks.rpc;
    rpc.namespace_boundary = ":".to_owned();
    rpc.namespaces = HashMap::from([("off".to_owned(), None)]);
    shard.settings.rpc_ping_method = Some("ping".to_owned());
    let client = shard.connect("42");
    for (method, outcome) in [
        ("ping", Outcome::Done),
        ("other:m", Outcome::Error(104)),
        ("off:m", Outcome::Error(104)),
        ("m", Outcome::Asks),
    ] {
        let call = format!(r#""rpc":{{"method":"{method}"}}"#);
        assert_eq!(shard.outcome(client, &call), outcome, "{method}");
    }
    shard.settings.rpc_ping_method = None;
    let client = shard.connect("42");
    assert_eq!(shard.outcome(client, r#""rpc":{"method":"off:m"}"#), Outcome::Error(108));
}

#[test]
fn the_answer_to_a_message_counts_for_nothing() {
    for answer in [Ok(HookResult::Sent), refused(), failed(), sent_away()] {
        let mut shard = hooked();
        let client = shard.connect("42");
        shard.check(client, r#"{"send":{"data":1}}"#, &["hook 1: send 1 by 42"]);
        assert_eq!(shard.hooked(client, 1, answer), [""; 0]);
        assert!(shard.session(client).is_open());
    }
}

#[test]
fn calls_keep_their_order() {
    let mut shard = hooked();
    shard.settings.rpc_ping_method = Some("ping".to_owned());
    let client = shard.connect("42");
    shard.check(client, &call(2, "a"), &["hook 1: rpc a [1] by 42"]);
    shard.check(client, r#"{"send":{"data":1}}"#, &[]);
    shard.check(client, &call(3, "b"), &[]);
    shard.check(client, &call(4, "c"), &[]);
    shard.check(client, &call(5, "ping"), &[r#"{"id":5,"rpc":{}}"#]);
    let reply = |id: u32| format!(r#"{{"id":{id},"rpc":{{}}}}"#);
    let called = || Ok(HookResult::Called("".into()));
    assert_eq!(shard.hooked(client, 1, called()), [reply(2), "hook 2: send 1 by 42".to_owned()]);
    assert_eq!(shard.hooked(client, 2, failed()), ["hook 3: rpc b [1] by 42"]);
    assert_eq!(shard.hooked(client, 3, refused()), [refusal(3), "hook 4: rpc c [1] by 42".to_owned()]);
    assert_eq!(shard.end(client), ["unregister 42"]);
    assert_eq!(shard.hooked(client, 4, called()), [""; 0]);
}
