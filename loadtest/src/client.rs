//! One simulated client: a socket and the few steps from connecting to being subscribed.
//!
//! An idle client holds no buffer; what is kept of a cut frame goes as soon as the frame is whole. Each readiness event
//! costs one `recv`, and of a frame only the header and the message's sequence number are looked at.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use base64::Engine as _;
use jsonwebtoken::EncodingKey;
use memchr::{memchr, memmem};
use mio::net::TcpStream;
use serde::Serialize;

use crate::frame::{FRAME_BYTES_MAX, FrameError, Opcode, read_header, write_masked};
use crate::payload::{PayloadReader, sent_at};
use crate::process::monotonic_nanoseconds;
use crate::sequence::SequenceCheck;

/// One `recv` takes at most this much; a full one is followed by another.
const RECV_BYTES_MAX: usize = 256 * 1024;
/// One connection in this many has its latency measured: reading the clock for all would cost more than it tells.
const LATENCY_SAMPLE_EVERY: usize = 37;
/// Longer than any run, so that no client has to refresh its token.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// What is shown of an answer that was not the expected one.
const SHOWN_BYTES_MAX: usize = 200;

/// What the clients of a run talk to.
pub(crate) enum Peer {
    /// Sends as soon as the connection stands, and never reads.
    Raw,
    /// A WebSocket server that speaks the Centrifuge protocol in JSON.
    Centrifuge(Login),
}

/// How each client of a run introduces itself and what it subscribes to.
pub(crate) struct Login {
    pub(crate) host: String,
    pub(crate) token_key: EncodingKey,
    pub(crate) topic: String,
}

/// Why a client is no longer there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server ended the connection")]
    Ended,
    #[error("the server closed with {code} {reason:?}")]
    Closed { code: u16, reason: String },
    #[error("the server answered {0:?}")]
    Refused(String),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the server does not read: a small write did not fit")]
    Unread,
    #[error("{0}")]
    Token(#[from] jsonwebtoken::errors::Error),
}

/// What all clients of a run count together.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) live: usize,
    pub(crate) received: u64,
    pub(crate) pings_answered: u64,
    /// Replies and pushes that are neither measured messages nor pings.
    pub(crate) others: u64,
    /// How many sequence numbers exist; any other is a fault.
    pub(crate) published: u64,
    pub(crate) latencies: Vec<u64>,
    pub(crate) set_up_times: Vec<Duration>,
    payload: PayloadReader,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            live: 0,
            received: 0,
            pings_answered: 0,
            others: 0,
            published: 0,
            latencies: Vec::new(),
            set_up_times: Vec::new(),
            payload: PayloadReader::new(),
        }
    }
}

/// The one buffer that every client of a run reads into: a kept part of a frame, then what was received.
pub(crate) fn read_buffer() -> Box<[u8]> {
    vec![0; kept_bytes_max() + RECV_BYTES_MAX].into_boxed_slice()
}

/// A socket, how far its set-up is, and which messages came.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    index: usize,
    stage: Stage,
    started: Instant,
    /// The start of a frame whose end has not arrived.
    kept: Vec<u8>,
    pub(crate) sequence: SequenceCheck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Authenticating,
    Subscribing,
    Live,
    Gone,
}

impl Client {
    /// Owns a socket whose connect is under way.
    pub(crate) fn new(stream: TcpStream, index: usize) -> Self {
        Self {
            stream,
            index,
            stage: Stage::Connecting,
            started: Instant::now(),
            kept: Vec::new(),
            sequence: SequenceCheck::default(),
        }
    }

    pub(crate) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    pub(crate) fn mark_gone(&mut self) {
        self.stage = Stage::Gone;
        self.kept = Vec::new();
    }

    /// The socket can be written: matters only once, when its connect is done.
    pub(crate) fn writable(&mut self, peer: &Peer, tally: &mut Tally) -> Result<(), Lost> {
        if self.stage != Stage::Connecting {
            return Ok(());
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error.into());
        }
        self.stream.set_nodelay(true)?;
        match peer {
            Peer::Raw => self.become_live(tally),
            Peer::Centrifuge(login) => {
                self.stage = Stage::Upgrading;
                self.send(upgrade_request(login, self.index).as_bytes())?;
            }
        }
        Ok(())
    }

    /// The socket can be read: takes what is there in one `recv`, unless that fills the buffer.
    pub(crate) fn readable(&mut self, buffer: &mut [u8], peer: &Peer, tally: &mut Tally) -> Result<(), Lost> {
        loop {
            let kept = self.kept.len();
            buffer[..kept].copy_from_slice(&self.kept);
            let received = match self.stream.read(&mut buffer[kept..kept + RECV_BYTES_MAX]) {
                Ok(0) => return Err(Lost::Ended),
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let bytes = &buffer[..kept + received];
            let rest = &bytes[self.take_frames(bytes, peer, tally)?..];
            // Assigning a fresh vector also frees the old one.
            self.kept = rest.to_vec();
            if received < RECV_BYTES_MAX {
                return Ok(());
            }
        }
    }

    /// Returns how many bytes were whole frames.
    fn take_frames(&mut self, bytes: &[u8], peer: &Peer, tally: &mut Tally) -> Result<usize, Lost> {
        let mut at = 0;
        if self.stage == Stage::Upgrading {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                return if bytes.len() > kept_bytes_max() { Err(refused(bytes)) } else { Ok(0) };
            };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                return Err(refused(bytes));
            }
            at = end + 4;
            self.stage = Stage::Authenticating;
            if let Peer::Centrifuge(login) = peer {
                self.send_text(connect_command(login, self.index)?.as_bytes())?;
            }
        }
        let sampled = self.index.is_multiple_of(LATENCY_SAMPLE_EVERY).then(monotonic_nanoseconds);
        while let Some(header) = read_header(&bytes[at..])? {
            let start = at + header.header_bytes;
            let Some(payload) = bytes.get(start..start + header.payload_bytes) else { break };
            match header.opcode {
                Opcode::Text => self.take_messages(payload, sampled, peer, tally)?,
                Opcode::Ping => self.send_frame(Opcode::Pong, payload)?,
                Opcode::Pong => {}
                Opcode::Close => return Err(closed(payload)),
            }
            at = start + header.payload_bytes;
        }
        Ok(at)
    }

    /// A frame may carry many messages, one a line.
    fn take_messages(
        &mut self,
        mut payload: &[u8],
        sampled: Option<u64>,
        peer: &Peer,
        tally: &mut Tally,
    ) -> Result<(), Lost> {
        while let Some(end) = memchr(b'\n', payload) {
            self.take_message(&payload[..end], sampled, peer, tally)?;
            payload = &payload[end + 1..];
        }
        self.take_message(payload, sampled, peer, tally)
    }

    fn take_message(
        &mut self,
        message: &[u8],
        sampled: Option<u64>,
        peer: &Peer,
        tally: &mut Tally,
    ) -> Result<(), Lost> {
        if self.stage == Stage::Live
            && let Some((sequence, rest)) = tally.payload.sequence(message)
        {
            self.sequence.accept(sequence, tally.published);
            tally.received += 1;
            if let Some((now, sent_at)) = sampled.zip(sent_at(rest)) {
                tally.latencies.push(now.saturating_sub(sent_at));
            }
        } else if message == b"{}" {
            tally.pings_answered += 1;
            self.send_text(b"{}")?;
        } else {
            self.take_reply(message, peer, tally)?;
        }
        Ok(())
    }

    fn take_reply(&mut self, message: &[u8], peer: &Peer, tally: &mut Tally) -> Result<(), Lost> {
        match (self.stage, peer) {
            (Stage::Authenticating, Peer::Centrifuge(login)) if is_result(message, "connect") => {
                self.stage = Stage::Subscribing;
                self.send_text(subscribe_command(login).as_bytes())
            }
            (Stage::Subscribing, _) if is_result(message, "subscribe") => {
                self.become_live(tally);
                Ok(())
            }
            (Stage::Live, _) => {
                tally.others += 1;
                Ok(())
            }
            _ => Err(refused(message)),
        }
    }

    fn become_live(&mut self, tally: &mut Tally) {
        self.stage = Stage::Live;
        tally.live += 1;
        tally.set_up_times.push(self.started.elapsed());
    }

    fn send_text(&mut self, text: &[u8]) -> Result<(), Lost> {
        self.send_frame(Opcode::Text, text)
    }

    fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Lost> {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        write_masked(&mut frame, opcode, payload);
        self.send(&frame)
    }

    /// What a client says is far smaller than a socket's buffer, so it goes in one write or the server is stuck.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        match self.stream.write(bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(Lost::Unread),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Lost::Unread),
            Err(error) => Err(error.into()),
        }
    }
}

/// A whole frame less its last byte.
const fn kept_bytes_max() -> usize {
    FRAME_BYTES_MAX + 10
}

fn upgrade_request(login: &Login, index: usize) -> String {
    let key = base64::engine::general_purpose::STANDARD.encode((index as u128).to_be_bytes());
    format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n",
        login.host
    )
}

/// Every client is a user of its own: the case that costs a server most.
fn connect_command(login: &Login, index: usize) -> Result<String, jsonwebtoken::errors::Error> {
    #[derive(Serialize)]
    struct Claims {
        sub: String,
        exp: u64,
    }
    let claims = Claims {
        sub: format!("user-{index}"),
        exp: jsonwebtoken::get_current_timestamp() + TOKEN_LIFETIME.as_secs(),
    };
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &login.token_key)?;
    Ok(format!(r#"{{"id":1,"connect":{{"token":"{token}","name":"loadtest"}}}}"#))
}

fn subscribe_command(login: &Login) -> String {
    format!(r#"{{"id":2,"subscribe":{{"channel":"{}"}}}}"#, login.topic)
}

/// Results are few, so they may be parsed in full.
fn is_result(message: &[u8], name: &str) -> bool {
    serde_json::from_slice::<serde_json::Value>(message).is_ok_and(|reply| reply[name].is_object())
}

fn refused(answer: &[u8]) -> Lost {
    let shown = &answer[..answer.len().min(SHOWN_BYTES_MAX)];
    Lost::Refused(String::from_utf8_lossy(shown).into_owned())
}

fn closed(payload: &[u8]) -> Lost {
    match payload.split_first_chunk() {
        Some((code, reason)) => Lost::Closed {
            code: u16::from_be_bytes(*code),
            reason: String::from_utf8_lossy(reason).into_owned(),
        },
        None => Lost::Ended,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::frame::write_text;
    use crate::payload;

    /// A client and the far end of its socket.
    struct Pair {
        client: Client,
        server: std::net::TcpStream,
        peer: Peer,
        tally: Tally,
        buffer: Box<[u8]>,
    }

    impl Pair {
        fn new() -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            near.set_nonblocking(true).unwrap();
            let server = listener.accept().unwrap().0;
            server.set_nodelay(true).unwrap();
            let login = Login {
                host: "localhost".to_owned(),
                token_key: EncodingKey::from_secret(b"secret"),
                topic: "load:test".to_owned(),
            };
            let mut pair = Self {
                client: Client::new(TcpStream::from_std(near), 0),
                server,
                peer: Peer::Centrifuge(login),
                tally: Tally::new(),
                buffer: read_buffer(),
            };
            pair.client.writable(&pair.peer, &mut pair.tally).unwrap();
            pair
        }

        fn live() -> Self {
            let mut pair = Self::new();
            pair.say(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
            pair.say(&text(r#"{"id":1,"connect":{"client":"a","ping":25,"pong":true}}"#)).unwrap();
            pair.say(&text(r#"{"id":2,"subscribe":{}}"#)).unwrap();
            assert_eq!(pair.client.stage, Stage::Live);
            pair.tally.published = 10;
            pair
        }

        fn say(&mut self, bytes: &[u8]) -> Result<(), Lost> {
            self.server.write_all(bytes).unwrap();
            // Without this the client might look before the bytes are there.
            while self.client.stream.peek(&mut [0]).is_err() {}
            self.client.readable(&mut self.buffer, &self.peer, &mut self.tally)
        }

        fn heard(&mut self) -> Vec<u8> {
            let mut heard = vec![0; 4096];
            let length = self.server.read(&mut heard).unwrap();
            heard.truncate(length);
            heard
        }
    }

    fn text(message: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        write_text(&mut frame, message.as_bytes());
        frame
    }

    fn publication(sequence: u64) -> String {
        let mut data = Vec::new();
        payload::write(&mut data, sequence, 1, 64);
        format!(
            r#"{{"push":{{"channel":"load:test","pub":{{"data":{}}}}}}}"#,
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
        assert_eq!((pair.tally.live, pair.tally.set_up_times.len()), (1, 1));
    }

    #[test]
    fn refusals_are_told_in_the_server_s_words() {
        let mut pair = Pair::new();
        let lost = pair.say(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap_err();
        assert!(lost.to_string().contains("403 Forbidden"), "{lost}");

        let mut pair = Pair::new();
        pair.say(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
        let lost = pair.say(&text(r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#)).unwrap_err();
        assert!(lost.to_string().contains("token expired"), "{lost}");

        let mut pair = Pair::live();
        let lost = pair.say(&[0x88, 6, 0x0b, 0xc0, b's', b'l', b'o', b'w']).unwrap_err();
        assert_eq!(lost.to_string(), "the server closed with 3008 \"slow\"");
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
        assert_eq!((pair.tally.received, pair.tally.pings_answered, pair.tally.others), (4, 1, 0));
        assert_eq!(pair.tally.latencies.len(), 4);
        assert!(pair.client.sequence.faults(4).is_clean());
        assert_eq!(pair.client.sequence.faults(5).lost, 1);
        assert_eq!(pair.client.kept.capacity(), 0);
    }
}
