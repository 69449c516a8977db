//! The bytes that the answer to one request may have: one bound for all of its commands, kept while topics are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanwire_protocol::reason::RequestError;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ApiError;
use super::reply::ApiReply;

/// Commands of one request that read at the same time. Each may read as much as is left, so this is also how many times
/// that much a request can hold.
const READS_AT_ONCE: usize = 4;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct AnswerBudget(Arc<AnswerBudgetShared>);

#[derive(Debug)]
struct AnswerBudgetShared {
    bytes_max: usize,
    left: AtomicUsize,
    reads: Semaphore,
}

impl AnswerBudget {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (left, reads) = (bytes_max.into(), Semaphore::new(READS_AT_ONCE));
        Self(Arc::new(AnswerBudgetShared { bytes_max, left, reads }))
    }

    /// Waits for the turn of a command whose answer may be long. Keep it until [`AnswerBudget::take`].
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.0.reads.acquire().await.ok()
    }

    /// Bytes that the rest of the answer may take.
    pub(super) fn left(&self) -> usize {
        self.0.left.load(Relaxed)
    }

    /// Takes what a reply needs, or refuses it with a sentence that says what to do instead.
    pub(super) fn take(&self, reply: ApiReply, instead: &str) -> ApiReply {
        let reply = reply?;
        let length = reply.get().len();
        match self.0.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(length)) {
            Ok(_) => Ok(reply),
            Err(_) => Err(self.too_long(instead)),
        }
    }

    pub(super) fn too_long(&self, instead: &str) -> ApiError {
        let bytes_max = self.0.bytes_max;
        ApiError::with_sentence(
            RequestError::LimitExceeded,
            format!(
                "the request's answer is longer than {bytes_max} bytes, the limit that api.answer_bytes_max sets; {instead}"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn replies_share_the_room_and_a_short_one_still_fits() {
        let reply = |length: usize| Ok(RawValue::from_string("1".repeat(length)).unwrap());
        let budget = AnswerBudget::new(100);
        assert!(budget.take(reply(60), "ask for less").is_ok());
        let error = budget.clone().take(reply(41), "ask for less").unwrap_err();
        assert_eq!(error.code(), 106);
        let text = serde_json::to_string(&error).unwrap();
        assert!(text.contains("100 bytes") && text.contains("api.answer_bytes_max"), "{text}");
        assert!(text.contains("ask for less"), "{text}");
        assert!(budget.take(reply(40), "ask for less").is_ok());
        assert_eq!(budget.left(), 0);
    }
}
