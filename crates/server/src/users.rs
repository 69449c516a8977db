//! A shard's part of the node's users: which connections each has, wherever they are.
//!
//! A user's name picks the shard that owns it, so counting and limiting a user's connections needs no lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use fanwire_hub::effect::{Answer, Completion};
use fanwire_hub::session::Control;
use fanwire_protocol::Disconnect;
use rustc_hash::FxHashSet;

use crate::inbox::{Address, Filter, Inbox, Message, Order, Recipients};

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
    inboxes: Arc<[Inbox]>,
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
    pub(crate) fn new(connections_max: usize, inboxes: Arc<[Inbox]>) -> Self {
        Self { connections: HashMap::new(), connections_max, inboxes }
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn handle(&mut self, message: UserMessage) {
        match message {
            UserMessage::Register { user, from, single } => {
                let result = self.register(user, from, single);
                self.inbox(from).send(Message::Answer(from.connection, Answer::Registered(result)));
            }
            UserMessage::Unregister { user, from } => self.unregister(&user, from),
            UserMessage::Control { user, filter, control, completion } => {
                for address in self.connections.get(&user).into_iter().flat_map(Connections::iter) {
                    self.order(*address, filter.clone(), control.clone(), completion.clone());
                }
            }
        }
    }

    fn register(&mut self, user: Box<str>, from: Address, single: bool) -> Result<(), Disconnect> {
        let there = self.connections.get(&user);
        if single {
            let nothing = Completion(Arc::new(|_| {}));
            for address in there.into_iter().flat_map(Connections::iter) {
                let close = Control::Disconnect(Disconnect::CONNECTION_LIMIT);
                self.order(*address, Arc::default(), close, nothing.clone());
            }
        } else if self.connections_max > 0 && there.map_or(0, Connections::len) >= self.connections_max {
            return Err(Disconnect::CONNECTION_LIMIT);
        }
        match self.connections.entry(user) {
            Entry::Vacant(entry) => {
                entry.insert(Connections::One(from));
            }
            Entry::Occupied(mut entry) => entry.get_mut().add(from),
        }
        Ok(())
    }

    fn unregister(&mut self, user: &str, from: Address) {
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
        &self.inboxes[usize::from(address.shard)]
    }
}
