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
        self.clients.iter().map(|member| Arc::clone(&member.0)).collect()
    }

    pub(crate) fn stats(&self) -> PresenceStats {
        PresenceStats { clients: self.clients.len(), users: self.users.len() }
    }

    /// Adds a client, or replaces what it said before.
    pub(crate) fn add(&mut self, info: Arc<ClientInfo>) {
        if let Some(before) = self.clients.replace(ByClient(Arc::clone(&info))) {
            self.remove_user(&before.0.user);
        }
        *self.users.entry(ByUser(info)).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, client: ClientId) {
        let Some(member) = self.clients.take(&client) else { return };
        self.remove_user(&member.0.user);
        if let Some(capacity) = shrunk_capacity(self.clients.len(), self.clients.capacity()) {
            self.clients.shrink_to(capacity);
        }
        if let Some(capacity) = shrunk_capacity(self.users.len(), self.users.capacity()) {
            self.users.shrink_to(capacity);
        }
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

/// A client's info, compared and found by its client id.
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
