//! The connections that may give way, and the choice among them: the oldest of the source that has the most.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Source;

#[derive(Debug)]
pub(super) struct EvictionOrder<T> {
    /// Each source's connections by age. An age is a number that only one connection has; the lowest is the oldest.
    by_source: HashMap<Source, BTreeMap<u64, T>>,
    /// Every source with the number of its connections and the age of its oldest. The last gives way first.
    order: BTreeSet<(usize, Reverse<u64>, Source)>,
}

impl<T> Default for EvictionOrder<T> {
    fn default() -> Self {
        Self { by_source: HashMap::new(), order: BTreeSet::new() }
    }
}

impl<T> EvictionOrder<T> {
    pub(super) fn insert(&mut self, source: Source, age: u64, value: T) {
        self.change(source, |ages| ages.insert(age, value));
    }

    pub(super) fn remove(&mut self, source: Source, age: u64) {
        self.change(source, |ages| ages.remove(&age));
    }

    /// Returns the connection that gives way first, and the number of those of its source.
    pub(super) fn first(&self) -> Option<(&T, usize)> {
        let &(count, Reverse(oldest), source) = self.order.last()?;
        let value = self.by_source.get(&source)?.get(&oldest)?;
        Some((value, count))
    }

    pub(super) fn of(&self, source: Source) -> usize {
        self.by_source.get(&source).map_or(0, BTreeMap::len)
    }

    /// Takes out the connection that gives way first.
    pub(super) fn pop(&mut self) -> Option<T> {
        let &(_, Reverse(oldest), source) = self.order.last()?;
        self.change(source, |ages| ages.remove(&oldest))
    }

    /// Keeps `order` in step with a change to one source.
    fn change<R>(&mut self, source: Source, change: impl FnOnce(&mut BTreeMap<u64, T>) -> R) -> R {
        let rank = |ages: &BTreeMap<u64, T>| {
            ages.first_key_value().map(|(&oldest, _)| (ages.len(), Reverse(oldest), source))
        };
        let ages = self.by_source.entry(source).or_default();
        let before = rank(ages);
        let result = change(ages);
        let after = rank(ages);
        if before != after {
            before.map(|rank| self.order.remove(&rank));
            self.order.extend(after);
        }
        if after.is_none() {
            self.by_source.remove(&source);
            if self.by_source.is_empty() {
                self.by_source.shrink_to_fit();
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into()
    }

    fn evictable(connections: &[(u8, u64)]) -> EvictionOrder<u64> {
        let mut evictable = EvictionOrder::default();
        for &(from, age) in connections {
            evictable.insert(source(from), age, age);
        }
        evictable
    }

    fn all(mut evictable: EvictionOrder<u64>) -> Vec<u64> {
        std::iter::from_fn(|| evictable.pop()).collect()
    }

    #[test]
    fn the_oldest_of_the_busiest_source_goes_first() {
        assert_eq!(all(evictable(&[(1, 10), (2, 11), (2, 12), (3, 13)])), [11, 10, 12, 13]);
        // A crowd from one source goes before anybody else, however old.
        assert_eq!(all(evictable(&[(1, 1), (9, 5), (9, 6), (9, 7)])), [5, 6, 1, 7]);
        assert_eq!(all(evictable(&[])), [] as [u64; 0]);
    }

    #[test]
    fn who_is_gone_is_not_chosen() {
        let mut evictable = evictable(&[(1, 1), (1, 2), (2, 3)]);
        evictable.remove(source(1), 1);
        evictable.remove(source(1), 99);
        evictable.remove(source(7), 1);
        assert_eq!(evictable.pop(), Some(2));
        assert_eq!(evictable.pop(), Some(3));
        assert!(evictable.by_source.is_empty() && evictable.order.is_empty());
    }

    proptest! {
        /// The choice agrees with a search through all connections.
        #[test]
        fn the_choice_is_that_of_a_search(steps in prop::collection::vec((0u8..5, 0u8..3), 0..200)) {
            let mut evictable = EvictionOrder::default();
            let mut model: Vec<(Source, u64)> = Vec::new();
            for (age, (from, step)) in steps.into_iter().enumerate() {
                let age = age as u64;
                match step {
                    0 if !model.is_empty() => {
                        let (from, age) = model.remove(age as usize % model.len());
                        evictable.remove(from, age);
                    }
                    1 => {
                        let count = |of: Source| model.iter().filter(|(from, _)| *from == of).count();
                        let best = model.iter().copied().min_by_key(|&(from, age)| (Reverse(count(from)), age));
                        prop_assert_eq!(evictable.pop(), best.map(|(_, age)| age));
                        model.retain(|&connection| Some(connection) != best);
                    }
                    _ => {
                        evictable.insert(source(from), age, age);
                        model.push((source(from), age));
                    }
                }
            }
        }
    }
}
