//! The backend of a run: publishes numbered messages over one kept HTTP connection, without waiting for each answer.
//!
//! It never blocks, so it shares the thread of the clients. Every answer is read, and a refusal ends the run.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};

use memchr::memmem;

use crate::error::{Doing, LoadError};
use crate::http::{read_response, write_post};
use crate::payload;
use crate::process::monotonic_nanoseconds;

/// Requests on their way; beyond it the publisher waits, and the load is offered later than planned.
pub(crate) const OUTSTANDING_MAX: usize = 64;

const RECV_BYTES: usize = 16 * 1024;

/// One kept connection and the requests on it that have no answer yet.
#[derive(Debug)]
pub(crate) struct Publisher {
    stream: TcpStream,
    host: String,
    api_key: String,
    topic: String,
    payload_bytes: usize,
    outstanding: usize,
    unsent: Vec<u8>,
    received: Vec<u8>,
    body: Vec<u8>,
}

impl Publisher {
    pub(crate) fn connect(
        server: SocketAddrV4,
        api_key: &str,
        topic: &str,
        payload_bytes: usize,
    ) -> Result<Self, LoadError> {
        let stream = TcpStream::connect(server).doing(format!("connect the publisher to {server}"))?;
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_nonblocking(true))
            .doing("prepare the publisher's socket")?;
        Ok(Self {
            stream,
            host: server.to_string(),
            api_key: api_key.to_owned(),
            topic: topic.to_owned(),
            payload_bytes,
            outstanding: 0,
            unsent: Vec::new(),
            received: Vec::new(),
            body: Vec::new(),
        })
    }

    /// Sends the messages from `first_sequence` on: one by `publish`, several as one `batch`, as a backend would.
    pub(crate) fn publish(&mut self, first_sequence: u64, burst: u32) -> Result<(), LoadError> {
        self.body.clear();
        let path = if burst == 1 {
            self.write_publish_request(first_sequence);
            "/api/publish"
        } else {
            self.body.extend_from_slice(br#"{"parallel":false,"commands":["#);
            for offset in 0..burst {
                self.body.extend_from_slice(if offset == 0 { b"{" } else { b",{" });
                self.body.extend_from_slice(br#""publish":"#);
                self.write_publish_request(first_sequence + u64::from(offset));
                self.body.push(b'}');
            }
            self.body.extend_from_slice(b"]}");
            "/api/batch"
        };
        write_post(&mut self.unsent, &self.host, path, &self.api_key, &self.body);
        self.outstanding += 1;
        self.flush()
    }

    /// Sends what did not fit before and reads the answers that are there.
    pub(crate) fn progress(&mut self) -> Result<(), LoadError> {
        self.flush()?;
        let mut part = [0; RECV_BYTES];
        while self.outstanding > 0 {
            match self.stream.read(&mut part) {
                Ok(0) => return Err(LoadError::Server("ended the publisher's connection".to_owned())),
                Ok(length) => self.take_answers(&part[..length])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).doing("read an answer to a publication"),
            }
        }
        Ok(())
    }

    /// Requests without an answer.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    fn write_publish_request(&mut self, sequence: u64) {
        self.body.extend_from_slice(br#"{"channel":""#);
        self.body.extend_from_slice(self.topic.as_bytes());
        self.body.extend_from_slice(br#"","data":"#);
        payload::write(&mut self.body, sequence, monotonic_nanoseconds(), self.payload_bytes);
        self.body.push(b'}');
    }

    fn flush(&mut self) -> Result<(), LoadError> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).doing("send a publication"),
            }
        }
        Ok(())
    }

    fn take_answers(&mut self, part: &[u8]) -> Result<(), LoadError> {
        self.received.extend_from_slice(part);
        while let Some(response) = read_response(&self.received)? {
            if response.status != 200 || memmem::find(response.body, br#""error""#).is_some() {
                let body = String::from_utf8_lossy(response.body);
                return Err(LoadError::Api(format!("{}: {body}", response.status)));
            }
            let taken = response.bytes;
            self.received.drain(..taken);
            self.outstanding = self
                .outstanding
                .checked_sub(1)
                .ok_or_else(|| LoadError::Unreadable("an answer nobody asked for".to_owned()))?;
        }
        Ok(())
    }
}
