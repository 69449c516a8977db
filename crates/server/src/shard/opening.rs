//! The opening of a connection that its session decides: the response to the HTTP request waits for the answers to the first
//! requests, and everything else waits for the response.

use bytes::Bytes;
use fanwire_protocol::reason::{Close, CloseReason, RequestError};
use fanwire_protocol::reply::Reply;
use fanwire_protocol::wire::Wire;

use crate::transport::{Decided, OpeningRefusal, RefusalResponse};

/// A response that is not decided yet.
#[derive(Debug)]
pub(super) struct Undecided {
    decided: Box<Decided>,
    /// First requests without an answer.
    unanswered: usize,
    /// The id of the one that the session was given last.
    asked: u32,
    /// The time at which the client has waited for long enough.
    until_millis: u64,
}

/// The consequence of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// More answers are needed.
    Open,
    Accepted,
    /// The connection ends with this response.
    Refused(RefusalResponse),
    /// The client may come back: the connection ends as others do.
    Closed(CloseReason),
}

impl Undecided {
    pub(super) fn new(decided: Box<Decided>, requests: usize, until_millis: u64) -> Self {
        Self { decided, unanswered: requests, asked: 0, until_millis }
    }

    /// Returns the time at which the connection closes if nothing is decided before.
    pub(super) fn deadline(&self) -> u64 {
        self.until_millis
    }

    /// Notes that the session is given the first request of this id.
    pub(super) fn asks(&mut self, id: u32) {
        self.asked = id;
    }

    /// Takes the reply to a first request. A topic that is subscribed already, by the connection token say, is granted;
    /// `is_subscribed` tells for sure, since the subscription of somebody else that is on its way may fail.
    pub(super) fn answered(&mut self, reply: &Reply, is_subscribed: impl FnOnce(&str) -> bool) -> Decision {
        match &reply.result {
            Err(refused) if refused.error.is_temporary() => Decision::Closed(match refused.error {
                RequestError::TooManyRequests => CloseReason::TooManyRequests,
                _ => CloseReason::ServerError,
            }),
            Err(refused) if refused.error == RequestError::AlreadySubscribed => {
                match self.decided.topic(reply.id).is_some_and(is_subscribed) {
                    true => self.granted(),
                    false => Decision::Closed(CloseReason::ServerError),
                }
            }
            Err(refused) => Decision::Refused(self.refused(&OpeningRefusal::Reply(reply.id, refused))),
            Ok(_) => self.granted(),
        }
    }

    fn granted(&mut self) -> Decision {
        debug_assert!(self.unanswered > 0, "each first request has one reply");
        self.unanswered = self.unanswered.saturating_sub(1);
        if self.unanswered == 0 { Decision::Accepted } else { Decision::Open }
    }

    /// Returns the response that begins what the client asked for.
    pub(super) fn accepted(self) -> Bytes {
        self.decided.accepted
    }

    /// Returns the last bytes of a connection that closes before it is decided, or the response that refuses it.
    pub(super) fn closed(self, wire: Wire, close: &Close) -> Result<Bytes, RefusalResponse> {
        if close.reason.reconnects() {
            // A client that gets a status does not come back. One whose stream ends does.
            return Ok([&*self.decided.accepted, &*wire.goodbye(close)].concat().into());
        }
        Err(self.refused(&OpeningRefusal::Close(self.asked, close)))
    }

    fn refused(&self, refusal: &OpeningRefusal<'_>) -> RefusalResponse {
        (self.decided.refused)(&self.decided, refusal)
    }
}

#[cfg(test)]
mod tests {
    use fanwire_protocol::reason::{Mistake, Refused};
    use fanwire_protocol::reply::{Outcome, Subscribed};
    use hyper::StatusCode;

    use super::*;

    fn response(text: &str) -> RefusalResponse {
        let bytes = text.to_owned().into();
        RefusalResponse { bytes, status: StatusCode::FORBIDDEN, code: 103, reason: String::new() }
    }

    fn undecided(requests: usize) -> Undecided {
        fn refused(_: &Decided, refusal: &OpeningRefusal<'_>) -> RefusalResponse {
            match refusal {
                OpeningRefusal::Reply(id, _) => response(&format!("refused by the reply to {id}")),
                OpeningRefusal::Close(id, _) => response(&format!("refused by a close at {id}")),
            }
        }
        let accepted = Bytes::from_static(b"accepted ");
        let topics = vec!["a".into(), "b".into()];
        let decided = Decided { accepted, refused, headers: Bytes::new(), topics };
        Undecided::new(Box::new(decided), requests, u64::MAX)
    }

    fn answer(undecided: &mut Undecided, id: u32, result: Result<(), Refused>) -> Decision {
        let result = result.map(|()| Outcome::Subscribed(Subscribed::default()));
        undecided.answered(&Reply { id, result }, |topic| topic == "a")
    }

    #[test]
    fn a_stream_begins_once_all_is_granted() {
        let mut undecided = undecided(3);
        assert_eq!(answer(&mut undecided, 1, Ok(())), Decision::Open);
        assert_eq!(answer(&mut undecided, 3, Ok(())), Decision::Open);
        let granted_by_token = Err(RequestError::AlreadySubscribed.into());
        assert_eq!(answer(&mut undecided, 2, granted_by_token), Decision::Accepted);
        assert_eq!(undecided.accepted(), "accepted ");
    }

    #[test]
    fn a_subscription_of_somebody_else_on_its_way_grants_nothing() {
        let mut undecided = undecided(3);
        let somebody_else_asked = Err(RequestError::AlreadySubscribed.into());
        assert_eq!(
            answer(&mut undecided, 3, somebody_else_asked),
            Decision::Closed(CloseReason::ServerError)
        );
    }

    #[test]
    fn what_lasts_is_refused_and_what_passes_ends_a_stream_that_began() {
        let reply = |refused| answer(&mut undecided(2), 2, Err(refused));
        for lasting in [RequestError::PermissionDenied.into(), Refused::from(Mistake::NoTopic)] {
            assert_eq!(reply(lasting), Decision::Refused(response("refused by the reply to 2")));
        }
        for (passing, reason) in [
            (RequestError::Internal, CloseReason::ServerError),
            (RequestError::TooManyRequests, CloseReason::TooManyRequests),
        ] {
            assert_eq!(reply(passing.into()), Decision::Closed(reason));
        }

        let close = |reason: CloseReason| {
            let mut undecided = undecided(2);
            undecided.asks(2);
            undecided.closed(Wire::Events, &reason.into())
        };
        for lasting in [CloseReason::InvalidToken, CloseReason::ByApplication(4500)] {
            assert_eq!(close(lasting), Err(response("refused by a close at 2")));
        }
        for passing in [CloseReason::Shutdown, CloseReason::ConnectionLimitUnconfirmed] {
            let last = close(passing).unwrap();
            assert!(last.starts_with(b"accepted event: disconnect\n"), "{last:?}");
            assert!(last.ends_with(b"\"reconnect\":true}\n\n"), "{last:?}");
        }
    }
}
