//! The refusal of a whole request, before its commands.

use std::borrow::Cow;
use std::time::Duration;

use fanwire_protocol::json::fields::FieldError;
use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};

use crate::accept::cross_site::CrossSite;
use crate::body::BodyError;
use crate::response::{HttpResponse, text};

/// The text is the body of the response. It repeats nothing of the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HttpRefusal {
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
    CrossSite(CrossSite),
    #[error("Bad Request: {0}.")]
    Malformed(Cow<'static, str>),
    #[error("The body is longer than {0} bytes, the limit that api.body_bytes_max sets.")]
    TooLong(usize),
    #[error("There are more than {0} commands, the limit that api.commands_max sets.")]
    TooMany(usize),
    #[error("The body did not arrive within {} seconds.", .0.as_secs())]
    TooSlow(Duration),
}

impl HttpRefusal {
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
            Self::CrossSite(_) => StatusCode::FORBIDDEN,
            Self::EmptyPart | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooLong(_) | Self::TooMany(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
        }
    }

    pub(super) fn into_response(self) -> HttpResponse {
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

impl From<BodyError> for HttpRefusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLong(bytes_max) => Self::TooLong(bytes_max),
            BodyError::TooSlow(timeout) => Self::TooSlow(timeout),
            BodyError::Broken => Self::Malformed("the body ended too early".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_change_and_how() {
        let answer = HttpRefusal::OnlyPost.into_response();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["allow"]),
            (405, &HeaderValue::from_static("POST"))
        );
        for refusal in [HttpRefusal::NoKeys, HttpRefusal::NoKey, HttpRefusal::WrongKey] {
            assert!(refusal.to_string().contains("api.keys"), "{refusal}");
            let answer = refusal.into_response();
            assert_eq!(answer.status(), 401);
            assert_eq!(answer.headers()["www-authenticate"], "apikey");
        }
        assert!(HttpRefusal::NoKeys.to_string().contains("fanwire serve --dev"));
        assert_eq!(HttpRefusal::TooLong(10).status(), 413);
        assert!(HttpRefusal::TooLong(10).to_string().contains("10 bytes, the limit that api.body_bytes_max"));
        assert_eq!(HttpRefusal::TooMany(7).status(), 413);
        assert!(HttpRefusal::TooMany(7).to_string().contains("7 commands, the limit that api.commands_max"));
        assert_eq!(HttpRefusal::Malformed("x".into()).status(), 400);
        assert_eq!(
            HttpRefusal::TooSlow(Duration::from_secs(3)).to_string(),
            "The body did not arrive within 3 seconds."
        );
    }
}
