//! The measured message: a JSON object of an exact size that carries its sequence number and when it was sent.
//!
//! The writer and the reader agree on the bytes, so the reader only looks for a marker and never parses JSON.

use std::io::Write as _;

use memchr::memmem;

/// Room for the longest numbers; a shorter `--payload` is refused.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 64;

const MARKER: &str = r#"{"n":"#;
const TIME_FIELD: &[u8] = br#","t":"#;

/// Appends `{"n":SEQUENCE,"t":SENT_AT,"x":"xxx..."}`, exactly `bytes` long.
pub(crate) fn write(out: &mut Vec<u8>, sequence: u64, sent_at: u64, bytes: usize) {
    debug_assert!(bytes >= PAYLOAD_BYTES_MIN, "a payload must have room for its numbers");
    let start = out.len();
    write!(out, r#"{MARKER}{sequence},"t":{sent_at},"x":""#).expect("a vector takes all that is written");
    out.resize(start + bytes - 2, b'x');
    out.extend_from_slice(b"\"}");
}

/// Finds the measured message in what a server wrapped around it.
#[derive(Debug)]
pub(crate) struct PayloadReader {
    marker: memmem::Finder<'static>,
}

impl PayloadReader {
    pub(crate) fn new() -> Self {
        Self { marker: memmem::Finder::new(MARKER) }
    }

    /// The sequence number and the bytes behind it, for `sent_at`; `None` if this is no measured message.
    pub(crate) fn sequence<'a>(&self, message: &'a [u8]) -> Option<(u64, &'a [u8])> {
        let start = self.marker.find(message)? + MARKER.len();
        leading_number(&message[start..])
    }
}

/// When the message was sent, from the bytes behind its sequence number.
pub(crate) fn sent_at(behind_sequence: &[u8]) -> Option<u64> {
    leading_number(behind_sequence.strip_prefix(TIME_FIELD)?).map(|(time, _)| time)
}

fn leading_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at(digits);
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_exact_size_and_is_json() {
        for (sequence, time, bytes) in [(0, 0, 64), (u64::MAX, u64::MAX, 64), (7, 123, 512)] {
            let mut out = b"before".to_vec();
            write(&mut out, sequence, time, bytes);
            assert_eq!(out.len(), 6 + bytes);
            let json: serde_json::Value = serde_json::from_slice(&out[6..]).unwrap();
            assert_eq!(json["n"], sequence);
            assert_eq!(json["t"], time);
        }
    }

    #[test]
    fn numbers_are_found_inside_an_envelope() {
        let mut message = br#"{"push":{"channel":"load:fanout","pub":{"data":"#.to_vec();
        write(&mut message, 42, 99, 128);
        message.extend_from_slice(br#","offset":3}}}"#);
        let (sequence, rest) = PayloadReader::new().sequence(&message).unwrap();
        assert_eq!((sequence, sent_at(rest)), (42, Some(99)));
    }

    #[test]
    fn other_messages_have_no_sequence() {
        let reader = PayloadReader::new();
        for message in
            ["{}", r#"{"n":"#, r#"{"n":"a"}"#, r#"{"n":99999999999999999999}"#, r#"{"id":2,"subscribe":{}}"#]
        {
            assert_eq!(reader.sequence(message.as_bytes()), None, "{message}");
        }
        assert_eq!(sent_at(b"}"), None);
    }
}
