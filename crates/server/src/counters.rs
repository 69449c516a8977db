//! The counters of a shard: plain numbers that only its own thread writes and a scrape reads.
//!
//! A scrape sums the shards, so no delivery touches memory that another core writes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::wire::Wire;

use crate::accept::tls::TlsHandshake;
use crate::message::SessionAnswer;

/// A number with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Not atomic as a whole, which is fine with one writer and spares the locked instruction.
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counts by one of a closed set of codes; the last place is for any other.
#[derive(Debug)]
pub(crate) struct ByCode {
    codes: Vec<u32>,
    counts: Vec<Counter>,
}

impl ByCode {
    /// No code at all.
    pub(crate) const OTHER: u32 = u32::MAX;

    fn new(codes: impl Iterator<Item = u32>) -> Self {
        let codes: Vec<u32> = codes.collect();
        let counts = (0..=codes.len()).map(|_| Counter::default()).collect();
        Self { codes, counts }
    }

    pub(crate) fn count(&self, code: u32) {
        let place = self.codes.iter().position(|&known| known == code).unwrap_or(self.codes.len());
        self.counts[place].add(1);
    }

    /// Every code with its count, "other" last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, u64)> {
        let names = self.codes.iter().map(u32::to_string).chain(["other".to_owned()]);
        names.zip(self.counts.iter().map(Counter::value))
    }
}

/// Session calls by the way they came and by their result.
#[derive(Debug, Default)]
pub(crate) struct SessionCalls {
    /// Of requests to this node.
    pub from_shards: ByAnswer,
    /// Of requests to other nodes.
    pub from_nodes: ByAnswer,
    /// Requests to this node that could not be read.
    pub refused: Counter,
    /// Requests to this node while it had too much before it, and polls without room for their answers.
    pub busy: Counter,
    /// Requests to this node whose session's node did not answer in time.
    pub late: Counter,
    /// Requests to this node for a session of another node while Redis did not answer.
    pub unreachable: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct ByAnswer {
    pub taken: Counter,
    pub waits: Counter,
    pub gone: Counter,
    pub full: Counter,
    pub too_often: Counter,
    pub polled: Counter,
}

impl SessionCalls {
    pub(crate) fn count(&self, is_of_node: bool, answer: &SessionAnswer) {
        let from = if is_of_node { &self.from_shards } else { &self.from_nodes };
        let counter = match answer {
            SessionAnswer::Taken => &from.taken,
            SessionAnswer::Nothing => &from.waits,
            SessionAnswer::Gone | SessionAnswer::OtherTopics => &from.gone,
            SessionAnswer::Full => &from.full,
            SessionAnswer::TooOften => &from.too_often,
            // Where it is answered, no shard was asked.
            SessionAnswer::Busy | SessionAnswer::Overtaken | SessionAnswer::Unreachable => return,
            SessionAnswer::Poll(_) => &from.polled,
        };
        counter.add(1);
    }
}

/// Everything one shard counts.
#[derive(Debug)]
pub(crate) struct Counters {
    /// Sockets of any kind, those that are closing included. Streams of HTTP/2 and clients that poll have none.
    pub sockets: Counter,
    /// Sockets, streams, and clients between two polls.
    pub lines: Counter,
    /// The same without polls that wait or are being answered: each belongs to a client that is counted.
    pub client_lines: Counter,
    /// Polls that wait for sessions of other nodes, where their clients are counted.
    pub polls_elsewhere: Counter,
    /// Open connections by wire.
    pub connections: [Counter; Wire::COUNT],
    pub connections_opened: [Counter; Wire::COUNT],
    /// By the code that the client was told: 1000 to 1015 for WebSocket's own, a status for a stream that was refused;
    /// "other" when it left by itself.
    pub connections_closed: ByCode,
    pub connections_rejected: Counter,
    /// Open connections of clients whose messages are compressed.
    pub connections_compressed: Counter,
    /// TLS handshakes, by how they ended.
    pub handshakes: [Counter; TlsHandshake::ALL.len()],
    /// Clients whose connect was answered.
    pub clients: Counter,
    pub subscriptions: Counter,
    /// Topics that the shard owns and that have a subscriber on the node.
    pub topics: Counter,
    /// Users that this shard keeps count of.
    pub users: Counter,
    /// Users and addresses whose rates were not counted on all nodes, each time.
    pub rates_uncounted: Counter,
    pub requests_received: Counter,
    pub bytes_received: Counter,
    /// Calls to sessions by other ways than their own connections.
    pub session_calls: SessionCalls,
    /// Publications taken in by this shard as the topics' owner.
    pub publications: Counter,
    /// Messages written to clients or queued for them, by wire: fan-out.
    pub deliveries: [Counter; Wire::COUNT],
    /// Publications that gave way to newer ones in the queues of slow clients.
    pub dropped: Counter,
    pub replies: Counter,
    /// Writes to sockets.
    pub writes: Counter,
    pub bytes_sent: Counter,
    /// Bytes before and after compression; each message once, however many clients got it.
    pub bytes_uncompressed: Counter,
    pub bytes_compressed: Counter,
    pub errors: ByCode,
    pub unsubscribes: ByCode,
    pub recoveries: Counter,
    pub recoveries_failed: Counter,
    /// Recoveries that would have taken more bytes than may be recovered.
    pub recoveries_too_long: Counter,
    /// Times that a topic's owner asked the stream for what it may have missed.
    pub position_checks: Counter,
    /// Times that it had missed something.
    pub repairs: Counter,
    pub repairs_failed: Counter,
    /// Bytes of answers that are in work, or that sockets have not taken.
    pub answer_bytes: Counter,
    /// Bytes that wait for slow clients.
    pub queued_bytes: Counter,
    /// The content of the embedded engine: topics with a position, publications, and the bytes that all of it takes.
    pub engine_streams: Counter,
    pub engine_publications: Counter,
    pub engine_bytes: Counter,
    /// Publications and positions that were given up for its bound of memory.
    pub publications_evicted: Counter,
    pub positions_forgotten: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        let websocket = [1000u32, 1001, 1002, 1003, 1007, 1009, 1011];
        let statuses = [400u32, 401, 403, 404];
        let closes = statuses.into_iter().chain(websocket).chain(codes::CLOSE_NUMBERS.map(u32::from));
        Self {
            sockets: Counter::default(),
            lines: Counter::default(),
            client_lines: Counter::default(),
            polls_elsewhere: Counter::default(),
            connections: Default::default(),
            connections_opened: Default::default(),
            connections_closed: ByCode::new(closes),
            connections_rejected: Counter::default(),
            connections_compressed: Counter::default(),
            handshakes: Default::default(),
            clients: Counter::default(),
            subscriptions: Counter::default(),
            topics: Counter::default(),
            users: Counter::default(),
            rates_uncounted: Counter::default(),
            requests_received: Counter::default(),
            bytes_received: Counter::default(),
            session_calls: SessionCalls::default(),
            publications: Counter::default(),
            deliveries: Default::default(),
            dropped: Counter::default(),
            replies: Counter::default(),
            writes: Counter::default(),
            bytes_sent: Counter::default(),
            bytes_uncompressed: Counter::default(),
            bytes_compressed: Counter::default(),
            errors: ByCode::new(codes::ERROR_NUMBERS.into_iter()),
            unsubscribes: ByCode::new(codes::UNSUBSCRIBE_NUMBERS.into_iter()),
            recoveries: Counter::default(),
            recoveries_failed: Counter::default(),
            recoveries_too_long: Counter::default(),
            position_checks: Counter::default(),
            repairs: Counter::default(),
            repairs_failed: Counter::default(),
            answer_bytes: Counter::default(),
            queued_bytes: Counter::default(),
            engine_streams: Counter::default(),
            engine_publications: Counter::default(),
            engine_bytes: Counter::default(),
            publications_evicted: Counter::default(),
            positions_forgotten: Counter::default(),
        }
    }
}
