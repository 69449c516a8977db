//! The table of nodes in Redis, read and changed by scripts that use Redis' clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use redis::Value;
use uuid::Uuid;

use super::arguments::milliseconds;
use super::clock::Clock;
use super::frame::parse_offset;
use super::keys::{Incarnation, Keys};
use super::scripts::{Script, Scripts};
use super::server::link::{CommandLink, Links, is_not_permitted};
use super::settings::{Incompatible, RedisSettings};
use crate::contract::EngineError;

/// A node of the cluster, for one run of its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Random, created when the process starts.
    pub id: Uuid,
    /// For people. Two nodes may have the same name.
    pub name: Box<str>,
}

/// The result of a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heartbeat {
    Held {
        /// The beginning of the lease, in milliseconds of Redis' clock.
        since: u64,
        /// Its end, by the same clock. Until then no other node fences this one.
        until: u64,
        /// The time until the next lease of another node ends, unless it is renewed.
        next_end: Option<Duration>,
        /// Some of the nodes whose lease has ended.
        ended: Vec<Incarnation>,
    },
    /// Another node ended the lease.
    Fenced,
    Refused(Incompatible),
}

/// A dead node, which was fenced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DeadNode {
    pub(super) name: Box<str>,
    /// The application in which it may have members.
    pub(super) application: Box<str>,
    /// Its members may have events.
    pub(super) has_events: bool,
}

/// The table of nodes, for one node.
pub(super) struct NodeTable {
    node: Peer,
    keys: Arc<Keys>,
    links: Links,
    scripts: Arc<Scripts>,
    settings: Arc<RedisSettings>,
    clock: Arc<Clock>,
    /// The user has no right to [`Keys::PREFIXES`].
    prefixes_are_closed: AtomicBool,
}

/// The version of names and contents of keys. It changes with them. It is 2 if names of channels contain the database,
/// since versions without it receive no messages of this one.
fn layout(database: i64) -> u32 {
    if database == 0 { 1 } else { 2 }
}

/// Ends the details of a node whose members may have events.
const EVENTS: &str = "\0events";

/// The TTL of data that outlives leases, for the case that no node is left to remove it.
pub(super) const BACKSTOP: Duration = Duration::from_secs(24 * 60 * 60);

/// The time that other nodes wait for the one that removes a dead node's members.
pub(super) const REAPING_MAX: Duration = Duration::from_secs(5);

impl NodeTable {
    pub(super) fn new(
        node: Peer,
        keys: Arc<Keys>,
        links: Links,
        scripts: Arc<Scripts>,
        settings: Arc<RedisSettings>,
        clock: Arc<Clock>,
    ) -> Self {
        let prefixes_are_closed = AtomicBool::new(false);
        Self { node, keys, links, scripts, settings, clock, prefixes_are_closed }
    }

    /// Renews the lease. A joining node has to match the cluster's settings.
    pub(super) async fn heartbeat(
        &self,
        incarnation: Incarnation,
        joins: bool,
    ) -> Result<Heartbeat, EngineError> {
        let mut link = self.links.any()?;
        if let Some(reason) = self.announce_prefix(&mut link, joins).await? {
            return Ok(Heartbeat::Refused(reason));
        }
        let keys = [
            self.keys.nodes(),
            self.keys.node_details(),
            self.keys.lease(incarnation),
            self.keys.tombstone(incarnation),
            self.keys.cluster_settings(),
        ];
        let lease = milliseconds(self.settings.lease);
        let arguments = [
            incarnation.to_string(),
            lease.to_string(),
            self.details(),
            format!("{}:{lease}", layout(self.settings.database)),
            flag(joins),
            milliseconds(BACKSTOP).to_string(),
        ];
        let answer = run(&mut link, &self.scripts.heartbeat, &keys, &arguments).await?;
        self.read_heartbeat(&answer).ok_or_else(|| link.nonsense())
    }

    /// Returns the live nodes of this application.
    pub(super) async fn peers(&self) -> Result<Vec<(Incarnation, Peer)>, EngineError> {
        let mut link = self.links.any()?;
        let keys = [self.keys.nodes(), self.keys.node_details()];
        let answer = run(&mut link, &self.scripts.peers, &keys, &[]).await?;
        let Value::Array(values) = &answer else { return Err(link.nonsense()) };
        let peers = values.chunks_exact(2).filter_map(|pair| {
            let incarnation = Incarnation::parse(text(&pair[0])?)?;
            let (peer, application) = read_details(&pair[1])?;
            (*application == *self.settings.application).then_some((incarnation, peer))
        });
        Ok(peers.collect())
    }

    /// Fences a node whose lease has ended, for this node to reap. `None` if it lives or another node reaps it.
    pub(super) async fn claim(
        &self,
        dead: Incarnation,
        reaper: Incarnation,
    ) -> Result<Option<DeadNode>, EngineError> {
        let mut link = self.links.any()?;
        Ok(self.claim_with(&mut link, dead, reaper).await?.map(|(_, dead)| dead))
    }

    /// Ends this node's own lease, as [`NodeTable::claim`] would. The last node removes the cluster's prefix, so that
    /// the next cluster may have another.
    pub(super) async fn resign(&self, incarnation: Incarnation) -> Result<(), EngineError> {
        let mut link = self.links.any()?;
        let others = self.claim_with(&mut link, incarnation, incarnation).await?;
        if others.is_some_and(|(others, _)| others == 0) && !self.prefixes_are_closed.load(Relaxed) {
            let mut command = redis::cmd("ZREM");
            link.command(command.arg(Keys::PREFIXES).arg(&*self.settings.prefix)).await?;
        }
        Ok(())
    }

    /// Removes a dead node without members from the table.
    pub(super) async fn forget(&self, dead: Incarnation) -> Result<(), EngineError> {
        let mut commands = redis::pipe();
        commands.zrem(self.keys.nodes(), dead.to_string());
        commands.hdel(self.keys.node_details(), dead.to_string());
        commands.del(self.keys.reaping(dead));
        self.links.any()?.pipeline(&commands).await?;
        Ok(())
    }

    /// Returns an error if another cluster has another prefix. A node without the right to look accepts its prefix.
    async fn announce_prefix(
        &self,
        link: &mut CommandLink,
        joins: bool,
    ) -> Result<Option<Incompatible>, EngineError> {
        if self.prefixes_are_closed.load(Relaxed) {
            return Ok(None);
        }
        let RedisSettings { prefix, lease, allow_other_prefixes, .. } = &*self.settings;
        let arguments = [
            prefix.to_string(),
            milliseconds(*lease).to_string(),
            flag(joins && !allow_other_prefixes),
            milliseconds(BACKSTOP).to_string(),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_bytes).collect();
        let mut commands = redis::pipe();
        commands.add_command(self.scripts.prefixes.call(&[Keys::PREFIXES], &arguments));
        let answers = link.run(&commands).await?;
        if let Some(Value::ServerError(error)) = answers.first()
            && is_not_permitted(error)
        {
            self.prefixes_are_closed.store(true, Relaxed);
            tracing::info!(
                key = Keys::PREFIXES,
                "the guard against a second engine.redis.prefix in this Redis is off: engine.redis.username has no \
                 right to its key"
            );
            return Ok(None);
        }
        let answers = link.accept_all(answers, &commands)?;
        let other = answers.first().and_then(text).ok_or_else(|| link.nonsense())?;
        let refusal =
            || Incompatible::Prefix { ours: prefix.clone(), theirs: String::from_utf8_lossy(other).into() };
        Ok((!other.is_empty()).then(refusal))
    }

    /// Returns the number of other live nodes, and the dead node.
    async fn claim_with(
        &self,
        link: &mut CommandLink,
        dead: Incarnation,
        reaper: Incarnation,
    ) -> Result<Option<(i64, DeadNode)>, EngineError> {
        let keys = [
            self.keys.nodes(),
            self.keys.lease(dead),
            self.keys.tombstone(dead),
            self.keys.reaping(dead),
            self.keys.node_details(),
        ];
        let arguments = [
            dead.to_string(),
            reaper.to_string(),
            milliseconds(REAPING_MAX).to_string(),
            milliseconds(BACKSTOP).to_string(),
        ];
        let answer = run(link, &self.scripts.claim, &keys, &arguments).await?;
        match &answer {
            Value::Array(values) => match values.as_slice() {
                [Value::Int(0), _, _] => Ok(None),
                [Value::Int(_), Value::Int(others), details] => {
                    let (name, application) = match read_details(details) {
                        Some((peer, application)) => (peer.name, application.into()),
                        None => (Box::default(), self.settings.application.clone()),
                    };
                    let has_events =
                        text(details).is_some_and(|details| details.ends_with(EVENTS.as_bytes()));
                    Ok(Some((*others, DeadNode { name, application, has_events })))
                }
                _ => Err(link.nonsense()),
            },
            _ => Err(link.nonsense()),
        }
    }

    fn read_heartbeat(&self, answer: &Value) -> Option<Heartbeat> {
        let Value::Array(values) = answer else { return None };
        match (text(values.first()?)?, &values[1..]) {
            (b"fenced", []) => Some(Heartbeat::Fenced),
            (b"refused", [settings]) => self.refusal(text(settings)?).map(Heartbeat::Refused),
            (b"held", [since, Value::Int(next_end), Value::Array(ended), Value::Int(now)]) => {
                self.clock.set(*now);
                Some(Heartbeat::Held {
                    since: parse_offset(text(since)?)?,
                    until: u64::try_from(*now).ok()?.saturating_add(milliseconds(self.settings.lease)),
                    next_end: u64::try_from(*next_end).ok().filter(|end| *end > 0).map(Duration::from_millis),
                    ended: ended.iter().filter_map(|ended| Incarnation::parse(text(ended)?)).collect(),
                })
            }
            _ => None,
        }
    }

    /// Returns the mismatch with the settings of the live nodes.
    fn refusal(&self, settings: &[u8]) -> Option<Incompatible> {
        let (theirs, lease) = std::str::from_utf8(settings).ok()?.split_once(':')?;
        let (ours, theirs) = (layout(self.settings.database), theirs.parse().ok()?);
        if ours != theirs {
            return Some(Incompatible::Layout { ours, theirs });
        }
        let theirs = Duration::from_millis(lease.parse().ok()?);
        Some(Incompatible::Lease { ours: self.settings.lease, theirs })
    }

    /// This node's details: id, name and application, separated by zeros, and a mark if its members may have events.
    fn details(&self) -> String {
        let RedisSettings { application, outbox, .. } = &*self.settings;
        let events = if outbox.is_some() { EVENTS } else { "" };
        format!("{}\0{}\0{application}{events}", self.node.id.simple(), self.node.name)
    }
}

async fn run(
    link: &mut CommandLink,
    script: &Script,
    keys: &[String],
    arguments: &[String],
) -> Result<Value, EngineError> {
    let keys: Vec<_> = keys.iter().map(String::as_bytes).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_bytes).collect();
    link.script(script, &keys, &arguments).await
}

fn flag(is_set: bool) -> String {
    u8::from(is_set).to_string()
}

fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(text) => Some(text),
        _ => None,
    }
}

/// Reads a node and its application, the first if there are several.
fn read_details(value: &Value) -> Option<(Peer, &str)> {
    let mut parts = std::str::from_utf8(text(value)?).ok()?.split('\0');
    let peer = Peer { id: Uuid::try_parse(parts.next()?).ok()?, name: parts.next()?.into() };
    Some((peer, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_several_applications_are_read_as_of_the_first() {
        let details = |text: &str| Value::BulkString(text.into());
        let id = Uuid::from_u128(7);
        let peer = Peer { id, name: "n".into() };
        for applications in ["a", "a\0b"] {
            let value = details(&format!("{}\0n\0{applications}", id.simple()));
            assert_eq!(read_details(&value), Some((peer.clone(), "a")));
        }
        assert_eq!(read_details(&details(&format!("{}\0n", id.simple()))), None);
        assert_eq!(read_details(&details("")), None);
    }
}
