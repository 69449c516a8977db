//! Giving memory back: lists and tables keep their largest size unless they are told otherwise.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};

use slab::Slab;

/// Gives back the memory of a list or a table of which most is unused, so that it returns after a busy hour. Cheap where
/// there is nothing to give back.
pub trait GiveBack {
    fn give_back(&mut self);
}

/// Returns the capacity that is worth keeping, or `None` while the present one is well used. `len` is the present length,
/// or the usual one of a list that is emptied again and again.
pub fn shrunk(len: usize, capacity: usize) -> Option<usize> {
    const KEEP: usize = 32;
    (capacity > KEEP && len < capacity / 4).then_some(len * 2)
}

impl<T> GiveBack for Vec<T> {
    fn give_back(&mut self) {
        if let Some(capacity) = shrunk(self.len(), self.capacity()) {
            self.shrink_to(capacity);
        }
    }
}

impl<T> GiveBack for VecDeque<T> {
    fn give_back(&mut self) {
        if let Some(capacity) = shrunk(self.len(), self.capacity()) {
            self.shrink_to(capacity);
        }
    }
}

impl<T: Eq + Hash, S: BuildHasher> GiveBack for HashSet<T, S> {
    fn give_back(&mut self) {
        if let Some(capacity) = shrunk(self.len(), self.capacity()) {
            self.shrink_to(capacity);
        }
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> GiveBack for HashMap<K, V, S> {
    fn give_back(&mut self) {
        if let Some(capacity) = shrunk(self.len(), self.capacity()) {
            self.shrink_to(capacity);
        }
    }
}

/// A slab can only be cut behind its last entry, and that walks through all of it. So it is tried each time that the
/// number of entries has halved.
impl<T> GiveBack for Slab<T> {
    fn give_back(&mut self) {
        let has_halved = self.is_empty() || self.len().is_power_of_two();
        if has_halved && shrunk(self.len(), self.capacity()).is_some() {
            self.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_is_cut_behind_its_last_entry() {
        let mut slab: Slab<usize> = (0..1000).map(|number| (number, number)).collect();
        for number in (2..1000).rev() {
            slab.remove(number);
            slab.give_back();
        }
        assert!(slab.capacity() <= 32, "{}", slab.capacity());
        assert_eq!((slab[0], slab[1]), (0, 1));
        slab.remove(0);
        assert!(slab.insert(5) < 32);
    }

    #[test]
    fn memory_is_given_back_when_most_is_unused_and_not_sooner() {
        let mut list = Vec::with_capacity(100);
        list.extend(0..25);
        list.give_back();
        assert_eq!(list.capacity(), 100);
        list.pop();
        list.give_back();
        assert!((48..100).contains(&list.capacity()), "{}", list.capacity());
    }

    #[test]
    fn a_small_table_is_left_alone() {
        let mut table = HashMap::from([(1, 1)]);
        table.reserve(20);
        let capacity = table.capacity();
        assert!(capacity <= 32);
        table.give_back();
        assert_eq!(table.capacity(), capacity);
    }

    #[test]
    fn a_large_table_that_is_empty_keeps_nothing() {
        let mut table: HashMap<u32, u32> = (0..1000).map(|number| (number, number)).collect();
        table.clear();
        table.give_back();
        assert!(table.capacity() <= 32, "{}", table.capacity());
    }
}
