//! Sessions whose clients poll: what comes for them waits in their queues, and each poll takes all of it.

use bytes::Bytes;
use fanwire_hub::polls::{Asked, Due};
use fanwire_hub::queue::Queue;
use fanwire_protocol::plain::event;
use fanwire_protocol::reason::{Close, Left};
use fanwire_protocol::wire::Wire;

use super::closing::LastWords;
use super::connection::{CloseProgress, Connection, Role};
use super::{REPLY_BYTES_PER_TURN, Shard};
use crate::message::{AnswerTo, ParkedAt, PollAnswer, PollAsk, SessionAnswer};
use crate::session_key::SessionKey;
use crate::transport::poll::session_name;
use crate::transport::{RefusalResponse, WireState};

/// A longer answer is sent by the shard where a poll waits, which knows what it has room for and who takes too little. It is not
/// handed to the task of a request.
const LOOK_BYTES_MAX: usize = 64 << 10;

/// The time for which the first poll waits on, where its session is not decided yet. That has its own bound.
const UNDECIDED_MILLIS: u64 = 1000;

impl Shard {
    /// Begins with the poll that opened a session, and returns the key of the session.
    pub(super) fn begin_polls(&mut self, slot: u32, at: ParkedAt, answer_by: u64) -> Option<SessionKey> {
        let connection = self.connections.get_mut(slot as usize)?;
        let key = connection.key(slot);
        let polled = connection.polled_mut()?;
        polled.polls.wait(at, answer_by);
        let client = polled.client;
        self.schedule(slot);
        Some(self.node.sessions.sign(self.node.id, self.index, key, client))
    }

    /// Takes a poll. Returns `None` if it waits.
    pub(super) fn take_poll(
        &mut self,
        key: &SessionKey,
        ask: PollAsk,
        to: &AnswerTo,
    ) -> Option<SessionAnswer> {
        let Some(slot) = self.polled_slot(key) else { return Some(SessionAnswer::Gone) };
        // What the outbox holds comes before the answer. Writing it may end the session.
        self.write(slot);
        let answer = self.answer_or_wait(key, ask, to);
        self.schedule(slot);
        answer
    }

    /// Answers a poll, or lets it wait.
    fn answer_or_wait(&mut self, key: &SessionKey, ask: PollAsk, to: &AnswerTo) -> Option<SessionAnswer> {
        let PollAsk { number, wait_millis, topics } = ask;
        let slot = key.connection.slot;
        let waits = matches!(to, AnswerTo::Parked(_));
        let ends_at = self.polls_end();
        let connection = self.connections.get_mut(slot as usize).filter(|c| c.is(key.connection));
        let Some(connection) = connection else { return Some(SessionAnswer::Gone) };
        let (is_open, has_queue) = (connection.session().is_some(), connection.queue.is_some());
        let bytes = connection.unsent_bytes();
        let Some(polled) = connection.polled_mut() else { return Some(SessionAnswer::Gone) };
        if polled.topics != topics {
            return Some(SessionAnswer::OtherTopics);
        }
        self.kept.remove(polled);
        let asked = polled.polls.ask(number, ends_at);
        self.kept.add(polled);
        match asked {
            Asked::Unknown => return Some(SessionAnswer::Gone),
            Asked::Lost => {
                self.end(slot);
                self.remove(slot);
                return Some(SessionAnswer::Gone);
            }
            Asked::Again(body) if !waits && body.len() > LOOK_BYTES_MAX => {
                return Some(SessionAnswer::Nothing);
            }
            Asked::Again(body) => {
                let number = polled.polls.number();
                if !self.may_repeat(slot) {
                    return Some(SessionAnswer::TooOften);
                }
                if !self.takes_room(to, body.len()) {
                    return Some(SessionAnswer::Busy);
                }
                self.count_answer(body.len());
                return Some(SessionAnswer::Poll(PollAnswer { number, body, has_news: true, cursor: None }));
            }
            // The client knows that it has ended.
            Asked::Next if !is_open => return Some(SessionAnswer::Gone),
            Asked::Next => {}
        }
        let has_something = has_queue || polled.has_news || !polled.beginning.is_empty();
        if !has_something && wait_millis > 0 {
            let AnswerTo::Parked(at) = to else {
                return Some(SessionAnswer::Nothing);
            };
            let older = polled.polls.wait(*at, self.now.millis + u64::from(wait_millis));
            if let Some(older) = older.filter(|older| older != at) {
                self.send_poll_answer(older, SessionAnswer::Overtaken);
            }
            return None;
        }
        if !waits && bytes > LOOK_BYTES_MAX {
            return Some(SessionAnswer::Nothing);
        }
        // One that is refused is not made: it would be kept as one that may have arrived.
        if !self.takes_room(to, bytes) {
            return Some(SessionAnswer::Busy);
        }
        let polled = self.connections.get_mut(slot as usize).and_then(Connection::polled_mut);
        let older = polled.and_then(|polled| polled.polls.take_waiting(ends_at));
        let answer = self.next_answer(slot);
        if let Some(older) = older {
            self.send_poll_answer(older, SessionAnswer::Overtaken);
        }
        Some(SessionAnswer::Poll(answer))
    }

    /// The client of a poll that waited has gone.
    pub(super) fn take_left(&mut self, key: &SessionKey, to: &AnswerTo) {
        let ends_at = self.polls_end();
        let (Some(slot), AnswerTo::Parked(at)) = (self.polled_slot(key), to) else { return };
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let is_open = connection.session().is_some();
        let Some(polled) = connection.polled_mut() else { return };
        polled.polls.leave(at, ends_at);
        if is_open && !polled.is_named && !polled.polls.is_waiting() {
            // Nobody can poll it.
            self.end(slot);
            return self.remove(slot);
        }
        self.schedule(slot);
    }

    /// Ends a session whose client is done with it.
    pub(super) fn end_polled(&mut self, key: &SessionKey) -> SessionAnswer {
        let ends_at = self.polls_end();
        let Some(slot) = self.polled_slot(key) else { return SessionAnswer::Gone };
        let connection = self.connections.get_mut(slot as usize);
        let polled = connection.and_then(|connection| connection.polled_mut());
        let waiting = polled.and_then(|polled| polled.polls.take_waiting(ends_at));
        self.end(slot);
        self.remove(slot);
        if let Some(at) = waiting {
            self.send_poll_answer(at, SessionAnswer::Overtaken);
        }
        SessionAnswer::Taken
    }

    /// Answers the poll that waits for a session, if there is something to answer it with.
    pub(super) fn answer_poll(&mut self, slot: u32) {
        let ends_at = self.polls_end();
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if connection.is_undecided() || connection.session().is_none() {
            return;
        }
        let has_queue = connection.queue.is_some();
        let Some(polled) = connection.polled_mut() else { return };
        let lasts = polled.lasts();
        if lasts && !has_queue && !polled.has_news {
            return;
        }
        let is_named = polled.is_named;
        let Some(at) = polled.polls.take_waiting(ends_at) else { return };
        let has_room = self.answer_waiting(slot, at);
        // Nobody can poll one that nobody was told of.
        if !lasts || !has_room && !is_named {
            self.end(slot);
            self.remove(slot);
        }
    }

    /// Does what is due: answers the poll that has waited long enough, or ends a session without polls.
    pub(super) fn polls_are_due(&mut self, slot: u32) {
        // The cursor of an answer is behind what the outbox holds, so that has to be in it.
        self.write(slot);
        let (now, ends_at) = (self.now.millis, self.polls_end());
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let is_undecided = connection.is_undecided();
        let Some(polled) = connection.polled_mut() else { return };
        match polled.polls.due(now, ends_at) {
            Due::Nothing => {}
            Due::Answer(at) if is_undecided => {
                polled.polls.wait(at, now + UNDECIDED_MILLIS);
            }
            Due::Answer(at) => {
                self.answer_waiting(slot, at);
            }
            Due::End => {
                self.end(slot);
                return self.remove(slot);
            }
        }
        self.schedule(slot);
    }

    /// Ends a session and tells its client with the poll that waits. A client that is not to come back is also told with its next
    /// poll; any other learns there that the session is gone, and opens another.
    pub(super) fn close_polled(&mut self, slot: u32, close: &Close) {
        let takes_queue = !close.reason.discards_queue();
        if takes_queue {
            // What the outbox holds comes before the end.
            self.write(slot);
        }
        let session = self.connections.get(slot as usize).and_then(|connection| connection.session());
        let session = session.filter(|session| session.wire() == Wire::Poll);
        let cursor = session.map(|session| session.cursor(&self.registry).text());
        self.end_because(slot, Left::Closed(close.clone()));
        let ends_at = self.polls_end();
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let opening = connection.take_opening();
        // One that is closed already only waits to tell why.
        let Some(wire) = connection.session().map(|session| session.wire()) else { return self.remove(slot) };
        let last = match opening.map(|opening| opening.closed(wire, close)) {
            Some(Err(refusal)) => return self.refuse_poll(slot, refusal),
            Some(Ok(last)) => Some(last),
            None => None,
        };
        self.queued_bytes -= connection.queued_bytes();
        let queue = connection.queue.take().filter(|_| takes_queue);
        let beginning = connection.polled_mut().map(|polled| std::mem::take(&mut polled.beginning));
        let beginning = beginning.unwrap_or_default();
        let waited_bytes = queue.as_ref().map_or(0, |queue| queue.bytes()) + beginning.len();
        // The reason is told in any case. Without messages there is no cursor, and the client goes on from the one it has.
        let network = connection.polled().map(|polled| polled.network);
        let may_keep = network.is_some_and(|network| self.kept.may_keep(network, waited_bytes));
        let has_messages = waited_bytes > 0 && may_keep;
        let body = last.unwrap_or_else(|| {
            let mut body = if has_messages { begin_body(wire, &beginning, queue) } else { Vec::new() };
            match cursor.filter(|_| has_messages) {
                Some(cursor) => event::last_answer_end(&cursor, close, &mut body),
                None => body.extend_from_slice(&wire.goodbye(close)),
            }
            body.into_boxed_slice().into()
        });
        // What is left of it says why the session ended, and takes no commands.
        let mut state = connection.wire_state.take();
        let at = match state.as_deref_mut() {
            Some(WireState::Polled(polled)) => {
                self.waiting_bytes -= polled.reorder.take().map_or(0, |reorder| reorder.bytes());
                self.kept.remove(polled);
                polled.polls.ended(body.clone());
                let number = polled.polls.number();
                polled.polls.take_waiting(ends_at).map(|at| (at, number))
            }
            _ => None,
        };
        self.start_closing(slot, CloseProgress::MayFollow, LastWords::Close(close.reason));
        if let Some((at, number)) = at {
            self.node.charge_answer(at.via, body.len());
            let answer = PollAnswer { number, body, has_news: true, cursor: None };
            self.send_poll_answer(at, SessionAnswer::Poll(answer));
        }
        if close.reason.reconnects() {
            return self.remove(slot);
        }
        if let Some(connection) = self.connections.get_mut(slot as usize) {
            connection.wire_state = state;
            if let Some(polled) = connection.polled() {
                self.kept.add(polled);
            }
            if let Role::Closing { until_millis, .. } = &mut connection.role {
                *until_millis = ends_at;
            }
        }
        self.schedule(slot);
    }

    /// Ends a session that does not begin with the response that says why.
    pub(super) fn refuse_poll(&mut self, slot: u32, refusal: RefusalResponse) {
        self.end_because(slot, Left::Refused);
        let RefusalResponse { bytes, status, code, reason } = refusal;
        tracing::debug!(status = status.as_u16(), code, reason, "refusing a poll");
        let ends_at = self.polls_end();
        let connection = self.connections.get_mut(slot as usize);
        let at =
            connection.and_then(|c| c.polled_mut()).and_then(|polled| polled.polls.take_waiting(ends_at));
        self.start_closing(slot, CloseProgress::IsDone, LastWords::Refusal(status));
        self.remove(slot);
        // The poll that opens a session waits on the same shard.
        if let Some(ParkedAt { address, .. }) = at
            && self
                .connections
                .get(address.connection.slot as usize)
                .is_some_and(|c| c.is(address.connection))
        {
            self.finish_poll(address.connection.slot, bytes);
        }
    }

    /// Sends an answer to the place where its poll waits.
    pub(super) fn send_poll_answer(&mut self, at: ParkedAt, answer: SessionAnswer) {
        if at.via.node == self.node.id && at.address.shard == self.index {
            self.take_poll_answer(at.address.connection, answer);
        } else {
            self.node.answer_poll(at, answer);
        }
    }

    /// Answers a poll that waits. Returns false if there is no room for that: what waits is for the next poll.
    fn answer_waiting(&mut self, slot: u32, at: ParkedAt) -> bool {
        let bytes = self.connections.get(slot as usize).map_or(0, Connection::unsent_bytes);
        let has_room = self.takes_room_at(&at, bytes);
        let answer = if has_room {
            SessionAnswer::Poll(self.next_answer(slot))
        } else {
            self.counters.session_calls.busy.add(1);
            SessionAnswer::Busy
        };
        self.schedule(slot);
        self.send_poll_answer(at, answer);
        has_room
    }

    /// Takes room to send an answer, where that needs any. Returns false if there is too little.
    fn takes_room(&self, to: &AnswerTo, bytes: usize) -> bool {
        match to {
            AnswerTo::Task(_) => true,
            AnswerTo::Node(via, _) => self.node.may_answer(*via, bytes),
            AnswerTo::Parked(at) => self.takes_room_at(at, bytes),
        }
    }

    fn takes_room_at(&self, at: &ParkedAt, bytes: usize) -> bool {
        self.has_room_at(at, bytes) && self.node.may_answer(at.via, bytes)
    }

    /// Makes the next answer, of all that waits.
    fn next_answer(&mut self, slot: u32) -> PollAnswer {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return PollAnswer::default() };
        let key = connection.key(slot);
        self.queued_bytes -= connection.queued_bytes();
        let queue = connection.queue.take();
        let has_replies = connection.replied_bytes > 0;
        let (Role::Client(session), Some(WireState::Polled(polled))) =
            (&connection.role, connection.wire_state.as_deref_mut())
        else {
            return PollAnswer::default();
        };
        polled.is_named = true;
        let beginning = std::mem::take(&mut polled.beginning);
        let has_news = std::mem::take(&mut polled.has_news) || queue.is_some();
        let brings_something = has_news || !beginning.is_empty();
        let number = match brings_something {
            true => polled.polls.next_number(),
            false => polled.polls.number(),
        };
        let mut body = begin_body(session.wire(), &beginning, queue);
        let mut cursor = None;
        if session.wire() == Wire::Poll {
            let text = session.cursor(&self.registry).text();
            let name = polled.lasts().then(|| {
                let key = self.node.sessions.sign(self.node.id, self.index, key, polled.client);
                session_name(&key, number)
            });
            event::answer_end(&text, name.as_deref(), &mut body);
            cursor = (!polled.lasts()).then_some(text);
        }
        let body = Bytes::from(body.into_boxed_slice());
        if brings_something {
            self.kept.remove(polled);
            polled.polls.answered(body.clone());
            if !self.kept.may_keep(polled.network, body.len()) {
                polled.polls.give_up();
            }
            self.kept.add(polled);
        }
        self.count_answer(body.len());
        if has_replies {
            // They are taken, which is noted where bytes are written.
            self.write(slot);
        }
        PollAnswer { number, body, has_news, cursor }
    }

    /// Counts an answer among the replies of this turn. Once calls have had their time, it takes all that is left of them:
    /// what else waits in the inbox has its turn after clients and timers.
    fn count_answer(&mut self, bytes: usize) {
        self.reply_bytes += bytes;
        if self.is_call_time_up() {
            self.reply_bytes = self.reply_bytes.max(REPLY_BYTES_PER_TURN);
        }
    }

    /// Returns the slot of a session that is polled, also once it has ended, if the key is good.
    fn polled_slot(&self, key: &SessionKey) -> Option<u32> {
        let connection = self.connections.get(key.connection.slot as usize)?;
        let polled = connection.polled().filter(|_| connection.is(key.connection))?;
        self.node.sessions.verifies(key, polled.client).then_some(key.connection.slot)
    }

    /// Returns the time at which a session ends that is not polled from now on.
    fn polls_end(&self) -> u64 {
        self.now.millis + self.node.settings.subscribe.polls.grace.as_millis() as u64
    }
}

/// Begins the body of an answer, with what waited for the client.
fn begin_body(wire: Wire, beginning: &[u8], queue: Option<Box<Queue>>) -> Vec<u8> {
    let mut body = Vec::with_capacity(queue.as_ref().map_or(0, |queue| queue.bytes()) + beginning.len());
    match beginning.is_empty() && wire == Wire::Poll {
        true => event::answer(&mut body),
        false => body.extend_from_slice(beginning),
    }
    let chunks = queue.into_iter().flat_map(|queue| queue.into_chunks());
    chunks.for_each(|chunk| body.extend_from_slice(&chunk));
    body
}
