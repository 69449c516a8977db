//! Requests of HTTP/1.1 as they go over a socket.

pub(crate) const WEBSOCKET_HANDSHAKE: &str = "GET /connection/websocket HTTP/1.1\r\nHost: test\r\n\
    Connection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A request with a body in JSON.
pub(crate) fn post(path: &str, body: &str) -> String {
    String::from_utf8(post_of("application/json", path, body.as_bytes())).unwrap()
}

/// A request with a body of this type.
pub(crate) fn post_of(content_type: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The request for a bare WebSocket; `headers` are whole lines.
pub(crate) fn upgrade(query: &str, headers: &str) -> String {
    handshake(&format!("/subscribe?{query}"), headers)
}

/// The request for any WebSocket; `headers` are whole lines.
pub(crate) fn handshake(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// Writes a text so that it can be a value in a query.
pub(crate) fn in_query(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
