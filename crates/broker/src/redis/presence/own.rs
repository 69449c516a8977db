//! The members of this node, of which Redis has a copy.
//!
//! The table belongs to one incarnation and is lost when that is fenced. A topic is in the table while it has members
//! or is being written.

use std::collections::{HashMap, HashSet};

use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::{ClientId, ClientInfo, TopicName};

use crate::contract::{Member, PresenceStats};
use crate::members::Members;
use crate::redis::keys::Incarnation;

pub(super) struct Own {
    pub(super) incarnation: Incarnation,
    /// Clients choose topic names, so a fast hash is not safe here.
    topics: HashMap<TopicName, Present>,
    /// Topics whose copy in Redis may be wrong. A topic without members of which nothing was sent is not dirty, so
    /// clients that come and go while Redis is lost leave nothing behind.
    dirty: HashSet<TopicName>,
    /// Topics that may have members of earlier incarnations.
    leftovers: Vec<(Incarnation, TopicName)>,
}

#[derive(Default)]
struct Present {
    members: Members,
    /// The number of writes that Redis has not answered yet.
    writes: usize,
    /// Writes were in flight at the same time, so the order of their counts is unknown.
    is_disordered: bool,
    /// The topic is being rewritten. Writes of single members wait.
    is_rewritten: bool,
    /// The topic is in Redis' list of topics with members of the node.
    is_listed: bool,
    /// Some of the topic was sent to Redis under this incarnation and may be stored.
    is_sent: bool,
}

impl Own {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, topics: HashMap::new(), dirty: HashSet::new(), leftovers: Vec::new() }
    }

    /// Starts over as another incarnation without members.
    pub(super) fn begin_again(&mut self, incarnation: Incarnation) {
        let Self { incarnation: before, dirty, leftovers, .. } =
            std::mem::replace(self, Self::new(incarnation));
        self.leftovers = leftovers;
        self.leftovers.extend(dirty.into_iter().map(|topic| (before, topic)));
    }

    /// Notes the beginning of a write of single members.
    pub(super) fn begin_write(&mut self, topic: &TopicName) {
        let present = self.present(topic);
        present.is_disordered |= present.writes > 0;
        present.writes += 1;
    }

    /// Notes that Redis may have some of the topic from now on.
    pub(super) fn send(&mut self, topic: &TopicName) {
        self.present(topic).is_sent = true;
    }

    pub(super) fn end_write(&mut self, topic: &TopicName, mut is_dirty: bool) {
        if let Some(present) = self.topics.get_mut(topic) {
            // A node that leaves empties the table while writes are under way: they are not counted in what comes
            // after.
            present.writes = present.writes.saturating_sub(1);
            is_dirty |= present.writes == 0 && std::mem::take(&mut present.is_disordered);
        }
        if is_dirty {
            self.dirty.insert(topic.clone());
        }
        self.forget_if_unused(topic);
    }

    pub(super) fn add(&mut self, topic: &TopicName, member: Member) {
        self.present(topic).members.add(member);
    }

    pub(super) fn remove(&mut self, topic: &TopicName, client: ClientId) {
        if let Some(present) = self.topics.get_mut(topic) {
            present.members.remove(client);
            self.forget_if_unused(topic);
        }
    }

    /// Returns true if none of the topic's members has events. Of a topic without members here nothing is known.
    pub(super) fn has_no_events(&self, topic: &TopicName) -> bool {
        let members = self.topics.get(topic).map(|present| &present.members);
        members.is_some_and(|members| !members.is_empty() && members.events().is_empty())
    }

    /// Returns true if a removed member was the last, and nothing else is being written.
    pub(super) fn is_vacated(&self, topic: &TopicName) -> bool {
        self.topics.get(topic).is_none_or(|present| present.members.is_empty() && present.writes <= 1)
    }

    pub(super) fn has(&self, topic: &TopicName, client: ClientId) -> bool {
        self.topics.get(topic).is_some_and(|present| present.members.contains(client))
    }

    /// Returns true if Redis may have some data of the client.
    pub(super) fn may_have(&self, topic: &TopicName, client: ClientId) -> bool {
        self.is_dirty(topic)
            || self.has(topic, client)
            || self.topics.get(topic).is_some_and(|present| present.writes > 0)
    }

    pub(super) fn stats(&self, topic: &TopicName) -> PresenceStats {
        self.topics.get(topic).map(|present| present.members.stats()).unwrap_or_default()
    }

    pub(super) fn stats_with(&self, topic: &TopicName, info: &ClientInfo) -> PresenceStats {
        let one = PresenceStats { clients: 1, users: 1 };
        self.topics.get(topic).map_or(one, |present| present.members.stats_with(info))
    }

    /// Returns the number of members other than the client.
    pub(super) fn others(&self, topic: &TopicName, client: ClientId) -> usize {
        self.topics.get(topic).map_or(0, |present| present.members.others(client))
    }

    pub(super) fn members(&self, topic: &TopicName) -> Vec<Member> {
        self.topics.get(topic).map(|present| present.members.iter().collect()).unwrap_or_default()
    }

    /// Sets whether the topic is listed, and returns the value before.
    pub(super) fn list(&mut self, topic: &TopicName, is_listed: bool) -> bool {
        self.topics.get_mut(topic).is_some_and(|present| std::mem::replace(&mut present.is_listed, is_listed))
    }

    pub(super) fn mark_dirty(&mut self, topic: &TopicName) {
        self.dirty.insert(topic.clone());
    }

    pub(super) fn is_dirty(&self, topic: &TopicName) -> bool {
        self.dirty.contains(topic)
    }

    pub(super) fn mark_all_dirty(&mut self) {
        self.dirty.extend(self.topics.keys().cloned());
    }

    /// Returns the dirty topics and their numbers of members.
    pub(super) fn dirty(&self) -> Vec<(TopicName, usize)> {
        self.dirty.iter().map(|topic| (topic.clone(), self.stats(topic).clients)).collect()
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

    /// Begins a rewrite and clears the dirty mark. Returns false if none is needed, or if writes are in flight.
    pub(super) fn begin_rewrite(&mut self, topic: &TopicName) -> bool {
        if self.topics.get(topic).is_some_and(|present| present.writes > 0) || !self.dirty.remove(topic) {
            return false;
        }
        self.dirty.give_back();
        let present = self.topics.entry(topic.clone()).or_default();
        (present.is_rewritten, present.is_sent) = (true, true);
        true
    }

    pub(super) fn end_rewrite(&mut self, topic: &TopicName, is_dirty: bool) {
        if let Some(present) = self.topics.get_mut(topic) {
            present.is_rewritten = false;
        }
        if is_dirty {
            self.dirty.insert(topic.clone());
        }
        self.forget_if_unused(topic);
    }

    fn present(&mut self, topic: &TopicName) -> &mut Present {
        // A dirty topic that is not in the table was sent before.
        let is_sent = self.dirty.contains(topic);
        self.topics.entry(topic.clone()).or_insert_with(|| Present { is_sent, ..Present::default() })
    }

    fn forget_if_unused(&mut self, topic: &TopicName) {
        let is_unused =
            |present: &&Present| present.members.is_empty() && present.writes == 0 && !present.is_rewritten;
        if let Some(present) = self.topics.get(topic).filter(is_unused) {
            if !present.is_sent {
                self.dirty.remove(topic);
            }
            self.topics.remove(topic);
            self.topics.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    fn topic(name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    fn member(number: u128) -> Member {
        let client = ClientId(Uuid::from_u128(number));
        let (connection, subscription) = (Bytes::new(), Bytes::new());
        let info = ClientInfo { user: "u".into(), client, connection, subscription };
        Member::new(Arc::new(info), true)
    }

    /// Adds the member without success in Redis.
    fn add_in_vain(own: &mut Own, topic: &TopicName, number: u128) {
        own.begin_write(topic);
        own.add(topic, member(number));
        own.end_write(topic, true);
    }

    fn remove_in_vain(own: &mut Own, topic: &TopicName, number: u128) {
        own.begin_write(topic);
        own.remove(topic, ClientId(Uuid::from_u128(number)));
        own.end_write(topic, true);
    }

    #[test]
    fn who_comes_and_goes_without_redis_leaves_nothing_behind() {
        let mut own = Own::new(Incarnation::random());
        for number in 0..100 {
            let topic = topic(&number.to_string());
            add_in_vain(&mut own, &topic, number);
            // Admitted by what is known here.
            own.begin_write(&topic);
            own.end_write(&topic, true);
            own.add(&topic, member(number + 1000));
            own.mark_dirty(&topic);
            assert_eq!(own.dirty(), [(topic.clone(), 2)]);
            remove_in_vain(&mut own, &topic, number);
            remove_in_vain(&mut own, &topic, number + 1000);
            assert_eq!((own.dirty(), own.topics.len()), (vec![], 0));
        }
    }

    #[test]
    fn what_redis_may_have_stays_dirty() {
        let (mut own, topic) = (Own::new(Incarnation::random()), topic("t"));
        own.begin_write(&topic);
        own.add(&topic, member(1));
        own.send(&topic);
        own.end_write(&topic, false);
        remove_in_vain(&mut own, &topic, 1);
        assert_eq!(own.dirty(), [(topic.clone(), 0)]);
        // Even if others come and go.
        add_in_vain(&mut own, &topic, 2);
        remove_in_vain(&mut own, &topic, 2);
        assert_eq!(own.dirty(), [(topic.clone(), 0)]);
        assert!(own.begin_rewrite(&topic));
        own.end_rewrite(&topic, false);
        assert_eq!((own.dirty(), own.topics.len()), (vec![], 0));
    }

    #[test]
    fn what_was_left_behind_before_is_left_behind_still() {
        let (first, second) = (Incarnation::random(), Incarnation::random());
        let mut own = Own::new(first);
        for (incarnation, name) in [(second, "t"), (Incarnation::random(), "u")] {
            own.mark_dirty(&topic(name));
            own.begin_again(incarnation);
        }
        let expected = [(first, vec![topic("t")]), (second, vec![topic("u")])];
        assert_eq!(own.take_leftovers(), expected.into());
        assert!(own.take_leftovers().is_empty());
    }

    #[test]
    fn a_write_that_a_leaving_node_forgot_ends_all_the_same() {
        let (mut own, topic) = (Own::new(Incarnation::random()), topic("t"));
        own.begin_write(&topic);
        own = Own::new(own.incarnation);
        own.begin_write(&topic);
        own.end_write(&topic, true);
        own.end_write(&topic, true);
        assert!(own.topics.is_empty());
    }
}
