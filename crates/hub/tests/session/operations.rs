//! Publish, presence and history: refusals beyond permissions, what the owner is asked, and the results.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_hub::effect::Answer;
use fanwire_hub::{HistoryBounds, Namespace, PublicationFormat, Unfit};
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::{ClientId, ClientInfo, Publication};

use super::harness::Outcome::{Asks, Error};
use super::harness::{TestShard, position};

fn open() -> Namespace {
    let ttl = std::time::Duration::from_secs(60);
    Namespace {
        presence: true,
        history: Some(HistoryBounds { size: 10, ttl, meta_ttl: ttl }),
        allow_publish_for_client: true,
        allow_presence_for_client: true,
        allow_history_for_client: true,
        ..Namespace::default()
    }
}

fn connected(namespace: Namespace) -> (TestShard, u32) {
    let mut shard = TestShard::new(namespace, []);
    let client = shard.connect("42");
    (shard, client)
}

fn info(user: &str, client: &str) -> ClientInfo {
    let client = ClientId::parse(client).expect("a UUID");
    ClientInfo { user: user.into(), client, connection: Bytes::new(), subscription: Bytes::new() }
}

#[test]
fn a_publication_has_the_data_its_namespace_asks_for() {
    use PublicationFormat::{Binary, Json, JsonObject, NotEmpty};
    for (format, data, expected) in [
        (NotEmpty, "", Error(107)),
        (NotEmpty, r#","data":1"#, Asks),
        (NotEmpty, r#","data":{"a":1}"#, Asks),
        (Json, "", Error(107)),
        (Json, r#","data":1"#, Asks),
        (JsonObject, "", Error(107)),
        (JsonObject, r#","data":1"#, Error(107)),
        (JsonObject, r#","data":[1]"#, Error(107)),
        (JsonObject, r#","data": {"a":1} "#, Asks),
        (Binary, "", Asks),
        (Binary, r#","data":1"#, Asks),
        // Map topics are not served.
        (NotEmpty, r#","data":1,"type":1,"key":"k""#, Error(107)),
    ] {
        let (mut shard, client) = connected(Namespace { publication_format: format, ..open() });
        let command = format!(r#""publish":{{"channel":"news"{data}}}"#);
        assert_eq!(shard.outcome(client, &command), expected, "{format:?} {data}");
    }
}

#[test]
fn bytes_of_a_binary_client_are_looked_at_too() {
    use PublicationFormat::{Binary, Json, JsonObject, NotEmpty};
    for (data, formats) in [
        (b"\xff\x00".as_slice(), &[NotEmpty, Binary] as &[_]),
        (b"not json", &[NotEmpty, Binary]),
        (b"1 2", &[NotEmpty, Binary]),
        (b"[1]", &[NotEmpty, Json, Binary]),
        (b" {} ", &[NotEmpty, Json, JsonObject, Binary]),
        (b"", &[Binary]),
    ] {
        for format in [NotEmpty, Json, JsonObject, Binary] {
            assert_eq!(format.check(data).is_ok(), formats.contains(&format), "{format:?} {data:?}");
        }
    }
}

#[test]
fn refused_data_is_told_why() {
    let (mut shard, client) =
        connected(Namespace { publication_format: PublicationFormat::JsonObject, ..open() });
    let publish = r#"{"id":2,"publish":{"channel":"news","data":[1]}}"#;
    let why = r#"data is not a JSON object; send one, or set publication_format to \"json\""#;
    shard.check(
        client,
        publish,
        &[&format!(r#"{{"id":2,"error":{{"code":107,"message":"bad request: {why}"}}}}"#)],
    );
    let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
    for (data, unfit) in [
        (&b""[..], Unfit::Empty),
        (b"\xff", Unfit::NotJson),
        (b"\"\xff\"", Unfit::NotJson),
        (nested(129).as_bytes(), Unfit::TooDeep),
    ] {
        assert_eq!(PublicationFormat::default().check(data), Err(unfit));
    }
    // Half of a surrogate pair is JSON by its grammar, and JavaScript writes it.
    for data in [nested(128).as_bytes(), br#""\ud800""#] {
        assert_eq!(PublicationFormat::default().check(data), Ok(()));
    }
}

#[test]
fn data_is_looked_at_before_permissions() {
    let (mut shard, client) = connected(Namespace { allow_publish_for_client: false, ..open() });
    assert_eq!(shard.outcome(client, r#""publish":{"channel":"news"}"#), Error(107));
    assert_eq!(shard.outcome(client, r#""publish":{"channel":"news","data":1}"#), Error(103));
}

#[test]
fn a_publish_is_answered() {
    let (mut shard, client) = connected(open());
    let command = r#"{"id":2,"publish":{"channel":"news","data":{"a": 1}}}"#;
    shard.check(client, command, &[r#"news: publish #2 {"a": 1} by 42"#]);
    let published = |result| Answer::Published { id: 2, result };
    assert_eq!(shard.answer(client, published(Ok(()))), [r#"{"id":2,"publish":{}}"#]);
    assert_eq!(
        shard.answer(client, published(Err(RequestError::TooManyRequests))),
        [r#"{"id":2,"error":{"code":111,"message":"too many requests","temporary":true}}"#]
    );
}

#[test]
fn presence_that_is_not_kept_cannot_be_asked() {
    // Before permissions are looked at.
    for allow_presence_for_client in [false, true] {
        let namespace = Namespace { presence: false, allow_presence_for_client, ..open() };
        let (mut shard, client) = connected(namespace);
        assert_eq!(shard.outcome(client, r#""presence":{"channel":"news"}"#), Error(108));
        assert_eq!(shard.outcome(client, r#""presence_stats":{"channel":"news"}"#), Error(108));
    }
}

#[test]
fn presence_is_answered() {
    let (mut shard, client) = connected(open());
    shard.check(client, r#"{"id":2,"presence":{"channel":"news"}}"#, &["news: presence #2"]);
    let somebody = ClientInfo {
        connection: r#"{"name":"Ada"}"#.into(),
        subscription: "7".into(),
        ..info("42", "00000000-0000-4000-8000-000000000001")
    };
    let presence = |result| Answer::Presence { id: 2, result };
    assert_eq!(
        shard.answer(client, presence(Ok(vec![Arc::new(somebody)]))),
        [concat!(
            r#"{"id":2,"presence":{"presence":{"client-1":"#,
            r#"{"user":"42","client":"client-1","conn_info":{"name":"Ada"},"chan_info":7}}}}"#
        )]
    );
    assert_eq!(shard.answer(client, presence(Ok(Vec::new()))), [r#"{"id":2,"presence":{"presence":{}}}"#]);
    assert_eq!(
        shard.answer(client, presence(Err(RequestError::Internal))),
        [r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#]
    );
}

#[test]
fn presence_stats_are_answered() {
    let (mut shard, client) = connected(open());
    shard.check(client, r#"{"id":2,"presence_stats":{"channel":"news"}}"#, &["news: presence_stats #2"]);
    let stats = |result| Answer::PresenceStats { id: 2, result };
    for ((clients, users), expected) in [
        ((3, 2), r#"{"id":2,"presence_stats":{"num_clients":3,"num_users":2}}"#),
        ((0, 0), r#"{"id":2,"presence_stats":{"num_clients":0,"num_users":0}}"#),
    ] {
        assert_eq!(shard.answer(client, stats(Ok((clients, users)))), [expected]);
    }
    assert_eq!(
        shard.answer(client, stats(Err(RequestError::Internal))),
        [r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#]
    );
}

#[test]
fn history_that_is_not_kept_cannot_be_asked() {
    for allow_history_for_client in [false, true] {
        let (mut shard, client) = connected(Namespace { history: None, allow_history_for_client, ..open() });
        assert_eq!(shard.outcome(client, r#""history":{"channel":"news"}"#), Error(108));
    }
}

#[test]
fn a_page_of_history_is_bounded() {
    for (request, expected) in [
        ("", "limit 0"),
        (r#","limit":0"#, "limit 0"),
        (r#","limit":10"#, "limit 10"),
        (r#","limit":300"#, "limit 300"),
        (r#","limit":301"#, "limit 300"),
        (r#","limit":2147483647"#, "limit 300"),
        (r#","limit":-1"#, "limit 300"),
        (r#","limit":-2147483648"#, "limit 300"),
        (r#","limit":1,"since":{"offset":5,"epoch":"abcdefgh"}"#, "limit 1 since 5@abcdefgh"),
        (r#","limit":1,"since":{}"#, "limit 1 since 0@"),
        (r#","limit":1,"reverse":true"#, "limit 1 reverse"),
        (r#","limit":1,"since":{"offset":5},"reverse":true"#, "limit 1 since 5@ reverse"),
    ] {
        let (mut shard, client) = connected(open());
        let command = format!(r#"{{"id":2,"history":{{"channel":"news"{request}}}}}"#);
        shard.check(client, &command, &[&format!("news: history #2 {expected}")]);
    }
    let (mut shard, client) = connected(open());
    shard.settings.history_page_max = 7;
    shard.check(client, r#"{"id":2,"history":{"channel":"news","limit":-1}}"#, &["news: history #2 limit 7"]);
}

#[test]
fn nothing_comes_before_the_beginning() {
    for (since, expected) in
        [(r#"{"offset":0}"#, Error(107)), (r#"{"epoch":"abcdefgh"}"#, Error(107)), ("null", Asks)]
    {
        let (mut shard, client) = connected(open());
        let command = format!(r#""history":{{"channel":"news","limit":1,"since":{since},"reverse":true}}"#);
        assert_eq!(shard.outcome(client, &command), expected, "{since}");
    }
    // It is looked at last.
    let (mut shard, client) = connected(Namespace { allow_history_for_client: false, ..open() });
    let command = r#""history":{"channel":"news","since":{},"reverse":true}"#;
    assert_eq!(shard.outcome(client, command), Error(103));
}

#[test]
fn history_is_answered() {
    let (mut shard, client) = connected(open());
    shard.check(client, r#"{"id":2,"history":{"channel":"news","limit":1}}"#, &["news: history #2 limit 1"]);
    let history = |result| Answer::History { id: 2, result, shows_time: false };
    let publication = Publication {
        data: r#"{"a": 1}"#.into(),
        info: Some(Arc::new(info("", "00000000-0000-4000-8000-000000000009"))),
        tags: Some(Arc::new([("k".to_owned(), "v".to_owned())].into())),
        offset: 4,
        ..Publication::default()
    };
    assert_eq!(
        shard.answer(client, history(Ok((position(9), vec![Arc::new(publication)])))),
        [concat!(
            r#"{"id":2,"history":{"publications":[{"data":{"a": 1},"info":{"user":"","client":"client-9"},"#,
            r#""offset":4,"tags":{"k":"v"}}],"epoch":"abcdefgh","offset":9}}"#
        )]
    );
    // The top is said whatever the page holds.
    assert_eq!(
        shard.answer(client, history(Ok((position(0), Vec::new())))),
        [r#"{"id":2,"history":{"publications":[],"epoch":"abcdefgh","offset":0}}"#]
    );
    assert_eq!(
        shard.answer(client, history(Err(RequestError::UnrecoverablePosition))),
        [r#"{"id":2,"error":{"code":112,"message":"unrecoverable position"}}"#]
    );
}
