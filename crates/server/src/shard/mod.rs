//! A shard: one thread that owns its connections for life, and the topics and users that hash to it.
//!
//! Sockets live in the shard's own readiness set, of which tokio knows a single descriptor. An idle connection
//! has no task, no timer and no buffer.

mod adopt;
mod beginning;
mod answer_room;
mod connection;
mod closing;
mod dispatch;
mod drain_schedule;
mod effects;
mod emulated;
mod encrypted;
mod excluded;
mod gathered;
mod groups;
mod opening;
mod own_cursors;
mod parked;
mod pending;
mod polled;
mod questions;
mod io_result;
mod kept_answers;
mod key_waits;
mod read;
mod readiness;
mod sharing;
mod socket;
mod to_read;
mod write;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use fanwire_hub::TokenPrint;
use fanwire_hub::effect::{ConnectionKey, Effect};
use fanwire_hub::fanout::Fanout;
use fanwire_hub::outbox::Outbox;
use fanwire_hub::registry::Registry;
use fanwire_hub::session::{Context, Now, Rates, Session};
use fanwire_hub::wheel::Wheel;
use fanwire_protocol::ClientId;
use fanwire_protocol::reason::CloseReason;
use fanwire_protocol::websocket::{Deflater, Inflater};
use rustc_hash::FxHashMap;
use slab::Slab;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::accept::admission::ClientNetwork;
use crate::counters::Counters;
use crate::inbox::InboxReceiver;
use crate::message::{Address, ShardMessage};
use crate::node::{Node, VERSION};
use crate::request_budget::RequestBudget;
use crate::topics::Topics;
use crate::transport::Adopted;
use crate::users::Users;
use answer_room::AnswerRoom;
use connection::{Connection, Feed, Role};
use drain_schedule::DrainSchedule;
use gathered::Gathered;
use groups::Groups;
use kept_answers::KeptAnswers;
use key_waits::KeyWaits;
use parked::PolledNodes;
use questions::WatchedClients;
use readiness::Readiness;
use to_read::ToRead;

/// Messages taken from the inbox at once: what waits together is written together.
const MESSAGES_PER_TURN: usize = 4096;

/// Bytes of replies made in one turn from what waits in the inbox, and one reply more: less than a millisecond, or a few
/// for the longest.
const REPLY_BYTES_PER_TURN: usize = 256 * 1024;

/// Sockets read in one turn, each once, so that fan-out and timers get theirs.
const READS_PER_TURN: usize = 128;

/// Bytes read in one turn: some thousands of the smallest requests.
const READ_BYTES_PER_TURN: usize = 256 * 1024;

/// Time for reading in one turn, and for what follows from it: requests, signatures, decryption and inflation. At least one
/// connection that has just become readable is read, and one that goes on.
const READ_TIME_PER_TURN: Duration = Duration::from_millis(2);

/// Time for one connection in it, checked after each request and message: some hundred plain requests, or two or three
/// signatures.
const READ_TIME_PER_CONNECTION: Duration = Duration::from_micros(250);

/// Connections written to in one turn: about a millisecond. Replies may be made faster than that; each takes the place of
/// a request, of which a connection can have only so many.
const WRITES_PER_TURN: usize = 256;

/// Bytes of cursors made in one turn for listeners of several topics, and those of one connection more: about a millisecond.
const CURSOR_BYTES_PER_TURN: usize = 512 << 10;

/// The time that a peer may take to follow a close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

const SWEEP_INTERVAL_MILLIS: u64 = 1000;

/// Bytes read from one socket at once, into a buffer that all connections of the shard share.
const READ_BYTES: usize = 16 * 1024;

/// The network of a client.
struct NetworkUse {
    network: ClientNetwork,
    /// The client counts as one of its connections.
    is_registered: bool,
}

pub(crate) struct Shard {
    index: u16,
    node: Node,
    counters: Arc<Counters>,
    /// The share of requests in the time between two turns of the loop.
    budget: Rc<RequestBudget>,
    connections: Slab<Connection>,
    /// Each poll that waits, or is being answered, holds a copy.
    parked: Rc<()>,
    polled_nodes: PolledNodes,
    clients: FxHashMap<ClientId, u32>,
    /// Where the connections of an address are limited: the network of each client, by its slot.
    networks: FxHashMap<u32, NetworkUse>,
    key_waits: KeyWaits,
    /// Where connections of revoked tokens are closed: the token of each client, by its slot.
    tokens: FxHashMap<u32, TokenPrint>,
    registry: Registry,
    user_rates: Rates,
    /// Of requests without a session, by user or address.
    request_rates: Rates,
    topics: Rc<Topics>,
    users: Users,
    outbox: Outbox,
    groups: Groups,
    fanout: Fanout,
    /// Taken from the inbox while a batch was being written.
    gathered: Gathered,
    effects: Vec<Effect>,
    wheel: Wheel,
    readiness: Readiness,
    /// Sockets that have more to read than was taken, or were not reached.
    to_read: ToRead,
    /// The end of the time of the connection that is being read.
    read_until: Clock,
    /// The end of the time for session calls in this turn, once there was one.
    calls_until: Option<Clock>,
    buffer: Vec<u8>,
    /// For all connections, where compression is on.
    deflater: Option<Deflater>,
    inflater: Option<Inflater>,
    now: Now,
    generation: u32,
    queued_bytes: usize,
    /// Bytes of the answers to polls that are kept until they have arrived.
    kept: KeptAnswers,
    answer_room: AnswerRoom,
    watched: WatchedClients,
    /// Bytes of requests that wait for earlier ones of their clients.
    waiting_bytes: usize,
    /// It was more than may be, and connections may have been left unread for that.
    waiting_was_full: bool,
    /// Bytes of replies that were made in this turn.
    reply_bytes: usize,
    /// Bytes of cursors that were made in this turn.
    cursor_bytes: usize,
    /// Connections whose messages bring cursors of their own.
    own_feeds: usize,
    next_sweep_millis: u64,
    /// When rates may be counted with other nodes again.
    next_charge_millis: u64,
    /// Held twice while Redis counts them.
    charging: Rc<()>,
    /// Set when the node shuts down.
    drain_schedule: Option<DrainSchedule>,
}

impl Shard {
    pub(crate) fn new(index: usize, node: Node, budget: Rc<RequestBudget>) -> io::Result<Self> {
        let counters = node.counters[index].clone();
        let settings = &node.settings;
        let deflate = settings.websocket.deflate;
        let redis = node.peers.as_ref().map(|peers| peers.redis().clone());
        let (outboxes, statuses, inboxes) =
            (node.outboxes.clone(), node.statuses.clone(), node.inboxes.clone());
        let topics =
            Topics::new(index, settings.clone(), redis, outboxes, statuses, inboxes, counters.clone());
        Ok(Self {
            index: index as u16,
            budget,
            counters,
            connections: Slab::new(),
            parked: Rc::default(),
            polled_nodes: PolledNodes::default(),
            clients: FxHashMap::default(),
            networks: FxHashMap::default(),
            key_waits: KeyWaits::default(),
            tokens: FxHashMap::default(),
            registry: Registry::default(),
            user_rates: Rates::default(),
            request_rates: Rates::default(),
            users: Users::new(topics.clone(), node.clone()),
            topics,
            outbox: Outbox::default(),
            groups: Groups::new(node.settings.websocket.deflate.is_some()),
            fanout: Fanout::default(),
            gathered: Gathered::default(),
            effects: Vec::new(),
            wheel: Wheel::new(),
            readiness: Readiness::new()?,
            to_read: ToRead::default(),
            read_until: Clock::now(),
            calls_until: None,
            buffer: vec![0; READ_BYTES],
            deflater: deflate.map(|deflate| Deflater::new(deflate.level, deflate.payload_bytes_min)),
            inflater: deflate.map(|_| Inflater::default()),
            now: node.now(),
            generation: 0,
            queued_bytes: 0,
            kept: KeptAnswers::default(),
            answer_room: AnswerRoom::new(&settings.client),
            watched: WatchedClients::default(),
            waiting_bytes: 0,
            waiting_was_full: false,
            reply_bytes: 0,
            cursor_bytes: 0,
            own_feeds: 0,
            next_charge_millis: 0,
            charging: Rc::default(),
            next_sweep_millis: 0,
            drain_schedule: None,
            node,
        })
    }

    /// Waits until a task of a topic has panicked: the topic would be busy for ever.
    pub(crate) fn broken(&self) -> impl Future<Output = ()> + use<> {
        self.topics.broken()
    }

    /// The shard's life. Each turn takes, in this order: what other parts of the node sent, new sockets, what
    /// clients sent, what is due, who has to go, and then writes, and asks what there is room for. What waits in the
    /// inbox is grouped, up to a bound, before anything is written. While a batch is being written, in slices, the next
    /// one is gathered: so overload makes larger batches, and clients, timers and publishers never wait for more than
    /// a slice.
    pub(crate) async fn run(
        mut self,
        mut inbox: InboxReceiver,
        mut adopted: mpsc::UnboundedReceiver<Adopted>,
    ) {
        loop {
            let mut first = None;
            let mut socket = None;
            if self.is_idle() && inbox.is_empty() {
                let next_tick = Instant::now() + self.until_next_tick();
                tokio::select! {
                    message = inbox.receive() => match message {
                        Some(message) => first = Some(message),
                        None => return,
                    },
                    Some(adopted) = adopted.recv() => socket = Some(adopted),
                    () = self.readiness.wait() => {}
                    () = self.budget.used_up() => {}
                    () = tokio::time::sleep_until(next_tick) => {}
                }
            } else {
                // Requests and handshakes of this shard get their turn, and the kernel is asked what clients sent: neither
                // may wait for an inbox that never gets empty.
                tokio::task::yield_now().await;
            }
            self.now = self.node.now();
            self.budget.begin();
            self.reply_bytes = 0;
            self.cursor_bytes = 0;
            self.calls_until = None;
            self.take_messages(first, &mut inbox);
            while let Some(adopted) = socket.take().or_else(|| adopted.try_recv().ok()) {
                self.adopt(adopted);
            }
            self.take_input();
            self.take_timers();
            self.close_due();
            self.write_some();
            self.ask_in_turn();
            self.count();
        }
    }

    fn until_next_tick(&self) -> Duration {
        Duration::from_millis(self.wheel.next_tick_millis().saturating_sub(self.node.now().millis))
    }

    /// Nothing is left to be done before something happens.
    fn is_idle(&self) -> bool {
        self.outbox.is_empty() && self.to_read.is_empty() && self.gathered.is_empty()
    }

    fn take_messages(&mut self, first: Option<ShardMessage>, inbox: &mut InboxReceiver) {
        // What is said in this turn is no batch that others would have to wait for.
        let is_writing = !self.outbox.is_empty();
        while !is_writing
            && !self.groups_are_full()
            && self.reply_bytes < REPLY_BYTES_PER_TURN
            && let Some(message) = self.gathered.pop()
        {
            self.message(message);
        }
        let mut next = first;
        for _ in 0..MESSAGES_PER_TURN {
            let is_full = if is_writing { self.gathered.is_full() } else { self.groups_are_full() };
            if is_full || self.reply_bytes >= REPLY_BYTES_PER_TURN {
                break;
            }
            let Some(message) = next.take().or_else(|| inbox.try_receive()) else {
                // What waited to be published goes to the engine together. One in memory delivers it at once.
                if self.topics.publish_begun() {
                    continue;
                }
                break;
            };
            if is_writing && self.has_to_wait(&message) {
                self.gathered.push(message);
            } else {
                self.message(message);
            }
        }
        self.topics.publish_begun();
        self.link_groups();
    }

    /// While a batch is being written, deliveries wait for the next, and what is for sessions waits behind them. What
    /// is for the owner of a topic or a user has no place in that order, and publishers wait for its answers.
    fn has_to_wait(&self, message: &ShardMessage) -> bool {
        matches!(message, ShardMessage::Deliver(_)) || message.is_for_sessions() && !self.gathered.is_empty()
    }

    /// Lets a session handle something and does what it wants done.
    fn with_session(&mut self, slot: u32, act: impl FnOnce(&mut Session, &mut Context<'_>)) {
        self.write_own_cursors(slot);
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(connection) = self.connections.get_mut(slot as usize)
            && let Role::Client(session) = &mut connection.role
        {
            let mut context = Context {
                settings: &self.node.settings.client,
                namespaces: &self.node.settings.namespaces,
                tokens: &self.node.tokens,
                version: VERSION,
                registry: &mut self.registry,
                user_rates: &mut self.user_rates,
                effects: &mut effects,
                connection: ConnectionKey { slot, generation: connection.generation },
                now: self.now,
            };
            let before = session.waiting_bytes();
            act(session, &mut context);
            self.waiting_bytes = self.waiting_bytes + session.waiting_bytes() - before;
            let feed = Feed::of(session);
            if connection.feed != Feed::Held {
                connection.set_feed(feed, &mut self.own_feeds);
            }
            self.waiting_was_full |= self.waiting_bytes > read::WAITING_BYTES_MAX;
            self.apply(slot, &mut effects);
            self.schedule(slot);
        }
        self.effects = effects;
    }

    fn address(&self, connection: ConnectionKey) -> Address {
        Address { shard: self.index, connection }
    }

    /// Makes sure the connection is looked at when it is due.
    fn schedule(&mut self, slot: u32) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let deadline = connection.deadline();
        if deadline != u64::MAX {
            self.wheel.enter(slot, deadline);
        }
    }

    fn take_timers(&mut self) {
        while let Some(slots) = self.wheel.advance(self.now.millis) {
            for slot in slots {
                let Some(connection) = self.connections.get(slot as usize) else { continue };
                let is_unheard = self.is_unheard(slot, connection);
                let Some(connection) = self.connections.get_mut(slot as usize) else { continue };
                // Asked for behind that: a message whose time has come is no sign of a client that is there.
                if connection.wire_deadline() <= self.now.millis {
                    connection.read_later(slot, &mut self.to_read);
                }
                if connection.polled().is_some_and(|polled| polled.polls.deadline() <= self.now.millis) {
                    self.polls_are_due(slot);
                    continue;
                }
                match connection.role {
                    Role::Client(_) if connection.is_undecided_too_long(self.now.millis) => {
                        self.close(slot, CloseReason::ServerError);
                    }
                    Role::Client(_) => self.with_session(slot, |session, context| {
                        if is_unheard {
                            session.extend_pong(context);
                        }
                        session.tick(context);
                    }),
                    Role::Closing { until_millis, .. } if until_millis <= self.now.millis => {
                        self.remove(slot)
                    }
                    Role::Parked(_) if connection.deadline() <= self.now.millis => self.poll_is_late(slot),
                    Role::Parked(_) | Role::Closing { .. } => self.schedule(slot),
                }
            }
        }
        if self.now.millis >= self.next_sweep_millis {
            self.next_sweep_millis = self.now.millis + SWEEP_INTERVAL_MILLIS;
            self.topics.sweep();
            self.keep_reads_going();
            self.resume_where_requests_may_wait();
            self.look_for_polled_nodes();
            let late = self.key_waits.take_late(self.now.millis);
            self.end_waits(late);
            self.user_rates.sweep(self.now);
            self.request_rates.sweep(self.now);
            if self.index == 0 {
                self.node.permits.address_rates().sweep(self.now);
            }
        }
        if self.node.settings.client.cluster_rates && self.now.millis >= self.next_charge_millis {
            self.share_rates();
        }
    }

    /// The node has not heard all that a client sent, and its pong may be in it: bytes lie unread, which have their own
    /// bound in each turn, or what it asked is still to be answered. A client that takes none of its answers has no such
    /// excuse.
    fn is_unheard(&self, slot: u32, connection: &Connection) -> bool {
        let waits_for_answers = || {
            connection.session().is_some_and(|session| session.is_busy() || session.lets_requests_wait())
                || connection.replied_bytes == 0 && self.answer_room.holds_up(connection.key(slot))
        };
        connection.to_read || connection.is_held_back() && waits_for_answers()
    }

    /// Counts what the limits of the node count. To be called before the permit of a new connection is dropped.
    fn count_lines(&self) {
        let lines = self.connections.len();
        self.counters.sockets.set(self.readiness.sockets() as u64);
        self.counters.lines.set(lines as u64);
        self.counters.polls_elsewhere.set(self.polled_nodes.polls() as u64);
        self.counters.client_lines.set(lines.saturating_sub(Rc::strong_count(&self.parked) - 1) as u64);
    }

    /// Returns all that is counted for connections.
    fn held(&self) -> [usize; 5] {
        [self.waiting_bytes, self.kept.bytes(), self.queued_bytes, self.answer_room.replied, self.own_feeds]
    }

    fn count(&self) {
        self.count_lines();
        debug_assert!(
            !self.connections.is_empty() || self.held() == [0; 5],
            "nothing is held for nobody: {:?}",
            self.held()
        );
        self.counters.topics.set(self.topics.len() as u64);
        self.counters.subscriptions.set(self.registry.subscriptions_count() as u64);
        self.counters.users.set(self.users.len() as u64);
        self.counters.answer_bytes.set(self.answer_room.used() as u64);
        self.counters.queued_bytes.set((self.queued_bytes + self.kept.bytes()) as u64);
        let usage = self.topics.usage();
        self.counters.engine_streams.set(usage.streams as u64);
        self.counters.engine_publications.set(usage.publications as u64);
        self.counters.engine_bytes.set(usage.bytes as u64);
        self.counters.publications_evicted.set(usage.evicted);
        self.counters.positions_forgotten.set(usage.forgotten);
        if let Some(deflater) = &self.deflater {
            let (before, after) = deflater.bytes();
            self.counters.bytes_uncompressed.set(before);
            self.counters.bytes_compressed.set(after);
        }
    }
}
