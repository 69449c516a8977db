//! The bytes' way in and out of one connection. What is above it neither knows nor cares whether they are encrypted.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use rustix::net::SendFlags;
use rustls::ServerConnection;

use super::encrypted::Encrypted;
use super::io_result::{Input, WriteProgress};

#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    /// An encrypted one, apart, so that a plain connection does not grow by it. `None`: there is no socket, and what is written
    /// waits for the client to ask for it.
    Other(Option<Box<Encrypted>>),
}

impl Socket {
    /// With a TLS session whose handshake is done, or without.
    pub(super) fn new(socket: std::net::TcpStream, tls: Option<Box<ServerConnection>>) -> Self {
        let socket = TcpStream::from_std(socket);
        match tls {
            None => Self::Plain(socket),
            Some(tls) => Self::Other(Some(Box::new(Encrypted::new(socket, *tls)))),
        }
    }

    /// Returns the place of a client that has no connection.
    pub(super) fn absent() -> Self {
        Self::Other(None)
    }

    /// Returns the socket that the readiness set watches.
    pub(super) fn source(&mut self) -> Option<&mut TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Other(Some(encrypted)) => Some(&mut encrypted.socket),
            Self::Other(None) => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Other(None))
    }

    /// Returns true if it may have input that the readiness set will not tell of: what came with the handshake.
    pub(super) fn has_silent_input(&self) -> bool {
        matches!(self, Self::Other(Some(_)))
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Input> {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Other(Some(encrypted)) => return encrypted.read(buffer),
            Self::Other(None) => return Ok(Input::All(0)),
        };
        loop {
            match socket.read(buffer) {
                Ok(0) => return Ok(Input::End),
                Ok(count) if count == buffer.len() => return Ok(Input::Some(count)),
                Ok(count) => return Ok(Input::All(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Input::All(0)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One system call for all slices, of which there is at least one.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<WriteProgress> {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Other(Some(encrypted)) => return encrypted.write(slices),
            Self::Other(None) => return Ok(WriteProgress::Nothing),
        };
        loop {
            let result = match slices {
                // Without the C library's provisions for threads that are cancelled.
                [one] => rustix::net::send(&*socket, one, SendFlags::NOSIGNAL).map_err(io::Error::from),
                many => socket.write_vectored(many),
            };
            match result {
                Ok(taken) => return Ok(WriteProgress::Bytes(taken)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(WriteProgress::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns true if the kernel has all that was written. If not, the rest is written by [`Socket::flush`] when the
    /// socket is told to be writable.
    pub(super) fn is_flushed(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Other(None) => true,
            Self::Other(Some(encrypted)) => encrypted.is_flushed(),
        }
    }

    /// Bytes of replies that may not be with the kernel, after `written` more bytes: at most those that the socket was
    /// `given` and that were not sent before.
    pub(super) fn unsent_replies(&mut self, given: usize, written: u64) -> usize {
        match self {
            Self::Plain(_) | Self::Other(None) => 0,
            Self::Other(Some(encrypted)) => encrypted.unsent_replies(given, written),
        }
    }

    /// Bytes that the kernel has taken, where the socket counts them.
    pub(super) fn sent(&self) -> Option<u64> {
        match self {
            Self::Plain(_) | Self::Other(None) => None,
            Self::Other(Some(encrypted)) => Some(encrypted.sent()),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) | Self::Other(None) => Ok(()),
            Self::Other(Some(encrypted)) => encrypted.flush().map(drop),
        }
    }

    /// Tells the peer that nothing more comes, while what it still sends can be read and dropped: closing a
    /// socket with unread input would make the kernel discard what was written last.
    pub(super) fn finish(&mut self) {
        match self {
            // A peer that has gone needs no goodbye.
            Self::Plain(socket) => drop(socket.shutdown(Shutdown::Write)),
            Self::Other(Some(encrypted)) => encrypted.finish(),
            Self::Other(None) => {}
        }
    }

    /// To be called before the socket is closed, which alone tells a plain peer that this is the end.
    pub(super) fn part(&mut self) {
        if let Self::Other(Some(encrypted)) = self {
            // What the peer does not take at once, it does not get.
            encrypted.say_goodbye();
        }
    }
}
