//! Refusals: the status and the JSON error of a stream that does not begin.

use std::borrow::Cow;

use fanwire_hub::{NameError, TokenError};
use fanwire_protocol::Cursor;
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::{Close, CloseReason, Detail, Mistake, RefusalDetail, Refused, RequestError};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use serde_json::json;

use crate::response::{HttpResponse, last_response, respond};
use crate::transport::{OpeningRefusal, RefusalResponse, Responses};

/// A refusal before the stream begins, or of a request that begins none.
#[derive(Debug)]
pub(in crate::transport) struct StreamRefusal {
    error: RequestError,
    message: String,
}

impl StreamRefusal {
    pub(in crate::transport) fn new(error: RequestError, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }

    pub(in crate::transport) fn of_reply(refused: &Refused) -> Self {
        let message = match (refused.error, refused.detail.as_deref()) {
            (_, Some(RefusalDetail::Words { text, .. })) => text.into(),
            (_, Some(RefusalDetail::Mistake(mistake))) => sentence(mistake),
            (RequestError::UnknownTopic, None) => NameError::UnknownNamespace.to_string().into(),
            (RequestError::TokenExpired, None) => TokenError::Expired.to_string().into(),
            (RequestError::Expired, None) => "what the token grants has expired".into(),
            (RequestError::LimitExceeded, None) => "more topics than client.subscriptions_max".into(),
            (RequestError::PermissionDenied, None) => "this client may not subscribe to the topic: \
                see allow_subscribe_for_client and allow_subscribe_for_anonymous of its namespace, or send a valid \
                subscription token for it"
                .into(),
            (error, None) => codes::error(error).text.into(),
        };
        Self::new(refused.error, message)
    }

    pub(in crate::transport) fn of_close(close: &Close) -> Self {
        let mistake = match close.detail.as_deref() {
            Some(Detail::Mistake(mistake)) => Some(mistake),
            Some(Detail::Words(_)) | None => None,
        };
        match (close.reason, mistake) {
            (CloseReason::BadRequest, Some(mistake @ Mistake::NoToken)) => {
                let message = sentence(mistake);
                let message = format!("{message}: send ?token=JWT or 'Authorization: Bearer JWT'");
                Self::new(RequestError::Unauthorized, message)
            }
            (CloseReason::BadRequest, Some(mistake)) => {
                Self::new(RequestError::BadRequest, sentence(mistake))
            }
            (CloseReason::TopicLimit, _) => {
                Self::new(RequestError::LimitExceeded, "more topics than client.subscriptions_max")
            }
            (CloseReason::ConnectionLimit, _) => {
                let message = "more connections of the user than client.user_connections_max or \
                    client.personal_topic.single_connection allows, or of the address than \
                    client.address_connections_max";
                Self::new(RequestError::LimitExceeded, message)
            }
            (CloseReason::PermissionDenied, _) => {
                let message = "client.disallow_anonymous_connection_tokens is on and the token names no user";
                Self::new(RequestError::PermissionDenied, message)
            }
            (CloseReason::InvalidToken, Some(_)) => {
                Self::new(RequestError::Unauthorized, codes::close(close).1)
            }
            (CloseReason::InvalidToken, None) => {
                let message =
                    "invalid token: see client.token; 'fanwire token check' says what is wrong with it";
                Self::new(RequestError::Unauthorized, message)
            }
            // The API sent the client away.
            _ => Self::new(RequestError::PermissionDenied, codes::close(close).1),
        }
    }

    pub(in crate::transport) fn status(&self) -> StatusCode {
        match self.error {
            RequestError::Unauthorized | RequestError::TokenExpired | RequestError::Expired => {
                StatusCode::UNAUTHORIZED
            }
            RequestError::PermissionDenied | RequestError::ByApplication(_) => StatusCode::FORBIDDEN,
            RequestError::UnknownTopic => StatusCode::NOT_FOUND,
            error if error.is_temporary() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns the number of the error.
    pub(in crate::transport) fn number(&self) -> u32 {
        codes::error(self.error).number
    }

    pub(in crate::transport) fn body(&self) -> String {
        json!({"error": {"code": self.number(), "message": self.message}}).to_string()
    }
}

/// Returns the response to a request that is refused before any session is asked.
pub(super) fn refuse(refusal: StreamRefusal) -> Box<HttpResponse> {
    Box::new(respond(refusal.status(), "application/json", refusal.body().into()))
}

/// Returns the sentence for a mistake, which may have stood in the query.
fn sentence(mistake: &Mistake) -> Cow<'_, str> {
    match mistake {
        Mistake::TopicName(why) => (&**why).into(),
        mistake => codes::mistake(mistake),
    }
}

/// Returns the response to a request whose stream does not begin. Its sentence ends with the topic, if it is about one.
pub(super) fn refused(responses: &Responses, refusal: &OpeningRefusal<'_>) -> RefusalResponse {
    let (id, mut refusal) = match *refusal {
        OpeningRefusal::Reply(id, refused) => (id, StreamRefusal::of_reply(refused)),
        OpeningRefusal::Close(id, close) => {
            let is_of_request = matches!(close.reason, CloseReason::InvalidToken | CloseReason::BadRequest);
            (if is_of_request { id } else { 0 }, StreamRefusal::of_close(close))
        }
        OpeningRefusal::NoTopic => {
            let message =
                "name at least one topic, as in ?topic=news&topic=weather, or send a token that brings one";
            (0, StreamRefusal::new(RequestError::BadRequest, message))
        }
        OpeningRefusal::TooManyPositions => {
            let message = format!("at most {} topics with history in one stream", Cursor::TOPICS_MAX);
            (0, StreamRefusal::new(RequestError::LimitExceeded, message))
        }
    };
    if let Some(topic) = responses.topic(id) {
        refusal.message = format!("{}: {topic}", refusal.message);
    }
    let (status, body) = (refusal.status(), refusal.body());
    let headers = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    let bytes = last_response(status, "application/json", &headers, &responses.headers, body.as_bytes());
    RefusalResponse { bytes, status, code: refusal.number(), reason: refusal.message }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn responses() -> Responses {
        let headers = Bytes::from_static(b"vary: Origin\r\n");
        Responses {
            accepted: Bytes::new(),
            refused,
            headers,
            topics: vec!["a".into(), "b".into()],
            resume: None,
        }
    }

    /// The status, the code and the sentence.
    fn read(response: &[u8]) -> (u16, u64, String) {
        let response = str::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("\r\nconnection: close\r\n") && head.ends_with("\r\nvary: Origin"), "{head}");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let error = &body["error"];
        (status, error["code"].as_u64().unwrap(), error["message"].as_str().unwrap().to_owned())
    }

    #[test]
    fn the_status_follows_from_the_reason() {
        let token = || Mistake::Token("info is not JSON".into());
        let may_not = "this client may not subscribe to the topic: \
            see allow_subscribe_for_client and allow_subscribe_for_anonymous of its namespace, or send a valid \
            subscription token for it: b";
        let invalid = "invalid token: see client.token; 'fanwire token check' says what is wrong with it";
        let invalid_for_a = format!("{invalid}: a");
        let by_application = Refused::by_application(1000, "the room is full".to_owned(), false);
        let replies: [(Refused, _); 10] = [
            (by_application, (403, 1000, "the room is full: b")),
            (RequestError::Unauthorized.into(), (401, 101, "unauthorized: b")),
            (RequestError::TokenExpired.into(), (401, 109, "the token has expired or is not valid yet: b")),
            (RequestError::Expired.into(), (401, 110, "what the token grants has expired: b")),
            (RequestError::PermissionDenied.into(), (403, 103, may_not)),
            (RequestError::UnknownTopic.into(), (404, 102, "no namespace of this name is configured: b")),
            (RequestError::LimitExceeded.into(), (400, 106, "more topics than client.subscriptions_max: b")),
            (RequestError::NotAvailable.into(), (400, 108, "not available: b")),
            (Mistake::TopicName("too long".into()).into(), (400, 107, "too long: b")),
            (token().into(), (400, 107, "info is not JSON: b")),
        ];
        for (reason, (status, code, message)) in replies {
            let response = refused(&responses(), &OpeningRefusal::Reply(3, &reason));
            assert_eq!(
                (response.status.as_u16(), response.code, &*response.reason),
                (status, code as u32, message)
            );
            assert_eq!(read(&response.bytes), (status, code, message.to_owned()), "{reason:?}");
        }
        let no_token = "no token, and client.allow_anonymous_connect_without_token is off: \
            send ?token=JWT or 'Authorization: Bearer JWT'";
        let too_many = "more connections of the user than client.user_connections_max or \
            client.personal_topic.single_connection allows, or of the address than \
            client.address_connections_max";
        let no_user = "client.disallow_anonymous_connection_tokens is on and the token names no user";
        let by_application = Close::by_application(4500, "not today".to_owned());
        let closes: [(u32, Close, _); 8] = [
            (1, Close::mistake(Mistake::NoToken), (401, 101, no_token)),
            (1, CloseReason::InvalidToken.into(), (401, 101, invalid)),
            (2, CloseReason::InvalidToken.into(), (401, 101, &*invalid_for_a)),
            (1, Close::unfit_token("info is not JSON"), (401, 101, "invalid token: info is not JSON")),
            (1, CloseReason::PermissionDenied.into(), (403, 103, no_user)),
            (1, CloseReason::ConnectionLimit.into(), (400, 106, too_many)),
            (1, CloseReason::TopicLimit.into(), (400, 106, "more topics than client.subscriptions_max")),
            (2, by_application, (403, 103, "not today")),
        ];
        for (id, reason, (status, code, message)) in closes {
            let response = refused(&responses(), &OpeningRefusal::Close(id, &reason));
            assert_eq!(
                (response.status.as_u16(), response.code, &*response.reason),
                (status, code as u32, message)
            );
            assert_eq!(read(&response.bytes), (status, code, message.to_owned()), "{reason:?}");
        }
    }
}
