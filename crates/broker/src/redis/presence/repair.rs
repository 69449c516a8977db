//! Writes doubtful topics anew: afterwards Redis has exactly the members that this node knows of, and those that it
//! had beyond them have left, with the leaves that were to be said.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::{ClientId, TopicName};
use redis::{Pipeline, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Presence, counts, expire};
use crate::engine::EngineError;
use crate::redis::cleaner::{by_link, run};
use crate::redis::frame::member_body;
use crate::redis::keys::Incarnation;
use crate::redis::link::Ready;

/// How often everything is written anew, so that the backstop is never reached by a node that lives.
const RENEWAL: Duration = Duration::from_secs(8 * 60 * 60);
/// Topics that are written anew in one round trip.
const TOPICS: usize = 128;
/// Members in one command.
const MEMBERS: usize = 500;

impl Presence {
    /// Repairs what is doubtful after each sign of life, for ever.
    pub(in crate::redis) async fn run(self: Arc<Self>) {
        let mut beats = self.lease.beats();
        let mut renewed = Instant::now();
        let mut lapses = 0;
        while beats.changed().await.is_ok() {
            let lapses_now = beats.borrow_and_update().lapses;
            if renewed.elapsed() >= RENEWAL || lapses_now != lapses {
                (renewed, lapses) = (Instant::now(), lapses_now);
                self.own().doubt_all();
            }
            self.repair().await;
        }
    }

    /// What fails remains doubtful.
    async fn repair(&self) {
        let _alone = self.repairing.lock().await;
        let (leftovers, doubtful) = {
            let mut own = self.own();
            (own.take_leftovers(), own.doubtful())
        };
        for (dead, topics) in leftovers {
            // If this fails it is seen by nobody, and expires.
            let _ = self.cleaner.take_out(dead, topics).await;
        }
        for (link, topics) in by_link(&self.links, doubtful) {
            for batch in topics.chunks(TOPICS) {
                // Without the lease or the link there is nothing to do until the next time.
                let Some(incarnation) = self.lease.held() else { return };
                let Ok(mut link) = self.links.link(link) else { break };
                let mut rewrite = Rewrite::begin(self, incarnation, batch);
                if rewrite.run(&mut link).await.is_err() {
                    break;
                }
            }
        }
    }

    /// Everything of the topic, given which clients are there already.
    fn put_all(&self, commands: &mut Pipeline, topic: &TopicName, incarnation: Incarnation, there: &[Value]) {
        let mut own = self.own();
        let stats = own.stats(topic);
        own.list(topic, stats.clients > 0);
        let known: HashSet<ClientId> = own.members(topic).map(|member| member.info.client).collect();
        let strangers: Vec<_> =
            there.iter().filter_map(client_bytes).filter(|client| !is_known(&known, client)).collect();
        for strangers in strangers.chunks(MEMBERS) {
            self.put_removal(commands, topic, incarnation, stats, strangers);
        }
        let (key, counts_key) = (self.keys.members(topic, incarnation), self.keys.member_counts(topic));
        if stats.clients == 0 {
            commands.hdel(counts_key, incarnation.to_string());
            commands.srem(self.keys.member_topics(incarnation), topic.as_str());
            return;
        }
        self.put_topic(commands, topic, incarnation);
        let bodies: Vec<_> = own
            .members(topic)
            .map(|member| (member.info.client.0.as_bytes().as_slice(), member_body(member)))
            .collect();
        for bodies in bodies.chunks(MEMBERS) {
            commands.hset_multiple(&key, bodies);
        }
        commands.hset(&counts_key, incarnation.to_string(), counts(stats));
        expire(commands, &key);
        expire(commands, &counts_key);
    }
}

/// Topics that are being written as a whole. Those that are not done when this is dropped are doubtful again.
struct Rewrite<'a> {
    presence: &'a Presence,
    incarnation: Incarnation,
    topics: Vec<(TopicName, Done)>,
}

/// Whether all of a topic is written.
type Done = bool;

impl<'a> Rewrite<'a> {
    fn begin(presence: &'a Presence, incarnation: Incarnation, topics: &[TopicName]) -> Self {
        let mut own = presence.own();
        let topics = topics.iter().filter(|topic| own.incarnation == incarnation && own.begin_rewrite(topic));
        let topics = topics.map(|topic| (topic.clone(), false)).collect();
        Self { presence, incarnation, topics }
    }

    async fn run(&mut self, link: &mut Ready) -> Result<(), EngineError> {
        if self.topics.is_empty() {
            return Ok(());
        }
        let presence = self.presence;
        let mut commands = redis::pipe();
        for (topic, _) in &self.topics {
            commands.hkeys(presence.keys.members(topic, self.incarnation));
        }
        let there = link.answers(&commands).await?;
        if presence.lease.held() != Some(self.incarnation) {
            return Err(EngineError::Unavailable);
        }
        let mut commands = redis::pipe();
        let mut ends = Vec::new();
        for ((topic, _), there) in self.topics.iter().zip(there) {
            // One topic in whose way something stands must not keep the others from being written.
            if let Ok(Value::Array(there)) = link.accept(there) {
                presence.put_all(&mut commands, topic, self.incarnation, &there);
            }
            ends.push(commands.len());
        }
        let answers = run(link, &commands).await?;
        let is_held = presence.lease.held() == Some(self.incarnation);
        let mut begin = 0;
        for ((_, is_done), end) in self.topics.iter_mut().zip(ends) {
            let answers = answers.get(begin..end).unwrap_or_default();
            *is_done = is_held
                && !answers.is_empty()
                && answers.iter().all(|answer| link.accept(answer.clone()).is_ok());
            begin = end;
        }
        Ok(())
    }
}

impl Drop for Rewrite<'_> {
    fn drop(&mut self) {
        let mut own = self.presence.own();
        let is_void = own.incarnation != self.incarnation;
        for (topic, is_done) in self.topics.drain(..) {
            if !is_void {
                own.end_rewrite(&topic, !is_done);
            } else if !is_done {
                own.leave_behind(self.incarnation, topic);
            }
        }
        self.presence.rewritten.notify_waiters();
    }
}

fn client_bytes(field: &Value) -> Option<&[u8]> {
    match field {
        Value::BulkString(client) => Some(client),
        _ => None,
    }
}

fn is_known(known: &HashSet<ClientId>, client: &[u8]) -> bool {
    Uuid::from_slice(client).is_ok_and(|client| known.contains(&ClientId(client)))
}
