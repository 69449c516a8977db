//! Connections that have something to read, in the order in which they are read: those of which the kernel has just told
//! go before those that sent more than one read took. So whoever sends little waits for nobody who sends much.

use std::collections::VecDeque;

use fanwire_hub::effect::ConnectionKey;

#[derive(Debug, Default)]
pub(super) struct ToRead {
    fresh: VecDeque<ConnectionKey>,
    /// They had their read, and have more.
    behind: VecDeque<ConnectionKey>,
}

/// A turn's part of the queue: every connection that waited when it began, once.
#[derive(Debug)]
pub(super) struct ReadTurn {
    /// One of those behind goes first, so that they move on however many others come.
    first_behind: bool,
    fresh: usize,
    behind: usize,
}

impl ToRead {
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.behind.is_empty()
    }

    pub(super) fn push(&mut self, key: ConnectionKey) {
        self.fresh.push_back(key);
    }

    pub(super) fn push_behind(&mut self, key: ConnectionKey) {
        self.behind.push_back(key);
    }

    pub(super) fn begin_turn(&self) -> ReadTurn {
        ReadTurn { first_behind: true, fresh: self.fresh.len(), behind: self.behind.len() }
    }

    pub(super) fn pop(&mut self, turn: &mut ReadTurn) -> Option<ConnectionKey> {
        if std::mem::take(&mut turn.first_behind) && turn.behind > 0 {
            turn.behind -= 1;
            return self.behind.pop_front();
        }
        if turn.fresh > 0 {
            turn.fresh -= 1;
            return self.fresh.pop_front();
        }
        turn.behind = turn.behind.checked_sub(1)?;
        self.behind.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_behind_goes_first_then_all_that_are_fresh_and_each_once() {
        let key = |slot| ConnectionKey { slot, generation: 0 };
        let mut queue = ToRead::default();
        (1..=3).for_each(|slot| queue.push_behind(key(slot)));
        (4..=5).for_each(|slot| queue.push(key(slot)));
        let mut turn = queue.begin_turn();
        let mut read = Vec::new();
        while let Some(key) = queue.pop(&mut turn) {
            read.push(key.slot);
            // Each has more.
            queue.push_behind(key);
        }
        assert_eq!(read, [1, 4, 5, 2, 3]);
        let mut turn = queue.begin_turn();
        queue.push(key(6));
        assert_eq!(queue.pop(&mut turn), Some(key(1)));
        assert!(!queue.is_empty());
    }
}
