//! Clients whose replies come by a stream, and whose commands come by requests of their own.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::seq::SliceRandom as _;
use serde_json::{Value, json};

use crate::common::{Client, Emulated, RawSocket, TestGateway, emulate, eventually, post, settings, token};

/// The time that a command waits for an earlier one, and how much longer that may take: timers tick.
const WAIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_client_does_everything_without_a_socket_of_its_own() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut client = Emulated::connect(gateway.address).await;
        let mut other = gateway.client().await;
        client.request(gateway.address, "subscribe", json!({"channel": "room:1"})).await.unwrap();
        assert!(client.next().await["push"]["join"].is_object());
        other.publish("room:1", json!(1)).await;
        assert_eq!(client.next().await["push"]["pub"]["data"], 1);
        other.subscribe("room:1").await;
        assert!(client.next().await["push"]["join"].is_object());
        assert_eq!(other.present("room:1").await, 2);
        drop(client);
        eventually("its end is noticed", async || other.present("room:1").await == 1).await;
    }
}

/// Rounds of commands from eight sockets at once, in a random order.
pub(crate) async fn publish_in_disorder(client: &mut Emulated, addresses: &[std::net::SocketAddr]) {
    const ROUNDS: usize = 25;
    const AT_ONCE: usize = 8;
    let mut subscriber = Client::connect(addresses[0], json!({})).await;
    subscriber.subscribe("order").await;
    let mut sockets = Vec::new();
    for number in 0..AT_ONCE {
        sockets.push(RawSocket::open(addresses[number % addresses.len()]).await);
    }
    let mut proven = 0;
    for round in 0..ROUNDS {
        let numbers: Vec<usize> = (round * AT_ONCE..(round + 1) * AT_ONCE).collect();
        let commands: Vec<(u32, String)> = numbers
            .iter()
            .map(|number| client.command("publish", json!({"channel": "order", "data": number})))
            .collect();
        let mut places: Vec<usize> = (0..AT_ONCE).collect();
        places.shuffle(&mut rand::rng());
        let began = Instant::now();
        for (socket, place) in sockets.iter_mut().zip(&places) {
            socket.send(post("/emulation", &client.body(&commands[*place].1))).await;
        }
        for socket in &mut sockets {
            assert_eq!(socket.response().await.status, 204);
        }
        let took = began.elapsed();
        let mut published = Vec::new();
        for _ in 0..AT_ONCE {
            published.push(subscriber.publication().await.1["data"].as_u64().unwrap() as usize);
        }
        let mut replied: Vec<u64> = Vec::new();
        for _ in 0..AT_ONCE {
            replied.push(client.next().await["id"].as_u64().unwrap());
        }
        // On a machine that is too busy, a command may have been given up: then it comes later, and is not lost.
        if took < WAIT {
            proven += 1;
            assert_eq!(published, numbers, "sent in the order {places:?}");
        }
        published.sort_unstable();
        assert_eq!(published, numbers);
        replied.sort_unstable();
        assert_eq!(replied, commands.iter().map(|(id, _)| u64::from(*id)).collect::<Vec<_>>());
    }
    assert!(proven > 0, "no round took less than {WAIT:?}");
}

#[tokio::test]
async fn commands_keep_their_order_whatever_order_they_arrive_in() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut client = Emulated::connect(gateway.address).await;
        publish_in_disorder(&mut client, &[gateway.address]).await;
    }
}

#[tokio::test]
async fn a_command_that_does_not_come_holds_up_the_others_for_a_moment() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut client = Emulated::connect(gateway.address).await;
    let ping = |client: &mut Emulated| client.command("presence_stats", json!({"channel": "room:1"}));
    for _ in 0..3 {
        let (missing, late) = ping(&mut client);
        let (id, command) = ping(&mut client);
        let began = Instant::now();
        assert_eq!(client.send(gateway.address, &command).await, 204);
        assert!(client.reply(id).await.is_ok());
        let took = began.elapsed();
        // The machine may be busy with other tests.
        let patience = WAIT_MAX + Duration::from_secs(2);
        assert!((WAIT..patience).contains(&took), "{took:?}");
        let (id, command) = ping(&mut client);
        assert_eq!(client.send(gateway.address, &command).await, 204);
        assert!(client.reply(id).await.is_ok(), "no gap lasts");
        assert_eq!(client.send(gateway.address, &late).await, 204);
        assert!(client.reply(missing).await.is_ok());
    }
}

#[tokio::test]
async fn too_much_that_waits_ends_the_session() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut client = Emulated::connect(gateway.address).await;
    let long = "x".repeat(40_000);
    let mut status = 0;
    // The first may have been given up before the second came.
    while status != 429 {
        for leave_out in [true, false] {
            if leave_out {
                client.command("publish", json!({"channel": "a", "data": 0}));
            }
            let command = client.command("publish", json!({"channel": "a", "data": long})).1;
            status = client.send(gateway.address, &command).await;
            assert!(status == 204 || status == 429 && !leave_out, "{status}");
        }
    }
    assert_eq!(client.closed().await, 3013);
    assert_eq!(client.send(gateway.address, "{}").await, 404);
    assert_eq!(gateway.metric_of("fanwire_session_calls_total", "result=\"full\"").await, 1.0);
}

#[tokio::test]
async fn what_one_session_has_wait_closes_no_other() {
    /// All that may wait on a shard, and a bit less.
    const ALMOST_ALL: usize = (8 << 20) - 1024;
    let mut settings = settings(1);
    settings.emulation.body_bytes_max = 9 << 20;
    let gateway = TestGateway::start(settings).await;
    let mut client = Emulated::connect(gateway.address).await;
    for _ in 0..3 {
        let mut hoarder = Emulated::connect(gateway.address).await;
        hoarder.command("presence_stats", json!({"channel": "room:1"}));
        let mut hoarded = hoarder.command("presence_stats", json!({"channel": "room:1"})).1;
        hoarded.push_str(&" ".repeat(ALMOST_ALL - hoarded.len()));
        let (first, earlier) = client.command("publish", json!({"channel": "a", "data": 1}));
        let (second, later) = client.command("publish", json!({"channel": "a", "data": "x".repeat(2048)}));
        assert_eq!(hoarder.send(gateway.address, &hoarded).await, 204);
        assert_eq!(client.send(gateway.address, &later).await, 204);
        assert_eq!(client.send(gateway.address, &earlier).await, 204);
        let mut replied = [client.next().await["id"].clone(), client.next().await["id"].clone()];
        // The machine may be busy: then the second was not waited for.
        replied.sort_by_key(Value::as_u64);
        assert_eq!(replied, [json!(first), json!(second)]);
    }
}

#[tokio::test]
async fn what_a_session_cannot_take_yet_waits_for_it() {
    const REQUESTS: u32 = 40;
    let mut settings = settings(1);
    settings.client.queue_bytes_max = 2 << 20;
    let gateway = TestGateway::start(settings).await;
    let mut publisher = gateway.client().await;
    for _ in 0..20 {
        publisher.publish("history:long", json!("x".repeat(30_000))).await;
    }
    let stream = RawSocket::open_small(gateway.address, 64 * 1024).await;
    let mut client = Emulated::connect_over(stream, json!({})).await;
    let mut ids = Vec::new();
    for _ in 0..REQUESTS {
        let (id, command) = client.command("history", json!({"channel": "history:long", "limit": 1000}));
        assert_eq!(client.send(gateway.address, &command).await, 204);
        ids.push(id);
    }
    // More than the server has made, and more than fits into its sockets: 24 MB.
    for id in ids {
        let history = client.reply(id).await.unwrap();
        assert_eq!(history["publications"].as_array().unwrap().len(), 20);
    }
    client.request(gateway.address, "subscribe", json!({"channel": "a"})).await.unwrap();
}

#[tokio::test]
async fn pongs_come_like_commands() {
    let mut settings = settings(1);
    settings.client.ping_interval = Some(Duration::from_millis(500));
    settings.client.pong_timeout = Some(Duration::from_secs(2));
    let gateway = TestGateway::start(settings).await;
    let mut client = Emulated::connect(gateway.address).await;
    assert_eq!(client.connected["pong"], true);
    for _ in 0..4 {
        assert_eq!(client.next().await, json!({}));
        assert_eq!(client.send(gateway.address, "{}").await, 204);
    }
    assert_eq!(client.closed().await, 3012);
}

#[tokio::test]
async fn a_request_that_comes_again_is_served_once() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut subscriber = gateway.client().await;
    subscriber.subscribe("a").await;
    let mut client = Emulated::connect(gateway.address).await;
    for number in 0..3 {
        let (id, command) = client.command("publish", json!({"channel": "a", "data": number}));
        for _ in 0..3 {
            assert_eq!(client.send(gateway.address, &command).await, 204);
        }
        client.reply(id).await.unwrap();
        assert_eq!(subscriber.publication().await.1["data"], number);
    }
    client.request(gateway.address, "presence_stats", json!({"channel": "room:1"})).await.unwrap();
}

#[tokio::test]
async fn a_request_that_comes_again_and_again_is_refused() {
    let mut settings = settings(1);
    (settings.client.commands_per_second_max, settings.client.commands_burst_max) = (1, 10);
    let gateway = TestGateway::start(settings).await;
    let mut client = Emulated::connect(gateway.address).await;
    let (id, command) = client.command("presence_stats", json!({"channel": "room:1"}));
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(client.send(gateway.address, &command).await);
    }
    assert_eq!((statuses[0], statuses[19]), (204, 429), "{statuses:?}");
    client.reply(id).await.unwrap();
    // The session goes on.
    eventually("it may ask again", async || {
        client.request(gateway.address, "presence_stats", json!({"channel": "room:1"})).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_command_that_waits_is_no_pong() {
    let mut settings = settings(1);
    settings.client.ping_interval = Some(Duration::from_millis(500));
    settings.client.pong_timeout = Some(Duration::from_secs(2));
    settings.client.queue_bytes_max = 2 << 20;
    let gateway = TestGateway::start(settings).await;
    let mut publisher = gateway.client().await;
    for _ in 0..20 {
        publisher.publish("history:long", json!("x".repeat(30_000))).await;
    }
    // Or it would be closed for its own pong.
    drop(publisher);
    let stream = RawSocket::open_small(gateway.address, 64 * 1024).await;
    let mut client = Emulated::connect_over(stream, json!({})).await;
    // More than fits into its sockets, of which it reads nothing.
    for _ in 0..40 {
        let command = client.command("history", json!({"channel": "history:long", "limit": 1000})).1;
        assert_eq!(client.send(gateway.address, &command).await, 204);
    }
    client.command("presence_stats", json!({"channel": "room:1"}));
    let ahead = client.command("presence_stats", json!({"channel": "room:1"})).1;
    assert_eq!(client.send(gateway.address, &ahead).await, 204);
    eventually("it is closed", async || {
        gateway.metric_of("fanwire_connections_closed_total", r#"code="3012""#).await == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_mistake_in_commands_is_told_in_the_stream() {
    let gateway = TestGateway::start(settings(1)).await;
    for data in
        ["no JSON", "{\"id\":2,\"publish\":{\"channel\":\"a\",\"data\":1}}\n[]", "{\"id\":1,\"connect\":{}}"]
    {
        let mut client = Emulated::connect(gateway.address).await;
        assert_eq!(client.send(gateway.address, data).await, 204);
        assert_eq!(client.closed().await, 3501, "{data}");
    }
}

pub(crate) fn flipped(session: &str, byte: usize) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(session).unwrap();
    bytes[byte] ^= 1;
    URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test]
async fn whoever_has_no_key_of_a_session_has_no_session() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut client = Emulated::connect(gateway.address).await;
        let other = Emulated::connect(gateway.address).await;
        let (session, node) = (client.session().to_owned(), client.node().to_owned());
        assert_ne!(session, other.session());
        let body = |session: &str| json!({"session": session, "node": node, "data": "{}"}).to_string();
        // Shard, slot, generation, client and signature; a key of another node is one of no node here.
        for byte in 16..60 {
            let answer = emulate(gateway.address, &body(&flipped(&session, byte))).await;
            assert_eq!(answer.status, 404, "byte {byte}");
            assert!(answer.body.starts_with("No such session"), "{}", answer.body);
        }
        for session in ["x", &session[1..], &format!("{session}="), &client.connected["client"].to_string()] {
            assert_eq!(emulate(gateway.address, &body(session)).await.status, 404, "{session}");
        }
        let elsewhere = "00000000-0000-4000-8000-000000000000";
        let mut bytes = URL_SAFE_NO_PAD.decode(&session).unwrap();
        bytes[..16].copy_from_slice(uuid::Uuid::parse_str(elsewhere).unwrap().as_bytes());
        let foreign = URL_SAFE_NO_PAD.encode(bytes);
        let foreign = json!({"session": foreign, "node": elsewhere, "data": "{}"}).to_string();
        assert_eq!(emulate(gateway.address, &foreign).await.status, 404);

        // Nothing of that was taken for the client's.
        client.request(gateway.address, "subscribe", json!({"channel": "a"})).await.unwrap();
        drop(client);
        eventually("the session is gone", async || {
            emulate(gateway.address, &body(&session)).await.status == 404
        })
        .await;
        // Others come to its place.
        let _later = (Emulated::connect(gateway.address).await, Emulated::connect(gateway.address).await);
        assert_eq!(emulate(gateway.address, &body(&session)).await.status, 404);
        assert!(gateway.metric_of("fanwire_session_calls_total", "result=\"gone\"").await > 1.0);
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_told_why() {
    let mut settings = settings(1);
    settings.origins.allowed = vec!["https://app.example".into()];
    let gateway = TestGateway::start(settings).await;
    let client = Emulated::connect(gateway.address).await;
    let (session, node) = (client.session(), client.node());
    let elsewhere = "00000000-0000-4000-8000-000000000000";
    for (body, status, says) in [
        (String::new(), 400, "not JSON"),
        ("[]".into(), 400, "no object"),
        (json!({"session": session, "node": node}).to_string(), 400, "\"data\" is missing"),
        (json!({"session": session, "data": "{}"}).to_string(), 400, "\"node\" is missing"),
        (json!({"node": node, "data": "{}"}).to_string(), 400, "\"session\" is missing"),
        (
            json!({"session": session, "node": elsewhere, "data": "{}"}).to_string(),
            400,
            "\"node\" is not the node",
        ),
        (
            json!({"session": session, "node": "node-1", "data": "{}"}).to_string(),
            400,
            "\"node\" is not the node",
        ),
        (client.body(&"x".repeat(64 << 10)), 413, "emulation.body_bytes_max"),
    ] {
        let answer = emulate(gateway.address, &body).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.body.contains(says), "{}", answer.body);
    }
    let get = "GET /emulation HTTP/1.1\r\nHost: test\r\n\r\n";
    let answer = RawSocket::ask(gateway.address, get).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(gateway.metric_of("fanwire_session_calls_total", "result=\"refused\"").await, 9.0);

    // Pages of allowed origins can read all of it.
    let from =
        |origin: &str| post("/emulation", "{}").replacen("\r\n", &format!("\r\nOrigin: {origin}\r\n"), 1);
    let answer = RawSocket::ask(gateway.address, &from("https://app.example")).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (400, Some("https://app.example"))
    );
    let answer = RawSocket::ask(gateway.address, &from("https://other.example")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None));
}

#[tokio::test]
async fn commands_in_protobuf_come_as_bytes() {
    use fanwire_protocol::centrifuge::{
        Command, ConnectRequest, EmulationRequest, PresenceStatsRequest, ReplyMessage,
    };
    use prost::Message as _;

    let binary = |path: &str, body: &[u8]| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let gateway = TestGateway::start(settings(1)).await;
    let mut stream = RawSocket::open(gateway.address).await;
    let connect = Command { id: 1, connect: Some(ConnectRequest::default()), ..Command::default() };
    stream.send(binary("/connection/http_stream", &connect.encode_length_delimited_to_vec())).await;
    stream.head().await;
    let connected = message(&mut stream).await.connect.unwrap();
    let stats = PresenceStatsRequest { channel: "room:1".into() };
    let ask = Command { id: 2, presence_stats: Some(stats), ..Command::default() };
    let request = EmulationRequest {
        node: connected.node,
        session: connected.session,
        data: ask.encode_length_delimited_to_vec().into(),
    };
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(binary("/emulation", &request.encode_to_vec())).await;
    assert_eq!(socket.response().await.status, 204);
    let reply = message(&mut stream).await;
    assert_eq!((reply.id, reply.presence_stats.is_some()), (2, true));

    async fn message(stream: &mut RawSocket) -> ReplyMessage {
        let mut length = Vec::new();
        while length.last().is_none_or(|byte| byte & 0x80 != 0) {
            length.extend(stream.bytes(1).await);
        }
        let length = prost::decode_length_delimiter(&*length).unwrap();
        ReplyMessage::decode(&*stream.bytes(length).await).unwrap()
    }
}

#[tokio::test]
async fn an_order_finds_a_session_by_its_key() {
    let gateway = TestGateway::start(settings(3)).await;
    let mut backend = gateway.backend().await;
    let ann = || async {
        let stream = RawSocket::open(gateway.address).await;
        Emulated::connect_over(stream, json!({"token": token(&json!({"sub": "ann"}))})).await
    };
    let (mut first, mut second) = (ann().await, ann().await);
    for nobody in [
        json!({"session": flipped(second.session(), 41)}),
        json!({"session": second.session(), "user": "bob"}),
        json!({"session": second.session(), "client": first.connected["client"]}),
        json!({"session": second.session(), "whitelist": [second.connected["client"]]}),
        json!({"session": "x", "user": "ann"}),
    ] {
        backend.call("disconnect", nobody).await;
    }
    backend.call("subscribe", json!({"session": second.session(), "channel": "a"})).await;
    assert_eq!(second.next().await["push"]["channel"], "a");
    let order = json!({"session": second.session(), "user": "ann", "client": second.connected["client"]});
    backend.call("disconnect", order).await;
    assert_eq!(second.closed().await, 3503);
    let stats = first.request(gateway.address, "presence_stats", json!({"channel": "room:1"})).await;
    assert_eq!(stats.unwrap()["num_clients"].as_u64(), Some(0));
}

/// A value that only this wire's clients have.
#[tokio::test]
async fn only_clients_that_need_a_key_have_one() {
    let gateway = TestGateway::start(settings(1)).await;
    let client = gateway.client().await;
    assert_eq!((&client.connected["session"], &client.connected["node"]), (&Value::Null, &Value::Null));
}
