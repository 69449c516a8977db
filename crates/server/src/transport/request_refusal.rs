//! The refusal of a request that opens no connection for a client.

use fanwire_hub::session::Denial;
use fanwire_protocol::plain::bare;
use fanwire_protocol::reason::{Mistake, Refused, RequestError};
use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};

use super::subscribe::refusal::StreamRefusal;
use crate::message::RateExceeded;
use crate::response::{HttpResponse, respond};

#[derive(Debug)]
pub(super) struct RequestRefusal(StatusCode, StreamRefusal);

impl RequestRefusal {
    pub(super) fn new(refusal: StreamRefusal) -> Self {
        Self(refusal.status(), refusal)
    }

    pub(super) fn of(refused: &Refused) -> Self {
        let refusal = StreamRefusal::new(refused.error, bare::sentence(refused));
        match refused.is_temporary() {
            true => Self(StatusCode::SERVICE_UNAVAILABLE, refusal),
            false => Self::new(refusal),
        }
    }

    pub(super) fn mistake(mistake: Mistake) -> Self {
        Self::of(&mistake.into())
    }

    /// The client has made too many requests for the time being.
    pub(super) fn too_many(exceeded: RateExceeded) -> Self {
        let why = format!("too many requests of the user, or of this address: {}", exceeded.setting());
        let refusal = StreamRefusal::new(RequestError::TooManyRequests, why);
        Self(StatusCode::TOO_MANY_REQUESTS, refusal)
    }

    /// It took too long.
    pub(super) fn late(why: &str) -> Self {
        Self::new(StreamRefusal::new(RequestError::Internal, why))
    }

    /// The number of its error.
    pub(super) fn number(&self) -> u32 {
        self.1.number()
    }

    pub(super) fn into_response(self) -> HttpResponse {
        let Self(status, refusal) = self;
        let mut response = respond(status, "application/json", refusal.body().into());
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Denial> for RequestRefusal {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Reply(refused) => match refused.error {
                RequestError::TokenExpired | RequestError::Expired => {
                    Self::new(StreamRefusal::of_reply(&refused))
                }
                _ => Self::of(&refused),
            },
            Denial::Close(close) => Self::new(StreamRefusal::of_close(&close)),
            Denial::UnfitAnswer(_) => Self::of(&RequestError::Internal.into()),
        }
    }
}
