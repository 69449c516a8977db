//! The measured message: a JSON object of an exact size that carries its sequence number, its stream and when it was sent.
//!
//! A stream is what one publisher sends to one topic; its numbers are consecutive, so each is checked alone. The writer and the reader agree on the bytes, so the reader only looks for a marker and never parses JSON.

use std::io::Write as _;

use memchr::memmem;

/// Room for the longest numbers; a shorter `--payload` is refused.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 80;

const MARKER: &str = r#"{"n":"#;
const STREAM_FIELD: &[u8] = br#","k":"#;
const TIME_FIELD: &[u8] = br#","t":"#;

/// What a measured message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured<'a> {
    pub(crate) sequence: u64,
    pub(crate) stream: u32,
    /// What follows, for `sent_at`.
    behind: &'a [u8],
}

/// Appends `{"n":SEQUENCE,"k":STREAM,"t":SENT_AT,"x":"xxx..."}`, exactly `bytes` long.
pub(crate) fn write(out: &mut Vec<u8>, stream: u32, sequence: u64, sent_at: u64, bytes: usize) {
    debug_assert!(bytes >= PAYLOAD_BYTES_MIN, "a payload must have room for its numbers");
    let start = out.len();
    write!(out, r#"{MARKER}{sequence},"k":{stream},"t":{sent_at},"x":""#)
        .expect("a vector takes all that is written");
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

    /// `None` if this is no measured message.
    pub(crate) fn read<'a>(&self, message: &'a [u8]) -> Option<Measured<'a>> {
        let start = self.marker.find(message)? + MARKER.len();
        let (sequence, rest) = leading_number(&message[start..])?;
        let (stream, behind) = leading_number(rest.strip_prefix(STREAM_FIELD)?)?;
        Some(Measured { sequence, stream: u32::try_from(stream).ok()?, behind })
    }
}

impl Measured<'_> {
    /// When the message was sent.
    pub(crate) fn sent_at(&self) -> Option<u64> {
        leading_number(self.behind.strip_prefix(TIME_FIELD)?).map(|(time, _)| time)
    }
}

fn leading_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    let mut digits = 0;
    while let Some(digit) = bytes.get(digits).filter(|byte| byte.is_ascii_digit()) {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        digits += 1;
    }
    (digits > 0).then(|| (value, &bytes[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_exact_size_and_is_json() {
        for (stream, sequence, time, bytes) in [
            (0, 0, 0, PAYLOAD_BYTES_MIN),
            (u32::MAX, u64::MAX, u64::MAX, PAYLOAD_BYTES_MIN),
            (1, 7, 123, 512),
        ] {
            let mut out = b"before".to_vec();
            write(&mut out, stream, sequence, time, bytes);
            assert_eq!(out.len(), 6 + bytes);
            let json: serde_json::Value = serde_json::from_slice(&out[6..]).unwrap();
            assert_eq!(
                (&json["n"], &json["k"], &json["t"]),
                (&sequence.into(), &stream.into(), &time.into())
            );
        }
    }

    #[test]
    fn numbers_are_found_inside_an_envelope() {
        let mut message = br#"{"push":{"channel":"load:topic-0","pub":{"data":"#.to_vec();
        write(&mut message, 3, 42, 99, 128);
        message.extend_from_slice(br#","offset":3}}}"#);
        let measured = PayloadReader::new().read(&message).unwrap();
        assert_eq!((measured.sequence, measured.stream, measured.sent_at()), (42, 3, Some(99)));
    }

    #[test]
    fn other_messages_are_none() {
        let reader = PayloadReader::new();
        for message in [
            "{}",
            r#"{"n":"#,
            r#"{"n":"a"}"#,
            r#"{"n":7}"#,
            r#"{"n":7,"k":99999999999,"t":1}"#,
            r#"{"n":99999999999999999999,"k":1}"#,
            r#"{"id":2,"subscribe":{}}"#,
        ] {
            assert_eq!(reader.read(message.as_bytes()), None, "{message}");
        }
    }
}
