//! A shard's part of the node's users: which connections each has, wherever they are. The same of addresses, where their
//! connections are limited.
//!
//! The name of a user or an address picks the shard that owns it, so counting and limiting connections needs no lock.

mod connections;
mod limited;
mod singles;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_broker::Member;
use fanwire_hub::effect::{Answer, Completion};
use fanwire_hub::session::Control;
use fanwire_protocol::reason::{CloseReason, Left};
use fanwire_protocol::{ClientId, ClientInfo, EventMask, TopicName};
use limited::LimitedConnections;
use singles::Singles;
use uuid::Uuid;

use crate::inbox::Inbox;
use crate::message::{Address, Filter, Holder, Recipients, SessionOrder, ShardMessage, UserMessage};
use crate::node::Node;
use crate::peers;
use crate::topics::Topics;

#[derive(Debug)]
pub(crate) struct Users {
    users: LimitedConnections,
    /// Only where their connections are limited.
    networks: LimitedConnections,
    singles: Singles,
    topics: Rc<Topics>,
    node: Node,
}

impl Users {
    pub(crate) fn new(topics: Rc<Topics>, node: Node) -> Self {
        let settings = &node.settings.client;
        let limited = |max, events, holder, answer| {
            LimitedConnections::new(max, events, holder, answer, topics.clone(), node.clone())
        };
        let users = limited(
            settings.user_connections_max,
            node.settings.user_events(),
            Holder::User,
            Answer::Registered,
        );
        let networks = limited(
            settings.address_connections_max,
            EventMask::NONE,
            Holder::Network,
            Answer::AddressRegistered,
        );
        Self { users, networks, singles: Singles::default(), topics, node }
    }

    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }

    pub(crate) fn handle(&mut self, message: UserMessage) {
        match message {
            UserMessage::Register { holder, client, from, single } => {
                self.register(holder, client, from, single);
            }
            UserMessage::Unregister { holder, client, from, left } => {
                self.unregister(holder, client, from, left);
            }
            UserMessage::Counted { holder, client, from, result } => {
                let (limited, name) = self.limited(holder);
                limited.counted(name, client, from, result);
            }
            UserMessage::Held { holder, reply } => {
                let (limited, name) = self.limited(holder);
                // An asker that has gone needs no answer.
                let _ = reply.send(limited.count(&name));
            }
            UserMessage::Confirmed { holder, elsewhere } => {
                let (limited, name) = self.limited(holder);
                limited.confirmed(&name, elsewhere);
            }
            UserMessage::Single { user, here } => {
                let others = self.singles.heard(here, self.users.admitted(&user));
                self.replace(others);
            }
            UserMessage::Unsent { user, here } => {
                let others = self.singles.unsent(here, self.users.admitted(&user));
                self.replace(others);
            }
            UserMessage::AllHeard => self.singles.all_heard(),
            UserMessage::Control { user, filter, control, completion } => {
                for address in self.users.admitted(&user).chain(self.users.coming(&user)) {
                    self.order(*address, filter.clone(), control.clone(), completion.clone());
                }
            }
        }
    }

    /// Where connections of the holder's kind are counted, with the holder's name.
    fn limited(&mut self, holder: Holder) -> (&mut LimitedConnections, Box<str>) {
        match holder {
            Holder::User(user) => (&mut self.users, user),
            Holder::Network(network) => (&mut self.networks, network),
        }
    }

    fn register(&mut self, holder: Holder, client: ClientId, from: Address, single: bool) {
        match holder {
            Holder::User(user) if user.is_empty() => self.register_anonymous(client, from),
            Holder::User(user) if single => {
                // A connection that is to be the only one replaces the others, so they do not count.
                self.make_single(&user, from);
                self.users.admit(&user, client, from);
            }
            Holder::User(user) => self.users.register(&user, client, from),
            Holder::Network(network) => self.networks.register(&network, client, from),
        }
    }

    fn unregister(&mut self, holder: Holder, client: ClientId, from: Address, left: Left) {
        match holder {
            Holder::User(user) if user.is_empty() => {
                if !self.anonymous_events().is_empty() {
                    self.topics.dismiss(self.anonymous_topic(from), client, left);
                }
            }
            Holder::User(user) => {
                self.singles.remove(client_of(from));
                self.users.unregister(&user, client, from, left);
            }
            Holder::Network(network) => self.networks.unregister(&network, client, from, left),
        }
    }

    /// Anonymous clients have events alone.
    fn register_anonymous(&self, client: ClientId, from: Address) {
        let answer = ShardMessage::Answer(from.connection, Answer::Registered(Ok(())));
        self.inbox(from).send(answer);
        let events = self.anonymous_events();
        if !events.is_empty() {
            self.topics.enter(self.anonymous_topic(from), member("", client).with_events(events));
        }
    }

    /// They are nobody's.
    fn anonymous_events(&self) -> EventMask {
        self.node.settings.client.events & (EventMask::JOIN | EventMask::LEAVE)
    }

    fn anonymous_topic(&self, from: Address) -> TopicName {
        peers::anonymous_topic(self.node.id, from.shard)
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
                let others = self.singles.heard(Some(client_of(from)), self.users.admitted(user));
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

    fn order(&self, address: Address, filter: Arc<Filter>, control: Control, completion: Completion) {
        let to = Recipients::Connection(address.connection, filter);
        self.inbox(address).send(ShardMessage::Control(SessionOrder { to, control, completion }));
    }

    fn inbox(&self, address: Address) -> &Inbox {
        &self.node.inboxes.all[usize::from(address.shard)]
    }
}

/// The member that a connection is of the topic that counts it.
fn member(holder: &str, client: ClientId) -> Member {
    let info =
        ClientInfo { user: holder.into(), client, connection: Bytes::new(), subscription: Bytes::new() };
    Member::from(Arc::new(info))
}

/// A name for a connection that no other of this node has, while it lasts.
fn client_of(Address { shard, connection }: Address) -> ClientId {
    let place = (u64::from(shard) << 32) | u64::from(connection.slot);
    ClientId(Uuid::from_u64_pair(place, u64::from(connection.generation)))
}
