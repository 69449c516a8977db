//! Delivers events: reads the outboxes in turn, posts batches, and removes what was taken. Several requests are under way
//! at a time, but an outbox is in one of them, so its events arrive in order.

use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use fanwire_broker::{DeadLetter, EngineError, LogRateLimit, Outboxes};
use tokio::task::{JoinError, JoinSet};

use super::batch::{Batch, BatchLimits, pack};
use super::progress::{Progress, Reply, Verdict};
use super::webhook::Webhook;
use crate::metrics::EventMetrics;

/// The most events that are in memory beside those under way.
const READ_EVENTS_MAX: usize = 10_000;

/// The most outboxes that are read at once.
const READ_OUTBOXES_MAX: usize = 128;

pub(super) struct Deliverer {
    outboxes: Outboxes,
    webhook: Arc<Webhook>,
    metrics: EventMetrics,
    progress: Progress,
    posts: JoinSet<(Post, Reply)>,
    /// The outbox that was read last.
    cursor: u16,
    is_letter_under_way: bool,
    was_failing: bool,
    log_limit: LogRateLimit,
}

/// Events may wait for the end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HasMore {
    Yes,
    No,
}

/// A request under way.
enum Post {
    Batch(Batch),
    Letter(DeadLetter),
}

impl Deliverer {
    pub(super) fn new(outboxes: Outboxes, webhook: Arc<Webhook>, metrics: EventMetrics) -> Self {
        let progress = Progress::new(webhook.settings.attempts_max);
        Self {
            outboxes,
            webhook,
            metrics,
            progress,
            posts: JoinSet::new(),
            cursor: 0,
            is_letter_under_way: false,
            was_failing: false,
            log_limit: LogRateLimit::default(),
        }
    }

    /// Waits for the end of a request; for ever if none is under way. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Ended {
        match self.posts.join_next().await {
            Some(ended) => Ended(ended),
            None => pending().await,
        }
    }

    /// Does what follows from an answer, unless the claim on the work, which ends at `until`, is over.
    pub(super) async fn settle(&mut self, ended: Ended, until: Instant) -> Result<(), EngineError> {
        let (post, reply) = match ended.0 {
            Ok(ended) => ended,
            // A defect, as if it was in this task.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Ok(()),
        };
        let (now, random) = (Instant::now(), rand::random());
        self.metrics.posted(reply.result());
        let is_mine = now < until;
        let result = match post {
            Post::Letter(letter) => {
                self.is_letter_under_way = false;
                let verdict = self.progress.ends_letter(reply, now, random);
                if is_mine { self.settle_letter(&letter, verdict).await } else { Ok(()) }
            }
            Post::Batch(batch) => {
                let verdict = self.progress.ends(&batch, reply, now, random);
                if is_mine { self.settle_batch(&batch, verdict).await } else { Ok(()) }
            }
        };
        let is_failing = self.progress.is_receiver_failing();
        if self.was_failing && !is_failing {
            tracing::info!("the webhook takes events again");
        }
        self.was_failing = is_failing;
        result
    }

    /// Begins as many requests as may be under way before the claim on the work ends.
    pub(super) async fn post(&mut self, until: Instant) -> Result<HasMore, EngineError> {
        let now = Instant::now();
        self.webhook.sweep();
        // An answer that comes after the end of the claim is of no use.
        if now + self.webhook.settings.timeout > until {
            return Ok(HasMore::No);
        }
        let mut room = self.progress.posts_max(now).saturating_sub(self.posts.len());
        if room == 0 {
            return Ok(if self.posts.is_empty() { HasMore::No } else { HasMore::Yes });
        }
        if !self.is_letter_under_way
            && let Some(letter) = self.outboxes.retried(1).await?.pop()
        {
            self.is_letter_under_way = true;
            self.begin(Batch::single(&letter.event), |_| Post::Letter(letter));
            room -= 1;
        }
        let mut slots = self.outboxes.slots().await?;
        slots.retain(|slot| self.progress.is_ready(*slot, now));
        slots.sort_unstable();
        // Each has its turn.
        let next = slots.partition_point(|slot| *slot <= self.cursor);
        slots.rotate_left(next);
        let settings = &self.webhook.settings;
        let limits = BatchLimits { events: settings.batch_events, bytes: settings.batch_bytes };
        let outboxes_max = (READ_EVENTS_MAX / limits.events).clamp(1, READ_OUTBOXES_MAX);
        for some in slots.chunks(outboxes_max) {
            if room == 0 {
                break;
            }
            let events = self.outboxes.read(some, limits.events).await?;
            let mut batches = pack(&events, limits, |slot| self.progress.company(slot));
            batches.truncate(room);
            self.cursor = match batches.last() {
                // Those behind it have not had their turn.
                Some(batch) if batches.len() == room => batch.last.last().map_or(0, |last| last.slot),
                _ => some.last().copied().unwrap_or_default(),
            };
            room -= batches.len();
            for batch in batches {
                self.progress.begins(&batch);
                self.begin(batch, Post::Batch);
            }
        }
        Ok(if room == 0 { HasMore::Yes } else { HasMore::No })
    }

    fn begin(&mut self, batch: Batch, post: impl FnOnce(Batch) -> Post) {
        let (webhook, body) = (self.webhook.clone(), batch.body.clone());
        let post = post(batch);
        self.posts.spawn(async move { (post, webhook.post(body).await) });
    }

    async fn settle_batch(&self, batch: &Batch, verdict: Verdict) -> Result<(), EngineError> {
        match verdict {
            Verdict::Again | Verdict::Alone => return Ok(()),
            Verdict::Delivered => self.metrics.delivered(batch.events),
            Verdict::Dead(refusal) => {
                // Twice rather than never, if this node ends in between.
                self.outboxes.bury(&batch.first, refusal).await?;
                self.metrics.buried();
                let (event, status) = (batch.first.id, refusal.status);
                if self.log_limit.is_due() {
                    tracing::warn!(%event, status, "the webhook refuses an event, which is a dead letter now");
                }
            }
        }
        self.outboxes.remove(&batch.last).await
    }

    async fn settle_letter(&self, letter: &DeadLetter, verdict: Verdict) -> Result<(), EngineError> {
        match verdict {
            Verdict::Again | Verdict::Alone => Ok(()),
            Verdict::Delivered => {
                self.metrics.delivered(1);
                self.outboxes.settle(letter.id, None).await
            }
            Verdict::Dead(mut refusal) => {
                refusal.attempts = refusal.attempts.saturating_add(letter.refusal.attempts);
                self.outboxes.settle(letter.id, Some((&letter.event, refusal))).await
            }
        }
    }
}

/// The end of a request.
pub(super) struct Ended(Result<(Post, Reply), JoinError>);
