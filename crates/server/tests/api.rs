//! The HTTP API and the internal port over real sockets: every method, every refusal, every limit.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[allow(dead_code, unused_imports, reason = "shared with tests that use more of it")]
mod common;

const ON_REDIS: bool = false;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Client, RawSocket, TestGateway, settings, within};
use fanwire_hub::{Namespace, Namespaces, PublicationFormat};
use fanwire_server::Settings;
use secrecy::SecretString;
use serde_json::{Value, json};

const UNKNOWN_TOPIC: &str = r#"{"error":{"code":102,"message":"unknown channel"}}"#;
/// Error 107 with a sentence, as a whole answer.
macro_rules! bad {
    ($why:literal) => {
        concat!(r#"{"error":{"code":107,"message":"bad request: "#, $why, r#""}}"#)
    };
}

const NOT_FOUND: &str = r#"{"error":{"code":104,"message":"not found"}}"#;
const NO_TOPIC: &str = bad!("channel is empty; send the name of a topic");
const NO_TOPICS: &str = bad!("channels is empty; name at least one");
const NOT_ALLOWED: &str = bad!(
    "channel: the topic's name does not match its namespace's topic_regex, or is not ASCII; use another"
);
const NOBODY: &str = bad!("user, client and session are empty; send one of them");
const NOT_BASE64: &str = bad!("b64data is not Base64 with padding");
const INFO_NOT_BASE64: &str = bad!("b64info is not Base64 with padding");
const NOTHING_BEFORE: &str = bad!("since.offset is 0, and nothing comes before it; leave out reverse");
const NO_DATA: &str = bad!(r#"data is empty; send data, or set publication_format to \"binary\""#);
const NOT_OBJECT: &str =
    bad!(r#"data is not a JSON object; send one, or set publication_format to \"json\""#);
const NOT_JSON: &str =
    bad!(r#"b64data is not JSON in UTF-8; send JSON, or set publication_format to \"not_empty\""#);
const INFO_NOT_JSON: &str =
    bad!(r#"info or b64info is not JSON in UTF-8; send JSON, or set publication_format to \"not_empty\""#);
const NOT_AVAILABLE: &str = r#"{"error":{"code":108,"message":"not available"}}"#;
const EXPIRED: &str = r#"{"error":{"code":110,"message":"expired"}}"#;
const UNRECOVERABLE: &str = r#"{"error":{"code":112,"message":"unrecoverable position"}}"#;
const EMPTY: &str = r#"{"result":{}}"#;

/// The shared settings, small limits, and two more namespaces: `object` takes JSON objects only, `binary` anything.
fn api_settings(shards: usize) -> Settings {
    let mut settings = settings(shards);
    settings.api.body_bytes_max = 10_000;
    settings.api.commands_max = 5;
    settings.api.topics_max = 3;
    let format = |name: &str, publication_format| Namespace {
        name: name.into(),
        publication_format,
        ..settings.topics.default.clone()
    };
    let more = [format("object", PublicationFormat::JsonObject), format("binary", PublicationFormat::Binary)];
    let named: Vec<_> = settings.topics.named().cloned().chain(more).collect();
    settings.topics = Namespaces::new(settings.topics.rules.clone(), settings.topics.default.clone(), named);
    settings
}

/// Headers that tests look at.
const HEADERS: [&str; 3] = ["content-type", "allow", "www-authenticate"];

#[derive(Debug)]
struct Response {
    status: u16,
    body: String,
    headers: [(&'static str, Option<String>); HEADERS.len()],
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(own, _)| *own == name).unwrap();
        value.as_deref()
    }
}

async fn start(shards: usize) -> TestGateway {
    TestGateway::start(api_settings(shards)).await
}

async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: impl AsRef<[u8]>,
) -> Response {
    let mut socket = RawSocket::open(address).await;
    request(&mut socket, method, path, headers, body.as_ref()).await
}

async fn request(socket: &mut RawSocket, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {length}\r\n\r\n");
    socket.send([head.as_bytes(), body].concat()).await;
    response(socket).await
}

async fn response(socket: &mut RawSocket) -> Response {
    let response = socket.response().await;
    let header = |name| response.header(name).map(str::to_owned);
    let headers = HEADERS.map(|name| (name, header(name)));
    Response { status: response.status, body: response.body, headers }
}

async fn post(gateway: &TestGateway, method: &str, body: impl AsRef<[u8]>) -> Response {
    ask(gateway.address, "POST", &format!("/api/{method}"), "", body).await
}

/// The result of a call that has to succeed.
async fn call(gateway: &TestGateway, method: &str, body: Value) -> Value {
    let response = post(gateway, method, body.to_string()).await;
    let mut answer: Value = serde_json::from_str(&response.body).unwrap();
    assert!(response.status == 200 && answer.get("result").is_some(), "{method} {body}: {response:?}");
    answer["result"].take()
}

async fn client_of(gateway: &TestGateway, user: &str) -> Client {
    gateway.client_with(&json!({"sub": user})).await
}

#[tokio::test]
async fn every_method_has_its_exact_answers() {
    let cases = [
        ("publish", r#"{"channel":"a","data":{}}"#, EMPTY),
        ("publish", r#"{"channel":"a","data":null}"#, EMPTY),
        ("publish", r#"{"channel":"binary:a","b64data":"AP8="}"#, EMPTY),
        ("publish", r#"{"channel":"binary:a","b64data":"AP\r\n8=\n"}"#, EMPTY),
        ("publish", r#"{"channel":"a","data":1,"delta":true,"label_filter":{},"tags":{"a":"b"}}"#, EMPTY),
        ("publish", r#"{"channel":"history:skip","data":1,"skip_history":true}"#, EMPTY),
        ("publish", r#"{"channel":"object:a","data":{"a":1}}"#, EMPTY),
        ("publish", r#"{"channel":"binary:a"}"#, EMPTY),
        ("publish", r#"{"data":1}"#, NO_TOPIC),
        ("publish", r#"{"channel":null,"data":1}"#, NO_TOPIC),
        ("publish", r#"{"channel":"","data":1}"#, NO_TOPIC),
        ("publish", r#"{"channel":"ä","data":1}"#, NOT_ALLOWED),
        ("publish", r#"{"channel":"a"}"#, NO_DATA),
        ("publish", r#"{"channel":"a","b64data":"***"}"#, NOT_BASE64),
        ("publish", r#"{"channel":"object:a","data":[]}"#, NOT_OBJECT),
        ("publish", r#"{"channel":"a","b64data":"AP8="}"#, NOT_JSON),
        ("publish", r#"{"channel":"object:a","b64data":"AP8="}"#, NOT_JSON),
        ("publish", r#"{"channel":"nowhere:a","data":1}"#, UNKNOWN_TOPIC),
        (
            "broadcast",
            r#"{"channels":["a","b"],"data":1}"#,
            r#"{"result":{"responses":[{"result":{}},{"result":{}}]}}"#,
        ),
        (
            "broadcast",
            r#"{"channels":["nowhere:a","a",""],"data":1}"#,
            r#"{"result":{"responses":[{"error":{"code":102,"message":"unknown channel"}},{"result":{}},{"error":{"code":107,"message":"bad request: channel is empty; send the name of a topic"}}]}}"#,
        ),
        ("broadcast", r#"{"channels":[],"data":1}"#, NO_TOPICS),
        ("broadcast", r#"{"channels":null,"data":1}"#, NO_TOPICS),
        ("broadcast", r#"{"channels":["a"],"b64data":"*"}"#, NOT_BASE64),
        ("subscribe", r#"{"user":"nobody","channel":"a"}"#, EMPTY),
        ("subscribe", r#"{"session":"nobody","channel":"a"}"#, EMPTY),
        ("subscribe", r#"{"client":"no id","channel":"a"}"#, EMPTY),
        ("subscribe", r#"{"client":"0b8c4c5e-3a43-4e8e-9d5f-6a3f0a7c1d22","channel":"a"}"#, EMPTY),
        ("subscribe", r#"{"user":"nobody","channel":"a","expire_at":4102444800}"#, EMPTY),
        ("subscribe", r#"{"user":"nobody"}"#, NO_TOPIC),
        ("subscribe", r#"{"channel":"a"}"#, NOBODY),
        ("subscribe", r#"{"user":"","client":null,"channel":"a"}"#, NOBODY),
        ("subscribe", r#"{"user":"nobody","channel":"a","b64info":"*"}"#, INFO_NOT_BASE64),
        ("subscribe", r#"{"user":"nobody","channel":"a","b64info":"AP8="}"#, INFO_NOT_JSON),
        ("subscribe", r#"{"user":"nobody","channel":"binary:a","b64info":"AP8=","b64data":"AP8="}"#, EMPTY),
        ("subscribe", r#"{"user":"nobody","channel":"a","expire_at":1}"#, EXPIRED),
        ("subscribe", r#"{"user":"nobody","channel":"nowhere:a"}"#, UNKNOWN_TOPIC),
        ("unsubscribe", r#"{"user":"nobody","channel":"a"}"#, EMPTY),
        ("unsubscribe", r#"{"user":"nobody","channel":""}"#, NO_TOPIC),
        ("unsubscribe", r#"{"channel":"a"}"#, NOBODY),
        ("unsubscribe", r#"{"user":"nobody","channel":"nowhere:a"}"#, UNKNOWN_TOPIC),
        ("disconnect", r#"{"user":"nobody"}"#, EMPTY),
        (
            "disconnect",
            r#"{"user":"nobody","disconnect":{"code":4000,"reason":"bye"},"whitelist":["x"]}"#,
            EMPTY,
        ),
        ("disconnect", "{}", NOBODY),
        (
            "disconnect",
            r#"{"user":"nobody","disconnect":{"code":1000}}"#,
            r#"{"error":{"code":107,"message":"bad request: disconnect.code has to be 3000 to 4999"}}"#,
        ),
        ("refresh", r#"{"user":"nobody","expire_at":1}"#, EMPTY),
        ("refresh", r#"{"user":"nobody","expired":true}"#, EMPTY),
        ("refresh", "{}", NOBODY),
        ("presence", r#"{"channel":"room:a"}"#, r#"{"result":{"presence":{}}}"#),
        ("presence", r#"{"channel":"a"}"#, NOT_AVAILABLE),
        ("presence", "{}", NO_TOPIC),
        ("presence", r#"{"channel":"nowhere:a"}"#, UNKNOWN_TOPIC),
        ("presence_stats", r#"{"channel":"room:a"}"#, r#"{"result":{"num_clients":0,"num_users":0}}"#),
        ("presence_stats", r#"{"channel":"a"}"#, NOT_AVAILABLE),
        ("presence_stats", "{}", NO_TOPIC),
        ("presence_stats", r#"{"channel":"nowhere:a"}"#, UNKNOWN_TOPIC),
        ("history", r#"{"channel":"a"}"#, NOT_AVAILABLE),
        ("history", "{}", NO_TOPIC),
        ("history", r#"{"channel":"nowhere:a"}"#, UNKNOWN_TOPIC),
        ("history", r#"{"channel":"history:a","since":{"offset":1,"epoch":"other"}}"#, UNRECOVERABLE),
        ("history", r#"{"channel":"history:a","since":{"offset":0},"reverse":true}"#, NOTHING_BEFORE),
        ("history_remove", r#"{"channel":"history:a"}"#, EMPTY),
        ("history_remove", r#"{"channel":"a"}"#, NOT_AVAILABLE),
        ("history_remove", "{}", NO_TOPIC),
        ("history_remove", r#"{"channel":"nowhere:a"}"#, UNKNOWN_TOPIC),
        ("channels", "{}", r#"{"result":{"channels":{}}}"#),
        ("channels", r#"{"pattern":"a*"}"#, r#"{"result":{"channels":{}}}"#),
        ("rpc", r#"{"method":"x","params":{}}"#, NOT_FOUND),
        ("map_publish", r#"{"channel":"a","key":"b"}"#, NOT_FOUND),
        ("map_clear", "{}", NOT_FOUND),
        ("shared_poll_publish", "{}", NOT_FOUND),
        ("batch", "{}", r#"{"replies":[]}"#),
    ];
    for shards in [1, 3] {
        let gateway = start(shards).await;
        for (method, body, expected) in cases {
            for address in [gateway.address, gateway.internal_address] {
                let response = ask(address, "POST", &format!("/api/{method}"), "", body).await;
                assert_eq!((response.status, &*response.body), (200, expected), "{method} {body}");
                assert_eq!(response.header("content-type"), Some("application/json"));
            }
        }
    }
}

#[tokio::test]
async fn errors_can_be_statuses() {
    let cases = [
        ("publish", r#"{"channel":"a","data":1}"#, 200, EMPTY),
        (
            "publish",
            r#"{"channel":"nowhere:a","data":1}"#,
            404,
            r#"{"code":102,"message":"unknown channel"}"#,
        ),
        ("rpc", r#"{"method":"x"}"#, 404, r#"{"code":104,"message":"not found"}"#),
        (
            "publish",
            r#"{"data":1}"#,
            400,
            r#"{"code":107,"message":"bad request: channel is empty; send the name of a topic"}"#,
        ),
        ("presence", r#"{"channel":"a"}"#, 400, r#"{"code":108,"message":"not available"}"#),
        (
            "history",
            r#"{"channel":"history:a","since":{"offset":1,"epoch":"other"}}"#,
            416,
            r#"{"code":112,"message":"unrecoverable position"}"#,
        ),
    ];
    let by_header = start(1).await;
    let mut settings = api_settings(1);
    settings.api.transport_errors = true;
    let by_setting = TestGateway::start(settings).await;
    for (method, body, status, expected) in cases {
        let path = format!("/api/{method}");
        let header = "X-Centrifugo-Error-Mode: transport\r\n";
        for response in [
            ask(by_header.address, "POST", &path, header, body).await,
            ask(by_setting.address, "POST", &path, "", body).await,
        ] {
            assert_eq!((response.status, &*response.body), (status, expected), "{method} {body}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_400() {
    let gateway = start(1).await;
    let deep = "[".repeat(200) + &"]".repeat(200);
    let bodies: [&[u8]; 12] = [
        b"",
        b" ",
        b"hello",
        b"[]",
        b"1",
        b"null",
        b"{",
        b"{}{}",
        b"{\"channel\":1}",
        b"\xff\xfe{}",
        b"{\"channel\":\"a\xff\",\"data\":1}",
        deep.as_bytes(),
    ];
    for method in ["publish", "history", "info", "channels", "batch"] {
        for body in
            bodies.into_iter().filter(|body| !(method == "info" && body.starts_with(b"{\"channel\":1")))
        {
            // What a method does not look at it does not judge.
            if ["channels", "batch"].contains(&method) && body.starts_with(b"{\"channel\":1") {
                continue;
            }
            let response = post(&gateway, method, body).await;
            assert_eq!(response.status, 400, "{method} {body:?}");
            assert!(response.body.starts_with("Bad Request: "), "{response:?}");
        }
    }
    let nested = format!(r#"{{"channel":"a","data":{deep}}}"#);
    assert_eq!(post(&gateway, "publish", nested).await.status, 400);
}

/// What .NET callers send, and what others call a topic.
#[tokio::test]
async fn names_of_fields_come_in_any_case() {
    let gateway = start(1).await;
    let mut client = gateway.client().await;
    client.subscribe("history:a").await;
    for (path, body) in [
        ("/publish", r#"{"Channel":"history:a","Data":{"Key":1}}"#),
        ("/publish", r#"{"TOPIC":"history:a","B64Data":"eyJLZXkiOjF9"}"#),
        ("/publish", r#"{"topic":"history:a","data":{"Key":1}}"#),
        ("/broadcast", r#"{"Channels":["history:a"],"Data":{"Key":1}}"#),
        ("/broadcast", r#"{"topics":["history:a"],"data":{"Key":1}}"#),
        ("/batch", r#"{"Commands":[{"Publish":{"Channel":"history:a","Data":{"Key":1}}}]}"#),
        ("", r#"{"Method":"publish","Params":{"Channel":"history:a","Data":{"Key":1}}}"#),
    ] {
        let response = ask(gateway.address, "POST", &format!("/api{path}"), "", body).await;
        assert_eq!(response.status, 200, "{body} {response:?}");
        assert!(!response.body.contains("error"), "{body} {response:?}");
        assert_eq!(client.publication().await.1["data"], json!({"Key": 1}), "{body}");
    }
    let history = r#"{"Channel":"history:a","Limit":1,"Since":{"Offset":0}}"#;
    let response = post(&gateway, "history", history).await;
    assert!(response.body.contains(r#"{"Key":1}"#), "{response:?}");
    let disconnect = json!({"Client": client.id(), "Disconnect": {"Code": 4123, "Reason": "bye"}});
    call(&gateway, "disconnect", disconnect).await;
    assert_eq!(client.closed().await, (4123, "bye".into()));
}

#[tokio::test]
async fn errors_name_the_field() {
    let gateway = start(1).await;
    for (path, body, why) in [
        ("/publish", r#"{"channel":"a","Channel":"a","data":1}"#, r#""channel" is doubled"#),
        ("/publish", r#"{"channel":"a","topic":"a","data":1}"#, r#""topic" is doubled"#),
        ("/publish", r#"{"channel":"a","data":1,"data":2}"#, r#""data" is doubled"#),
        (
            "/publish",
            r#"{"channel":["secret"]}"#,
            r#""channel" has a wrong type: expected a string, at line 1"#,
        ),
        (
            "/subscribe",
            r#"{"user":42,"channel":"a"}"#,
            r#""user" has a wrong type: expected a string, at line 1"#,
        ),
        ("/history", r#"{"channel":"a","since":{"offset":"secret"}}"#, r#""since" has a wrong type"#),
        (
            "/batch",
            r#"{"commands":[{"info":{}},{"publish":{},"Publish":{}}]}"#,
            r#"command 2: the field "publish""#,
        ),
        (
            "",
            r#"{"method":"info"}{"method":"info","id":"secret"}"#,
            r#"command 2: the field "id" has a wrong type"#,
        ),
    ] {
        let response = ask(gateway.address, "POST", &format!("/api{path}"), "", body).await;
        assert_eq!(response.status, 400, "{body} {response:?}");
        assert!(response.body.contains(why) && !response.body.contains("secret"), "{body} {response:?}");
    }
    let body = r#"{"method":"publish","params":{"channel":1}}"#;
    let response = ask(gateway.address, "POST", "/api", "", body).await;
    assert_eq!(response.body, bad!(r#"the field \"channel\" has a wrong type: expected a string"#));
}

#[tokio::test]
async fn paths_and_http_methods_are_checked() {
    let gateway = start(1).await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let response = ask(gateway.address, method, "/api/publish", "", "").await;
        assert_eq!((response.status, response.header("allow")), (405, Some("POST")), "{method}");
    }
    for path in ["/api/no_such_method", "/api/publish/", "/api/Publish"] {
        assert_eq!(ask(gateway.address, "POST", path, "", "{}").await.status, 404, "{path}");
    }
    assert_eq!(ask(gateway.address, "POST", "/apis", "", "{}").await.status, 404);
}

#[tokio::test]
async fn a_key_opens_the_api() {
    let mut settings = api_settings(1);
    settings.api.insecure = false;
    settings.api.keys = vec![SecretString::from("first-key"), SecretString::from("second key")];
    let gateway = TestGateway::start(settings).await;
    let ask = async |headers: &str, query: &str| {
        let path = format!("/api/publish{query}");
        ask(gateway.address, "POST", &path, headers, r#"{"channel":"a","data":1}"#).await
    };
    for (headers, query) in [
        ("X-API-Key: first-key\r\n", ""),
        ("x-api-key: second key\r\n", ""),
        ("Authorization: apikey first-key\r\n", ""),
        ("Authorization: APIKEY second key\r\n", ""),
        ("", "?api_key=first-key"),
        ("", "?x=y&api_key=second%20key"),
    ] {
        assert_eq!(ask(headers, query).await.body, EMPTY, "{headers} {query}");
    }
    for (headers, query) in [
        ("", ""),
        ("X-API-Key: wrong-key\r\n", ""),
        ("X-API-Key:\r\n", ""),
        ("Authorization: Bearer first-key\r\n", ""),
        ("Authorization: first-key\r\n", ""),
        ("", "?api_key=wrong-key"),
        ("", "?api_key="),
    ] {
        let response = ask(headers, query).await;
        assert_eq!(response.status, 401, "{headers} {query}");
        assert!(response.body.contains("api.keys") && !response.body.contains("wrong-key"), "{response:?}");
        assert_eq!(response.header("www-authenticate"), Some("apikey"));
    }

    let mut settings = api_settings(1);
    settings.api.insecure = false;
    let closed = TestGateway::start(settings).await;
    let response = post(&closed, "info", "{}").await;
    assert_eq!(response.status, 401);
    assert!(
        response.body.contains("Set api.keys") && response.body.contains("fanwire serve --dev"),
        "{response:?}"
    );
}

#[tokio::test]
async fn the_api_answers_where_it_is_set_to() {
    for (on_client_port, on_internal_port) in [(true, false), (false, true)] {
        let mut settings = api_settings(1);
        settings.api.on_client_port = on_client_port;
        settings.api.on_internal_port = on_internal_port;
        let gateway = TestGateway::start(settings).await;
        let ask = async |address| ask(address, "POST", "/api/info", "", "{}").await.status == 200;
        assert_eq!(ask(gateway.address).await, on_client_port);
        assert_eq!(ask(gateway.internal_address).await, on_internal_port);
    }
}

#[tokio::test]
async fn bodies_are_limited_and_the_answer_arrives() {
    let gateway = start(1).await;
    let body = |length: usize| {
        let empty = r#"{"channel":"a","data":""}"#;
        empty.replace(r#""""#, &format!("\"{}\"", "x".repeat(length - empty.len())))
    };
    assert_eq!(post(&gateway, "publish", body(10_000)).await.body, EMPTY);
    let is_refused = |response: Response| {
        assert_eq!(response.status, 413, "{response:?}");
        assert!(response.body.contains("10000 bytes, the limit that api.body_bytes_max"), "{response:?}");
    };
    is_refused(post(&gateway, "publish", body(10_001)).await);
    // The whole of it is sent before the answer is read.
    is_refused(post(&gateway, "publish", body(20_000_000)).await);

    // Refused by its length alone.
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send("POST /api/publish HTTP/1.1\r\nHost: test\r\nContent-Length: 10001\r\n\r\n").await;
    is_refused(response(&mut socket).await);

    // Without a length it is counted.
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send("POST /api/publish HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..3000 {
        socket.send(format!("1000\r\n{}\r\n", "x".repeat(4096))).await;
    }
    is_refused(response(&mut socket).await);

    let mut socket = RawSocket::open(gateway.address).await;
    let chunked = "POST /api/publish HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
        b\r\n{\"channel\":\r\nd\r\n\"a\",\"data\":1}\r\n0\r\n\r\n";
    socket.send(chunked).await;
    assert_eq!(response(&mut socket).await.body, EMPTY);
    // The connection is kept for more.
    socket.send(chunked).await;
    assert_eq!(response(&mut socket).await.body, EMPTY);
}

#[tokio::test]
async fn limits_on_numbers_name_their_settings() {
    let gateway = start(1).await;
    let refused = |response: &Response, setting: &str| {
        let answer: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(answer["error"]["code"], 107, "{response:?}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(setting), "{response:?}");
    };
    let commands = |count| json!({"commands": vec![json!({"publish": {"channel": "a", "data": 1}}); count]});
    let replies = post(&gateway, "batch", commands(5).to_string()).await;
    assert_eq!(replies.body, json!({"replies": vec![json!({"publish": {}}); 5]}).to_string());
    refused(&post(&gateway, "batch", commands(6).to_string()).await, "api.commands_max");
    let topics = |count| json!({"channels": vec!["a"; count], "data": 1}).to_string();
    assert!(post(&gateway, "broadcast", topics(5)).await.body.starts_with(r#"{"result":"#));
    refused(&post(&gateway, "broadcast", topics(6)).await, "api.commands_max");

    let pipeline = |count| r#"{"method":"publish","params":{"channel":"a","data":1}}"#.repeat(count);
    assert_eq!(post(&gateway, "", pipeline(5)).await.body, [EMPTY; 5].join("\n"));
    let response = post(&gateway, "", pipeline(6)).await;
    assert_eq!(response.status, 413);
    assert!(response.body.contains("api.commands_max"), "{response:?}");

    let mut client = gateway.client().await;
    for topic in ["a", "b", "c", "other"] {
        client.subscribe(topic).await;
    }
    refused(&post(&gateway, "channels", "{}").await, "api.topics_max");
    let narrower = call(&gateway, "channels", json!({"pattern": "?"})).await;
    assert_eq!(
        narrower,
        json!({"channels": {"a": {"num_clients": 1}, "b": {"num_clients": 1}, "c": {"num_clients": 1}}})
    );
    refused(&post(&gateway, "channels", json!({"pattern": "*".repeat(2000)}).to_string()).await, "pattern");
}

#[tokio::test]
async fn publications_are_kept_and_read_back() {
    for shards in [1, 3] {
        let gateway = start(shards).await;
        let mut client = gateway.client().await;
        let epoch = client.subscribe("history:a").await["epoch"].clone();
        for number in 1..=3 {
            let publish = json!({"channel": "history:a", "data": {"n": number}, "tags": {"k": "v"}});
            let expected = json!({"offset": number, "epoch": epoch});
            assert_eq!(call(&gateway, "publish", publish).await, expected);
            let (topic, publication) = client.publication().await;
            assert_eq!(topic, "history:a");
            assert_eq!(publication["data"], json!({"n": number}));
            assert_eq!((&publication["offset"], &publication["tags"]), (&json!(number), &json!({"k": "v"})));
        }
        let offsets = async |query: Value| {
            let mut query = query;
            query["channel"] = "history:a".into();
            let history = call(&gateway, "history", query).await;
            assert_eq!((&history["offset"], &history["epoch"]), (&json!(3), &epoch));
            let publications = history["publications"].as_array().unwrap();
            publications.iter().map(|publication| publication["offset"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert!(offsets(json!({})).await.is_empty());
        assert!(offsets(json!({"limit": 0})).await.is_empty());
        assert_eq!(offsets(json!({"limit": 2})).await, [1, 2]);
        assert_eq!(offsets(json!({"limit": -1})).await, [1, 2, 3]);
        assert_eq!(offsets(json!({"limit": 10, "since": {"offset": 1, "epoch": epoch}})).await, [2, 3]);
        assert_eq!(offsets(json!({"limit": 1, "reverse": true})).await, [3]);
        assert_eq!(offsets(json!({"limit": 9, "reverse": true, "since": {"offset": 3}})).await, [2, 1]);
        let exact = post(&gateway, "history", r#"{"channel":"history:a","limit":1}"#).await.body;
        let epoch = epoch.as_str().unwrap();
        assert_eq!(
            exact,
            format!(
                r#"{{"result":{{"publications":[{{"data":{{"n":1}},"offset":1,"tags":{{"k":"v"}}}}],"epoch":"{epoch}","offset":3}}}}"#
            )
        );
        call(&gateway, "history_remove", json!({"channel": "history:a"})).await;
        assert!(offsets(json!({"limit": -1})).await.is_empty());
    }
}

#[tokio::test]
async fn repeats_and_old_versions_are_not_published_again() {
    let gateway = start(2).await;
    let mut client = gateway.client().await;
    client.subscribe("history:a").await;
    let publish = async |data: &str, more: Value| {
        let mut request = more;
        (request["channel"], request["data"]) = ("history:a".into(), data.into());
        call(&gateway, "publish", request).await["offset"].as_u64().unwrap()
    };
    assert_eq!(publish("once", json!({"idempotency_key": "k"})).await, 1);
    assert_eq!(publish("twice", json!({"idempotency_key": "k"})).await, 1);
    assert_eq!(publish("v5", json!({"version": 5})).await, 2);
    assert_eq!(publish("v4", json!({"version": 4})).await, 2);
    assert_eq!(publish("v1 of b", json!({"version": 1, "version_epoch": "b"})).await, 3);
    for expected in ["once", "v5", "v1 of b"] {
        assert_eq!(client.publication().await.1["data"], expected);
    }
}

#[tokio::test]
async fn broadcasts_reach_every_topic() {
    let gateway = start(3).await;
    let mut client = gateway.client().await;
    for topic in ["a", "history:b"] {
        client.subscribe(topic).await;
    }
    let result =
        call(&gateway, "broadcast", json!({"channels": ["a", "history:b", "nowhere:c"], "data": [1]})).await;
    assert_eq!(result["responses"][0], json!({"result": {}}));
    assert_eq!(result["responses"][1]["result"]["offset"], 1);
    assert_eq!(result["responses"][2], json!({"error": {"code": 102, "message": "unknown channel"}}));
    let mut received = [client.publication().await, client.publication().await].map(|(topic, _)| topic);
    received.sort_unstable();
    assert_eq!(received, ["a", "history:b"]);
}

#[tokio::test]
async fn presence_tells_who_is_there() {
    for shards in [1, 3] {
        let gateway = start(shards).await;
        let mut alice = gateway.client_with(&json!({"sub": "alice", "info": {"name": "A"}})).await;
        let mut again = client_of(&gateway, "alice").await;
        for client in [&mut alice, &mut again] {
            client.subscribe("room:a").await;
        }
        let presence = call(&gateway, "presence", json!({"channel": "room:a"})).await;
        let expected = json!({
            alice.id(): {"user": "alice", "client": alice.id(), "conn_info": {"name": "A"}},
            again.id(): {"user": "alice", "client": again.id()},
        });
        assert_eq!(presence, json!({"presence": expected}));
        let stats = call(&gateway, "presence_stats", json!({"channel": "room:a"})).await;
        assert_eq!(stats, json!({"num_clients": 2, "num_users": 1}));
    }
}

#[tokio::test]
async fn clients_are_subscribed_and_unsubscribed() {
    for shards in [1, 3] {
        let gateway = start(shards).await;
        let mut alice = client_of(&gateway, "alice").await;
        let mut bob = client_of(&gateway, "bob").await;
        for number in 1..=3 {
            call(&gateway, "publish", json!({"channel": "history:a", "data": number})).await;
        }
        let epoch = call(&gateway, "history", json!({"channel": "history:a"})).await["epoch"].clone();
        let subscribe = json!({
            "user": "alice", "channel": "history:a", "data": {"hello": 1}, "info": [7],
            "recover_since": {"offset": 1, "epoch": epoch},
        });
        call(&gateway, "subscribe", subscribe.clone()).await;
        let push = alice.push().await;
        assert_eq!(
            (&push["channel"], &push["subscribe"]["data"]),
            (&json!("history:a"), &json!({"hello": 1}))
        );
        assert_eq!(push["subscribe"]["recoverable"], true);
        for number in [2, 3] {
            assert_eq!(alice.publication().await.1["data"], number);
        }
        // It is there already, which is as good.
        call(&gateway, "subscribe", subscribe).await;

        // One client of the user alone, by its id, and not by another user's name.
        let bob_id = bob.id().to_owned();
        call(&gateway, "subscribe", json!({"user": "alice", "client": bob_id, "channel": "a"})).await;
        call(&gateway, "subscribe", json!({"user": "bob", "session": "s", "channel": "a"})).await;
        call(&gateway, "subscribe", json!({"client": bob_id, "channel": "b"})).await;
        assert_eq!(bob.push().await["channel"], "b");
        call(&gateway, "publish", json!({"channel": "b", "data": "only here"})).await;
        assert_eq!(bob.publication().await.0, "b");

        call(&gateway, "unsubscribe", json!({"user": "alice", "channel": "history:a"})).await;
        let push = alice.push().await;
        assert_eq!((&push["channel"], &push["unsubscribe"]["code"]), (&json!("history:a"), &json!(2000)));
    }
}

#[tokio::test]
async fn overrides_and_infos_belong_to_the_subscription() {
    let gateway = start(2).await;
    let client = client_of(&gateway, "alice").await;
    let subscribe = async |topic: &str, more: Value| {
        let mut request = more;
        (request["user"], request["channel"]) = ("alice".into(), topic.into());
        call(&gateway, "subscribe", request).await;
        call(&gateway, "presence", json!({"channel": topic})).await["presence"][client.id()].clone()
    };
    assert_eq!(subscribe("room:a", json!({"info": {"role": 1}})).await["chan_info"], json!({"role": 1}));
    assert_eq!(subscribe("room:b", json!({"b64info": "WzFd"})).await["chan_info"], json!([1]));
    assert_eq!(subscribe("room:c", json!({"override": {"presence": {"value": false}}})).await, Value::Null);
}

#[tokio::test]
async fn clients_are_refreshed_and_disconnected() {
    for shards in [1, 3] {
        let gateway = start(shards).await;
        let mut alice = client_of(&gateway, "alice").await;
        call(&gateway, "refresh", json!({"user": "alice", "expire_at": 4_102_444_800_u64})).await;
        let push = alice.push().await;
        assert_eq!(push["refresh"]["expires"], true);
        call(&gateway, "refresh", json!({"client": alice.id()})).await;
        assert_eq!(alice.push().await, json!({"refresh": {}}));
        call(&gateway, "refresh", json!({"user": "alice", "expired": true})).await;
        assert_eq!(alice.closed().await, (3005, "connection expired".into()));

        let mut plain = client_of(&gateway, "bob").await;
        let mut kept = client_of(&gateway, "bob").await;
        call(&gateway, "disconnect", json!({"user": "bob", "whitelist": [kept.id()]})).await;
        assert_eq!(plain.closed().await, (3503, "force disconnect".into()));
        kept.subscribe("a").await;
        let reason = "ä".repeat(100);
        let with = json!({"code": 4123, "reason": reason});
        call(&gateway, "disconnect", json!({"client": kept.id(), "disconnect": with})).await;
        assert_eq!(kept.closed().await, (4123, "ä".repeat(61)));
    }
}

#[tokio::test]
async fn the_node_tells_of_itself() {
    let gateway = start(3).await;
    let mut clients = Vec::new();
    for user in ["alice", "alice", "bob"] {
        let mut client = client_of(&gateway, user).await;
        client.subscribe("a").await;
        client.subscribe(&format!("of-{user}")).await;
        clients.push(client);
    }
    let channels = call(&gateway, "channels", json!({})).await;
    let expected =
        json!({"a": {"num_clients": 3}, "of-alice": {"num_clients": 2}, "of-bob": {"num_clients": 1}});
    assert_eq!(channels["channels"], expected);
    let counts = json!({"num_clients": 3, "num_users": 2, "num_subs": 6, "num_channels": 3});
    common::eventually("the node's counts are right", async || {
        let info = call(&gateway, "info", json!({})).await;
        let node = &info["nodes"][0];
        assert_eq!(node["name"], "test");
        assert!(node["uid"].is_string() && node["version"].is_string() && node["uptime"].is_u64(), "{node}");
        counts.as_object().unwrap().iter().all(|(name, count)| node[name] == *count)
    })
    .await;
}

#[tokio::test]
async fn batches_are_answered_in_order() {
    for shards in [1, 3] {
        let gateway = start(shards).await;
        for parallel in [false, true] {
            let commands = json!([
                {"publish": {"channel": "nowhere:a", "data": 1}},
                {"disconnect": {"user": "nobody"}},
                {"presence": {"channel": "room:a"}},
                {"no_such_method": {}},
                null,
            ]);
            let body = json!({"commands": commands, "parallel": parallel}).to_string();
            let response = post(&gateway, "batch", body).await;
            let expected = concat!(
                r#"{"replies":[{"error":{"code":102,"message":"unknown channel"}},{"disconnect":{}},"#,
                r#"{"presence":{"presence":{}}},{"error":{"code":104,"message":"not found"}},"#,
                r#"{"error":{"code":107,"message":"bad request: command 5 is null"}}]}"#
            );
            assert_eq!((response.status, &*response.body), (200, expected));
        }
        // One after the other, each sees what those before it did.
        let publish = |number: u32| json!({"publish": {"channel": "history:b", "data": number}});
        let history = json!({"history": {"channel": "history:b", "limit": -1}});
        let commands = json!({"commands": [publish(1), publish(2), publish(3), history]});
        let response = post(&gateway, "batch", commands.to_string()).await;
        let replies: Value = serde_json::from_str(&response.body).unwrap();
        let publications = replies["replies"][3]["history"]["publications"].as_array().unwrap();
        let data: Vec<_> = publications.iter().map(|publication| publication["data"].clone()).collect();
        assert_eq!(data, [1, 2, 3]);
    }
}

#[tokio::test]
async fn pipelines_are_answered_line_by_line() {
    let gateway = start(2).await;
    let body = concat!(
        "{\"id\":1,\"method\":\"publish\",\"params\":{\"channel\":\"a\",\"data\":1}}\n",
        "{\"method\":\"PRESENCE_STATS\",\"params\":{\"channel\":\"room:a\"}}",
        "{\"id\":3,\"method\":7,\"params\":{\"channel\":\"a\"}} \r\n",
        "{\"id\":4,\"method\":33,\"params\":{}}\n",
        "{\"id\":5,\"method\":\"history\",\"params\":{\"channel\":1}}\n",
    );
    let expected = [
        r#"{"id":1,"result":{}}"#,
        r#"{"result":{"num_clients":0,"num_users":0}}"#,
        r#"{"id":3,"error":{"code":108,"message":"not available"}}"#,
        r#"{"id":4,"error":{"code":104,"message":"not found"}}"#,
        r#"{"id":5,"error":{"code":107,"message":"bad request: the field \"channel\" has a wrong type: expected a string"}}"#,
    ];
    for path in ["/api", "/api/"] {
        // Errors stay in their lines, whatever the request asks for.
        for headers in ["", "X-Centrifugo-Error-Mode: transport\r\n"] {
            let response = ask(gateway.address, "POST", path, headers, body).await;
            assert_eq!((response.status, response.body), (200, expected.join("\n")));
        }
    }
    for body in ["", " \n", "hello", "[]", r#"{"method":"no_such_method"}"#, r#"{"method":"info"}{"#] {
        assert_eq!(post(&gateway, "", body).await.status, 400, "{body}");
    }
}

#[tokio::test]
async fn many_publishers_keep_one_order_in_a_topic() {
    const PUBLISHERS: usize = 8;
    const EACH: u64 = 50;
    let gateway = start(3).await;
    let mut client = gateway.client().await;
    client.subscribe("history:a").await;
    let publishing = (0..PUBLISHERS).map(|publisher| {
        let address = gateway.address;
        tokio::spawn(async move {
            let mut socket = RawSocket::open(address).await;
            for number in 0..EACH {
                let body = json!({"channel": "history:a", "data": [publisher, number]}).to_string();
                let response = request(&mut socket, "POST", "/api/publish", "", body.as_bytes()).await;
                assert_eq!(response.status, 200, "{response:?}");
            }
        })
    });
    let publishing: Vec<_> = publishing.collect();
    let mut next = [0; PUBLISHERS];
    for offset in 1..=PUBLISHERS as u64 * EACH {
        let (_, publication) = client.publication().await;
        assert_eq!(publication["offset"], offset);
        let publisher = publication["data"][0].as_u64().unwrap() as usize;
        assert_eq!(publication["data"][1], next[publisher]);
        next[publisher] += 1;
    }
    for publisher in publishing {
        publisher.await.unwrap();
    }
}

#[tokio::test]
async fn the_internal_port_tells_of_health() {
    let gateway = start(1).await;
    let get = async |path: &str| ask(gateway.internal_address, "GET", path, "", "").await;
    assert_eq!(get("/livez").await.body, "ok\n");
    assert_eq!(get("/readyz").await.body, "ok\n");
    assert_eq!(get("/readyz?verbose").await.body, "[+] not-draining ok\n[+] tasks ok\nok\n");
    let nothing = get("/nothing").await;
    assert_eq!(nothing.status, 404);
    assert!(nothing.body.contains("/livez, /readyz, /metrics, /api"), "{nothing:?}");
    for path in ["/livez", "/readyz", "/metrics"] {
        let refused = ask(gateway.internal_address, "POST", path, "", "").await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")), "{path}");
        assert_eq!(ask(gateway.address, "GET", path, "", "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn calls_are_counted_by_method_and_result() {
    let gateway = start(2).await;
    for body in [r#"{"channel":"a","data":1}"#, r#"{"channel":"nowhere:a","data":1}"#, "no JSON"] {
        post(&gateway, "publish", body).await;
    }
    post(&gateway, "batch", r#"{"commands":[{"info":{}},{"info":{}}]}"#).await;
    post(&gateway, "no_such_method", "{}").await;
    ask(gateway.address, "GET", "/api", "", "").await;
    let metrics = ask(gateway.internal_address, "GET", "/metrics", "", "").await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for (method, result, count) in [
        ("publish", "ok", 1),
        ("publish", "102", 1),
        ("publish", "400", 1),
        ("batch", "ok", 1),
        ("info", "ok", 2),
        ("other", "404", 1),
        ("pipeline", "405", 1),
        ("history", "ok", 0),
    ] {
        let sample = format!(r#"fanwire_api_requests_total{{method="{method}",result="{result}"}} {count}"#);
        assert!(metrics.body.lines().any(|line| line == sample), "{sample}\n{}", metrics.body);
    }
}

#[tokio::test]
async fn a_node_that_goes_down_is_not_ready() {
    let mut settings = api_settings(1);
    settings.shutdown.timeout = Duration::from_millis(500);
    let gateway = TestGateway::start(settings).await;
    let internal = gateway.internal_address;
    // It does not follow the close, so the node waits for it.
    let client = gateway.client().await;
    let shutdown = tokio::spawn(gateway.shutdown());
    let unready = async || ask(internal, "GET", "/readyz", "", "").await;
    within("not ready", async {
        loop {
            let response = unready().await;
            if response.status == 503 {
                assert_eq!(response.body, "[-] not-draining failed\nnot ready\n");
                break;
            }
        }
    })
    .await;
    assert_eq!(ask(internal, "GET", "/livez", "", "").await.status, 200);
    drop(client);
    within("the end", shutdown).await.unwrap();
}

/// As some clients do, which shut down their side of the connection once they have asked.
#[tokio::test]
async fn a_caller_that_sends_no_more_is_answered() {
    let gateway = TestGateway::start(api_settings(2)).await;
    let body = r#"{"channel":"room:1","data":{}}"#;
    let request =
        format!("POST /api/publish HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for address in [gateway.address, gateway.internal_address] {
        for _ in 0..20 {
            let mut socket = RawSocket::open(address).await;
            socket.send(&request).await;
            socket.finish().await;
            let response = socket.response().await;
            assert_eq!((response.status, response.body.trim()), (200, EMPTY));
        }
    }
}

/// Answers have a bound in bytes, one for all commands of a request, and say how to ask for less.
#[tokio::test]
async fn answers_that_are_too_long_say_how_to_ask_for_less() {
    for shards in [1, 3] {
        let mut settings = api_settings(shards);
        settings.api.answer_bytes_max = 20_000;
        settings.api.topics_max = 1000;
        let gateway = TestGateway::start(settings).await;
        for number in 0..30 {
            let data = json!({"number": number, "text": "x".repeat(1000)});
            call(&gateway, "publish", json!({"channel": "history:a", "data": data})).await;
        }
        let everything = json!({"channel": "history:a", "limit": -1});
        let too_long = |answer: &Value, words: &[&str]| {
            assert_eq!(answer["error"]["code"], 106, "{answer}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("20000 bytes") && message.contains("api.answer_bytes_max"), "{message}");
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        };
        let parsed = |body: &str| serde_json::from_str::<Value>(body).unwrap();
        let answer = post(&gateway, "history", everything.to_string()).await;
        too_long(&parsed(&answer.body), &["limit", "since", "offset"]);
        // It can be had in pages.
        let (mut all, mut offset) = (0, 0);
        while offset < 30 {
            let page = json!({"channel": "history:a", "limit": 10, "since": {"offset": offset}});
            let page = call(&gateway, "history", page).await;
            let publications = page["publications"].as_array().unwrap();
            all += publications.len();
            offset = publications.last().unwrap()["offset"].as_u64().unwrap();
        }
        assert_eq!(all, 30);

        // The commands of a batch share the bound, in whatever order they are carried out; short ones still fit.
        for parallel in [false, true] {
            let page = json!({"history": {"channel": "history:a", "limit": 8}});
            let commands =
                [page.clone(), page.clone(), page, json!({"presence_stats": {"channel": "room:a"}})];
            let batch = json!({"commands": commands, "parallel": parallel});
            let answer = post(&gateway, "batch", batch.to_string()).await;
            assert!(answer.body.len() < 21_000);
            let answer = parsed(&answer.body);
            let replies = answer["replies"].as_array().unwrap();
            let (refused, done): (Vec<_>, Vec<_>) =
                replies.iter().partition(|reply| reply.get("error").is_some());
            assert_eq!((refused.len(), done.len()), (1, 3), "{answer}");
            too_long(refused[0], &["limit", "since"]);
        }
        let line = json!({"method": "history", "params": {"channel": "history:a", "limit": 8}}).to_string();
        let answer = post(&gateway, "", line.repeat(3)).await;
        let lines: Vec<_> = answer.body.lines().map(parsed).collect();
        assert_eq!(lines.iter().filter(|line| line.get("error").is_some()).count(), 1);
        too_long(&lines[2], &["limit", "since"]);

        // Presence and topics count too.
        let mut members = Vec::new();
        for number in 0..250 {
            let mut member = gateway.client().await;
            member.subscribe("room:a").await;
            member.subscribe(&format!("{number}-{}", "x".repeat(100))).await;
            members.push(member);
        }
        let answer = post(&gateway, "presence", json!({"channel": "room:a"}).to_string()).await;
        too_long(&parsed(&answer.body), &["presence_stats"]);
        assert_eq!(call(&gateway, "presence_stats", json!({"channel": "room:a"})).await["num_clients"], 250);
        let answer = post(&gateway, "channels", "{}").await;
        too_long(&parsed(&answer.body), &["pattern"]);
    }
}
