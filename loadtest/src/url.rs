//! URLs of external servers.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _};
use std::str::FromStr;

use crate::error::{Doing, LoadError};

/// The parts of a URL that are needed to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// Name or address, and port.
    pub(crate) host: String,
    /// Without a slash at the end.
    pub(crate) path: String,
}

impl Url {
    /// Returns the host without its port.
    pub(crate) fn name(&self) -> &str {
        self.host.rsplit_once(':').map_or(&*self.host, |(name, _)| name)
    }

    pub(crate) fn is_loopback(&self) -> bool {
        let name = self.name();
        name == "localhost" || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
    }

    /// Returns the host's first IPv4 address.
    pub(crate) fn address(&self) -> Result<SocketAddrV4, LoadError> {
        let mut addresses = self.host.to_socket_addrs().doing(format!("look up {}", self.host))?;
        let first = addresses.find_map(|address| match address {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        });
        first.ok_or_else(|| LoadError::Unsupported(format!("{} has no IPv4 address", self.host)))
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("ws://").or_else(|| text.strip_prefix("http://"));
        let rest = rest.ok_or("must begin with ws:// or http://")?;
        let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        let host = match port {
            Some(Ok(_)) => host.to_owned(),
            Some(Err(_)) => return Err("has a wrong port".to_owned()),
            None if host.is_empty() => return Err("has no host".to_owned()),
            None => format!("{host}:80"),
        };
        Ok(Self { host, path: path.trim_end_matches('/').to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = |host: &str, path: &str| Ok(Url { host: host.to_owned(), path: path.to_owned() });
        assert_eq!("ws://a:8000/connection/websocket".parse(), url("a:8000", "/connection/websocket"));
        assert_eq!("http://127.0.0.1:9/api/".parse(), url("127.0.0.1:9", "/api"));
        assert_eq!("http://b".parse(), url("b:80", ""));
        for wrong in ["", "b", "wss://b", "ws://", "ws://b:port/x"] {
            assert!(wrong.parse::<Url>().is_err(), "{wrong}");
        }
    }
}
