//! The work on outboxes that one node of the cluster does: it delivers events to the webhook, if there is one, says which
//! users are offline and which topics vacated once that is due, and drops what is too old. All that counts is in the
//! outboxes, so another node goes on.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanwire_broker::{EngineError, Outboxes};
use tokio::time::sleep;
use uuid::Uuid;

use super::deliverer::{Deliverer, HasMore};
use super::webhook::Webhook;
use crate::metrics::EventMetrics;

/// The time for which a claim of the work holds, and its renewal. A request to the webhook ends within the rest.
const CLAIM: Duration = Duration::from_secs(12);
const RENEWAL: Duration = Duration::from_secs(4);

/// The interval at which other nodes look whether the work is to be had.
const LOOK: Duration = Duration::from_secs(2);

/// The interval between two looks at the outboxes. It is longer if a look takes long, so that looks are a small part of
/// what Redis does.
const STEP: Duration = Duration::from_millis(100);
const STEP_FACTOR: u32 = 10;

/// The interval between two removals of what is too old.
const TIDYING: Duration = Duration::from_secs(10);

/// The parts that the work needs.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) outboxes: Outboxes,
    pub(super) webhook: Option<Arc<Webhook>>,
    pub(super) metrics: EventMetrics,
    pub(super) worker: Uuid,
}

/// A claim on the work.
struct Claim {
    renewal: Instant,
    end: Instant,
}

impl Claim {
    fn since(asked: Instant) -> Self {
        Self { renewal: asked + RENEWAL, end: asked + CLAIM }
    }
}

impl Work {
    /// Works whenever no other node does, for ever.
    pub(super) async fn run(self) {
        loop {
            let asked = Instant::now();
            if self.claim().await == Ok(true) {
                self.work(Claim::since(asked)).await;
                self.metrics.idle();
            }
            sleep(LOOK).await;
        }
    }

    /// Leaves the work to another node at once.
    pub(super) async fn stop(&self) {
        // Without this the claim ends by itself.
        let _ = self.outboxes.claim(self.worker, Duration::from_millis(1)).await;
    }

    /// Works until the claim is lost.
    async fn work(&self, mut claim: Claim) {
        let webhook = self.webhook.clone();
        let mut deliverer =
            webhook.map(|webhook| Deliverer::new(self.outboxes.clone(), webhook, self.metrics.clone()));
        let mut tidied: Option<Instant> = None;
        loop {
            let looked = Instant::now();
            if looked >= claim.renewal {
                match self.claim().await {
                    Ok(true) => claim = Claim::since(looked),
                    Ok(false) => return,
                    Err(_) if looked >= claim.end => return,
                    // It holds for a while.
                    Err(_) => {}
                }
            }
            note(self.outboxes.say_due().await);
            if tidied.is_none_or(|tidied| tidied.elapsed() >= TIDYING) {
                tidied = Some(looked);
                if let Some(backlog) = note(self.outboxes.tidy().await) {
                    self.metrics.backlog(backlog);
                }
            }
            let has_more = match &mut deliverer {
                Some(deliverer) => note(deliverer.post(claim.end).await) == Some(HasMore::Yes),
                None => false,
            };
            let pause = STEP.max(STEP_FACTOR * looked.elapsed()).min(RENEWAL);
            match &mut deliverer {
                Some(deliverer) => self.wait(deliverer, pause, has_more, claim.end).await,
                None => sleep(pause).await,
            }
        }
    }

    /// Waits for the pause, or for the end of a request if others wait for their turn.
    async fn wait(&self, deliverer: &mut Deliverer, pause: Duration, has_more: bool, until: Instant) {
        let mut pause = pin!(sleep(pause));
        loop {
            tokio::select! {
                () = &mut pause => return,
                ended = deliverer.ended() => {
                    note(deliverer.settle(ended, until).await);
                    if has_more {
                        return;
                    }
                }
            }
        }
    }

    async fn claim(&self) -> Result<bool, EngineError> {
        self.outboxes.claim(self.worker, CLAIM).await
    }
}

/// What could not be done is tried again at the next step.
fn note<T>(result: Result<T, EngineError>) -> Option<T> {
    result.inspect_err(|error| tracing::debug!(%error, "the outboxes could not be worked on")).ok()
}
