//! Shared state of all clients of a run.

use crate::client::inflate::Inflater;
use crate::dialect::Dialect;
use crate::measure::histogram::Recorder;
use crate::measure::payload::PayloadReader;

/// What all clients of a run share: how they speak, and what they count together.
pub(crate) struct Shared {
    pub(crate) dialect: Box<dyn Dialect>,
    /// Clients that were subscribed to everything, whatever became of them.
    pub(crate) live: usize,
    pub(crate) received: u64,
    /// Those of the received messages that came compressed.
    pub(crate) compressed: u64,
    /// Those that were not as they had been written.
    pub(crate) corrupted: u64,
    pub(crate) pings: u64,
    /// What came to subscribed clients and was neither a measured message nor a ping.
    pub(crate) others: u64,
    /// How many messages there are of each stream so far.
    pub(crate) published: Vec<u64>,
    /// How long each measured message is, once that is known.
    pub(crate) payload_bytes: usize,
    pub(crate) latency: Recorder,
    /// From when a message was to be sent, so that waiting to be sent counts too.
    pub(crate) latency_from_due: Recorder,
    /// From when a burst was to be published to when it was.
    pub(crate) published_late: Recorder,
    pub(crate) set_up: Recorder,
    /// One client in this many has its latency measured: reading the clock for all would cost more than it tells.
    pub(crate) latency_every: usize,
    pub(super) payload: PayloadReader,
    /// Taken out while it lends what it inflated.
    pub(super) inflater: Option<Inflater>,
    /// What is said in return, until it is sent.
    pub(super) out: Vec<u8>,
}

impl Shared {
    pub(crate) fn new(dialect: Box<dyn Dialect>) -> Self {
        Self {
            dialect,
            live: 0,
            received: 0,
            compressed: 0,
            corrupted: 0,
            pings: 0,
            others: 0,
            published: Vec::new(),
            payload_bytes: 0,
            latency: Recorder::new(),
            latency_from_due: Recorder::new(),
            published_late: Recorder::new(),
            set_up: Recorder::new(),
            latency_every: 1,
            payload: PayloadReader::new(),
            inflater: Some(Inflater::new()),
            out: Vec::new(),
        }
    }
}
