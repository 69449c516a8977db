//! Reasons for the loss of a client.

use std::io;

use fanwire_protocol::websocket::InflateError;
use fanwire_protocol::websocket::client::ServerFrameError;

/// Maximum part of an unexpected answer that is shown.
const SHOWN_BYTES_MAX: usize = 200;

/// The reason for the loss of a client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server ended the connection")]
    Ended,
    #[error("the server closed with {code} {reason:?}")]
    Closed { code: u16, reason: String },
    #[error("the server answered {0:?}")]
    Refused(String),
    #[error("the server does not speak {0}")]
    NotOffered(&'static str),
    #[error("{0}")]
    Frame(#[from] ServerFrameError),
    #[error("a compressed message cannot be inflated: {0}")]
    Inflate(#[from] InflateError),
    #[error("an event, a line or a command is too long")]
    TooLong,
    #[error("the server does not read: a small write did not fit")]
    Unread,
    #[error("{0}")]
    Token(#[from] jsonwebtoken::errors::Error),
}

impl Lost {
    /// The reason for an unexpected answer.
    pub(crate) fn refused(answer: &[u8]) -> Self {
        let shown = &answer[..answer.len().min(SHOWN_BYTES_MAX)];
        Self::Refused(String::from_utf8_lossy(shown).into_owned())
    }
}
