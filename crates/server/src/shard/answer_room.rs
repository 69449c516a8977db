//! Answers that are read from topics: how many bytes of them a shard has in work at a time, and what waits for that.
//!
//! A question is asked when its answer has room in the shard's bound, which counts what is on its way from topics'
//! owners and every reply that a socket has not taken. Most answers are short, so each question is first asked with
//! room for little; the owner says when the answer is longer, and then it waits in a queue of its own, which short ones
//! do not wait for. In both users take turns, and so do the connections of each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanwire_hub::ClientSettings;
use fanwire_hub::effect::{ConnectionKey, TopicRequest};
use fanwire_protocol::TopicName;
use fanwire_protocol::capacity::GiveBack;
use rustc_hash::FxHashMap;

use crate::accept::admission::Counts;
use crate::allowance::ReadAllowance;
use crate::fair_queue::{FairQueue, User, Waiter};

/// The bytes of answers that one shard has in work. It is larger if the settings allow single answers of more than a
/// quarter of it.
const BYTES_MAX: usize = 24 << 20;

/// The room with which a question is first asked.
const SHORT_BYTES: usize = 32 << 10;

/// The time for which a question waits for room in the shard's bound. Then it is answered error 111, or what was missed
/// is not recovered.
const PATIENCE_MILLIS: u64 = 5000;

/// The time for which a question waits before the shard looks for clients that hold the room and take nothing.
const PRESSURE_MILLIS: u64 = 1000;

/// The time for which the shard looks for them once a poll found no room for its answer. The poll comes again in a second.
const REFUSED_MILLIS: u64 = 3000;

#[derive(Debug)]
pub(super) struct AnswerRoom {
    bytes_max: usize,
    /// Of one history or presence answer.
    answer_bytes_max: usize,
    /// Of all that one connect or subscribe recovers.
    recovery_bytes_max: usize,
    /// Bytes of answers on their way from owners, on whichever shard they are.
    on_their_way: Arc<AtomicUsize>,
    /// Bytes of replies that sockets have not taken.
    pub(super) replied: usize,
    /// Connections that wait for an answer that is read.
    busy: FxHashMap<ConnectionKey, Busy>,
    /// Those that have something to ask: those whose next answer is short, and the others.
    queues: [FairQueue<ConnectionKey>; 2],
    /// Bytes of the answers to polls that are being sent, by the networks of their clients.
    pub(super) polled: Counts,
    /// The end of the time for which polls press that found no room for their answers.
    refused_until_millis: u64,
}

#[derive(Debug, Default)]
struct Busy {
    user: User,
    /// Bytes of its answers on their way.
    on_their_way: usize,
    /// Questions that were asked and not answered.
    asked: usize,
    /// One of them is a request that reads: replies keep their order, so no other request is asked meanwhile.
    reads_alone: bool,
    /// Questions that were not asked yet, and the requests that came behind one that reads.
    waiting: VecDeque<Question>,
    /// It is in one of the queues.
    is_queued: bool,
}

/// A question to a topic's owner.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) topic: TopicName,
    pub(super) request: TopicRequest,
    /// Its answer is known to be longer than a short one.
    is_long: bool,
}

impl Question {
    pub(super) fn new(topic: TopicName, request: TopicRequest) -> Self {
        Self { topic, request, is_long: false }
    }

    /// The same once more, for an answer that was longer than a short one.
    pub(super) fn again(topic: TopicName, request: TopicRequest) -> Self {
        Self { topic, request, is_long: true }
    }

    fn recovers(&self) -> bool {
        matches!(self.request, TopicRequest::Subscribe { .. })
    }
}

/// The bytes that bound a connection's next question.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadBudget {
    /// Bytes of its answers that it has not taken.
    pub(super) unread: usize,
    /// The bound on `unread`.
    pub(super) unread_max: usize,
    /// Bytes of what was recovered for its connect, which is not answered yet.
    pub(super) recovered: usize,
}

impl AnswerRoom {
    pub(super) fn new(settings: &ClientSettings) -> Self {
        let &ClientSettings { answer_bytes_max, recovery_bytes_max, .. } = settings;
        let longest = answer_bytes_max.max(recovery_bytes_max);
        Self {
            bytes_max: BYTES_MAX.max(longest.saturating_mul(4)),
            answer_bytes_max,
            recovery_bytes_max,
            on_their_way: Arc::default(),
            replied: 0,
            busy: FxHashMap::default(),
            queues: Default::default(),
            polled: Counts::default(),
            refused_until_millis: 0,
        }
    }

    /// More than half of the bound is used: whoever has something left to read is given no more.
    pub(super) fn is_scarce(&self) -> bool {
        self.used() > self.bytes_max / 2
    }

    /// Returns true if a shard which uses so much may send an answer to a poll of a network to which it sends `own` bytes. As long
    /// as a quarter of the bound is not used all may, however long it is. A network has no more than a quarter beyond that.
    pub(super) fn has_room_for_poll(&self, used: usize, own: usize, bytes: usize) -> bool {
        let quarter = self.bytes_max / 4;
        used <= quarter || (own + bytes <= quarter && used + bytes <= 3 * quarter)
    }

    /// A poll found no room for its answer, and comes again.
    pub(super) fn refuse(&mut self, now_millis: u64) {
        self.refused_until_millis = now_millis + REFUSED_MILLIS;
    }

    /// Lets a question of a connection wait for its turn.
    pub(super) fn enter(&mut self, key: ConnectionKey, user: User, question: Question, now_millis: u64) {
        let Busy { user: asking, waiting, .. } = self.busy.entry(key).or_default();
        *asking = user;
        // What is asked again was asked before the others.
        if question.is_long {
            waiting.push_front(question)
        } else {
            waiting.push_back(question)
        }
        self.queue(key, now_millis);
    }

    /// Gives a connection a turn, if it has something to ask. It waits for room since then.
    pub(super) fn queue(&mut self, key: ConnectionKey, since_millis: u64) {
        let Some(busy) = self.busy.get_mut(&key) else { return };
        if let Some(first) = busy.waiting.front()
            && !std::mem::replace(&mut busy.is_queued, true)
        {
            self.queues[usize::from(first.is_long)].push(key, busy.user, since_millis);
        }
    }

    /// Returns the next question that may be asked now. `budget` knows connections that have not gone.
    pub(super) fn next(
        &mut self,
        budget: impl Fn(ConnectionKey) -> Option<ReadBudget>,
        now_millis: u64,
    ) -> Option<(ConnectionKey, Question, Option<ReadAllowance>)> {
        [false, true].into_iter().find_map(|is_long| self.next_in(is_long, &budget, now_millis))
    }

    fn next_in(
        &mut self,
        is_long: bool,
        budget: &impl Fn(ConnectionKey) -> Option<ReadBudget>,
        now_millis: u64,
    ) -> Option<(ConnectionKey, Question, Option<ReadAllowance>)> {
        let queue = usize::from(is_long);
        while let Some(&Waiter { item: key, since_millis: since, .. }) = self.queues[queue].front() {
            let Some(budget) = budget(key) else {
                self.queues[queue].pop_front();
                self.take(key);
                continue;
            };
            let bytes = self.bytes_for_first(key, budget);
            let first = self.busy.get(&key).and_then(|busy| busy.waiting.front());
            let is_here = first.is_some_and(|first| first.is_long == is_long);
            if is_here && bytes.is_some_and(|bytes| !self.has_room(is_long, bytes)) {
                return None;
            }
            self.queues[queue].pop_front();
            let Some(busy) = self.busy.get_mut(&key) else { continue };
            busy.is_queued = false;
            // It has its turn again when it has taken, or been sent, what it asked for before.
            let Some(bytes) = bytes else { continue };
            if !is_here {
                // An answer turned out to be long while the connection waited here.
                self.queue(key, since);
                continue;
            }
            let question = busy.waiting.pop_front()?;
            let is_read = question.request.is_read();
            if is_read {
                busy.on_their_way += bytes;
                busy.asked += 1;
                busy.reads_alone |= !question.recovers();
            }
            self.queue(key, now_millis);
            if !is_read {
                self.forget_if_idle(key);
                return Some((key, question, None));
            }
            let may_grow = !is_long && bytes == SHORT_BYTES;
            return Some((key, question, Some(ReadAllowance::new(bytes, may_grow, &self.on_their_way))));
        }
        None
    }

    /// Returns the questions of connections that have waited too long for room, with these connections.
    pub(super) fn take_overdue(&mut self, now_millis: u64) -> Vec<(ConnectionKey, Question)> {
        let mut overdue = Vec::new();
        let Self { queues, busy, .. } = self;
        for queue in queues {
            queue.retain(|&Waiter { item: key, since_millis: since, .. }| {
                let Some(busy) = busy.get_mut(&key) else { return false };
                if since + PATIENCE_MILLIS > now_millis {
                    return true;
                }
                busy.is_queued = false;
                // A subscribe is asked all the same, with room for nothing.
                busy.asked += busy.waiting.iter().filter(|question| question.recovers()).count();
                overdue.extend(busy.waiting.drain(..).map(|question| (key, question)));
                false
            });
        }
        for &(key, _) in &overdue {
            self.forget_if_idle(key);
        }
        overdue
    }

    /// Room for no publication at all.
    pub(super) fn nothing(&self) -> ReadAllowance {
        ReadAllowance::new(0, false, &self.on_their_way)
    }

    /// Questions have waited for room long enough to look for clients that hold it and take nothing, or polls were refused.
    pub(super) fn is_pressing(&self, now_millis: u64) -> bool {
        let since = now_millis.checked_sub(PRESSURE_MILLIS);
        now_millis < self.refused_until_millis
            || since.is_some_and(|since| self.queues.iter().any(|queue| queue.has_waited_since(since)))
    }

    /// An answer came, for which so much was allowed.
    pub(super) fn answered(&mut self, key: ConnectionKey, bytes: usize) {
        if let Some(busy) = self.busy.get_mut(&key) {
            busy.on_their_way = busy.on_their_way.saturating_sub(bytes);
            busy.asked = busy.asked.saturating_sub(1);
            busy.reads_alone &= busy.asked > 0;
        }
        self.forget_if_idle(key);
    }

    /// Forgets a connection that goes. What it would not have read is still to be done.
    pub(super) fn forget(&mut self, key: ConnectionKey) -> impl Iterator<Item = Question> + use<> {
        let waiting = self.take(key).map(|busy| busy.waiting).unwrap_or_default();
        waiting.into_iter().filter(|question| !question.request.is_read())
    }

    /// A request of the connection that reads is not answered, or something else waits.
    pub(super) fn holds_up(&self, key: ConnectionKey) -> bool {
        self.busy.get(&key).is_some_and(|busy| busy.reads_alone || !busy.waiting.is_empty())
    }

    /// Returns the bytes of the bound that are used.
    pub(super) fn used(&self) -> usize {
        self.on_their_way.load(Relaxed) + self.replied
    }

    /// Bytes to allow for the first question of a connection; `None` if it has enough before it.
    fn bytes_for_first(&self, key: ConnectionKey, budget: ReadBudget) -> Option<usize> {
        let busy = self.busy.get(&key)?;
        let question = busy.waiting.front()?;
        if !question.recovers() && busy.asked > 0 {
            return None;
        }
        if !question.request.is_read() {
            return Some(0);
        }
        let bytes_max = match question.recovers() {
            true => self.recovery_bytes_max.saturating_sub(budget.recovered),
            false => self.answer_bytes_max,
        };
        let bytes = if question.is_long { bytes_max } else { bytes_max.min(SHORT_BYTES) };
        let before = budget.unread + busy.on_their_way;
        let may =
            (before == 0 && busy.asked == 0) || (before + bytes <= budget.unread_max && !self.is_scarce());
        may.then_some(bytes)
    }

    /// Long answers leave a quarter of the bound to short ones.
    fn has_room(&self, is_long: bool, bytes: usize) -> bool {
        let bytes_max = if is_long { self.bytes_max / 4 * 3 } else { self.bytes_max };
        bytes == 0 || self.used() + bytes <= bytes_max
    }

    fn forget_if_idle(&mut self, key: ConnectionKey) {
        if self.busy.get(&key).is_some_and(|busy| busy.asked == 0 && busy.waiting.is_empty()) {
            self.take(key);
        }
    }

    fn take(&mut self, key: ConnectionKey) -> Option<Busy> {
        let busy = if self.busy.is_empty() { None } else { self.busy.remove(&key) };
        self.busy.give_back();
        busy
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanwire_protocol::{ClientId, ClientInfo};
    use uuid::Uuid;

    use super::*;

    const LONG: usize = 1 << 20;
    const ALONE: ReadBudget = ReadBudget { unread: 0, unread_max: 512 << 10, recovered: 0 };

    fn reads() -> AnswerRoom {
        let settings = ClientSettings {
            answer_bytes_max: LONG,
            recovery_bytes_max: 4 * LONG,
            ..ClientSettings::default()
        };
        AnswerRoom::new(&settings)
    }

    fn nobody() -> User {
        User::default()
    }

    fn key(slot: u32) -> ConnectionKey {
        ConnectionKey { slot, generation: 1 }
    }

    fn presence(id: u32) -> Question {
        Question::new(TopicName::new("a").unwrap(), TopicRequest::Presence { id })
    }

    fn long(id: u32) -> Question {
        Question { is_long: true, ..presence(id) }
    }

    fn id(question: &Question) -> u32 {
        match question.request {
            TopicRequest::Presence { id } => id,
            _ => panic!("not asked here"),
        }
    }

    #[test]
    fn connections_take_turns() {
        let mut reads = reads();
        for number in 0..3 {
            reads.enter(key(1), nobody(), presence(number), 0);
        }
        reads.enter(key(2), nobody(), presence(9), 0);
        let mut asked = Vec::new();
        let mut allowances = Vec::new();
        loop {
            while let Some((key, question, allowance)) = reads.next(|_| Some(ALONE), 0) {
                asked.push((key.slot, id(&question)));
                let allowance = allowance.unwrap();
                assert_eq!((allowance.bytes(), allowance.may_grow()), (SHORT_BYTES, true));
                allowances.push((key, allowance));
            }
            assert_eq!(reads.used(), allowances.len() * SHORT_BYTES);
            let Some((key, allowance)) = allowances.pop() else { break };
            reads.answered(key, allowance.bytes());
            reads.queue(key, 0);
        }
        assert_eq!(asked, [(1, 0), (2, 9), (1, 1), (1, 2)]);
        assert_eq!(reads.used(), 0);
    }

    #[test]
    fn a_connection_has_one_long_answer_in_work() {
        let mut reads = reads();
        reads.enter(key(1), nobody(), long(2), 0);
        reads.enter(key(1), nobody(), long(1), 0);
        let (_, question, allowance) = reads.next(|_| Some(ALONE), 0).unwrap();
        let allowance = allowance.unwrap();
        assert_eq!((id(&question), allowance.bytes(), allowance.may_grow()), (1, LONG, false));
        assert!(reads.next(|_| Some(ALONE), 0).is_none());
        // The answer has come, and has to be taken first.
        reads.answered(key(1), allowance.bytes());
        drop(allowance);
        reads.queue(key(1), 0);
        assert!(reads.next(|_| Some(ReadBudget { unread: 1, ..ALONE }), 0).is_none());
        reads.queue(key(1), 0);
        assert!(reads.next(|_| Some(ALONE), 0).is_some());
        assert!(reads.holds_up(key(1)));
    }

    #[test]
    fn the_shard_has_so_much_in_work_and_keeps_some_for_short_answers() {
        let mut reads = reads();
        let mut allowances = Vec::new();
        for slot in 0..100 {
            reads.enter(key(slot), nobody(), long(0), 0);
        }
        allowances.extend(std::iter::from_fn(|| reads.next(|_| Some(ALONE), 0)));
        assert_eq!(allowances.len() * LONG, BYTES_MAX / 4 * 3);
        assert!(
            reads.is_scarce()
                && reads.is_pressing(PRESSURE_MILLIS)
                && !reads.is_pressing(PRESSURE_MILLIS - 1)
        );
        // What was answered counts until sockets have taken it.
        reads.replied = LONG;
        allowances.pop();
        assert!(reads.next(|_| Some(ALONE), 0).is_none());
        reads.replied = 0;
        allowances.extend(reads.next(|_| Some(ALONE), 0));
        // Those that wait give up.
        // Short ones still go.
        for number in 0..1000 {
            reads.enter(key(1000 + number), nobody(), presence(number), 1);
        }
        let short: Vec<_> = std::iter::from_fn(|| reads.next(|_| Some(ALONE), 1)).collect();
        assert_eq!(short.len(), BYTES_MAX / 4 / SHORT_BYTES);
        // Those that wait give up together, whoever has gone meanwhile and stands before them.
        let mut gone = Vec::new();
        reads.queues[1].retain(|waiter| {
            gone.push(waiter.item);
            true
        });
        gone.into_iter().take(10).for_each(|key| assert_eq!(reads.forget(key).count(), 0));
        let overdue = reads.take_overdue(PATIENCE_MILLIS);
        assert_eq!(overdue.len() + 10 + allowances.len() + 1, 100);
        assert_eq!(reads.take_overdue(PATIENCE_MILLIS + 1).len(), 1000 - short.len());
        assert!(reads.queues.iter().all(|queue| queue.front().is_none()));
    }

    #[test]
    fn what_comes_behind_a_command_that_reads_is_asked_behind_it() {
        let mut reads = reads();
        reads.enter(key(1), nobody(), presence(1), 0);
        let (_, _, allowance) = reads.next(|_| Some(ALONE), 0).unwrap();
        let publish = |data: &'static str| {
            let info = ClientInfo {
                user: "".into(),
                client: ClientId(Uuid::nil()),
                connection: Bytes::new(),
                subscription: Bytes::new(),
            };
            let request = TopicRequest::Publish {
                id: 2,
                data: data.into(),
                tags: None,
                info: info.into(),
                options: None,
            };
            Question::new(TopicName::new("a").unwrap(), request)
        };
        reads.enter(key(1), nobody(), publish("1"), 0);
        reads.enter(key(1), nobody(), presence(3), 0);
        reads.enter(key(1), nobody(), publish("2"), 0);
        assert!(reads.next(|_| Some(ALONE), 0).is_none());
        // The answer is longer, and is asked for again before the others.
        reads.answered(key(1), allowance.unwrap().bytes());
        reads.enter(key(1), nobody(), long(1), 0);
        let (_, question, allowance) = reads.next(|_| Some(ALONE), 0).unwrap();
        assert_eq!(id(&question), 1);
        assert!(reads.next(|_| Some(ALONE), 0).is_none());
        reads.answered(key(1), allowance.unwrap().bytes());
        reads.queue(key(1), 0);
        let (_, question, allowance) = reads.next(|_| Some(ALONE), 0).unwrap();
        assert!(matches!(question.request, TopicRequest::Publish { .. }) && allowance.is_none());
        let (_, question, _allowance) = reads.next(|_| Some(ALONE), 0).unwrap();
        assert_eq!(id(&question), 3);
        assert!(reads.next(|_| Some(ALONE), 0).is_none());
        // It goes, and what it published is not lost.
        assert_eq!(reads.forget(key(1)).count(), 1);
        assert!(!reads.holds_up(key(1)));
    }

    #[test]
    fn nothing_is_kept_of_connections_that_have_gone() {
        let mut reads = reads();
        reads.enter(key(1), nobody(), presence(1), 0);
        reads.enter(key(2), nobody(), presence(1), 0);
        assert_eq!(reads.forget(key(1)).count(), 0);
        assert!(reads.next(|_| None, 0).is_none());
        assert!(reads.busy.is_empty() && reads.queues.iter().all(|queue| queue.front().is_none()));
        reads.enter(key(3), nobody(), presence(1), 0);
        let (_, _, allowance) = reads.next(|_| Some(ALONE), 0).unwrap();
        reads.answered(key(3), allowance.unwrap().bytes());
        assert!(reads.busy.is_empty());
    }
}
