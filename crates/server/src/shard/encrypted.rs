//! A socket whose bytes are encrypted: rustls as a state machine between the socket and the shard's loop, without a
//! task of its own. What waits inside it is bounded in both directions.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use rustls::ServerConnection;

use super::socket::{Input, Taken};

/// Encrypted bytes that the kernel did not take yet; what goes beyond waits in the connection's queue, where it
/// counts.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// Encrypted bytes taken from the kernel for one read. Records of one byte make 23 of each, so the shared buffer alone
/// would not bound the work.
const RECEIVED_BYTES_PER_READ: usize = 32 * 1024;

#[derive(Debug)]
pub(super) struct Encrypted {
    pub(super) socket: TcpStream,
    session: ServerConnection,
}

impl Encrypted {
    /// Goes on with a session whose handshake is done.
    pub(super) fn new(socket: TcpStream, mut session: ServerConnection) -> Self {
        session.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        Self { socket, session }
    }

    /// Takes what was decrypted already, then reads on. What the buffer has no room for stays in the session, and no
    /// event of the socket will tell of it.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Input> {
        let mut read = 0;
        let mut received = 0;
        while read < buffer.len() {
            match self.session.reader().read(&mut buffer[read..]) {
                Ok(0) if read == 0 => return Ok(Input::End),
                Ok(0) => break,
                Ok(count) => {
                    read += count;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer has gone without a word. What it sent before is taken first.
                Err(error) if read == 0 => return Err(error),
                Err(_) => break,
            }
            if received >= RECEIVED_BYTES_PER_READ {
                break;
            }
            match self.receive() {
                Ok(count) => received += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Input::All(read)),
                Err(error) => return Err(error),
            }
        }
        Ok(Input::Some(read))
    }

    /// Reads encrypted bytes once and decrypts what is whole.
    fn receive(&mut self) -> io::Result<usize> {
        let received = loop {
            match self.session.read_tls(&mut self.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received?,
            }
        };
        let processed = self.session.process_new_packets();
        // An alert for a peer that broke the rules, if it takes it.
        let flushed = self.flush();
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        flushed?;
        Ok(received)
    }

    /// Encrypts as much as may wait, and hands it over.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Taken> {
        if !self.flush()? {
            return Ok(Taken::Nothing);
        }
        let taken = self.session.writer().write_vectored(slices)?;
        self.flush()?;
        Ok(Taken::Bytes(taken))
    }

    pub(super) fn is_flushed(&self) -> bool {
        !self.session.wants_write()
    }

    /// Hands over what is encrypted; false if the socket takes no more of it until it is told to be writable.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// To be called again when the socket is writable, until everything is flushed.
    pub(super) fn finish(&mut self) {
        if self.say_goodbye() {
            // A peer that has gone needs no goodbye.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Says once that nothing more comes, and whether the socket took it.
    pub(super) fn say_goodbye(&mut self) -> bool {
        self.session.send_close_notify();
        self.flush().unwrap_or(false)
    }
}
