//! The reply to one command, as Rust and as JSON.

use fanwire_protocol::json::is_default;
use fanwire_protocol::reason::RequestError;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::error::ApiError;

/// The result of a command in JSON, or its error.
pub(super) type ApiReply = Result<Box<RawValue>, ApiError>;

/// A reply on the wire: exactly one of result and error.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ApiEnvelope<'a, T> {
    #[serde(skip_serializing_if = "is_default")]
    pub(super) id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<&'a T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<&'a ApiError>,
}

impl<'a, T> From<&'a Result<T, ApiError>> for ApiEnvelope<'a, T> {
    fn from(reply: &'a Result<T, ApiError>) -> Self {
        Self { id: 0, result: reply.as_ref().ok(), error: reply.as_ref().err() }
    }
}

/// A result as JSON.
pub(super) fn result(result: &impl Serialize) -> ApiReply {
    to_raw_value(result).map_err(|_| RequestError::Internal.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_hold_exactly_one() {
        let text = |reply: ApiReply, id| {
            let envelope = ApiEnvelope { id, ..ApiEnvelope::from(&reply) };
            serde_json::to_string(&envelope).unwrap()
        };
        let empty = || result(&serde_json::json!({}));
        assert_eq!(text(empty(), 0), r#"{"result":{}}"#);
        assert_eq!(text(empty(), 7), r#"{"id":7,"result":{}}"#);
        assert_eq!(text(Err(ApiError::NOT_FOUND), 0), r#"{"error":{"code":104,"message":"not found"}}"#);
    }
}
