//! Which topics are wanted, and how far the connection for subscriptions is in line with that.
//!
//! Topics whose channels have to be joined or left wait in queues and are taken in batches; whoever takes a batch says
//! when it is done. What is lost with a connection begins anew with the next.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use fanwire_protocol::TopicName;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::capacity::shrunk_capacity;

pub(super) struct Interests {
    /// How long a channel is kept after its topic was left.
    leave_delay: Duration,
    /// A connection exists that is brought in line.
    attached: bool,
    /// Clients choose topic names, so this is no place for a fast hash.
    topics: HashMap<TopicName, Interest>,
    /// Topics in [`Phase::Queued`], each once.
    joining: VecDeque<TopicName>,
    /// Topics with `leave_noted`, each once, with the time from which they may be left.
    leaving: VecDeque<(Instant, TopicName)>,
}

/// What becomes of a subscribe.
pub(super) enum Wanted {
    /// There is no connection.
    Unavailable,
    Joined,
    /// Told when the topic is joined; dropped when the connection is lost before that.
    Joining(oneshot::Receiver<()>),
}

struct Interest {
    phase: Phase,
    /// Events are delivered.
    wanted: bool,
    /// A subscribe has succeeded, so after a loss the topic is joined again.
    confirmed: bool,
    leave_noted: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Queued,
    Joining,
    Joined,
    Leaving,
}

impl Interests {
    /// Channels in one command.
    const BATCH: usize = 512;

    pub(super) fn new(leave_delay: Duration) -> Self {
        Self {
            leave_delay,
            attached: false,
            topics: HashMap::new(),
            joining: VecDeque::new(),
            leaving: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn want(&mut self, topic: &TopicName) -> Wanted {
        if !self.attached {
            return Wanted::Unavailable;
        }
        let interest = self.topics.entry(topic.clone()).or_insert_with(|| {
            self.joining.push_back(topic.clone());
            Interest::new()
        });
        interest.wanted = true;
        if interest.phase == Phase::Joined {
            interest.confirmed = true;
            return Wanted::Joined;
        }
        let (confirm, confirmation) = oneshot::channel();
        interest.waiting.push(confirm);
        Wanted::Joining(confirmation)
    }

    /// Returns whether there is something new to leave.
    pub(super) fn unwant(&mut self, topic: &TopicName) -> bool {
        let Some(interest) = self.topics.get_mut(topic) else { return false };
        interest.wanted = false;
        interest.confirmed = false;
        interest.waiting.clear();
        if interest.phase != Phase::Joined || interest.leave_noted {
            return false;
        }
        interest.leave_noted = true;
        self.leaving.push_back((Instant::now() + self.leave_delay, topic.clone()));
        true
    }

    /// The topic of that name, if its events are wanted.
    pub(super) fn wanted(&self, name: &str) -> Option<TopicName> {
        let (topic, interest) = self.topics.get_key_value(name)?;
        interest.wanted.then(|| topic.clone())
    }

    /// There is a new connection: everything has to be joined again.
    pub(super) fn attach(&mut self) {
        self.attached = true;
        self.joining.extend(self.topics.keys().cloned());
    }

    /// The connection is lost. Forgets what nobody was promised, and thereby answers who still waits.
    pub(super) fn detach(&mut self) {
        self.attached = false;
        self.joining = VecDeque::new();
        self.leaving = VecDeque::new();
        self.topics.retain(|_, interest| {
            interest.phase = Phase::Queued;
            interest.leave_noted = false;
            interest.waiting = Vec::new();
            interest.confirmed
        });
        self.shrink();
    }

    pub(super) fn take_joins(&mut self) -> Vec<TopicName> {
        let mut batch = Vec::new();
        while batch.len() < Self::BATCH
            && let Some(topic) = self.joining.pop_front()
        {
            let interest = self.topics.get_mut(&topic).expect("what is queued is in the table");
            if interest.wanted {
                interest.phase = Phase::Joining;
                batch.push(topic);
            } else {
                self.topics.remove(&topic);
            }
        }
        batch
    }

    /// Returns the topics of which events may have been missed.
    pub(super) fn joined(&mut self, topics: Vec<TopicName>) -> Vec<TopicName> {
        let mut interrupted = Vec::new();
        for topic in topics {
            let interest = self.topics.get_mut(&topic).expect("what is joining is in the table");
            interest.phase = Phase::Joined;
            if !interest.wanted {
                interest.leave_noted = true;
                self.leaving.push_back((Instant::now() + self.leave_delay, topic));
                continue;
            }
            let was_confirmed = std::mem::replace(&mut interest.confirmed, true);
            for confirm in interest.waiting.drain(..) {
                // Who does not wait any more need not be told.
                let _ = confirm.send(());
            }
            if was_confirmed {
                interrupted.push(topic);
            }
        }
        interrupted
    }

    /// When there may next be something to leave.
    pub(super) fn next_leave(&self) -> Option<Instant> {
        self.leaving.front().map(|(due, _)| *due)
    }

    pub(super) fn take_leaves(&mut self) -> Vec<TopicName> {
        let now = Instant::now();
        let mut batch = Vec::new();
        while batch.len() < Self::BATCH
            && let Some((due, _)) = self.leaving.front()
            && *due <= now
            && let Some((_, topic)) = self.leaving.pop_front()
        {
            let interest = self.topics.get_mut(&topic).expect("what is to be left is in the table");
            interest.leave_noted = false;
            if !interest.wanted {
                interest.phase = Phase::Leaving;
                batch.push(topic);
            }
        }
        batch
    }

    pub(super) fn left(&mut self, topics: Vec<TopicName>) {
        for topic in topics {
            let interest = self.topics.get_mut(&topic).expect("what is being left is in the table");
            if interest.wanted {
                interest.phase = Phase::Queued;
                self.joining.push_back(topic);
            } else {
                self.topics.remove(&topic);
            }
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        if let Some(capacity) = shrunk_capacity(self.topics.len(), self.topics.capacity()) {
            self.topics.shrink_to(capacity);
        }
        if let Some(capacity) = shrunk_capacity(self.joining.len(), self.joining.capacity()) {
            self.joining.shrink_to(capacity);
        }
        if let Some(capacity) = shrunk_capacity(self.leaving.len(), self.leaving.capacity()) {
            self.leaving.shrink_to(capacity);
        }
    }
}

impl Interest {
    /// Queued to be joined.
    fn new() -> Self {
        Self { phase: Phase::Queued, wanted: true, confirmed: false, leave_noted: false, waiting: Vec::new() }
    }
}
