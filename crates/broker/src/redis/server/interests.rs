//! The topics that are wanted, and the state of their channels.
//!
//! Topics whose channels have to be joined or left wait in queues. The connection's task takes them in batches and
//! reports each finished batch. After a loss the next connection joins all confirmed topics again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use fanwire_protocol::TopicName;
use fanwire_protocol::capacity::GiveBack;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(super) struct Interests {
    /// The time from the end of a subscription until the channel is left.
    leave_delay: Duration,
    /// A connection exists.
    attached: bool,
    /// Clients choose topic names, so a fast hash is not safe here.
    topics: HashMap<TopicName, Interest>,
    /// Topics in [`ChannelState::Queued`], each once.
    joining: VecDeque<TopicName>,
    /// Topics with `leave_at`, each once, by that time.
    leaving: BTreeSet<(Instant, TopicName)>,
}

/// The result of a subscribe.
pub(super) enum JoinState {
    /// No connection exists.
    Unavailable,
    Joined,
    /// Completes when the topic is joined; closed if the connection is lost before.
    Joining(oneshot::Receiver<()>),
}

struct Interest {
    state: ChannelState,
    /// The topic is subscribed, so events are delivered.
    wanted: bool,
    /// A subscribe has succeeded, so the topic is joined again after a loss.
    confirmed: bool,
    /// The time to leave the channel, unless it is wanted by then.
    leave_at: Option<Instant>,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelState {
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
            leaving: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn want(&mut self, topic: &TopicName) -> JoinState {
        if !self.attached {
            return JoinState::Unavailable;
        }
        let interest = self.topics.entry(topic.clone()).or_insert_with(|| {
            self.joining.push_back(topic.clone());
            Interest::new()
        });
        interest.wanted = true;
        if interest.state == ChannelState::Joined {
            interest.confirmed = true;
            return JoinState::Joined;
        }
        let (confirm, confirmation) = oneshot::channel();
        interest.waiting.push(confirm);
        JoinState::Joining(confirmation)
    }

    /// Returns true if there is a new channel to leave. Each call postpones the leave.
    pub(super) fn unwant(&mut self, topic: &TopicName) -> bool {
        let Some(interest) = self.topics.get_mut(topic) else { return false };
        interest.wanted = false;
        interest.confirmed = false;
        interest.waiting.clear();
        if interest.state != ChannelState::Joined {
            return false;
        }
        let leave_at = Instant::now() + self.leave_delay;
        let before = interest.leave_at.replace(leave_at);
        if let Some(before) = before {
            self.leaving.remove(&(before, topic.clone()));
        }
        self.leaving.insert((leave_at, topic.clone()));
        before.is_none()
    }

    /// Returns the topic of that name if it is wanted.
    pub(super) fn wanted(&self, name: &str) -> Option<TopicName> {
        let (topic, interest) = self.topics.get_key_value(name)?;
        interest.wanted.then(|| topic.clone())
    }

    /// Notes a new connection: all topics have to be joined again.
    pub(super) fn attach(&mut self) {
        self.attached = true;
        self.joining.extend(self.topics.keys().cloned());
    }

    /// Notes a lost connection. Removes topics that were never confirmed, which fails their waiting subscribes.
    pub(super) fn detach(&mut self) {
        self.attached = false;
        self.joining = VecDeque::new();
        self.leaving = BTreeSet::new();
        self.topics.retain(|_, interest| {
            interest.state = ChannelState::Queued;
            interest.leave_at = None;
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
            let interest = self.topics.get_mut(&topic).expect("queued topics are in the table");
            if interest.wanted {
                interest.state = ChannelState::Joining;
                batch.push(topic);
            } else {
                self.topics.remove(&topic);
            }
        }
        batch
    }

    /// Notes joined topics; returns those whose events may have been missed.
    pub(super) fn joined(&mut self, topics: Vec<TopicName>) -> Vec<TopicName> {
        let mut gaps = Vec::new();
        for topic in topics {
            let interest = self.topics.get_mut(&topic).expect("joining topics are in the table");
            interest.state = ChannelState::Joined;
            if !interest.wanted {
                let leave_at = Instant::now() + self.leave_delay;
                interest.leave_at = Some(leave_at);
                self.leaving.insert((leave_at, topic));
                continue;
            }
            let was_confirmed = std::mem::replace(&mut interest.confirmed, true);
            for confirm in interest.waiting.drain(..) {
                // The caller may have stopped waiting.
                let _ = confirm.send(());
            }
            if was_confirmed {
                gaps.push(topic);
            }
        }
        gaps
    }

    /// The time at which the next channel may be left.
    pub(super) fn next_leave(&self) -> Option<Instant> {
        self.leaving.first().map(|(due, _)| *due)
    }

    pub(super) fn take_leaves(&mut self) -> Vec<TopicName> {
        let now = Instant::now();
        let mut batch = Vec::new();
        while batch.len() < Self::BATCH
            && self.next_leave().is_some_and(|due| due <= now)
            && let Some((_, topic)) = self.leaving.pop_first()
        {
            let interest = self.topics.get_mut(&topic).expect("topics to leave are in the table");
            interest.leave_at = None;
            if !interest.wanted {
                interest.state = ChannelState::Leaving;
                batch.push(topic);
            }
        }
        batch
    }

    pub(super) fn left(&mut self, topics: Vec<TopicName>) {
        for topic in topics {
            let interest = self.topics.get_mut(&topic).expect("leaving topics are in the table");
            if interest.wanted {
                interest.state = ChannelState::Queued;
                self.joining.push_back(topic);
            } else {
                self.topics.remove(&topic);
            }
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        self.topics.give_back();
        self.joining.give_back();
    }
}

impl Interest {
    /// A topic that is queued to be joined.
    fn new() -> Self {
        Self {
            state: ChannelState::Queued,
            wanted: true,
            confirmed: false,
            leave_at: None,
            waiting: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(5);

    fn topic(name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    fn attached() -> Interests {
        let mut interests = Interests::new(DELAY);
        interests.attach();
        interests
    }

    /// Wants the topic, and returns what tells when it is joined.
    fn want(interests: &mut Interests, topic: &TopicName) -> oneshot::Receiver<()> {
        match interests.want(topic) {
            JoinState::Joining(confirmation) => confirmation,
            JoinState::Joined | JoinState::Unavailable => panic!("{topic} is not to be joined"),
        }
    }

    /// Wants the topic, and joins it.
    fn join(interests: &mut Interests, topic: &TopicName) {
        let mut confirmation = want(interests, topic);
        let batch = interests.take_joins();
        assert_eq!(batch, std::slice::from_ref(topic));
        assert_eq!(interests.joined(batch), []);
        confirmation.try_recv().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_what_is_being_joined_is_told_with_the_others() {
        let (mut interests, t) = (attached(), topic("t"));
        let mut first = want(&mut interests, &t);
        let batch = interests.take_joins();
        let mut second = want(&mut interests, &t);
        assert_eq!(interests.take_joins(), [], "it is joined once");
        first.try_recv().unwrap_err();
        interests.joined(batch);
        first.try_recv().unwrap();
        second.try_recv().unwrap();
        assert!(matches!(interests.want(&t), JoinState::Joined));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_wants_any_more_when_it_is_joined_is_left() {
        let (mut interests, t) = (attached(), topic("t"));
        let _confirmation = want(&mut interests, &t);
        let batch = interests.take_joins();
        assert!(!interests.unwant(&t));
        assert_eq!(interests.wanted("t"), None);
        assert_eq!(interests.joined(batch), []);
        assert_eq!(interests.take_leaves(), []);
        tokio::time::advance(DELAY).await;
        let batch = interests.take_leaves();
        assert_eq!(batch, [t]);
        interests.left(batch);
        assert_eq!((interests.len(), interests.next_leave()), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_wants_before_it_is_joined_is_not_joined() {
        let (mut interests, t) = (attached(), topic("t"));
        let mut confirmation = want(&mut interests, &t);
        interests.unwant(&t);
        assert_eq!(interests.take_joins(), []);
        confirmation.try_recv().unwrap_err();
        assert_eq!(interests.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wanted_while_it_is_left_is_joined_again() {
        let (mut interests, t) = (attached(), topic("t"));
        join(&mut interests, &t);
        assert!(interests.unwant(&t));
        tokio::time::advance(DELAY).await;
        let batch = interests.take_leaves();
        let mut confirmation = want(&mut interests, &t);
        assert_eq!(interests.take_joins(), [], "it is not left yet");
        interests.left(batch);
        let batch = interests.take_joins();
        assert_eq!(batch, [t]);
        assert_eq!(interests.joined(batch), [], "nobody was promised what came meanwhile");
        confirmation.try_recv().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn each_leaving_keeps_the_channel_for_another_while() {
        let (mut interests, t) = (attached(), topic("t"));
        join(&mut interests, &t);
        assert!(interests.unwant(&t));
        tokio::time::advance(DELAY / 2).await;
        assert!(matches!(interests.want(&t), JoinState::Joined));
        assert!(!interests.unwant(&t), "it is noted already");
        tokio::time::advance(DELAY / 2).await;
        assert_eq!(interests.take_leaves(), []);
        assert_eq!(interests.next_leave(), Some(Instant::now() + DELAY / 2));
        tokio::time::advance(DELAY / 2).await;
        assert_eq!(interests.take_leaves(), [t]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_joined_is_joined_again_after_a_loss_and_told() {
        let mut interests = attached();
        let [joined, joining, left] = ["joined", "joining", "left"].map(topic);
        join(&mut interests, &joined);
        join(&mut interests, &left);
        interests.unwant(&left);
        let mut confirmation = want(&mut interests, &joining);
        let _lost = interests.take_joins();
        interests.detach();
        confirmation.try_recv().unwrap_err();
        assert!(matches!(interests.want(&joined), JoinState::Unavailable));
        assert_eq!((interests.len(), interests.next_leave()), (1, None));

        interests.attach();
        let batch = interests.take_joins();
        assert_eq!(batch, std::slice::from_ref(&joined));
        assert_eq!(interests.joined(batch), [joined]);
    }
}
