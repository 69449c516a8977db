//! Sockets that become a shard's own: from the request that asked for a connection that stays to the first bytes read.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fanwire_hub::ClientSettings;
use fanwire_hub::effect::ConnectionKey;
use fanwire_hub::session::Session;
use fanwire_protocol::ClientId;
use fanwire_protocol::wire::Framing;
use socket2::{SockRef, TcpKeepalive};
use uuid::Uuid;

use super::connection::{Connection, Role};
use super::opening::Undecided;
use super::read::WAITING_BYTES_MAX;
use super::socket::Socket;
use super::{NetworkUse, READ_TIME_PER_CONNECTION, Shard};
use crate::transport::{Adopted, Arrival, Head, Line, Opening};

impl Shard {
    /// Takes a socket for its life.
    pub(super) fn adopt(&mut self, adopted: Adopted) {
        let Adopted { line, early, arrival } = adopted;
        let opening = match arrival {
            Arrival::Opening(opening) => *opening,
            Arrival::Poll(poll) => {
                if self.node.settings.client.ping_interval.is_some_and(|interval| poll.wait > interval) {
                    self.watch_by_tcp(&line, true);
                }
                return self.park(Socket::from(line), poll);
            }
        };
        let wire = opening.mode.wire;
        if !wire.reads() && !wire.is_emulated() {
            self.watch_by_tcp(&line, false);
        }
        let Some(slot) = self.enter(Socket::from(line), opening) else { return };
        self.take_early(slot, early);
        self.read_silent_input(slot);
    }

    /// Gives a connection its slot, and has its socket watched.
    pub(super) fn insert(&mut self, socket: Socket, role: Role) -> Option<ConnectionKey> {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.connections.vacant_entry();
        let slot = entry.key() as u32;
        let connection = entry.insert(Connection::new(socket, self.generation, role));
        if let Err(error) = self.readiness.add(&mut connection.socket, slot) {
            tracing::warn!(%error, "a socket could not be watched");
            self.connections.remove(slot as usize);
            return None;
        }
        let key = connection.key(slot);
        // It was on its way when the others were counted.
        if let Some(schedule) = &mut self.drain_schedule {
            schedule.add(key);
        }
        self.count_lines();
        Some(key)
    }

    /// Has what came with the handshake read.
    pub(super) fn read_silent_input(&mut self, slot: u32) {
        if let Some(connection) = self.connections.get_mut(slot as usize)
            && connection.socket.has_silent_input()
        {
            connection.read_later(slot, &mut self.to_read);
        }
    }

    /// Has TCP notice that a client has vanished which can answer no ping. Where the client gets no pings either, TCP probes
    /// the connection by itself.
    fn watch_by_tcp(&self, line: &Line, probes: bool) {
        // The connection of a stream pings its peer.
        let Line::Socket(socket, _) = line else { return };
        let ClientSettings { ping_interval, pong_timeout, .. } = self.node.settings.client;
        let socket = SockRef::from(socket);
        let mut watched = socket.set_tcp_user_timeout(pong_timeout);
        if let (true, Some(time), Some(interval)) = (probes, ping_interval, pong_timeout) {
            // Whole seconds are the least that there is.
            let interval = interval.max(Duration::from_secs(1));
            let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval);
            watched = watched.and_then(|()| socket.set_tcp_keepalive(&keepalive));
        }
        if let Err(error) = watched {
            tracing::debug!(%error, "a client that vanishes will be noticed late");
        }
    }

    /// Enters a client with its session, and returns its slot.
    pub(super) fn enter(&mut self, socket: Socket, opening: Opening) -> Option<u32> {
        let Opening { head, mode, first, state, deflate, permit, kept } = opening;
        let wire = mode.wire;
        let mut session = Session::new(ClientId(Uuid::new_v4()), mode, &self.node.settings.client, self.now);
        if let Some(kept) = kept {
            session.keep(*kept);
        }
        let client = session.client();
        let slot = self.insert(socket, Role::Client(session))?.slot;
        let connection = self.connections.get_mut(slot as usize)?;
        connection.deflate = deflate;
        connection.wire_state = state.map(Box::new);
        if let Some(polled) = connection.polled_mut() {
            polled.client = client;
        }
        if let Some(reorder) = connection.reorder() {
            // The first commands came with the request.
            self.waiting_bytes += reorder.bytes();
            self.waiting_was_full |= self.waiting_bytes > WAITING_BYTES_MAX;
            connection.read_later(slot, &mut self.to_read);
        }
        self.clients.insert(client, slot);
        if self.node.settings.client.address_connections_max > 0 {
            self.networks.insert(slot, NetworkUse { network: permit.network, is_registered: false });
        }
        self.counters.connections[wire as usize].add(1);
        self.counters.connections_opened[wire as usize].add(1);
        self.counters.connections_compressed.add(u64::from(deflate.is_some()));
        let head = match head {
            Head::Now(head) => Some(head),
            Head::ByAnswers(responses) => {
                debug_assert!(!first.is_empty(), "the answers to the first requests decide");
                // As long as any other client has to connect. A response that comes later, from a proxy say, would keep the
                // client away for good.
                let settings = &self.node.settings.client;
                let patience = (settings.stale_close_delay + settings.hooks.patience).as_millis() as u64;
                connection.open_by(Undecided::new(responses, first.len(), self.now.millis + patience));
                None
            }
        };
        if !first.is_empty() {
            connection.defer_requests(first);
            connection.read_later(slot, &mut self.to_read);
        }
        if let Some(head) = head {
            self.send(slot, head);
        }
        self.schedule(slot);
        // The connection is counted instead.
        drop(permit);
        Some(slot)
    }

    /// Takes the bytes that came behind the request, after the requests that the request itself comes to.
    fn take_early(&mut self, slot: u32, early: Bytes) {
        let Some(connection) = self.connections.get_mut(slot as usize).filter(|_| !early.is_empty()) else {
            return;
        };
        if connection.has_deferred_requests() && connection.framing() != Framing::Ignored {
            self.counters.bytes_received.add(early.len() as u64);
            return connection.defer_unread(early.into());
        }
        self.read_until = Instant::now() + READ_TIME_PER_CONNECTION;
        self.take_bytes(slot, &mut Vec::from(early));
    }
}
