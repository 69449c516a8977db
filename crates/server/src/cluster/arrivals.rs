//! From the engine's connection to where events belong: the owner of their topic, or the cluster.
//!
//! This runs on the connection's own task for one event after the other, and never waits. A shard that is too far
//! behind is spared: a publication that is kept counts as missed, which its owner repairs; one that is not is dropped.

use std::sync::Arc;

use fanwire_broker::{Deliver, Event};
use tokio::sync::{Notify, mpsc};

use super::control::Arrivals;
use super::{ANSWERS, CONTROL};
use crate::inbox::{Inboxes, Message};

/// Other nodes' calls that wait to be done, and answers that wait to be taken. Beyond it calls are read from what is
/// kept, and answers count as none.
const WAITING_MAX: usize = 10_000;

/// What the engine is to call, and where events of the cluster's own topics arrive.
pub(super) fn deliver(inboxes: Inboxes) -> (Deliver, Arrivals) {
    let (call, calls) = mpsc::channel(WAITING_MAX);
    let (answer, answers) = mpsc::channel(WAITING_MAX);
    let missed = Arc::new(Notify::new());
    let arrivals = Arrivals { calls, missed: missed.clone(), answers };
    let deliver = move |event: Event| {
        let topic = event.topic().as_str();
        if topic == CONTROL {
            if call.try_send(event).is_err() {
                missed.notify_one();
            }
        } else if topic.starts_with(ANSWERS) {
            if let Event::Publication { publication, .. } = event {
                let _ = answer.try_send(publication);
            }
        } else {
            to_owner(&inboxes, event);
        }
    };
    (Arc::new(deliver), arrivals)
}

fn to_owner(inboxes: &Inboxes, event: Event) {
    let inbox = inboxes.of(event.topic().as_str());
    if !inbox.is_full() || matches!(event, Event::Interrupted { .. }) {
        return inbox.send(Message::Event(event));
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
    use fanwire_protocol::{Epoch, Publication, TopicName};

    use super::*;
    use crate::inbox::Inbox;

    fn publication(topic: &str, offset: u64, bytes: usize) -> Event {
        let publication = Publication { data: Bytes::from(vec![0; bytes]), info: None, tags: None, offset };
        let epoch = (offset > 0).then(|| Epoch::parse(b"epoch000").unwrap());
        Event::Publication { topic: TopicName::new(topic).unwrap(), publication: publication.into(), epoch }
    }

    #[test]
    fn a_shard_that_is_behind_learns_of_each_topic_that_it_missed_however_often() {
        let (inbox, mut outlet) = Inbox::new();
        let (deliver, _arrivals) = deliver(Inboxes::new(vec![inbox.clone()]));
        let full = || publication("other", 1, Inbox::WAITING_BYTES_MAX);
        for round in 0..3 {
            deliver(full());
            for offset in 2..10 {
                deliver(publication("a", offset, 1));
                deliver(publication("live", 0, 1));
            }
            assert_eq!(inbox.overruns(), (round + 1) * 16);
            let mut told = 0;
            while let Some(message) = outlet.try_receive() {
                told += usize::from(matches!(message, Message::Missed));
            }
            assert_eq!(told, 1);
            assert_eq!(inbox.take_missed(), [TopicName::new("a").unwrap()].into());
        }
        deliver(publication("a", 10, 1));
        assert!(matches!(outlet.try_receive(), Some(Message::Event(Event::Publication { .. }))));
    }

    #[tokio::test]
    async fn the_clusters_own_topics_are_no_shards() {
        let (inbox, mut outlet) = Inbox::new();
        let (deliver, mut arrivals) = deliver(Inboxes::new(vec![inbox]));
        deliver(publication("!control", 1, 1));
        deliver(publication("!node:1", 0, 1));
        assert!(outlet.try_receive().is_none());
        assert!(arrivals.calls.try_recv().is_ok());
        assert!(arrivals.answers.try_recv().is_ok());
        for offset in 2..20_000 {
            deliver(publication("!control", offset, 1));
        }
        arrivals.missed.notified().await;
    }
}
