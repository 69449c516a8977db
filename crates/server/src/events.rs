//! The work on outboxes in Redis that one node of the cluster does: it says which users are offline and which topics
//! vacated once that is due, and drops what is too old. All that it knows is in Redis, so another node goes on.

use std::time::{Duration, Instant};

use fanwire_broker::RedisOutbox;
use uuid::Uuid;

/// The time for which a claim of the work holds, and its renewal.
const CLAIM: Duration = Duration::from_secs(15);
const RENEWAL: Duration = Duration::from_secs(5);

/// The interval at which other nodes look whether the work is to be had.
const LOOK: Duration = Duration::from_secs(2);

/// The interval between two looks for vacancies that are due.
const STEP: Duration = Duration::from_millis(100);

/// The interval between two removals of what is too old.
const TIDYING: Duration = Duration::from_secs(10);

/// Works whenever no other node does, forever.
pub(crate) async fn work(outbox: RedisOutbox, worker: Uuid) {
    loop {
        let asked = Instant::now();
        match outbox.claim(worker, CLAIM).await {
            Ok(true) => work_until(&outbox, asked + RENEWAL).await,
            Ok(false) | Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Leaves the work to another node at once.
pub(crate) async fn stop(outbox: &RedisOutbox, worker: Uuid) {
    // Without this the claim ends by itself.
    let _ = outbox.claim(worker, Duration::from_millis(1)).await;
}

async fn work_until(outbox: &RedisOutbox, end: Instant) {
    let mut tidied: Option<Instant> = None;
    while Instant::now() < end {
        let result = match tidied {
            Some(tidied) if tidied.elapsed() < TIDYING => outbox.say_due().await,
            _ => {
                tidied = Some(Instant::now());
                outbox.tidy().await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "the outboxes could not be worked on");
        }
        tokio::time::sleep(STEP).await;
    }
}
