//! A bare connection to a node, encrypted or not: requests, frames, and every way to leave.

use std::net::SocketAddr;

use bytes::BytesMut;
use socket2::{SockFilter, SockRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use super::frames::{CLOSE, Frame, take_frame};
use super::requests::WEBSOCKET_HANDSHAKE;
use super::{Trust, within};

/// The instruction of a packet filter that returns a constant: the bytes of the packet to keep.
const RETURN_CONSTANT: u16 = 0x06;

pub(crate) struct RawSocket {
    stream: Stream,
    /// The bytes that were read and not looked at yet.
    received: BytesMut,
}

enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// An HTTP response whose length is told.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// A header's value; its name is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

impl RawSocket {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(TcpSocket::new_v4().unwrap(), address).await
    }

    /// A socket for which the kernel keeps little that was not read, so that the server's writes do not fit.
    pub(crate) async fn open_small(address: SocketAddr, receive_bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(receive_bytes).unwrap();
        Self::over(socket, address).await
    }

    async fn over(socket: TcpSocket, address: SocketAddr) -> Self {
        let stream = within("connecting", socket.connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Stream::Plain(stream), received: BytesMut::new() }
    }

    /// Does the TLS handshake on a fresh connection.
    pub(crate) async fn encrypted(self, trust: &Trust) -> Self {
        let stream = within("the handshake", trust.shake_hands(self.into_stream())).await.unwrap();
        Self { stream: Stream::Encrypted(Box::new(stream)), received: BytesMut::new() }
    }

    /// The connection below, with whatever TLS there is left out.
    pub(crate) fn into_stream(self) -> TcpStream {
        match self.stream {
            Stream::Plain(stream) => stream,
            Stream::Encrypted(stream) => stream.into_inner().0,
        }
    }

    /// The TLS session, with the parameters that both sides agreed on.
    pub(crate) fn tls(&mut self) -> &mut TlsStream<TcpStream> {
        match &mut self.stream {
            Stream::Plain(_) => panic!("not encrypted"),
            Stream::Encrypted(stream) => stream,
        }
    }

    /// A WebSocket whose handshake is done.
    pub(crate) async fn websocket(address: SocketAddr) -> Self {
        let mut socket = Self::open(address).await;
        socket.upgrade(WEBSOCKET_HANDSHAKE).await;
        socket
    }

    pub(crate) async fn upgrade(&mut self, request: &str) -> String {
        self.send(request).await;
        let head = self.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        head
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sending", self.write(bytes.as_ref())).await.unwrap();
    }

    /// Sends what the server may not live to read.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        // The server is free to go first.
        let _ = within("sending", self.write(bytes.as_ref())).await;
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes).await,
            Stream::Encrypted(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Sends no more, but goes on reading.
    pub(crate) async fn finish(&mut self) {
        match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown().await.unwrap(),
            Stream::Encrypted(stream) => stream.shutdown().await.unwrap(),
        }
    }

    /// Drops all that arrives from now on, as behind a cable that was pulled: the server hears nothing any more.
    pub(crate) fn cut_off(&self) {
        let Stream::Plain(stream) = &self.stream else { panic!("a plain socket can be cut off") };
        let drop_all = [SockFilter::new(RETURN_CONSTANT, 0, 0, 0)];
        SockRef::from(stream).attach_filter(&drop_all).unwrap();
    }

    /// Goes without a word: the server gets a reset instead of an end.
    pub(crate) fn vanish(self) {
        self.into_stream().set_zero_linger().unwrap();
    }

    /// Reads more; false at the end of the stream. A reset is a failure, and so is an encrypted stream that ends
    /// without a word.
    async fn fill(&mut self) -> bool {
        let read = async {
            match &mut self.stream {
                Stream::Plain(stream) => stream.read_buf(&mut self.received).await,
                Stream::Encrypted(stream) => stream.read_buf(&mut self.received).await,
            }
        };
        within("reading", read).await.unwrap() > 0
    }

    /// The head of a response, with the empty line that ends it.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                return String::from_utf8(self.received.split_to(end + 4).to_vec()).unwrap();
            }
            assert!(self.fill().await, "ended within a head: {:?}", self.received);
        }
    }

    pub(crate) async fn response(&mut self) -> Response {
        let head = self.head().await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let body = String::from_utf8(self.bytes(length).await).unwrap();
        Response { status, head, body }
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(address: SocketAddr, request: &str) -> Response {
        let mut socket = Self::open(address).await;
        socket.send(request).await;
        socket.response().await
    }

    pub(crate) async fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(self.fill().await, "ended {} bytes early", length - self.received.len());
        }
        self.received.split_to(length).to_vec()
    }

    /// Everything up to the end of the text; what follows it stays.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut searched = 0;
        loop {
            let found =
                self.received[searched..].windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let taken = self.received.split_to(searched + at + text.len());
                return String::from_utf8(taken.to_vec()).unwrap();
            }
            searched = self.received.len().saturating_sub(text.len());
            assert!(self.fill().await, "ended before {text:?}: {:?}", self.received);
        }
    }

    /// The next frame, or `None` when the server has sent its last one.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = take_frame(&self.received) {
                let _ = self.received.split_to(length);
                return Some(frame);
            }
            if !self.fill().await {
                assert!(self.received.is_empty(), "ended within a frame: {:?}", self.received);
                return None;
            }
        }
    }

    /// Code and reason with which the server closes; frames before that are dropped.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            let frame = self.frame().await.expect("a close frame before the end");
            if frame.opcode == CLOSE {
                return frame.close();
            }
        }
    }

    /// Checks that nothing more comes and nothing is left over.
    pub(crate) async fn ended(&mut self) {
        assert!(!self.fill().await, "more than expected: {:?}", self.received);
        assert!(self.received.is_empty(), "more than expected: {:?}", self.received);
    }
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}
