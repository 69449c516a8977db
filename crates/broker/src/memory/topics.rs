//! All topics of the engine: subscription, members and stream.
//!
//! A topic in the table is not empty. Expired data is removed at the next access or by the sweep.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::{ClientId, Position, Publication, TopicName};
use tokio::time::Instant;

use super::life::{Life, YOUNG_FOR};
use super::retention::Retention;
use super::stream::{Stream, Version};
use super::{MemorySettings, deadline};
use crate::contract::{HistoryOptions, Member, UNPUBLISHED_META_TTL_MAX, Usage};
use crate::members::Members;

pub(super) struct TopicTable {
    /// Clients choose topic names, so a fast hash is not safe here.
    topics: HashMap<TopicName, TopicEntry>,
    retention: Retention,
    /// Publications and positions evicted since the start.
    evicted: u64,
    forgotten: u64,
}

/// The result of an append.
pub(super) enum Appended {
    /// The publication is stored at this position.
    Kept(Arc<Publication>, Position),
    /// The version is not newer than the last one. The position is the stream's top.
    OldVersion(Position),
}

/// The parts are boxed, since most topics have only one or two of them.
#[derive(Default)]
struct TopicEntry {
    subscribed: bool,
    stream: Option<Box<Life>>,
    members: Option<Box<Members>>,
}

impl TopicTable {
    pub(super) fn new(settings: &MemorySettings) -> Self {
        Self {
            topics: HashMap::new(),
            retention: Retention::new(settings.history_bytes_max),
            evicted: 0,
            forgotten: 0,
        }
    }

    pub(super) fn subscribe(&mut self, topic: &TopicName) {
        let state = self.topics.entry(topic.clone()).or_default();
        state.subscribed = true;
        if let Some(life) = &mut state.stream {
            self.retention.classify(topic, life, true, Instant::now());
        }
    }

    pub(super) fn unsubscribe(&mut self, topic: &TopicName) {
        if let Some(state) = self.topics.get_mut(topic) {
            state.subscribed = false;
            if let Some(life) = &mut state.stream {
                self.retention.classify(topic, life, false, Instant::now());
            }
        }
        self.change(topic, |_| ());
    }

    pub(super) fn is_subscribed(&self, topic: &TopicName) -> bool {
        self.topics.get(topic).is_some_and(|state| state.subscribed)
    }

    /// Stores a publication under the next offset, unless its version is old.
    pub(super) fn append(
        &mut self,
        topic: &TopicName,
        now: Instant,
        publication: Publication,
        version: Version,
        options: HistoryOptions,
    ) -> Appended {
        let (life, retention) = self.open(topic, now, options.meta_ttl);
        if life.stream.has_seen(&version) {
            return Appended::OldVersion(life.stream.top());
        }
        let before = life.stream.version_bytes();
        let publication = life.stream.append(publication, version);
        retention.set_bytes(life, life.bytes - before + life.stream.version_bytes());
        retention.keep(topic, life, &publication, deadline(now, options.ttl));
        while life.stream.len() > options.size && retention.release_oldest(topic, life) {}
        let position = life.stream.top();
        self.enforce_bound(now);
        Appended::Kept(publication, position)
    }

    /// Reads the topic's stream, which is created if there is none.
    pub(super) fn read<R>(
        &mut self,
        topic: &TopicName,
        now: Instant,
        meta_ttl: Duration,
        read: impl FnOnce(&Stream) -> R,
    ) -> R {
        let is_published = |life: &Life| life.expires > now && life.stream.top().offset > 0;
        let life = self.topics.get(topic).and_then(|state| state.stream.as_deref());
        let meta_ttl =
            if life.is_some_and(is_published) { meta_ttl } else { meta_ttl.min(UNPUBLISHED_META_TTL_MAX) };
        let (life, _) = self.open(topic, now, meta_ttl);
        let answer = read(&life.stream);
        self.enforce_bound(now);
        answer
    }

    pub(super) fn remove_history(&mut self, topic: &TopicName) {
        if let Some(life) = self.topics.get_mut(topic).and_then(|state| state.stream.as_mut()) {
            self.retention.release_history(topic, life);
        }
    }

    pub(super) fn add_member(&mut self, topic: &TopicName, member: Member) {
        let state = self.topics.entry(topic.clone()).or_default();
        state.members.get_or_insert_default().add(member);
    }

    pub(super) fn remove_member(&mut self, topic: &TopicName, client: ClientId) -> Option<Member> {
        let mut removed = None;
        self.change(topic, |state| {
            if let Some(members) = &mut state.members {
                removed = members.remove(client);
                if members.is_empty() {
                    state.members = None;
                }
            }
        });
        removed
    }

    pub(super) fn members(&self, topic: &TopicName) -> Option<&Members> {
        self.topics.get(topic)?.members.as_deref()
    }

    /// Releases about `max` expired topics and publications at most; returns how many.
    pub(super) fn sweep(&mut self, now: Instant, max: usize) -> usize {
        let mut released = 0;
        while released < max
            && let Some(topic) = self.retention.stream_past(now)
        {
            released += 1 + self.drop_stream(&topic);
        }
        while released < max
            && let Some(topic) = self.retention.history_past(now)
        {
            let life = self.topics.get_mut(&topic).and_then(|state| state.stream.as_mut());
            let life = life.expect("only streams have history due");
            released += 1 + self.retention.release_history(&topic, life);
        }
        self.topics.give_back();
        released
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            topics: self.topics.len(),
            streams: self.retention.streams,
            publications: self.retention.publications,
            bytes: self.retention.bytes,
            evicted: self.evicted,
            forgotten: self.forgotten,
        }
    }

    /// Returns the topic's stream, created if there is none, without expired data, kept for another `meta_ttl`.
    fn open(&mut self, topic: &TopicName, now: Instant, meta_ttl: Duration) -> (&mut Life, &mut Retention) {
        let Self { topics, retention, .. } = self;
        let state = topics.entry(topic.clone()).or_default();
        if let Some(life) = &mut state.stream {
            if life.expires <= now {
                retention.forget(topic, life);
                state.stream = None;
            } else if life.history_expires <= now {
                retention.release_history(topic, life);
            }
        }
        let is_subscribed = state.subscribed;
        let life = state.stream.get_or_insert_with(|| Box::new(retention.make(topic, is_subscribed, now)));
        retention.use_again(topic, life, is_subscribed, now, meta_ttl);
        (life, retention)
    }

    /// Evicts until the engine is within its bound.
    fn enforce_bound(&mut self, now: Instant) {
        if !self.retention.is_over() {
            return;
        }
        self.let_grow_old(now);
        while self.retention.is_over()
            && let Some(topic) = self.retention.victim()
        {
            let life = self.topics.get_mut(&topic).and_then(|state| state.stream.as_mut());
            let life = life.expect("victims are streams");
            if self.retention.release_oldest(&topic, life) {
                self.evicted += 1;
            } else {
                self.drop_stream(&topic);
                self.forgotten += 1;
            }
        }
    }

    /// Reclassifies streams that are no longer young.
    fn let_grow_old(&mut self, now: Instant) {
        while let Some(topic) = self.retention.oldest_young() {
            let state = self.topics.get_mut(&topic).expect("the young are streams");
            let life = state.stream.as_mut().expect("the young are streams");
            if life.created + YOUNG_FOR > now {
                return;
            }
            self.retention.classify(&topic, life, state.subscribed, now);
        }
    }

    /// Removes the topic's position and history; returns the number of publications.
    fn drop_stream(&mut self, topic: &TopicName) -> usize {
        let mut life = self.topics.get_mut(topic).and_then(|state| state.stream.take());
        let dropped = self.retention.forget(topic, life.as_mut().expect("only streams are due"));
        self.change(topic, |_| ());
        dropped
    }

    /// Changes a topic if it is known, and removes it if it is empty afterwards.
    fn change(&mut self, topic: &TopicName, change: impl FnOnce(&mut TopicEntry)) {
        if let Entry::Occupied(mut entry) = self.topics.entry(topic.clone()) {
            change(entry.get_mut());
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

impl TopicEntry {
    fn is_empty(&self) -> bool {
        !self.subscribed && self.stream.is_none() && self.members.is_none()
    }
}
