//! The members of this node: the truth, of which Redis has a copy.
//!
//! The table belongs to one incarnation; when that is taken for dead everything in it is lost. A topic is in the table
//! while it has members, or while it is being written.

use std::collections::{HashMap, HashSet};

use fanwire_protocol::{ClientId, ClientInfo, TopicName};

use crate::capacity::shrunk_capacity;
use crate::members::{Member, Members};
use crate::presence::PresenceStats;
use crate::redis::keys::Incarnation;

pub(super) struct Own {
    pub(super) incarnation: Incarnation,
    /// Clients choose topic names, so this is no place for a fast hash.
    topics: HashMap<TopicName, Present>,
    /// Topics of which Redis' copy may be wrong.
    doubtful: HashSet<TopicName>,
    /// What may have been left behind under incarnations that are over.
    leftovers: Vec<(Incarnation, TopicName)>,
}

#[derive(Default)]
struct Present {
    members: Members,
    /// Changes of single members that Redis has not answered yet.
    writes: usize,
    /// Some of those were under way at the same time, so that nobody knows which of their counts came last.
    is_disordered: bool,
    /// All of the topic is being written. Whoever wants to write a single member waits.
    is_rewritten: bool,
    /// The topic is among those that Redis knows the node to have members in.
    is_listed: bool,
}

impl Own {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, topics: HashMap::new(), doubtful: HashSet::new(), leftovers: Vec::new() }
    }

    /// Loses everything, as the members of another incarnation.
    pub(super) fn begin_again(&mut self, incarnation: Incarnation) {
        let Self { incarnation: before, doubtful, .. } = std::mem::replace(self, Self::new(incarnation));
        self.leftovers = doubtful.into_iter().map(|topic| (before, topic)).collect();
    }

    /// Takes note of a write of single members that begins.
    pub(super) fn begin_write(&mut self, topic: &TopicName) {
        let present = self.topics.entry(topic.clone()).or_default();
        present.is_disordered |= present.writes > 0;
        present.writes += 1;
    }

    pub(super) fn end_write(&mut self, topic: &TopicName, mut is_doubtful: bool) {
        if let Some(present) = self.topics.get_mut(topic) {
            present.writes -= 1;
            is_doubtful |= present.writes == 0 && std::mem::take(&mut present.is_disordered);
        }
        if is_doubtful {
            self.doubtful.insert(topic.clone());
        }
        self.forget_if_unused(topic);
    }

    pub(super) fn add(&mut self, topic: &TopicName, member: Member) {
        self.topics.entry(topic.clone()).or_default().members.add(member);
    }

    pub(super) fn remove(&mut self, topic: &TopicName, client: ClientId) {
        if let Some(present) = self.topics.get_mut(topic) {
            present.members.remove(client);
            self.forget_if_unused(topic);
        }
    }

    /// Whether anything of the client may be in Redis.
    pub(super) fn may_have(&self, topic: &TopicName, client: ClientId) -> bool {
        self.doubtful.contains(topic)
            || self
                .topics
                .get(topic)
                .is_some_and(|present| present.members.contains(client) || present.writes > 0)
    }

    pub(super) fn stats(&self, topic: &TopicName) -> PresenceStats {
        self.topics.get(topic).map(|present| present.members.stats()).unwrap_or_default()
    }

    pub(super) fn stats_with(&self, topic: &TopicName, info: &ClientInfo) -> PresenceStats {
        let one = PresenceStats { clients: 1, users: 1 };
        self.topics.get(topic).map_or(one, |present| present.members.stats_with(info))
    }

    /// How many members there are beside the client.
    pub(super) fn others(&self, topic: &TopicName, client: ClientId) -> usize {
        self.topics.get(topic).map_or(0, |present| present.members.others(client))
    }

    pub(super) fn members(&self, topic: &TopicName) -> impl Iterator<Item = &Member> {
        self.topics.get(topic).into_iter().flat_map(|present| present.members.iter())
    }

    /// Notes whether the topic is listed, and returns whether it was.
    pub(super) fn list(&mut self, topic: &TopicName, is_listed: bool) -> bool {
        self.topics.get_mut(topic).is_some_and(|present| std::mem::replace(&mut present.is_listed, is_listed))
    }

    pub(super) fn doubt(&mut self, topic: &TopicName) {
        self.doubtful.insert(topic.clone());
    }

    pub(super) fn doubt_all(&mut self) {
        self.doubtful.extend(self.topics.keys().cloned());
    }

    pub(super) fn doubtful(&self) -> Vec<TopicName> {
        self.doubtful.iter().cloned().collect()
    }

    pub(super) fn leave_behind(&mut self, incarnation: Incarnation, topic: TopicName) {
        self.leftovers.push((incarnation, topic));
    }

    pub(super) fn take_leftovers(&mut self) -> HashMap<Incarnation, Vec<TopicName>> {
        let mut leftovers: HashMap<_, Vec<_>> = HashMap::new();
        for (incarnation, topic) in std::mem::take(&mut self.leftovers) {
            leftovers.entry(incarnation).or_default().push(topic);
        }
        leftovers
    }

    pub(super) fn is_rewritten(&self, topic: &TopicName) -> bool {
        self.topics.get(topic).is_some_and(|present| present.is_rewritten)
    }

    /// Takes note that all of the topic is going to be written, unless that is not needed, or not yet possible. From
    /// now on only new doubts count.
    pub(super) fn begin_rewrite(&mut self, topic: &TopicName) -> bool {
        if self.topics.get(topic).is_some_and(|present| present.writes > 0) || !self.doubtful.remove(topic) {
            return false;
        }
        if let Some(capacity) = shrunk_capacity(self.doubtful.len(), self.doubtful.capacity()) {
            self.doubtful.shrink_to(capacity);
        }
        self.topics.entry(topic.clone()).or_default().is_rewritten = true;
        true
    }

    pub(super) fn end_rewrite(&mut self, topic: &TopicName, is_doubtful: bool) {
        if let Some(present) = self.topics.get_mut(topic) {
            present.is_rewritten = false;
        }
        if is_doubtful {
            self.doubtful.insert(topic.clone());
        }
        self.forget_if_unused(topic);
    }

    fn forget_if_unused(&mut self, topic: &TopicName) {
        let is_unused = self.topics.get(topic).is_some_and(|present| {
            present.members.is_empty() && present.writes == 0 && !present.is_rewritten
        });
        if is_unused {
            self.topics.remove(topic);
            if let Some(capacity) = shrunk_capacity(self.topics.len(), self.topics.capacity()) {
                self.topics.shrink_to(capacity);
            }
        }
    }
}
