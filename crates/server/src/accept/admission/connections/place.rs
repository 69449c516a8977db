//! A connection's place in the groups of its listener: what its task tells of it.

use std::net::IpAddr;
use std::sync::Arc;

use fanwire_protocol::capacity::GiveBack;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::super::Reason;
use super::{ClientNetwork, ConnectionGroup, HttpConnections};

/// A connection's place among those of its listener, given up when it is dropped.
#[derive(Debug)]
pub(crate) struct HttpConnection {
    pub(super) connections: Arc<HttpConnections>,
    pub(super) key: usize,
}

impl HttpConnection {
    /// Names the task that serves the connection, which is aborted when the connection has to give way.
    pub(crate) fn is_served_by(&self, task: AbortHandle) {
        self.connections.state().entries[self.key].task = Some(task);
    }

    /// Enters a request of a connection that carries many at once, as if it had a connection of its own. `of` derives its
    /// client from the address that the connection comes from. Returns `None` if its group is full.
    pub(crate) fn request(
        &self,
        group: ConnectionGroup,
        of: impl FnOnce(IpAddr) -> IpAddr,
    ) -> Option<HttpConnection> {
        let mut state = self.connections.state();
        let from = state.entries[self.key].from;
        let network = of(from).into();
        if !self.connections.has_room(&mut state, group, network) {
            return None;
        }
        let key = state.enter(group, from, network, false);
        Some(HttpConnection { connections: self.connections.clone(), key })
    }

    /// Notes that the connection carries clients, and counts in no group meanwhile, or no longer does.
    pub(crate) fn carries_clients(&self, carries: bool) {
        let mut state = self.connections.state();
        state.set_evictable(self.key, false);
        let entry = &mut state.entries[self.key];
        if std::mem::replace(&mut entry.is_ending, carries) == carries {
            return;
        }
        let (group, network) = (entry.group, entry.network);
        if carries {
            state.pools[group as usize].leave(network);
            self.connections.tell_of_room(&state, group);
        } else {
            state.pools[group as usize].enter(network);
            state.renew(self.key);
        }
    }

    /// Notes where the connection comes from if not from its peer.
    pub(crate) fn comes_from(&self, address: IpAddr) {
        let mut state = self.connections.state();
        state.entries[self.key].from = address;
        state.set_network(self.key, address.into());
    }

    /// Notes the client of a request, which `of` derives from the address that the connection comes from.
    pub(crate) fn asks_for(&self, of: impl FnOnce(IpAddr) -> IpAddr) {
        let mut state = self.connections.state();
        let client = of(state.entries[self.key].from);
        state.set_network(self.key, client.into());
    }

    /// Returns the client that the connection counts for.
    pub(crate) fn network(&self) -> ClientNetwork {
        self.connections.state().entries[self.key].network
    }

    pub(crate) fn connections(&self) -> &Arc<HttpConnections> {
        &self.connections
    }

    /// Waits for room among the requests. Until then the connection counts as one that has sent nothing. Returns false
    /// if there is none until the deadline.
    pub(crate) async fn begin(&self, deadline: Instant) -> bool {
        if self.connections.admit(self.key, ConnectionGroup::Request) {
            return true;
        }
        let _waiting = Waiting::new(&self.connections);
        let admitted = timeout_at(deadline, async {
            while !self.connections.admit(self.key, ConnectionGroup::Request) {
                self.connections.room.notified().await;
            }
        });
        let is_admitted = admitted.await.is_ok();
        if is_admitted {
            // There may be room for more.
            self.connections.room.notify_one();
        } else {
            self.dropped(Reason::Request);
        }
        is_admitted
    }

    /// The node works for the connection from here on, in this group. Returns false if the group is full.
    pub(crate) fn work(&self, group: ConnectionGroup) -> bool {
        self.connections.admit(self.key, group)
    }

    /// Notes that the node waits for the peer to send or take something, or no longer does.
    pub(crate) fn waits_for_peer(&self, waits: bool) {
        let mut state = self.connections.state();
        state.set_evictable(self.key, waits);
        if waits {
            let group = state.entries[self.key].group;
            self.connections.tell_of_room(&state, group);
        }
    }

    /// The peer begins to be waited for anew.
    pub(crate) fn renew(&self) {
        self.connections.state().renew(self.key);
    }

    /// Counts the connection as dropped. Its task ends it.
    pub(crate) fn dropped(&self, why: Reason) {
        self.connections.drops.count(why);
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        let mut state = self.connections.state();
        state.set_evictable(self.key, false);
        let entry = state.entries.remove(self.key);
        if entry.has_file {
            self.connections.files.close();
        }
        if !entry.is_ending {
            state.pools[entry.group as usize].leave(entry.network);
        }
        self.connections.tell_of_room(&state, entry.group);
        state.entries.give_back();
    }
}

/// A connection that waits for room.
struct Waiting<'a>(&'a HttpConnections);

impl<'a> Waiting<'a> {
    fn new(connections: &'a HttpConnections) -> Self {
        let mut state = connections.state();
        state.waiting += 1;
        if state.waiting == 1 {
            connections.crowded.notify_one();
        }
        Self(connections)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting -= 1;
        if state.waiting == 0 {
            self.0.calm.notify_one();
        }
    }
}
