//! The opening of a connection that its session decides: the response to the HTTP request waits for the answers to the first
//! requests, and everything else waits for the response.

use bytes::Bytes;
use fanwire_protocol::reason::{Close, CloseReason, RequestError};
use fanwire_protocol::reply::{Outcome, Push, Reply};
use fanwire_protocol::wire::Wire;
use fanwire_protocol::{Cursor, TopicName};

use super::beginning::Beginning;
use crate::transport::{OpeningRefusal, RefusalResponse, Responses};

/// A response that is not decided yet.
#[derive(Debug)]
pub(super) struct Undecided {
    responses: Box<Responses>,
    /// First requests without an answer.
    unanswered: usize,
    /// The id of the one that the session was given last.
    asked: u32,
    /// The time at which the client has waited for long enough.
    until_millis: u64,
    pub(super) beginning: Beginning,
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
    pub(super) fn new(responses: Box<Responses>, requests: usize, until_millis: u64) -> Self {
        Self { responses, unanswered: requests, asked: 0, until_millis, beginning: Beginning::default() }
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
    pub(super) fn answered(
        &mut self,
        wire: Wire,
        reply: &Reply,
        is_subscribed: impl FnOnce(&str) -> bool,
    ) -> Decision {
        match &reply.result {
            Err(refused) if refused.is_temporary() => Decision::Closed(match refused.error {
                RequestError::TooManyRequests => CloseReason::TooManyRequests,
                _ => CloseReason::ServerError,
            }),
            Err(refused) if refused.error == RequestError::AlreadySubscribed => {
                match self.responses.topic(reply.id).is_some_and(is_subscribed) {
                    true => self.granted(wire),
                    false => Decision::Closed(CloseReason::ServerError),
                }
            }
            Err(refused) => Decision::Refused(self.refused(&OpeningRefusal::Reply(reply.id, refused))),
            Ok(outcome) => {
                let resume = self.responses.resume.as_ref();
                match outcome {
                    Outcome::Connected(connected) => {
                        for (topic, subscribed) in &connected.topics {
                            self.beginning.grant(topic, subscribed, resume);
                        }
                    }
                    Outcome::Subscribed(subscribed) => {
                        if let Some(topic) = self.responses.topic(reply.id).and_then(TopicName::new) {
                            self.beginning.grant(&topic, subscribed, resume);
                        }
                    }
                    _ => {}
                }
                self.granted(wire)
            }
        }
    }

    fn granted(&mut self, wire: Wire) -> Decision {
        debug_assert!(self.unanswered > 0, "each first request has one reply");
        self.unanswered = self.unanswered.saturating_sub(1);
        if self.unanswered > 0 {
            Decision::Open
        } else if !self.beginning.has_topics() {
            Decision::Refused(self.refused(&OpeningRefusal::NoTopic))
        } else if wire.tells_cursors() && self.beginning.positions() > Cursor::TOPICS_MAX {
            Decision::Refused(self.refused(&OpeningRefusal::TooManyPositions))
        } else {
            Decision::Accepted
        }
    }

    /// Keeps a push that is about the beginning. Returns false for one that is not.
    pub(super) fn keep_push(&mut self, push: &Push) -> bool {
        match push {
            Push::Subscribed { topic, subscription } => {
                self.beginning.grant(topic, subscription, self.responses.resume.as_ref());
                true
            }
            // The subscription told of it already.
            Push::Publication { .. } => true,
            _ => false,
        }
    }

    /// Returns the response that begins what the client asked for, with all that its topics brought before.
    pub(super) fn accepted(self, wire: Wire, has_own_cursor: bool) -> Bytes {
        let mut bytes = Vec::from(self.responses.accepted);
        self.beginning.write(wire, has_own_cursor, &mut bytes);
        bytes.into()
    }

    /// Returns the last bytes of a connection that closes before it is decided, or the response that refuses it.
    pub(super) fn closed(self, wire: Wire, close: &Close) -> Result<Bytes, RefusalResponse> {
        if close.reason.reconnects() {
            // A client that gets a status does not come back. One whose stream ends does.
            return Ok([&*self.responses.accepted, &*wire.goodbye(close)].concat().into());
        }
        Err(self.refused(&OpeningRefusal::Close(self.asked, close)))
    }

    fn refused(&self, refusal: &OpeningRefusal<'_>) -> RefusalResponse {
        (self.responses.refused)(&self.responses, refusal)
    }
}

#[cfg(test)]
mod tests {
    use fanwire_protocol::reason::{Mistake, Refused};
    use fanwire_protocol::reply::{Connected, Subscribed};
    use fanwire_protocol::{ClientId, Epoch, Position};
    use hyper::StatusCode;

    use super::*;

    fn response(text: &str) -> RefusalResponse {
        let bytes = text.to_owned().into();
        RefusalResponse { bytes, status: StatusCode::FORBIDDEN, code: 103, reason: String::new() }
    }

    fn undecided(requests: usize) -> Undecided {
        fn refused(_: &Responses, refusal: &OpeningRefusal<'_>) -> RefusalResponse {
            match refusal {
                OpeningRefusal::Reply(id, _) => response(&format!("refused by the reply to {id}")),
                OpeningRefusal::Close(id, _) => response(&format!("refused by a close at {id}")),
                OpeningRefusal::NoTopic => response("refused: no topic"),
                OpeningRefusal::TooManyPositions => response("refused: too many positions"),
            }
        }
        let accepted = Bytes::from_static(b"accepted ");
        let topics = vec!["a".into(), "b".into()];
        let responses = Responses { accepted, refused, headers: Bytes::new(), topics, resume: None };
        Undecided::new(Box::new(responses), requests, u64::MAX)
    }

    fn answer(undecided: &mut Undecided, id: u32, result: Result<(), Refused>) -> Decision {
        let result = result.map(|()| Outcome::Subscribed(Subscribed::default()));
        undecided.answered(Wire::Events, &Reply { id, result }, |topic| topic == "a")
    }

    #[test]
    fn a_stream_begins_once_all_is_granted() {
        let mut undecided = undecided(3);
        assert_eq!(answer(&mut undecided, 1, Ok(())), Decision::Open);
        assert_eq!(answer(&mut undecided, 3, Ok(())), Decision::Open);
        let granted_by_token = Err(RequestError::AlreadySubscribed.into());
        assert_eq!(answer(&mut undecided, 2, granted_by_token), Decision::Accepted);
        let begins = |bytes: &Bytes| bytes.starts_with(b"accepted event: subscribed\n");
        assert!(begins(&undecided.accepted(Wire::Events, false)));
    }

    fn connected(topics: usize) -> Decision {
        let position = Position { epoch: Epoch::from_random(1), offset: 1 };
        let subscribed = Subscribed { positioned: true, top: Some(position), ..Subscribed::default() };
        let topic = |number| TopicName::new(&format!("topic {number}")).unwrap();
        let connected = Connected {
            client: ClientId::parse("00000000-0000-4000-8000-000000000001").unwrap(),
            version: "",
            ttl: None,
            data: Box::default(),
            ping_interval: None,
            pong: false,
            time_millis: None,
            session: None,
            topics: (0..topics).map(|number| (topic(number), subscribed.clone())).collect(),
        };
        let result = Ok(Outcome::Connected(Box::new(connected)));
        undecided(1).answered(Wire::Events, &Reply { id: 1, result }, |_| false)
    }

    #[test]
    fn a_stream_has_topics_and_no_more_than_a_cursor_holds() {
        assert_eq!(connected(0), Decision::Refused(response("refused: no topic")));
        assert_eq!(connected(1), Decision::Accepted);
        assert_eq!(connected(16), Decision::Accepted);
        assert_eq!(connected(17), Decision::Refused(response("refused: too many positions")));
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
        let by_application = |is_temporary| Refused::by_application(1000, String::new(), is_temporary);
        assert_eq!(reply(by_application(true)), Decision::Closed(CloseReason::ServerError));
        for lasting in
            [RequestError::PermissionDenied.into(), Refused::from(Mistake::NoTopic), by_application(false)]
        {
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
