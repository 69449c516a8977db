//! Requests: what can be read, who may send them, where to, and how large they are.

use secrecy::SecretString;
use serde_json::{Value, json};

use crate::calls::{EMPTY, Response, api_settings, ask, bad, call, post, response, start};
use crate::common::{RawSocket, TestGateway};

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

/// .NET callers write names in other cases, and some callers say topic for channel.
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
