//! The Redis engine: topics live in Redis, shared by all nodes that use it.
//!
//! A [`Redis`] is a handle to tasks that keep connections open as long as it lives. Calls go through connections for
//! commands ([`server::link`]). Events arrive through a connection of their own ([`server::subscriptions`]), in the
//! order in which Redis sent them. Calls fail at once while Redis is lost, and no call is repeated after a loss.

mod alarm;
mod arguments;
mod clock;
mod events;
mod frame;
mod keys;
mod lease;
mod log_limit;
mod nodes;
mod outbox;
mod presence;
mod publish;
mod rates;
mod reaper;
mod reply;
mod revocations;
mod scripts;
mod server;
mod settings;
mod slots;
mod stats;
mod user_status;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::reason::Left;
use fanwire_protocol::{ClientId, ClientInfo, EventMask, TopicName};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::contract::{
    EngineError, HistoryPage, HistoryQuery, Member, NewPublication, PresenceStats, Published, ReadLimit,
    Recovery, Since, UNPUBLISHED_META_TTL_MAX, Usage,
};
use crate::user_status::UserStatus;
use alarm::TaskAlarm;
use arguments::{fresh_epoch, limit_argument, milliseconds, since_arguments};
use clock::Clock;
use events::EventWriter;
use keys::Keys;
use lease::Lease;
use nodes::NodeTable;
use presence::PresenceStore;
use publish::Publisher;
use rates::RateTable;
use reaper::Reaper;
use reply::Completeness;
use revocations::RevocationTable;
use scripts::{Script, Scripts};
use server::connection::Connector;
use server::health::Health;
use server::link::Links;
use server::probe::Probe;
use server::subscriptions::ChannelSubscriptions;
use stats::RedisCounters;
use user_status::UserStatusTable;

pub use log_limit::LogRateLimit;
pub use nodes::Peer;
pub use outbox::RedisOutbox;
pub use server::connection::LinkError;
pub use server::health::LinkState;
pub use server::subscriptions::Deliver;
pub use settings::{Incompatible, RedisSettings};
pub use stats::{CallKind, CallStats, LATENCY_BOUNDS, LinkRole, LinkStats, RedisStats};

/// The engine that keeps topics in Redis. Cloning shares it.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    keys: Arc<Keys>,
    scripts: Arc<Scripts>,
    /// For reading history.
    links: Links,
    publisher: Publisher,
    subscriptions: Arc<ChannelSubscriptions>,
    presence: Arc<PresenceStore>,
    revocations: RevocationTable,
    users: UserStatusTable,
    outbox: Option<RedisOutbox>,
    rates: RateTable,
    health: Arc<Health>,
    counters: Arc<RedisCounters>,
    clock: Arc<Clock>,
    settings: Arc<RedisSettings>,
    foreign: LogRateLimit,
    tasks: Vec<JoinHandle<()>>,
    alarm: TaskAlarm,
}

impl Redis {
    /// Starts an engine for `node`, which connects in the background on the current runtime. `deliver` receives the
    /// events of subscribed topics from that runtime.
    pub fn start(settings: RedisSettings, node: Peer, deliver: Deliver) -> Result<Self, LinkError> {
        let count = settings.command_links.max(1);
        let (vital_index, subscriptions_index) = (count, count + 1);
        let connector = Arc::new(Connector::new(&settings)?);
        let address = format!("{}:{}", settings.host, settings.port);
        let health = Arc::new(Health::new(address, subscriptions_index + 1));
        let status_prefix = settings.status.as_ref().map(|status| status.prefix.clone());
        let keys = Keys::new(&settings.prefix, &settings.application, settings.database);
        let keys = Arc::new(keys.with_status(status_prefix));
        let settings = Arc::new(settings);
        let scripts = Arc::new(Scripts::new());

        let counters = Arc::new(RedisCounters::default());
        let clock = Arc::new(Clock::new());
        let links_at = |indexes| Links::new(indexes, &connector, &health, &scripts, &settings, &counters);
        let (links, keepers) = links_at(0..count);
        // Heartbeats must not wait behind publications.
        let (vital_links, vital_keepers) = links_at(vital_index..vital_index + 1);
        let probe =
            Probe::new(node.id, &keys, settings.probe_interval, vital_links.clone(), Arc::clone(&counters));
        let subscriptions = ChannelSubscriptions::new(
            Arc::clone(&keys),
            Arc::clone(&settings),
            deliver,
            probe,
            Arc::clone(&counters),
        );
        let subscriptions = Arc::new(subscriptions);
        let publisher = Publisher::new(
            Arc::clone(&keys),
            Arc::clone(&settings),
            Arc::clone(&scripts),
            links.of_kind(CallKind::Publish),
            Arc::clone(&clock),
        );
        let (presence_links, vital_links) =
            (links.of_kind(CallKind::Presence), vital_links.of_kind(CallKind::Presence));
        let nodes = NodeTable::new(
            node,
            Arc::clone(&keys),
            vital_links.clone(),
            Arc::clone(&scripts),
            Arc::clone(&settings),
            Arc::clone(&clock),
        );
        let nodes = Arc::new(nodes);
        let lease = Lease::new(Arc::clone(&nodes), vital_links, Arc::clone(&health), &settings);
        let lease = Arc::new(lease);
        let options = settings.outbox.unwrap_or_default();
        let events = Arc::new(EventWriter::new(options, settings.status.clone(), Arc::clone(&clock)));
        let users = UserStatusTable::new(
            Arc::clone(&keys),
            presence_links.clone(),
            Arc::clone(&scripts),
            Arc::clone(&events),
        );
        let outbox = settings.outbox.map(|options| {
            RedisOutbox::new(
                Arc::clone(&keys),
                presence_links.clone(),
                Arc::clone(&scripts),
                Arc::clone(&clock),
                Arc::clone(&events),
                options,
                settings.lease,
            )
        });
        let reaper = Arc::new(Reaper::new(
            Arc::clone(&nodes),
            Arc::clone(&keys),
            presence_links.clone(),
            Arc::clone(&scripts),
            Arc::clone(&events),
        ));
        let presence = Arc::new(PresenceStore::new(
            Arc::clone(&keys),
            presence_links,
            Arc::clone(&scripts),
            nodes,
            Arc::clone(&lease),
            Arc::clone(&reaper),
            settings.outbox.map(|_| events),
        ));

        let keepers = keepers.into_iter().chain(vital_keepers);
        let alarm = TaskAlarm::new();
        let mut tasks: Vec<_> =
            keepers.map(|keeper| tokio::spawn(alarm.keep("link", &health, keeper.run()))).collect();
        let subscriber = {
            let run = Arc::clone(&subscriptions).run(connector, Arc::clone(&health), subscriptions_index);
            let kept = alarm.keep("subscriptions", &health, run);
            let subscriptions = Arc::clone(&subscriptions);
            async move {
                kept.await;
                subscriptions.detach();
            }
        };
        tasks.push(tokio::spawn(subscriber));
        tasks.push(tokio::spawn(alarm.keep("presence", &health, Arc::clone(&presence).run())));
        tasks.push(tokio::spawn(alarm.keep("reaper", &health, reaper.run(Arc::clone(&lease)))));
        tasks.push(tokio::spawn(alarm.keep("lease", &health, lease.run())));
        let rates = RateTable::new(Arc::clone(&keys), Arc::clone(&scripts), links.of_kind(CallKind::Other));
        let revocations = RevocationTable::new(Arc::clone(&keys), links.of_kind(CallKind::Presence));
        Ok(Self(Arc::new(Inner {
            keys,
            scripts,
            links: links.of_kind(CallKind::History),
            publisher,
            subscriptions,
            presence,
            revocations,
            users,
            outbox,
            rates,
            health,
            counters,
            clock,
            settings,
            foreign: LogRateLimit::default(),
            tasks,
            alarm,
        })))
    }

    /// Returns the state of the connections, and follows its changes.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.0.health.watch()
    }

    /// Waits until a task of the engine has ended, which only a bug can cause, and returns its name. Cancel-safe.
    pub async fn failed(&self) -> &'static str {
        self.0.alarm.raised().await
    }

    /// Returns the counters, for metrics.
    pub fn stats(&self) -> RedisStats {
        let (links, reconnects) = self.0.health.links();
        let subscriptions = links.len() - 1;
        let links = links.into_iter().enumerate().map(|(index, is_up)| {
            let role = if index == subscriptions { LinkRole::Subscriptions } else { LinkRole::Commands };
            LinkStats { role, is_up }
        });
        self.0.counters.stats(reconnects, self.0.subscriptions.len(), links.collect())
    }

    /// Returns a sentence about a command that Redis refused in the last seconds for lack of rights.
    pub fn not_permitted(&self) -> Option<String> {
        self.0.counters.not_permitted_lately()
    }

    /// Counts and logs received publications that the topic's stream does not know.
    pub fn note_foreign(&self, topic: &TopicName, publications: u64) {
        let Inner { counters, foreign, settings, .. } = &*self.0;
        counters.foreign(publications);
        if foreign.is_due() {
            tracing::warn!(
                %topic,
                publications,
                prefix = &*settings.prefix,
                "dropped publications that are not in the topic's history. Nodes of an earlier version may use this \
                 engine.redis.prefix in another database, or several servers may answer at engine.redis.address. \
                 Give each cluster its own prefix"
            );
        }
    }

    /// Returns the time since 1970 by Redis' clock, once the node has joined.
    pub fn time(&self) -> Option<Duration> {
        self.0.clock.now()
    }

    /// Returns the live nodes, this one included: those whose lease has not ended.
    pub async fn peers(&self) -> Result<Vec<Peer>, EngineError> {
        self.0.presence.peers().await
    }

    /// Keeps a name that is no longer trusted until a time, in seconds since 1970, or for ever (0).
    pub async fn put_revocation(&self, name: &str, until: i64) -> Result<(), EngineError> {
        self.0.revocations.put(name, until).await
    }

    pub async fn remove_revocations(&self, names: &[Box<str>]) -> Result<(), EngineError> {
        self.0.revocations.remove(names).await
    }

    /// Returns all names that are no longer trusted, also those whose time is over.
    pub async fn revocations(&self) -> Result<Vec<(Box<str>, i64)>, EngineError> {
        self.0.revocations.all().await
    }

    /// Returns the status of each user.
    pub async fn user_status(&self, users: &[Box<str>]) -> Result<Vec<UserStatus>, EngineError> {
        self.0.users.of(users).await
    }

    /// Keeps a user online for a while who has no connection. `events` are those of its connections.
    pub async fn heartbeat(&self, user: &str, events: EventMask) -> Result<(), EngineError> {
        match &self.0.settings.status {
            Some(options) => self.0.users.beat(user, events, options).await,
            None => Ok(()),
        }
    }

    /// Takes tokens from buckets that all nodes share, each of which comes back after `token`, and returns the time until
    /// each bucket is full: at most `debt_max`.
    pub async fn charge(
        &self,
        tokens: &[(TopicName, u32)],
        token: Duration,
        debt_max: Duration,
    ) -> Result<Vec<Duration>, EngineError> {
        self.0.rates.charge(tokens, token, debt_max).await
    }

    /// Returns how many times other nodes fenced this one, because it was paused or disconnected for longer than its
    /// lease. Its members were removed and their leaves announced, so its clients have to reconnect.
    pub fn fenced(&self) -> watch::Receiver<u64> {
        self.0.presence.fenced()
    }

    /// Removes this node from the cluster with its remaining members. Meant to be the last call, after its clients have
    /// disconnected.
    pub async fn leave(&self) -> Result<(), EngineError> {
        self.0.presence.leave().await
    }

    /// See [`crate::Engine::subscribe`].
    pub async fn subscribe(&self, topic: &TopicName) -> Result<(), EngineError> {
        self.0.subscriptions.subscribe(topic).await
    }

    pub(crate) fn unsubscribe(&self, topic: &TopicName) {
        self.0.subscriptions.unsubscribe(topic);
    }

    /// See [`crate::Engine::publish`].
    pub async fn publish(
        &self,
        topic: &TopicName,
        publish: NewPublication,
    ) -> Result<Published, EngineError> {
        self.0.publisher.publish(topic, publish).await
    }

    pub(crate) async fn publish_join(
        &self,
        topic: &TopicName,
        info: Arc<ClientInfo>,
    ) -> Result<(), EngineError> {
        self.0.publisher.send(topic, frame::join_frame(&info)).await
    }

    pub(crate) async fn publish_leave(
        &self,
        topic: &TopicName,
        info: Arc<ClientInfo>,
    ) -> Result<(), EngineError> {
        self.0.publisher.send(topic, frame::leave_frame(&info)).await
    }

    /// See [`crate::Engine::recover`].
    pub async fn recover(
        &self,
        topic: &TopicName,
        since: Option<Since<'_>>,
        limit: impl Into<ReadLimit>,
        meta_ttl: Duration,
    ) -> Result<Recovery, EngineError> {
        self.read_missed(topic, since, limit.into(), "0", meta_ttl).await
    }

    /// See [`crate::Engine::recover_part`].
    pub async fn recover_part(
        &self,
        topic: &TopicName,
        since: Since<'_>,
        limit: impl Into<ReadLimit>,
        meta_ttl: Duration,
    ) -> Result<Recovery, EngineError> {
        self.read_missed(topic, Some(since), limit.into(), "1", meta_ttl).await
    }

    /// Runs `recover.lua`; `part` is its last argument.
    async fn read_missed(
        &self,
        topic: &TopicName,
        since: Option<Since<'_>>,
        limit: ReadLimit,
        part: &str,
        meta_ttl: Duration,
    ) -> Result<Recovery, EngineError> {
        let (offset, epoch) = since_arguments(since);
        let (publications, bytes) = (limit_argument(limit.publications), limit_argument(limit.bytes));
        let arguments = [&offset, epoch, &publications, &bytes, part];
        let arguments = arguments.map(|argument| argument.as_bytes().to_vec());
        let reply::Page { top, completeness, publications } =
            self.read(topic, &self.0.scripts.recover, meta_ttl, &arguments).await?;
        let is_too_long = completeness == Completeness::TooLong;
        Ok(Recovery { top, complete: completeness == Completeness::Yes, publications, is_too_long })
    }

    pub(crate) async fn history(
        &self,
        topic: &TopicName,
        query: HistoryQuery<'_>,
        meta_ttl: Duration,
    ) -> Result<HistoryPage, EngineError> {
        let (offset, epoch) = since_arguments(query.since);
        let reverse = if query.reverse { "1" } else { "0" };
        let ReadLimit { publications, bytes } = query.limit;
        let (publications, bytes) = (limit_argument(publications), limit_argument(bytes));
        let arguments = [&offset, epoch, &publications, reverse, &bytes];
        let arguments = arguments.map(|argument| argument.as_bytes().to_vec());
        let reply::Page { top, completeness, publications } =
            self.read(topic, &self.0.scripts.history, meta_ttl, &arguments).await?;
        match completeness {
            Completeness::No => Err(EngineError::UnrecoverablePosition),
            Completeness::Yes | Completeness::TooLong => {
                Ok(HistoryPage { top, publications, is_cut: completeness == Completeness::TooLong })
            }
        }
    }

    pub(crate) async fn remove_history(&self, topic: &TopicName) -> Result<(), EngineError> {
        // Unlike DEL, XTRIM keeps the stream's TTL and last id.
        let mut command = redis::cmd("XTRIM");
        command.arg(self.0.keys.stream(topic)).arg("MAXLEN").arg(0);
        self.0.links.of_topic(topic)?.command(&command).await?;
        Ok(())
    }

    pub(crate) async fn publish_group(
        &self,
        topic: &TopicName,
        group: Vec<NewPublication>,
    ) -> Vec<Result<Published, EngineError>> {
        self.0.publisher.publish_group(topic, &group).await
    }

    pub(crate) async fn add_presence(
        &self,
        topic: &TopicName,
        members: &[Member],
    ) -> Result<(), EngineError> {
        self.0.presence.add(topic, members).await
    }

    pub(crate) async fn replace_presence(
        &self,
        topic: &TopicName,
        member: Member,
    ) -> Result<(), EngineError> {
        self.0.presence.replace(topic, member).await
    }

    pub(crate) async fn admit(
        &self,
        topic: &TopicName,
        member: Member,
        clients_max: usize,
    ) -> Result<bool, EngineError> {
        self.0.presence.admit(topic, member, clients_max).await
    }

    pub(crate) async fn remove_presence(
        &self,
        topic: &TopicName,
        client: ClientId,
        left: &Left,
    ) -> Result<(), EngineError> {
        self.0.presence.remove(topic, client, left).await
    }

    pub(crate) async fn presence(
        &self,
        topic: &TopicName,
        bytes_max: usize,
    ) -> Result<Vec<Arc<ClientInfo>>, EngineError> {
        self.0.presence.list(topic, bytes_max).await
    }

    pub(crate) async fn presence_stats(&self, topic: &TopicName) -> Result<PresenceStats, EngineError> {
        self.0.presence.stats(topic).await
    }

    /// Returns the outboxes of the cluster, if the settings ask for them.
    pub fn outbox(&self) -> Option<&RedisOutbox> {
        self.0.outbox.as_ref()
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage { topics: self.0.subscriptions.len(), ..Usage::default() }
    }

    /// Runs a read script; `arguments` follow those of `touch.lua`.
    async fn read(
        &self,
        topic: &TopicName,
        script: &Script,
        meta_ttl: Duration,
        arguments: &[Vec<u8>],
    ) -> Result<reply::Page, EngineError> {
        let (meta, stream) = (self.0.keys.meta(topic), self.0.keys.stream(topic));
        let epoch = fresh_epoch();
        let unpublished_ttl = milliseconds(meta_ttl.min(UNPUBLISHED_META_TTL_MAX)).to_string();
        let meta_ttl = milliseconds(meta_ttl).to_string();
        let mut link = self.0.links.of_topic(topic)?;
        let lineage = link.lineage();
        let mut all = vec![
            epoch.as_str().as_bytes(),
            lineage.as_bytes(),
            meta_ttl.as_bytes(),
            unpublished_ttl.as_bytes(),
        ];
        all.extend(arguments.iter().map(Vec::as_slice));
        let answer = link.script(script, &[meta.as_bytes(), stream.as_bytes()], &all).await?;
        reply::page(answer).ok_or_else(|| link.nonsense())
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("health", &self.0.health)
            .field("subscriptions", &self.0.subscriptions)
            .field("presence", &self.0.presence)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
