//! The exact answers of every method.

use crate::calls::{EMPTY, api_settings, ask, bad, start};
use crate::common::TestGateway;

const UNKNOWN_TOPIC: &str = r#"{"error":{"code":102,"message":"unknown channel"}}"#;

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
