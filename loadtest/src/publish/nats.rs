//! Publishing by the NATS protocol on a persistent TCP connection, as a backend does: a `PUB` for each message, those of a
//! burst in one write.
//!
//! NATS does not confirm publications, so each call ends with a `PING`, whose `PONG` confirms them.

use std::net::SocketAddrV4;

use memchr::memchr;
use mio::net::TcpStream;

use crate::dialect::nats::{CONNECT, PING, PONG};
use crate::error::LoadError;
use crate::publish::{Kept, Messages, Publisher};

/// `INFO` is the longest line that a server sends.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// A persistent connection and its pings that have no answer yet.
pub(crate) struct NatsPublisher {
    kept: Kept,
    commands: Commands,
}

impl NatsPublisher {
    pub(crate) fn connect(server: SocketAddrV4) -> Result<Self, LoadError> {
        let mut kept = Kept::connect(server)?;
        kept.unsent.extend_from_slice(CONNECT.as_bytes());
        kept.flush()?;
        Ok(Self { kept, commands: Commands::default() })
    }

    fn take_lines(&mut self) -> Result<(), LoadError> {
        let Kept { received, unsent, .. } = &mut self.kept;
        let mut taken = 0;
        while let Some(end) = memchr(b'\n', &received[taken..]) {
            self.commands.take_line(received[taken..taken + end].trim_ascii_end(), unsent)?;
            taken += end + 1;
        }
        received.drain(..taken);
        if received.len() > LINE_BYTES_MAX {
            return Err(unreadable(received));
        }
        Ok(())
    }
}

impl Publisher for NatsPublisher {
    fn stream(&mut self) -> &mut TcpStream {
        &mut self.kept.stream
    }

    fn ready(&mut self) -> Result<(), LoadError> {
        self.kept.fill()?;
        self.take_lines()?;
        self.kept.flush()
    }

    fn publish(&mut self, topic: &str, messages: &Messages) -> Result<(), LoadError> {
        self.commands.publish(topic, messages, &mut self.kept.unsent);
        self.kept.flush()
    }

    fn outstanding(&self) -> usize {
        self.commands.outstanding
    }
}

/// The protocol in both directions, without the socket.
#[derive(Debug, Default)]
struct Commands {
    /// Number of pings without an answer, one for each call.
    outstanding: usize,
}

impl Commands {
    fn publish(&mut self, topic: &str, messages: &Messages, out: &mut Vec<u8>) {
        for place in 0..messages.count {
            let head = format!("PUB {topic} {}\r\n", messages.payload_bytes);
            out.extend_from_slice(head.as_bytes());
            messages.write(place, out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(PING.as_bytes());
        self.outstanding += 1;
    }

    fn take_line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), LoadError> {
        match line.split(|byte| *byte == b' ').next() {
            Some(b"PONG") if self.outstanding > 0 => {
                self.outstanding -= 1;
                Ok(())
            }
            Some(b"PING") => {
                out.extend_from_slice(PONG.as_bytes());
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
        let (mut commands, mut out) = (Commands::default(), Vec::new());
        let messages = Messages { stream: 1, first: 5, count: 2, payload_bytes: 100, due: 1 };
        commands.publish("load:a", &messages, &mut out);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(
            (lines.len(), lines[0], lines[2], lines[4]),
            (5, "PUB load:a 100", "PUB load:a 100", "PING")
        );
        let second: serde_json::Value = serde_json::from_str(lines[3]).unwrap();
        assert_eq!((&second["n"], lines[3].len()), (&6.into(), 100));

        let mut out = Vec::new();
        assert_eq!(commands.outstanding, 1);
        commands.take_line(b"PONG", &mut out).unwrap();
        assert_eq!(commands.outstanding, 0);
        assert!(commands.take_line(b"PONG", &mut out).is_err());
    }

    #[test]
    fn the_server_s_pings_are_answered_and_its_errors_told() {
        let (mut commands, mut out) = (Commands::default(), Vec::new());
        commands.take_line(b"INFO {}", &mut out).unwrap();
        assert!(out.is_empty());
        commands.take_line(b"PING", &mut out).unwrap();
        assert_eq!(out, PONG.as_bytes());
        assert!(commands.take_line(b"-ERR 'Unknown Protocol Operation'", &mut out).is_err());
        assert!(commands.take_line(b"HTTP/1.1 200 OK", &mut out).is_err());
    }
}
