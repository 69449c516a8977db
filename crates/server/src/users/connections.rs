//! Connections by user, or by address. Most have one, and some programs connect many thousands of times as one user.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use fanwire_protocol::capacity::GiveBack;
use rustc_hash::FxHashSet;

use crate::message::Address;

#[derive(Debug, Default)]
pub(super) struct ConnectionsByHolder(HashMap<Box<str>, Connections>);

#[derive(Debug)]
enum Connections {
    One(Address),
    Many(FxHashSet<Address>),
}

impl ConnectionsByHolder {
    /// The number of holders.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of the holder's connections.
    pub(super) fn count(&self, name: &str) -> usize {
        match self.0.get(name) {
            None => 0,
            Some(Connections::One(_)) => 1,
            Some(Connections::Many(addresses)) => addresses.len(),
        }
    }

    pub(super) fn of(&self, name: &str) -> Box<dyn Iterator<Item = &Address> + '_> {
        match self.0.get(name) {
            None => Box::new(std::iter::empty()),
            Some(Connections::One(address)) => Box::new(std::iter::once(address)),
            Some(Connections::Many(addresses)) => Box::new(addresses.iter()),
        }
    }

    pub(super) fn add(&mut self, name: &str, address: Address) {
        match self.0.entry(name.into()) {
            Entry::Vacant(entry) => {
                entry.insert(Connections::One(address));
            }
            Entry::Occupied(mut entry) => entry.get_mut().add(address),
        }
    }

    /// Returns true if it was there.
    pub(super) fn remove(&mut self, name: &str, address: Address) -> bool {
        let Some(connections) = self.0.get_mut(name) else { return false };
        let (was_there, is_empty) = connections.remove(address);
        if is_empty {
            self.0.remove(name);
            self.0.give_back();
        }
        was_there
    }
}

impl Connections {
    fn add(&mut self, address: Address) {
        match self {
            Self::One(first) => *self = Self::Many([*first, address].into_iter().collect()),
            Self::Many(addresses) => {
                addresses.insert(address);
            }
        }
    }

    /// Returns whether it was there, and whether none is left.
    fn remove(&mut self, address: Address) -> (bool, bool) {
        match self {
            Self::One(only) => (*only == address, *only == address),
            Self::Many(addresses) => {
                let was_there = addresses.remove(&address);
                addresses.give_back();
                (was_there, addresses.is_empty())
            }
        }
    }
}
