//! Publishers: persistent connections that publish numbered messages, on the same thread and epoll set as the clients.
//!
//! A publisher never blocks. It reads every response, and a refusal ends the turn.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddrV4;

use mio::net::TcpStream;

use crate::error::{Doing, LoadError};
use crate::measure::payload::{self, Numbers};
use crate::measure::process::monotonic_nanoseconds;

pub(crate) mod http;
pub(crate) mod nats;
pub(crate) mod post;

const RECV_BYTES: usize = 16 * 1024;

/// A persistent connection that publishes.
pub(crate) trait Publisher {
    /// For the epoll set.
    fn stream(&mut self) -> &mut TcpStream;

    /// Handles a readable or writable socket: reads responses, and sends bytes that did not fit before.
    fn ready(&mut self) -> Result<(), LoadError>;

    /// Publishes all of the messages to one topic, together if the server supports that.
    fn publish(&mut self, topic: &str, messages: &Messages) -> Result<(), LoadError>;

    /// Returns the number of publications that have no response yet.
    fn outstanding(&self) -> usize;
}

/// Consecutive messages of one stream, written when they are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages {
    pub(crate) stream: u32,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) payload_bytes: usize,
    /// The time at which they were due, by the monotonic clock.
    pub(crate) due: u64,
}

impl Messages {
    /// Appends the message at `place`, below `count`, with the time of this call.
    pub(crate) fn write(&self, place: u32, out: &mut Vec<u8>) {
        let sequence = self.first + u64::from(place);
        let numbers =
            Numbers { stream: self.stream, sequence, sent_at: monotonic_nanoseconds(), due: self.due };
        payload::write(out, &numbers, self.payload_bytes);
    }
}

/// A connection without delay, which does not block once it is connected, with its buffers.
#[derive(Debug)]
pub(crate) struct Kept {
    stream: TcpStream,
    /// Bytes to be sent.
    unsent: Vec<u8>,
    /// Received bytes that are not consumed yet.
    received: Vec<u8>,
}

impl Kept {
    pub(crate) fn connect(server: SocketAddrV4) -> Result<Self, LoadError> {
        let stream =
            std::net::TcpStream::connect(server).doing(format!("connect a publisher to {server}"))?;
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_nonblocking(true))
            .doing("prepare a publisher's socket")?;
        Ok(Self { stream: TcpStream::from_std(stream), unsent: Vec::new(), received: Vec::new() })
    }

    /// Sends as much as fits now.
    fn flush(&mut self) -> Result<(), LoadError> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing("send a publication"),
            }
        }
        Ok(())
    }

    /// Receives all available bytes.
    fn fill(&mut self) -> Result<(), LoadError> {
        let mut part = [0; RECV_BYTES];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return Err(LoadError::Server("ended a publisher's connection".to_owned())),
                Ok(length) => self.received.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing("read an answer to a publication"),
            }
        }
    }
}
