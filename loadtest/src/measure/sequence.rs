//! Checks that every message of every stream arrives on a connection once and in order.
//!
//! The check costs one comparison per message and no allocation as long as nothing is wrong. A message cannot be delivered
//! before it is published, so a number that does not exist yet is a fault too.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Checks the streams of one connection.
#[derive(Debug)]
pub(crate) struct StreamChecks {
    /// Usually one: as many as publishers that share a topic, or as topics.
    checks: Box<[(u32, SequenceCheck)]>,
    /// Number of messages of streams that the connection is not subscribed to.
    foreign: u64,
}

impl StreamChecks {
    pub(crate) fn new(streams: impl IntoIterator<Item = u32>) -> Self {
        let checks = streams.into_iter().map(|stream| (stream, SequenceCheck::default()));
        Self { checks: checks.collect(), foreign: 0 }
    }

    /// Checks the next message; `published` has the number of messages of each stream so far.
    pub(crate) fn accept(&mut self, stream: u32, sequence: u64, published: &[u64]) {
        match self.checks.iter_mut().find(|(known, _)| *known == stream) {
            Some((_, check)) => check.accept(sequence, count(published, stream)),
            None => self.foreign += 1,
        }
    }

    /// Returns the faults if nothing more arrives.
    pub(crate) fn faults(&self, published: &[u64]) -> Faults {
        let mut faults = Faults { unknown: self.foreign, ..Faults::default() };
        for (stream, check) in &self.checks {
            faults += check.faults(count(published, *stream));
        }
        faults
    }
}

fn count(published: &[u64], stream: u32) -> u64 {
    published.get(stream as usize).copied().unwrap_or(0)
}

/// Checks the sequence numbers 0, 1, 2, ... of one stream.
#[derive(Debug, Default)]
struct SequenceCheck {
    next: u64,
    disorder: Option<Box<Disorder>>,
}

/// Made when the first message is out of order.
#[derive(Debug, Default)]
struct Disorder {
    /// Numbers skipped so far; bounded, since numbers from `published` on are refused.
    missing: BTreeSet<u64>,
    duplicated: u64,
    reordered: u64,
    unknown: u64,
}

/// Faults in messages, summed over connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Numbers that were not published.
    pub(crate) unknown: u64,
    /// Messages whose bytes are not as written, on sampled clients.
    #[serde(default)]
    pub(crate) corrupted: u64,
}

impl SequenceCheck {
    fn accept(&mut self, sequence: u64, published: u64) {
        if sequence == self.next && sequence < published {
            self.next += 1;
        } else {
            self.accept_unexpected(sequence, published);
        }
    }

    fn faults(&self, published: u64) -> Faults {
        let tail = published.saturating_sub(self.next);
        match &self.disorder {
            None => Faults { lost: tail, ..Faults::default() },
            Some(disorder) => Faults {
                lost: disorder.missing.len() as u64 + tail,
                duplicated: disorder.duplicated,
                reordered: disorder.reordered,
                unknown: disorder.unknown,
                corrupted: 0,
            },
        }
    }

    #[cold]
    fn accept_unexpected(&mut self, sequence: u64, published: u64) {
        let disorder = self.disorder.get_or_insert_default();
        if sequence >= published {
            disorder.unknown += 1;
        } else if sequence > self.next {
            disorder.missing.extend(self.next..sequence);
            self.next = sequence + 1;
        } else if disorder.missing.remove(&sequence) {
            disorder.reordered += 1;
        } else {
            disorder.duplicated += 1;
        }
    }
}

impl Faults {
    pub(crate) fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// Returns a text such as "3 LOST, 1 DUPLICATED", empty if clean.
    pub(crate) fn describe(&self) -> String {
        let Self { lost, duplicated, reordered, unknown, corrupted } = *self;
        let named = [
            (lost, "LOST"),
            (duplicated, "DUPLICATED"),
            (reordered, "REORDERED"),
            (unknown, "UNKNOWN"),
            (corrupted, "CORRUPTED"),
        ];
        let told: Vec<String> = named
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        told.join(", ")
    }
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.unknown += other.unknown;
        self.corrupted += other.corrupted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(published: u64, arrived: &[u64]) -> Faults {
        let mut checks = StreamChecks::new([3]);
        let published = [0, 0, 0, published];
        for number in arrived {
            checks.accept(3, *number, &published);
        }
        checks.faults(&published)
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

    #[test]
    fn streams_are_checked_apart() {
        let mut checks = StreamChecks::new([0, 5]);
        let published = [2, 9, 0, 0, 0, 1];
        for (stream, sequence) in [(0, 0), (5, 0), (0, 1)] {
            checks.accept(stream, sequence, &published);
        }
        assert!(checks.faults(&published).is_clean());
        checks.accept(1, 0, &published);
        checks.accept(7, 0, &published);
        assert_eq!(checks.faults(&published), Faults { unknown: 2, ..Faults::default() });
        assert_eq!(checks.faults(&[2, 9, 0, 0, 0, 3]).lost, 2);
    }
}
