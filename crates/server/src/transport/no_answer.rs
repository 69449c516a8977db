//! The reasons for which a call of a client to its session has no answer. The client may call again.

use fanwire_protocol::reason::RequestError;
use hyper::StatusCode;

use super::Gate;
use crate::message::Unreachable;
use crate::response::{HttpResponse, later_with};

#[derive(Clone, Copy, Debug)]
pub(crate) struct NoAnswer {
    pub status: StatusCode,
    pub error: RequestError,
    pub sentence: &'static str,
}

impl NoAnswer {
    /// The session, or its node, is not to be had just now.
    pub(crate) const fn unavailable(sentence: &'static str) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: RequestError::Internal, sentence }
    }

    /// There are too many calls, of all clients or of this one.
    pub(crate) const fn too_many(sentence: &'static str) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: RequestError::TooManyRequests, sentence }
    }

    /// The client asks too often.
    pub(crate) const TOO_OFTEN: Self = Self {
        status: StatusCode::TOO_MANY_REQUESTS,
        error: RequestError::TooManyRequests,
        sentence: "More requests than client.commands_per_second_max, or those of the user than \
                   client.user_commands_per_second_max. Ask less often.",
    };

    /// Returns the response of an address whose refusals are plain text.
    pub(super) fn in_words(&self) -> HttpResponse {
        later_with(self.status, self.sentence)
    }

    /// Counts a call that the session's node has no room for.
    pub(super) fn busy(gate: &Gate) -> Self {
        gate.node.counters[gate.shard].session_calls.busy.add(1);
        Self::too_many("The session's node has too much before it.")
    }

    /// Counts a call that does not reach its session. Returns `None` if there is no such session.
    pub(super) fn unreachable(gate: &Gate, why: Unreachable) -> Option<Self> {
        let calls = &gate.node.counters[gate.shard].session_calls;
        let (counter, no_answer) = match why {
            Unreachable::TooMuch => (
                &calls.busy,
                Some(Self::too_many(
                    "Clients of this address have sent too much to sessions of other nodes: \
                     server.forwarded_bytes_per_second_max.",
                )),
            ),
            Unreachable::NoSession => (&calls.from_shards.gone, None),
            Unreachable::Late => {
                (&calls.late, Some(Self::unavailable("The session's node does not answer.")))
            }
            Unreachable::Redis => (
                &calls.unreachable,
                Some(Self::unavailable("Redis does not answer, over which the session's node is asked.")),
            ),
        };
        counter.add(1);
        no_answer
    }
}
