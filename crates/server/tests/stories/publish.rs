//! `POST /publish`: publications of clients without a connection that stays.

use fanwire_hub::{NameRules, Namespace, Namespaces};
use serde_json::{Value, json};

use crate::common::{RawSocket, Response, TestGateway, open, settings, token};
use crate::strange::{ROOM, any};

const ORIGIN: &str = "https://a.example";

/// A request to publish; `headers` are whole lines.
fn post(query: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "POST /publish{query} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

async fn ask(gateway: &TestGateway, request: Vec<u8>) -> Response {
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(request).await;
    socket.response().await
}

/// The status and the code of a refusal, and its sentence.
fn refusal(response: &Response) -> (u16, u64, String) {
    let body: Value = serde_json::from_str(&response.body).unwrap_or_else(|_| panic!("{response:?}"));
    let error = &body["error"];
    (response.status, error["code"].as_u64().unwrap(), error["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_client_publishes_with_one_request() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut watcher = gateway.client().await;
        watcher.subscribe("history:a").await;
        let ann = token(&json!({"sub": "ann", "info": {"name": "Ann"}}));
        let bearer = format!("Authorization: Bearer {ann}\r\n");
        let json_type = "Content-Type: application/json; charset=utf-8\r\n";
        let requests = [
            post(&format!("?topic=history:a&token={ann}"), json_type, r#"{"a":1}"#),
            post("?channel=history:a", &bearer, "not JSON"),
            post("?topic=history:a&channel=history:a", "", "[2]"),
        ];
        for request in requests {
            let response = ask(&gateway, request).await;
            assert_eq!((response.status, &*response.body), (200, "{}"), "{response:?}");
            assert_eq!(response.header("content-type"), Some("application/json"));
        }
        let (topic, first) = watcher.publication().await;
        assert_eq!((&*topic, &first["data"], &first["offset"]), ("history:a", &json!({"a": 1}), &json!(1)));
        assert_eq!(
            (&first["info"]["user"], &first["info"]["conn_info"]),
            (&json!("ann"), &json!({"name": "Ann"}))
        );
        let (_, second) = watcher.publication().await;
        assert_eq!((&second["data"], &second["tags"]), (&json!("not JSON"), &json!({"text": "true"})));
        assert_ne!(first["info"]["client"], second["info"]["client"]);
        let (_, third) = watcher.publication().await;
        assert_eq!(
            (&third["data"], third.get("tags"), third["info"].get("user")),
            (&json!([2]), None, Some(&json!("")))
        );
        watcher.nothing_more().await;
    }
}

#[tokio::test]
async fn bytes_are_published_where_the_topic_takes_them() {
    let gateway = TestGateway::start(any(1)).await;
    let mut watcher = gateway.client().await;
    watcher.subscribe(ROOM).await;
    watcher.push().await;
    let response = ask(
        &gateway,
        post(&format!("?topic={ROOM}"), "Content-Type: Application/Octet-Stream\r\n", b"\xFF\x00"),
    )
    .await;
    assert_eq!(response.status, 200, "{response:?}");
    let (_, publication) = watcher.publication().await;
    assert_eq!(publication["b64data"], "/wA=");
}

/// Topics to which some may publish, and some may not.
fn guarded() -> fanwire_server::Settings {
    let mut settings = settings(1);
    let closed =
        Namespace { name: "closed".into(), allow_subscribe_for_client: true, ..Namespace::default() };
    let subscribers = Namespace {
        name: "subscribers".into(),
        allow_publish_for_subscriber: true,
        allow_subscribe_for_client: true,
        ..Namespace::default()
    };
    let users = Namespace {
        name: "users".into(),
        allow_publish_for_client: true,
        allow_subscribe_for_client: true,
        ..Namespace::default()
    };
    let lists = Namespace { name: "lists".into(), allow_user_limited_topics: true, ..open() };
    settings.namespaces = Namespaces::new(NameRules::default(), open(), [closed, subscribers, users, lists]);
    settings.publish.body_bytes_max = 1000;
    settings
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let gateway = TestGateway::start(guarded()).await;
    let ann = token(&json!({"sub": "ann"}));
    let may = "allow_publish_for_client";
    let json_type = "Content-Type: application/json\r\n";
    let bytes = "Content-Type: application/octet-stream\r\n";
    let expired = token(&json!({"sub": "ann", "exp": 1}));
    let unfit = token(&json!({"sub": "ann", "b64info": "/w=="}));
    let cases = [
        (post("", "", "1"), 400, 107, "?topic="),
        (post("?topic=", "", "1"), 400, 107, "?topic="),
        (post("?topic=a&topic=b", "", "1"), 400, 107, "one topic"),
        (post("?topic=a&channel=b", "", "1"), 400, 107, "one topic"),
        (post(&format!("?topic={}", "a".repeat(300)), "", "1"), 400, 107, "topics.length_max"),
        (post("?topic=!node:a", "", "1"), 400, 107, "the cluster's own"),
        (post("?topic=nobody:a", "", "1"), 404, 102, "namespace"),
        (post(&format!("?topic=closed:a&token={ann}"), "", "1"), 403, 103, may),
        (post(&format!("?topic=subscribers:a&token={ann}"), "", "1"), 403, 103, may),
        (post("?topic=users:a", "", "1"), 403, 103, may),
        (post(&format!("?topic=$a&token={ann}"), "", "1"), 403, 103, may),
        (post(&format!("?topic=lists:a%23bob&token={ann}"), "", "1"), 403, 103, may),
        (post("?topic=a&token=forged", "", "1"), 401, 101, "invalid token"),
        (post(&format!("?topic=a&token={expired}"), "", "1"), 401, 109, "expired"),
        (post(&format!("?topic=a&token={unfit}"), "", "1"), 401, 101, "info is not JSON"),
        (post("?topic=a", json_type, "not JSON"), 400, 107, "JSON"),
        (post("?topic=a", json_type, ""), 400, 107, "JSON"),
        (post("?topic=a", json_type, "[".repeat(500)), 400, 107, "JSON"),
        (post("?topic=a", bytes, b"\xFF"), 400, 107, "publication_format"),
        (post("?topic=a", bytes, ""), 400, 107, "data is empty"),
        (post("?topic=a", "", b"\xFF"), 400, 107, "application/octet-stream"),
    ];
    for (request, status, code, word) in cases {
        let what = String::from_utf8_lossy(&request).into_owned();
        let response = ask(&gateway, request).await;
        let (is, number, sentence) = refusal(&response);
        assert_eq!((is, number), (status, code), "{what} {sentence}");
        assert!(sentence.contains(word), "{what}: {sentence}");
    }
    for (query, headers) in [
        (format!("?topic=users:a&token={ann}"), String::new()),
        (format!("?topic=lists:a%23ann,bob&token={ann}"), String::new()),
        ("?topic=users:a".into(), format!("Authorization: Bearer {ann}\r\n")),
    ] {
        let response = ask(&gateway, post(&query, &headers, "1")).await;
        assert_eq!(response.status, 200, "{query} {response:?}");
    }
    gateway.deserted().await;
}

#[tokio::test]
async fn no_token_is_refused_where_one_is_needed() {
    let mut settings = settings(1);
    settings.client.allow_anonymous_connect_without_token = false;
    let gateway = TestGateway::start(settings).await;
    let response = ask(&gateway, post("?topic=a", "", "1")).await;
    let (status, code, sentence) = refusal(&response);
    assert_eq!((status, code), (401, 101));
    assert!(sentence.contains("client.allow_anonymous_connect_without_token"), "{sentence}");
    assert!(sentence.contains("Authorization: Bearer"), "{sentence}");
}

#[tokio::test]
async fn bodies_are_bounded_and_other_methods_refused() {
    let gateway = TestGateway::start(guarded()).await;
    let fits = ask(&gateway, post("?topic=a", "", "a".repeat(1000))).await;
    assert_eq!(fits.status, 200, "{fits:?}");
    let long = ask(&gateway, post("?topic=a", "", "a".repeat(1001))).await;
    assert_eq!((long.status, long.header("connection")), (413, Some("close")), "{long:?}");
    assert!(long.body.contains("1000 bytes, the limit that publish.body_bytes_max sets"), "{long:?}");
    let chunks = "POST /publish?topic=a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("3e8\r\n{}\r\n", "a".repeat(1000));
    let long = ask(&gateway, format!("{chunks}{chunk}1\r\na\r\n0\r\n\r\n").into_bytes()).await;
    assert_eq!(long.status, 413, "{long:?}");
    // The refusal does not wait for a body that is announced.
    let announced = "POST /publish HTTP/1.1\r\nHost: test\r\nContent-Length: 900\r\n\r\n";
    assert_eq!(ask(&gateway, announced.into()).await.status, 400);
    for method in ["GET", "PUT", "DELETE"] {
        let request = format!("{method} /publish?topic=a HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = ask(&gateway, request.into_bytes()).await;
        assert_eq!((response.status, response.header("allow")), (405, Some("POST")), "{response:?}");
    }
}

/// A user's requests count together, whichever way they come.
#[tokio::test]
async fn a_user_that_publishes_too_much_is_told_to_wait() {
    let mut settings = settings(1);
    (settings.client.user_commands_per_second_max, settings.client.commands_burst_max) = (1, 3);
    let gateway = TestGateway::start(settings).await;
    let ann = token(&json!({"sub": "ann"}));
    let publish = |user: &str| ask(&gateway, post(&format!("?topic=a&token={user}"), "", "1"));
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let response = publish(&ann).await;
        if response.status == 429 {
            assert_eq!(response.header("retry-after"), Some("1"));
            let (_, code, sentence) = refusal(&response);
            assert_eq!(code, 111);
            assert!(sentence.contains("client.user_commands_per_second_max"), "{sentence}");
        }
        statuses.push(response.status);
    }
    assert_eq!((statuses[0], statuses[4]), (200, 429), "{statuses:?}");
    assert_eq!(publish(&token(&json!({"sub": "bob"}))).await.status, 200);
    let anonymous = ask(&gateway, post("?topic=a", "", "1")).await;
    assert_eq!(anonymous.status, 200, "{anonymous:?}");
}

#[tokio::test]
async fn a_client_that_publishes_too_much_is_told_to_wait_whoever_it_is() {
    let mut settings = settings(1);
    (settings.client.commands_per_second_max, settings.client.commands_burst_max) = (1, 3);
    settings.admission.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let gateway = TestGateway::start(settings).await;
    let ann = format!("&token={}", token(&json!({"sub": "ann"})));
    let publish = async |token: &str, address: &str| {
        let from = format!("X-Forwarded-For: {address}\r\n");
        ask(&gateway, post(&format!("?topic=a{token}"), &from, "1")).await
    };
    for token in ["", &ann] {
        let mut statuses = Vec::new();
        for _ in 0..5 {
            let response = publish(token, "192.0.2.1").await;
            if response.status == 429 {
                assert_eq!(response.header("retry-after"), Some("1"));
                let (_, code, sentence) = refusal(&response);
                assert_eq!(code, 111);
                assert!(sentence.contains("client.commands_per_second_max"), "{sentence}");
            }
            statuses.push(response.status);
        }
        assert_eq!((statuses[0], statuses[4]), (200, 429), "{statuses:?}");
    }
    assert_eq!(publish("", "192.0.2.2").await.status, 200, "an address counts for itself");
    assert_eq!(publish(&ann, "192.0.2.2").await.status, 429, "a user counts wherever it is");
}

/// A client that may not publish is told so before its body has come.
#[tokio::test]
async fn permission_comes_before_the_body() {
    let gateway = TestGateway::start(guarded()).await;
    for (topic, status) in [("closed:a", 403), ("nobody:a", 404), ("!node:a", 400)] {
        let announced =
            format!("POST /publish?topic={topic} HTTP/1.1\r\nHost: test\r\nContent-Length: 900\r\n\r\n");
        let response = ask(&gateway, announced.into_bytes()).await;
        assert_eq!((response.status, response.header("connection")), (status, Some("close")), "{response:?}");
    }
}

/// Browsers send cookies whoever's page asks.
#[tokio::test]
async fn a_cookie_counts_only_for_pages_that_may_act_for_the_user() {
    let mut settings = guarded();
    settings.origins.allowed = vec![ORIGIN.into()];
    settings.subscribe.token_cookie = Some("fanwire_token".into());
    let gateway = TestGateway::start(settings).await;
    let cookie = format!("Cookie: theme=dark; fanwire_token={}\r\n", token(&json!({"sub": "ann"})));
    let allowed = format!("Origin: {ORIGIN}\r\n");
    let cases = [
        (allowed.clone(), 200),
        (format!("{allowed}Sec-Fetch-Site: cross-site\r\n"), 200),
        ("Sec-Fetch-Site: same-origin\r\n".into(), 200),
        // Read as anonymous, who may not publish here.
        (String::new(), 403),
        ("Sec-Fetch-Site: cross-site\r\n".into(), 403),
        ("Sec-Fetch-Site: none\r\n".into(), 403),
        ("Origin: https://b.example\r\n".into(), 403),
        ("Origin: null\r\nSec-Fetch-Site: same-origin\r\n".into(), 403),
    ];
    for (headers, status) in cases {
        let response = ask(&gateway, post("?topic=users:a", &format!("{cookie}{headers}"), "1")).await;
        assert_eq!(response.status, status, "{headers:?} {response:?}");
        // The same for a stream.
        let mut listener = RawSocket::open(gateway.address).await;
        let stream =
            format!("GET /subscribe?topic=users:a&as=sse HTTP/1.1\r\nHost: test\r\n{cookie}{headers}\r\n");
        listener.send(stream).await;
        let head = listener.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{headers:?} {head}");
    }
    let readable = ask(&gateway, post("?topic=closed:a", &allowed, "1")).await;
    assert_eq!(
        (readable.status, readable.header("access-control-allow-origin")),
        (403, Some(ORIGIN)),
        "{readable:?}"
    );
}
