//! The bytes of answers to polls that a shard keeps until they have arrived, and those of each network.

use crate::accept::admission::{ClientNetwork, Counts};
use crate::transport::poll::Polled;

/// Bytes of the answers that are kept. Beyond it only short ones are.
const KEPT_BYTES_MAX: usize = 32 << 20;
pub(super) const SHORT_BYTES_MAX: usize = 4 << 10;

#[derive(Debug, Default)]
pub(super) struct KeptAnswers {
    bytes: usize,
    networks: Counts,
}

impl KeptAnswers {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns true if an answer of so many bytes may be kept for a client of this network beside those that are. A network has no
    /// more of the bytes than are left for others, alone half.
    pub(super) fn may_keep(&self, network: ClientNetwork, bytes: usize) -> bool {
        let left = KEPT_BYTES_MAX.saturating_sub(self.bytes + bytes);
        bytes <= SHORT_BYTES_MAX || self.networks.of(&network) + bytes <= left
    }

    /// Counts what is kept for a client.
    pub(super) fn add(&mut self, polled: &Polled) {
        let bytes = polled.polls.kept_bytes();
        if bytes > 0 {
            self.bytes += bytes;
            self.networks.add(polled.network, bytes);
        }
    }

    /// Counts it no more, before it changes or goes.
    pub(super) fn remove(&mut self, polled: &Polled) {
        let bytes = polled.polls.kept_bytes();
        self.bytes -= bytes;
        self.networks.remove(&polled.network, bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use bytes::Bytes;

    use super::*;

    const LONG: usize = 1 << 20;

    fn polled(last: u8) -> Polled {
        Polled::new(0, IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into(), None, None)
    }

    #[test]
    fn a_network_leaves_as_much_for_others() {
        let mut kept = KeptAnswers::default();
        let mut fill = |last: u8| {
            let mut clients = Vec::new();
            loop {
                let mut client = polled(last);
                if !kept.may_keep(client.network, LONG) {
                    assert!(kept.may_keep(client.network, SHORT_BYTES_MAX));
                    return (clients, kept.bytes());
                }
                client.polls.answered(Bytes::from(vec![0; LONG]));
                kept.add(&client);
                clients.push(client);
            }
        };
        let (first, half) = fill(1);
        assert_eq!((first.len(), half), (16, KEPT_BYTES_MAX / 2));
        let (second, _) = fill(2);
        assert_eq!(second.len(), 8);
        for client in first.iter().chain(&second) {
            kept.remove(client);
        }
        kept.remove(&polled(1));
        assert_eq!((kept.bytes(), kept.networks.of(&polled(1).network)), (0, 0));
        assert!(kept.may_keep(polled(1).network, KEPT_BYTES_MAX / 2));
    }
}
