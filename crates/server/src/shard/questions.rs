//! Questions that read from topics: they are asked in turn, as far as the shard has room for the answers, and clients that
//! hold the room without reading are closed.

use fanwire_hub::effect::{Answer, ConnectionKey, SubscriptionStart, TopicRequest};
use fanwire_hub::session::Session;
use fanwire_protocol::TopicName;
use fanwire_protocol::reason::RequestError;
use rustc_hash::FxHashMap;

use super::Shard;
use super::answer_room::{Question, ReadBudget};
use super::connection::Connection;
use crate::allowance::ReadAllowance;
use crate::fair_queue::User;
use crate::message::{Address, ShardMessage};

/// Clients that hold less are never closed to make room for answers.
const HELD_BYTES_MIN: u32 = 4 << 10;

/// While others wait for room, a client that would need longer than this to take its answers is closed.
const HELD_MILLIS_MAX: u64 = 5000;

/// The time for which a client is watched before it is judged, since a socket takes bytes in bursts.
const WATCHED_MILLIS_MIN: u64 = 1900;

/// Clients that hold room while it is scarce.
pub(super) type WatchedClients = FxHashMap<ConnectionKey, WatchedClient>;

#[derive(Clone, Copy, Debug)]
pub(super) struct WatchedClient {
    since_millis: u64,
    /// Its progress then.
    progress: u64,
}

impl WatchedClient {
    /// It would take too long for what is left, as far as can be said yet.
    fn is_too_slow(self, left: u32, progress: u64, now_millis: u64) -> bool {
        let watched_millis = now_millis - self.since_millis;
        let taken = progress.saturating_sub(self.progress);
        watched_millis >= WATCHED_MILLIS_MIN
            && u64::from(left).saturating_mul(watched_millis) > taken.saturating_mul(HELD_MILLIS_MAX)
    }
}

impl Shard {
    /// Returns the user of a connection.
    pub(super) fn user(&self, key: ConnectionKey) -> User {
        let session = self.connections.get(key.slot as usize).and_then(Connection::session);
        User::new(session.map_or("", Session::user))
    }

    /// Asks what there is room for.
    pub(super) fn ask_in_turn(&mut self) {
        let Self { answer_room, connections, node, now, index, .. } = self;
        let unread_max = node.settings.client.queue_bytes_max / 2;
        let budget = |key: ConnectionKey| {
            let connection = connections.get(key.slot as usize).filter(|connection| connection.is(key))?;
            read_budget(connection, unread_max)
        };
        while let Some((key, Question { topic, request, .. }, allowance)) =
            answer_room.next(budget, now.millis)
        {
            let from = Address { shard: *index, connection: key };
            let owner = node.owner_of(&topic);
            owner.send(match allowance {
                Some(allowance) => ShardMessage::Read(topic, from, request, allowance),
                None => ShardMessage::Topic(topic, from, request),
            });
        }
    }

    /// Forgets what a connection that goes would have read, and does what else it asked.
    pub(super) fn forget_reads(&mut self, key: ConnectionKey) {
        for Question { topic, request, .. } in self.answer_room.forget(key) {
            let owner = self.node.owner_of(&topic);
            owner.send(ShardMessage::Topic(topic, self.address(key), request));
        }
    }

    /// An answer that was read from a topic.
    pub(super) fn take_read_answer(
        &mut self,
        key: ConnectionKey,
        mut answer: Answer,
        allowance: &ReadAllowance,
    ) {
        self.answer_room.answered(key, allowance.bytes());
        if let Answer::Subscribed { result: Ok(start), .. } = &mut answer {
            self.count_recovered(key, start);
        }
        self.take_answer(key, answer);
        self.answer_room.queue(key, self.now.millis);
    }

    /// An answer is longer than was allowed: it is asked for again, with more.
    pub(super) fn ask_again(
        &mut self,
        key: ConnectionKey,
        topic: TopicName,
        request: TopicRequest,
        allowance: &ReadAllowance,
    ) {
        self.answer_room.answered(key, allowance.bytes());
        if self.connections.get(key.slot as usize).is_some_and(|c| c.is(key) && c.session().is_some()) {
            self.answer_room.enter(key, self.user(key), Question::again(topic, request), self.now.millis);
        }
    }

    /// Counts what is recovered for a connect, or an opening, which waits until all of it is there. All together is
    /// bounded like one recovery.
    fn count_recovered(&mut self, key: ConnectionKey, start: &mut SubscriptionStart) {
        let Some(connection) = self.connections.get(key.slot as usize).filter(|c| c.is(key)) else { return };
        if !connection.gathers_recovered() {
            return;
        }
        let bytes = start.recovered.iter().flatten().map(|publication| publication.answer_bytes()).sum();
        let before = connection.replied_bytes as usize;
        if bytes > 0 && before + bytes > self.node.settings.client.recovery_bytes_max {
            start.recovered = None;
            self.counters.recoveries_too_long.add(1);
        } else {
            self.count_replied(key.slot, bytes);
        }
    }

    /// Counts bytes that a connection has before it.
    pub(super) fn count_replied(&mut self, slot: u32, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(slot as usize) {
            let before = connection.replied_bytes;
            connection.replied_bytes = before.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
            self.answer_room.replied += (connection.replied_bytes - before) as usize;
        }
    }

    /// Forgets the bytes that were counted for an answer which is not sent.
    pub(super) fn forget_replied(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        self.answer_room.replied -= std::mem::take(&mut connection.replied_bytes) as usize;
        let key = connection.key(slot);
        self.watched.remove(&key);
        self.answer_room.queue(key, self.now.millis);
    }

    /// Answers what has waited too long for room, and lets go of those who hold it. Called about once a second.
    pub(super) fn keep_reads_going(&mut self) {
        self.let_go_of_stalled();
        for (key, Question { topic, request, .. }) in self.answer_room.take_overdue(self.now.millis) {
            let error = RequestError::TooManyRequests;
            match request {
                TopicRequest::History { id, .. } => {
                    self.take_answer(key, Answer::History { id, result: Err(error), shows_time: false });
                }
                TopicRequest::Presence { id } => {
                    self.take_answer(key, Answer::Presence { id, result: Err(error) });
                }
                request => {
                    let owner = self.node.owner_of(&topic);
                    let from = self.address(key);
                    owner.send(match request.is_read() {
                        // Without room for it, what was missed is not recovered, unless it is nothing.
                        true => ShardMessage::Read(topic, from, request, self.answer_room.nothing()),
                        false => ShardMessage::Topic(topic, from, request),
                    });
                }
            }
        }
        self.ask_in_turn();
    }

    /// Watches connections that hold room where it is scarce. Where others wait for it, ends those that take too little,
    /// the largest first. Called about once a second.
    fn let_go_of_stalled(&mut self) {
        let before = std::mem::take(&mut self.watched);
        if !self.answer_room.is_scarce() {
            return;
        }
        let is_pressing = self.answer_room.is_pressing(self.now.millis);
        let mut stalled = Vec::new();
        for (slot, connection) in &self.connections {
            if connection.replied_bytes < HELD_BYTES_MIN || connection.gathers_recovered() {
                continue;
            }
            let key = connection.key(slot as u32);
            let (since_millis, progress) = (self.now.millis, connection.progress());
            let watched = before.get(&key).copied().unwrap_or(WatchedClient { since_millis, progress });
            if is_pressing && watched.is_too_slow(connection.replied_bytes, progress, self.now.millis) {
                stalled.push((connection.replied_bytes, key.slot));
            }
            self.watched.insert(key, watched);
        }
        stalled.sort_unstable_by(|a, b| b.cmp(a));
        for (_, slot) in stalled {
            if !self.answer_room.is_scarce() {
                return;
            }
            self.cut_off(slot);
        }
    }
}

/// Returns what counts of a connection when it asks; `None` if it is no client any more.
fn read_budget(connection: &Connection, unread_max: usize) -> Option<ReadBudget> {
    connection.session()?;
    let replied = connection.replied_bytes as usize;
    Some(if connection.gathers_recovered() {
        ReadBudget { unread: 0, unread_max, recovered: replied }
    } else {
        ReadBudget { unread: replied, unread_max, recovered: 0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_needs_more_than_five_seconds_for_the_rest_is_too_slow() {
        let watched = WatchedClient { since_millis: 1000, progress: 50_000 };
        for (left, taken, watched_millis, is_too_slow) in [
            (1_000_000, 0, 1000, false),
            (5000, 0, 2000, true),
            (1_000_000, 20_000, 2000, true),
            (50_000, 20_000, 2000, false),
            (50_001, 20_000, 2000, true),
            (1_000_000, 1_200_000, 6000, false),
        ] {
            let judged = watched.is_too_slow(left, 50_000 + taken, 1000 + watched_millis);
            assert_eq!(judged, is_too_slow, "{left} {taken} {watched_millis}");
        }
    }
}
