//! `GET /subscribe` by clients that come back with the cursor of the last event that they have: complete, nothing twice.

use fanwire_protocol::{Cursor, Epoch, Position};
use fanwire_server::Settings;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::ON_REDIS;
use crate::common::{RawSocket, TestGateway, eventually, settings, token, upgrade};

/// An event as a page receives it.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

/// Reads the events of a stream that are complete, as `EventSource` does; of the rest nothing counts.
fn events(stream: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let (mut name, mut id, mut data) = (String::new(), None, None);
    let complete = stream.rfind('\n').map_or("", |end| &stream[..end]);
    for line in complete.split('\n') {
        match line.split_once(": ") {
            Some(("event", value)) => name = value.to_owned(),
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("data", value)) => data = Some(serde_json::from_str(value).unwrap()),
            _ if line.is_empty() => {
                if let Some(data) = data.take() {
                    events.push(Event { name: std::mem::take(&mut name), id: id.take(), data });
                }
            }
            _ => {}
        }
    }
    events
}

/// Reads the lines of a stream that are complete, as a reader of NDJSON does. They say the same in another form.
fn lines(stream: &str) -> Vec<Event> {
    let complete = stream.rfind('\n').map_or("", |end| &stream[..end]);
    let event = |line: &str| {
        let mut data: Value = serde_json::from_str(line).unwrap();
        let id = data["cursor"].as_str().map(str::to_owned);
        if let Some(data) = data.get_mut("disconnect") {
            return Event { name: "disconnect".into(), id, data: data.take() };
        }
        let is_first = data.get("subscribed").is_some();
        Event { name: if is_first { "subscribed".into() } else { String::new() }, id, data }
    };
    complete.split('\n').filter(|line| !line.is_empty()).map(event).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Events,
    Lines,
    /// Messages of a WebSocket in envelopes, recorded as lines.
    Messages,
}

impl Format {
    fn read(self, stream: &str) -> Vec<Event> {
        match self {
            Self::Events => events(stream),
            Self::Lines | Self::Messages => lines(stream),
        }
    }
}

/// Offsets of the publications of each topic, in the order in which they came.
type Received = BTreeMap<String, Vec<u64>>;

/// Returns what was received, and the cursor at which it ends.
fn received(events: &[Event]) -> (Received, Option<String>) {
    let mut received = Received::new();
    for event in events.iter().filter(|event| event.name.is_empty()) {
        let (topic, offset) = (event.data["topic"].as_str().unwrap(), event.data["offset"].as_u64().unwrap());
        received.entry(topic.to_owned()).or_default().push(offset);
    }
    (received, events.iter().rev().find_map(|event| event.id.clone()))
}

fn add(received: &mut Received, more: Received) {
    for (topic, offsets) in more {
        received.entry(topic).or_default().extend(offsets);
    }
}

/// A stream that was granted.
struct Stream {
    socket: RawSocket,
    format: Format,
    /// All that came of it.
    text: String,
}

impl Stream {
    async fn open(gateway: &TestGateway, query: &str, header: &str) -> Self {
        Self::open_as(Format::Events, gateway, query, header).await
    }

    async fn open_as(format: Format, gateway: &TestGateway, query: &str, header: &str) -> Self {
        let accept = match format {
            Format::Events => "text/event-stream",
            Format::Lines => "application/x-ndjson",
            Format::Messages => return Self::upgrade(gateway, query).await,
        };
        let mut socket = RawSocket::open(gateway.address).await;
        let request =
            format!("GET /subscribe?{query} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\n{header}\r\n");
        socket.send(request).await;
        let head = socket.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{query} {head}");
        assert!(head.contains(&format!("\r\ncontent-type: {accept}")), "{head}");
        Self { socket, format, text: String::new() }
    }

    async fn upgrade(gateway: &TestGateway, query: &str) -> Self {
        let mut socket = RawSocket::open(gateway.address).await;
        socket.upgrade(&upgrade(&format!("{query}&envelope=json"), "")).await;
        Self { socket, format: Format::Messages, text: String::new() }
    }

    /// Opens it as a client that comes back does.
    async fn resume(gateway: &TestGateway, query: &str, cursor: &str) -> Self {
        Self::open(gateway, query, &format!("Last-Event-ID: {cursor}\r\n")).await
    }

    fn all(&self) -> Vec<Event> {
        self.format.read(&self.text)
    }

    async fn next(&mut self) -> Event {
        loop {
            let text = match self.format {
                Format::Events => self.socket.until("\n\n").await,
                Format::Lines => self.socket.until("\n").await,
                Format::Messages => self.socket.frame().await.expect("a message").text().to_owned() + "\n",
            };
            self.text += &text;
            if let Some(event) = self.format.read(&text).pop() {
                return event;
            }
        }
    }

    /// The first event: the topics, which come in any order, each with whether it is recovered.
    async fn begin(&mut self) -> Vec<(String, Option<bool>)> {
        let event = self.next().await;
        assert_eq!(event.name, "subscribed", "{event:?}");
        assert_eq!(event.id.as_deref(), event.data["cursor"].as_str());
        let topics = event.data["subscribed"].as_array().unwrap().iter();
        let topic =
            |topic: &Value| (topic["topic"].as_str().unwrap().to_owned(), topic["recovered"].as_bool());
        let mut topics: Vec<_> = topics.map(topic).collect();
        topics.sort();
        topics
    }

    /// Reads until each topic has brought its publication of this offset.
    async fn read_to(&mut self, ends: &BTreeMap<&str, u64>) {
        loop {
            let (received, _) = received(&self.all());
            let is_there =
                |(topic, end): (&&str, &u64)| received.get(*topic).and_then(|r| r.last()) == Some(end);
            if ends.iter().all(is_there) {
                return;
            }
            self.next().await;
        }
    }
}

async fn nodes(change: impl Fn(&mut Settings)) -> Vec<TestGateway> {
    let shared = settings(2);
    let mut nodes = Vec::new();
    for number in 0..if ON_REDIS { 3 } else { 1 } {
        let mut settings = shared.clone();
        settings.name = format!("node-{number}");
        change(&mut settings);
        nodes.push(TestGateway::start(settings).await);
    }
    nodes
}

fn granted(topics: &[(&str, Option<bool>)]) -> Vec<(String, Option<bool>)> {
    topics.iter().map(|(topic, recovered)| ((*topic).to_owned(), *recovered)).collect()
}

/// Records a stream of these topics, cuts it behind each byte, comes back with what a client has by then, in this format or
/// another, and checks that both together are all that was published.
async fn cut_anywhere(format: Format, topics: &[&str]) {
    const EACH: u64 = 12;
    let nodes = nodes(|_| ()).await;
    let query: Vec<String> = topics.iter().map(|topic| format!("topic={topic}")).collect();
    let query = query.join("&");
    let mut backend = nodes[0].backend().await;
    for topic in topics {
        backend.publish_all(topic, 1..4).await;
    }
    let mut stream = Stream::open_as(format, &nodes[0], &query, "").await;
    assert!(stream.begin().await.iter().all(|(_, recovered)| recovered.is_none()));
    for number in 4..=EACH as u32 {
        for topic in topics {
            backend.publish_all(topic, number..number + 1).await;
        }
    }
    let ends: BTreeMap<&str, u64> = topics.iter().map(|topic| (*topic, EACH)).collect();
    stream.read_to(&ends).await;
    let text = stream.text;
    let mut tried = BTreeMap::new();
    for length in 0..=text.len() {
        let (before, cursor) = received(&format.read(&text[..length]));
        let Some(cursor) = cursor else { continue };
        if tried.insert(cursor.clone(), ()).is_some() {
            continue;
        }
        let node = &nodes[tried.len() % nodes.len()];
        let other = [Format::Events, Format::Lines, Format::Messages][tried.len() % 3];
        let mut resumed = Stream::open_as(other, node, &format!("{query}&cursor={cursor}"), "").await;
        assert!(
            resumed.begin().await.iter().all(|(_, recovered)| *recovered == Some(true)),
            "{}",
            resumed.text
        );
        let left =
            ends.iter().filter(|(topic, end)| before.get(**topic).and_then(|r| r.last()) != Some(*end));
        let left = left.map(|(topic, end)| (*topic, *end)).collect();
        resumed.read_to(&left).await;
        let mut all = before;
        add(&mut all, received(&resumed.all()).0);
        for topic in topics {
            assert_eq!(all[*topic], (4..=EACH).collect::<Vec<_>>(), "cut behind {length} of {text}");
        }
    }
    assert!(tried.len() as u64 >= (EACH - 3) * topics.len() as u64, "{}", tried.len());
}

#[tokio::test]
async fn a_stream_of_one_topic_is_complete_wherever_it_breaks() {
    cut_anywhere(Format::Events, &["history:one"]).await;
    cut_anywhere(Format::Lines, &["history:lines"]).await;
    cut_anywhere(Format::Messages, &["history:messages"]).await;
}

#[tokio::test]
async fn a_stream_of_several_topics_is_complete_wherever_it_breaks() {
    cut_anywhere(Format::Events, &["history:one", "history:two", "stream:three"]).await;
    cut_anywhere(Format::Lines, &["history:four", "history:five", "stream:six"]).await;
    cut_anywhere(Format::Messages, &["history:seven", "history:eight", "stream:nine"]).await;
}

/// A client that comes back again and again, to another node, while others publish as fast as they can.
#[tokio::test]
async fn whoever_comes_back_under_traffic_misses_nothing() {
    const EACH: u64 = 600;
    let nodes = nodes(|_| ()).await;
    let topics = ["history:a", "history:b", "stream:c"];
    let query = "topic=history:a&topic=history:b&channel=stream:c";
    let mut stream = Stream::open(&nodes[0], query, "").await;
    assert_eq!(stream.begin().await, granted(&topics.map(|topic| (topic, None))));
    let publish = async |topic: &str| {
        let mut publisher = nodes[0].client().await;
        publisher.publish_all(topic, 1..EACH as u32 + 1).await;
    };
    let listen = async {
        let (mut all, mut turn) = (Received::new(), 0);
        loop {
            for _ in 0..40 + 7 * (turn % 5) {
                if topics.iter().all(|topic| all.get(*topic).and_then(|r| r.last()) == Some(&EACH)) {
                    return all;
                }
                let event = stream.next().await;
                add(&mut all, received(&[event]).0);
            }
            let cursor = events(&stream.text).iter().rev().find_map(|event| event.id.clone()).unwrap();
            turn += 1;
            stream = Stream::resume(&nodes[turn % nodes.len()], query, &cursor).await;
            assert!(stream.begin().await.iter().all(|(_, recovered)| *recovered == Some(true)));
        }
    };
    let (all, ..) = tokio::join!(listen, publish(topics[0]), publish(topics[1]), publish(topics[2]));
    for topic in topics {
        assert_eq!(all[topic], (1..=EACH).collect::<Vec<_>>(), "{topic}");
    }
}

#[tokio::test]
async fn a_resume_says_which_topics_are_complete() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut backend = gateway.backend().await;
    backend.publish_all("history:a", 1..4).await;
    backend.publish_all("history:new", 1..4).await;
    let mut stream = Stream::open(&gateway, "topic=history:a&topic=plain", "").await;
    assert_eq!(stream.begin().await, granted(&[("history:a", None), ("plain", None)]));
    let (_, cursor) = received(&events(&stream.text));
    let mut stream = Stream::open(
        &gateway,
        &format!("topic=history:a&topic=plain&topic=history:new&cursor={}", cursor.unwrap()),
        "",
    )
    .await;
    let topics = stream.begin().await;
    let expected = [("history:a", Some(true)), ("history:new", None), ("plain", Some(false))];
    assert_eq!(topics, granted(&expected));

    // A stream that is another one by now, and places that it never had.
    let epoch = backend.call("history", json!({"channel": "history:a"})).await["epoch"].take();
    let epoch = Epoch::parse(epoch.as_str().unwrap().as_bytes()).unwrap();
    for (at, recovered) in [
        (Position { epoch: Epoch::from_random(7), offset: 1 }, false),
        (Position { epoch, offset: 4 }, false),
        (Position { epoch, offset: u64::MAX }, false),
        (Position { epoch, offset: 3 }, true),
        (Position { epoch, offset: 0 }, true),
    ] {
        let mut text = Vec::new();
        Cursor::write_one("history:a", at, &mut text);
        let mut stream = Stream::resume(&gateway, "topic=history:a", str::from_utf8(&text).unwrap()).await;
        assert_eq!(stream.begin().await, granted(&[("history:a", Some(recovered))]), "{at:?}");
        // From there on nothing is missed.
        let (_, cursor) = received(&events(&stream.text));
        let mut again = Stream::resume(&gateway, "topic=history:a", &cursor.unwrap()).await;
        assert_eq!(again.begin().await, granted(&[("history:a", Some(true))]), "{at:?}");
    }
    // A cursor of another version of the server.
    let mut stream = Stream::resume(&gateway, "topic=history:a", "_w").await;
    assert_eq!(stream.begin().await, granted(&[("history:a", Some(false))]));
}

#[tokio::test]
async fn what_is_no_cursor_is_refused() {
    let gateway = TestGateway::start(settings(1)).await;
    let malformed = "cursor: send one as an answer of this server had it";
    let (long, other) = ("A".repeat(521), Cursor::default().text().replace("bO5", "bO6"));
    let cases = [
        ("AQ", malformed),
        ("no%20cursor", malformed),
        (&*format!("{}A", Cursor::default().text()), malformed),
        (&*long, "cursor: longer than 520 bytes"),
        (&*other, "cursor: of another application"),
    ];
    for (cursor, message) in cases {
        let request = format!("GET /subscribe?topic=a&cursor={cursor}&as=sse HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = RawSocket::ask(gateway.address, &request).await;
        let body: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!((response.status, &body["error"]["code"]), (400, &json!(107)), "{cursor}");
        assert_eq!(body["error"]["message"], message, "{cursor}");
    }
}

/// A browser that is refused never comes back.
#[tokio::test]
async fn what_is_no_cursor_in_the_header_begins_without_what_was_missed() {
    let gateway = TestGateway::start(settings(1)).await;
    let good = Cursor::default().text();
    // What the browser kept is newer than the address.
    for id in ["\u{e9}", "42", &"A".repeat(600)] {
        let query = format!("topic=history:a&cursor={good}");
        let mut stream = Stream::open(&gateway, &query, &format!("Last-Event-ID: {id}\r\n")).await;
        assert_eq!(stream.begin().await, granted(&[("history:a", Some(false))]), "{id}");
    }
    // Without an id it kept none.
    let request = "GET /subscribe?topic=a&cursor=AQ&as=sse HTTP/1.1\r\nHost: test\r\nLast-Event-ID:\r\n\r\n";
    assert_eq!(RawSocket::ask(gateway.address, request).await.status, 400, "the address counts");
}

#[tokio::test]
async fn a_token_that_brings_topics_needs_no_other_and_goes_on_there() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut backend = gateway.backend().await;
    let query = format!("token={}", token(&json!({"sub": "ann", "channels": ["stream:mine", "room:a"]})));
    let mut stream = Stream::open(&gateway, &query, "").await;
    assert_eq!(stream.begin().await, granted(&[("room:a", None), ("stream:mine", None)]));
    backend.publish_all("stream:mine", 1..3).await;
    let first = stream.next().await;
    assert_eq!(first.data["offset"], 1);
    let mut stream = Stream::resume(&gateway, &query, &first.id.unwrap()).await;
    assert_eq!(stream.begin().await, granted(&[("room:a", Some(false)), ("stream:mine", Some(true))]));
    assert_eq!(stream.next().await.data["offset"], 2);
    // It is asked for too, and comes once.
    let (_, cursor) = received(&events(&stream.text));
    backend.publish_all("stream:mine", 3..4).await;
    let mut stream = Stream::resume(&gateway, &format!("{query}&topic=stream:mine"), &cursor.unwrap()).await;
    assert_eq!(stream.begin().await.len(), 2);
    assert_eq!(stream.next().await.data["offset"], 3);

    let query = format!("token={}", token(&json!({"sub": "ann", "subs": {"stream:hers": {}}})));
    assert_eq!(Stream::open(&gateway, &query, "").await.begin().await, granted(&[("stream:hers", None)]));

    let request = "GET /subscribe HTTP/1.1\r\nHost: test\r\n\r\n";
    let response = RawSocket::ask(gateway.address, request).await;
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.body.contains("name at least one topic"), "{response:?}");
}

#[tokio::test]
async fn a_personal_topic_needs_no_other() {
    let mut settings = settings(2);
    settings.client.personal_topic = Some(fanwire_hub::PersonalTopic::default());
    let gateway = TestGateway::start(settings).await;
    let query = format!("token={}", token(&json!({"sub": "ann"})));
    let mut stream = Stream::open(&gateway, &query, "").await;
    assert_eq!(stream.begin().await, granted(&[("#ann", None)]));
    gateway.backend().await.publish_all("#ann", 1..2).await;
    assert_eq!(stream.next().await.data["data"], 1);
}

#[tokio::test]
async fn in_cache_mode_the_newest_publication_comes_first_unless_it_is_known() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut backend = gateway.backend().await;
    backend.publish_all("cache:a", 1..2).await;
    let mut stream = Stream::open(&gateway, "topic=cache:a", "").await;
    stream.begin().await;
    let (_, cursor) = received(&events(&stream.text));
    backend.publish_all("cache:a", 2..6).await;
    let mut stream = Stream::resume(&gateway, "topic=cache:a", &cursor.unwrap()).await;
    assert_eq!(stream.begin().await, granted(&[("cache:a", Some(true))]));
    // A break before the newest one has arrived does not lose it.
    let (_, cursor) = received(&events(&stream.text));
    let mut again = Stream::resume(&gateway, "topic=cache:a", &cursor.unwrap()).await;
    again.begin().await;
    for stream in [&mut stream, &mut again] {
        assert_eq!(stream.next().await.data["offset"], 5);
    }
    let (_, cursor) = received(&events(&stream.text));
    let mut stream = Stream::resume(&gateway, "topic=cache:a", &cursor.unwrap()).await;
    assert_eq!(stream.begin().await, granted(&[("cache:a", Some(true))]));
    backend.publish_all("cache:a", 6..7).await;
    assert_eq!(stream.next().await.data["offset"], 6);
}

#[tokio::test]
async fn sixteen_topics_with_history_fit_into_one_stream() {
    let gateway = TestGateway::start(settings(2)).await;
    let query = |topics: usize| {
        let topics: Vec<String> = (0..topics).map(|number| format!("topic=history:{number}")).collect();
        topics.join("&") + "&topic=room:1&topic=room:2"
    };
    let mut backend = gateway.backend().await;
    let mut stream = Stream::open(&gateway, &query(16), "").await;
    assert_eq!(stream.begin().await.len(), 18);
    backend.publish_all("history:15", 1..3).await;
    let first = stream.next().await;
    let mut stream = Stream::resume(&gateway, &query(16), &first.id.unwrap()).await;
    assert_eq!(stream.begin().await.iter().filter(|(_, recovered)| *recovered == Some(true)).count(), 16);
    assert_eq!(stream.next().await.data["offset"], 2);

    let request = format!("GET /subscribe?{}&as=sse HTTP/1.1\r\nHost: test\r\n\r\n", query(17));
    let response = RawSocket::ask(gateway.address, &request).await;
    let body: Value = serde_json::from_str(&response.body).unwrap();
    let expected = json!({"code": 106, "message": "at most 16 topics with history in one stream"});
    assert_eq!((response.status, &body["error"]), (400, &expected));
}

/// The bytes that others share end with each message, those of its own cursor too: what it has not received completely, it
/// gets when it comes back.
#[tokio::test]
async fn a_slow_listener_of_several_topics_is_sent_away_behind_a_whole_event() {
    const EACH: u64 = 60;
    let mut settings = settings(2);
    settings.client.queue_bytes_max = 64 << 10;
    let gateway = TestGateway::start(settings).await;
    let query = "topic=history:a&topic=history:b";
    // Small enough to be slow, and large enough to read what waits before the node gives up on a close.
    let mut socket = RawSocket::open_small(gateway.address, 128 << 10).await;
    socket.send(format!("GET /subscribe?{query}&as=sse HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    assert!(socket.head().await.starts_with("HTTP/1.1 200 "));
    let mut text = socket.until("\n\n").await + &socket.until("\n\n").await;
    let mut backend = gateway.backend().await;
    let publish = async {
        let data = "x".repeat(60_000);
        for _ in 0..EACH {
            for topic in ["history:a", "history:b"] {
                backend.call("publish", json!({"channel": topic, "data": data})).await;
            }
        }
    };
    let read = async {
        eventually("it is sent away", async || {
            gateway.metric_of("fanwire_connections_closed_total", "code=\"3008\"").await > 0.0
        })
        .await;
        loop {
            text += &socket.until("\n\n").await;
            if let Some(last) = events(&text).pop().filter(|last| last.name == "disconnect") {
                return last;
            }
        }
    };
    let ((), disconnect) = tokio::join!(publish, read);
    assert_eq!((&disconnect.data["code"], &disconnect.data["reconnect"]), (&json!(3008), &json!(true)));
    socket.ended().await;
    let (mut all, cursor) = received(&events(&text));
    let mut stream = Stream::resume(&gateway, query, &cursor.unwrap()).await;
    assert!(stream.begin().await.iter().all(|(_, recovered)| *recovered == Some(true)));
    stream.read_to(&BTreeMap::from([("history:a", EACH), ("history:b", EACH)])).await;
    add(&mut all, received(&events(&stream.text)).0);
    for topic in ["history:a", "history:b"] {
        assert_eq!(all[topic], (1..=EACH).collect::<Vec<_>>(), "{topic}");
    }
}

/// A cursor of 16 topics is longer than the message: a batch for such listeners is many times as long as for others, and those
/// who read get it all the same, while others are served.
#[tokio::test]
async fn a_batch_for_listeners_of_many_topics_costs_no_healthy_reader() {
    const LISTENERS: usize = 16;
    const PUBLISHERS: u64 = 8;
    const EACH: u64 = 1000;
    let gateway = TestGateway::start(settings(1)).await;
    let query: Vec<String> = (0..16).map(|number| format!("topic=history:{number}")).collect();
    let query = query.join("&");
    let mut streams = Vec::new();
    for _ in 0..LISTENERS {
        let mut stream = Stream::open(&gateway, &query, "").await;
        assert_eq!(stream.begin().await.len(), 16);
        streams.push(stream);
    }
    let reads = streams.into_iter().map(|mut stream| {
        tokio::spawn(async move {
            let mut seen = 0;
            while seen < PUBLISHERS * EACH {
                let event = stream.next().await;
                stream.text.clear();
                assert_eq!(event.name, "", "{event:?}");
                seen += 1;
                assert_eq!(event.data["offset"], seen);
            }
        })
    });
    let reads: Vec<_> = reads.collect();
    let mut publishes = Vec::new();
    for _ in 0..PUBLISHERS {
        let mut backend = gateway.backend().await;
        publishes.push(tokio::spawn(async move { backend.publish_all("history:0", 0..EACH as u32).await }));
    }
    for publish in publishes {
        publish.await.unwrap();
    }
    for read in reads {
        read.await.unwrap();
    }
    assert_eq!(gateway.metric_of("fanwire_connections_closed_total", r#"code="3008""#).await, 0.0);
}

/// From then on the cursor holds both topics.
#[tokio::test]
async fn an_api_subscribe_keeps_the_places_of_the_other_topics() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut backend = gateway.backend().await;
    backend.publish_all("history:b", 1..4).await;
    let epoch = backend.call("history", json!({"channel": "history:b"})).await["epoch"].take();
    let query = format!("topic=history:a&token={}", token(&json!({"sub": "ann"})));
    let mut stream = Stream::open(&gateway, &query, "").await;
    stream.begin().await;
    backend.publish_all("history:a", 1..2).await;
    stream.read_to(&BTreeMap::from([("history:a", 1)])).await;
    let since = json!({"offset": 1, "epoch": epoch});
    backend.call("subscribe", json!({"user": "ann", "channel": "history:b", "recover_since": since})).await;
    stream.read_to(&BTreeMap::from([("history:b", 3)])).await;
    backend.publish_all("history:b", 4..5).await;
    stream.read_to(&BTreeMap::from([("history:b", 4)])).await;
    let all = events(&stream.text);
    for event in all.iter().filter(|event| event.data["topic"] == "history:b") {
        backend.publish_all("history:a", 2..3).await;
        let mut resumed = Stream::resume(&gateway, &query, event.id.as_deref().unwrap()).await;
        assert_eq!(resumed.begin().await, granted(&[("history:a", Some(true))]));
        assert_eq!(resumed.next().await.data["offset"], 2);
    }
}

#[tokio::test]
async fn lines_say_what_events_say() {
    let mut settings = settings(2);
    settings.client.ping_interval = Some(Duration::from_millis(200));
    settings.client.pong_timeout = Some(Duration::from_millis(100));
    let gateway = TestGateway::start(settings).await;
    let mut stream = Stream::open_as(Format::Lines, &gateway, "topic=room:a", "").await;
    assert_eq!(stream.begin().await, granted(&[("room:a", None)]));
    for _ in 0..2 {
        assert_eq!(stream.socket.until("\n").await, "\n");
    }
    gateway.client().await.publish("room:a", json!({"text": "line\nbreak"})).await;
    let event = stream.next().await;
    assert_eq!(
        (&event.data["topic"], &event.data["data"]),
        (&json!("room:a"), &json!({"text": "line\nbreak"}))
    );
    assert_eq!(event.id, None);
    // A refusal is the same in any format, and the address decides before the header.
    let request = "GET /subscribe?topic=room:a&as=rss HTTP/1.1\r\nHost: test\r\n\r\n";
    let response = RawSocket::ask(gateway.address, request).await;
    assert_eq!(response.status, 400);
    assert!(response.body.contains("as: say sse, ndjson or poll"), "{}", response.body);
    let mut named = RawSocket::open(gateway.address).await;
    let request =
        "GET /subscribe?topic=room:a&as=ndjson HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n";
    named.send(request).await;
    assert!(named.head().await.contains("content-type: application/x-ndjson\r\n"));
    assert!(named.until("\n").await.starts_with("{\"subscribed\":"));
    let ends = async {
        let event = stream.next().await;
        assert_eq!(event.name, "disconnect");
        assert_eq!(event.data, json!({"code": 3001, "reason": "shutdown", "reconnect": true}));
        stream.socket.ended().await;
    };
    tokio::join!(gateway.shutdown(), ends);
}
