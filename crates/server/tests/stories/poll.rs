//! Clients that poll: complete, in order and nothing twice, members of their topics between two polls.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fanwire_server::Settings;
use serde_json::{Value, json};

use crate::common::{Client, RawSocket, Response, TestGateway, eventually, post, settings, token};

/// A client that polls, as a loop of `curl` does.
pub(crate) struct Poller {
    query: String,
    pub(crate) cursor: Option<String>,
    pub(crate) session: Option<String>,
}

impl Poller {
    pub(crate) fn new(query: &str) -> Self {
        Self { query: query.to_owned(), cursor: None, session: None }
    }

    pub(crate) fn request(&self, wait: u32) -> String {
        let mut query = format!("{}&wait={wait}", self.query);
        for (name, value) in [("cursor", &self.cursor), ("session", &self.session)] {
            if let Some(value) = value {
                query = format!("{query}&{name}={value}");
            }
        }
        format!("GET /subscribe?{query} HTTP/1.1\r\nHost: test\r\n\r\n")
    }

    /// Sends a poll whose answer is read later.
    pub(crate) async fn send(&self, address: SocketAddr, wait: u32) -> RawSocket {
        let mut socket = RawSocket::open(address).await;
        socket.send(self.request(wait)).await;
        socket
    }

    pub(crate) async fn take(&mut self, socket: &mut RawSocket) -> Value {
        let answer = answer(&socket.response().await);
        if let Some(cursor) = answer["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        self.session = answer["session"].as_str().map(str::to_owned);
        answer
    }

    pub(crate) async fn poll(&mut self, address: SocketAddr, wait: u32) -> Value {
        let mut socket = self.send(address, wait).await;
        self.take(&mut socket).await
    }

    /// The data of the next messages; waits for at least one.
    pub(crate) async fn messages(&mut self, address: SocketAddr) -> Vec<Value> {
        loop {
            let answer = self.poll(address, 5).await;
            let messages = data(&answer);
            if !messages.is_empty() {
                return messages;
            }
        }
    }
}

/// Clients of a topic that have to get everything while others cost what they may: one has a connection, and one polls.
pub(crate) struct Bystanders {
    topic: String,
    listener: Client,
    poller: Poller,
}

impl Bystanders {
    pub(crate) async fn of(gateway: &TestGateway, topic: &str) -> Self {
        let mut listener = gateway.client().await;
        listener.subscribe(topic).await;
        let mut poller = Poller::new(&format!("topic={topic}"));
        poller.poll(gateway.address, 1).await;
        Self { topic: topic.to_owned(), listener, poller }
    }

    /// Publishes this, and waits until both have it.
    pub(crate) async fn get(&mut self, gateway: &TestGateway, message: Value) {
        gateway.client().await.publish(&self.topic, message.clone()).await;
        assert_eq!(self.listener.publication().await.1["data"], message);
        assert_eq!(self.poller.messages(gateway.address).await, [message]);
    }
}

pub(crate) fn answer(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    serde_json::from_str(&response.body).unwrap()
}

pub(crate) fn data(answer: &Value) -> Vec<Value> {
    let messages = answer["messages"].as_array().unwrap();
    messages.iter().map(|message| message["data"].clone()).collect()
}

pub(crate) fn with_grace(shards: usize, grace: Duration) -> Settings {
    let mut settings = settings(shards);
    settings.subscribe.polls.grace = grace;
    settings
}

#[tokio::test]
async fn a_loop_of_polls_gets_everything() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut publisher = gateway.client().await;
        let mut poller = Poller::new("topic=history:a&topic=plain");
        let first = poller.poll(gateway.address, 0).await;
        assert_eq!((&first["messages"], &first["session"]), (&json!([]), &Value::Null));
        assert_eq!(first["subscribed"].as_array().unwrap().len(), 2);
        publisher.publish("history:a", json!("missed")).await;
        let second = poller.poll(gateway.address, 5).await;
        assert_eq!(data(&second), ["missed"], "{second}");
        let mut received = Vec::new();
        for number in 0..100 {
            publisher.publish(if number % 2 == 0 { "history:a" } else { "plain" }, json!(number)).await;
            if number % 7 == 0 {
                received.extend(poller.messages(gateway.address).await);
            }
        }
        while received.len() < 100 {
            received.extend(poller.messages(gateway.address).await);
        }
        for kind in [0, 1] {
            let of_topic: Vec<u64> =
                received.iter().filter_map(Value::as_u64).filter(|number| number % 2 == kind).collect();
            assert_eq!(of_topic, (0..50).map(|number| number * 2 + kind).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_poll_waits_for_the_first_message() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut publisher = gateway.client().await;
    let mut poller = Poller::new("topic=a");
    let began = Instant::now();
    let empty = poller.poll(gateway.address, 1).await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!((&empty["subscribed"], &empty["messages"]), (&json!([{"topic": "a"}]), &json!([])));
    let mut waiting = poller.send(gateway.address, 20).await;
    let began = Instant::now();
    publisher.publish("a", json!(1)).await;
    assert_eq!(data(&poller.take(&mut waiting).await), [1]);
    assert!(began.elapsed() < Duration::from_secs(5));
    waiting.ended().await;
}

#[tokio::test]
async fn a_client_stays_a_member_between_polls_and_for_no_longer() {
    // The polls come one after the other, on a machine that may have other things to do.
    let gateway = TestGateway::start(with_grace(2, Duration::from_secs(3))).await;
    let mut watcher = gateway.client().await;
    watcher.subscribe("room:a").await;
    assert!(watcher.push().await["join"].is_object());
    let mut poller = Poller::new("topic=room:a");
    poller.poll(gateway.address, 1).await;
    assert!(watcher.push().await["join"].is_object());
    for _ in 0..5 {
        poller.poll(gateway.address, 0).await;
        assert_eq!(watcher.present("room:a").await, 2);
    }
    assert!(watcher.push().await["leave"].is_object());
    assert_eq!(watcher.present("room:a").await, 1);
    eventually("the session is gone", async || {
        gateway.metric_of("fanwire_connections", "protocol=\"poll\"").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_says_so_leaves_at_once() {
    let gateway = TestGateway::start(with_grace(2, Duration::from_secs(60))).await;
    let mut watcher = gateway.client().await;
    let end = async |path: &str, session: &str| {
        let request = post(&format!("{path}?end&session={session}"), "");
        RawSocket::ask(gateway.address, &request).await.status
    };
    let mut poller = Poller::new("topic=room:a");
    poller.poll(gateway.address, 1).await;
    assert_eq!(watcher.present("room:a").await, 1);
    let session = poller.session.clone().unwrap();
    let mut waiting = poller.send(gateway.address, 60).await;
    eventually("it waits", async || {
        gateway.metric_of("fanwire_session_calls_total", "result=\"waits\"").await >= 1.0
    })
    .await;
    assert_eq!(end("/subscribe", &session).await, 204);
    assert_eq!(watcher.present("room:a").await, 0);
    assert!(matches!(waiting.response().await.status, 409 | 503), "nothing is left to wait for");
    for gone in [&*session, "x.1", ""] {
        assert_eq!(end("/subscribe", gone).await, 404, "{gone}");
    }
    let get = format!("GET /subscribe?end&session={session} HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(RawSocket::ask(gateway.address, &get).await.status, 405, "an image or a script ends nothing");
    let connect = post("/connection/http_stream?wait=10", r#"{"id":1,"connect":{}}"#);
    let connected = RawSocket::ask(gateway.address, &connect).await;
    assert_eq!(end("/connection/http_stream", connected.header("fanwire-session").unwrap()).await, 204);
    eventually("no session is left", async || {
        gateway.metric_of("fanwire_connections", "protocol=\"poll\"").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_vanishes_while_it_waits_is_noticed() {
    let gateway = TestGateway::start(with_grace(2, Duration::from_secs(2))).await;
    let mut watcher = gateway.client().await;
    let mut poller = Poller::new("topic=room:a");
    poller.poll(gateway.address, 1).await;
    let waiting = poller.send(gateway.address, 60).await;
    assert_eq!(watcher.present("room:a").await, 1);
    drop(waiting);
    eventually("it is no member any more", async || watcher.present("room:a").await == 0).await;
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut publisher = gateway.client().await;
    let mut poller = Poller::new("topic=plain");
    poller.poll(gateway.address, 1).await;
    publisher.publish("plain", json!(1)).await;
    let lost = answer(&poller.send(gateway.address, 5).await.response().await);
    assert_eq!(data(&lost), [1]);
    publisher.publish("plain", json!(2)).await;
    let again = poller.poll(gateway.address, 5).await;
    assert_eq!(again, lost, "what came later waits for the next");
    assert_eq!(data(&poller.poll(gateway.address, 5).await), [2]);
}

/// What costs a client a line may cost the node a whole history.
#[tokio::test]
async fn whoever_asks_for_the_same_too_often_is_told_to_wait() {
    let mut settings = settings(1);
    (settings.client.commands_per_second_max, settings.client.commands_burst_max) = (1, 10);
    let gateway = TestGateway::start(settings).await;
    let mut publisher = gateway.client().await;
    let mut poller = Poller::new("topic=history:a");
    poller.poll(gateway.address, 1).await;
    publisher.publish("history:a", json!(1)).await;
    let look = Poller::new("topic=history:a");
    for (poller, wait) in [(&poller, 5), (&look, 0)] {
        let mut statuses = Vec::new();
        for _ in 0..20 {
            let response = poller.send(gateway.address, wait).await.response().await;
            if response.status == 429 {
                assert_eq!(response.header("retry-after"), Some("1"));
                assert_eq!(response.header("cache-control"), Some("no-store"));
                let body: Value = serde_json::from_str(&response.body).unwrap();
                assert_eq!(body["error"]["code"], 111);
                let sentence = body["error"]["message"].as_str().unwrap();
                assert!(sentence.contains("client.commands_per_second_max"), "{sentence}");
            }
            statuses.push(response.status);
        }
        assert_eq!((statuses[0], statuses[19]), (200, 429), "{statuses:?}");
    }
    // The answer is kept for it, and the session goes on.
    let mut answer = None;
    eventually("it may ask again", async || {
        let response = poller.send(gateway.address, 5).await.response().await;
        answer = (response.status == 200).then_some(response.body);
        answer.is_some()
    })
    .await;
    let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
    assert_eq!(data(&answer), [1]);
}

#[tokio::test]
async fn a_poll_that_waits_gives_way_to_a_newer_one() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut publisher = gateway.client().await;
    let mut poller = Poller::new("topic=plain");
    poller.poll(gateway.address, 1).await;
    let mut older = poller.send(gateway.address, 60).await;
    let mut newer = poller.send(gateway.address, 60).await;
    let (first, other) = tokio::select! {
        response = older.response() => (response, &mut newer),
        response = newer.response() => (response, &mut older),
    };
    // One that asks again at once would have the other give way.
    assert_eq!((first.status, first.header("retry-after")), (409, Some("1")), "{first:?}");
    let refusal: Value = serde_json::from_str(&first.body).unwrap();
    let sentence = refusal["error"]["message"].as_str().unwrap();
    assert!(sentence.starts_with("Another poll of this session has come"), "{sentence}");
    publisher.publish("plain", json!(1)).await;
    assert_eq!(data(&poller.take(other).await), [1]);
}

#[tokio::test]
async fn a_single_look_leaves_nothing_behind() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut watcher = gateway.client().await;
    watcher.subscribe("room:a").await;
    assert!(watcher.push().await["join"].is_object());
    let mut poller = Poller::new("topic=room:a");
    for _ in 0..3 {
        let answer = poller.poll(gateway.address, 0).await;
        assert!(poller.session.is_none(), "{answer}");
        assert_eq!(watcher.present("room:a").await, 1);
    }
    watcher.nothing_more().await;
    eventually("no session is left", async || {
        gateway.metric_of("fanwire_connections", "protocol=\"poll\"").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_cache_asks_whether_there_is_something_new() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut publisher = gateway.client().await;
    let ask = async |tag: &str| {
        let tag = if tag.is_empty() { String::new() } else { format!("If-None-Match: {tag}\r\n") };
        let request =
            format!("GET /subscribe?topic=history:a&as=poll&wait=0 HTTP/1.1\r\nHost: test\r\n{tag}\r\n");
        RawSocket::ask(gateway.address, &request).await
    };
    let first = ask("").await;
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", answer(&first)["cursor"].as_str().unwrap()));
    assert_eq!(first.header("cache-control"), Some("no-store"), "a browser is not to bring an answer again");
    let same = ask(&tag).await;
    assert_eq!((same.status, &*same.body, same.header("etag")), (304, "", Some(&*tag)));
    publisher.publish("history:a", json!(1)).await;
    let newer = ask(&tag).await;
    assert_eq!(data(&answer(&newer)), [1]);
    assert_eq!(ask(newer.header("etag").unwrap()).await.status, 304);
}

/// A first answer brings all that was missed, to whatever client: it takes the time that the client needs, and no other's.
#[tokio::test]
async fn a_slow_client_gets_a_long_first_answer() {
    const PIECE: usize = 1 << 20;
    let gateway = TestGateway::start(settings(1)).await;
    let mut publisher = gateway.client().await;
    let mut poller = Poller::new("topic=history:a");
    poller.poll(gateway.address, 0).await;
    for _ in 0..240 {
        publisher.publish("history:a", json!("x".repeat(50_000))).await;
    }
    let mut others = Bystanders::of(&gateway, "plain").await;
    let mut socket = RawSocket::open_small(gateway.address, 64 << 10).await;
    socket.send(poller.request(1)).await;
    let head = socket.head().await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let length: usize = length.parse().unwrap();
    let began = Instant::now();
    let mut body = Vec::new();
    while body.len() < length {
        body.extend(socket.bytes(PIECE.min(length - body.len())).await);
        others.get(&gateway, json!(body.len())).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(6));
    assert_eq!(data(&serde_json::from_slice(&body).unwrap()).len(), 240);
}

#[tokio::test]
async fn a_session_that_has_ended_goes_on_from_the_cursor() {
    let gateway = TestGateway::start(with_grace(2, Duration::from_millis(100))).await;
    let mut publisher = gateway.client().await;
    let mut poller = Poller::new("topic=history:a");
    poller.poll(gateway.address, 1).await;
    publisher.publish("history:a", json!(1)).await;
    assert_eq!(data(&poller.poll(gateway.address, 5).await), [1]);
    eventually("the session is gone", async || {
        gateway.metric_of("fanwire_connections", "protocol=\"poll\"").await == 0.0
    })
    .await;
    publisher.publish("history:a", json!(2)).await;
    let answer = poller.poll(gateway.address, 5).await;
    assert_eq!(answer["subscribed"], json!([{"topic": "history:a", "recovered": true}]));
    assert_eq!(data(&answer), [2]);
}

#[tokio::test]
async fn a_client_that_is_sent_away_is_told() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut backend = gateway.backend().await;
    let ann = token(&json!({"sub": "ann"}));
    let mut poller = Poller::new(&format!("topic=room:a&token={ann}"));
    poller.poll(gateway.address, 1).await;
    let session = poller.session.clone();
    let mut waiting = poller.send(gateway.address, 60).await;
    eventually("it waits", async || gateway.metric("fanwire_session_calls_total").await >= 1.0).await;
    backend.call("disconnect", json!({"user": "ann", "disconnect": {"code": 4500, "reason": "no"}})).await;
    let end = poller.take(&mut waiting).await;
    assert_eq!(end["disconnect"], json!({"code": 4500, "reason": "no", "reconnect": false}), "{end}");
    assert_eq!(poller.session, None);
    // It did not hear, and asks again.
    poller.session = session;
    assert_eq!(poller.poll(gateway.address, 60).await["disconnect"]["code"], 4500);
}

#[tokio::test]
async fn the_end_comes_with_what_waits_and_behind_what_was_lost() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut publisher = gateway.client().await;
    let mut backend = gateway.backend().await;
    let ann = token(&json!({"sub": "ann"}));
    let mut poller = Poller::new(&format!("topic=plain&token={ann}"));
    poller.poll(gateway.address, 1).await;
    publisher.publish("plain", json!(1)).await;
    let lost = answer(&poller.send(gateway.address, 5).await.response().await);
    assert_eq!(data(&lost), [1]);
    publisher.publish("plain", json!(2)).await;
    eventually("both reached the session", async || {
        gateway.metric_of("fanwire_messages_delivered_total", "protocol=\"poll\"").await >= 2.0
    })
    .await;
    backend.call("disconnect", json!({"user": "ann", "disconnect": {"code": 4500, "reason": "no"}})).await;
    assert_eq!(poller.poll(gateway.address, 5).await, lost);
    let end = poller.poll(gateway.address, 5).await;
    assert_eq!((data(&end), &end["disconnect"]["code"]), (vec![json!(2)], &json!(4500)), "{end}");
    assert_eq!((end["cursor"].is_string(), &poller.session), (true, &None), "{end}");
}

#[tokio::test]
async fn a_client_that_takes_too_little_starts_anew_from_its_cursor() {
    let mut settings = settings(1);
    settings.client.queue_bytes_max = 10_000;
    let gateway = TestGateway::start(settings).await;
    let mut publisher = gateway.client().await;
    let mut poller = Poller::new("topic=history:a");
    poller.poll(gateway.address, 1).await;
    for number in 0..100 {
        publisher.publish("history:a", json!([number, "x".repeat(1000)])).await;
    }
    let answer = poller.poll(gateway.address, 5).await;
    assert_eq!(answer["subscribed"], json!([{"topic": "history:a", "recovered": true}]));
    let numbers: Vec<u64> = data(&answer).iter().map(|data| data[0].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn refusals_name_what_is_to_be_changed() {
    let gateway = TestGateway::start(settings(2)).await;
    let ask = async |query: &str| {
        let request = format!("GET /subscribe?{query}&as=poll HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = RawSocket::ask(gateway.address, &request).await;
        let error = serde_json::from_str::<Value>(&response.body).unwrap_or_default()["error"].take();
        (response.status, error["message"].as_str().unwrap_or_default().to_owned())
    };
    for (query, status, words) in [
        ("wait=1", 400, "name at least one topic"),
        ("topic=a&wait=soon", 400, "wait: say seconds, such as 15"),
        ("topic=a&cursor=xyz", 400, "cursor: "),
        ("topic=%24a", 403, "this client may not subscribe"),
        ("topic=nowhere:a", 404, "no namespace"),
        ("topic=a&token=wrong", 401, "invalid token"),
        ("topic=a&callback=f", 400, "callback: scripts are not served here; set subscribe.jsonp = true"),
    ] {
        let (got, message) = ask(query).await;
        assert_eq!(got, status, "{query}: {message}");
        assert!(message.starts_with(words), "{query}: {message}");
    }
    for (query, name) in [("as=sse&wait=1", "wait"), ("as=ndjson&callback=f", "callback")] {
        let request = format!("GET /subscribe?topic=a&{query} HTTP/1.1\r\nHost: test\r\n\r\n");
        let refused = RawSocket::ask(gateway.address, &request).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body.contains(&format!("{name}: it is for polls")), "{refused:?}");
    }
    let mut poller = Poller::new("topic=a");
    poller.poll(gateway.address, 1).await;
    let session = poller.session.unwrap();
    let (status, message) = ask(&format!("topic=b&session={session}")).await;
    assert_eq!((status, &*message), (400, "session: it has other topics; leave it out to open another"));
    let (key, _) = session.split_once('.').unwrap();
    for session in ["x.1", "undefined", key, &format!("{key}."), &format!("{key}.+1"), &format!("{key}.01")] {
        let (status, message) = ask(&format!("topic=a&session={session}")).await;
        assert_eq!(status, 400, "{session}");
        assert!(message.starts_with("session: this is none; send that of the last answer"), "{message}");
    }
    // One that is not there, or was invented, opens another, which says that something may be missing.
    for (session, granted) in [
        (String::new(), json!([{"topic": "a"}])),
        (format!("{key}.7"), json!([{"topic": "a", "recovered": false}])),
        (format!("{}.0", "A".repeat(key.len())), json!([{"topic": "a", "recovered": false}])),
    ] {
        let mut other = Poller { session: Some(session.clone()), ..Poller::new("topic=a") };
        let answer = other.poll(gateway.address, 1).await;
        assert_eq!(answer["subscribed"], granted, "{session}");
    }
}

#[tokio::test]
async fn a_script_calls_the_page() {
    let mut settings = settings(1);
    settings.subscribe.polls.jsonp = true;
    settings.subscribe.token_cookie = Some("token".into());
    settings.client.allow_anonymous_connect_without_token = false;
    let gateway = TestGateway::start(settings).await;
    let ann = token(&json!({"sub": "ann"}));
    let ask = async |query: &str, header: &str| {
        let request =
            format!("GET /subscribe?topic=a&wait=0&as=poll&{query} HTTP/1.1\r\nHost: test\r\n{header}\r\n");
        RawSocket::ask(gateway.address, &request).await
    };
    let response = ask(&format!("callback=on.poll&token={ann}"), "").await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    assert!(response.body.starts_with("/**/on.poll({") && response.body.ends_with("});"), "{response:?}");
    let cookie = format!("Cookie: token={ann}\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(ask("", &cookie).await.status, 200);
    assert_eq!(ask("callback=f", &cookie).await.status, 401, "any page can run a script");
    assert_eq!(ask("callback=alert(1)", "").await.status, 400);
}

/// Takes lines of the Centrifuge protocol by polls.
#[tokio::test]
async fn the_centrifuge_protocol_can_be_polled() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut publisher = gateway.client().await;
    let poll = async |query: &str, commands: &str| {
        let response =
            RawSocket::ask(gateway.address, &post(&format!("/connection/http_stream?{query}"), commands))
                .await;
        assert_eq!(response.status, 200, "{response:?}");
        let session = response.header("fanwire-session").unwrap().to_owned();
        let lines: Vec<Value> =
            response.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (session, lines)
    };
    let (session, lines) = poll("wait=10", r#"{"id":1,"connect":{}}"#).await;
    assert!(lines[0]["connect"]["client"].is_string(), "{lines:?}");
    let subscribe = r#"{"id":2,"subscribe":{"channel":"room:a"}}"#;
    let (mut session, lines) = poll(&format!("wait=10&session={session}"), subscribe).await;
    assert_eq!(lines[0]["id"], 2, "{lines:?}");
    publisher.publish("room:a", json!(7)).await;
    let mut received = Vec::new();
    while !received.iter().any(|line: &Value| line["push"]["pub"]["data"] == 7) {
        let lines;
        (session, lines) = poll(&format!("wait=10&session={session}"), "").await;
        received.extend(lines);
    }
    for (query, body, status) in [
        ("wait=1", "", 400),
        ("wait=1", r#"{"id":1,"subscribe":{"channel":"a"}}"#, 400),
        ("wait=1&session=gone.1", "", 404),
        ("wait=x", r#"{"id":1,"connect":{}}"#, 400),
    ] {
        let request = post(&format!("/connection/http_stream?{query}"), body);
        assert_eq!(RawSocket::ask(gateway.address, &request).await.status, status, "{query} {body}");
    }
}

#[tokio::test]
async fn polls_that_wait_do_not_hold_up_a_shutdown() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut poller = Poller::new("topic=a");
    poller.poll(gateway.address, 1).await;
    let mut waiting = poller.send(gateway.address, 60).await;
    eventually("it waits", async || gateway.metric("fanwire_session_calls_total").await >= 1.0).await;
    let began = Instant::now();
    let (response, ()) = tokio::join!(waiting.response(), gateway.shutdown());
    assert!(matches!(response.status, 200 | 503), "{response:?}");
    assert!(began.elapsed() < Duration::from_secs(8));
}
