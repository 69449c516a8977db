//! What goes wrong with a call: an error in a command's answer, or a refusal of the whole request.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use fanwire_hub::{NameError, UnfitField};
use fanwire_protocol::ErrorCode;
use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use serde::{Deserialize, Serialize};

use crate::accept::foreign::Foreign;
use crate::peers::PATIENCE;
use crate::response::{HttpResponse, text};
use fanwire_protocol::json::fields::FieldError;

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

    /// The error for an order that these nodes have not carried out.
    pub(super) fn not_done_by(nodes: &[Box<str>]) -> Self {
        let ErrorCode { message, .. } = ErrorCode::INTERNAL;
        let nodes = nodes.join(", ");
        let why = format!(
            "no answer from {nodes} within {} s. A node that is back carries out the order then",
            PATIENCE.as_secs()
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

/// Why a whole request was refused. The text is the body; nothing that was sent is repeated in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("The API takes POST requests only.")]
    OnlyPost,
    #[error("There is no such method in this API.")]
    UnknownMethod,
    #[error("Bad Request: the path has two slashes in a row; the API takes one, as in /api/publish.")]
    EmptyPart,
    #[error(
        "Unauthorized: no key is configured, so the API is closed. Set api.keys, \
         or try things out with 'fanwire serve --dev'."
    )]
    NoKeys,
    #[error(
        "Unauthorized: the request has no key. Send one of api.keys as 'X-API-Key: KEY', \
         as 'Authorization: apikey KEY' or as '?api_key=KEY'."
    )]
    NoKey,
    #[error("Unauthorized: the request's key is none of api.keys.")]
    WrongKey,
    #[error(transparent)]
    Foreign(Foreign),
    #[error("Bad Request: {0}.")]
    Malformed(Cow<'static, str>),
    #[error("The body is longer than {0} bytes, the limit that api.body_bytes_max sets.")]
    TooLong(usize),
    #[error("There are more than {0} commands, the limit that api.commands_max sets.")]
    TooMany(usize),
    #[error("The body did not arrive within {} seconds.", .0.as_secs())]
    TooSlow(Duration),
}

impl Refusal {
    /// A body that has to be one object and is not, or has a field that cannot be read.
    pub(super) fn malformed(error: FieldError) -> Self {
        Self::Malformed(error.to_string().into())
    }

    /// One of several commands that cannot be read. Its place in the body is not known, but its number is.
    pub(super) fn malformed_command(number: usize, error: FieldError) -> Self {
        Self::Malformed(format!("command {number}: {}", error.why).into())
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::OnlyPost => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownMethod => StatusCode::NOT_FOUND,
            Self::NoKeys | Self::NoKey | Self::WrongKey => StatusCode::UNAUTHORIZED,
            Self::Foreign(_) => StatusCode::FORBIDDEN,
            Self::EmptyPart | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooLong(_) | Self::TooMany(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
        }
    }

    pub(super) fn into_answer(self) -> HttpResponse {
        let mut answer = text(self.status(), self.to_string());
        let header = match self.status() {
            StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "POST")),
            // RFC 9110 section 11.6.1 asks for it with every 401.
            StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "apikey")),
            _ => None,
        };
        if let Some((name, value)) = header {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
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

    #[test]
    fn refusals_say_what_to_change_and_how() {
        let answer = Refusal::OnlyPost.into_answer();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["allow"]),
            (405, &HeaderValue::from_static("POST"))
        );
        for refusal in [Refusal::NoKeys, Refusal::NoKey, Refusal::WrongKey] {
            assert!(refusal.to_string().contains("api.keys"), "{refusal}");
            let answer = refusal.into_answer();
            assert_eq!(answer.status(), 401);
            assert_eq!(answer.headers()["www-authenticate"], "apikey");
        }
        assert!(Refusal::NoKeys.to_string().contains("fanwire serve --dev"));
        assert_eq!(Refusal::TooLong(10).status(), 413);
        assert!(Refusal::TooLong(10).to_string().contains("10 bytes, the limit that api.body_bytes_max"));
        assert_eq!(Refusal::TooMany(7).status(), 413);
        assert!(Refusal::TooMany(7).to_string().contains("7 commands, the limit that api.commands_max"));
        assert_eq!(Refusal::Malformed("x".into()).status(), 400);
        assert_eq!(
            Refusal::TooSlow(Duration::from_secs(3)).to_string(),
            "The body did not arrive within 3 seconds."
        );
    }
}
