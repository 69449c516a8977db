//! Backends: kept connections that publish numbered messages, on the same thread and epoll set as the clients.
//!
//! A publisher never blocks. It reads every answer, and a refusal ends the run.

use std::net::SocketAddrV4;

use mio::net::TcpStream;

use crate::error::{Doing, LoadError};
use crate::measure::payload;
use crate::measure::process::monotonic_nanoseconds;

pub(crate) mod http;
pub(crate) mod nats;
pub(crate) mod post;

/// One kept connection to where a server takes publications.
pub(crate) trait Publisher {
    /// For the epoll set.
    fn stream(&mut self) -> &mut TcpStream;

    /// The socket can be read or written: takes the answers that are there, sends what did not fit before.
    fn ready(&mut self) -> Result<(), LoadError>;

    /// Publishes all of the messages to one topic, together if the server has a way to.
    fn publish(&mut self, topic: &str, messages: &Messages) -> Result<(), LoadError>;

    /// Publications that have no answer yet.
    fn outstanding(&self) -> usize;
}

/// Consecutive messages of one stream, written as they are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages {
    pub(crate) stream: u32,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) payload_bytes: usize,
}

impl Messages {
    /// Appends the message at `place`, below `count`; it carries the time of this call.
    pub(crate) fn write(&self, place: u32, out: &mut Vec<u8>) {
        let sequence = self.first + u64::from(place);
        payload::write(out, self.stream, sequence, monotonic_nanoseconds(), self.payload_bytes);
    }
}

/// A connection for a publisher: without delay, and never blocking once it stands.
pub(crate) fn connect(server: SocketAddrV4) -> Result<TcpStream, LoadError> {
    let stream = std::net::TcpStream::connect(server).doing(format!("connect a publisher to {server}"))?;
    stream
        .set_nodelay(true)
        .and_then(|()| stream.set_nonblocking(true))
        .doing("prepare a publisher's socket")?;
    Ok(TcpStream::from_std(stream))
}
