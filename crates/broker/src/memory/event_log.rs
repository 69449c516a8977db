//! The events of topics' members, and the vacancies that are not said yet: what a node knows of both, bounded in bytes.
//!
//! Ids grow over all outboxes, and an outbox loses only its first events.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::Left;
use fanwire_protocol::{ClientInfo, EventMask, TopicName};
use rustc_hash::FxBuildHasher;
use tokio::time::Instant;

use super::dead_letters::DeadLetters;
use super::{deadline, event_bytes};
use crate::contract::Member;
use crate::outbox::{Backlog, EventId, EventKind, OutboxOptions, Refusal, StoredEvent};
use crate::wall_clock;

/// Begins the name of a topic that has a user's connections for members. Those of the cluster's own begin with `!`.
const USER_TOPIC: &str = "!user:";

/// Outboxes: an event that the application does not take holds up those of its own alone.
const OUTBOXES: u64 = 256;

pub(super) struct EventLog {
    options: OutboxOptions,
    /// Those with events, by their number.
    outboxes: HashMap<u16, VecDeque<StoredEvent>, FxBuildHasher>,
    events: usize,
    bytes: usize,
    /// The events in their order, with the time until which each is kept, and some that are not there any more.
    ages: VecDeque<(Instant, EventId)>,
    last: (u64, u64),
    /// Topics that are vacant if nobody joins before.
    pending: HashMap<TopicName, (Instant, EventMask)>,
    /// The same by time, with some that are not pending any more.
    due: VecDeque<(Instant, TopicName)>,
    due_bytes: usize,
    letters: DeadLetters,
    /// Events that nobody took in time, since the last look.
    dropped: u64,
}

impl EventLog {
    pub(super) fn new(options: OutboxOptions) -> Self {
        Self {
            options,
            outboxes: HashMap::default(),
            events: 0,
            bytes: 0,
            ages: VecDeque::new(),
            last: (0, 0),
            pending: HashMap::new(),
            due: VecDeque::new(),
            due_bytes: 0,
            letters: DeadLetters::new(options),
            dropped: 0,
        }
    }

    pub(super) fn slots(&self) -> Vec<u16> {
        self.outboxes.keys().copied().collect()
    }

    pub(super) fn read(&self, slot: u16, events_max: usize) -> Vec<StoredEvent> {
        self.outboxes.get(&slot).into_iter().flatten().take(events_max).cloned().collect()
    }

    pub(super) fn remove(&mut self, last: EventId) {
        while self.first_of(last.slot).is_some_and(|first| first <= last) {
            self.remove_first(last.slot);
        }
        self.forget_removed();
    }

    /// Counts what is there, and what was dropped since the last count.
    pub(super) fn take_backlog(&mut self) -> Backlog {
        self.forget_removed();
        let (dead_letters, oldest_dead_letter) = self.letters.backlog();
        Backlog {
            events: self.events as u64,
            dropped: std::mem::take(&mut self.dropped),
            oldest: self.ages.front().map(|(_, id)| id.millis),
            dead_letters,
            oldest_dead_letter,
        }
    }

    pub(super) fn letters(&mut self) -> &mut DeadLetters {
        &mut self.letters
    }

    pub(super) fn bury(&mut self, event: &StoredEvent, refusal: Refusal) {
        self.letters.bury(wall_clock::now(), event.clone(), refusal);
        self.enforce_bound();
    }

    /// A member was added; there were `others` before it.
    pub(super) fn joined(&mut self, topic: &TopicName, member: &Member, others: usize) {
        if others == 0 {
            let returns = self.pending.remove(topic).is_some();
            self.pending.give_back();
            if !returns {
                self.write_state(topic, member.events, EventMask::OCCUPIED);
            }
        }
        self.write(topic, member.events, EventMask::JOIN, Some(&member.info), None);
        self.enforce_bound();
    }

    /// A member was removed; `others` are left.
    pub(super) fn left(&mut self, topic: &TopicName, member: &Member, left: &Left, others: usize) {
        let Member { info, events, .. } = member;
        self.write(topic, *events, EventMask::LEAVE, Some(info), Some(left));
        let tells_state = events.contains(EventMask::OCCUPIED) || events.contains(EventMask::VACATED);
        if others == 0 && tells_state {
            self.vacate(topic, *events);
        }
        self.enforce_bound();
    }

    fn vacate(&mut self, topic: &TopicName, events: EventMask) {
        if self.options.offline_delay.is_zero() {
            return self.write_state(topic, events, EventMask::VACATED);
        }
        let due = deadline(Instant::now(), self.options.offline_delay);
        self.pending.insert(topic.clone(), (due, events));
        self.due_bytes += due_bytes(topic);
        self.due.push_back((due, topic.clone()));
    }

    /// Says at most that many vacancies that are due. Returns true if there are more.
    pub(super) fn say_due(&mut self, now: Instant, max: usize) -> bool {
        let is_due = |log: &Self| log.due.front().is_some_and(|(due, _)| *due <= now);
        for _ in 0..max {
            if !is_due(self) {
                break;
            }
            self.say_first();
        }
        self.enforce_bound();
        self.pending.give_back();
        self.due.give_back();
        is_due(self)
    }

    pub(super) fn say_all(&mut self) {
        while !self.due.is_empty() {
            self.say_first();
        }
        self.enforce_bound();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Says the vacancy that is due first.
    fn say_first(&mut self) {
        let Some((due, topic)) = self.due.pop_front() else { return };
        self.due_bytes -= due_bytes(&topic);
        // It may have been vacant, occupied and vacant again.
        if let Some((pending, events)) = self.pending.get(&topic).copied()
            && pending == due
        {
            self.pending.remove(&topic);
            self.write_state(&topic, events, EventMask::VACATED);
        }
    }

    /// Drops at most that many events that are older than the retention. Returns true if there are more.
    pub(super) fn drop_old(&mut self, now: Instant, max: usize) -> bool {
        let is_old = |log: &Self| log.ages.front().is_some_and(|(until, _)| *until <= now);
        for _ in 0..max {
            if !is_old(self) {
                break;
            }
            self.drop_first();
        }
        self.forget_removed();
        is_old(self)
    }

    /// Says vacancies before they are due while they have more than half of the bytes, and drops the oldest events beyond
    /// the bound. Dead letters have their own bound within it.
    fn enforce_bound(&mut self) {
        let bytes_max = self.options.bytes_max;
        while self.due_bytes > bytes_max / 2 {
            self.say_first();
        }
        while self.bytes + self.due_bytes + self.letters.bytes() > bytes_max && self.drop_first() {}
    }

    /// Drops the oldest event. Returns false if there is none.
    fn drop_first(&mut self) -> bool {
        let Some((_, id)) = self.ages.pop_front() else { return false };
        if self.first_of(id.slot) == Some(id) {
            self.remove_first(id.slot);
            self.dropped += 1;
        }
        true
    }

    fn first_of(&self, slot: u16) -> Option<EventId> {
        Some(self.outboxes.get(&slot)?.front()?.id)
    }

    fn remove_first(&mut self, slot: u16) {
        let Some(outbox) = self.outboxes.get_mut(&slot) else { return };
        if let Some(event) = outbox.pop_front() {
            self.bytes -= event_bytes(&event);
            self.events -= 1;
        }
        outbox.give_back();
        if outbox.is_empty() {
            self.outboxes.remove(&slot);
        }
    }

    /// Removes from the ages what is not there any more: at the front, and everywhere once it is half of them.
    fn forget_removed(&mut self) {
        const KEPT: usize = 64;
        while self.ages.front().is_some_and(|(_, id)| !self.has(*id)) {
            self.ages.pop_front();
        }
        if self.ages.len() > 2 * self.events + KEPT {
            let mut ages = std::mem::take(&mut self.ages);
            ages.retain(|(_, id)| self.has(*id));
            self.ages = ages;
        }
        self.ages.give_back();
    }

    fn has(&self, id: EventId) -> bool {
        self.first_of(id.slot).is_some_and(|first| first <= id)
    }

    fn write_state(&mut self, topic: &TopicName, mask: EventMask, event: EventMask) {
        self.write(topic, mask, event, None, None);
    }

    fn write(
        &mut self,
        topic: &TopicName,
        mask: EventMask,
        event: EventMask,
        info: Option<&ClientInfo>,
        left: Option<&Left>,
    ) {
        if !mask.contains(event) {
            return;
        }
        let name = topic.as_str();
        let is_of_user = name.starts_with('!');
        let user = match info {
            Some(info) => Some(info.user.clone()),
            None => name.strip_prefix(USER_TOPIC).map(Box::from),
        };
        let slot = (FxBuildHasher.hash_one(name) % OUTBOXES) as u16;
        let time = wall_clock::millis(wall_clock::now());
        let id = self.next_id(slot, time as u64);
        let stored = StoredEvent {
            id,
            kind: kind(event, is_of_user),
            time,
            topic: (!is_of_user).then(|| topic.clone()),
            user,
            client: info.map(|info| info.client),
            reason: left.map(codes::left).map(|(code, text)| (code, text.into())),
        };
        self.bytes += event_bytes(&stored);
        self.events += 1;
        self.ages.push_back((deadline(Instant::now(), self.options.retention), id));
        self.outboxes.entry(slot).or_default().push_back(stored);
    }

    fn next_id(&mut self, slot: u16, now: u64) -> EventId {
        // The clock may be set back.
        let (millis, sequence) = self.last;
        self.last = if now > millis { (now, 0) } else { (millis, sequence + 1) };
        let (millis, sequence) = self.last;
        EventId { slot, millis, sequence }
    }
}

fn kind(event: EventMask, is_of_user: bool) -> EventKind {
    match (event, is_of_user) {
        (EventMask::JOIN, true) => EventKind::Connected,
        (EventMask::LEAVE, true) => EventKind::Disconnected,
        (EventMask::OCCUPIED, true) => EventKind::UserOnline,
        (_, true) => EventKind::UserOffline,
        (EventMask::JOIN, false) => EventKind::Subscribed,
        (EventMask::LEAVE, false) => EventKind::Unsubscribed,
        (EventMask::OCCUPIED, false) => EventKind::TopicOccupied,
        (_, false) => EventKind::TopicVacated,
    }
}

fn due_bytes(topic: &TopicName) -> usize {
    /// Both entries, and allocator overhead.
    const OVERHEAD: usize = 160;

    OVERHEAD + topic.as_str().len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use fanwire_protocol::ClientId;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Join(u8),
        /// Takes that many events of an outbox.
        Take(u8, usize),
        DropOld(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..40_u8).prop_map(Step::Join),
            2 => (0..40_u8, 1..4_usize).prop_map(|(slot, count)| Step::Take(slot, count)),
            1 => (0..3_usize).prop_map(Step::DropOld),
        ]
    }

    fn member(number: usize) -> Member {
        let (user, client) = ("u".into(), ClientId(Uuid::from_u128(number as u128)));
        let info = ClientInfo { user, client, connection: Bytes::new(), subscription: Bytes::new() };
        Member::new(info.into(), false).with_events(EventMask::JOIN)
    }

    proptest! {
        /// Against a plain list.
        #[test]
        fn a_log_is_a_list(steps in proptest::collection::vec(step(), 0..400)) {
            const EVENTS_MAX: usize = 100;
            let bytes_max = EVENTS_MAX * 259;
            let options = OutboxOptions { bytes_max, retention: Duration::ZERO, ..OutboxOptions::default() };
            let mut log = EventLog::new(options);
            let mut list: Vec<EventId> = Vec::new();
            let mut dropped = 0;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Join(topic) => {
                        let topic = TopicName::new(&format!("{topic:02}")).unwrap();
                        log.joined(&topic, &member(number), 1);
                        list.push(log.ages.back().unwrap().1);
                        if list.len() > EVENTS_MAX {
                            list.remove(0);
                            dropped += 1;
                        }
                    }
                    Step::Take(slot, count) => {
                        let slots = log.slots();
                        let Some(slot) = slots.get(usize::from(slot) % slots.len().max(1)) else { continue };
                        let read: Vec<_> = log.read(*slot, count).iter().map(|event| event.id).collect();
                        let of_slot = list.iter().copied().filter(|id| id.slot == *slot);
                        prop_assert_eq!(&read, &of_slot.take(count).collect::<Vec<_>>());
                        log.remove(*read.last().unwrap());
                        list.retain(|id| !read.contains(id));
                    }
                    Step::DropOld(count) => {
                        // One that is not there any more counts too.
                        let before = log.events;
                        log.drop_old(Instant::now(), count);
                        list.drain(..before - log.events);
                        dropped += (before - log.events) as u64;
                    }
                }
                prop_assert_eq!(log.events, list.len());
                prop_assert_eq!(log.bytes, list.len() * 259);
                prop_assert_eq!(log.dropped, dropped);
                prop_assert!(log.ages.len() <= 2 * log.events + 65, "{} ages", log.ages.len());
                prop_assert!(list.is_sorted_by_key(|id| (id.millis, id.sequence)));
                let ages = log.ages.iter().map(|(_, id)| *id).filter(|id| log.has(*id));
                prop_assert_eq!(&ages.collect::<Vec<_>>(), &list);
            }
        }
    }
}
