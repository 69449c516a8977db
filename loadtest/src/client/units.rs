//! Splits frames and bodies into messages, for protocols in which a frame is not one message.

use memchr::{memchr, memchr_iter};

use crate::dialect::BodyUnits;

/// Returns the next message of a body and the rest, or `None` if it is incomplete.
pub(super) fn of_body(units: BodyUnits, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match units {
        BodyUnits::Events => {
            let end = memchr_iter(b'\n', bytes).find(|end| bytes.get(end + 1) == Some(&b'\n'))?;
            Some((&bytes[..end], &bytes[end + 2..]))
        }
        BodyUnits::Lines => memchr(b'\n', bytes).map(|end| (&bytes[..end], &bytes[end + 1..])),
        BodyUnits::LengthPrefixed => length_prefixed(bytes),
    }
}

/// Returns the message after its length, and the rest, or `None` if it is incomplete.
pub(super) fn length_prefixed(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    // The end of every frame: a failure to read a length would allocate its error.
    if payload.is_empty() {
        return None;
    }
    let mut rest = payload;
    let length = prost::decode_length_delimiter(&mut rest).ok()?;
    rest.split_at_checked(length)
}

/// Returns a NATS command with its payload and without the last CR LF, and the rest, or `None` if it is incomplete. `MSG
/// subject sid [reply] bytes` is followed by that many bytes; all others end with their line.
pub(super) fn nats_command(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = memchr(b'\n', payload)? + 1;
    let mut whole = line;
    if payload.starts_with(b"MSG ") {
        let digits = payload[..line].trim_ascii().rsplit(|byte| *byte == b' ').next()?;
        let bytes: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        whole = line.checked_add(bytes)?.checked_add(2)?;
    }
    let (command, rest) = payload.split_at_checked(whole)?;
    Some((command.trim_ascii_end(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_honoured() {
        assert_eq!(length_prefixed(b"\x02ab\x00"), Some((&b"ab"[..], &b"\x00"[..])));
        assert_eq!(length_prefixed(b"\x00"), Some((&b""[..], &b""[..])));
        assert_eq!(length_prefixed(b"\x03ab"), None);
        assert_eq!(length_prefixed(b""), None);
    }

    #[test]
    fn bodies_are_cut_where_messages_end() {
        let cut = |units, bytes: &'static str| {
            let (message, rest) = of_body(units, bytes.as_bytes())?;
            Some((str::from_utf8(message).unwrap(), str::from_utf8(rest).unwrap()))
        };
        let events = "id: 1\ndata: a\n\ndata: b\n";
        assert_eq!(cut(BodyUnits::Events, events), Some(("id: 1\ndata: a", "data: b\n")));
        assert_eq!(cut(BodyUnits::Events, "data: b\n"), None);
        assert_eq!(cut(BodyUnits::Lines, "{}\n\n"), Some(("{}", "\n")));
        assert_eq!(cut(BodyUnits::Lines, "\n"), Some(("", "")));
        assert_eq!(cut(BodyUnits::Lines, "{}"), None);
        assert_eq!(cut(BodyUnits::LengthPrefixed, "\u{2}ab\u{0}"), Some(("ab", "\u{0}")));
    }

    #[test]
    fn nats_commands_are_cut_where_they_end() {
        let bytes = b"PING\r\nMSG a 1 4\r\nx\r\ny\r\nMSG a 1 2\r\nz";
        let (ping, rest) = nats_command(bytes).unwrap();
        assert_eq!(ping, b"PING");
        let (message, rest) = nats_command(rest).unwrap();
        assert_eq!(message, b"MSG a 1 4\r\nx\r\ny");
        assert_eq!(nats_command(rest), None);
        assert_eq!(nats_command(b"MSG a 1 18446744073709551615\r\nx"), None);
    }
}
