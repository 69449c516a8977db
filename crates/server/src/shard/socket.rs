//! The bytes' way in and out of one connection. What is above it neither knows nor cares whether they are encrypted.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use rustix::net::SendFlags;
use rustls::ServerConnection;

use super::encrypted::Encrypted;
use super::io_result::{Input, WriteProgress};
use crate::stream_pipe::{PipeInput, ShardEnd};
use crate::transport::Line;

#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    /// One that is more than a socket, apart, so that a plain connection does not grow by it. `None`: there is no socket, and
    /// what is written waits for the client to ask for it.
    Apart(Option<Box<Apart>>),
}

/// The lines that are more than a socket.
#[derive(Debug)]
pub(super) enum Apart {
    /// Many times the size of the other.
    Encrypted(Box<Encrypted>),
    /// One of many on a connection that a task of its own reads and writes.
    Stream(ShardEnd),
}

/// The thing that tells when a socket is ready.
pub(super) enum Source<'a> {
    Socket(&'a mut TcpStream),
    Stream(&'a ShardEnd),
}

impl From<Line> for Socket {
    fn from(line: Line) -> Self {
        match line {
            Line::Socket(socket, tls) => Self::new(socket, tls),
            Line::Stream(stream) => Self::Apart(Some(Box::new(Apart::Stream(stream)))),
        }
    }
}

impl Socket {
    /// With a TLS session whose handshake is done, or without.
    pub(super) fn new(socket: std::net::TcpStream, tls: Option<Box<ServerConnection>>) -> Self {
        let socket = TcpStream::from_std(socket);
        match tls {
            None => Self::Plain(socket),
            Some(tls) => {
                Self::Apart(Some(Box::new(Apart::Encrypted(Box::new(Encrypted::new(socket, *tls))))))
            }
        }
    }

    /// Returns the place of a client that has no connection.
    pub(super) fn absent() -> Self {
        Self::Apart(None)
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Apart(None))
    }

    /// Returns the thing that the readiness set watches.
    pub(super) fn source(&mut self) -> Option<Source<'_>> {
        match self {
            Self::Plain(socket) => Some(Source::Socket(socket)),
            Self::Apart(Some(apart)) => Some(match &mut **apart {
                Apart::Encrypted(encrypted) => Source::Socket(&mut encrypted.socket),
                Apart::Stream(stream) => Source::Stream(stream),
            }),
            Self::Apart(None) => None,
        }
    }

    /// Returns true if it may have input that the readiness set will not tell of: what came with the handshake.
    pub(super) fn has_silent_input(&self) -> bool {
        self.encrypted().is_some()
    }

    fn encrypted(&self) -> Option<&Encrypted> {
        match self {
            Self::Apart(Some(apart)) => match &**apart {
                Apart::Encrypted(encrypted) => Some(encrypted),
                Apart::Stream(_) => None,
            },
            Self::Plain(_) | Self::Apart(None) => None,
        }
    }

    fn encrypted_mut(&mut self) -> Option<&mut Encrypted> {
        match self {
            Self::Apart(Some(apart)) => match &mut **apart {
                Apart::Encrypted(encrypted) => Some(encrypted),
                Apart::Stream(_) => None,
            },
            Self::Plain(_) | Self::Apart(None) => None,
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Input> {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Apart(Some(apart)) => return apart.read(buffer),
            Self::Apart(None) => return Ok(Input::All(0)),
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
            Self::Apart(Some(apart)) => return apart.write(slices),
            Self::Apart(None) => return Ok(WriteProgress::Nothing),
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

    /// Returns true if the kernel, or the connection of the stream, has all that was written. If not, the rest is written by
    /// [`Socket::flush`] when the socket is told to be writable.
    pub(super) fn is_flushed(&self) -> bool {
        self.encrypted().is_none_or(Encrypted::is_flushed)
    }

    /// Bytes of replies that may not be with the kernel, after `written` more bytes: at most those that the socket was
    /// `given` and that were not sent before.
    pub(super) fn unsent_replies(&mut self, given: usize, written: u64) -> usize {
        self.encrypted_mut().map_or(0, |encrypted| encrypted.unsent_replies(given, written))
    }

    /// Bytes that the kernel has taken, where the socket counts them.
    pub(super) fn sent(&self) -> Option<u64> {
        self.encrypted().map(Encrypted::sent)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self.encrypted_mut() {
            Some(encrypted) => encrypted.flush().map(drop),
            None => Ok(()),
        }
    }

    /// Tells the peer that nothing more comes, while what it still sends can be read and dropped: closing a
    /// socket with unread input would make the kernel discard what was written last.
    pub(super) fn finish(&mut self) {
        match self {
            // A peer that has gone needs no goodbye.
            Self::Plain(socket) => drop(socket.shutdown(Shutdown::Write)),
            Self::Apart(Some(apart)) => match &mut **apart {
                Apart::Encrypted(encrypted) => encrypted.finish(),
                Apart::Stream(stream) => stream.finish(),
            },
            Self::Apart(None) => {}
        }
    }

    /// To be called before the socket is closed, which alone tells a plain peer that this is the end.
    pub(super) fn part(&mut self) {
        if let Some(encrypted) = self.encrypted_mut() {
            // What the peer does not take at once, it does not get.
            encrypted.say_goodbye();
        }
    }
}

impl Apart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Input> {
        match self {
            Self::Encrypted(encrypted) => encrypted.read(buffer),
            Self::Stream(stream) => Ok(match stream.read(buffer) {
                PipeInput::Over => Input::End,
                PipeInput::Bytes(count) if count == buffer.len() => Input::Some(count),
                PipeInput::Bytes(count) => Input::All(count),
            }),
        }
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<WriteProgress> {
        match self {
            Self::Encrypted(encrypted) => encrypted.write(slices),
            Self::Stream(stream) => Ok(match stream.write(slices)? {
                0 => WriteProgress::Nothing,
                taken => WriteProgress::Bytes(taken),
            }),
        }
    }
}
