//! The clients present in one topic that this process knows, and the number of their users.
//!
//! The tables hold client infos by reference and hash one id of them, so a member costs two table slots of nine bytes
//! each and no copy of its ids. Unusual cases have tables of their own.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::{ClientId, ClientInfo, EventMask};
use rustc_hash::FxBuildHasher;

use crate::contract::{Member, PresenceStats};

#[derive(Default)]
pub(crate) struct Members {
    /// The gateway makes client ids at random, so a fast hash is safe from crafted collisions.
    clients: HashSet<ByClient, FxBuildHasher>,
    /// Clients whose leave is announced.
    announced: HashSet<ByClient, FxBuildHasher>,
    /// The events of all members.
    events: EventMask,
    /// The info of one client of each user; that client may have left. User ids come from outside: no fast hash.
    users: HashSet<ByUser>,
    /// The number of clients beyond the first, of users with more than one.
    further: HashMap<ByUser, u32>,
}

impl Members {
    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Returns all members, or `None` if they exceed `bytes_max`.
    pub(crate) fn list(&self, bytes_max: usize) -> Option<Vec<Arc<ClientInfo>>> {
        let mut left = bytes_max;
        let fits = |ByClient(info): &ByClient| {
            left = left.checked_sub(info.answer_bytes())?;
            Some(info.clone())
        };
        self.clients.iter().map(fits).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Member> {
        self.clients.iter().map(|client| self.member(client.0.clone(), self.announced.contains(client)))
    }

    /// The number of members other than the client.
    pub(crate) fn others(&self, client: ClientId) -> usize {
        self.clients.len() - usize::from(self.clients.contains(&client))
    }

    pub(crate) fn stats(&self) -> PresenceStats {
        PresenceStats { clients: self.clients.len(), users: self.users.len() }
    }

    /// The numbers after adding that client.
    pub(crate) fn stats_with(&self, info: &ClientInfo) -> PresenceStats {
        let PresenceStats { mut clients, mut users } = self.stats();
        match self.clients.get(&info.client) {
            Some(ByClient(before)) => {
                let is_last_of_user = !self.further.contains_key(&*before.user);
                users -= usize::from(is_last_of_user);
                let is_new_user =
                    !self.users.contains(&*info.user) || (is_last_of_user && before.user == info.user);
                users += usize::from(is_new_user);
            }
            None => {
                clients += 1;
                users += usize::from(!self.users.contains(&*info.user));
            }
        }
        PresenceStats { clients, users }
    }

    pub(crate) fn contains(&self, client: ClientId) -> bool {
        self.clients.contains(&client)
    }

    /// Adds a client, or replaces its info.
    pub(crate) fn add(&mut self, member: Member) {
        let Member { info, announce_leave, events } = member;
        self.events = self.events | events;
        if let Some(ByClient(before)) = self.clients.replace(ByClient(info.clone())) {
            self.remove_user(&before.user);
            self.announced.remove(&before.client);
        }
        if announce_leave {
            self.announced.insert(ByClient(info.clone()));
        }
        let user = ByUser(info);
        if self.users.contains(&user) {
            *self.further.entry(user).or_default() += 1;
        } else {
            self.users.insert(user);
        }
    }

    /// Removes a client and returns it if it was present.
    pub(crate) fn remove(&mut self, client: ClientId) -> Option<Member> {
        let ByClient(info) = self.clients.take(&client)?;
        let announce_leave = self.announced.remove(&client);
        self.remove_user(&info.user);
        self.clients.give_back();
        self.announced.give_back();
        self.users.give_back();
        self.further.give_back();
        Some(self.member(info, announce_leave))
    }

    pub(crate) fn events(&self) -> EventMask {
        self.events
    }

    fn member(&self, info: Arc<ClientInfo>, announce_leave: bool) -> Member {
        Member { info, announce_leave, events: self.events }
    }

    /// Removes one client of the user from the counts.
    fn remove_user(&mut self, user: &str) {
        match self.further.get_mut(user) {
            Some(1) => drop(self.further.remove(user)),
            Some(further) => *further -= 1,
            None => drop(self.users.remove(user)),
        }
    }
}

/// A client's info, compared by its client id.
struct ByClient(Arc<ClientInfo>);

impl Borrow<ClientId> for ByClient {
    fn borrow(&self) -> &ClientId {
        &self.0.client
    }
}

impl Hash for ByClient {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.client.hash(state);
    }
}

impl PartialEq for ByClient {
    fn eq(&self, other: &Self) -> bool {
        self.0.client == other.0.client
    }
}

impl Eq for ByClient {}

/// A client's info, compared by its user.
struct ByUser(Arc<ClientInfo>);

impl Borrow<str> for ByUser {
    fn borrow(&self) -> &str {
        &self.0.user
    }
}

impl Hash for ByUser {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.user.hash(state);
    }
}

impl PartialEq for ByUser {
    fn eq(&self, other: &Self) -> bool {
        self.0.user == other.0.user
    }
}

impl Eq for ByUser {}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use bytes::Bytes;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn member(client: u128, user: u8) -> Member {
        let info = ClientInfo {
            user: user.to_string().into(),
            client: ClientId(Uuid::from_u128(client)),
            connection: Bytes::new(),
            subscription: Bytes::new(),
        };
        Member::new(Arc::new(info), false)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(u128, u8, bool),
        Remove(u128),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0..5_u128, 0..4_u8, any::<bool>()).prop_map(|(client, user, leave)| Step::Add(client, user, leave)),
            1 => (0..5_u128).prop_map(Step::Remove),
        ]
    }

    proptest! {
        /// Against a plain list, and as foreseen.
        #[test]
        fn members_are_a_list(steps in proptest::collection::vec(step(), 0..60)) {
            let mut members = Members::default();
            let mut list: BTreeMap<u128, (u8, bool)> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Add(client, user, announce_leave) => {
                        let member = Member { announce_leave, ..member(client, user) };
                        let foreseen = members.stats_with(&member.info);
                        members.add(member);
                        list.insert(client, (user, announce_leave));
                        prop_assert_eq!(members.stats(), foreseen);
                    }
                    Step::Remove(client) => {
                        let removed = members.remove(ClientId(Uuid::from_u128(client)));
                        let removed = removed.map(|member| member.announce_leave);
                        prop_assert_eq!(removed, list.remove(&client).map(|(_, announce_leave)| announce_leave));
                    }
                }
                let users: BTreeSet<u8> = list.values().map(|(user, _)| *user).collect();
                prop_assert_eq!(members.stats(), PresenceStats { clients: list.len(), users: users.len() });
                let found = members.iter().map(|member| {
                    (member.info.client.0.as_u128(), (member.info.user.parse().unwrap(), member.announce_leave))
                });
                prop_assert_eq!(&found.collect::<BTreeMap<_, _>>(), &list);
            }
            for client in 0..5 {
                members.remove(ClientId(Uuid::from_u128(client)));
            }
            prop_assert!(members.is_empty() && members.users.is_empty() && members.further.is_empty());
            prop_assert!(members.announced.is_empty());
        }
    }
}
