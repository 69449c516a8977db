//! A shard with many sessions, the owners of its topics and of its users, and everything on its way between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fanwire_hub::effect::{Answer, Completion, Effect, TopicRequest};
use fanwire_hub::session::{Context, Control, ServerSubscribe, Session};
use fanwire_hub::{ConnectionClaims, Expiry, GrantOptions, HistoryBounds, Namespace};
use fanwire_protocol::TopicName;
use fanwire_protocol::reason::{CloseReason, Left, RequestError, Unsubscribed};
use fanwire_protocol::wire::{ClientMessage, Wire};

use super::reference::{CONNECT, Reference, Standing};
use super::{Saying, Step};
use crate::harness::tokens::{grant, user};
use crate::harness::{TestShard, at, topic};

/// The last takes a token that nobody has.
const TOPICS: [&str; 6] = ["a", "b", "c", "d", "e", "$private"];

/// Users, with the topics that the server subscribes them to; the first is anonymous.
const TOKENS: [(&str, &[&str]); 4] = [("", &[]), ("42", &[]), ("43", &["a"]), ("44", &["b", "c"])];

/// Tiny, so that they are reached.
const SUBSCRIPTIONS_MAX: usize = 4;
const PENDING_COMMANDS_MAX: usize = 6;
const CLIENTS_MAX: usize = 8;

pub(super) struct World {
    shard: TestShard,
    clients: Vec<Reference>,
    owners: BTreeMap<&'static str, Owner>,
    /// Registrations to decide, and to take back, in order.
    registrations: VecDeque<Registration>,
    registered: BTreeSet<u32>,
}

/// The owner of one topic.
#[derive(Default)]
struct Owner {
    requests: VecDeque<(u32, TopicRequest)>,
    answers: VecDeque<(u32, Answer)>,
    members: BTreeSet<u32>,
    /// The last publish of each client.
    published: BTreeMap<u32, u32>,
}

enum Registration {
    Register(u32),
    Unregister(u32),
}

impl Default for World {
    fn default() -> Self {
        let ttl = std::time::Duration::from_secs(60);
        let namespace = Namespace {
            history: Some(HistoryBounds { size: 10, ttl, meta_ttl: ttl }),
            force_positioning: true,
            allow_subscribe_for_client: true,
            allow_subscribe_for_anonymous: true,
            allow_publish_for_subscriber: true,
            allow_publish_for_anonymous: true,
            ..Namespace::default()
        };
        let mut shard = TestShard::new(namespace, []);
        shard.settings.subscriptions_max = SUBSCRIPTIONS_MAX;
        shard.settings.pending_commands_max = PENDING_COMMANDS_MAX;
        for (name, topics) in TOKENS {
            let topics = topics.iter().map(|topic| grant(topic)).collect();
            let token = format!("{name} and topics");
            shard.tokens.add_connection(&token, ConnectionClaims { topics, ..user(name) });
        }
        let owners = TOPICS.map(|topic| (topic, Owner::default())).into();
        Self {
            shard,
            clients: Vec::new(),
            owners,
            registrations: VecDeque::new(),
            registered: BTreeSet::new(),
        }
    }
}

impl World {
    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Connect { token } => self.connect(TOKENS[token % TOKENS.len()].0),
            Step::Say { client, topic, what } => {
                if let Some(client) = self.pick(client) {
                    self.say(client, TOPICS[topic % TOPICS.len()], what);
                }
            }
            Step::Leave { client } => {
                if let Some(client) = self.pick(client) {
                    self.leave(client);
                }
            }
            Step::Kick { client } => {
                self.control(client, &Control::Disconnect(CloseReason::ForceReconnect.into()))
            }
            Step::ServerSubscribe { client, topic } => {
                let subscribe = ServerSubscribe {
                    topic: self::topic(TOPICS[topic % TOPICS.len()]),
                    options: GrantOptions::default(),
                    expiry: Expiry::Never,
                    recover_since: None,
                };
                self.control(client, &Control::Subscribe(Arc::new(subscribe)));
            }
            Step::ServerUnsubscribe { client, topic } => {
                let topic = self::topic(TOPICS[topic % TOPICS.len()]);
                if let Some(client) = self.pick(client) {
                    self.client_mut(client).is_unsubscribed(topic.as_str());
                }
                self.control(client, &Control::Unsubscribe { topic, reason: Unsubscribed::ByServer });
            }
            Step::Lose { topic } => self.lose(TOPICS[topic % TOPICS.len()]),
            Step::Work { topic, accept } => {
                self.work(TOPICS[topic % TOPICS.len()], accept);
            }
            Step::Deliver { topic } => {
                self.deliver(TOPICS[topic % TOPICS.len()]);
            }
            Step::Register { accept } => {
                self.register(accept);
            }
            Step::Settle => self.settle(),
        }
    }

    /// Checks the rules that hold at every moment.
    pub(super) fn check(&self) {
        let registry = self.registry();
        let counted: usize =
            self.numbers().map(|client| self.shard.session(client).subscriptions_count()).sum();
        assert_eq!(counted, registry.len());
        assert_eq!(counted, self.shard.registry.subscriptions_count());
        for client in self.numbers() {
            let there: BTreeSet<String> =
                registry.iter().filter(|(_, of)| *of == client).map(|(topic, _)| topic.clone()).collect();
            match self.client(client).standing {
                Standing::Open => assert_eq!(there, self.client(client).topics, "client {client}"),
                Standing::Gone => assert!(there.is_empty(), "client {client} has gone"),
                // Subscriptions that the connect reply will tell of.
                Standing::Connecting => {}
            }
        }
    }

    /// Lets everything on its way arrive, and checks what holds when nothing is.
    pub(super) fn settle(&mut self) {
        loop {
            let mut is_busy = self.register(true);
            for topic in TOPICS {
                is_busy |= self.work(topic, true) | self.deliver(topic);
            }
            if !is_busy {
                break;
            }
        }
        self.check();
        let members: BTreeSet<(String, u32)> = self
            .owners
            .iter()
            .flat_map(|(topic, owner)| owner.members.iter().map(|member| (topic.to_string(), *member)))
            .collect();
        assert_eq!(members, self.registry());
        for client in self.numbers() {
            let reference = self.client(client);
            assert_ne!(reference.standing, Standing::Connecting);
            assert!(reference.standing == Standing::Gone || reference.is_settled(), "{reference:?}");
            let is_user =
                reference.standing == Standing::Open && !self.shard.session(client).user().is_empty();
            assert_eq!(self.registered.contains(&client), is_user, "client {client}");
        }
    }

    /// Checks that nothing is left when the last has left.
    pub(super) fn everybody_leaves(&mut self) {
        while let Some(client) = self.pick(0) {
            self.leave(client);
        }
        self.settle();
        assert_eq!(self.shard.registry.topics().count(), 0);
        assert!(self.registered.is_empty());
    }

    fn connect(&mut self, user: &str) {
        if self.clients.iter().filter(|client| client.standing != Standing::Gone).count() < CLIENTS_MAX {
            let client = self.shard.open();
            self.clients.push(Reference::new(SUBSCRIPTIONS_MAX));
            let frame = format!(r#"{{"id":{CONNECT},"connect":{{"token":"{user} and topics"}}}}"#);
            self.command(client, &frame);
        }
    }

    fn say(&mut self, client: u32, topic: &'static str, what: Saying) {
        let id = self.client_mut(client).say(topic, what);
        self.command(
            client,
            &match what {
                Saying::Subscribe => format!(r#"{{"id":{id},"subscribe":{{"channel":"{topic}"}}}}"#),
                Saying::Unsubscribe => format!(r#"{{"id":{id},"unsubscribe":{{"channel":"{topic}"}}}}"#),
                Saying::Publish => format!(r#"{{"id":{id},"publish":{{"channel":"{topic}","data":1}}}}"#),
            },
        );
    }

    fn command(&mut self, client: u32, frame: &str) {
        for request in Wire::CentrifugeJson.requests(ClientMessage::Text(frame), 0) {
            let request = request.expect("the frame is well formed");
            self.act(client, |session, context| session.request(context, request));
        }
    }

    fn leave(&mut self, client: u32) {
        // The transport tells: from here on nothing is said to the client.
        self.client_mut(client).standing = Standing::Gone;
        self.act(client, |session, context| session.end(context, Left::Gone));
    }

    fn control(&mut self, client: usize, control: &Control) {
        if let Some(client) = self.pick(client) {
            let nothing = Completion(Arc::new(|_| {}));
            self.act(client, |session, context| session.control(context, control, nothing));
        }
    }

    fn lose(&mut self, name: &str) {
        let Some(slot) = self.shard.registry.find(&topic(name)) else { return };
        let subscribers = &self.shard.registry.topic(slot).subscribers;
        let all: Vec<u32> = subscribers.iter().map(|subscriber| subscriber.connection).collect();
        for client in all {
            self.act(client, |session, context| session.lose_position(context, slot));
        }
    }

    /// Does one request of a topic's owner, if there is one.
    fn work(&mut self, topic: &'static str, accept: bool) -> bool {
        let owner = self.owners.get_mut(topic).expect("every topic has an owner");
        let Some((client, request)) = owner.requests.pop_front() else { return false };
        match request {
            TopicRequest::Subscribe { membership, .. } => {
                if accept {
                    assert!(owner.members.insert(client), "client {client} is in {topic} once");
                }
                let result = if accept { Ok(at(1)) } else { Err(RequestError::Internal) };
                let topic = self::topic(topic);
                owner.answers.push_back((client, Answer::Subscribed { topic, membership, result }));
            }
            TopicRequest::Unsubscribe { .. } => {
                assert!(owner.members.remove(&client), "client {client} leaves {topic} once");
            }
            TopicRequest::Publish { id, .. } => {
                assert!(owner.members.contains(&client), "only subscribers may publish to {topic}");
                let before = owner.published.insert(client, id);
                assert!(before < Some(id), "publications keep their order");
                owner.answers.push_back((client, Answer::Published { id, result: Ok(()) }));
            }
            other => panic!("nobody said this: {other:?}"),
        }
        true
    }

    /// Hands one answer of a topic's owner over, if there is one.
    fn deliver(&mut self, topic: &'static str) -> bool {
        let owner = self.owners.get_mut(topic).expect("every topic has an owner");
        let Some((client, answer)) = owner.answers.pop_front() else { return false };
        if matches!(answer, Answer::Subscribed { .. }) {
            self.client_mut(client).arrives(topic);
        }
        self.act(client, |session, context| session.answer(context, answer));
        true
    }

    fn register(&mut self, accept: bool) -> bool {
        match self.registrations.pop_front() {
            None => return false,
            // It may have been refused before its client left.
            Some(Registration::Unregister(client)) => {
                self.registered.remove(&client);
            }
            Some(Registration::Register(client)) => {
                if accept {
                    assert!(self.registered.insert(client), "client {client} is counted once");
                }
                let result = if accept { Ok(()) } else { Err(CloseReason::ConnectionLimit) };
                self.act(client, |session, context| session.answer(context, Answer::Registered(result)));
            }
        }
        true
    }

    /// Lets a session act, checks what it wants done, and sends that on.
    fn act(&mut self, client: u32, act: impl FnOnce(&mut Session, &mut Context<'_>)) {
        for effect in self.shard.effects(client, act) {
            self.client_mut(client).follow(&effect);
            match effect {
                Effect::Topic(topic, request) => self.owner(&topic).requests.push_back((client, request)),
                Effect::Register { .. } => self.registrations.push_back(Registration::Register(client)),
                Effect::Unregister { .. } => self.registrations.push_back(Registration::Unregister(client)),
                Effect::Reply(_)
                | Effect::Push(_)
                | Effect::Open(_)
                | Effect::Close(_)
                | Effect::Ping
                | Effect::Token(_)
                | Effect::Moved(_) => {}
                Effect::Hook(_) | Effect::UnfitAnswer(..) => unreachable!("there are no hooks"),
                Effect::AwaitKeys { .. } => unreachable!("all keys are there"),
                Effect::RegisterAddress => unreachable!("there is no limit"),
            }
        }
    }

    /// One of the clients that are still there.
    fn pick(&self, index: usize) -> Option<u32> {
        let there: Vec<u32> =
            self.numbers().filter(|client| self.client(*client).standing != Standing::Gone).collect();
        (!there.is_empty()).then(|| there[index % there.len()])
    }

    fn numbers(&self) -> impl Iterator<Item = u32> + use<> {
        1..=self.clients.len() as u32
    }

    fn client(&self, client: u32) -> &Reference {
        &self.clients[client as usize - 1]
    }

    fn client_mut(&mut self, client: u32) -> &mut Reference {
        &mut self.clients[client as usize - 1]
    }

    fn owner(&mut self, topic: &TopicName) -> &mut Owner {
        self.owners.get_mut(topic.as_str()).expect("every topic has an owner")
    }

    /// Every subscription in the registry; none is there twice.
    fn registry(&self) -> BTreeSet<(String, u32)> {
        let mut all = BTreeSet::new();
        for topic in self.shard.registry.topics() {
            for subscriber in &topic.subscribers {
                assert!(all.insert((topic.name.to_string(), subscriber.connection)), "{topic:?}");
            }
        }
        all
    }
}
