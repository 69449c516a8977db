//! From the engine's connection to where events belong: the owner of their topic, or the cluster.
//!
//! This runs on the connection's own task for one event after the other, and never waits. A shard that is too far
//! behind is spared: a publication that is kept counts as missed, which its owner repairs; one that is not is dropped.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use fanwire_broker::{Deliver, Event};
use fanwire_protocol::TopicName;
use tokio::sync::mpsc;

use super::control::Arrivals;
use crate::inbox::{Inboxes, Message};

/// Other nodes' calls that wait to be done; beyond it they count as missed.
const CALLS_WAITING_MAX: usize = 10_000;

/// What the engine is to call, and where events of the cluster's own topics arrive.
pub(super) fn deliver(inboxes: Inboxes) -> (Deliver, Arrivals) {
    let (calls, arrivals) = mpsc::channel(CALLS_WAITING_MAX);
    let missed = Mutex::new(HashSet::new());
    let deliver = move |event: Event| {
        if event.topic().as_str().starts_with('!') {
            // When it is full the next event shows the hole, and whoever asked has been told that nobody answered.
            let _ = calls.try_send(event);
        } else {
            to_owner(&inboxes, &missed, event);
        }
    };
    (Arc::new(deliver), arrivals)
}

fn to_owner(inboxes: &Inboxes, missed: &Mutex<HashSet<TopicName>>, event: Event) {
    let inbox = inboxes.of(event.topic().as_str());
    let mut missed = missed.lock().unwrap_or_else(PoisonError::into_inner);
    if !inbox.is_full() || matches!(event, Event::Interrupted { .. }) {
        if !missed.is_empty() {
            missed.remove(event.topic());
        }
        return inbox.send(Message::Event(event));
    }
    inbox.count_overrun();
    // Said once for all that is missed of a topic.
    if let Event::Publication { topic, epoch: Some(_), .. } = event
        && missed.insert(topic.clone())
    {
        inbox.send(Message::Event(Event::Interrupted { topic }));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanwire_protocol::{Epoch, Publication};

    use super::*;
    use crate::inbox::Inbox;

    fn publication(topic: &str, offset: u64, bytes: usize) -> Event {
        let publication = Publication { data: Bytes::from(vec![0; bytes]), info: None, tags: None, offset };
        let epoch = (offset > 0).then(|| Epoch::parse(b"epoch000").unwrap());
        Event::Publication { topic: TopicName::new(topic).unwrap(), publication: publication.into(), epoch }
    }

    #[test]
    fn a_shard_that_is_behind_is_told_once_of_each_topic_that_it_missed() {
        let (inbox, mut outlet) = Inbox::new();
        let (deliver, _arrivals) = deliver(Inboxes::new(vec![inbox]));
        deliver(publication("a", 1, Inbox::WAITING_BYTES_MAX));
        for offset in 2..10 {
            deliver(publication("a", offset, 1));
            deliver(publication("live", 0, 1));
        }
        let mut received = Vec::new();
        while let Some(Message::Event(event)) = outlet.try_receive() {
            received.push(event);
        }
        assert_eq!(received.len(), 2);
        assert_eq!(received[1], Event::Interrupted { topic: TopicName::new("a").unwrap() });
        // It has caught up.
        deliver(publication("a", 10, 1));
        assert!(matches!(outlet.try_receive(), Some(Message::Event(Event::Publication { .. }))));
    }

    #[tokio::test]
    async fn the_clusters_own_topics_are_no_shards() {
        let (inbox, mut outlet) = Inbox::new();
        let (deliver, mut arrivals) = deliver(Inboxes::new(vec![inbox]));
        deliver(publication("!control", 1, 1));
        assert!(outlet.try_receive().is_none());
        assert!(arrivals.try_recv().is_ok());
    }
}
