//! Doing many things at the same time, but not too many.

use std::future::Future;

use tokio::task::JoinSet;

/// Runs futures side by side, at most `width` at once, and returns what they return, in their order. They start in
/// their order too; those that have not ended are aborted when the caller goes away.
pub(super) async fn side_by_side<I>(width: usize, futures: I) -> Vec<<I::Item as Future>::Output>
where
    I: IntoIterator<Item: Future<Output: Send> + Send + 'static>,
{
    let mut waiting = futures.into_iter().enumerate();
    let mut running = JoinSet::new();
    let mut results = Vec::new();
    loop {
        while running.len() < width
            && let Some((place, future)) = waiting.next()
        {
            results.push(None);
            running.spawn(async move { (place, future.await) });
        }
        match running.join_next().await {
            Some(Ok((place, result))) => results[place] = Some(result),
            Some(Err(error)) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
            // Every place has its result by now.
            None => return results.into_iter().flatten().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[tokio::test]
    async fn results_keep_their_order_and_the_width_is_kept() {
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let futures = (0..100_usize).map(|number| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Relaxed) + 1, Relaxed);
                // The later one began, the sooner it ends.
                for _ in 0..100 - number {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Relaxed);
                number
            }
        });
        assert_eq!(side_by_side(7, futures).await, (0..100).collect::<Vec<_>>());
        assert_eq!(most.load(Relaxed), 7);
        assert!(side_by_side(7, std::iter::empty::<std::future::Ready<()>>()).await.is_empty());
    }
}
