//! The room of each client network for calls that go to other nodes, in bytes that come back with time: Redis and the other
//! nodes carry what one address sends, whichever session it is for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fanwire_protocol::capacity::GiveBack as _;
use tokio::time::Instant;

use crate::accept::admission::ClientNetwork;

/// The time whose bytes a network may send at once.
const BURST: Duration = Duration::from_secs(2);

/// The bytes that a call counts for beside its content.
const CALL_BYTES: usize = 256;

/// The interval at which networks are forgotten that have all their room.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Forwarding {
    /// 0 for no limit.
    bytes_per_second_max: usize,
    networks: Mutex<Networks>,
}

#[derive(Debug)]
struct Networks {
    /// The time at which each of them has all its room again.
    rested_at: HashMap<ClientNetwork, Instant>,
    next_sweep: Instant,
}

impl Forwarding {
    pub(super) fn new(bytes_per_second_max: usize) -> Self {
        let networks = Networks { rested_at: HashMap::new(), next_sweep: Instant::now() };
        Self { bytes_per_second_max, networks: Mutex::new(networks) }
    }

    /// Takes room for a call. Returns false if there is too little. A network that has all its room may always call.
    pub(super) fn may_forward(&self, from: ClientNetwork, content_bytes: usize) -> bool {
        if self.bytes_per_second_max == 0 {
            return true;
        }
        let now = Instant::now();
        let nanos = (content_bytes + CALL_BYTES) as u128 * 1_000_000_000 / self.bytes_per_second_max as u128;
        let taken = Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX));
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        if networks.next_sweep <= now {
            networks.next_sweep = now + SWEEP_INTERVAL;
            networks.rested_at.retain(|_, rested_at| *rested_at > now);
            networks.rested_at.give_back();
        }
        let rested_at = networks.rested_at.get(&from).copied().unwrap_or(now);
        let has_room = rested_at <= now || rested_at + taken <= now + BURST;
        if has_room {
            networks.rested_at.insert(from, rested_at.max(now) + taken);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::time::advance;

    use super::*;

    const PER_SECOND: usize = 10 * CALL_BYTES;

    fn network(number: u8) -> ClientNetwork {
        IpAddr::from(Ipv4Addr::new(192, 0, 2, number)).into()
    }

    #[tokio::test(start_paused = true)]
    async fn each_network_has_room_of_its_own_which_comes_back() {
        let forwarding = Forwarding::new(PER_SECOND);
        let forwarded = |from| (0..100).take_while(|_| forwarding.may_forward(network(from), 0)).count();
        assert_eq!((forwarded(1), forwarded(1), forwarded(2)), (20, 0, 20));
        advance(Duration::from_millis(500)).await;
        assert_eq!(forwarded(1), 5);
        advance(BURST).await;
        assert_eq!(forwarded(1), 20);
        // The other one has been forgotten.
        assert_eq!(forwarding.networks.lock().unwrap().rested_at.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_counts_for_its_content_and_one_alone_is_never_too_long() {
        let forwarding = Forwarding::new(PER_SECOND);
        assert!(forwarding.may_forward(network(1), 9 * CALL_BYTES));
        assert!(!forwarding.may_forward(network(1), 10 * CALL_BYTES));
        assert!(forwarding.may_forward(network(1), 9 * CALL_BYTES));
        assert!(!forwarding.may_forward(network(1), 0));
        advance(BURST).await;
        assert!(forwarding.may_forward(network(1), 1000 * CALL_BYTES));
        assert!(!forwarding.may_forward(network(1), 0));
        let without = Forwarding::new(0);
        assert!((0..1000).all(|_| without.may_forward(network(1), 1 << 20)));
        assert!(without.networks.lock().unwrap().rested_at.is_empty());
    }
}
