//! One connection as its shard keeps it: a socket, who it is, and what waits to be written. Idle, it holds no
//! buffer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fanwire_hub::delivery::Delivery;
use fanwire_hub::effect::ConnectionKey;
use fanwire_hub::outbox::{Chain, Outbox, Parcel};
use fanwire_hub::queue::{Full, Queue};
use fanwire_hub::reorder::Reorder;
use fanwire_hub::session::Session;
use fanwire_protocol::TopicName;
use fanwire_protocol::request::{Malformed, Request};
use fanwire_protocol::websocket::{Deflate, Reader};
use fanwire_protocol::wire::{ClientMessage, Framing};
use smallvec::SmallVec;

use super::io_result::WriteProgress;
use super::opening::Undecided;
use super::pending::Pending;
use super::socket::Socket;
use super::to_read::ToRead;
use crate::accept::admission::ClientNetwork;
use crate::hooks::HookTicket;
use crate::transport::WireState;
use crate::transport::poll::{Parked, Polled};

/// The fields lie in memory in this order. A delivery looks at those before the role: the fewer cache lines
/// these take the better, since the kernel displaces most of the cache between two deliveries.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    /// The segments that the outbox holds for the connection.
    pub(super) chain: Chain,
    /// The bytes that the socket did not take.
    pub(super) queue: Option<Box<Queue>>,
    /// What has to wait: few connections have anything, and none for long.
    pub(super) pending: Option<Box<Pending>>,
    pub(super) reader: Reader,
    pub(super) generation: u32,
    /// Bytes of replies that the socket has not taken; of a client that is being connected, with what is recovered.
    pub(super) replied_bytes: u32,
    /// It is in the list of sockets to read again.
    pub(super) to_read: bool,
    /// It has something to read, which is left to the kernel, or in `pending`, while it has enough to answer.
    pub(super) is_paused: bool,
    /// The peer will send no more than what has arrived.
    pub(super) read_closed: bool,
    /// The socket took less than it was given, and has not told since that it takes more.
    pub(super) is_blocked: bool,
    /// The way in which it gets what its topics bring.
    pub(super) feed: Feed,
    /// Its messages may be compressed, both ways.
    pub(super) deflate: Option<Deflate>,
    pub(super) role: Role,
    /// Few wires have any.
    pub(super) wire_state: Option<Box<WireState>>,
}

// Every idle connection costs as much.
const _: () = assert!(size_of::<Connection>() <= 176);

#[derive(Debug)]
pub(super) enum Role {
    /// A client, whose requests go to its session.
    Client(Session),
    /// A poll that waits. What its client sends is read to see its end.
    Parked(Box<Parked>),
    /// Everything was said; what is left to be written is written, and the peer is given time to go. What it sends is
    /// read to see its end, unless it broke the framing.
    /// It lasts longer while the peer takes what is left, but not beyond `last_millis`.
    Closing {
        until_millis: u64,
        last_millis: u64,
        framing: Framing,
        peer: CloseProgress,
        /// The poll that was answered, if it was one.
        answered: Option<AnsweredPoll>,
    },
}

/// A poll whose answer is being sent.
#[derive(Debug)]
pub(super) struct AnsweredPoll {
    pub(super) network: ClientNetwork,
    /// Bytes of the answer.
    pub(super) bytes: usize,
    /// The copy by which the shard counts the poll.
    #[expect(dead_code, reason = "it is held, not read")]
    pub(super) counted: Rc<()>,
}

/// The way in which a connection gets what its topics bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feed {
    /// Not yet: its connect is not answered, or its opening not decided. From then on it is counted as a client.
    Held,
    /// As others do, in the same bytes.
    Shared,
    /// With its own cursor.
    Own,
    /// By itself, while a group is linked of which it does not get everything.
    Excluded,
}

impl Feed {
    /// Returns the feed of an open session.
    pub(super) fn of(session: &Session) -> Self {
        if session.has_own_cursor() { Self::Own } else { Self::Shared }
    }
}

/// The bounds of what one client may have before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of replies.
    pub(super) replied_bytes_max: usize,
    /// No further request may wait for an earlier one.
    pub(super) waiting_is_full: bool,
}

/// The progress of a close at the peer of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseProgress {
    /// It may follow the close.
    MayFollow,
    IsDone,
}

/// The reasons for which a write ends the connection.
pub(super) enum WriteError {
    Slow,
    Gone,
}

impl From<Full> for WriteError {
    fn from(Full: Full) -> Self {
        Self::Slow
    }
}

impl From<io::Error> for WriteError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl Connection {
    pub(super) fn new(socket: Socket, generation: u32, role: Role) -> Self {
        Self {
            socket,
            chain: Chain::default(),
            queue: None,
            pending: None,
            reader: Reader::default(),
            generation,
            replied_bytes: 0,
            to_read: false,
            is_paused: false,
            read_closed: false,
            is_blocked: false,
            feed: Feed::Held,
            deflate: None,
            role,
            wire_state: None,
        }
    }

    /// Returns the key of the connection while it is in the slot.
    pub(super) fn key(&self, slot: u32) -> ConnectionKey {
        ConnectionKey { slot, generation: self.generation }
    }

    pub(super) fn is(&self, key: ConnectionKey) -> bool {
        self.generation == key.generation
    }

    /// Enters the connection among those to be read, once.
    pub(super) fn read_later(&mut self, slot: u32, to_read: &mut ToRead) {
        if !std::mem::replace(&mut self.to_read, true) {
            to_read.push(self.key(slot));
        }
    }

    /// The same for one that sent more than a read took.
    pub(super) fn read_on(&mut self, slot: u32, to_read: &mut ToRead) {
        if !std::mem::replace(&mut self.to_read, true) {
            to_read.push_behind(self.key(slot));
        }
    }

    /// Something that it sent waits for its time, or until it has read more of its answers.
    pub(super) fn is_held_back(&self) -> bool {
        self.is_paused || self.pending.as_ref().is_some_and(|pending| pending.has_input())
    }

    pub(super) fn has_deferred_requests(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.has_requests())
    }

    /// Keeps a message, of which requests were done up to `taken`, for a later read.
    pub(super) fn defer_message(&mut self, message: ClientMessage<'_>, taken: usize) {
        debug_assert!(!self.has_deferred_requests(), "nothing more is read while something is deferred");
        let pending = self.pending.get_or_insert_default();
        (pending.message, pending.taken) = (Some(message.into()), taken);
    }

    /// Keeps the requests that the connection was opened with for a later read.
    pub(super) fn defer_requests(&mut self, first: VecDeque<Request>) {
        self.pending.get_or_insert_default().first = first;
    }

    /// Lets the answers to the first requests decide on the response to the request that opened the connection.
    pub(super) fn open_by(&mut self, undecided: Undecided) {
        self.pending.get_or_insert_default().opening = Some(undecided);
    }

    /// Its connect is being answered, or its opening decided: what is recovered meanwhile waits for that.
    pub(super) fn gathers_recovered(&self) -> bool {
        self.session().is_some_and(Session::is_connecting) || self.is_undecided()
    }

    pub(super) fn is_undecided(&self) -> bool {
        self.undecided().is_some()
    }

    /// Its session was given all the requests that it begins with.
    pub(super) fn is_prepared(&self) -> bool {
        self.is_undecided() && !self.has_deferred_requests()
    }

    /// Returns the opening, while its response is not decided.
    pub(super) fn opening(&mut self) -> Option<&mut Undecided> {
        self.pending.as_mut()?.opening.as_mut()
    }

    fn undecided(&self) -> Option<&Undecided> {
        self.pending.as_ref()?.opening.as_ref()
    }

    /// Returns the next time at which something is due, or `u64::MAX`.
    pub(super) fn deadline(&self) -> u64 {
        match &self.role {
            Role::Client(session) => {
                let undecided = self.undecided().map_or(u64::MAX, Undecided::deadline);
                undecided.min(self.wire_deadline()).min(session.deadline())
            }
            Role::Parked(parked) => parked.until_millis,
            Role::Closing { until_millis, .. } => *until_millis,
        }
    }

    /// Returns the progress of a close that begins with the response to the request which opened the connection.
    pub(super) fn response_progress(&self) -> CloseProgress {
        if self.read_closed { CloseProgress::IsDone } else { CloseProgress::MayFollow }
    }

    /// The response to the request that opened the connection was not decided in time.
    pub(super) fn is_undecided_too_long(&self, now_millis: u64) -> bool {
        self.undecided().is_some_and(|opening| opening.deadline() <= now_millis)
    }

    /// Takes the response, which is decided now.
    pub(super) fn take_opening(&mut self) -> Option<Undecided> {
        let opening = self.pending.as_mut()?.opening.take();
        self.free_pending();
        opening
    }

    /// Keeps bytes that were read and not looked at.
    pub(super) fn defer_unread(&mut self, unread: BytesMut) {
        self.pending.get_or_insert_default().unread = unread;
    }

    /// Takes them back, if there are any.
    pub(super) fn take_unread(&mut self) -> Option<BytesMut> {
        let unread = std::mem::take(&mut self.pending.as_mut()?.unread);
        self.free_pending();
        Some(unread).filter(|unread| !unread.is_empty())
    }

    /// Takes the first request that waits.
    pub(super) fn next_deferred_request(&mut self) -> Option<Result<Request, Malformed>> {
        let (wire, is_over) = self.session().map(|session| (session.wire(), session.is_over()))?;
        let publish = self.publish_topic();
        self.pending.as_mut()?.next_request(wire, publish, is_over)
    }

    /// A hook is asked for the session.
    pub(super) fn wait_for_hook(&mut self, number: u32, ticket: HookTicket) {
        self.pending.get_or_insert_default().tickets.push((number, ticket));
    }

    /// The hook has answered.
    pub(super) fn has_hook_answer(&mut self, number: u32) {
        if let Some(pending) = &mut self.pending {
            pending.tickets.retain(|(waiting, _)| *waiting != number);
        }
        self.free_pending();
    }

    /// Has no use for the answers of hooks any more.
    pub(super) fn forget_questions(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.tickets.clear();
        }
        self.free_pending();
    }

    /// Does nothing more of what the client asked. What was not looked at stays: its answer to a close may be in it.
    pub(super) fn forget_requests(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.forget_requests();
        }
        self.free_pending();
    }

    /// Gives back the memory of what waited, once nothing does.
    fn free_pending(&mut self) {
        self.pending.take_if(|pending| pending.is_empty());
    }

    /// Returns the topic that messages of the client are published to.
    pub(super) fn publish_topic(&self) -> Option<TopicName> {
        match self.wire_state.as_deref()? {
            WireState::Bare { publish } => publish.clone(),
            WireState::Emulated(_) | WireState::Polled(_) => None,
        }
    }

    /// The order of its messages, if they come by other requests.
    pub(super) fn reorder(&mut self) -> Option<&mut Reorder> {
        match self.wire_state.as_deref_mut()? {
            WireState::Emulated(reorder) => Some(reorder),
            WireState::Polled(polled) => polled.reorder.as_deref_mut(),
            WireState::Bare { .. } => None,
        }
    }

    /// Its polls, if its client has no connection that stays.
    pub(super) fn polled(&self) -> Option<&Polled> {
        match self.wire_state.as_deref()? {
            WireState::Polled(polled) => Some(polled),
            WireState::Emulated(_) | WireState::Bare { .. } => None,
        }
    }

    pub(super) fn polled_mut(&mut self) -> Option<&mut Polled> {
        match self.wire_state.as_deref_mut()? {
            WireState::Polled(polled) => Some(polled),
            WireState::Emulated(_) | WireState::Bare { .. } => None,
        }
    }

    /// Returns the time at which its wire has something to do; `u64::MAX` for never. While the client has enough
    /// before it, what waits is looked at when it goes on, and not before.
    pub(super) fn wire_deadline(&self) -> u64 {
        match self.wire_state.as_deref() {
            Some(WireState::Emulated(reorder)) => self.deadline_of(reorder),
            Some(WireState::Polled(polled)) => {
                let ordered = polled.reorder.as_deref().map_or(u64::MAX, |reorder| self.deadline_of(reorder));
                ordered.min(polled.polls.deadline())
            }
            Some(WireState::Bare { .. }) | None => u64::MAX,
        }
    }

    fn deadline_of(&self, reorder: &Reorder) -> u64 {
        if self.is_paused { u64::MAX } else { reorder.deadline() }
    }

    pub(super) fn session(&self) -> Option<&Session> {
        match &self.role {
            Role::Client(session) => Some(session),
            Role::Parked(_) | Role::Closing { .. } => None,
        }
    }

    /// The framing of what is read from it.
    pub(super) fn framing(&self) -> Framing {
        match &self.role {
            Role::Client(session) => session.wire().framing(),
            Role::Parked(_) => Framing::Ignored,
            Role::Closing { framing, .. } => *framing,
        }
    }

    /// The client has as much before it as may be: what else it asks has to wait.
    pub(super) fn has_enough(&self, bounds: Bounds) -> bool {
        let is_busy = match &self.role {
            Role::Client(session) => {
                session.is_busy()
                    // The next of its first requests is checked against what this one grants.
                    || session.is_preparing() && self.has_deferred_requests()
                    || bounds.waiting_is_full && session.lets_requests_wait()
                    // The answers to messages are not for the opening.
                    || self.is_undecided() && self.framing() != Framing::Ignored && !self.has_deferred_requests()
            }
            // What it still sends is dropped, to see its end.
            Role::Parked(_) | Role::Closing { .. } => return false,
        };
        // What topics bring does not count: however much of it waits, a client's pong has to be heard.
        is_busy || self.replied_bytes as usize > bounds.replied_bytes_max
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes())
    }

    /// Returns the bytes that wait for the next poll of its client.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.queued_bytes() + self.polled().map_or(0, |polled| polled.beginning.len())
    }

    /// Keeps what a topic brings before the connection is answered, within the bound of its queue and by the topic's policy.
    /// `parcel` holds the deliveries as others get them. Says how many publications gave way.
    pub(super) fn keep(
        &mut self,
        deliveries: &[Arc<Delivery>],
        parcel: &Parcel,
        queue_bytes_max: usize,
    ) -> Result<usize, Full> {
        let wire = self.session().map(Session::wire);
        match self.opening().zip(wire) {
            Some((opening, wire)) => {
                opening.beginning.keep(deliveries, wire, parcel.policy(), queue_bytes_max)
            }
            None => parcel.queue(0, self.held_pushes(), queue_bytes_max),
        }
    }

    fn held_pushes(&mut self) -> &mut Queue {
        self.pending.get_or_insert_default().held_pushes.get_or_insert_default()
    }

    /// Holds something back until the connection is answered.
    pub(super) fn hold(&mut self, bytes: Bytes, queue_bytes_max: usize) -> Result<(), Full> {
        self.held_pushes().push(bytes, queue_bytes_max).map(drop)
    }

    /// Takes what was held back.
    pub(super) fn take_held(&mut self) -> Option<Box<Queue>> {
        let held = self.pending.as_mut()?.held_pushes.take();
        self.free_pending();
        held
    }

    /// Writes what the outbox holds: one call for all of it in the usual case. What the socket does not take
    /// waits in the queue for the socket to become writable. Returns how many calls and bytes it was.
    pub(super) fn write(&mut self, outbox: &Outbox, queue_bytes_max: usize) -> Result<Written, WriteError> {
        if self.chain.is_empty() && self.queue.is_none() {
            self.socket.flush()?;
        }
        let mut written = self.write_chain(outbox, queue_bytes_max)?;
        if self.replied_bytes > 0 {
            written.settled = self.settle(written.bytes);
        }
        Ok(written)
    }

    /// Forgets replies that the socket has taken, after `written` more bytes; returns their bytes.
    pub(super) fn settle(&mut self, written: u64) -> usize {
        // What was recovered waits elsewhere.
        if self.gathers_recovered() {
            return 0;
        }
        let replied = self.replied_bytes as usize;
        let queued = self.queue.as_ref().map_or(0, |queue| queue.reply_bytes());
        let left = queued + self.socket.unsent_replies(replied.saturating_sub(queued), written);
        let settled = replied.saturating_sub(left);
        self.replied_bytes -= settled as u32;
        settled
    }

    /// Grows with what the peer takes, as long as something waits for it.
    pub(super) fn progress(&self) -> u64 {
        self.socket.sent().unwrap_or_else(|| self.queue.as_ref().map_or(0, |queue| queue.written()))
    }

    fn write_chain(&mut self, outbox: &Outbox, queue_bytes_max: usize) -> Result<Written, WriteError> {
        let mut parcels = outbox.take(&mut self.chain);
        let mut written = Written::default();
        if let Some(queue) = &mut self.queue {
            for parcel in parcels {
                written.dropped += parcel.queue(0, queue, queue_bytes_max)?;
            }
            self.write_queue(&mut written)?;
            return Ok(written);
        }
        loop {
            let batch = parcels.clone();
            let mut slices = SmallVec::<[_; Queue::SLICES_MAX]>::new();
            let next = parcels.by_ref().take(Queue::SLICES_MAX);
            slices.extend(next.map(|parcel| IoSlice::new(parcel.bytes())));
            if slices.is_empty() {
                return Ok(written);
            }
            let taken = self.socket.write(&slices)?.bytes();
            written.add(taken);
            if taken < slices.iter().map(|slice| slice.len()).sum() {
                let queue = self.queue.get_or_insert_default();
                let mut skip = taken;
                for parcel in batch {
                    written.dropped += parcel.queue(skip, queue, queue_bytes_max)?;
                    skip = skip.saturating_sub(parcel.bytes().len());
                }
                // Only a refused write makes the socket tell when it takes more.
                self.write_queue(&mut written)?;
                return Ok(written);
            }
        }
    }

    /// Writes what waits until the socket takes no more, and frees the queue when all is written. A socket that took
    /// no more is not asked again before it says so: a client that does not read costs no system call.
    pub(super) fn write_queue(&mut self, written: &mut Written) -> io::Result<()> {
        while !self.is_blocked
            && let Some(queue) = &mut self.queue
        {
            if queue.is_empty() {
                self.queue = None;
                break;
            }
            let mut slices = [IoSlice::new(&[]); Queue::SLICES_MAX];
            let used = queue.fill(&mut slices);
            match self.socket.write(&slices[..used])? {
                WriteProgress::Nothing => self.is_blocked = true,
                WriteProgress::Bytes(taken) => {
                    written.add(taken);
                    queue.advance(taken);
                }
            }
        }
        Ok(())
    }

    /// Notes that the peer has taken something: one that is closing has until then for the rest, as far as it may last.
    pub(super) fn prolong_closing(&mut self, to_millis: u64) {
        if let Role::Closing { until_millis, last_millis, .. } = &mut self.role {
            *until_millis = to_millis.min(*last_millis).max(*until_millis);
        }
    }

    /// Returns true if everything that was to be written is with the kernel.
    pub(super) fn is_flushed(&self) -> bool {
        self.chain.is_empty() && self.queue.is_none() && self.socket.is_flushed()
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub(super) calls: u64,
    pub(super) bytes: u64,
    /// Publications that gave way to newer ones.
    pub(super) dropped: usize,
    /// Bytes of replies that went to the kernel, with this write or before it.
    pub(super) settled: usize,
    /// Bytes that were made for this connection alone.
    pub(super) made: usize,
}

impl Written {
    fn add(&mut self, bytes: usize) {
        self.calls += 1;
        self.bytes += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::transport::Responses;

    fn connected() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let role = Role::Closing {
            until_millis: u64::MAX,
            last_millis: u64::MAX,
            framing: Framing::Ignored,
            peer: CloseProgress::MayFollow,
            answered: None,
        };
        (Connection::new(Socket::new(socket, None), 1, role), peer)
    }

    fn write(connection: &mut Connection, parcel: Parcel) {
        let mut outbox = Outbox::default();
        let segment = outbox.segment(parcel);
        outbox.link(0, &mut connection.chain, segment);
        assert!(connection.write(&outbox, 64 << 20).is_ok());
    }

    #[test]
    fn what_waited_is_freed_once_nothing_waits() {
        let (mut connection, _peer) = connected();
        let responses = Responses {
            accepted: Bytes::new(),
            refused: |_, _| unreachable!("nothing is refused here"),
            headers: Bytes::new(),
            topics: Vec::new(),
            resume: None,
        };
        connection.open_by(Undecided::new(Box::new(responses), 1, u64::MAX));
        connection.defer_unread(BytesMut::from("unread"));
        assert!(connection.hold(Bytes::from_static(b"held"), usize::MAX).is_ok());
        assert!(connection.is_held_back() && connection.take_unread().is_some());
        assert!(!connection.is_held_back() && connection.is_undecided());
        assert!(connection.take_unread().is_none());
        assert!(connection.take_opening().is_some() && !connection.is_undecided());
        assert!(connection.take_held().is_some_and(|held| held.into_chunks().eq(["held"])));
        assert!(connection.pending.is_none());
    }

    /// A client that never catches up with its topics has taken its replies all the same.
    #[test]
    fn replies_are_taken_though_more_waits_behind_them() {
        let (mut connection, mut peer) = connected();
        while connection.queued_bytes() == 0 {
            write(&mut connection, Parcel::from(Bytes::from(vec![0; 1 << 20])));
        }
        connection.replied_bytes = 5000;
        write(&mut connection, Parcel::reply(Bytes::from(vec![1; 5000])));
        assert_eq!(connection.replied_bytes, 5000);
        // More than the kernel takes.
        write(&mut connection, Parcel::from(Bytes::from(vec![0; 32 << 20])));
        let mut piece = vec![0; 64 << 10];
        let mut received_reply = false;
        while connection.replied_bytes > 0 {
            let count = peer.read(&mut piece).unwrap();
            received_reply |= piece[..count].contains(&1);
            connection.is_blocked = false;
            assert!(connection.write(&Outbox::default(), usize::MAX).is_ok());
        }
        assert!(connection.queued_bytes() > 0);
        // The kernel has it, and the peer gets it.
        while !received_reply {
            let count = peer.read(&mut piece).unwrap();
            received_reply = piece[..count].contains(&1);
        }
    }
}
