//! A shard's part of the node's users: which connections each has, wherever they are.
//!
//! A user's name picks the shard that owns it, so counting and limiting a user's connections needs no lock.

use std::sync::Arc;

use fanwire_hub::effect::{Answer, Completion};
use fanwire_hub::session::Control;
use fanwire_protocol::Disconnect;
use rustc_hash::FxHashMap;

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
    connections: FxHashMap<Box<str>, Vec<Address>>,
    connections_max: usize,
    inboxes: Arc<[Inbox]>,
}

impl Users {
    pub(crate) fn new(connections_max: usize, inboxes: Arc<[Inbox]>) -> Self {
        Self { connections: FxHashMap::default(), connections_max, inboxes }
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
                for address in self.connections.get(&user).into_iter().flatten() {
                    self.order(*address, filter.clone(), control.clone(), completion.clone());
                }
            }
        }
    }

    fn register(&mut self, user: Box<str>, from: Address, single: bool) -> Result<(), Disconnect> {
        let there = self.connections.get(&user).map_or(&[][..], Vec::as_slice);
        if single {
            let nothing = Completion(Arc::new(|_| {}));
            for address in there {
                let close = Control::Disconnect(Disconnect::CONNECTION_LIMIT);
                self.order(*address, Arc::default(), close, nothing.clone());
            }
        } else if self.connections_max > 0 && there.len() >= self.connections_max {
            return Err(Disconnect::CONNECTION_LIMIT);
        }
        let connections = self.connections.entry(user).or_default();
        if connections.len() < 4 {
            connections.reserve_exact(1);
        }
        connections.push(from);
        Ok(())
    }

    fn unregister(&mut self, user: &str, from: Address) {
        let Some(connections) = self.connections.get_mut(user) else { return };
        connections.retain(|address| *address != from);
        if connections.is_empty() {
            self.connections.remove(user);
            if self.connections.capacity() > 4 * self.connections.len().max(64) {
                self.connections.shrink_to(2 * self.connections.len());
            }
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
