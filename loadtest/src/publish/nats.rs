//! Publishing by NATS' own protocol on a kept TCP connection, as a backend does: a `PUB` for each message, those of a burst
//! in one write.
//!
//! NATS answers no publication, so each call ends with a `PING`, whose `PONG` says that the server has come so far.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddrV4;

use memchr::memchr;
use mio::net::TcpStream;

use crate::dialect::nats::{CONNECT, PING, PONG};
use crate::error::{Doing, LoadError};
use crate::publish::{Messages, Publisher, connect};

const RECV_BYTES: usize = 4 * 1024;
/// `INFO` is the longest line a server says.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// One kept connection and the pings on it that have no answer yet.
pub(crate) struct NatsPublisher {
    stream: TcpStream,
    commands: Commands,
    received: Vec<u8>,
}

impl NatsPublisher {
    pub(crate) fn connect(server: SocketAddrV4) -> Result<Self, LoadError> {
        let mut publisher =
            Self { stream: connect(server)?, commands: Commands::default(), received: Vec::new() };
        publisher.commands.unsent.extend_from_slice(CONNECT.as_bytes());
        publisher.flush()?;
        Ok(publisher)
    }

    fn flush(&mut self) -> Result<(), LoadError> {
        let unsent = &mut self.commands.unsent;
        while !unsent.is_empty() {
            match self.stream.write(unsent) {
                Ok(sent) => drop(unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).doing("send a publication"),
            }
        }
        Ok(())
    }

    fn take_lines(&mut self) -> Result<(), LoadError> {
        let mut taken = 0;
        while let Some(end) = memchr(b'\n', &self.received[taken..]) {
            self.commands.take_line(self.received[taken..taken + end].trim_ascii_end())?;
            taken += end + 1;
        }
        self.received.drain(..taken);
        if self.received.len() > LINE_BYTES_MAX {
            return Err(unreadable(&self.received));
        }
        Ok(())
    }
}

impl Publisher for NatsPublisher {
    fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    fn ready(&mut self) -> Result<(), LoadError> {
        let mut part = [0; RECV_BYTES];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return Err(LoadError::Server("ended a publisher's connection".to_owned())),
                Ok(length) => self.received.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing("read an answer to a publication"),
            }
        }
        self.take_lines()?;
        self.flush()
    }

    fn publish(&mut self, topic: &str, messages: &Messages) -> Result<(), LoadError> {
        self.commands.publish(topic, messages);
        self.flush()
    }

    fn outstanding(&self) -> usize {
        self.commands.outstanding
    }
}

/// Both directions of the protocol, without the socket.
#[derive(Debug, Default)]
struct Commands {
    unsent: Vec<u8>,
    /// Pings without an answer, one for each call.
    outstanding: usize,
}

impl Commands {
    fn publish(&mut self, topic: &str, messages: &Messages) {
        for place in 0..messages.count {
            let head = format!("PUB {topic} {}\r\n", messages.payload_bytes);
            self.unsent.extend_from_slice(head.as_bytes());
            messages.write(place, &mut self.unsent);
            self.unsent.extend_from_slice(b"\r\n");
        }
        self.unsent.extend_from_slice(PING.as_bytes());
        self.outstanding += 1;
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), LoadError> {
        match line.split(|byte| *byte == b' ').next() {
            Some(b"PONG") if self.outstanding > 0 => {
                self.outstanding -= 1;
                Ok(())
            }
            Some(b"PING") => {
                self.unsent.extend_from_slice(PONG.as_bytes());
                Ok(())
            }
            Some(b"INFO") => Ok(()),
            Some(b"-ERR") => Err(LoadError::Api(String::from_utf8_lossy(line).into_owned())),
            _ => Err(unreadable(line)),
        }
    }
}

fn unreadable(line: &[u8]) -> LoadError {
    LoadError::Unreadable(format!("the answer {:?}", String::from_utf8_lossy(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_ping_behind_its_messages() {
        let mut commands = Commands::default();
        commands.publish("load:a", &Messages { stream: 1, first: 5, count: 2, payload_bytes: 100 });
        let text = String::from_utf8(std::mem::take(&mut commands.unsent)).unwrap();
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(
            (lines.len(), lines[0], lines[2], lines[4]),
            (5, "PUB load:a 100", "PUB load:a 100", "PING")
        );
        let second: serde_json::Value = serde_json::from_str(lines[3]).unwrap();
        assert_eq!((&second["n"], lines[3].len()), (&6.into(), 100));

        assert_eq!(commands.outstanding, 1);
        commands.take_line(b"PONG").unwrap();
        assert_eq!(commands.outstanding, 0);
        assert!(commands.take_line(b"PONG").is_err());
    }

    #[test]
    fn the_server_s_pings_are_answered_and_its_errors_told() {
        let mut commands = Commands::default();
        commands.take_line(b"INFO {}").unwrap();
        assert!(commands.unsent.is_empty());
        commands.take_line(b"PING").unwrap();
        assert_eq!(commands.unsent, PONG.as_bytes());
        assert!(commands.take_line(b"-ERR 'Unknown Protocol Operation'").is_err());
        assert!(commands.take_line(b"HTTP/1.1 200 OK").is_err());
    }
}
