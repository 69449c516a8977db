//! A client and the far end of its socket: set-up, refusals, frames however they are cut.

use std::io::{Read as _, Write as _};

use fanwire_protocol::centrifuge::Encoding;
use fanwire_protocol::websocket;

use super::*;
use crate::dialect::{Audience, Centrifuge, Dialect, Plain, Polling, PushFormat, Seats, Tokens};
use crate::measure::payload::{self, Numbers};

struct Pair {
    client: Client,
    server: std::net::TcpStream,
    shared: Shared,
    buffer: Box<[u8]>,
}

impl Pair {
    fn new() -> Self {
        Self::of(Box::new(Centrifuge {
            host: "localhost".to_owned(),
            path: "/connection/websocket".to_owned(),
            tokens: Tokens::of_secret("secret"),
            audience: Audience::new("load:", Seats::All { topics: 1 }),
            encoding: Encoding::Json,
            deflate: false,
            filter: false,
            hook: false,
        }))
    }

    fn of(dialect: Box<dyn Dialect>) -> Self {
        let (near, server) = connected();
        let mut pair = Self {
            client: Client::new(near, 0, StreamChecks::new([0])),
            server,
            shared: Shared::new(dialect),
            buffer: read_buffer(),
        };
        pair.client.writable(&mut pair.shared).unwrap();
        pair
    }

    fn live() -> Self {
        let mut pair = Self::new();
        pair.say(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
        pair.say(&text(r#"{"id":1,"connect":{"client":"a","ping":25,"pong":true}}"#)).unwrap();
        pair.say(&text(r#"{"id":2,"subscribe":{}}"#)).unwrap();
        assert_eq!(pair.client.stage, Stage::Live);
        pair.shared.published = vec![10];
        pair.shared.payload_bytes = 100;
        pair
    }

    fn say(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.server.write_all(bytes).unwrap();
        // Without this the client might look before the bytes are there.
        while self.client.stream().peek(&mut [0]).is_err() {}
        self.client.readable(&mut self.buffer, &mut self.shared)
    }

    fn heard(&mut self) -> Vec<u8> {
        let mut heard = vec![0; 4096];
        let length = self.server.read(&mut heard).unwrap();
        heard.truncate(length);
        heard
    }
}

/// Returns both ends of a connection.
fn connected() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nonblocking(true).unwrap();
    let server = listener.accept().unwrap().0;
    server.set_nodelay(true).unwrap();
    (TcpStream::from_std(near), server)
}

fn text(message: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    websocket::write_frame(Opcode::Text, message.as_bytes(), &mut frame);
    frame
}

fn publication(sequence: u64) -> String {
    let mut data = Vec::new();
    payload::write(&mut data, &Numbers { stream: 0, sequence, sent_at: 1, due: 1 }, 100);
    format!(
        r#"{{"push":{{"channel":"load:topic-0","pub":{{"data":{}}}}}}}"#,
        String::from_utf8(data).unwrap()
    )
}

#[test]
fn a_client_upgrades_connects_and_subscribes() {
    let mut pair = Pair::new();
    assert!(pair.heard().starts_with(b"GET /connection/websocket HTTP/1.1\r\n"));
    pair.say(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert!(!pair.heard().is_empty());
    pair.say(&text(r#"{"id":1,"connect":{"client":"a"}}"#)).unwrap();
    assert!(!pair.heard().is_empty());
    assert_ne!(pair.client.stage, Stage::Live);
    pair.say(&text(r#"{"id":2,"subscribe":{}}"#)).unwrap();
    assert_eq!(pair.client.stage, Stage::Live);
    assert_eq!(pair.shared.live, 1);
    assert!(!pair.shared.set_up.is_empty());
}

#[test]
fn refusals_are_told_in_the_server_s_words() {
    let mut pair = Pair::new();
    let lost = pair.say(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap_err();
    assert!(lost.to_string().contains("403 Forbidden"), "{lost}");

    let mut pair = Pair::live();
    let lost = pair.say(&[0x88, 6, 0x0b, 0xc0, b's', b'l', b'o', b'w']).unwrap_err();
    assert_eq!(lost.to_string(), "the server closed with 3008 \"slow\"");
}

#[test]
fn what_is_live_acknowledges_when_it_reads() {
    let mut pair = Pair::live();
    let acknowledges = |pair: &Pair| SockRef::from(pair.client.stream()).tcp_quickack().unwrap();
    assert!(acknowledges(&pair));
    // Its pong is an answer that the kernel takes it at its word for.
    pair.say(&[0x89, 0]).unwrap();
    assert!(acknowledges(&pair));
}

#[test]
fn messages_are_counted_however_they_are_framed_and_cut() {
    let mut pair = Pair::live();
    let mut bytes = text(&publication(0));
    bytes.extend(text(&format!("{}\n{{}}\n{}", publication(1), publication(2))));
    bytes.extend(text(&publication(3)));
    for part in bytes.chunks(7) {
        pair.say(part).unwrap();
    }
    assert_eq!((pair.shared.received, pair.shared.pings), (4, 1));
    assert!(pair.client.checks.faults(&[4]).is_clean());
    assert_eq!(pair.client.checks.faults(&[5]).lost, 1);
    assert_eq!(pair.client.kept.capacity(), 0);
}

#[test]
fn bodies_are_cut_into_messages_wherever_their_parts_end() {
    for (format, begin, field, ping, end) in [
        (PushFormat::Events, "retry: 2500\n\n", "data: ", ":", "\n\n"),
        (PushFormat::Lines, "", "", "", "\n"),
    ] {
        let mut pair = Pair::of(Box::new(Plain {
            host: "localhost".to_owned(),
            path: "/subscribe".to_owned(),
            tokens: Tokens::of_secret("secret"),
            audience: Audience::new("load:", Seats::All { topics: 1 }),
            format,
        }));
        pair.shared.published = vec![10];
        pair.shared.payload_bytes = 100;
        let (first, second) = (publication(0), publication(1));
        let body = format!("{begin}{field}{first}{end}{ping}{end}{field}{second}{end}");
        for part in format!("HTTP/1.1 200 OK\r\n\r\n{body}").as_bytes().chunks(7) {
            pair.say(part).unwrap();
        }
        assert_eq!((pair.shared.received, pair.shared.pings, pair.shared.others), (2, 1, 0), "{format:?}");
        assert_eq!((pair.shared.corrupted, pair.client.kept.capacity()), (0, 0), "{format:?}");
        pair.client.leave(&mut pair.shared).unwrap();
        assert!(pair.client.is_gone());
    }
}

#[test]
fn each_answer_is_followed_by_a_poll_on_this_or_another_connection() {
    let mut pair = Pair::of(Box::new(Polling::new(
        "localhost".to_owned(),
        "/subscribe".to_owned(),
        Tokens::of_secret("secret"),
        Audience::new("load:", Seats::All { topics: 1 }),
    )));
    pair.shared.published = vec![10];
    pair.shared.payload_bytes = 100;
    let answer = |begin: &str, messages: &[String], number: u32, connection: &str| {
        let messages = messages.join(",");
        let body = format!(r#"{{{begin}"messages":[{messages}],"cursor":"C","session":"S.{number}"}}"#);
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{connection}\r\n{body}")
    };
    let says = |pair: &mut Pair, text: &str| text.as_bytes().chunks(7).try_for_each(|part| pair.say(part));
    assert!(pair.heard().starts_with(b"GET /subscribe?as=poll&wait=1&"));
    says(&mut pair, &answer(r#""subscribed":[{"topic":"a"}],"#, &[], 1, "")).unwrap();
    assert_eq!(pair.shared.live, 1);
    assert!(String::from_utf8(pair.heard()).unwrap().contains("&cursor=C&session=S.1 HTTP/1.1\r\n"));
    says(&mut pair, &answer("", &[], 1, "")).unwrap();
    assert_eq!((pair.shared.pings, pair.heard().is_empty()), (1, false));

    says(&mut pair, &answer("", &[publication(0), publication(1)], 2, "connection: close\r\n")).unwrap();
    assert_eq!((pair.shared.received, pair.shared.corrupted), (2, 0));
    assert!(pair.client.needs_socket() && pair.client.is_live());
    let (near, server) = connected();
    pair.server = server;
    pair.client.return_by(near);
    pair.client.writable(&mut pair.shared).unwrap();
    assert!(String::from_utf8(pair.heard()).unwrap().contains("&session=S.2 HTTP/1.1\r\n"));
    says(&mut pair, &answer("", &[publication(2)], 3, "")).unwrap();
    assert!(pair.client.checks.faults(&[3]).is_clean());
    assert_eq!((pair.shared.live, pair.shared.others), (1, 0));
    assert!(says(&mut pair, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").is_err());
}

#[test]
fn what_is_wrong_or_strange_is_counted() {
    let mut pair = Pair::live();
    pair.say(&text(&publication(0))).unwrap();
    assert_eq!((pair.shared.corrupted, pair.shared.others), (0, 0));
    pair.say(&text(&publication(1).replace("\"}", "?}"))).unwrap();
    pair.say(&text(r#"{"push":{"channel":"load:topic-0","join":{}}}"#)).unwrap();
    assert_eq!((pair.shared.received, pair.shared.corrupted, pair.shared.others), (2, 1, 1));
}

#[test]
fn compressed_messages_are_counted_one_by_one() {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(format!("{}\n{{}}\n{}", publication(0), publication(1)).as_bytes()).unwrap();
    encoder.flush().unwrap();
    let payload = encoder.get_ref().strip_suffix(&[0, 0, 0xff, 0xff]).unwrap();
    let mut frame = vec![0xc1, 126];
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend(payload);
    let mut pair = Pair::live();
    pair.say(&frame).unwrap();
    pair.say(&text(&publication(2))).unwrap();
    assert_eq!((pair.shared.received, pair.shared.compressed, pair.shared.corrupted), (3, 2, 0));
}

#[test]
fn a_stalled_client_reads_nothing_until_it_resumes() {
    let mut pair = Pair::live();
    pair.client.stall();
    pair.say(&text(&publication(0))).unwrap();
    assert_eq!(pair.shared.received, 0);
    pair.client.resume();
    pair.client.readable(&mut pair.buffer, &mut pair.shared).unwrap();
    assert_eq!(pair.shared.received, 1);
}
