//! The reference: what one client can conclude from what it said and what it was told.

use std::collections::{BTreeMap, BTreeSet};

use fanwire_hub::effect::{Effect, TopicRequest};
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::reply::{Outcome, Push, Reply};

use super::Saying;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Connecting,
    Open,
    /// It was closed, refused, or has gone.
    Gone,
}

#[derive(Clone, Debug)]
struct Said {
    topic: &'static str,
    what: Saying,
    answers: usize,
}

#[derive(Debug)]
pub(super) struct Reference {
    pub(super) standing: Standing,
    pub(super) subscriptions_max: usize,
    /// The topics that it was told it is subscribed to.
    pub(super) topics: BTreeSet<String>,
    /// Subscriptions that a topic's owner was asked for, and whose answers have not arrived.
    on_their_way: BTreeSet<String>,
    /// Topics that the server unsubscribed it from, of which it was not told yet.
    to_be_told: BTreeSet<String>,
    /// By command id.
    said: BTreeMap<u32, Said>,
}

pub(super) const CONNECT: u32 = 1;

impl Reference {
    pub(super) fn new(subscriptions_max: usize) -> Self {
        Self {
            standing: Standing::Connecting,
            subscriptions_max,
            topics: BTreeSet::new(),
            on_their_way: BTreeSet::new(),
            to_be_told: BTreeSet::new(),
            said: BTreeMap::new(),
        }
    }

    /// Notes a command and gives its id.
    pub(super) fn say(&mut self, topic: &'static str, what: Saying) -> u32 {
        let id = CONNECT + 1 + self.said.len() as u32;
        self.said.insert(id, Said { topic, what, answers: 0 });
        id
    }

    /// The server is about to unsubscribe it.
    pub(super) fn is_unsubscribed(&mut self, topic: &str) {
        if self.standing == Standing::Open {
            self.to_be_told.insert(topic.to_owned());
        }
    }

    /// The answer to a subscribe request is about to arrive.
    pub(super) fn arrives(&mut self, topic: &str) {
        assert!(self.on_their_way.remove(topic), "{topic} was asked for once");
    }

    /// Notes what the session wants done, and fails if it must not.
    pub(super) fn follow(&mut self, effect: &Effect) {
        if self.standing == Standing::Gone {
            assert!(gives_back(effect), "nothing but giving back comes after the end: {effect:?}");
            return;
        }
        match effect {
            Effect::Open(reply) => {
                assert_eq!(self.standing, Standing::Connecting);
                let Ok(Outcome::Connected(connected)) = &reply.result else { panic!("{reply:?}") };
                self.standing = Standing::Open;
                self.topics.extend(connected.topics.iter().map(|(topic, _)| topic.to_string()));
                assert!(self.on_their_way.is_empty(), "the reply waits for every subscription");
            }
            Effect::Reply(reply) if reply.id == CONNECT => {
                assert!(reply.result.is_err(), "{reply:?}");
                self.standing = Standing::Gone;
            }
            Effect::Reply(reply) => {
                assert_eq!(self.standing, Standing::Open, "nothing overtakes the connect reply: {reply:?}");
                self.answered(reply);
            }
            Effect::Push(push) => {
                assert_eq!(self.standing, Standing::Open, "nothing overtakes the connect reply: {push:?}");
                self.pushed(push);
            }
            Effect::Close(_) => self.standing = Standing::Gone,
            Effect::Topic(topic, TopicRequest::Subscribe { .. }) => {
                assert!(!self.topics.contains(topic.as_str()), "{topic} is there already");
                assert!(self.on_their_way.insert(topic.as_str().to_owned()), "{topic} was asked for already");
                assert!(self.topics.len() + self.on_their_way.len() <= self.subscriptions_max);
            }
            _ => {}
        }
    }

    fn pushed(&mut self, push: &Push) {
        match push {
            Push::Subscribed { topic, .. } => {
                assert!(self.topics.insert(topic.to_string()), "{topic} is new");
            }
            // It is pushed even to a client that is not subscribed.
            Push::Unsubscribed { topic, .. } => {
                self.topics.remove(topic.as_str());
                self.to_be_told.remove(topic.as_str());
            }
            _ => panic!("nothing else is pushed"),
        }
    }

    fn answered(&mut self, reply: &Reply) {
        let said = self.said.get_mut(&reply.id).expect("it answers what was said");
        said.answers += 1;
        assert_eq!(said.answers, 1, "{reply:?}");
        let Said { topic, what, .. } = *said;
        let is_there = self.topics.contains(topic);
        let is_on_its_way = self.on_their_way.contains(topic);
        let waiting = |what| {
            let mut earlier = self.said.range(..reply.id).map(|(_, said)| said);
            earlier.any(|said| said.topic == topic && said.what == what && said.answers == 0)
        };
        let (waiting_subscribe, waiting_unsubscribe) =
            (waiting(Saying::Subscribe), waiting(Saying::Unsubscribe));
        match (what, reply.result.as_ref().map_err(|refused| refused.error)) {
            (Saying::Subscribe, Ok(Outcome::Subscribed(_))) => {
                assert!(!is_there, "{reply:?}");
                self.topics.insert(topic.to_owned());
            }
            // Who is told at once that a subscription is on its way is told before that one's answer.
            (Saying::Subscribe, Err(RequestError::AlreadySubscribed)) if is_on_its_way => {
                return assert!(!waiting_unsubscribe, "{reply:?} did not wait for what ends the first");
            }
            (Saying::Subscribe, Err(RequestError::AlreadySubscribed)) => {
                assert!(is_there, "{topic} is not there")
            }
            (Saying::Subscribe, Err(RequestError::LimitExceeded)) => {
                assert_eq!(self.topics.len() + self.on_their_way.len(), self.subscriptions_max);
            }
            // The topic is private, or its owner refused.
            (Saying::Subscribe, Err(RequestError::PermissionDenied)) => assert!(topic.starts_with('$')),
            (Saying::Subscribe, Err(RequestError::Internal)) => assert!(!is_there),
            (Saying::Unsubscribe, Ok(Outcome::Unsubscribed)) => {
                self.topics.remove(topic);
            }
            (Saying::Publish, Ok(Outcome::Published)) => {}
            (Saying::Publish, Err(RequestError::PermissionDenied)) => {
                assert!(!is_there, "a subscriber may publish to {topic}")
            }
            _ => panic!("no such answer: {reply:?}"),
        }
        assert!(
            !waiting_subscribe && !waiting_unsubscribe,
            "{reply:?} overtook the answer to an earlier command"
        );
    }

    /// Nothing is on its way any more: everything was answered.
    pub(super) fn is_settled(&self) -> bool {
        self.on_their_way.is_empty()
            && self.to_be_told.is_empty()
            && self.said.values().all(|said| said.answers == 1)
    }
}

fn gives_back(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Moved(_) | Effect::Unregister { .. } | Effect::Topic(_, TopicRequest::Unsubscribe { .. })
    )
}
