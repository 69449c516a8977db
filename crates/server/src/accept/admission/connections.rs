//! The HTTP connections of one listener, in groups with a limit each: those that have sent nothing, those with a request,
//! those whose request may have to wait for another part of the cluster, and callers of the API.
//!
//! A full group makes room for a new connection by ending one of which the node waits for the peer. A connection that
//! the node works for is never ended, so an honest request is always answered. If the node works for all of them, new
//! connections wait and no more are accepted: a storm of honest clients queues in the kernel.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::drops::Drops;
use super::files::OpenFiles;
use super::pool::{GroupLimit, Pool};
use super::{ClientNetwork, Port, Reason};

mod place;

pub(crate) use place::HttpConnection;

/// The limits of one listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupLimits {
    pub silent: GroupLimit,
    pub requests: GroupLimit,
    pub posts: GroupLimit,
    pub api: GroupLimit,
}

/// The interval between two looks for connections whose time is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionGroup {
    /// Nothing was received, and nothing but the descriptor and a small task is held.
    Silent,
    /// From the first byte on.
    Request,
    /// The last request was a publication or the commands of a client: it may wait for a topic's or a session's owner, and
    /// keeps nobody from connecting meanwhile.
    Post,
    /// The last request was a call of the API.
    Api,
}

impl ConnectionGroup {
    pub(crate) const ALL: [Self; 4] = [Self::Silent, Self::Request, Self::Post, Self::Api];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Request => "request",
            Self::Post => "post",
            Self::Api => "api",
        }
    }

    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Silent => Reason::Silent,
            Self::Request => Reason::Request,
            Self::Post => Reason::Post,
            Self::Api => Reason::Api,
        }
    }
}

#[derive(Debug)]
pub(crate) struct HttpConnections {
    pub(crate) port: Port,
    drops: Drops,
    files: Arc<OpenFiles>,
    state: Mutex<ConnectionsState>,
    /// Room may have come up among the requests.
    room: Notify,
    /// More may be accepted, most likely.
    calm: Notify,
    /// A connection waits for room, most likely.
    crowded: Notify,
}

#[derive(Debug)]
struct ConnectionsState {
    entries: Slab<Entry>,
    pools: [Pool; ConnectionGroup::ALL.len()],
    next_age: u64,
    /// Connections that wait for room among the requests.
    waiting: usize,
}

#[derive(Debug)]
struct Entry {
    group: ConnectionGroup,
    /// The address that it comes from, as far as a trusted proxy's header tells.
    from: IpAddr,
    /// The client that it counts for.
    network: ClientNetwork,
    /// Grows with every connection and every step of it: the lower, the longer the peer has been waited for.
    age: u64,
    /// The start of its current step. A peer that sends a little does not start it again.
    since: Instant,
    /// The node waits for the peer.
    is_evictable: bool,
    /// It was told to end, or carries clients, and does not count.
    is_ending: bool,
    /// It is a connection, and no request among others on one.
    has_file: bool,
    task: Option<AbortHandle>,
}

impl HttpConnections {
    /// `files` are those of the port, which its listeners share.
    pub(crate) fn new(port: Port, limits: GroupLimits, files: Arc<OpenFiles>) -> Arc<Self> {
        let pools = [limits.silent, limits.requests, limits.posts, limits.api].map(Pool::new);
        let state = ConnectionsState { entries: Slab::new(), pools, next_age: 0, waiting: 0 };
        Arc::new(Self {
            port,
            drops: Drops::new(port),
            files,
            state: Mutex::new(state),
            room: Notify::new(),
            calm: Notify::new(),
            crowded: Notify::new(),
        })
    }

    /// Waits until no connection waits for room, and the silent ones are within their limit. Meanwhile it looks for those
    /// that have been waited for long enough to give way. To be called before the next one is accepted, by one task alone.
    pub(crate) async fn can_enter(&self) {
        loop {
            {
                let mut state = self.state();
                let is_over = state.pool(ConnectionGroup::Silent).is_over()
                    && !self.make_room(&mut state, ConnectionGroup::Silent, None);
                if state.waiting == 0 && !is_over {
                    return;
                }
            }
            // Nothing tells that a connection has been waited for long enough.
            if timeout(LOOK_INTERVAL, self.calm.notified()).await.is_err() {
                self.room.notify_one();
            }
        }
    }

    /// Waits until a connection waits for room, most likely: `can_enter` makes some. Safe to cancel.
    pub(crate) async fn has_waiting(&self) {
        self.crowded.notified().await;
    }

    /// Makes room for those that wait for it, for as long as it is polled. For when no more are accepted.
    pub(crate) async fn keep_room(&self) {
        loop {
            // Those that wait already may have been told of, which happens once.
            self.can_enter().await;
            self.has_waiting().await;
        }
    }

    /// Enters a connection that was just accepted.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> HttpConnection {
        let mut state = self.state();
        let key = state.enter(ConnectionGroup::Silent, address, address.into(), true);
        self.files.open();
        // It is among those to choose from: if all are its own network's, the oldest goes.
        state.set_evictable(key, true);
        if state.pool(ConnectionGroup::Silent).is_over() {
            self.make_room(&mut state, ConnectionGroup::Silent, Some(address.into()));
        }
        HttpConnection { connections: self.clone(), key }
    }

    /// Ends a connection that the node waits for if the port has more files than its share. `others` are its sockets that
    /// are no HTTP connections. Returns true if it did: the file is closed once the connection's task has run.
    pub(crate) fn spare_files(&self, others: usize) -> bool {
        if !self.files.are_out(others) {
            return false;
        }
        self.evict_any()
    }

    /// Notes that no connection could be accepted, most likely for want of files, and ends one that the node waits for.
    pub(crate) fn accept_failed(&self, error: &io::Error) {
        self.drops.accept_failed(error);
        self.evict_any();
    }

    fn evict_any(&self) -> bool {
        let mut state = self.state();
        // A single silent one has just come, most likely: if another shard has the others, it is the newcomer itself.
        let is_crowded = state.pool(ConnectionGroup::Silent).count() > 1;
        let groups = &ConnectionGroup::ALL[usize::from(!is_crowded)..];
        groups.iter().any(|group| self.evict(&mut state, *group, Reason::Files))
    }

    /// Connections of a group.
    pub(crate) fn count(&self, group: ConnectionGroup) -> usize {
        self.state().pool(group).count()
    }

    /// Connections dropped for a reason.
    pub(crate) fn dropped(&self, why: Reason) -> u64 {
        self.drops.value(why)
    }

    /// More than half of a group's limit is in use.
    pub(crate) fn is_half_full(&self, group: ConnectionGroup) -> bool {
        self.state().pool(group).is_half_full()
    }

    fn state(&self) -> MutexGuard<'_, ConnectionsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a connection of a group for a newcomer. Returns false if all are worked for, or not waited for long enough.
    fn make_room(
        &self,
        state: &mut ConnectionsState,
        group: ConnectionGroup,
        newcomer: Option<ClientNetwork>,
    ) -> bool {
        let pool = state.pool(group);
        let Some((&key, _)) = pool.evictable.first() else { return false };
        let is_unfair = newcomer.is_some_and(|newcomer| pool.is_unfair_to(newcomer));
        if !is_unfair && state.entries[key].since.elapsed() < pool.limit.patience {
            return false;
        }
        self.evict(state, group, group.reason())
    }

    /// Ends a connection of a group that the node waits for. Returns false if there is none.
    fn evict(&self, state: &mut ConnectionsState, group: ConnectionGroup, why: Reason) -> bool {
        let key = state.pools[group as usize].evictable.pop();
        self.end(state, key, why)
    }

    /// Ends a connection that was taken out of those that may give way. Returns false without one.
    fn end(&self, state: &mut ConnectionsState, key: Option<usize>, why: Reason) -> bool {
        let Some(key) = key else { return false };
        let entry = &mut state.entries[key];
        (entry.is_evictable, entry.is_ending) = (false, true);
        state.pools[entry.group as usize].leave(entry.network);
        if let Some(task) = &entry.task {
            task.abort();
        }
        self.drops.count(why);
        true
    }

    /// Moves a connection into a group, in which another may have to give way. Returns false if it is full of
    /// connections that the node works for, or has too many of the connection's network.
    fn admit(&self, key: usize, group: ConnectionGroup) -> bool {
        let mut state = self.state();
        if state.entries[key].group != group {
            let newcomer = state.entries[key].network;
            if !self.has_room(&mut state, group, newcomer) {
                return false;
            }
            state.set_evictable(key, false);
            let is_ending = state.entries[key].is_ending;
            let left = std::mem::replace(&mut state.entries[key].group, group);
            if !is_ending {
                state.pools[left as usize].leave(newcomer);
                state.pools[group as usize].enter(newcomer);
                self.tell_of_room(&state, left);
            }
        }
        state.renew(key);
        true
    }

    /// Returns true if a group has room for a connection, where another may just have given way.
    fn has_room(
        &self,
        state: &mut ConnectionsState,
        group: ConnectionGroup,
        newcomer: ClientNetwork,
    ) -> bool {
        // Requests that wait are refused rather than kept waiting for room, so one network must not have all of it.
        if group == ConnectionGroup::Post && state.pool(group).has_share(newcomer) {
            let oldest = state.pools[group as usize].evictable.pop_of(newcomer);
            return self.end(state, oldest, group.reason());
        }
        !state.pool(group).is_full() || self.make_room(state, group, Some(newcomer))
    }

    fn tell_of_room(&self, state: &ConnectionsState, group: ConnectionGroup) {
        match group {
            ConnectionGroup::Silent if state.pool(group).is_full() => self.calm.notify_one(),
            ConnectionGroup::Request if state.waiting > 0 => self.room.notify_one(),
            _ => {}
        }
    }
}

impl ConnectionsState {
    fn age(&mut self) -> u64 {
        self.next_age += 1;
        self.next_age
    }

    fn pool(&self, group: ConnectionGroup) -> &Pool {
        &self.pools[group as usize]
    }

    /// Enters a connection, or a request among others on one, that the node works for.
    fn enter(
        &mut self,
        group: ConnectionGroup,
        from: IpAddr,
        network: ClientNetwork,
        has_file: bool,
    ) -> usize {
        let entry = Entry {
            group,
            from,
            network,
            age: self.age(),
            since: Instant::now(),
            is_evictable: false,
            is_ending: false,
            has_file,
            task: None,
        };
        self.pools[group as usize].enter(network);
        self.entries.insert(entry)
    }

    /// Waits for a connection anew, as the youngest.
    fn renew(&mut self, key: usize) {
        self.set_evictable(key, false);
        let age = self.age();
        let entry = &mut self.entries[key];
        (entry.age, entry.since) = (age, Instant::now());
    }

    fn set_network(&mut self, key: usize, network: ClientNetwork) {
        let was_evictable = self.entries[key].is_evictable;
        self.set_evictable(key, false);
        let entry = &mut self.entries[key];
        if !entry.is_ending {
            let pool = &mut self.pools[entry.group as usize];
            pool.leave(entry.network);
            pool.enter(network);
        }
        entry.network = network;
        self.set_evictable(key, was_evictable);
    }

    /// Enters a connection among those that may give way, or takes it out.
    fn set_evictable(&mut self, key: usize, is_evictable: bool) {
        let entry = &mut self.entries[key];
        if entry.is_evictable == is_evictable || entry.is_ending {
            return;
        }
        entry.is_evictable = is_evictable;
        let evictable = &mut self.pools[entry.group as usize].evictable;
        if is_evictable {
            evictable.insert(entry.network, entry.age, key);
        } else {
            evictable.remove(entry.network, entry.age);
        }
    }
}

#[cfg(test)]
mod tests;
