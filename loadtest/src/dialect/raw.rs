//! The clients of the baseline: they send nothing and receive bare frames.

use crate::client::Lost;
use crate::dialect::{Dialect, Framing, Progress, Units};

/// A client that is live as soon as it is connected.
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
