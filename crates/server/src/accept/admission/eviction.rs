//! The connections that may give way, and the choice among them: the oldest of the network that has the most.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use fanwire_protocol::capacity::GiveBack;

use super::ClientNetwork;

#[derive(Debug)]
pub(super) struct EvictionOrder<T> {
    /// Each network's connections by age. An age is a number that only one connection has; the lowest is the oldest.
    by_network: HashMap<ClientNetwork, BTreeMap<u64, T>>,
    /// Every network with the number of its connections and the age of its oldest. The last gives way first.
    order: BTreeSet<(usize, Reverse<u64>, ClientNetwork)>,
    len: usize,
}

impl<T> Default for EvictionOrder<T> {
    fn default() -> Self {
        Self { by_network: HashMap::new(), order: BTreeSet::new(), len: 0 }
    }
}

impl<T> EvictionOrder<T> {
    pub(super) fn insert(&mut self, network: ClientNetwork, age: u64, value: T) {
        self.change(network, |ages| ages.insert(age, value));
    }

    pub(super) fn remove(&mut self, network: ClientNetwork, age: u64) {
        self.change(network, |ages| ages.remove(&age));
    }

    /// Returns the connection that gives way first, and the number of those of its network.
    pub(super) fn first(&self) -> Option<(&T, usize)> {
        let &(count, Reverse(oldest), network) = self.order.last()?;
        let value = self.by_network.get(&network)?.get(&oldest)?;
        Some((value, count))
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn of(&self, network: ClientNetwork) -> usize {
        self.by_network.get(&network).map_or(0, BTreeMap::len)
    }

    /// Takes out the connection that gives way first.
    pub(super) fn pop(&mut self) -> Option<T> {
        let &(_, Reverse(oldest), network) = self.order.last()?;
        self.change(network, |ages| ages.remove(&oldest))
    }

    /// Takes out the oldest connection of a network.
    pub(super) fn pop_of(&mut self, network: ClientNetwork) -> Option<T> {
        self.change(network, BTreeMap::pop_first).map(|(_, oldest)| oldest)
    }

    /// Keeps `order` and `len` in step with a change to one network.
    fn change<R>(&mut self, network: ClientNetwork, change: impl FnOnce(&mut BTreeMap<u64, T>) -> R) -> R {
        let rank = |ages: &BTreeMap<u64, T>| {
            ages.first_key_value().map(|(&oldest, _)| (ages.len(), Reverse(oldest), network))
        };
        let ages = self.by_network.entry(network).or_default();
        let before = rank(ages);
        self.len -= ages.len();
        let result = change(ages);
        self.len += ages.len();
        let after = rank(ages);
        if before != after {
            before.map(|rank| self.order.remove(&rank));
            self.order.extend(after);
        }
        if after.is_none() {
            self.by_network.remove(&network);
            self.by_network.give_back();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn network(last: u8) -> ClientNetwork {
        IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into()
    }

    fn evictable(connections: &[(u8, u64)]) -> EvictionOrder<u64> {
        let mut evictable = EvictionOrder::default();
        for &(from, age) in connections {
            evictable.insert(network(from), age, age);
        }
        evictable
    }

    fn all(mut evictable: EvictionOrder<u64>) -> Vec<u64> {
        std::iter::from_fn(|| evictable.pop()).collect()
    }

    #[test]
    fn the_oldest_of_the_busiest_source_goes_first() {
        assert_eq!(all(evictable(&[(1, 10), (2, 11), (2, 12), (3, 13)])), [11, 10, 12, 13]);
        // A crowd from one network goes before anybody else, however old.
        assert_eq!(all(evictable(&[(1, 1), (9, 5), (9, 6), (9, 7)])), [5, 6, 1, 7]);
        assert_eq!(all(evictable(&[])), [] as [u64; 0]);
    }

    #[test]
    fn who_is_gone_is_not_chosen() {
        let mut evictable = evictable(&[(1, 1), (1, 2), (2, 3)]);
        evictable.remove(network(1), 1);
        evictable.remove(network(1), 99);
        evictable.remove(network(7), 1);
        assert_eq!(evictable.pop(), Some(2));
        assert_eq!(evictable.pop(), Some(3));
        assert!(evictable.by_network.is_empty() && evictable.order.is_empty());
    }

    proptest! {
        /// The choice agrees with a search through all connections.
        #[test]
        fn the_choice_is_that_of_a_search(steps in prop::collection::vec((0u8..5, 0u8..6), 0..200)) {
            let mut evictable = EvictionOrder::default();
            let mut model: Vec<(ClientNetwork, u64)> = Vec::new();
            for (age, (from, step)) in steps.into_iter().enumerate() {
                let age = age as u64;
                match step {
                    0 if !model.is_empty() => {
                        let (from, age) = model.remove(age as usize % model.len());
                        evictable.remove(from, age);
                    }
                    1 => {
                        let count = |of: ClientNetwork| model.iter().filter(|(from, _)| *from == of).count();
                        let best = model.iter().copied().min_by_key(|&(from, age)| (Reverse(count(from)), age));
                        prop_assert_eq!(evictable.pop(), best.map(|(_, age)| age));
                        model.retain(|&connection| Some(connection) != best);
                    }
                    2 => {
                        let oldest = model.iter().position(|(of, _)| *of == network(from));
                        let oldest = oldest.map(|place| model.remove(place).1);
                        prop_assert_eq!(evictable.pop_of(network(from)), oldest);
                    }
                    _ => {
                        evictable.insert(network(from), age, age);
                        model.push((network(from), age));
                    }
                }
                prop_assert_eq!(evictable.len(), model.len());
            }
        }
    }
}
