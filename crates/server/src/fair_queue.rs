//! A queue in which users take turns, however many entries each of them has in it.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;

use fanwire_protocol::capacity::GiveBack;
use rustc_hash::{FxBuildHasher, FxHashMap};

/// A user's name, or that of all anonymous clients, as a number. Names that make the same number share their turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct User(u64);

impl User {
    pub(crate) fn new(name: &str) -> Self {
        Self(FxBuildHasher.hash_one(name))
    }
}

/// Something of a user that waits.
#[derive(Debug)]
pub(crate) struct Waiter<T> {
    pub(crate) item: T,
    pub(crate) since_millis: u64,
    user: User,
    /// A user has one turn in each.
    round: u64,
}

#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// In the order of their rounds, and in a round in that of their arrival.
    waiters: VecDeque<Waiter<T>>,
    /// Of each user that waits, the number of its waiters and the round of the last.
    users: FxHashMap<User, (usize, u64)>,
    /// The round of the last turn.
    round: u64,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { waiters: VecDeque::new(), users: FxHashMap::default(), round: 0 }
    }
}

impl<T> FairQueue<T> {
    pub(crate) fn push(&mut self, item: T, user: User, since_millis: u64) {
        let (count, last) = self.users.entry(user).or_insert((0, self.round));
        *count += 1;
        *last = (*last).max(self.round) + 1;
        let round = *last;
        let place = self.waiters.partition_point(|waiter| waiter.round <= round);
        self.waiters.insert(place, Waiter { item, since_millis, user, round });
    }

    pub(crate) fn front(&self) -> Option<&Waiter<T>> {
        self.waiters.front()
    }

    pub(crate) fn pop_front(&mut self) -> Option<Waiter<T>> {
        let waiter = self.waiters.pop_front()?;
        self.waiters.give_back();
        self.round = waiter.round;
        forget(&mut self.users, waiter.user);
        Some(waiter)
    }

    /// Removes those that are not to be kept, and returns them.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&Waiter<T>) -> bool) -> Vec<Waiter<T>> {
        let mut removed = Vec::new();
        for _ in 0..self.waiters.len() {
            let Some(waiter) = self.waiters.pop_front() else { break };
            if is_kept(&waiter) {
                self.waiters.push_back(waiter);
            } else {
                forget(&mut self.users, waiter.user);
                removed.push(waiter);
            }
        }
        self.waiters.give_back();
        removed
    }

    /// Some waiter is there since then, or longer.
    pub(crate) fn has_waited_since(&self, millis: u64) -> bool {
        self.waiters.iter().any(|waiter| waiter.since_millis <= millis)
    }
}

fn forget(users: &mut FxHashMap<User, (usize, u64)>, user: User) {
    if let Some((count, _)) = users.get_mut(&user) {
        *count -= 1;
        if *count == 0 {
            users.remove(&user);
            users.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut FairQueue<u32>, user: &str, items: impl IntoIterator<Item = u32>) {
        for item in items {
            queue.push(item, User::new(user), u64::from(item));
        }
    }

    fn pop(queue: &mut FairQueue<u32>, count: usize) -> Vec<u32> {
        (0..count).map_while(|_| queue.pop_front().map(|waiter| waiter.item)).collect()
    }

    #[test]
    fn users_take_turns_and_each_keeps_its_order() {
        let mut queue = FairQueue::default();
        push(&mut queue, "crowd", 0..6);
        push(&mut queue, "one", [10, 11]);
        assert_eq!(pop(&mut queue, 3), [0, 10, 1]);
        // What comes back waits behind the others of its user, and who comes newly behind one of each.
        push(&mut queue, "crowd", [6]);
        push(&mut queue, "two", [20]);
        assert_eq!(pop(&mut queue, 9), [11, 2, 20, 3, 4, 5, 6]);
        assert!(queue.users.is_empty());
        // Nobody has a turn in advance, or is owed one.
        push(&mut queue, "one", [12]);
        push(&mut queue, "crowd", [7, 8]);
        assert_eq!(pop(&mut queue, 9), [12, 7, 8]);
    }

    #[test]
    fn whoever_is_removed_is_forgotten() {
        let mut queue = FairQueue::default();
        push(&mut queue, "one", 0..4);
        push(&mut queue, "two", 4..6);
        assert!(queue.has_waited_since(0));
        let removed = queue.retain(|waiter| waiter.since_millis > 1 && waiter.user == User::new("one"));
        assert_eq!(removed.iter().map(|waiter| waiter.item).collect::<Vec<_>>(), [0, 4, 1, 5]);
        assert!(queue.has_waited_since(2) && !queue.has_waited_since(1));
        assert_eq!(queue.users.len(), 1);
        assert_eq!(pop(&mut queue, 9), [2, 3]);
        assert!(queue.users.is_empty());
    }
}
