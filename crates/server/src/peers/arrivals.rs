//! Sends the events of the engine on: to the owner of their topic, or to the cluster.
//!
//! This runs on the connection's own task, for one event after the other, and never waits. A shard whose fan-out is full
//! gets no publication: one that is kept counts as missed, and its owner repairs that; any other is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fanwire_broker::{Deliver, Event};
use fanwire_protocol::Publication;
use tokio::sync::Notify;

use super::letter;
use super::names::{ANSWERS, CONTROL};
use super::queue::{Receiver, queue};
use crate::inbox::Inboxes;
use crate::message::ShardMessage;

/// The messages for the cluster itself.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// Events of `!control`.
    pub calls: Receiver<Event>,
    /// Notified when some of them did not fit.
    pub missed: Arc<Notify>,
    pub answers: Receiver<Arc<Publication>>,
    pub letters: Receiver<Arc<Publication>>,
    /// Counts the answers and letters that did not fit.
    pub dropped: Arc<AtomicU64>,
}

/// The bound on waiting calls of other nodes, in bytes. Beyond it orders are read from their stream, and questions are
/// dropped.
const CALLS_BYTES_MAX: usize = 16 << 20;

/// The bound on waiting answers of other nodes, in bytes. Further answers are dropped.
const ANSWERS_BYTES_MAX: usize = 32 << 20;

/// The bound on waiting letters of other nodes, in bytes. Further ones are dropped: their senders get no answer.
const LETTERS_BYTES_MAX: usize = 32 << 20;

/// The bytes that an event counts for beside its content.
const EVENT_BYTES: usize = 256;

/// Returns the function for the engine to call, and the receivers of the cluster's own topics.
pub(super) fn deliver(inboxes: Inboxes) -> (Deliver, Arrivals) {
    let (call, calls) = queue(CALLS_BYTES_MAX);
    let (answer, answers) = queue(ANSWERS_BYTES_MAX);
    let (letter, letters) = queue(LETTERS_BYTES_MAX);
    let missed = Arc::new(Notify::new());
    let dropped = Arc::<AtomicU64>::default();
    let arrivals = Arrivals { calls, missed: missed.clone(), answers, letters, dropped: dropped.clone() };
    let deliver = move |event: Event| {
        let topic = event.topic().as_str();
        if topic == CONTROL {
            let bytes = bytes(&event);
            if !call.try_send(event, bytes) {
                missed.notify_one();
            }
        } else if topic.starts_with(ANSWERS) {
            let bytes = bytes(&event);
            if let Event::Publication { publication, .. } = event {
                let is_letter = publication.data.first() == Some(&letter::MARK);
                let queue = if is_letter { &letter } else { &answer };
                if !queue.try_send(publication, bytes) {
                    dropped.fetch_add(1, Relaxed);
                }
            }
        } else {
            to_owner(&inboxes, event);
        }
    };
    (Arc::new(deliver), arrivals)
}

fn bytes(event: &Event) -> usize {
    let carried = match event {
        Event::Publication { publication, .. } => publication.answer_bytes(),
        Event::Join { info, .. } | Event::Leave { info, .. } => info.answer_bytes(),
        Event::Gap { .. } => 0,
    };
    EVENT_BYTES + carried
}

fn to_owner(inboxes: &Inboxes, event: Event) {
    let inbox = inboxes.of_topic(event.topic());
    if !inbox.is_fanout_full() || matches!(event, Event::Gap { .. }) {
        return inbox.send(ShardMessage::Event(event));
    }
    let kept = match event {
        Event::Publication { topic, epoch: Some(_), .. } => Some(topic),
        _ => None,
    };
    inbox.overrun(kept);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanwire_protocol::{ANSWER_OVERHEAD_BYTES, Epoch, TopicName};

    use super::*;
    use crate::inbox::Inbox;

    fn publication(topic: &str, offset: u64, bytes: usize) -> Event {
        let publication = Publication { data: Bytes::from(vec![0; bytes]), offset, ..Publication::default() };
        let epoch = (offset > 0).then(|| Epoch::parse(b"epoch000").unwrap());
        Event::Publication { topic: TopicName::new(topic).unwrap(), publication: publication.into(), epoch }
    }

    #[test]
    fn a_shard_that_is_behind_learns_of_each_topic_that_it_missed_however_often() {
        let (inboxes, mut receivers) = Inboxes::new(1);
        let (inbox, receiver) = (inboxes.all[0].clone(), &mut receivers[0]);
        let (deliver, _arrivals) = deliver(inboxes);
        let full = || publication("other", 1, Inbox::WAITING_BYTES_MAX);
        for round in 0..3 {
            deliver(full());
            for offset in 2..10 {
                deliver(publication("a", offset, 1));
                deliver(publication("live", 0, 1));
            }
            assert_eq!(inbox.overruns(), (round + 1) * 16);
            let mut told = 0;
            while let Some(message) = receiver.try_receive() {
                told += usize::from(matches!(message, ShardMessage::GapsNoted));
            }
            assert_eq!(told, 1);
            assert_eq!(inbox.take_missed(), [TopicName::new("a").unwrap()].into());
        }
        deliver(publication("a", 10, 1));
        assert!(matches!(receiver.try_receive(), Some(ShardMessage::Event(Event::Publication { .. }))));
    }

    #[tokio::test]
    async fn the_clusters_own_topics_are_no_shards() {
        let (inboxes, mut receivers) = Inboxes::new(1);
        let (deliver, mut arrivals) = deliver(inboxes);
        deliver(publication("!control", 1, 1));
        deliver(publication("!node:1", 0, 1));
        let letter = Publication { data: vec![letter::MARK, 2].into(), ..Publication::default() };
        let topic = TopicName::new("!node:1").unwrap();
        deliver(Event::Publication { topic, publication: letter.into(), epoch: None });
        drop(deliver);
        assert!(receivers[0].try_receive().is_none());
        assert!(arrivals.calls.receive().await.is_some());
        assert!(arrivals.answers.receive().await.is_some());
        assert!(arrivals.answers.receive().await.is_none());
        assert!(arrivals.letters.receive().await.is_some());
    }

    #[tokio::test]
    async fn what_waits_for_the_cluster_is_bounded_in_bytes() {
        const CALL_BYTES: usize = 64 << 10;
        const ANSWER_BYTES: usize = 4 << 20;
        let (inboxes, _receivers) = Inboxes::new(1);
        let (deliver, arrivals) = deliver(inboxes);
        let Arrivals { mut calls, missed, mut answers, letters: _, dropped } = arrivals;
        for offset in 1..=1000 {
            deliver(publication("!control", offset, CALL_BYTES));
        }
        for _ in 0..50 {
            deliver(publication("!node:1", 0, ANSWER_BYTES));
        }
        missed.notified().await;
        // When the others have gone, all that waits is there.
        drop(deliver);
        let (mut calls_waited, mut answers_waited) = (0, 0);
        while calls.receive().await.is_some() {
            calls_waited += 1;
        }
        while answers.receive().await.is_some() {
            answers_waited += 1;
        }
        let each = |data: usize| data + EVENT_BYTES + ANSWER_OVERHEAD_BYTES;
        assert_eq!(calls_waited, CALLS_BYTES_MAX / each(CALL_BYTES));
        assert_eq!(answers_waited, ANSWERS_BYTES_MAX / each(ANSWER_BYTES));
        assert_eq!(dropped.load(Relaxed), 50 - answers_waited as u64);
    }
}
