//! A shard's part of the node's users: which connections each has, wherever they are.
//!
//! A user's name picks the shard that owns it, so counting and limiting a user's connections needs no lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_hub::effect::{Answer, Completion};
use fanwire_hub::session::Control;
use fanwire_protocol::{ClientId, ClientInfo, Disconnect};
use rustc_hash::FxHashSet;
use uuid::Uuid;

use crate::cluster;
use crate::handle::Node;
use crate::inbox::{Address, Filter, Inbox, Message, Order, Recipients};
use crate::node::{Admission, Topics};

#[derive(Debug)]
pub(crate) enum UserMessage {
    /// A connection of the user connects; answered to it.
    Register {
        user: Box<str>,
        from: Address,
        single: bool,
    },
    Unregister {
        user: Box<str>,
        from: Address,
    },
    /// A connection of the user, here if it is named, is to be its only one on all nodes. These arrive in one order on
    /// all of them.
    Single {
        user: Box<str>,
        here: Option<ClientId>,
    },
    /// Some of those may have been missed.
    AllHeard,
    /// An order of the API for the user's connections.
    Control {
        user: Box<str>,
        filter: Arc<Filter>,
        control: Control,
        completion: Completion,
    },
}

#[derive(Debug)]
pub(crate) struct Users {
    connections: HashMap<Box<str>, Connections>,
    connections_max: usize,
    /// Connections that want to be their user's only one, as far as other nodes have not heard of it yet.
    unheard: FxHashSet<Address>,
    /// Counts the connections of limited users on all nodes.
    topics: Rc<Topics>,
    node: Node,
}

/// A user's connections. Most users have one, and some programs connect many thousands of times as one user.
#[derive(Debug)]
enum Connections {
    One(Address),
    Many(FxHashSet<Address>),
}

impl Connections {
    fn iter(&self) -> Box<dyn Iterator<Item = &Address> + '_> {
        match self {
            Self::One(address) => Box::new(std::iter::once(address)),
            Self::Many(addresses) => Box::new(addresses.iter()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(addresses) => addresses.len(),
        }
    }

    fn add(&mut self, address: Address) {
        match self {
            Self::One(first) => *self = Self::Many([*first, address].into_iter().collect()),
            Self::Many(addresses) => {
                addresses.insert(address);
            }
        }
    }

    /// Says whether any is left.
    fn remove(&mut self, address: Address) -> bool {
        match self {
            Self::One(only) => *only != address,
            Self::Many(addresses) => {
                addresses.remove(&address);
                if addresses.capacity() > 4 * addresses.len().max(64) {
                    addresses.shrink_to(2 * addresses.len());
                }
                !addresses.is_empty()
            }
        }
    }
}

impl Users {
    pub(crate) fn new(connections_max: usize, topics: Rc<Topics>, node: Node) -> Self {
        Self { connections: HashMap::new(), connections_max, unheard: FxHashSet::default(), topics, node }
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn handle(&mut self, message: UserMessage) {
        match message {
            UserMessage::Register { user, from, single } => {
                let result = self.register(&user, from, single);
                match result {
                    // Who wants to be the only one does not count those whom it replaces.
                    Ok(()) if self.are_counted() && !single => self.admit(&user, from),
                    result => {
                        let answer = Answer::Registered(result);
                        self.inbox(from).send(Message::Answer(from.connection, answer));
                    }
                }
            }
            UserMessage::Unregister { user, from } => self.unregister(&user, from),
            UserMessage::Single { user, here } => self.keep_single(&user, here),
            UserMessage::AllHeard => self.unheard = FxHashSet::default(),
            UserMessage::Control { user, filter, control, completion } => {
                for address in self.connections.get(&user).into_iter().flat_map(Connections::iter) {
                    self.order(*address, filter.clone(), control.clone(), completion.clone());
                }
            }
        }
    }

    /// A user's connections on other nodes count too.
    fn are_counted(&self) -> bool {
        self.connections_max > 0 && self.topics.are_shared()
    }

    /// The connection is told when its user's connections on all nodes were counted. If it is refused its place here
    /// is given back as well.
    fn admit(&self, user: &str, from: Address) {
        let client = client_of(from);
        let info =
            ClientInfo { user: user.into(), client, connection: Bytes::new(), subscription: Bytes::new() };
        let owner = self.node.owner_of(user).clone();
        let admission =
            Admission { from, info: Arc::new(info), connections_max: self.connections_max, owner };
        self.topics.admit(cluster::user_topic(user), admission);
    }

    fn register(&mut self, user: &str, from: Address, single: bool) -> Result<(), Disconnect> {
        let count = self.connections.get(user).map_or(0, Connections::len);
        if !single && self.connections_max > 0 && count >= self.connections_max {
            return Err(Disconnect::CONNECTION_LIMIT);
        }
        match self.connections.entry(user.into()) {
            Entry::Vacant(entry) => {
                entry.insert(Connections::One(from));
            }
            Entry::Occupied(mut entry) => entry.get_mut().add(from),
        }
        if single {
            match &self.node.cluster {
                // Of connections that come at once, on whichever nodes, the last in the cluster's order stays.
                Some(cluster) => {
                    self.unheard.insert(from);
                    cluster.make_single(user, client_of(from));
                }
                None => self.keep_single(user, Some(client_of(from))),
            }
        }
        Ok(())
    }

    /// Closes all of the user's connections but the one that is named, and those that will be named later.
    fn keep_single(&mut self, user: &str, here: Option<ClientId>) {
        let nothing = Completion(Arc::new(|_| {}));
        for address in self.connections.get(user).into_iter().flat_map(Connections::iter) {
            if here == Some(client_of(*address)) {
                self.unheard.remove(address);
            } else if !self.unheard.contains(address) {
                let close = Control::Disconnect(Disconnect::CONNECTION_LIMIT);
                self.order(*address, Arc::default(), close, nothing.clone());
            }
        }
    }

    fn unregister(&mut self, user: &str, from: Address) {
        if self.are_counted() {
            self.topics.dismiss(cluster::user_topic(user), client_of(from));
        }
        self.unheard.remove(&from);
        let Some(connections) = self.connections.get_mut(user) else { return };
        if connections.remove(from) {
            return;
        }
        self.connections.remove(user);
        if self.connections.capacity() > 4 * self.connections.len().max(64) {
            self.connections.shrink_to(2 * self.connections.len());
        }
    }

    fn order(&self, address: Address, filter: Arc<Filter>, control: Control, completion: Completion) {
        let to = Recipients::Connection(address.connection, filter);
        self.inbox(address).send(Message::Control(Order { to, control, completion }));
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
