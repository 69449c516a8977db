//! A client of Server-Sent Events: one request, after which the server sends events only.

use std::rc::Rc;

use crate::client::Lost;
use crate::dialect::Tokens;
use crate::dialect::{Audience, Dialect, Framing, Progress, Say};

/// Sends `GET /subscribe?topic=...` with the token in a header.
pub(crate) struct Events {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) tokens: Tokens,
    pub(crate) audience: Rc<Audience>,
}

impl Dialect for Events {
    fn framing(&self) -> Framing {
        Framing::Events
    }

    fn hello(&self, client: usize, out: &mut Vec<u8>) -> Result<Progress, Lost> {
        let topics: Vec<String> =
            self.audience.topic_names_of(client).map(|topic| format!("topic={topic}")).collect();
        let Self { host, path, .. } = self;
        let token = self.tokens.connection(client)?;
        out.extend_from_slice(
            format!(
                "GET {path}?{} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\
                 Authorization: Bearer {token}\r\n\r\n",
                topics.join("&")
            )
            .as_bytes(),
        );
        Ok(Progress::Waiting)
    }

    fn opened(&self, _client: usize, _head: &[u8], _say: &mut Say<'_>) -> Result<Progress, Lost> {
        Ok(Progress::Live)
    }

    fn message(
        &self,
        _client: usize,
        _step: &mut u8,
        message: &[u8],
        _say: &mut Say<'_>,
    ) -> Result<Progress, Lost> {
        match message {
            b":" => Ok(Progress::Ping),
            _ if message.starts_with(b"event: disconnect") => Err(Lost::refused(message)),
            _ => Ok(Progress::Other),
        }
    }
}
