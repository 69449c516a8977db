//! Payloads inside JSON: `data`, `info` and their like.
//!
//! A payload that is one JSON value, nested at most `JSON_DEPTH_MAX` deep, stands in its field byte for byte, without
//! line breaks between tokens, since a line break ends a message. Any other payload has no place there: its field is
//! `null`, and the field beside it, with `b64` in front of its name, holds the bytes in Base64. So every payload can be
//! written, and nobody is closed for what somebody else sent.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::value::RawValue;

use super::is_too_deep;

/// Payloads that were written in Base64 since the process started. Encoding has no owner that could count, and this is
/// rare.
static IN_BASE64: AtomicU64 = AtomicU64::new(0);

/// Returns how many payloads were written in Base64 since the process started, once for each message that was encoded.
pub fn written_in_base64() -> u64 {
    IN_BASE64.load(Relaxed)
}

/// Base64 with padding. The last character may hold bits that belong to no byte, as Go allows.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Reads a payload in Base64; `None` if it is something else. Line breaks in it are ignored: Ruby's `encode64` and
/// Python's `encodebytes` write them.
pub fn from_base64(text: &str) -> Option<Bytes> {
    let bytes = if text.contains(['\n', '\r']) {
        LENIENT.decode(text.replace(['\n', '\r'], ""))
    } else {
        LENIENT.decode(text)
    };
    bytes.ok().map(Bytes::from)
}

/// Reads a payload; takes any JSON value, `null` included.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    let raw = Box::<RawValue>::deserialize(from)?;
    Ok(Bytes::from(String::from(Box::<str>::from(raw)).into_bytes()))
}

/// Writes the field `data`, for `#[serde(flatten)]`. An empty payload is left out.
pub(crate) fn data<S: Serializer>(payload: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    fields("data", "b64data", payload, to)
}

/// Writes the field `conn_info`; see [`data`].
pub(crate) fn conn_info<S: Serializer>(payload: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    fields("conn_info", "b64conn_info", payload, to)
}

/// Writes the field `chan_info`; see [`data`].
pub(crate) fn chan_info<S: Serializer>(payload: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    fields("chan_info", "b64chan_info", payload, to)
}

fn fields<S: Serializer>(
    name: &'static str,
    base64_name: &'static str,
    payload: &[u8],
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut fields = to.serialize_map(None)?;
    if payload.is_empty() {
        return fields.end();
    }
    match value(payload) {
        Some(value) => fields.serialize_entry(name, &*value)?,
        None => {
            IN_BASE64.fetch_add(1, Relaxed);
            fields.serialize_entry(name, &())?;
            fields.serialize_entry(base64_name, &STANDARD.encode(payload))?;
        }
    }
    fields.end()
}

/// The payload as one line of JSON; `None` where `check` would refuse it.
fn value(payload: &[u8]) -> Option<Cow<'_, RawValue>> {
    if is_too_deep(payload) {
        return None;
    }
    // Parsed before line breaks go: taking one out may make JSON of what was none, as of two numbers on two lines.
    let raw: &RawValue = serde_json::from_slice(payload).ok()?;
    if memchr::memchr2(b'\n', b'\r', raw.get().as_bytes()).is_none() {
        return Some(Cow::Borrowed(raw));
    }
    // In a JSON string a line break is always escaped, so any that is here stands between two tokens.
    RawValue::from_string(raw.get().replace(['\n', '\r'], "")).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::super::{JSON_DEPTH_MAX, write};
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde::Serialize;

    #[derive(Serialize)]
    struct Carrier {
        before: u8,
        #[serde(flatten, serialize_with = "data")]
        data: Bytes,
        after: u8,
    }

    #[track_caller]
    fn check(payload: &[u8], expected: &str) {
        let mut to = Vec::new();
        write(&Carrier { before: 1, data: Bytes::copy_from_slice(payload), after: 2 }, &mut to);
        let fields = if expected.is_empty() { String::new() } else { format!("{expected},") };
        assert_eq!(String::from_utf8_lossy(&to), format!(r#"{{"before":1,{fields}"after":2}}"#));
    }

    #[test]
    fn json_is_written_as_it_came_but_for_line_breaks() {
        check(b"{\"b\":1, \"a\": 1.0e2}", r#""data":{"b":1, "a": 1.0e2}"#);
        check(b" 12345678901234567890123 ", r#""data":12345678901234567890123"#);
        check(b"{\r\n\"a\\n\":\n[1,\n2]\n}\n", r#""data":{"a\n":[1,2]}"#);
        check(br#""\u2028 \ud800""#, r#""data":"\u2028 \ud800""#);
        check(b"null", r#""data":null"#);
        let deepest = "[".repeat(JSON_DEPTH_MAX) + &"]".repeat(JSON_DEPTH_MAX);
        check(deepest.as_bytes(), &format!(r#""data":{deepest}"#));
        check(b"", "");
    }

    #[test]
    fn base64_is_read_with_line_breaks_anywhere() {
        let read = |text: &str| from_base64(text).map(|bytes| bytes.to_vec());
        for text in ["/wA=", "/wA=\n", "\r\n/w\nA\r=\n\n", "/wB="] {
            assert_eq!(read(text), Some(vec![255, 0]), "{text:?}");
        }
        assert_eq!(read("\n"), Some(vec![]));
        for text in ["/wA", "/wA= ", "/w\tA=", "/wA==", "/wA=/wA=", "_wA=", "*", "="] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_written_in_base64_and_counted() {
        let counted = written_in_base64();
        check(b"\xff\x00", r#""data":null,"b64data":"/wA=""#);
        for wrong in [&b"1\n2"[..], b"\"a\nb\"", b"tr\nue", b" ", b"\"\xff\"", b"{} {}", b"\xef\xbb\xbf{}"] {
            check(wrong, &format!(r#""data":null,"b64data":"{}""#, STANDARD.encode(wrong)));
        }
        let deep = "[".repeat(JSON_DEPTH_MAX + 1) + &"]".repeat(JSON_DEPTH_MAX + 1);
        check(deep.as_bytes(), &format!(r#""data":null,"b64data":"{}""#, STANDARD.encode(&deep)));
        assert!(written_in_base64() >= counted + 9);
    }

    proptest! {
        #[test]
        fn base64_may_be_broken_anywhere(bytes: Vec<u8>, breaks in vec((0_usize..400, "\r?\n|\r"), 0..8)) {
            let mut text = STANDARD.encode(&bytes);
            for (place, line_break) in breaks {
                text.insert_str(place % (text.len() + 1), &line_break);
            }
            prop_assert_eq!(from_base64(&text), Some(Bytes::from(bytes)));
        }
    }
}
