//! A shard's part of the node's users: which connections each has, wherever they are.
//!
//! A user's name picks the shard that owns it, so counting and limiting a user's connections needs no lock.

mod connections;
mod singles;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use connections::ConnectionsByUser;
use fanwire_broker::{EngineError, Member, user_topic};
use fanwire_hub::effect::{Answer, Completion};
use fanwire_hub::session::Control;
use fanwire_protocol::reason::{CloseReason, Left};
use fanwire_protocol::{ClientId, ClientInfo, EventMask, TopicName};
use singles::Singles;
use uuid::Uuid;

use crate::inbox::Inbox;
use crate::message::{Address, Filter, Recipients, SessionOrder, ShardMessage, UserAdmission, UserMessage};
use crate::node::Node;
use crate::peers;
use crate::topics::Topics;

#[derive(Debug)]
pub(crate) struct Users {
    /// Those that count.
    admitted: ConnectionsByUser,
    /// Those that wait for the engine to count them.
    coming: ConnectionsByUser,
    /// Those that the engine did not admit, and that wait for other nodes to confirm what they hold.
    refused: HashMap<Box<str>, Vec<(Address, ClientId)>>,
    connections_max: usize,
    singles: Singles,
    /// Counts the connections of limited users on all nodes.
    topics: Rc<Topics>,
    node: Node,
}

impl Users {
    pub(crate) fn new(connections_max: usize, topics: Rc<Topics>, node: Node) -> Self {
        Self {
            admitted: ConnectionsByUser::default(),
            coming: ConnectionsByUser::default(),
            refused: HashMap::new(),
            connections_max,
            singles: Singles::default(),
            topics,
            node,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.admitted.len()
    }

    pub(crate) fn handle(&mut self, message: UserMessage) {
        match message {
            UserMessage::Register { user, client, from, single } => self.register(user, client, from, single),
            UserMessage::Unregister { user, client, from, left } => {
                self.unregister(&user, client, from, left);
            }
            UserMessage::Counted { user, client, from, result } => self.counted(user, client, from, result),
            UserMessage::Held { user, reply } => {
                // An asker that has gone needs no answer.
                let _ = reply.send(self.admitted.count(&user));
            }
            UserMessage::Confirmed { user, elsewhere } => self.confirmed(&user, elsewhere),
            UserMessage::Single { user, here } => {
                let others = self.singles.heard(here, self.admitted.of(&user));
                self.replace(others);
            }
            UserMessage::Unsent { user, here } => {
                let others = self.singles.unsent(here, self.admitted.of(&user));
                self.replace(others);
            }
            UserMessage::AllHeard => self.singles.all_heard(),
            UserMessage::Control { user, filter, control, completion } => {
                for address in self.admitted.of(&user).chain(self.coming.of(&user)) {
                    self.order(*address, filter.clone(), control.clone(), completion.clone());
                }
            }
        }
    }

    /// A user's connections on other nodes count too.
    fn are_counted(&self) -> bool {
        self.connections_max > 0 && self.topics.are_shared()
    }

    fn is_full(&self, user: &str) -> bool {
        self.connections_max > 0 && self.admitted.count(user) >= self.connections_max
    }

    fn register(&mut self, user: Box<str>, client: ClientId, from: Address, single: bool) {
        if user.is_empty() {
            self.send_answer(from, Ok(()));
            self.enter(&user, client, from);
        } else if single {
            // A connection that is to be the only one replaces the others, so they do not count.
            self.admitted.add(&user, from);
            self.make_single(&user, from);
            self.send_answer(from, Ok(()));
            self.enter(&user, client, from);
        } else if self.is_full(&user) {
            self.send_answer(from, Err(CloseReason::ConnectionLimit));
        } else if self.are_counted() {
            self.coming.add(&user, from);
            self.have_counted(&user, client, from);
        } else {
            self.admitted.add(&user, from);
            self.send_answer(from, Ok(()));
            self.enter(&user, client, from);
        }
    }

    /// Makes the connection a member of its user's topic, for its events and the user's status. Nobody waits for that.
    fn enter(&self, user: &str, client: ClientId, from: Address) {
        if !self.events(user).is_empty() {
            self.topics.enter(self.topic(user, from), self.member(user, client));
        }
    }

    fn events(&self, user: &str) -> EventMask {
        match user {
            // They are nobody's.
            "" => self.node.settings.client.events & (EventMask::JOIN | EventMask::LEAVE),
            _ => self.node.settings.user_events(),
        }
    }

    /// The topic that has the user's connections for members.
    fn topic(&self, user: &str, from: Address) -> TopicName {
        match user {
            "" => peers::anonymous_topic(self.node.id, from.shard),
            user => user_topic(user),
        }
    }

    fn member(&self, user: &str, client: ClientId) -> Member {
        let info =
            ClientInfo { user: user.into(), client, connection: Bytes::new(), subscription: Bytes::new() };
        Member::from(Arc::new(info)).with_events(self.events(user))
    }

    /// Asks the engine to admit the connection; answered by [`UserMessage::Counted`].
    fn have_counted(&self, user: &str, client: ClientId, from: Address) {
        let member = self.member(user, client);
        let admission = UserAdmission { from, member, connections_max: self.connections_max };
        self.topics.admit(user_topic(user), admission);
    }

    fn counted(
        &mut self,
        user: Box<str>,
        client: ClientId,
        from: Address,
        result: Result<bool, EngineError>,
    ) {
        if !self.coming.remove(&user, from) {
            // It has gone meanwhile.
            return;
        }
        match result {
            Ok(true) => {}
            // This node holds them itself.
            _ if self.is_full(&user) => {
                return self.refuse(&user, client, from, CloseReason::ConnectionLimit);
            }
            Ok(false) => return self.have_confirmed(user, client, from),
            Err(error) => {
                // A limit is no reason to turn everybody away.
                tracing::debug!(%error, "a user's connections could not be counted on all nodes");
                self.enter(&user, client, from);
            }
        }
        self.admitted.add(&user, from);
        self.send_answer(from, Ok(()));
    }

    /// Asks the other nodes for the connections they hold, as those of a dead one count for a while. One question at a
    /// time is on its way for each user, however many connections wait for the answer.
    fn have_confirmed(&mut self, user: Box<str>, client: ClientId, from: Address) {
        let Some(peers) = &self.node.peers else {
            return self.refuse(&user, client, from, CloseReason::ConnectionLimit);
        };
        let waiting = self.refused.entry(user.clone()).or_default();
        waiting.push((from, client));
        if waiting.len() == 1 {
            peers.confirm_connections(user, self.connections_max);
        }
    }

    fn confirmed(&mut self, user: &str, elsewhere: usize) {
        let is_full = self.admitted.count(user) + elsewhere >= self.connections_max;
        let reason =
            if is_full { CloseReason::ConnectionLimit } else { CloseReason::ConnectionLimitUnconfirmed };
        for (from, client) in self.refused.remove(user).unwrap_or_default() {
            self.refuse(user, client, from, reason);
        }
        if self.refused.is_empty() {
            self.refused = HashMap::new();
        }
    }

    fn refuse(&self, user: &str, client: ClientId, from: Address, reason: CloseReason) {
        // The engine may have admitted it without its answer having arrived.
        self.topics.dismiss(user_topic(user), client, Left::Closed(reason.into()));
        self.send_answer(from, Err(reason));
    }

    fn send_answer(&self, to: Address, result: Result<(), CloseReason>) {
        self.inbox(to).send(ShardMessage::Answer(to.connection, Answer::Registered(result)));
    }

    /// Closes the user's other connections, on all nodes.
    fn make_single(&mut self, user: &str, from: Address) {
        match &self.node.peers {
            // Of connections that come at once, on whichever nodes, the last in the cluster's order stays.
            Some(peers) => {
                self.singles.add(client_of(from));
                peers.make_single(user, client_of(from));
            }
            None => {
                let others = self.singles.heard(Some(client_of(from)), self.admitted.of(user));
                self.replace(others);
            }
        }
    }

    /// Closes connections in whose place another has come.
    fn replace(&self, connections: Vec<Address>) {
        let nothing = Completion(Arc::new(|_| {}));
        for address in connections {
            let close = Control::Disconnect(CloseReason::ConnectionLimit.into());
            self.order(address, Arc::default(), close, nothing.clone());
        }
    }

    fn unregister(&mut self, user: &str, client: ClientId, from: Address, left: Left) {
        if self.are_counted() || !self.events(user).is_empty() {
            self.topics.dismiss(self.topic(user, from), client, left);
        }
        self.singles.remove(client_of(from));
        if !self.coming.remove(user, from) {
            self.admitted.remove(user, from);
        }
    }

    fn order(&self, address: Address, filter: Arc<Filter>, control: Control, completion: Completion) {
        let to = Recipients::Connection(address.connection, filter);
        self.inbox(address).send(ShardMessage::Control(SessionOrder { to, control, completion }));
    }

    fn inbox(&self, address: Address) -> &Inbox {
        &self.node.inboxes.all[usize::from(address.shard)]
    }
}

/// A name for a connection that no other of this node has, while it lasts.
fn client_of(Address { shard, connection }: Address) -> ClientId {
    let place = (u64::from(shard) << 32) | u64::from(connection.slot);
    ClientId(Uuid::from_u64_pair(place, u64::from(connection.generation)))
}
