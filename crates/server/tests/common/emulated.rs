//! A client whose replies come by a stream, and whose commands go by requests of their own.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::RawSocket;
use super::requests::post;
use super::socket::Response;

pub(crate) struct Emulated {
    pub(crate) stream: RawSocket,
    /// The result of connect.
    pub(crate) connected: Value,
    next_id: u32,
}

impl Emulated {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_over(RawSocket::open(address).await, json!({})).await
    }

    pub(crate) async fn connect_over(mut stream: RawSocket, request: Value) -> Self {
        let body = json!({"id": 1, "connect": request}).to_string();
        stream.send(post("/connection/http_stream", &body)).await;
        let head = stream.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let mut client = Self { stream, connected: Value::Null, next_id: 2 };
        client.connected = client.reply(1).await.unwrap();
        client
    }

    pub(crate) fn session(&self) -> &str {
        self.connected["session"].as_str().unwrap()
    }

    pub(crate) fn node(&self) -> &str {
        self.connected["node"].as_str().unwrap()
    }

    /// A command of the next id.
    pub(crate) fn command(&mut self, method: &str, request: Value) -> (u32, String) {
        let id = self.next_id;
        self.next_id += 1;
        (id, json!({"id": id, method: request}).to_string())
    }

    /// The body that carries commands to the session.
    pub(crate) fn body(&self, data: &str) -> String {
        json!({"session": self.session(), "node": self.node(), "data": data}).to_string()
    }

    /// Sends commands to a node, and returns the status.
    pub(crate) async fn send(&self, address: SocketAddr, data: &str) -> u16 {
        emulate(address, &self.body(data)).await.status
    }

    /// Sends a command to a node, and takes the reply from the stream.
    pub(crate) async fn request(
        &mut self,
        address: SocketAddr,
        method: &str,
        request: Value,
    ) -> Result<Value, Value> {
        let (id, command) = self.command(method, request);
        assert_eq!(self.send(address, &command).await, 204);
        self.reply(id).await
    }

    /// The next message of the stream.
    pub(crate) async fn next(&mut self) -> Value {
        serde_json::from_str(&self.stream.until("\n").await).unwrap()
    }

    /// The next message, which has to be the reply to this command: its result or its error.
    pub(crate) async fn reply(&mut self, id: u32) -> Result<Value, Value> {
        let mut message = self.next().await;
        let reply = message.as_object_mut().unwrap();
        assert_eq!(reply.remove("id"), Some(json!(id)), "{reply:?}");
        let [(key, value)]: [_; 1] =
            std::mem::take(reply).into_iter().collect::<Vec<_>>().try_into().unwrap();
        if key == "error" { Err(value) } else { Ok(value) }
    }

    /// The code with which the server closes; messages before that are dropped.
    pub(crate) async fn closed(&mut self) -> u64 {
        loop {
            if let Some(code) = self.next().await["push"]["disconnect"]["code"].as_u64() {
                self.stream.ended().await;
                return code;
            }
        }
    }
}

/// A request to the endpoint for commands.
pub(crate) async fn emulate(address: SocketAddr, body: &str) -> Response {
    RawSocket::ask(address, &post("/emulation", body)).await
}
