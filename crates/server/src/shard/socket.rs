//! The bytes' way in and out of one connection. What is above it neither knows nor cares whether they are encrypted.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;

#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// This many bytes are the kernel's now.
    Bytes(usize),
    /// It takes nothing until it is told to be writable.
    Nothing,
}

impl Taken {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Nothing => 0,
        }
    }
}

impl Socket {
    pub(super) fn plain(socket: std::net::TcpStream) -> Self {
        Self::Plain(TcpStream::from_std(socket))
    }

    /// What the readiness set watches.
    pub(super) fn source(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
        }
    }

    /// One system call for all slices, of which there is at least one.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Taken> {
        let Self::Plain(socket) = self;
        loop {
            let result = match slices {
                [one] => socket.write(one),
                many => socket.write_vectored(many),
            };
            match result {
                Ok(taken) => return Ok(Taken::Bytes(taken)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Taken::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells the peer that nothing more comes, while what it still sends can be read and dropped: closing a
    /// socket with unread input would make the kernel discard what was written last.
    pub(super) fn finish(&mut self) {
        match self {
            // A peer that has gone needs no goodbye.
            Self::Plain(socket) => drop(socket.shutdown(Shutdown::Write)),
        }
    }
}
