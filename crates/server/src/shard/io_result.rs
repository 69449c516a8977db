//! The results of reads and writes on a socket, encrypted or not.

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// This many bytes, and there may be more.
    Some(usize),
    /// This many bytes, and no more until the socket is told to be readable.
    All(usize),
    /// The peer sends no more.
    End,
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteProgress {
    /// This many bytes are the socket's now.
    Bytes(usize),
    /// It takes nothing until it is told to be writable.
    Nothing,
}

impl WriteProgress {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Nothing => 0,
        }
    }
}
