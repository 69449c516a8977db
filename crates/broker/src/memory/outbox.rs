//! The events of the engine's topics, bounded in bytes and in time. They are lost when the process ends.

use std::collections::{HashMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::Left;
use fanwire_protocol::{ClientInfo, EventMask, TopicName};
use tokio::time::Instant;

use super::deadline;
use crate::contract::Member;
use crate::outbox::{EventId, EventKind, OutboxOptions, StoredEvent};

/// Begins the name of a topic that has a user's connections for members. Those of the cluster's own begin with `!`.
const USER_TOPIC: &str = "!user:";

pub(super) struct EventLog {
    options: OutboxOptions,
    slot: u16,
    /// With the time until which each is kept.
    events: VecDeque<(Instant, StoredEvent)>,
    bytes: usize,
    last: (u64, u64),
    /// Topics that are vacant if nobody joins before.
    pending: HashMap<TopicName, (Instant, EventMask)>,
    /// The same by time, with those whose vacancy is not pending any more.
    due: VecDeque<(Instant, TopicName)>,
}

impl EventLog {
    pub(super) fn new(options: OutboxOptions, slot: u16) -> Self {
        Self {
            options,
            slot,
            events: VecDeque::new(),
            bytes: 0,
            last: (0, 0),
            pending: HashMap::new(),
            due: VecDeque::new(),
        }
    }

    pub(super) fn slots(&self) -> Vec<u16> {
        if self.events.is_empty() { Vec::new() } else { vec![self.slot] }
    }

    pub(super) fn read(&self, slots: &[u16], events_max: usize) -> Vec<StoredEvent> {
        let events = self.events.iter().filter(|_| slots.contains(&self.slot)).take(events_max);
        events.map(|(_, event)| event.clone()).collect()
    }

    pub(super) fn remove(&mut self, last: EventId) {
        while self.events.front().is_some_and(|(_, event)| event.id <= last) {
            self.drop_oldest();
        }
        self.events.give_back();
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
    }

    /// A member was removed; `others` are left.
    pub(super) fn left(&mut self, topic: &TopicName, member: &Member, left: &Left, others: usize) {
        let Member { info, events, .. } = member;
        self.write(topic, *events, EventMask::LEAVE, Some(info), Some(left));
        let tells_state = events.contains(EventMask::OCCUPIED) || events.contains(EventMask::VACATED);
        if others > 0 || !tells_state {
            return;
        }
        if self.options.offline_delay.is_zero() {
            return self.write_state(topic, *events, EventMask::VACATED);
        }
        let due = deadline(Instant::now(), self.options.offline_delay);
        self.pending.insert(topic.clone(), (due, *events));
        self.due.push_back((due, topic.clone()));
    }

    /// Says which vacancies are due, and drops events that are too old.
    pub(super) fn sweep(&mut self, now: Instant) {
        while self.due.front().is_some_and(|(due, _)| *due <= now)
            && let Some((due, topic)) = self.due.pop_front()
        {
            // It may have been vacant, occupied and vacant again.
            if let Some((pending, events)) = self.pending.get(&topic).copied()
                && pending == due
            {
                self.pending.remove(&topic);
                self.write_state(&topic, events, EventMask::VACATED);
            }
        }
        while self.events.front().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest();
        }
        self.pending.give_back();
        self.due.give_back();
        self.events.give_back();
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
        let (id, time) = self.next_id();
        let stored = StoredEvent {
            id,
            kind: kind(event, is_of_user),
            time,
            topic: (!is_of_user).then(|| topic.clone()),
            user,
            client: info.map(|info| info.client),
            reason: left.map(codes::left).map(|(code, text)| (code, text.into())),
        };
        self.bytes += bytes(&stored);
        self.events.push_back((deadline(Instant::now(), self.options.retention), stored));
        while self.bytes > self.options.bytes_max {
            self.drop_oldest();
        }
    }

    fn next_id(&mut self) -> (EventId, i64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        // The clock may be set back.
        let (millis, sequence) = self.last;
        self.last = if now > millis { (now, 0) } else { (millis, sequence + 1) };
        let (millis, sequence) = self.last;
        (EventId { slot: self.slot, millis, sequence }, now as i64)
    }

    fn drop_oldest(&mut self) {
        if let Some((_, event)) = self.events.pop_front() {
            self.bytes -= bytes(&event);
        }
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

fn bytes(event: &StoredEvent) -> usize {
    /// The struct and allocator overhead.
    const OVERHEAD: usize = 192;

    let topic = event.topic.as_ref().map_or(0, |topic| topic.as_str().len());
    let user = event.user.as_ref().map_or(0, |user| user.len());
    OVERHEAD + topic + user + event.reason.as_ref().map_or(0, |(_, text)| text.len())
}
