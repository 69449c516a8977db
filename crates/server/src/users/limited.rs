//! The connections of each user, or of each address, as far as a limit holds for all nodes together.

use std::collections::HashMap;
use std::rc::Rc;

use fanwire_broker::{EngineError, Member};
use fanwire_hub::effect::Answer;
use fanwire_protocol::reason::{CloseReason, Left};
use fanwire_protocol::{ClientId, EventMask};

use super::connections::ConnectionsByHolder;
use crate::message::{Address, Holder, HolderAdmission, ShardMessage};
use crate::node::Node;
use crate::peers;
use crate::topics::Topics;

#[derive(Debug)]
pub(super) struct LimitedConnections {
    /// Those that count.
    admitted: ConnectionsByHolder,
    /// Those that wait for the engine to count them.
    coming: ConnectionsByHolder,
    /// Those that the engine did not admit, and that wait for other nodes to confirm what they hold.
    refused: HashMap<Box<str>, Vec<(Address, ClientId)>>,
    /// Of one holder; 0 sets no limit.
    connections_max: usize,
    /// Those that the application wants to hear of.
    events: EventMask,
    holder: fn(Box<str>) -> Holder,
    answer: fn(Result<(), CloseReason>) -> Answer,
    /// Counts limited connections on all nodes.
    topics: Rc<Topics>,
    node: Node,
}

impl LimitedConnections {
    /// `holder` makes a holder of its name, and `answer` what a connection is told.
    pub(super) fn new(
        connections_max: usize,
        events: EventMask,
        holder: fn(Box<str>) -> Holder,
        answer: fn(Result<(), CloseReason>) -> Answer,
        topics: Rc<Topics>,
        node: Node,
    ) -> Self {
        Self {
            admitted: ConnectionsByHolder::default(),
            coming: ConnectionsByHolder::default(),
            refused: HashMap::new(),
            connections_max,
            events,
            holder,
            answer,
            topics,
            node,
        }
    }

    /// The number of holders with admitted connections.
    pub(super) fn len(&self) -> usize {
        self.admitted.len()
    }

    /// The number of the holder's admitted connections.
    pub(super) fn count(&self, name: &str) -> usize {
        self.admitted.count(name)
    }

    /// The holder's admitted connections.
    pub(super) fn admitted(&self, name: &str) -> impl Iterator<Item = &Address> {
        self.admitted.of(name)
    }

    /// Those that wait to be counted.
    pub(super) fn coming(&self, name: &str) -> impl Iterator<Item = &Address> {
        self.coming.of(name)
    }

    /// A holder's connections on other nodes count too.
    fn are_counted(&self) -> bool {
        self.connections_max > 0 && self.topics.are_shared()
    }

    fn is_full(&self, name: &str) -> bool {
        self.connections_max > 0 && self.admitted.count(name) >= self.connections_max
    }

    pub(super) fn register(&mut self, name: &str, client: ClientId, from: Address) {
        if self.is_full(name) {
            self.send_answer(from, Err(CloseReason::ConnectionLimit));
        } else if self.are_counted() {
            self.coming.add(name, from);
            self.have_counted(name, client, from);
        } else {
            self.admit(name, client, from);
        }
    }

    /// Admits the connection, whatever the limit.
    pub(super) fn admit(&mut self, name: &str, client: ClientId, from: Address) {
        self.admitted.add(name, from);
        self.send_answer(from, Ok(()));
        self.enter(name, client);
    }

    /// Makes the connection a member of its holder's topic, for its events. Nobody waits for that.
    fn enter(&self, name: &str, client: ClientId) {
        if !self.events.is_empty() {
            let topic = peers::holder_topic(&(self.holder)(name.into()));
            self.topics.enter(topic, self.member(name, client));
        }
    }

    fn member(&self, name: &str, client: ClientId) -> Member {
        super::member(name, client).with_events(self.events)
    }

    /// Asks the engine to admit the connection; answered by [`LimitedConnections::counted`].
    fn have_counted(&self, name: &str, client: ClientId, from: Address) {
        let (holder, member) = ((self.holder)(name.into()), self.member(name, client));
        let topic = peers::holder_topic(&holder);
        let connections_max = self.connections_max;
        self.topics.admit(topic, HolderAdmission { holder, from, member, connections_max });
    }

    /// The engine has counted the connection, and admitted it or not.
    pub(super) fn counted(
        &mut self,
        name: Box<str>,
        client: ClientId,
        from: Address,
        result: Result<bool, EngineError>,
    ) {
        if !self.coming.remove(&name, from) {
            // It has gone meanwhile.
            return;
        }
        match result {
            Ok(true) => {}
            // This node holds them itself.
            _ if self.is_full(&name) => {
                return self.refuse(&name, client, from, CloseReason::ConnectionLimit);
            }
            Ok(false) => return self.have_confirmed(name, client, from),
            Err(error) => {
                // A limit is no reason to turn everybody away.
                tracing::debug!(%error, "connections could not be counted on all nodes");
                self.enter(&name, client);
            }
        }
        self.admitted.add(&name, from);
        self.send_answer(from, Ok(()));
    }

    /// Asks the other nodes for the connections they hold, as those of a dead one count for a while. One question at a
    /// time is on its way for each holder, however many connections wait for the answer.
    fn have_confirmed(&mut self, name: Box<str>, client: ClientId, from: Address) {
        let Some(peers) = &self.node.peers else {
            return self.refuse(&name, client, from, CloseReason::ConnectionLimit);
        };
        let waiting = self.refused.entry(name.clone()).or_default();
        waiting.push((from, client));
        if waiting.len() == 1 {
            peers.confirm_connections((self.holder)(name), self.connections_max);
        }
    }

    /// Other nodes have confirmed this number of connections.
    pub(super) fn confirmed(&mut self, name: &str, elsewhere: usize) {
        let is_full = self.admitted.count(name) + elsewhere >= self.connections_max;
        let reason =
            if is_full { CloseReason::ConnectionLimit } else { CloseReason::ConnectionLimitUnconfirmed };
        for (from, client) in self.refused.remove(name).unwrap_or_default() {
            self.refuse(name, client, from, reason);
        }
        if self.refused.is_empty() {
            self.refused = HashMap::new();
        }
    }

    fn refuse(&self, name: &str, client: ClientId, from: Address, reason: CloseReason) {
        // The engine may have admitted it without its answer having arrived.
        self.dismiss(name, client, Left::Closed(reason.into()));
        self.send_answer(from, Err(reason));
    }

    fn dismiss(&self, name: &str, client: ClientId, left: Left) {
        self.topics.dismiss(peers::holder_topic(&(self.holder)(name.into())), client, left);
    }

    fn send_answer(&self, to: Address, result: Result<(), CloseReason>) {
        let answer = ShardMessage::Answer(to.connection, (self.answer)(result));
        self.node.inboxes.all[usize::from(to.shard)].send(answer);
    }

    pub(super) fn unregister(&mut self, name: &str, client: ClientId, from: Address, left: Left) {
        if self.are_counted() || !self.events.is_empty() {
            self.dismiss(name, client, left);
        }
        if !self.coming.remove(name, from) {
            self.admitted.remove(name, from);
        }
    }
}
