//! Headers of the PROXY protocol, whole, cut and wrong.

use std::net::IpAddr;

use fanwire_protocol::proxy::{HEADER_BYTES_MAX, Header, Start, read};
use proptest::prelude::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

fn client(bytes: &[u8]) -> Option<IpAddr> {
    match read(bytes) {
        Start::Header(Header { length, client }) => {
            assert_eq!(length, bytes.len());
            client
        }
        other => panic!("{other:?}"),
    }
}

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect("an address"))
}

#[test]
fn version_1_names_the_client() {
    assert_eq!(client(b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n"), address("192.0.2.1"));
    assert_eq!(client(b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n"), address("2001:db8::1"));
    assert_eq!(client(b"PROXY UNKNOWN\r\n"), None);
    assert_eq!(client(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), None);
}

#[test]
fn version_2_names_the_client() {
    let v4 = [&[192, 0, 2, 1, 198, 51, 100, 7][..], &[1, 2, 3, 4]].concat();
    assert_eq!(client(&version_2(0x21, 0x11, &v4)), address("192.0.2.1"));
    // What providers add follows the addresses.
    assert_eq!(client(&version_2(0x21, 0x11, &[&v4[..], &[0xea, 0, 1, 9]].concat())), address("192.0.2.1"));
    let mut v6 = [0; 36];
    (v6[0], v6[1], v6[15]) = (0x20, 0x01, 7);
    assert_eq!(client(&version_2(0x21, 0x21, &v6)), address("2001::7"));
    assert_eq!(client(&version_2(0x21, 0x31, &[0; 216])), None);
    assert_eq!(client(&version_2(0x21, 0x00, &[])), None);
    assert_eq!(client(&version_2(0x20, 0x11, &v4)), None, "the proxy's own");
}

#[test]
fn what_is_no_header_is_left_alone() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], b"PROPFIND / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"\r\n\r\nGET /"]
    {
        assert_eq!(read(bytes), Start::Other, "{bytes:?}");
    }
    assert_eq!(read(b""), Start::Incomplete);
}

#[test]
fn wrong_headers_are_refused() {
    for bytes in [
        &b"PROXY TCP4 192.0.2.1 198.51.100.7 50000\r\n"[..],
        b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443 1\r\n",
        b"PROXY TCP4 2001:db8::1 ::1 50000 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 70000\r\n",
        b"PROXY TCP6 host ::1 1 2\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4 \xff 198.51.100.7 50000 443\r\n",
        &[&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat(),
        &version_2(0x22, 0x11, &[0; 12]),
        &version_2(0x11, 0x11, &[0; 12]),
        &version_2(0x21, 0x11, &[0; 11]),
        &version_2(0x21, 0x21, &[0; 35]),
        &version_2(0x21, 0x11, &[0; HEADER_BYTES_MAX]),
    ] {
        assert_eq!(read(bytes), Start::Invalid, "{bytes:?}");
    }
}

/// Every header is incomplete until it is whole, and then what follows does not matter.
fn check_cuts(header: &[u8], after: &[u8]) {
    let whole = read(header);
    assert!(matches!(whole, Start::Header(_)));
    for length in 0..header.len() {
        assert_eq!(read(&header[..length]), Start::Incomplete, "{length}");
    }
    assert_eq!(read(&[header, after].concat()), whole);
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
        let _ = read(&[SIGNATURE, &bytes].concat());
        let _ = read(&[b"PROXY ", &bytes[..]].concat());
    }

    #[test]
    fn headers_round_trip(client: IpAddr, port: u16, after in prop::collection::vec(any::<u8>(), 0..20)) {
        let (family, server) = if client.is_ipv4() { ("TCP4", "192.0.2.9") } else { ("TCP6", "::9") };
        let header = format!("PROXY {family} {client} {server} {port} 443\r\n");
        prop_assert_eq!(self::client(header.as_bytes()), Some(client));
        check_cuts(header.as_bytes(), &after);
        let header = match client {
            IpAddr::V4(client) => version_2(0x21, 0x11, &[&client.octets()[..], &[0; 8]].concat()),
            IpAddr::V6(client) => version_2(0x21, 0x21, &[&client.octets()[..], &[0; 20]].concat()),
        };
        prop_assert_eq!(self::client(&header), Some(client));
        check_cuts(&header, &after);
    }
}
