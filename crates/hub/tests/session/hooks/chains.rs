//! Requests in any order, answered in any order and cut off at any moment: each topic, and the calls together, keep
//! their order, one question at a time.

use std::collections::{BTreeMap, BTreeSet};

use fanwire_hub::effect::{Answer, Effect, TopicRequest};
use fanwire_hub::hook::{HookAnswer, HookEvent};
use fanwire_hub::session::Control;
use fanwire_protocol::reason::{RequestError, Unsubscribed};
use proptest::prelude::*;

use super::super::harness::{at, topic};
use super::*;

const TOPICS: [&str; 3] = ["a", "b", "c"];

/// The place of those who call.
const CALLS: usize = TOPICS.len();

#[derive(Clone, Debug)]
enum Step {
    /// A request in a topic; beyond the last, a call.
    Say {
        place: usize,
        what: usize,
    },
    /// A hook answers; numbers choose among what is asked.
    Hook {
        question: usize,
        answer: usize,
    },
    /// The owner of a topic answers what it was asked longest ago.
    Own {
        place: usize,
        accept: bool,
    },
    Unsubscribe {
        place: usize,
    },
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    let place = || 0..TOPICS.len();
    prop_oneof![
        200 => (0..=CALLS, 0..3_usize).prop_map(|(place, what)| Step::Say { place, what }),
        150 => (0..60_usize, 0..4_usize).prop_map(|(question, answer)| Step::Hook { question, answer }),
        60 => (place(), prop::bool::weighted(0.8)).prop_map(|(place, accept)| Step::Own { place, accept }),
        10 => place().prop_map(|place| Step::Unsubscribe { place }),
        1 => Just(Step::Leave),
    ]
}

/// A client, and everything on its way.
struct World {
    shard: TestShard,
    client: u32,
    has_left: bool,
    last_id: u32,
    /// The place of each request, until something follows from it.
    said: BTreeMap<u32, usize>,
    unanswered: BTreeSet<u32>,
    /// The last request of each place from which something followed.
    reached: [u32; CALLS + 1],
    questions: Vec<Question>,
    owners: BTreeMap<usize, Vec<TopicRequest>>,
}

struct Question {
    number: u32,
    place: usize,
    is_subscribe: bool,
}

impl World {
    fn new() -> Self {
        let mut shard = hooked();
        let ttl = std::time::Duration::from_secs(60);
        shard.topics.default.history = Some(fanwire_hub::HistoryBounds { size: 10, ttl, meta_ttl: ttl });
        shard.topics.default.force_positioning = true;
        shard.settings.commands_per_second_max = 0;
        let client = shard.connect("42");
        Self {
            shard,
            client,
            has_left: false,
            last_id: 1,
            said: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            reached: [0; CALLS + 1],
            questions: Vec::new(),
            owners: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Say { place, what } if !self.has_left => self.say(place, what),
            Step::Hook { question, answer } if !self.questions.is_empty() => {
                self.hook(question % self.questions.len(), answer);
            }
            Step::Own { place, accept } => {
                self.own(place, accept);
            }
            Step::Unsubscribe { place } => {
                let control =
                    Control::Unsubscribe { topic: topic(TOPICS[place]), reason: Unsubscribed::ByServer };
                let nothing = fanwire_hub::effect::Completion(std::sync::Arc::new(|_| {}));
                let effects = self.shard.effects(self.client, |session, context| {
                    session.control(context, &control, nothing);
                });
                self.follow(effects);
            }
            Step::Leave => {
                self.has_left = true;
                let effects = self.shard.effects(self.client, |session, context| {
                    session.end(context, fanwire_protocol::reason::Left::Gone);
                });
                self.follow(effects);
            }
            _ => {}
        }
    }

    fn say(&mut self, place: usize, what: usize) {
        self.last_id += 1;
        let id = self.last_id;
        let request = match (TOPICS.get(place), what) {
            (None, 0) => format!(r#""send":{{"data":{id}}}"#),
            (None, _) => format!(r#""rpc":{{"method":"m","data":{id}}}"#),
            (Some(topic), 0) => format!(r#""subscribe":{{"channel":"{topic}","data":{id}}}"#),
            (Some(topic), 1) => format!(r#""unsubscribe":{{"channel":"{topic}"}}"#),
            (Some(topic), _) => format!(r#""publish":{{"channel":"{topic}","data":{id}}}"#),
        };
        self.said.insert(id, place);
        if !request.starts_with(r#""send""#) {
            self.unanswered.insert(id);
        }
        let frame = format!(r#"{{"id":{id},{request}}}"#);
        let message = fanwire_protocol::wire::ClientMessage::Text(&frame);
        for request in fanwire_protocol::wire::Wire::CentrifugeJson.requests(message, 0) {
            let request = request.expect("the frame is well formed");
            let effects =
                self.shard.effects(self.client, |session, context| session.request(context, request));
            self.follow(effects);
        }
    }

    fn hook(&mut self, place: usize, answer: usize) {
        let Question { number, place, is_subscribe } = self.questions.remove(place);
        let outcome = match (answer, place) {
            (0, _) => refused(),
            (1, _) => failed(),
            (_, CALLS) => Ok(HookResult::Called("".into())),
            (..) if is_subscribe => granted(),
            (..) => unchanged(),
        };
        let answer = Answer::Hooked(Box::new(HookAnswer { number, outcome }));
        let effects = self.shard.effects(self.client, |session, context| session.answer(context, answer));
        self.follow(effects);
    }

    /// Returns false if there is nothing to do.
    fn own(&mut self, place: usize, accept: bool) -> bool {
        let requests = self.owners.entry(place).or_default();
        if requests.is_empty() {
            return false;
        }
        let answer = match requests.remove(0) {
            TopicRequest::Subscribe { membership, .. } => {
                let result = if accept { Ok(at(1)) } else { Err(RequestError::Internal) };
                Answer::Subscribed { topic: topic(TOPICS[place]), membership, result }
            }
            TopicRequest::Publish { id, .. } => Answer::Published { id, result: Ok(()) },
            _ => return true,
        };
        let effects = self.shard.effects(self.client, |session, context| session.answer(context, answer));
        self.follow(effects);
        true
    }

    fn follow(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Hook(question) => {
                    let (name, data) = match &question.event {
                        HookEvent::Subscribe { topic, data } | HookEvent::Publish { topic, data, .. } => {
                            (topic.as_str(), data)
                        }
                        HookEvent::Call { data, .. } | HookEvent::Send { data, .. } => ("", data),
                        other => panic!("nobody asked for this: {other:?}"),
                    };
                    let place = TOPICS.iter().position(|topic| *topic == name).unwrap_or(CALLS);
                    assert!(self.questions.iter().all(|asked| asked.place != place), "one at a time");
                    let id = std::str::from_utf8(data).ok().and_then(|id| id.parse().ok());
                    self.reach(id.expect("the data is the id"));
                    let is_subscribe = matches!(question.event, HookEvent::Subscribe { .. });
                    self.questions.push(Question { number: question.number, place, is_subscribe });
                }
                Effect::Topic(name, request) => {
                    let place = TOPICS.iter().position(|topic| *topic == name.as_str());
                    self.owners.entry(place.expect("it is one of these")).or_default().push(request);
                }
                Effect::Reply(reply) => {
                    assert!(!self.has_left);
                    assert!(self.unanswered.remove(&reply.id), "{reply:?} is the only one");
                    self.reach(reply.id);
                }
                Effect::Push(_) => assert!(!self.has_left),
                Effect::Unregister { .. } | Effect::Moved(_) => {}
                other => panic!("nobody asked for this: {other:?}"),
            }
        }
    }

    /// Something follows from a request for the first time: those before it in its place came first.
    fn reach(&mut self, id: u32) {
        if let Some(place) = self.said.remove(&id) {
            assert!(self.reached[place] < id, "request {id} overtook {}", self.reached[place]);
            assert!(
                self.said.iter().all(|(other, of)| *of != place || *other > id),
                "an earlier request than {id} waits"
            );
            self.reached[place] = id;
        }
    }

    /// Lets everything that is on its way arrive: nothing is left.
    fn settle(&mut self) {
        loop {
            while !self.questions.is_empty() {
                self.hook(0, 2);
            }
            let mut is_busy = !self.questions.is_empty();
            for place in 0..TOPICS.len() {
                is_busy |= self.own(place, true);
            }
            if !is_busy {
                break;
            }
        }
        let session = self.shard.session(self.client);
        assert_eq!(session.waiting_bytes(), 0);
        assert!(!session.lets_requests_wait() && !session.is_busy());
        if !self.has_left {
            assert!(self.said.is_empty() && self.unanswered.is_empty(), "{:?}", self.unanswered);
            self.step(&Step::Leave);
            self.settle();
        }
        assert_eq!(self.shard.registry.topics().count(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_hooks_say_requests_keep_their_order(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
    }
}
