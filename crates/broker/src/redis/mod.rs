//! The Redis engine: topics live in Redis, and every node that uses it sees the same.
//!
//! A [`Redis`] is a handle on tasks that keep connections open for as long as it lives. Calls go through command
//! connections ([`link`]), events come through one of their own ([`subscriptions`]), in the order in which Redis did
//! things. Nothing waits for a Redis that is known to be gone, and nothing is done twice to be sure.

mod connection;
mod frame;
mod health;
mod keys;
mod link;
mod presence;
mod registry;
mod reply;
mod scripts;
mod settings;
mod subscriptions;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanwire_protocol::{ClientId, ClientInfo, Epoch, TopicName};
use redis::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::engine::{EngineError, Usage};
use crate::history::{History, HistoryQuery, Recovery, Since};
use crate::members::Member;
use crate::presence::PresenceStats;
use crate::publish::{HistoryOptions, Publish, Published};
use connection::Connector;
use health::Health;
use keys::Keys;
use link::{Links, Ready};
use presence::Presence;
use scripts::{Script, Scripts};
use subscriptions::Subscriptions;

pub use connection::LinkError;
pub use health::LinkState;
pub use registry::Peer;
pub use settings::RedisSettings;
pub use subscriptions::Deliver;

/// The engine that keeps topics in Redis. Cloning shares it.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    keys: Arc<Keys>,
    settings: Arc<RedisSettings>,
    scripts: Arc<Scripts>,
    links: Arc<Links>,
    subscriptions: Arc<Subscriptions>,
    presence: Arc<Presence>,
    health: Arc<Health>,
    tasks: Vec<JoinHandle<()>>,
}

impl Redis {
    /// Starts an engine for `node`, which connects in the background, on the runtime that this is called in.
    /// `deliver` gets the events of subscribed topics from there.
    pub fn start(settings: RedisSettings, node: Peer, deliver: Deliver) -> Result<Self, LinkError> {
        let count = settings.command_links.max(1);
        let connector = Arc::new(Connector::new(&settings)?);
        let health = Arc::new(Health::new(format!("{}:{}", settings.host, settings.port), count + 1));
        let keys = Arc::new(Keys::new(&settings.prefix, &settings.application));
        let settings = Arc::new(settings);
        let scripts = Arc::new(Scripts::new());

        let (links, keepers) = Links::new(count, &connector, &health, &scripts, &settings);
        let links = Arc::new(links);
        let subscriptions = Arc::new(Subscriptions::new(Arc::clone(&keys), Arc::clone(&settings), deliver));
        let presence = Arc::new(Presence::new(Arc::clone(&keys), Arc::clone(&links), Arc::clone(&settings)));

        let mut tasks: Vec<_> = keepers.into_iter().map(|keeper| tokio::spawn(keeper.run())).collect();
        let subscriber = Arc::clone(&subscriptions).run(connector, Arc::clone(&health), count);
        tasks.push(tokio::spawn(subscriber));
        tasks.push(tokio::spawn(Arc::clone(&presence).run()));
        Ok(Self(Arc::new(Inner { keys, settings, scripts, links, subscriptions, presence, health, tasks })))
    }

    /// Whether Redis can be used, now and whenever it changes.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.0.health.watch()
    }

    /// Takes this node out of presence. Meant to be the last call, when its clients are gone.
    pub async fn leave(&self) -> Result<(), EngineError> {
        self.0.presence.leave().await
    }

    pub(crate) async fn subscribe(&self, topic: &TopicName) -> Result<(), EngineError> {
        self.0.subscriptions.subscribe(topic).await
    }

    pub(crate) fn unsubscribe(&self, topic: &TopicName) {
        self.0.subscriptions.unsubscribe(topic);
    }

    pub(crate) async fn publish(
        &self,
        topic: &TopicName,
        publish: Publish,
    ) -> Result<Published, EngineError> {
        match publish.history {
            Some(options) => self.publish_kept(topic, &publish, options).await,
            None => self.publish_live(topic, &publish).await,
        }
    }

    pub(crate) async fn publish_join(
        &self,
        topic: &TopicName,
        info: Arc<ClientInfo>,
    ) -> Result<(), EngineError> {
        self.send(topic, frame::join_frame(&info)).await
    }

    pub(crate) async fn publish_leave(
        &self,
        topic: &TopicName,
        info: Arc<ClientInfo>,
    ) -> Result<(), EngineError> {
        self.send(topic, frame::leave_frame(&info)).await
    }

    pub(crate) async fn recover(
        &self,
        topic: &TopicName,
        since: Option<Since<'_>>,
        limit: usize,
        meta_ttl: Duration,
    ) -> Result<Recovery, EngineError> {
        let (offset, epoch) = since_arguments(since);
        let arguments =
            [offset.as_bytes(), epoch.as_bytes(), limit_argument(limit).as_bytes()].map(<[u8]>::to_vec);
        let page = self.read(topic, &self.0.scripts.recover, meta_ttl, &arguments).await?;
        Ok(Recovery { top: page.top, complete: page.flag, publications: page.publications })
    }

    pub(crate) async fn history(
        &self,
        topic: &TopicName,
        query: HistoryQuery<'_>,
        meta_ttl: Duration,
    ) -> Result<History, EngineError> {
        let (offset, epoch) = since_arguments(query.since);
        let reverse = if query.reverse { "1" } else { "0" };
        let limit = limit_argument(query.limit);
        let arguments = [&offset, epoch, &limit, reverse].map(|argument| argument.as_bytes().to_vec());
        let page = self.read(topic, &self.0.scripts.history, meta_ttl, &arguments).await?;
        if !page.flag {
            return Err(EngineError::UnrecoverablePosition);
        }
        Ok(History { top: page.top, publications: page.publications })
    }

    pub(crate) async fn remove_history(&self, topic: &TopicName) -> Result<(), EngineError> {
        // Trimming leaves the stream its TTL and its last id, which deleting would not.
        let mut command = redis::cmd("XTRIM");
        command.arg(self.0.keys.stream(topic)).arg("MAXLEN").arg(0);
        self.0.links.of_topic(topic)?.command(&command).await?;
        Ok(())
    }

    pub(crate) async fn publish_group(
        &self,
        topic: &TopicName,
        group: Vec<Publish>,
    ) -> Vec<Result<Published, EngineError>> {
        let mut results = Vec::with_capacity(group.len());
        for publish in group {
            results.push(self.publish(topic, publish).await);
        }
        results
    }

    pub(crate) async fn add_presence(
        &self,
        topic: &TopicName,
        info: Arc<ClientInfo>,
        announce_leave: bool,
    ) -> Result<(), EngineError> {
        self.0.presence.add(topic, Member { info, announce_leave }).await
    }

    pub(crate) async fn admit(
        &self,
        topic: &TopicName,
        info: Arc<ClientInfo>,
        clients_max: usize,
    ) -> Result<bool, EngineError> {
        self.0.presence.admit(topic, info, clients_max).await
    }

    pub(crate) async fn remove_presence(
        &self,
        topic: &TopicName,
        client: ClientId,
    ) -> Result<(), EngineError> {
        self.0.presence.remove(topic, client).await
    }

    pub(crate) async fn presence(&self, topic: &TopicName) -> Result<Vec<Arc<ClientInfo>>, EngineError> {
        self.0.presence.list(topic).await
    }

    pub(crate) async fn presence_stats(&self, topic: &TopicName) -> Result<PresenceStats, EngineError> {
        self.0.presence.stats(topic).await
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage { topics: self.0.subscriptions.len(), ..Usage::default() }
    }

    async fn publish_live(&self, topic: &TopicName, publish: &Publish) -> Result<Published, EngineError> {
        let frame = frame::publication_frame(&publish.data, publish.info.as_deref(), publish.tags.as_deref());
        let Some(key) = &publish.idempotency_key else {
            self.send(topic, frame).await?;
            return Ok(Published { position: None, suppressed: false });
        };
        let key = self.0.keys.idempotency(topic, key);
        let channel = self.0.keys.channel(topic);
        let ttl = milliseconds(self.0.settings.idempotency_ttl).to_string();
        let mut link = self.0.links.of_topic(topic)?;
        let arguments = [channel.as_bytes(), &frame, ttl.as_bytes()];
        let answer = link.script(&self.0.scripts.publish_live_once, &[key.as_bytes()], &arguments).await?;
        suppressible(&link, &answer)
    }

    async fn publish_kept(
        &self,
        topic: &TopicName,
        publish: &Publish,
        options: HistoryOptions,
    ) -> Result<Published, EngineError> {
        let Inner { keys, links, scripts, settings, .. } = &*self.0;
        let body = frame::publication_body(&publish.data, publish.info.as_deref(), publish.tags.as_deref());
        let (meta, stream, channel) = (keys.meta(topic), keys.stream(topic), keys.channel(topic));
        let size = limit_argument(options.size);
        let (ttl, meta_ttl) = (milliseconds(options.ttl), milliseconds(options.meta_ttl));
        let bucket = ttl_bucket(ttl);
        let (ttl, meta_ttl) = (ttl.to_string(), meta_ttl.to_string());
        let epoch = fresh_epoch();
        let mut link = links.of_topic(topic)?;
        let lineage = link.lineage();
        let mut arguments = vec![
            channel.as_bytes(),
            &body,
            size.as_bytes(),
            ttl.as_bytes(),
            meta_ttl.as_bytes(),
            epoch.as_str().as_bytes(),
            lineage.as_bytes(),
            bucket.as_bytes(),
        ];
        let mut script_keys = vec![meta.as_bytes(), stream.as_bytes()];

        if publish.idempotency_key.is_none() && publish.version == 0 {
            let answer = link.script(&scripts.publish, &script_keys, &arguments).await?;
            let position = reply::position(&answer).ok_or_else(|| link.nonsense())?;
            return Ok(Published { position: Some(position), suppressed: false });
        }
        let version = if publish.version == 0 { String::new() } else { publish.version.to_string() };
        let idempotency_ttl = milliseconds(settings.idempotency_ttl).to_string();
        arguments.extend([version.as_bytes(), publish.version_epoch.as_bytes(), idempotency_ttl.as_bytes()]);
        let key = publish.idempotency_key.as_ref().map(|key| keys.idempotency(topic, key));
        script_keys.extend(key.as_ref().map(String::as_bytes));
        let answer = link.script(&scripts.publish_once, &script_keys, &arguments).await?;
        suppressible(&link, &answer)
    }

    /// Publishes what is not kept.
    async fn send(&self, topic: &TopicName, frame: Vec<u8>) -> Result<(), EngineError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.0.keys.channel(topic)).arg(frame);
        self.0.links.of_topic(topic)?.command(&command).await?;
        Ok(())
    }

    /// Runs a reading script; `arguments` follow those of `touch.lua`.
    async fn read(
        &self,
        topic: &TopicName,
        script: &Script,
        meta_ttl: Duration,
        arguments: &[Vec<u8>],
    ) -> Result<reply::Page, EngineError> {
        let (meta, stream) = (self.0.keys.meta(topic), self.0.keys.stream(topic));
        let epoch = fresh_epoch();
        let meta_ttl = milliseconds(meta_ttl).to_string();
        let mut link = self.0.links.of_topic(topic)?;
        let lineage = link.lineage();
        let mut all = vec![epoch.as_str().as_bytes(), lineage.as_bytes(), meta_ttl.as_bytes()];
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

fn suppressible(link: &Ready, answer: &Value) -> Result<Published, EngineError> {
    let (suppressed, position) = reply::suppressible(answer).ok_or_else(|| link.nonsense())?;
    Ok(Published { position, suppressed })
}

/// Offset and epoch; an empty offset says that there is none.
fn since_arguments(since: Option<Since<'_>>) -> (String, &str) {
    since.map_or_else(Default::default, |since| (since.offset.to_string(), since.epoch))
}

/// What a script can still count exactly.
fn limit_argument(limit: usize) -> String {
    const LIMIT_MAX: usize = 1 << 40;
    limit.min(LIMIT_MAX).to_string()
}

/// What Redis takes as a TTL.
fn milliseconds(ttl: Duration) -> u64 {
    const TTL_MAX: u64 = 100 * 365 * 24 * 60 * 60 * 1000;
    u64::try_from(ttl.as_millis()).unwrap_or(TTL_MAX).clamp(1, TTL_MAX)
}

/// Changes eight times in a TTL, so that a stream's expiry need not be set more often. Eight digits.
fn ttl_bucket(ttl: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let bucket = now * 8 / u128::from(ttl);
    format!("{:08x}", bucket as u32)
}

fn fresh_epoch() -> Epoch {
    Epoch::from_random(rand::random())
}
