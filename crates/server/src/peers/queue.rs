//! A queue to a task, bounded in bytes. Sending never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc;

/// Both ends of a queue in which items of `bytes_max` may wait.
pub(super) fn queue<T>(bytes_max: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting_bytes = Arc::<AtomicUsize>::default();
    let sender = Sender { sender, waiting_bytes: waiting_bytes.clone(), bytes_max };
    (sender, Receiver { receiver, waiting_bytes })
}

#[derive(Debug)]
pub(super) struct Sender<T> {
    sender: mpsc::UnboundedSender<(T, usize)>,
    waiting_bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl<T> Sender<T> {
    /// Returns false if there is no room for the item, which counts for so many bytes. An empty queue has room for any.
    pub(super) fn try_send(&self, item: T, bytes: usize) -> bool {
        let has_room = |waiting: usize| {
            let with_item = waiting.saturating_add(bytes);
            (waiting == 0 || with_item <= self.bytes_max).then_some(with_item)
        };
        self.waiting_bytes.fetch_update(Relaxed, Relaxed, has_room).is_ok()
            && self.sender.send((item, bytes)).is_ok()
    }
}

#[derive(Debug)]
pub(crate) struct Receiver<T> {
    receiver: mpsc::UnboundedReceiver<(T, usize)>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl<T> Receiver<T> {
    /// Waits for an item; `None` when the sender has gone. Safe to cancel.
    pub(crate) async fn receive(&mut self) -> Option<T> {
        let (item, bytes) = self.receiver.recv().await?;
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes() {
        let (sender, mut receiver) = queue(100);
        assert!(sender.try_send(1, 60));
        assert!(!sender.try_send(2, 41));
        assert!(sender.try_send(3, 40));
        assert!(!sender.try_send(4, 1));
        assert_eq!(receiver.receive().await, Some(1));
        assert!(sender.try_send(5, 60));
        for item in [3, 5] {
            assert_eq!(receiver.receive().await, Some(item));
        }
        // One that is longer than the bound finds room alone.
        assert!(sender.try_send(6, 1000));
        assert!(!sender.try_send(7, 1));
        assert_eq!(receiver.receive().await, Some(6));
        drop(sender);
        assert_eq!(receiver.receive().await, None);
    }
}
