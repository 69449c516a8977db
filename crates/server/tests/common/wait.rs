//! Waiting for something, but not for ever.

use std::future::Future;
use std::time::Duration;

/// Far above what anything here takes, since a machine may be busy with other tests.
const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at a condition that nothing announces.
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Looks again and again until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
}
