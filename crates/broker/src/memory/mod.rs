//! The memory engine: topics live in this process, on the thread that owns the engine.
//!
//! State is borrowed for one call and never while an event is delivered, so a delivery may call the engine.
//! [`MemorySettings`] or the caller's subscriptions bound everything that can grow. An empty topic is removed.

mod dead_letters;
mod event_log;
mod idempotency;
mod life;
mod order;
mod outbox;
mod retention;
mod stream;
mod topics;
mod user_status;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_protocol::reason::Left;
use fanwire_protocol::{ClientId, ClientInfo, EventMask, Publication, TopicName};
use tokio::time::Instant;

use crate::contract::{
    EngineError, Event, HistoryPage, HistoryQuery, Member, NewPublication, PresenceStats, Published,
    ReadLimit, Recovery, Since, Usage,
};
use crate::outbox::StoredEvent;
use crate::wall_clock;
use idempotency::Idempotency;
use topics::{Appended, TopicTable};

pub use outbox::MemoryOutbox;
pub use user_status::{MemoryStatus, MemoryStatusBounds, TellStatus};

/// Bounds of one memory engine. A node with several shards has one engine on each.
#[derive(Clone, Debug)]
pub struct MemorySettings {
    /// Lifetime of an idempotency key. Default: 5 minutes.
    pub idempotency_ttl: Duration,
    /// Memory for idempotency keys. Above it the oldest are removed early. Default: 64 MiB.
    pub idempotency_bytes_max: usize,
    /// Memory for topics' streams: publications, names and positions. Above it streams are evicted in the order that
    /// the module `retention` describes; readers notice by position, as with expired history. Default: 1 GiB.
    pub history_bytes_max: usize,
    /// Those of the node, for members' events; without, members have none. Default: none.
    pub outbox: Option<MemoryOutbox>,
    /// That of the node's users; without, nothing is kept of users. Default: none.
    pub status: Option<MemoryStatus>,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            idempotency_ttl: Duration::from_secs(5 * 60),
            idempotency_bytes_max: 64 << 20,
            history_bytes_max: 1 << 30,
            outbox: None,
            status: None,
        }
    }
}

/// The engine that keeps topics in this process.
pub struct Memory {
    deliver: Box<dyn Fn(Event)>,
    topics: RefCell<TopicTable>,
    idempotency: RefCell<Idempotency>,
    outbox: Option<MemoryOutbox>,
    status: Option<MemoryStatus>,
}

impl Memory {
    /// The most topics, publications and idempotency keys that one sweep releases: about 10 ms of work.
    const SWEEP_MAX: usize = 50_000;

    pub(crate) fn new(settings: MemorySettings, deliver: Box<dyn Fn(Event)>) -> Self {
        Self {
            deliver,
            topics: RefCell::new(TopicTable::new(&settings)),
            idempotency: RefCell::new(Idempotency::new(&settings)),
            outbox: settings.outbox,
            status: settings.status,
        }
    }

    pub(crate) fn subscribe(&self, topic: &TopicName) {
        self.topics.borrow_mut().subscribe(topic);
    }

    pub(crate) fn unsubscribe(&self, topic: &TopicName) {
        self.topics.borrow_mut().unsubscribe(topic);
    }

    pub(crate) fn publish(&self, topic: &TopicName, publish: NewPublication) -> Published {
        let now = Instant::now();
        let key = publish.idempotency_key.map(|key| (topic.clone(), key));
        if let Some(key) = &key
            && let Some(position) = self.idempotency.borrow().first_result(now, key)
        {
            return Published { position, suppressed: true };
        }

        let mut publication = Publication {
            data: publish.data,
            info: publish.info,
            tags: publish.tags,
            offset: 0,
            time: wall_clock::millis(wall_clock::now()),
            exclude: publish.exclude,
        };
        let (publication, position) = match publish.history {
            None => (Arc::new(publication), None),
            Some(options) => {
                // Stored data must own its bytes: a slice would keep the whole request in memory, which may be a
                // batch of megabytes.
                publication.data = Bytes::copy_from_slice(&publication.data);
                let version = stream::Version { number: publish.version, epoch: publish.version_epoch };
                match self.topics.borrow_mut().append(topic, now, publication, version, options) {
                    Appended::Kept(publication, position) => (publication, Some(position)),
                    Appended::OldVersion(top) => return Published { position: Some(top), suppressed: true },
                }
            }
        };
        if let Some(key) = key {
            self.idempotency.borrow_mut().remember(now, key, position);
        }

        let epoch = position.map(|position| position.epoch);
        self.deliver(topic, |topic| Event::Publication { topic, publication, epoch });
        Published { position, suppressed: false }
    }

    pub(crate) fn publish_join(&self, topic: &TopicName, info: Arc<ClientInfo>) {
        self.deliver(topic, |topic| Event::Join { topic, info });
    }

    pub(crate) fn publish_leave(&self, topic: &TopicName, info: Arc<ClientInfo>) {
        self.deliver(topic, |topic| Event::Leave { topic, info });
    }

    pub(crate) fn recover(
        &self,
        topic: &TopicName,
        since: Option<Since<'_>>,
        limit: ReadLimit,
        meta_ttl: Duration,
    ) -> Recovery {
        let read = |stream: &stream::Stream| stream.recover(since, limit);
        self.topics.borrow_mut().read(topic, Instant::now(), meta_ttl, read)
    }

    pub(crate) fn recover_part(
        &self,
        topic: &TopicName,
        since: Since<'_>,
        limit: ReadLimit,
        meta_ttl: Duration,
    ) -> Recovery {
        let read = |stream: &stream::Stream| stream.recover_part(since, limit);
        self.topics.borrow_mut().read(topic, Instant::now(), meta_ttl, read)
    }

    pub(crate) fn history(
        &self,
        topic: &TopicName,
        query: HistoryQuery<'_>,
        meta_ttl: Duration,
    ) -> Result<HistoryPage, EngineError> {
        let read = |stream: &stream::Stream| stream.history(query);
        self.topics.borrow_mut().read(topic, Instant::now(), meta_ttl, read)
    }

    pub(crate) fn remove_history(&self, topic: &TopicName) {
        self.topics.borrow_mut().remove_history(topic);
    }

    pub(crate) fn add_presence(&self, topic: &TopicName, members: Vec<Member>) {
        for member in members {
            self.add_member(topic, member);
        }
    }

    pub(crate) fn admit(&self, topic: &TopicName, member: Member, clients_max: usize) -> bool {
        let client = member.info.client;
        let others = self.topics.borrow().members(topic).map_or(0, |members| members.others(client));
        let is_admitted = others < clients_max;
        if is_admitted {
            self.add_member(topic, member);
        }
        is_admitted
    }

    pub(crate) fn remove_presence(&self, topic: &TopicName, client: ClientId, left: &Left) {
        let removed = self.topics.borrow_mut().remove_member(topic, client);
        if let Some(member) = removed.as_ref().filter(|member| !member.events.is_empty())
            && let Some(outbox) = &self.outbox
        {
            outbox.left(topic, member, left, self.presence_stats(topic).clients);
        }
        if let Some(member) = &removed
            && let Some(status) = self.status_of(member)
        {
            status.left(topic);
        }
        if let Some(Member { info, announce_leave: true, .. }) = removed {
            self.publish_leave(topic, info);
        }
    }

    pub(crate) fn presence(
        &self,
        topic: &TopicName,
        bytes_max: usize,
    ) -> Result<Vec<Arc<ClientInfo>>, EngineError> {
        match self.topics.borrow().members(topic) {
            Some(members) => members.list(bytes_max).ok_or(EngineError::TooLong),
            None => Ok(Vec::new()),
        }
    }

    pub(crate) fn presence_stats(&self, topic: &TopicName) -> PresenceStats {
        self.topics.borrow().members(topic).map(|members| members.stats()).unwrap_or_default()
    }

    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let released = self.topics.borrow_mut().sweep(now, Self::SWEEP_MAX);
        self.idempotency.borrow_mut().sweep(now, Self::SWEEP_MAX.saturating_sub(released));
        if let Some(status) = &self.status {
            status.sweep();
        }
    }

    pub(crate) fn outbox(&self) -> Option<&MemoryOutbox> {
        self.outbox.as_ref()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.topics.borrow().usage()
    }

    fn add_member(&self, topic: &TopicName, member: Member) {
        let mut topics = self.topics.borrow_mut();
        if !member.events.is_empty() {
            let client = member.info.client;
            let members = topics.members(topic);
            if !members.is_some_and(|members| members.contains(client)) {
                if let Some(status) = self.status_of(&member) {
                    status.joined(topic);
                }
                if let Some(outbox) = &self.outbox {
                    outbox.joined(topic, &member, members.map_or(0, |members| members.others(client)));
                }
            }
        }
        topics.add_member(topic, member);
    }

    /// The status that a member counts for.
    fn status_of(&self, member: &Member) -> Option<&MemoryStatus> {
        self.status.as_ref().filter(|_| member.events.contains(EventMask::STATUS))
    }

    fn deliver(&self, topic: &TopicName, event: impl FnOnce(TopicName) -> Event) {
        let subscribed = self.topics.borrow().is_subscribed(topic);
        if subscribed {
            (self.deliver)(event(topic.clone()));
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

/// The end of a lifetime of `ttl` from now. A very long TTL must not overflow the clock.
fn deadline(now: Instant, ttl: Duration) -> Instant {
    const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now + ttl.min(TTL_MAX)
}

/// The bytes of an event that is kept.
fn event_bytes(event: &StoredEvent) -> usize {
    /// The struct, its place in the order, and allocator overhead.
    const OVERHEAD: usize = 256;

    let topic = event.topic.as_ref().map_or(0, |topic| topic.as_str().len());
    let user = event.user.as_ref().map_or(0, |user| user.len());
    OVERHEAD + topic + user + event.reason.as_ref().map_or(0, |(_, text)| text.len())
}
