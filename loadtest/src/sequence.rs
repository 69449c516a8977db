//! One connection's proof that every message came once and in order.
//!
//! Costs one comparison per message and no allocation as long as nothing is wrong.

use std::collections::BTreeSet;

use serde::Serialize;

/// Watches the sequence numbers 0, 1, 2, ... of one connection.
#[derive(Debug, Default)]
pub(crate) struct SequenceCheck {
    next: u64,
    /// Skipped so far; bounded, since numbers from `published` on are refused.
    missing: BTreeSet<u64>,
    duplicated: u64,
    reordered: u64,
    unknown: u64,
}

/// What went wrong, in messages, summed over connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Numbers that nobody published.
    pub(crate) unknown: u64,
}

impl SequenceCheck {
    /// Takes the next message; `published` is how many numbers can exist at all.
    pub(crate) fn accept(&mut self, sequence: u64, published: u64) {
        if sequence == self.next && sequence < published {
            self.next += 1;
        } else {
            self.accept_unexpected(sequence, published);
        }
    }

    /// What is wrong if `published` messages were sent and nothing more arrives.
    pub(crate) fn faults(&self, published: u64) -> Faults {
        let tail = published.saturating_sub(self.next);
        Faults {
            lost: self.missing.len() as u64 + tail,
            duplicated: self.duplicated,
            reordered: self.reordered,
            unknown: self.unknown,
        }
    }

    #[cold]
    fn accept_unexpected(&mut self, sequence: u64, published: u64) {
        if sequence >= published {
            self.unknown += 1;
        } else if sequence > self.next {
            self.missing.extend(self.next..sequence);
            self.next = sequence + 1;
        } else if self.missing.remove(&sequence) {
            self.reordered += 1;
        } else {
            self.duplicated += 1;
        }
    }
}

impl Faults {
    pub(crate) fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.unknown += other.unknown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(published: u64, arrived: &[u64]) -> Faults {
        let mut sequence = SequenceCheck::default();
        for number in arrived {
            sequence.accept(*number, published);
        }
        sequence.faults(published)
    }

    #[test]
    fn in_order_is_clean() {
        assert!(check(4, &[0, 1, 2, 3]).is_clean());
        assert!(check(0, &[]).is_clean());
    }

    #[test]
    fn each_fault_has_its_name() {
        assert_eq!(check(4, &[0, 1, 3]), Faults { lost: 1, ..Faults::default() });
        assert_eq!(check(4, &[0, 1]), Faults { lost: 2, ..Faults::default() });
        assert_eq!(check(4, &[]), Faults { lost: 4, ..Faults::default() });
        assert_eq!(check(4, &[0, 1, 1, 2, 3]), Faults { duplicated: 1, ..Faults::default() });
        assert_eq!(check(4, &[0, 2, 1, 3]), Faults { reordered: 1, ..Faults::default() });
        assert_eq!(check(4, &[0, 2, 1, 1, 3]), Faults { reordered: 1, duplicated: 1, ..Faults::default() });
        assert_eq!(check(4, &[0, 1, 2, 3, 4, u64::MAX]), Faults { unknown: 2, ..Faults::default() });
    }
}
