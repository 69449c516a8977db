//! The members of this node: the truth, of which Redis has a copy.
//!
//! The table belongs to one incarnation; when that is taken for dead everything in it is lost. A topic is in the table
//! while it has members, or while it is being written.

use std::collections::{HashMap, HashSet};

use fanwire_protocol::{ClientId, ClientInfo, TopicName};

use crate::capacity::shrunk_capacity;
use crate::contract::{Member, PresenceStats};
use crate::members::Members;
use crate::redis::keys::Incarnation;

pub(super) struct Own {
    pub(super) incarnation: Incarnation,
    /// Clients choose topic names, so this is no place for a fast hash.
    topics: HashMap<TopicName, Present>,
    /// Topics of which Redis' copy may be wrong. One without members of which nothing was ever sent is not among them:
    /// clients that come and go while Redis is away leave nothing behind.
    dirty: HashSet<TopicName>,
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
    /// Something of the topic was sent to Redis under this incarnation, and may be there.
    is_sent: bool,
}

impl Own {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, topics: HashMap::new(), dirty: HashSet::new(), leftovers: Vec::new() }
    }

    /// Loses everything, as the members of another incarnation.
    pub(super) fn begin_again(&mut self, incarnation: Incarnation) {
        let Self { incarnation: before, dirty, leftovers, .. } =
            std::mem::replace(self, Self::new(incarnation));
        self.leftovers = leftovers;
        self.leftovers.extend(dirty.into_iter().map(|topic| (before, topic)));
    }

    /// Takes note of a write of single members that begins.
    pub(super) fn begin_write(&mut self, topic: &TopicName) {
        let present = self.present(topic);
        present.is_disordered |= present.writes > 0;
        present.writes += 1;
    }

    /// Takes note that Redis may have something of the topic from now on.
    pub(super) fn send(&mut self, topic: &TopicName) {
        self.present(topic).is_sent = true;
    }

    pub(super) fn end_write(&mut self, topic: &TopicName, mut is_dirty: bool) {
        if let Some(present) = self.topics.get_mut(topic) {
            // A node that leaves empties the table while writes are under way: they are not counted in what comes after.
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

    /// Whether anything of the client may be in Redis.
    pub(super) fn may_have(&self, topic: &TopicName, client: ClientId) -> bool {
        self.dirty.contains(topic)
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

    pub(super) fn members(&self, topic: &TopicName) -> Vec<Member> {
        self.topics.get(topic).map(|present| present.members.iter().collect()).unwrap_or_default()
    }

    /// Notes whether the topic is listed, and returns whether it was.
    pub(super) fn list(&mut self, topic: &TopicName, is_listed: bool) -> bool {
        self.topics.get_mut(topic).is_some_and(|present| std::mem::replace(&mut present.is_listed, is_listed))
    }

    pub(super) fn mark_dirty(&mut self, topic: &TopicName) {
        self.dirty.insert(topic.clone());
    }

    pub(super) fn mark_all_dirty(&mut self) {
        self.dirty.extend(self.topics.keys().cloned());
    }

    /// The dirty topics, and how many members each has.
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

    /// Takes note that all of the topic is going to be written, unless that is not needed, or not yet possible. From
    /// now on only what makes it dirty again counts.
    pub(super) fn begin_rewrite(&mut self, topic: &TopicName) -> bool {
        if self.topics.get(topic).is_some_and(|present| present.writes > 0) || !self.dirty.remove(topic) {
            return false;
        }
        if let Some(capacity) = shrunk_capacity(self.dirty.len(), self.dirty.capacity()) {
            self.dirty.shrink_to(capacity);
        }
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
        // What is dirty though it is not in the table was sent before.
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
            if let Some(capacity) = shrunk_capacity(self.topics.len(), self.topics.capacity()) {
                self.topics.shrink_to(capacity);
            }
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
        Member { info: Arc::new(info), announce_leave: true }
    }

    /// Adds the member, and finds out that Redis does not know it.
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
