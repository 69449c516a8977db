//! A backend: calls the HTTP API over one connection that is kept.

use std::net::SocketAddr;
use std::ops::Range;

use serde_json::{Value, json};

use super::RawSocket;

pub(crate) struct Backend {
    socket: RawSocket,
}

impl Backend {
    pub(crate) async fn new(address: SocketAddr) -> Self {
        Self::over(RawSocket::open(address).await)
    }

    pub(crate) fn over(socket: RawSocket) -> Self {
        Self { socket }
    }

    /// The result of a call that goes well.
    pub(crate) async fn call(&mut self, method: &str, request: Value) -> Value {
        let mut answer = self.answer(method, &request).await;
        assert!(answer.get("result").is_some(), "{method} {request}: {answer}");
        answer["result"].take()
    }

    /// Publishes with one request.
    pub(crate) async fn publish_all(&mut self, topic: &str, numbers: Range<u32>) {
        let publish = |number: u32| json!({"publish": {"channel": topic, "data": number}});
        let commands: Vec<Value> = numbers.map(publish).collect();
        let answer = self.answer("batch", &json!({"commands": commands})).await;
        let replies = answer["replies"].as_array().expect("replies");
        assert!(replies.iter().all(|reply| reply.get("publish").is_some()), "{answer}");
    }

    /// The code with which a call is refused.
    pub(crate) async fn error(&mut self, method: &str, request: Value) -> u64 {
        let answer = self.answer(method, &request).await;
        answer["error"]["code"].as_u64().unwrap_or_else(|| panic!("{method} {request}: {answer}"))
    }

    async fn answer(&mut self, method: &str, request: &Value) -> Value {
        let body = request.to_string();
        let head =
            format!("POST /api/{method} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
        self.socket.send(head + &body).await;
        let response = self.socket.response().await;
        assert_eq!(response.status, 200, "{response:?}");
        serde_json::from_str(&response.body).unwrap()
    }
}
