//! Requests to the API, and a node that answers them.

use std::net::SocketAddr;

use fanwire_hub::{Namespace, Namespaces, PublicationFormat};
use fanwire_server::Settings;
use serde_json::{Value, json};

use crate::common::{Client, RawSocket, TestGateway, settings};

/// Error 107 with a sentence, as a whole answer.
macro_rules! bad {
    ($why:literal) => {
        concat!(r#"{"error":{"code":107,"message":"bad request: "#, $why, r#""}}"#)
    };
}
pub(crate) use bad;

/// The answer to a call that has no result of its own.
pub(crate) const EMPTY: &str = r#"{"result":{}}"#;

/// The shared settings, small limits, and two more namespaces: `object` takes JSON objects only, `binary` anything.
pub(crate) fn api_settings(shards: usize) -> Settings {
    let mut settings = settings(shards);
    settings.api.body_bytes_max = 10_000;
    settings.api.commands_max = 5;
    settings.api.topics_max = 3;
    let format = |name: &str, publication_format| Namespace {
        name: name.into(),
        publication_format,
        ..settings.namespaces.default.clone()
    };
    let more = [format("object", PublicationFormat::JsonObject), format("binary", PublicationFormat::Binary)];
    let named: Vec<_> = settings.namespaces.named().cloned().chain(more).collect();
    settings.namespaces =
        Namespaces::new(settings.namespaces.rules.clone(), settings.namespaces.default.clone(), named);
    settings
}

/// Headers that tests look at.
pub(crate) const HEADERS: [&str; 3] = ["content-type", "allow", "www-authenticate"];

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) headers: [(&'static str, Option<String>); HEADERS.len()],
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(own, _)| *own == name).unwrap();
        value.as_deref()
    }
}

pub(crate) async fn start(shards: usize) -> TestGateway {
    TestGateway::start(api_settings(shards)).await
}

pub(crate) async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: impl AsRef<[u8]>,
) -> Response {
    let mut socket = RawSocket::open(address).await;
    request(&mut socket, method, path, headers, body.as_ref()).await
}

pub(crate) async fn request(
    socket: &mut RawSocket,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Response {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {length}\r\n\r\n");
    socket.send([head.as_bytes(), body].concat()).await;
    response(socket).await
}

pub(crate) async fn response(socket: &mut RawSocket) -> Response {
    let response = socket.response().await;
    let header = |name| response.header(name).map(str::to_owned);
    let headers = HEADERS.map(|name| (name, header(name)));
    Response { status: response.status, body: response.body, headers }
}

pub(crate) async fn post(gateway: &TestGateway, method: &str, body: impl AsRef<[u8]>) -> Response {
    ask(gateway.address, "POST", &format!("/api/{method}"), "", body).await
}

/// The result of a call that has to succeed.
pub(crate) async fn call(gateway: &TestGateway, method: &str, body: Value) -> Value {
    let response = post(gateway, method, body.to_string()).await;
    let mut answer: Value = serde_json::from_str(&response.body).unwrap();
    assert!(response.status == 200 && answer.get("result").is_some(), "{method} {body}: {response:?}");
    answer["result"].take()
}

pub(crate) async fn client_of(gateway: &TestGateway, user: &str) -> Client {
    gateway.client_with(&json!({"sub": user})).await
}
