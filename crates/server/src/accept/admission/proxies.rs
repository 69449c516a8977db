//! Proxies that are trusted to name their clients: ahead of a connection (PROXY protocol) or in a request
//! (`X-Forwarded-For`).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fanwire_protocol::proxy::{self, HEADER_BYTES_MAX, Start};
use hyper::header::{HeaderMap, HeaderName};
use ipnet::IpNet;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The interval between two looks at a header that arrives in pieces. Proxies send it at once, in one piece.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Proxies<'a>(pub &'a [IpNet]);

impl Proxies<'_> {
    pub(crate) fn trust(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Takes the PROXY header that a trusted proxy may send ahead, and returns the address that the connection comes
    /// from. Waits for the rest of a header that has begun. An error says that the connection cannot be read.
    pub(crate) async fn sent_ahead(self, stream: &mut TcpStream, peer: IpAddr) -> io::Result<IpAddr> {
        if !self.trust(peer) {
            return Ok(peer);
        }
        let mut bytes = [0; HEADER_BYTES_MAX];
        let header = loop {
            let length = stream.peek(&mut bytes).await?;
            match proxy::read(&bytes[..length]) {
                Start::Header(header) => break header,
                Start::Other => return Ok(peer),
                Start::Invalid => return Err(io::ErrorKind::InvalidData.into()),
                // The peer left or will send more. The socket does not report that while it holds the beginning.
                Start::Incomplete if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                Start::Incomplete => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        };
        stream.read_exact(&mut bytes[..header.length]).await?;
        Ok(header.client.unwrap_or(peer))
    }

    /// Returns the address of a request's client: the last of those forwarded that is no trusted proxy's. `from` is
    /// where the connection comes from.
    pub(crate) fn client_of(self, from: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = from;
        let lists = headers.get_all(X_FORWARDED_FOR).iter().map(|list| list.to_str().unwrap_or(""));
        let lists: Vec<&str> = lists.collect();
        let mut forwarded = lists.iter().rev().flat_map(|list| list.rsplit(','));
        while self.trust(client) {
            // A trusted proxy did not write the addresses before an unreadable one.
            let Some(address) = forwarded.next().and_then(address) else { break };
            client = address;
        }
        client
    }
}

/// Reads an address, which some proxies write with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(with_port).or_else(bracketed)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn check(lists: &[&str], client: &str) {
        let trusted = ["10.0.0.0/8", "2001:db8:5::/48"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(list.as_bytes()).unwrap());
        }
        let from = "::ffff:10.1.2.3".parse().unwrap();
        let client: IpAddr = client.parse().unwrap();
        assert_eq!(Proxies(&trusted).client_of(from, &headers), client, "{lists:?}");
        let stranger: IpAddr = "192.0.2.99".parse().unwrap();
        assert_eq!(Proxies(&trusted).client_of(stranger, &headers), stranger, "{lists:?}");
        assert_eq!(Proxies(&[]).client_of(from, &headers), from);
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxys_is_the_clients() {
        check(&[], "::ffff:10.1.2.3");
        check(&["192.0.2.1"], "192.0.2.1");
        // Any client can write the beginning.
        check(&["8.8.8.8, 192.0.2.1"], "192.0.2.1");
        check(&["8.8.8.8,192.0.2.1 ,10.0.0.9"], "192.0.2.1");
        check(&["8.8.8.8", "192.0.2.1", "10.0.0.9, 2001:db8:5::1"], "192.0.2.1");
        check(&["10.0.0.8, 10.0.0.9"], "10.0.0.8");
    }

    #[test]
    fn addresses_come_in_many_forms() {
        check(&["192.0.2.1:50000"], "192.0.2.1");
        check(&["[2001:db8::1]:50000"], "2001:db8::1");
        check(&["[2001:db8::1]"], "2001:db8::1");
        check(&["2001:db8::1"], "2001:db8::1");
        check(&["192.0.2.1, unknown, 10.0.0.9"], "10.0.0.9");
        check(&["192.0.2.1, "], "::ffff:10.1.2.3");
        check(&["192.0.2.1", "\u{fc}"], "::ffff:10.1.2.3");
    }
}
