//! A small client of the protocol in JSON. It reads messages in their order and hides nothing but pings.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;

use serde_json::{Value, json};

use super::frames::{CLOSE, PONG, TEXT, frame};
use super::{RawSocket, WEBSOCKET_HANDSHAKE};

pub(crate) struct Client {
    pub(crate) socket: RawSocket,
    /// The result of connect.
    pub(crate) connected: Value,
    /// Messages of the last frame that were not taken yet.
    read: VecDeque<Value>,
    /// Pushes that came while a reply was awaited.
    pushes: VecDeque<Value>,
    next_id: u32,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, request: Value) -> Self {
        Self::connect_over(RawSocket::open(address).await, request).await
    }

    pub(crate) async fn connect_over(socket: RawSocket, request: Value) -> Self {
        let mut client = Self::over(socket).await;
        client.connected = client.request("connect", request).await.unwrap();
        client
    }

    /// A client for which the kernel keeps little that it did not read; enough to catch up within the time that the
    /// server gives to those whom it closed.
    pub(crate) async fn connect_small(address: SocketAddr) -> Self {
        Self::connect_over(RawSocket::open_small(address, 64 * 1024).await, json!({})).await
    }

    /// Only the WebSocket, no command yet.
    pub(crate) async fn over(mut socket: RawSocket) -> Self {
        socket.upgrade(WEBSOCKET_HANDSHAKE).await;
        Self { socket, connected: Value::Null, read: VecDeque::new(), pushes: VecDeque::new(), next_id: 1 }
    }

    pub(crate) fn id(&self) -> &str {
        self.connected["client"].as_str().unwrap()
    }

    /// Sends a command and does not wait for its reply.
    pub(crate) async fn command(&mut self, method: &str, request: Value) -> u32 {
        let (id, text) = self.write(method, request);
        self.socket.send(frame(TEXT, text)).await;
        id
    }

    /// Sends many commands in one frame.
    pub(crate) async fn commands(&mut self, commands: impl IntoIterator<Item = (&str, Value)>) -> Range<u32> {
        let first = self.next_id;
        let lines: Vec<_> =
            commands.into_iter().map(|(method, request)| self.write(method, request).1).collect();
        self.socket.send(frame(TEXT, lines.join("\n"))).await;
        first..self.next_id
    }

    fn write(&mut self, method: &str, request: Value) -> (u32, String) {
        let id = self.next_id;
        self.next_id += 1;
        (id, json!({"id": id, method: request}).to_string())
    }

    /// The next message from the server, whatever it is; pings are answered and passed over.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            let message = self.message().await;
            if message == json!({}) {
                self.socket.send(frame(TEXT, "{}")).await;
                continue;
            }
            return message;
        }
    }

    /// The next message, pings included.
    pub(crate) async fn message(&mut self) -> Value {
        loop {
            if let Some(message) = self.read.pop_front() {
                return message;
            }
            let frame = self.socket.frame().await.expect("a message before the end");
            match frame.opcode {
                CLOSE => panic!("closed: {:?}", frame.close()),
                PONG => {}
                _ => self.read.extend(
                    frame.text().split('\n').map(|line| serde_json::from_str::<Value>(line).unwrap()),
                ),
            }
        }
    }

    /// The reply to a command: its result or its error. Pushes that come before it are kept.
    pub(crate) async fn reply(&mut self, id: u32) -> Result<Value, Value> {
        loop {
            let mut message = self.next().await;
            if message.get("push").is_some() {
                self.pushes.push_back(message["push"].take());
                continue;
            }
            let reply = message.as_object_mut().unwrap();
            assert_eq!(reply.remove("id"), Some(json!(id)), "{reply:?}");
            let [(key, value)]: [_; 1] =
                std::mem::take(reply).into_iter().collect::<Vec<_>>().try_into().unwrap();
            return if key == "error" { Err(value) } else { Ok(value) };
        }
    }

    pub(crate) async fn request(&mut self, method: &str, request: Value) -> Result<Value, Value> {
        let id = self.command(method, request).await;
        self.reply(id).await
    }

    pub(crate) async fn subscribe(&mut self, topic: &str) -> Value {
        self.request("subscribe", json!({"channel": topic})).await.unwrap()
    }

    pub(crate) async fn unsubscribe(&mut self, topic: &str) {
        self.request("unsubscribe", json!({"channel": topic})).await.unwrap();
    }

    pub(crate) async fn publish(&mut self, topic: &str, data: Value) {
        self.request("publish", json!({"channel": topic, "data": data})).await.unwrap();
    }

    /// Publishes numbers as fast as they can be sent, then waits for all replies.
    pub(crate) async fn publish_all(&mut self, topic: &str, numbers: Range<u32>) {
        const IN_ONE_FRAME: usize = 100;
        let numbers: Vec<u32> = numbers.collect();
        for some in numbers.chunks(IN_ONE_FRAME) {
            let commands = some.iter().map(|number| ("publish", json!({"channel": topic, "data": number})));
            for id in self.commands(commands).await {
                self.reply(id).await.unwrap();
            }
        }
    }

    /// The number of clients in a topic.
    pub(crate) async fn present(&mut self, topic: &str) -> u64 {
        let stats = self.request("presence_stats", json!({"channel": topic})).await.unwrap();
        stats["num_clients"].as_u64().unwrap()
    }

    /// The next push, among those that were kept first.
    pub(crate) async fn push(&mut self) -> Value {
        match self.pushes.pop_front() {
            Some(push) => push,
            None => {
                let mut message = self.next().await;
                assert!(message.get("push").is_some(), "{message}");
                message["push"].take()
            }
        }
    }

    /// The next push, which has to be a publication: its topic and the rest.
    pub(crate) async fn publication(&mut self) -> (String, Value) {
        let mut push = self.push().await;
        assert!(push.get("pub").is_some(), "{push}");
        (push["channel"].as_str().unwrap().to_owned(), push["pub"].take())
    }

    /// Asks something and finds nothing in front of the reply: what came twice would be there.
    pub(crate) async fn nothing_more(&mut self) {
        self.unsubscribe("none").await;
        assert_eq!(self.pushes, [] as [Value; 0]);
    }

    /// Code and reason with which the server closes.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        self.socket.closed().await
    }
}

/// The client of a push of the given kind, `join` or `leave`.
pub(crate) fn identity<'p>(push: &'p Value, kind: &str) -> &'p str {
    push[kind]["info"]["client"].as_str().unwrap_or_else(|| panic!("no {kind}: {push}"))
}
