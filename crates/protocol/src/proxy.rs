//! The PROXY protocol, versions 1 and 2: what a proxy sends ahead of a connection's own bytes to name its client
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The header at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes up to the connection's own.
    pub length: usize,
    /// The client's address. The proxy leaves it out for connections of its own, as for its health checks.
    pub client: Option<IpAddr>,
}

/// The meaning of a connection's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Header(Header),
    /// The beginning of a header.
    Incomplete,
    /// No header.
    Other,
    /// They begin as a header and go on as none.
    Invalid,
}

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, with its end.
const V1_BYTES_MAX: usize = 107;

/// Signature, version and command, family, and the length of the rest.
const V2_BYTES: usize = 16;

/// The longest header that is taken: addresses of every family and all that large providers add.
pub const HEADER_BYTES_MAX: usize = 2048;

/// Reads the beginning of a connection.
pub fn read(bytes: &[u8]) -> Start {
    let begins = |signature: &[u8]| {
        let length = signature.len().min(bytes.len());
        bytes[..length] == signature[..length]
    };
    if begins(V2) {
        if bytes.len() < V2_BYTES { Start::Incomplete } else { version_2(bytes) }
    } else if begins(V1) {
        version_1(bytes)
    } else {
        Start::Other
    }
}

fn version_1(bytes: &[u8]) -> Start {
    let line = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < V1_BYTES_MAX { Start::Incomplete } else { Start::Invalid };
    };
    let Some(text) = line.get(V1.len()..end).and_then(|text| std::str::from_utf8(text).ok()) else {
        return Start::Invalid;
    };
    let length = end + 2;
    let mut words = text.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Start::Header(Header { length, client: None });
    }
    let addresses = [words.next(), words.next()];
    let [Some(client), Some(server)] = addresses.map(|word| word?.parse::<IpAddr>().ok()) else {
        return Start::Invalid;
    };
    let ports = [words.next(), words.next()].map(|word| word?.parse::<u16>().ok());
    let is_of_family = match family {
        Some("TCP4") => client.is_ipv4() && server.is_ipv4(),
        Some("TCP6") => client.is_ipv6() && server.is_ipv6(),
        _ => false,
    };
    if !is_of_family || ports.contains(&None) || words.next().is_some() {
        return Start::Invalid;
    }
    Start::Header(Header { length, client: Some(client) })
}

/// `bytes` has the fixed part.
fn version_2(bytes: &[u8]) -> Start {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    let (command, family) = (bytes[12], bytes[13]);
    let length = V2_BYTES + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if !matches!(command, LOCAL | PROXY) || length > HEADER_BYTES_MAX {
        return Start::Invalid;
    }
    let Some(rest) = bytes.get(V2_BYTES..length) else { return Start::Incomplete };
    if command == LOCAL {
        return Start::Header(Header { length, client: None });
    }
    let client = match family >> 4 {
        // Client, server, and a port of each.
        1 if rest.len() < 12 => return Start::Invalid,
        2 if rest.len() < 36 => return Start::Invalid,
        1 => rest.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        2 => rest.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
        // A local socket, or unspecified.
        _ => None,
    };
    Start::Header(Header { length, client })
}
