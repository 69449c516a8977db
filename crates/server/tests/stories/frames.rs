//! Whatever way bytes arrive in, the same messages come out; and whoever breaks a rule is told which.

use serde_json::{Value, json};

use crate::common::{
    BINARY, CLOSE, CONTINUATION, Client, PING, PONG, RawSocket, TEXT, TestGateway, WEBSOCKET_HANDSHAKE,
    fragment, frame, settings,
};

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;
const SUBSCRIBE: &str = r#"{"id":2,"subscribe":{"channel":"a"}}"#;

async fn next_id(socket: &mut RawSocket) -> Value {
    let frame = socket.frame().await.unwrap();
    serde_json::from_str::<Value>(frame.text()).unwrap()["id"].take()
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut socket = RawSocket::open(gateway.address).await;
    let commands = [frame(TEXT, CONNECT), frame(PING, "between"), frame(TEXT, SUBSCRIBE)].concat();
    for byte in WEBSOCKET_HANDSHAKE.bytes().chain(commands) {
        socket.send([byte]).await;
        // Lets the server read what was sent so far.
        tokio::task::yield_now().await;
    }
    assert!(socket.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(next_id(&mut socket).await, 1);
    let pong = socket.frame().await.unwrap();
    assert_eq!((pong.opcode, &*pong.payload), (PONG, &b"between"[..]));
    assert_eq!(next_id(&mut socket).await, 2);
}

#[tokio::test]
async fn commands_behind_the_handshake_in_one_packet_are_not_lost() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut socket = RawSocket::open(gateway.address).await;
        let commands = [frame(TEXT, CONNECT), frame(TEXT, SUBSCRIBE)].concat();
        socket.send([WEBSOCKET_HANDSHAKE.as_bytes(), &commands].concat()).await;
        assert!(socket.head().await.starts_with("HTTP/1.1 101 "));
        assert_eq!(next_id(&mut socket).await, 1);
        assert_eq!(next_id(&mut socket).await, 2);
    }
}

#[tokio::test]
async fn requests_before_the_upgrade_on_the_same_connection_are_answered() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut socket = RawSocket::open(gateway.address).await;
    let request = "GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n";
    let all = [request, request, WEBSOCKET_HANDSHAKE].concat();
    socket.send([all.as_bytes(), &frame(TEXT, CONNECT)].concat()).await;
    assert_eq!(socket.response().await.status, 404);
    assert_eq!(socket.response().await.status, 404);
    assert!(socket.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(next_id(&mut socket).await, 1);
}

#[tokio::test]
async fn many_commands_in_one_frame_are_each_answered() {
    let gateway = TestGateway::start(settings(3)).await;
    let mut client = gateway.client().await;
    let ids = client.commands((0..1000).map(|_| ("unsubscribe", json!({"channel": "a"})))).await;
    for id in ids {
        assert_eq!(client.reply(id).await, Ok(json!({})));
    }
}

#[tokio::test]
async fn fragments_are_joined_and_control_frames_stand_between_them() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut socket = RawSocket::websocket(gateway.address).await;
    let (first, rest) = CONNECT.split_at(7);
    socket.send(fragment(false, TEXT, first)).await;
    socket.send(frame(PING, "still there?")).await;
    socket.send(fragment(false, CONTINUATION, "")).await;
    let pong = socket.frame().await.unwrap();
    assert_eq!((pong.opcode, &*pong.payload), (PONG, &b"still there?"[..]));
    socket.send(fragment(true, CONTINUATION, rest)).await;
    assert_eq!(next_id(&mut socket).await, 1);
}

#[tokio::test]
async fn every_mistake_closes_with_its_code_and_nobody_else_notices() {
    let mut settings = settings(1);
    settings.websocket.message_bytes_max = 1000;
    let gateway = TestGateway::start(settings).await;
    let mut witness = gateway.client().await;
    witness.subscribe("a").await;

    let big = frame(TEXT, "x".repeat(1001));
    let big_in_pieces =
        [fragment(false, TEXT, "x".repeat(600)), fragment(true, CONTINUATION, "x".repeat(600))];
    let unmasked = b"\x81\x02{}".to_vec();
    let reserved_bit = [&[frame(TEXT, "{}")[0] | 0x40], &frame(TEXT, "{}")[1..]].concat();
    let unfinished_ping = fragment(false, PING, "");
    let cut = [fragment(false, TEXT, [0xE2]), frame(CONTINUATION, "x")].concat();
    let nested = "[".repeat(900);
    let mistakes: [(&str, Vec<u8>, u16); 19] = [
        ("too big", big, 1009),
        ("too big in pieces", big_in_pieces.concat(), 1009),
        ("announced too big", [&[0x81u8, 0xFF][..], &[0x7F; 8], &[0; 4]].concat(), 1009),
        ("not masked", unmasked, 1002),
        ("a reserved bit", reserved_bit, 1002),
        ("a reserved opcode", frame(0x3, ""), 1002),
        ("a fragmented ping", unfinished_ping, 1002),
        ("a long ping", frame(PING, [0; 126]), 1002),
        ("nothing to continue", frame(CONTINUATION, ""), 1002),
        ("a close code that is none", frame(CLOSE, 1005u16.to_be_bytes()), 1002),
        ("half a close code", frame(CLOSE, [3]), 1002),
        ("no text", frame(TEXT, [0xFF]), 1007),
        ("a character that is cut", cut, 1007),
        ("no JSON", frame(TEXT, "hello"), 3501),
        ("an empty frame", frame(TEXT, ""), 3501),
        ("deeply nested", frame(TEXT, nested), 3501),
        ("a command before connect", frame(TEXT, SUBSCRIBE), 3501),
        ("no id", frame(TEXT, r#"{"connect":{}}"#), 3501),
        ("Protobuf in a JSON connection", frame(BINARY, [1, 2, 3]), 3501),
    ];
    for (what, bytes, code) in mistakes {
        let mut socket = RawSocket::websocket(gateway.address).await;
        socket.send(bytes).await;
        assert_eq!(socket.closed().await.0, code, "{what}");
    }
    witness.publish("a", json!("well")).await;
    assert_eq!(witness.publication().await.1["data"], "well");
    drop(witness);
    gateway.deserted().await;
}

#[tokio::test]
async fn what_follows_a_mistake_is_not_done() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut witness = gateway.client().await;
    witness.subscribe("a").await;
    let mut wrong = gateway.client().await;
    let publish = r#"{"id":7,"publish":{"channel":"a","data":"never"}}"#;
    wrong.socket.send([frame(TEXT, format!("oops\n{publish}")), frame(TEXT, publish)].concat()).await;
    assert_eq!(wrong.closed().await.0, 3501);
    witness.nothing_more().await;
}

#[tokio::test]
async fn the_echo_route_gives_back_what_it_gets() {
    let mut settings = settings(1);
    settings.websocket.message_bytes_max = 1 << 20;
    let gateway = TestGateway::start(settings).await;
    let mut socket = RawSocket::open(gateway.address).await;
    socket.upgrade(&WEBSOCKET_HANDSHAKE.replace("/connection/websocket", "/echo")).await;
    for (opcode, length) in
        [(TEXT, 0), (BINARY, 125), (TEXT, 126), (BINARY, 65_535), (TEXT, 65_536), (BINARY, 1 << 20)]
    {
        socket.send(frame(opcode, "x".repeat(length))).await;
        let echo = socket.frame().await.unwrap();
        assert_eq!((echo.opcode, echo.payload.len()), (opcode, length));
    }
}

#[tokio::test]
async fn an_echo_is_no_client_and_is_told_of_the_end() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut socket = RawSocket::open(gateway.address).await;
    socket.upgrade(&WEBSOCKET_HANDSHAKE.replace("/connection/websocket", "/echo")).await;
    socket.send(frame(PING, "there?")).await;
    let pong = socket.frame().await.unwrap();
    assert_eq!((pong.opcode, &*pong.payload), (PONG, &b"there?"[..]));
    assert_eq!(gateway.metric("fanwire_connections").await, 0.0);
    let goodbye = async {
        assert_eq!(socket.closed().await, (3001, "shutdown".into()));
        drop(socket);
    };
    tokio::join!(gateway.shutdown(), goodbye);
}

#[tokio::test]
async fn a_refused_connect_leaves_the_client_time_to_go() {
    let mut settings = settings(1);
    settings.client.queue_bytes_max = 1000;
    let gateway = TestGateway::start(settings).await;
    let expired = crate::common::token(&json!({"sub": "ann", "exp": 1}));
    let commands = format!(
        "{}\n{}",
        json!({"id": 1, "connect": {"token": expired}}),
        json!({"id": 2, "subscribe": {"channel": "a"}})
    );
    // With pings in front of it, the frame has to wait until they are answered.
    for pings in [0, 10] {
        let mut client = Client::over(RawSocket::open(gateway.address).await).await;
        let packet = [frame(PING, [b'x'; 100]).repeat(pings), frame(TEXT, &commands)].concat();
        client.socket.send(packet).await;
        assert_eq!(client.reply(1).await.unwrap_err()["code"], 109);
        // What stood behind it in the same frame was dropped; another command is one too many.
        client.socket.send(frame(PING, [])).await;
        assert_eq!(client.socket.frame().await.unwrap().opcode, PONG);
        client.command("subscribe", json!({"channel": "a"})).await;
        assert_eq!(client.closed().await.0, 3501);
    }
}
