//! The error of a command.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use fanwire_hub::{NameError, UnfitField};
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::json::fields::FieldError;
use fanwire_protocol::reason::RequestError;
use hyper::StatusCode;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The reason for which a command failed. Client libraries compare it whole, so the standard codes keep their text
/// where there is nothing to add.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct ApiError {
    #[serde(rename = "code", serialize_with = "serialize_number", deserialize_with = "deserialize_number")]
    error: RequestError,
    message: Cow<'static, str>,
}

impl ApiError {
    /// 104 has a text of its own here.
    pub(super) const NOT_FOUND: Self =
        Self { error: RequestError::MethodNotFound, message: Cow::Borrowed("not found") };

    /// A bad request, with the name of the field and what to do.
    pub(super) fn bad_request(why: impl Display) -> Self {
        Self::because(RequestError::BadRequest, why)
    }

    /// An error whose standard text does not say enough.
    pub(super) fn with_sentence(error: RequestError, message: String) -> Self {
        Self { error, message: message.into() }
    }

    /// The standard text, and a sentence behind it.
    pub(super) fn because(error: RequestError, why: impl Display) -> Self {
        Self::with_sentence(error, format!("{}: {why}", codes::error(error).text))
    }

    /// The same error, with the node that it comes from.
    pub(super) fn on_node(self, node: &str) -> Self {
        Self { message: format!("{}, on node {node:?}", self.message).into(), ..self }
    }

    /// The error for an order that these nodes have not carried out in time.
    pub(super) fn not_done_by(nodes: &[Box<str>], patience: Duration) -> Self {
        let nodes = nodes.join(", ");
        let why = format!(
            "no answer from {nodes} within {} s. A node that is back carries out the order then",
            patience.as_secs()
        );
        Self::because(RequestError::Internal, why)
    }

    pub(super) fn error(&self) -> RequestError {
        self.error
    }

    /// The number, for clients and for metrics.
    pub(super) fn code(&self) -> u32 {
        codes::error(self.error).number
    }

    /// The HTTP status that says the same.
    pub(super) fn status(&self) -> StatusCode {
        match self.error {
            RequestError::UnknownTopic | RequestError::MethodNotFound => StatusCode::NOT_FOUND,
            RequestError::PermissionDenied => StatusCode::FORBIDDEN,
            RequestError::LimitExceeded
            | RequestError::BadRequest
            | RequestError::NotAvailable
            | RequestError::Expired => StatusCode::BAD_REQUEST,
            RequestError::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            RequestError::UnrecoverablePosition => StatusCode::RANGE_NOT_SATISFIABLE,
            RequestError::Internal
            | RequestError::Unauthorized
            | RequestError::AlreadySubscribed
            | RequestError::TokenExpired
            | RequestError::ByApplication(_) => StatusCode::INTERNAL_SERVER_ERROR,
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
        match (error, RequestError::from(error)) {
            (NameError::Empty, _) => Self::bad_request("channel is empty; send the name of a topic"),
            (_, RequestError::BadRequest) => Self::bad_request(format!("channel: {error}")),
            (_, code) => code.into(),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        if error == RequestError::MethodNotFound {
            return Self::NOT_FOUND;
        }
        Self { error, message: codes::error(error).text.into() }
    }
}

fn serialize_number<S: Serializer>(error: &RequestError, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(codes::error(*error).number)
}

/// Reads the number in another node's answer. A newer node may know more of them.
fn deserialize_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RequestError, D::Error> {
    let number = u32::deserialize(deserializer)?;
    let known = RequestError::ALL.into_iter().find(|error| codes::error(*error).number == number);
    Ok(known.unwrap_or(RequestError::Internal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_statuses() {
        let cases = [
            (RequestError::Internal, 500),
            (RequestError::UnknownTopic, 404),
            (RequestError::PermissionDenied, 403),
            (RequestError::MethodNotFound, 404),
            (RequestError::LimitExceeded, 400),
            (RequestError::BadRequest, 400),
            (RequestError::NotAvailable, 400),
            (RequestError::Expired, 400),
            (RequestError::TooManyRequests, 429),
            (RequestError::UnrecoverablePosition, 416),
        ];
        for (error, status) in cases {
            assert_eq!(ApiError::from(error).status(), status, "{error:?}");
        }
    }

    #[test]
    fn standard_errors_keep_their_text() {
        let text = |error: RequestError| serde_json::to_string(&ApiError::from(error)).unwrap();
        assert_eq!(text(RequestError::Internal), r#"{"code":100,"message":"internal server error"}"#);
        assert_eq!(text(RequestError::UnknownTopic), r#"{"code":102,"message":"unknown channel"}"#);
        assert_eq!(text(RequestError::MethodNotFound), r#"{"code":104,"message":"not found"}"#);
        assert_eq!(text(RequestError::BadRequest), r#"{"code":107,"message":"bad request"}"#);
    }
}
