//! The shared state of all clients of a run.

use crate::client::inflate::InflatedMessages;
use crate::dialect::Dialect;
use crate::measure::histogram::Recorder;
use crate::measure::payload::PayloadReader;

/// The dialect, counters and buffers of all clients of a run.
pub(crate) struct Shared {
    pub(crate) dialect: Box<dyn Dialect>,
    /// Clients that were subscribed to all their topics at some time.
    pub(crate) live: usize,
    pub(crate) received: u64,
    /// Bytes from the server, its responses' heads included.
    pub(crate) received_bytes: u64,
    /// Received messages that were compressed.
    pub(crate) compressed: u64,
    /// Received messages whose bytes are not as written.
    pub(crate) corrupted: u64,
    pub(crate) pings: u64,
    /// Messages to subscribed clients that were neither measured messages nor pings.
    pub(crate) others: u64,
    /// The number of messages of each stream so far.
    pub(crate) published: Vec<u64>,
    /// The length of each measured message, once it is known.
    pub(crate) payload_bytes: usize,
    pub(crate) latency: Recorder,
    /// Latency from the due time of a message, which includes the wait before sending.
    pub(crate) latency_from_due: Recorder,
    /// Time from the due time of a burst to its publication.
    pub(crate) published_late: Recorder,
    pub(crate) set_up: Recorder,
    /// The latency of one client in this many is measured: reading the clock for all would cost too much.
    pub(crate) latency_every: usize,
    pub(super) payload: PayloadReader,
    /// `None` while an inflated message is borrowed from it.
    pub(super) inflater: Option<InflatedMessages>,
    /// Answers to be sent.
    pub(super) out: Vec<u8>,
}

impl Shared {
    pub(crate) fn new(dialect: Box<dyn Dialect>) -> Self {
        Self {
            dialect,
            live: 0,
            received: 0,
            received_bytes: 0,
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
            inflater: Some(InflatedMessages::default()),
            out: Vec::new(),
        }
    }
}
