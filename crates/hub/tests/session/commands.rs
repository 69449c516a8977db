//! Which commands are valid at all, and in which order: ids, the first connect, the second, empty commands.

use fanwire_protocol::reason::CloseReason;

use super::harness::{Outcome, TestShard};

/// Every request, without its id, in the order in which they are looked for.
const REQUESTS: [&str; 12] = [
    r#""connect":{}"#,
    r#""ping":{}"#,
    r#""subscribe":{"channel":"news"}"#,
    r#""unsubscribe":{"channel":"news"}"#,
    r#""publish":{"channel":"news","data":1}"#,
    r#""presence":{"channel":"news"}"#,
    r#""presence_stats":{"channel":"news"}"#,
    r#""history":{"channel":"news"}"#,
    r#""rpc":{"method":"m"}"#,
    r#""send":{"data":1}"#,
    r#""refresh":{"token":"42"}"#,
    r#""sub_refresh":{"channel":"news","token":"news"}"#,
];

#[test]
fn the_first_command_is_connect() {
    for request in &REQUESTS[1..] {
        let mut shard = TestShard::default();
        let client = shard.open();
        let why = "close 3501 bad request: the first command is not connect; send connect first";
        shard.check(client, &format!(r#"{{"id":1,{request}}}"#), &[why]);
    }
    let mut shard = TestShard::default();
    let client = shard.open();
    let why =
        "close 3501 bad request: an empty command, which is a pong, without a ping; send one for each ping";
    shard.check(client, "{}", &[why]);
}

#[test]
fn there_is_one_connect() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    let why = "close 3501 bad request: connect was sent before; send it once in each connection";
    shard.check(client, r#"{"id":2,"connect":{"token":"42"}}"#, &["unregister 42", why]);

    // The second may come before the first is answered, too.
    let client = shard.open();
    let twice = r#"{"id":1,"connect":{"token":"42"}}{"id":2,"connect":{"token":"42"}}"#;
    shard.check(client, twice, &["register 42", "unregister 42", why]);
}

#[test]
fn every_command_but_send_has_an_id() {
    for request in &REQUESTS {
        let mut shard = TestShard::default();
        let closed = ["unregister 42", "close 3501 bad request: id is 0 or missing; number commands from 1"];
        let (client, expected) = match *request == REQUESTS[0] {
            true => (shard.open(), &closed[1..]),
            false => (shard.connect("42"), &closed[..]),
        };
        let frame = format!("{{{request}}}");
        match request.starts_with(r#""send""#) {
            false => shard.check(client, &frame, expected),
            true => shard.check(client, &frame, &["unregister 42", "close 3508 not available"]),
        }
    }
}

#[test]
fn a_command_without_a_request_is_a_mistake() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    let why = "close 3501 bad request: the command has no known request; send one, such as subscribe";
    shard.check(client, r#"{"id":2}"#, &["unregister 42", why]);
}

#[test]
fn the_wire_ping_is_not_served() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    let why = "close 3501 bad request: ping is not served; answer the server's pings instead";
    shard.check(client, r#"{"id":2,"ping":{}}"#, &["unregister 42", why]);
}

#[test]
fn send_has_no_taker() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    shard.check(client, r#"{"id":2,"send":{"data":1}}"#, &["unregister 42", "close 3508 not available"]);
}

#[test]
fn rpc_answers_only_the_built_in_method() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    assert_eq!(shard.outcome(client, r#""rpc":{"method":"ping"}"#), Outcome::Error(108));
    shard.settings.rpc_ping_method = Some("ping".into());
    shard.check(client, r#"{"id":2,"rpc":{"method":"ping"}}"#, &[r#"{"id":2,"rpc":{}}"#]);
    assert_eq!(shard.outcome(client, r#""rpc":{"method":"other"}"#), Outcome::Error(104));
    assert_eq!(shard.outcome(client, r#""rpc":{"method":"namespace:ping"}"#), Outcome::Error(104));
}

#[test]
fn the_first_request_of_a_command_counts() {
    let say = |requests: &str| {
        let mut shard = TestShard::default();
        let client = shard.connect("42");
        shard.say(client, &format!(r#"{{"id":2,{requests}}}"#))
    };
    for (place, first) in REQUESTS.iter().enumerate() {
        for later in &REQUESTS[place + 1..] {
            // Wherever they stand in the text.
            assert_eq!(say(&format!("{later},{first}")), say(first), "{first} {later}");
        }
    }
}

#[test]
fn an_empty_topic_is_a_mistake_in_every_request() {
    for request in &REQUESTS {
        if let Some((method, rest)) = request.split_once(r#"{"channel":"news""#) {
            let mut shard = TestShard::default();
            let client = shard.connect("42");
            let frame = format!(r#"{{"id":2,{method}{{"channel":""{rest}}}"#);
            let why = "close 3501 bad request: channel is empty; send the name of a topic";
            shard.check(client, &frame, &["unregister 42", why]);
        }
    }
}

#[test]
fn commands_that_come_before_the_connect_reply_are_done_after_it() {
    let mut shard = TestShard::default();
    let client = shard.open();
    let frame = r#"{"id":1,"connect":{"token":"42"}}
                   {"id":2,"unsubscribe":{"channel":"b"}}
                   {"id":3,"subscribe":{"channel":"a"}}"#;
    shard.check(client, frame, &["register 42"]);
    assert_eq!(
        shard.registered(client, Ok(())),
        [
            r#"open {"id":1,"connect":{"client":"client-1","version":"test","ping":25,"pong":true}}"#,
            r#"{"id":2,"unsubscribe":{}}"#,
            "a: subscribe 42",
        ]
    );
}

#[test]
fn commands_behind_one_that_ends_the_session_are_dropped() {
    let mut shard = TestShard::default();
    let client = shard.open();
    let frame = r#"{"id":1,"connect":{"token":"42"}}
                   {"id":2,"refresh":{"token":"invalid"}}
                   {"id":3,"subscribe":{"channel":"a"}}"#;
    shard.check(client, frame, &["register 42"]);
    let lines = shard.registered(client, Ok(()));
    assert_eq!(lines[1..], ["unregister 42", "close 3500 invalid token"]);
}

#[test]
fn commands_that_wait_are_bounded() {
    let mut shard = TestShard::default();
    shard.settings.pending_commands_max = 2;
    let client = shard.open();
    let command = r#"{"id":9,"unsubscribe":{"channel":"a"}}"#;
    shard.check(client, r#"{"id":1,"connect":{"token":"42"}}"#, &["register 42"]);
    shard.check(client, &command.repeat(2), &[]);
    shard.check(client, command, &["unregister 42", "close 3013 too many requests"]);

    let client = shard.connect("42");
    shard.check(client, r#"{"id":2,"subscribe":{"channel":"a"}}"#, &["a: subscribe 42"]);
    shard.check(client, &command.repeat(2), &[]);
    // Another topic's commands do not wait, and a third that would is one too many.
    shard.check(client, r#"{"id":3,"unsubscribe":{"channel":"b"}}"#, &[r#"{"id":3,"unsubscribe":{}}"#]);
    shard.check(client, command, &["unregister 42", "close 3013 too many requests"]);
}

/// Waiting requests are bounded in bytes as well: beyond that the session wants nothing more, until there is an answer.
#[test]
fn commands_that_wait_are_bounded_in_bytes() {
    const COMMANDS: usize = 7;
    let mut shard = TestShard::default();
    let publish = |id: usize| {
        let data = "x".repeat(10_000);
        format!(r#"{{"id":{id},"publish":{{"channel":"a","data":"{data}"}}}}"#)
    };
    // Behind connect, and behind a subscribe.
    let client = shard.open();
    shard.check(client, r#"{"id":1,"connect":{"token":"42"}}"#, &["register 42"]);
    let fill = |shard: &mut TestShard| {
        for id in 0..COMMANDS {
            assert!(!shard.session(client).is_busy(), "{id}");
            assert_eq!(shard.session(client).waiting_bytes() / 10_000, id);
            shard.check(client, &publish(10 + id), &[]);
        }
        assert!(shard.session(client).is_busy() && shard.session(client).lets_requests_wait());
    };
    fill(&mut shard);
    let lines = shard.registered(client, Ok(()));
    assert_eq!(lines.len(), 1 + COMMANDS);
    assert_eq!(shard.session(client).waiting_bytes(), 0);
    assert!(!shard.session(client).is_busy() && !shard.session(client).lets_requests_wait());

    shard.check(client, r#"{"id":2,"subscribe":{"channel":"a"}}"#, &["a: subscribe 42"]);
    fill(&mut shard);
    // Nothing is left of it when the client goes.
    shard.end(client);
    assert_eq!(shard.session(client).waiting_bytes(), 0);
}

#[test]
fn nothing_is_taken_from_a_client_that_was_closed() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    let closed = shard.with(client, |session, context| session.close(context, CloseReason::Shutdown));
    assert_eq!(closed, ["unregister 42", "close 3001 shutdown"]);
    assert!(shard.session(client).is_over());
    for request in &REQUESTS {
        let command = format!(r#"{{"id":2,{request}}}"#);
        shard.check(client, &command, &[]);
    }
    let closed_again = shard.with(client, |session, context| session.close(context, CloseReason::Shutdown));
    assert_eq!(closed_again, [""; 0]);
    assert_eq!(shard.end(client), [""; 0]);
}
