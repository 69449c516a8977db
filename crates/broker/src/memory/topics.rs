//! All topics of the engine, and the orders in which their history and positions end.
//!
//! Invariants: a topic in the table holds something; a stream is in `streams_due` once, and in `history_due`
//! exactly when it keeps publications; `kept` counts what the streams keep. What has expired is dropped when it
//! is next looked at, or by the sweep, whichever comes first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::{ClientId, Epoch, Position, Publication, TopicName};
use tokio::time::Instant;

use super::due::{Appointment, Due};
use super::stream::{Stream, Version};
use super::{MemorySettings, deadline};
use crate::capacity::shrunk_capacity;
use crate::engine::Usage;
use crate::history::UNPUBLISHED_META_TTL_MAX;
use crate::members::{Member, Members};
use crate::publish::HistoryOptions;

pub(super) struct Topics {
    history_bytes_max: usize,
    streams_max: usize,
    /// Clients choose topic names, so this is no place for a fast hash.
    topics: HashMap<TopicName, Topic>,
    history_due: Due,
    streams_due: Due,
    kept: Kept,
    /// Publications that the limits cost, since the start.
    evicted: u64,
}

/// What became of a publication for the history.
pub(super) enum Appended {
    /// It is kept, at this position.
    Kept(Arc<Publication>, Position),
    /// It is not newer than the last one; the stream's top is here.
    OldVersion(Position),
}

/// Boxed parts: most topics have only one or two of them.
#[derive(Default)]
struct Topic {
    subscribed: bool,
    stream: Option<Box<Life>>,
    members: Option<Box<Members>>,
}

/// A stream and how long it lives.
struct Life {
    stream: Stream,
    /// When the publications go, all together.
    history_expires: Instant,
    history_due: Appointment,
    /// When epoch and top go.
    expires: Instant,
    due: Appointment,
}

/// What all streams keep together.
#[derive(Default)]
struct Kept {
    publications: usize,
    bytes: usize,
}

impl Topics {
    pub(super) fn new(settings: &MemorySettings) -> Self {
        let now = Instant::now();
        Self {
            history_bytes_max: settings.history_bytes_max,
            streams_max: settings.streams_max,
            topics: HashMap::new(),
            history_due: Due::new(now),
            streams_due: Due::new(now),
            kept: Kept::default(),
            evicted: 0,
        }
    }

    pub(super) fn subscribe(&mut self, topic: &TopicName) {
        self.topics.entry(topic.clone()).or_default().subscribed = true;
    }

    pub(super) fn unsubscribe(&mut self, topic: &TopicName) {
        self.change(topic, |state| state.subscribed = false);
    }

    pub(super) fn is_subscribed(&self, topic: &TopicName) -> bool {
        self.topics.get(topic).is_some_and(|state| state.subscribed)
    }

    /// Keeps a publication under the next offset, unless its version is old.
    pub(super) fn append(
        &mut self,
        topic: &TopicName,
        now: Instant,
        publication: Publication,
        version: Version,
        options: HistoryOptions,
    ) -> Appended {
        self.open(topic, now, options.meta_ttl);
        let Self { topics, history_due, kept, .. } = self;
        let life = topics.get_mut(topic).and_then(|state| state.stream.as_mut()).expect("opened above");
        if life.stream.has_seen(&version) {
            return Appended::OldVersion(life.stream.top());
        }
        let publication = life.stream.append(publication, version);
        kept.add(&publication);
        life.history_expires = deadline(now, options.ttl);
        history_due.set(topic, &mut life.history_due, life.history_expires);
        while life.stream.len() > options.size
            && let Some(oldest) = life.stream.pop_oldest()
        {
            kept.remove(&oldest);
        }
        if life.stream.len() == 0 {
            history_due.cancel(topic, &mut life.history_due);
        }
        let position = life.stream.top();
        self.enforce_limits();
        Appended::Kept(publication, position)
    }

    /// Reads the topic's stream, which begins now if there is none.
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
        self.open(topic, now, meta_ttl);
        let life = self.topics.get(topic).and_then(|state| state.stream.as_ref()).expect("opened above");
        let answer = read(&life.stream);
        self.enforce_limits();
        answer
    }

    pub(super) fn remove_history(&mut self, topic: &TopicName) {
        if let Some(life) = self.topics.get_mut(topic).and_then(|state| state.stream.as_mut()) {
            life.drop_history(topic, &mut self.history_due, &mut self.kept);
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

    /// Releases what has expired until about `max` topics and publications are gone; returns how many are.
    pub(super) fn sweep(&mut self, now: Instant, max: usize) -> usize {
        let mut released = 0;
        while released < max
            && let Some(topic) = self.streams_due.first_past(now)
        {
            released += 1 + self.drop_stream(&topic);
        }
        while released < max
            && let Some(topic) = self.history_due.first_past(now)
        {
            let life = self.topics.get_mut(&topic).and_then(|state| state.stream.as_mut());
            let life = life.expect("only streams have history due");
            released += 1 + life.drop_history(&topic, &mut self.history_due, &mut self.kept);
        }
        if let Some(capacity) = shrunk_capacity(self.topics.len(), self.topics.capacity()) {
            self.topics.shrink_to(capacity);
        }
        released
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            topics: self.topics.len(),
            publications: self.kept.publications,
            bytes: self.kept.bytes,
            evicted: self.evicted,
        }
    }

    /// Makes sure that the topic has a stream, without anything that has expired, for another `meta_ttl`.
    fn open(&mut self, topic: &TopicName, now: Instant, meta_ttl: Duration) {
        let Self { topics, history_due, streams_due, kept, .. } = self;
        let state = topics.entry(topic.clone()).or_default();
        if let Some(life) = &mut state.stream {
            if life.expires <= now {
                life.drop_history(topic, history_due, kept);
                life.stream = Stream::new(new_epoch());
            } else if life.history_expires <= now {
                life.drop_history(topic, history_due, kept);
            }
        }
        let life = state.stream.get_or_insert_with(|| Box::new(Life::new(now)));
        life.expires = deadline(now, meta_ttl);
        streams_due.set(topic, &mut life.due, life.expires);
    }

    /// Gives up what expires first until the engine is within its bounds.
    fn enforce_limits(&mut self) {
        while self.kept.bytes > self.history_bytes_max
            && let Some(topic) = self.history_due.first()
        {
            let life = self.topics.get_mut(&topic).and_then(|state| state.stream.as_mut());
            let life = life.expect("only streams have history due");
            if let Some(oldest) = life.stream.pop_oldest() {
                self.kept.remove(&oldest);
                self.evicted += 1;
            }
            if life.stream.len() == 0 {
                life.drop_history(&topic, &mut self.history_due, &mut self.kept);
            }
        }
        while self.streams_due.len() > self.streams_max
            && let Some(topic) = self.streams_due.first()
        {
            self.evicted += self.drop_stream(&topic) as u64;
        }
    }

    /// Forgets the topic's position and history; returns how many publications that were.
    fn drop_stream(&mut self, topic: &TopicName) -> usize {
        let mut life = self.topics.get_mut(topic).and_then(|state| state.stream.take());
        let life = life.as_mut().expect("only streams are due");
        let dropped = life.drop_history(topic, &mut self.history_due, &mut self.kept);
        self.streams_due.cancel(topic, &mut life.due);
        self.change(topic, |_| ());
        dropped
    }

    /// Changes a topic if it is known, and forgets it if that leaves nothing of it.
    fn change(&mut self, topic: &TopicName, change: impl FnOnce(&mut Topic)) {
        if let Entry::Occupied(mut entry) = self.topics.entry(topic.clone()) {
            change(entry.get_mut());
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

impl Topic {
    fn is_empty(&self) -> bool {
        !self.subscribed && self.stream.is_none() && self.members.is_none()
    }
}

impl Life {
    /// A new stream, to live as long as its opener says.
    fn new(now: Instant) -> Self {
        Self {
            stream: Stream::new(new_epoch()),
            history_expires: now,
            history_due: Appointment::default(),
            expires: now,
            due: Appointment::default(),
        }
    }

    /// Drops the publications, keeps the position; returns how many they were.
    fn drop_history(&mut self, topic: &TopicName, history_due: &mut Due, kept: &mut Kept) -> usize {
        history_due.cancel(topic, &mut self.history_due);
        let publications = self.stream.take_all();
        for publication in &publications {
            kept.remove(publication);
        }
        publications.len()
    }
}

impl Kept {
    fn add(&mut self, publication: &Publication) {
        self.publications += 1;
        self.bytes += publication_bytes(publication);
    }

    fn remove(&mut self, publication: &Publication) {
        self.publications -= 1;
        self.bytes -= publication_bytes(publication);
    }
}

fn new_epoch() -> Epoch {
    Epoch::from_random(rand::random())
}

/// What a kept publication takes. Info and tags are counted as if nothing shared them.
fn publication_bytes(publication: &Publication) -> usize {
    /// The structs, their reference counts, and what an allocator adds to each.
    const OVERHEAD: usize = 160;
    const OVERHEAD_INFO: usize = 160;
    const OVERHEAD_TAG: usize = 96;

    let info = publication
        .info
        .as_ref()
        .map_or(0, |info| OVERHEAD_INFO + info.user.len() + info.connection.len() + info.subscription.len());
    let tags = publication
        .tags
        .as_ref()
        .map_or(0, |tags| tags.iter().map(|(name, value)| OVERHEAD_TAG + name.len() + value.len()).sum());
    OVERHEAD + publication.data.len() + info + tags
}
