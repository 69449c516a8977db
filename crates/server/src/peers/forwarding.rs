//! The room for what goes through Redis between clients and sessions of other nodes, in bytes that come back with time: each
//! client network has some for its calls and their answers, and some for the answers that each node is sent for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanwire_protocol::capacity::GiveBack as _;
use tokio::time::Instant;

/// The time whose bytes may go at once.
const BURST: Duration = Duration::from_secs(2);

/// The bytes that each letter counts for beside its content.
pub(super) const LETTER_BYTES: usize = 256;

/// The interval at which those are forgotten that have all their room.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The room of each `K`.
#[derive(Debug)]
pub(super) struct Forwarding<K> {
    /// 0 for no limit.
    bytes_per_second_max: usize,
    rests: Mutex<Rests<K>>,
}

#[derive(Debug)]
struct Rests<K> {
    /// The time at which each has all its room again.
    rested_at: HashMap<K, Instant>,
    next_sweep: Instant,
}

impl<K: Copy + Eq + Hash> Forwarding<K> {
    pub(super) fn new(bytes_per_second_max: usize) -> Self {
        let rests = Rests { rested_at: HashMap::new(), next_sweep: Instant::now() };
        Self { bytes_per_second_max, rests: Mutex::new(rests) }
    }

    /// Takes room for a letter. Returns false if there is too little. One who has all its room may always send.
    pub(super) fn may_forward(&self, of: K, content_bytes: usize) -> bool {
        let Some(taken) = self.time_of(content_bytes) else { return true };
        let now = Instant::now();
        let mut rests = self.rests(now);
        let rested_at = rests.rested_at.get(&of).copied().unwrap_or(now);
        let has_room = rested_at <= now || rested_at + taken <= now + BURST;
        if has_room {
            rests.rested_at.insert(of, rested_at.max(now) + taken);
        }
        has_room
    }

    /// Takes room for a letter that has come, however little is left.
    pub(super) fn charge(&self, of: K, content_bytes: usize) {
        let Some(taken) = self.time_of(content_bytes) else { return };
        let now = Instant::now();
        let mut rests = self.rests(now);
        let rested_at = rests.rested_at.entry(of).or_insert(now);
        *rested_at = (*rested_at).max(now) + taken;
    }

    /// Returns the time in which the room for a letter comes back; `None` without a limit.
    fn time_of(&self, content_bytes: usize) -> Option<Duration> {
        let bytes = (content_bytes + LETTER_BYTES) as u128;
        let nanos = (bytes * 1_000_000_000).checked_div(self.bytes_per_second_max as u128)?;
        Some(Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX)))
    }

    fn rests(&self, now: Instant) -> MutexGuard<'_, Rests<K>> {
        let mut rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        if rests.next_sweep <= now {
            rests.next_sweep = now + SWEEP_INTERVAL;
            rests.rested_at.retain(|_, rested_at| *rested_at > now);
            rests.rested_at.give_back();
        }
        rests
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const PER_SECOND: usize = 10 * LETTER_BYTES;

    #[tokio::test(start_paused = true)]
    async fn each_has_room_of_its_own_which_comes_back() {
        let forwarding = Forwarding::new(PER_SECOND);
        let forwarded = |from| (0..100).take_while(|_| forwarding.may_forward(from, 0)).count();
        assert_eq!((forwarded(1), forwarded(1), forwarded(2)), (20, 0, 20));
        advance(Duration::from_millis(500)).await;
        assert_eq!(forwarded(1), 5);
        advance(BURST).await;
        assert_eq!(forwarded(1), 20);
        // The other one has been forgotten.
        assert_eq!(forwarding.rests.lock().unwrap().rested_at.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_counts_for_its_content_and_one_alone_is_never_too_long() {
        let forwarding = Forwarding::new(PER_SECOND);
        assert!(forwarding.may_forward(1, 9 * LETTER_BYTES));
        assert!(!forwarding.may_forward(1, 10 * LETTER_BYTES));
        assert!(forwarding.may_forward(1, 9 * LETTER_BYTES));
        assert!(!forwarding.may_forward(1, 0));
        advance(BURST).await;
        assert!(forwarding.may_forward(1, 1000 * LETTER_BYTES));
        assert!(!forwarding.may_forward(1, 0));
        let without = Forwarding::new(0);
        without.charge(1, 1 << 20);
        assert!((0..1000).all(|_| without.may_forward(1, 1 << 20)));
        assert!(without.rests.lock().unwrap().rested_at.is_empty());
    }
    #[tokio::test(start_paused = true)]
    async fn what_has_come_counts_before_what_goes() {
        let forwarding = Forwarding::new(PER_SECOND);
        assert!(forwarding.may_forward(1, 0));
        forwarding.charge(1, 49 * LETTER_BYTES);
        assert!(!forwarding.may_forward(1, 0));
        advance(Duration::from_secs(3)).await;
        assert!(!forwarding.may_forward(1, 0), "two seconds are left");
        advance(Duration::from_millis(300)).await;
        assert!(forwarding.may_forward(1, 0));
    }
}
