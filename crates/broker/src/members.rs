//! The clients present in one topic, as far as this process knows them, and how many users they are.
//!
//! Both tables hold what a client said of itself by reference and hash the part that they are about, so a member
//! costs two table slots (about 40 bytes) and no copy of its ids.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use fanwire_protocol::{ClientId, ClientInfo};
use rustc_hash::FxBuildHasher;

use crate::capacity::shrunk_capacity;
use crate::presence::PresenceStats;

/// A client that is present.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) info: Arc<ClientInfo>,
    /// Its leave is to be told.
    pub(crate) announce_leave: bool,
}

#[derive(Default)]
pub(crate) struct Members {
    /// The gateway makes client ids at random, so the fast hash is safe from crafted collisions.
    clients: HashSet<ByClient, FxBuildHasher>,
    /// Clients per user. The key is what any one of the user's clients said, which may have left since. User ids
    /// come from outside: no fast hash.
    users: HashMap<ByUser, u32>,
}

impl Members {
    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub(crate) fn list(&self) -> Vec<Arc<ClientInfo>> {
        self.iter().map(|member| Arc::clone(&member.info)).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.clients.iter().map(|ByClient(member)| member)
    }

    /// How many are present beside the client.
    pub(crate) fn others(&self, client: ClientId) -> usize {
        self.clients.len() - usize::from(self.clients.contains(&client))
    }

    pub(crate) fn stats(&self) -> PresenceStats {
        PresenceStats { clients: self.clients.len(), users: self.users.len() }
    }

    /// How many there would be with that client.
    pub(crate) fn stats_with(&self, info: &ClientInfo) -> PresenceStats {
        let PresenceStats { mut clients, mut users } = self.stats();
        match self.clients.get(&info.client) {
            Some(ByClient(before)) => {
                let is_last_of_user = self.users.get(&*before.info.user) == Some(&1);
                users -= usize::from(is_last_of_user);
                let is_new_user = !self.users.contains_key(&*info.user)
                    || (is_last_of_user && before.info.user == info.user);
                users += usize::from(is_new_user);
            }
            None => {
                clients += 1;
                users += usize::from(!self.users.contains_key(&*info.user));
            }
        }
        PresenceStats { clients, users }
    }

    pub(crate) fn contains(&self, client: ClientId) -> bool {
        self.clients.contains(&client)
    }

    /// Adds a client, or replaces what it said before.
    pub(crate) fn add(&mut self, member: Member) {
        let info = Arc::clone(&member.info);
        if let Some(ByClient(before)) = self.clients.replace(ByClient(member)) {
            self.remove_user(&before.info.user);
        }
        *self.users.entry(ByUser(info)).or_default() += 1;
    }

    /// Removes a client, and returns it if it was present.
    pub(crate) fn remove(&mut self, client: ClientId) -> Option<Member> {
        let ByClient(member) = self.clients.take(&client)?;
        self.remove_user(&member.info.user);
        if let Some(capacity) = shrunk_capacity(self.clients.len(), self.clients.capacity()) {
            self.clients.shrink_to(capacity);
        }
        if let Some(capacity) = shrunk_capacity(self.users.len(), self.users.capacity()) {
            self.users.shrink_to(capacity);
        }
        Some(member)
    }

    /// Counts one client of the user less.
    fn remove_user(&mut self, user: &str) {
        let clients = self.users.get_mut(user).expect("every member's user is counted");
        *clients -= 1;
        if *clients == 0 {
            self.users.remove(user);
        }
    }
}

/// A member, compared and found by its client id.
struct ByClient(Member);

impl Borrow<ClientId> for ByClient {
    fn borrow(&self) -> &ClientId {
        &self.0.info.client
    }
}

impl Hash for ByClient {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.info.client.hash(state);
    }
}

impl PartialEq for ByClient {
    fn eq(&self, other: &Self) -> bool {
        self.0.info.client == other.0.info.client
    }
}

impl Eq for ByClient {}

/// A client's info, compared and found by its user.
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
        Member { info: Arc::new(info), announce_leave: false }
    }

    proptest! {
        #[test]
        fn stats_are_as_foreseen(added in proptest::collection::vec((0..5_u128, 0..4_u8), 0..30)) {
            let mut members = Members::default();
            for (client, user) in added {
                let member = member(client, user);
                let foreseen = members.stats_with(&member.info);
                members.add(member);
                prop_assert_eq!(members.stats(), foreseen);
            }
        }
    }
}
