//! The part of HTTP/1.1 that the tool needs to call a server: requests with a body, responses with a length.

use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use memchr::memmem;

use crate::error::{Doing, LoadError};

/// Maximum size of a response's head and body together.
const RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// Time allowed for a single call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The header of a body of JSON.
pub(crate) const JSON: &str = "Content-Type: application/json\r\n";

/// A complete response at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    /// Its length in the buffer.
    pub(crate) bytes: usize,
    /// The server ends the connection with it.
    pub(crate) is_last: bool,
}

/// Appends a call of a server's API.
pub(crate) fn write_api_call(out: &mut Vec<u8>, host: &str, path: &str, api_key: &str, body: &[u8]) {
    write_post(out, host, path, format_args!("X-API-Key: {api_key}\r\n{JSON}"), body);
}

/// Appends a request with a body; `headers` are whole lines with their ends.
pub(crate) fn write_post(out: &mut Vec<u8>, host: &str, path: &str, headers: impl Display, body: &[u8]) {
    let length = body.len();
    write!(out, "POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\n\r\n")
        .expect("a vector takes all that is written");
    out.extend_from_slice(body);
}

/// Reads the response at the start of `bytes`, or returns `None` if more bytes are needed.
pub(crate) fn read_response(bytes: &[u8]) -> Result<Option<Response<'_>>, LoadError> {
    let unreadable = || LoadError::Unreadable(format!("the answer {:?}", String::from_utf8_lossy(bytes)));
    let Some(head_bytes) = memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > RESPONSE_BYTES_MAX { Err(unreadable()) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&bytes[..head_bytes]).map_err(|_| unreadable())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim()));
    let header = |wanted: &str| {
        let found = headers.clone().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value)
    };
    let body_bytes = header("content-length")
        .and_then(|length| length.parse::<usize>().ok())
        .filter(|length| *length <= RESPONSE_BYTES_MAX);
    let is_last = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let (Some(status), Some(body_bytes)) = (status, body_bytes) else { return Err(unreadable()) };
    let start = head_bytes + 4;
    let body = bytes.get(start..start + body_bytes);
    Ok(body.map(|body| Response { status, body, bytes: start + body_bytes, is_last }))
}

/// Sends one request on a connection of its own; returns status and body.
pub(crate) fn call(server: SocketAddrV4, request: &[u8]) -> Result<(u16, Vec<u8>), LoadError> {
    let doing = || format!("call {server}");
    let mut stream = TcpStream::connect_timeout(&server.into(), CALL_TIMEOUT).doing(doing())?;
    stream.set_read_timeout(Some(CALL_TIMEOUT)).doing(doing())?;
    stream.write_all(request).doing(doing())?;
    let mut received = Vec::new();
    let mut part = [0; 4096];
    loop {
        let length = stream.read(&mut part).doing(doing())?;
        received.extend_from_slice(&part[..length]);
        if let Some(response) = read_response(&received)? {
            return Ok((response.status, response.body.to_vec()));
        }
        if length == 0 {
            return Err(LoadError::Server(format!("at {server} ended the connection without an answer")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_one_after_the_other() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-Length: 2\r\n\r\n{}HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length:0\r\n\r\n";
        let first = read_response(bytes).unwrap().unwrap();
        assert_eq!((first.status, first.body, first.is_last), (200, &b"{}"[..], false));
        let second = read_response(&bytes[first.bytes..]).unwrap().unwrap();
        assert_eq!((second.status, second.body, second.is_last), (401, &b""[..], true));
        assert_eq!(first.bytes + second.bytes, bytes.len());
        for cut in 0..first.bytes {
            assert_eq!(read_response(&bytes[..cut]).unwrap(), None);
        }
    }

    #[test]
    fn an_answer_without_a_length_is_refused() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert!(read_response(chunked).is_err());
        assert!(read_response(b"SSH-2.0\r\n\r\n").is_err());
    }
}
