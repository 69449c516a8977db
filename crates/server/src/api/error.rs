//! The error of a command.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use fanwire_hub::{NameError, UnfitField};
use fanwire_protocol::ErrorCode;
use fanwire_protocol::json::fields::FieldError;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

/// Why a command was not carried out. Client libraries compare it whole, so the standard codes keep their text
/// wherever we have nothing to add.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct ApiError {
    code: u32,
    message: Cow<'static, str>,
}

impl ApiError {
    /// 104 has a text of its own here.
    pub(super) const NOT_FOUND: Self =
        Self { code: ErrorCode::METHOD_NOT_FOUND.code, message: Cow::Borrowed("not found") };

    /// A bad request, with the name of the field and what to do.
    pub(super) fn bad_request(why: impl Display) -> Self {
        let ErrorCode { message, .. } = ErrorCode::BAD_REQUEST;
        Self::with_sentence(ErrorCode::BAD_REQUEST, format!("{message}: {why}"))
    }

    /// An error whose standard text does not say enough.
    pub(super) fn with_sentence(error: ErrorCode, message: String) -> Self {
        Self { code: error.code, message: message.into() }
    }

    /// The same error, with the node that it comes from.
    pub(super) fn on_node(self, node: &str) -> Self {
        Self { message: format!("{}, on node {node:?}", self.message).into(), ..self }
    }

    /// The error for an order that these nodes have not carried out in time.
    pub(super) fn not_done_by(nodes: &[Box<str>], patience: Duration) -> Self {
        let ErrorCode { message, .. } = ErrorCode::INTERNAL;
        let nodes = nodes.join(", ");
        let why = format!(
            "no answer from {nodes} within {} s. A node that is back carries out the order then",
            patience.as_secs()
        );
        Self::with_sentence(ErrorCode::INTERNAL, format!("{message}: {why}"))
    }

    pub(super) fn code(&self) -> u32 {
        self.code
    }

    /// The HTTP status that says the same.
    pub(super) fn status(&self) -> StatusCode {
        match self.code {
            102 | 104 => StatusCode::NOT_FOUND,
            103 => StatusCode::FORBIDDEN,
            106 | 107 | 108 | 110 => StatusCode::BAD_REQUEST,
            111 => StatusCode::TOO_MANY_REQUESTS,
            112 => StatusCode::RANGE_NOT_SATISFIABLE,
            113 => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<UnfitField> for ApiError {
    fn from(unfit: UnfitField) -> Self {
        Self::bad_request(unfit)
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        Self::bad_request(error.why)
    }
}

/// The name of a topic is in the field `channel` or `channels`.
impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        match (error, ErrorCode::from(error)) {
            (NameError::Empty, _) => Self::bad_request("channel is empty; send the name of a topic"),
            (_, ErrorCode::BAD_REQUEST) => Self::bad_request(format!("channel: {error}")),
            (_, code) => code.into(),
        }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(error: ErrorCode) -> Self {
        if error == ErrorCode::METHOD_NOT_FOUND {
            return Self::NOT_FOUND;
        }
        Self { code: error.code, message: error.message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_statuses() {
        let cases = [
            (ErrorCode::INTERNAL, 500),
            (ErrorCode::UNKNOWN_TOPIC, 404),
            (ErrorCode::PERMISSION_DENIED, 403),
            (ErrorCode::METHOD_NOT_FOUND, 404),
            (ErrorCode::LIMIT_EXCEEDED, 400),
            (ErrorCode::BAD_REQUEST, 400),
            (ErrorCode::NOT_AVAILABLE, 400),
            (ErrorCode::EXPIRED, 400),
            (ErrorCode::TOO_MANY_REQUESTS, 429),
            (ErrorCode::UNRECOVERABLE_POSITION, 416),
        ];
        for (error, status) in cases {
            assert_eq!(ApiError::from(error).status(), status, "{error:?}");
        }
        assert_eq!(ApiError { code: 113, message: "conflict".into() }.status(), 409);
    }

    #[test]
    fn standard_errors_keep_their_text() {
        let text = |error: ErrorCode| serde_json::to_string(&ApiError::from(error)).unwrap();
        assert_eq!(text(ErrorCode::INTERNAL), r#"{"code":100,"message":"internal server error"}"#);
        assert_eq!(text(ErrorCode::UNKNOWN_TOPIC), r#"{"code":102,"message":"unknown channel"}"#);
        assert_eq!(text(ErrorCode::METHOD_NOT_FOUND), r#"{"code":104,"message":"not found"}"#);
        assert_eq!(text(ErrorCode::BAD_REQUEST), r#"{"code":107,"message":"bad request"}"#);
    }
}
