//! Every shard has one inbox, and all messages to the shard go through it.
//!
//! Messages from one sender arrive in order. A topic's owner therefore sends the answer to a subscribe and the
//! topic's publications through the same inbox, and neither can overtake the other.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use fanwire_protocol::TopicName;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::condition::Condition;
use crate::message::{Address, Holder, SessionAnswer, ShardMessage};

/// The inboxes of all shards.
#[derive(Clone, Debug)]
pub(crate) struct Inboxes {
    pub all: Arc<[Inbox]>,
    /// Notified when the fan-out of a shard is no longer full.
    room: Arc<Condition>,
    /// Maps names to shards, with a secret of this process: no client can choose names that all fall to one shard.
    names: RandomState,
}

impl Inboxes {
    /// One inbox for each shard, with its receiver.
    pub(crate) fn new(shards: usize) -> (Self, Vec<InboxReceiver>) {
        let room = Arc::<Condition>::default();
        let (all, receivers): (Vec<_>, Vec<_>) = (0..shards).map(|_| Inbox::new(room.clone())).unzip();
        (Self { all: all.into(), room, names: RandomState::new() }, receivers)
    }

    /// Returns true if a shard has so many requests of clients before it that no more are to be read.
    pub(crate) fn are_requests_full(&self) -> bool {
        self.all.iter().any(Inbox::are_requests_full)
    }

    /// Returns true if a shard has so many publications before it that no more are to be made.
    pub(crate) fn is_fanout_full(&self) -> bool {
        self.all.iter().any(Inbox::is_fanout_full)
    }

    /// Waits until more publications may be made. Returns false if they may not by the deadline.
    pub(crate) async fn wait_for_room(&self, deadline: Instant) -> bool {
        self.room.wait_until(deadline, || !self.is_fanout_full()).await
    }

    /// The inbox of the shard that owns the topic.
    pub(crate) fn of_topic(&self, topic: &TopicName) -> &Inbox {
        self.of(topic)
    }

    /// The inbox of the shard that owns the user.
    pub(crate) fn of_user(&self, user: &str) -> &Inbox {
        self.of(user)
    }

    /// The inbox of the shard that counts the holder's connections.
    pub(crate) fn of_holder(&self, holder: &Holder) -> &Inbox {
        match holder {
            Holder::User(user) => self.of_user(user),
            Holder::Network(network) => self.of(network),
        }
    }

    /// Hands an answer to the shard where its poll waits. The address may be wrong: another node told it.
    pub(crate) fn answer_poll(&self, to: Address, answer: SessionAnswer) {
        if let Some(inbox) = self.all.get(usize::from(to.shard)) {
            inbox.send(ShardMessage::ParkedAnswer(to.connection, Box::new(answer)));
        }
    }

    fn of(&self, name: impl Hash) -> &Inbox {
        &self.all[(self.names.hash_one(name) % self.all.len() as u64) as usize]
    }
}

/// The sending side of a shard's inbox.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    sender: mpsc::UnboundedSender<ShardMessage>,
    waiting_bytes: Arc<AtomicUsize>,
    waiting_requests: Arc<AtomicUsize>,
    overruns: Arc<AtomicU64>,
    /// Topics with history for which an event was not sent to the shard. Clients choose their names.
    missed: Arc<Mutex<HashSet<TopicName>>>,
}

impl Inbox {
    /// Publications that wait for a shard's fan-out, in bytes. Beyond it publishers wait, and clients that
    /// publish are answered error 111.
    pub(crate) const WAITING_BYTES_MAX: usize = 64 << 20;

    /// Requests of clients, and answers to them, that wait for a shard. Beyond it no shard reads from its clients, so
    /// clients that ask faster than the node answers wait in their own sockets.
    pub(crate) const WAITING_REQUESTS_MAX: usize = 4096;

    fn new(room: Arc<Condition>) -> (Self, InboxReceiver) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (waiting_bytes, waiting_requests) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let inbox = Self {
            sender,
            waiting_bytes: waiting_bytes.clone(),
            waiting_requests: waiting_requests.clone(),
            overruns: Arc::default(),
            missed: Arc::default(),
        };
        (inbox, InboxReceiver { receiver, waiting_bytes, waiting_requests, room })
    }

    /// The message is dropped if the shard has ended, which happens only while a node shuts down.
    pub(crate) fn send(&self, message: ShardMessage) {
        if let Some(bytes) = message.bytes() {
            self.waiting_bytes.fetch_add(bytes, Relaxed);
        } else if message.is_request() {
            self.waiting_requests.fetch_add(1, Relaxed);
        }
        let _ = self.sender.send(message);
    }

    pub(crate) fn is_fanout_full(&self) -> bool {
        self.waiting_bytes.load(Relaxed) > Self::WAITING_BYTES_MAX
    }

    /// Counts an event that is not sent because the shard's fan-out is full. `kept` is its topic if that has history: the
    /// shard gets one message for all of those, and another for topics noted after it has taken them.
    pub(crate) fn overrun(&self, kept: Option<TopicName>) {
        self.overruns.fetch_add(1, Relaxed);
        let Some(topic) = kept else { return };
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = missed.is_empty();
        missed.insert(topic);
        if is_first {
            self.send(ShardMessage::GapsNoted);
        }
    }

    pub(crate) fn take_missed(&self) -> HashSet<TopicName> {
        std::mem::take(&mut *self.missed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn overruns(&self) -> u64 {
        self.overruns.load(Relaxed)
    }

    pub(crate) fn are_requests_full(&self) -> bool {
        self.waiting_requests.load(Relaxed) > Self::WAITING_REQUESTS_MAX
    }
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct InboxReceiver {
    receiver: mpsc::UnboundedReceiver<ShardMessage>,
    waiting_bytes: Arc<AtomicUsize>,
    waiting_requests: Arc<AtomicUsize>,
    room: Arc<Condition>,
}

impl InboxReceiver {
    /// Waits for a message; safe to cancel.
    pub(crate) async fn receive(&mut self) -> Option<ShardMessage> {
        let message = self.receiver.recv().await;
        self.note(message.as_ref());
        message
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    pub(crate) fn try_receive(&mut self) -> Option<ShardMessage> {
        let message = self.receiver.try_recv().ok();
        self.note(message.as_ref());
        message
    }

    fn note(&self, message: Option<&ShardMessage>) {
        let Some(message) = message else { return };
        if let Some(bytes) = message.bytes() {
            let before = self.waiting_bytes.fetch_sub(bytes, Relaxed);
            if before > Inbox::WAITING_BYTES_MAX && before - bytes <= Inbox::WAITING_BYTES_MAX {
                self.room.notify();
            }
        } else if message.is_request() {
            self.waiting_requests.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fanwire_broker::Event;
    use fanwire_hub::effect::ConnectionKey;
    use fanwire_protocol::Publication;

    use super::*;

    fn publication(bytes: usize) -> ShardMessage {
        let publication = Publication { data: vec![0; bytes].into(), ..Publication::default() };
        let topic = TopicName::new("a").unwrap();
        ShardMessage::Event(Event::Publication { topic, publication: publication.into(), epoch: None })
    }

    /// Answers to polls come from other nodes as fast as those make them.
    #[test]
    fn answers_to_polls_keep_further_requests_out() {
        let (inboxes, mut receivers) = Inboxes::new(1);
        let key = ConnectionKey { slot: 1, generation: 1 };
        let answer = || ShardMessage::ParkedAnswer(key, Box::new(SessionAnswer::Gone));
        (0..=Inbox::WAITING_REQUESTS_MAX).for_each(|_| inboxes.all[0].send(answer()));
        assert!(inboxes.are_requests_full());
        while receivers[0].try_receive().is_some() {}
        assert!(!inboxes.are_requests_full());
    }

    #[tokio::test(start_paused = true)]
    async fn publishers_go_on_at_the_instant_at_which_the_last_full_inbox_has_room() {
        let began = Instant::now();
        let (inboxes, mut receivers) = Inboxes::new(2);
        for inbox in inboxes.all.iter() {
            inbox.send(publication(1));
            inbox.send(publication(Inbox::WAITING_BYTES_MAX));
        }
        let publishers: Vec<_> = (0..3)
            .map(|_| {
                let inboxes = inboxes.clone();
                tokio::spawn(async move { inboxes.wait_for_room(began + Duration::from_secs(2)).await })
            })
            .collect();
        for receiver in &mut receivers {
            tokio::task::yield_now().await;
            assert!(publishers.iter().all(|publisher| !publisher.is_finished()));
            while receiver.try_receive().is_some() {}
        }
        for publisher in publishers {
            assert!(publisher.await.unwrap());
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
