//! Decodes what all requests share: the text of the body, and payloads in either form.

use bytes::Bytes;
use fanwire_protocol::json::{self, NotJson};
use serde::de::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::refusal::HttpRefusal;

/// A body as text that may be parsed.
pub(super) fn text(body: &[u8]) -> Result<&str, HttpRefusal> {
    // Depth comes first: clients parse recursively, so nothing deeper may be passed on to them.
    if json::is_too_deep(body) {
        return Err(HttpRefusal::Malformed(NotJson::TooDeep.to_string().into()));
    }
    std::str::from_utf8(body).map_err(|_| HttpRefusal::Malformed("the body is not UTF-8".into()))
}

/// Reads a payload where `null` says that there is none.
pub(super) fn info<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    let json = Option::<Box<RawValue>>::deserialize(from)?;
    Ok(json.map_or_else(Bytes::new, |json| String::from(Box::<str>::from(json)).into()))
}

/// The bytes behind base64 where the field for it was given, otherwise JSON as it was written.
pub(super) fn payload(json: Bytes, base64: &str, field: &str) -> Result<Bytes, ApiError> {
    if base64.is_empty() {
        return Ok(json);
    }
    json::payload::from_base64(base64)
        .ok_or_else(|| ApiError::bad_request(format!("{field} is not Base64 with padding")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_text_of_limited_depth() {
        assert_eq!(text(b"{}"), Ok("{}"));
        assert_eq!(text(b"{} {}"), Ok("{} {}"));
        assert_eq!(text(b""), Ok(""));
        assert!(matches!(text(b"\xff"), Err(HttpRefusal::Malformed(_))));
        for depth in [json::JSON_DEPTH_MAX + 1, 1_000_000] {
            assert!(matches!(text("[".repeat(depth).as_bytes()), Err(HttpRefusal::Malformed(_))));
            // In any of several commands.
            assert!(matches!(
                text(format!("{{}}{}", "[".repeat(depth)).as_bytes()),
                Err(HttpRefusal::Malformed(_))
            ));
        }
    }

    #[test]
    fn base64_wins() {
        assert_eq!(payload("[1, 2]".into(), "", "b64data"), Ok("[1, 2]".into()));
        assert_eq!(payload("1".into(), "AP8=", "b64data"), Ok(Bytes::from_static(&[0, 255])));
        assert_eq!(payload("1".into(), "AP\r\n8=\n", "b64data"), Ok(Bytes::from_static(&[0, 255])));
        assert_eq!(payload(Bytes::new(), "", "b64data"), Ok(Bytes::new()));
        let error = ApiError::bad_request("b64data is not Base64 with padding");
        assert_eq!(payload("1".into(), "***", "b64data"), Err(error));
    }
}
