//! The baseline's clients: they say nothing and are sent bare frames.

use crate::client::Lost;
use crate::dialect::{Dialect, Framing, Progress, Units};

/// Live as soon as the socket stands.
#[derive(Debug)]
pub(crate) struct Raw;

impl Dialect for Raw {
    fn framing(&self) -> Framing {
        Framing::WebSocket(Units::Whole)
    }

    fn hello(&self, _client: usize, _out: &mut Vec<u8>) -> Result<Progress, Lost> {
        Ok(Progress::Live)
    }
}
