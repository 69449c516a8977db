//! The network that a connection counts for.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use fanwire_protocol::capacity::GiveBack;

/// An IPv4 address, or the /64 of an IPv6 address: one subscriber line usually has the whole of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientNetwork(IpAddr);

impl From<IpAddr> for ClientNetwork {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
        }
    }
}

impl ClientNetwork {
    pub(crate) fn to_bytes(self) -> Bytes {
        match self.0 {
            IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
            IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let address: IpAddr = match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
            _ => <[u8; 16]>::try_from(bytes).ok()?.into(),
        };
        Some(address.into())
    }
}

impl fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of connections, of clients or of their bytes, of each network.
#[derive(Debug, Default)]
pub(crate) struct Counts(HashMap<ClientNetwork, usize>);

impl Counts {
    pub(crate) fn add(&mut self, network: ClientNetwork, number: usize) {
        *self.0.entry(network).or_default() += number;
    }

    pub(crate) fn remove(&mut self, network: &ClientNetwork, number: usize) {
        let Some(count) = self.0.get_mut(network) else { return };
        *count -= number;
        if *count == 0 {
            self.0.remove(network);
            self.0.give_back();
        }
    }

    pub(crate) fn of(&self, network: &ClientNetwork) -> usize {
        self.0.get(network).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_counts_for_its_64_and_a_mapped_one_for_its_ipv4_address() {
        let network = |text: &str| ClientNetwork::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
