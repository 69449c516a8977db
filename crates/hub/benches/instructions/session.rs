//! A client's commands, from the command to the effects that its shard carries out.

use std::hint::black_box;

use bytes::Bytes;
use fanwire_hub::delivery::Wire;
use fanwire_hub::effect::{Answer, ConnectionKey, Effect, Joined, TopicRequest};
use fanwire_hub::registry::{Registry, Subscriber};
use fanwire_hub::session::{Context, Manner, Now, Pings, Session, UserRates, Verify};
use fanwire_hub::{
    ClientSettings, ConnectionClaims, Expiry, NameRules, Namespace, Namespaces, SlowPolicy,
    SubscriptionClaims, TokenError,
};
use fanwire_protocol::centrifuge::{
    Command, ConnectRequest, PublishRequest, SubscribeRequest, UnsubscribeRequest,
};
use fanwire_protocol::{ClientId, TopicName};

use crate::harness::{Case, repeat};

pub(crate) const CASES: [Case; 4] = [
    Case { name: "session: connect and end", rounds: 2_000, run: connect },
    Case { name: "session: subscribe and unsubscribe", rounds: 2_000, run: subscribe },
    Case { name: "session: publish", rounds: 5_000, run: publish },
    Case { name: "session: ping and pong", rounds: 20_000, run: ping },
];

const TOPIC: &str = "lobby";

fn connect(rounds: u64) -> u64 {
    let mut shard = Shard::new();
    repeat(rounds, 1, || {
        let mut session = shard.connected();
        shard.with(&mut session, |session, context| session.end(context));
    })
}

fn subscribe(rounds: u64) -> u64 {
    let mut shard = Shard::new();
    let mut session = shard.connected();
    repeat(rounds, 1, || {
        shard.subscribe(&mut session);
        let unsubscribe = UnsubscribeRequest { channel: TOPIC.into() };
        let command = Command { id: 3, unsubscribe: Some(unsubscribe), ..Default::default() };
        shard.command(&mut session, command);
        assert_eq!(session.subscriptions_count(), 0);
    })
}

fn publish(rounds: u64) -> u64 {
    let mut shard = Shard::new();
    let mut session = shard.connected();
    shard.subscribe(&mut session);
    repeat(rounds, 1, || {
        let data = Bytes::from_static(b"{}");
        let publish = PublishRequest { channel: TOPIC.into(), data, ..Default::default() };
        shard.command(&mut session, Command { id: 4, publish: Some(publish), ..Default::default() });
        assert!(matches!(shard.effects[..], [Effect::Topic(_, TopicRequest::Publish { command: 4, .. })]));
        shard.answer(&mut session, Answer::Published { command: 4, result: Ok(()) });
        assert!(matches!(shard.effects[..], [Effect::Reply(_)]));
    })
}

fn ping(rounds: u64) -> u64 {
    let mut shard = Shard::new();
    let mut session = shard.connected();
    repeat(rounds, 1, || {
        shard.now.millis = session.deadline();
        shard.with(&mut session, |session, context| session.tick(context));
        assert!(matches!(shard.effects[..], [Effect::Ping]));
        shard.command(&mut session, Command::default());
        assert!(shard.effects.is_empty());
    })
}

/// What sessions work with, and the effects of the last input.
struct Shard {
    settings: ClientSettings,
    topics: Namespaces,
    registry: Registry,
    user_rates: UserRates,
    effects: Vec<Effect>,
    now: Now,
}

impl Shard {
    /// There is one topic, which another client keeps alive: the registry's map has a keyed hash, and with a
    /// single entry that stays it takes the same steps for every key.
    fn new() -> Self {
        let namespace = Namespace {
            presence: true,
            allow_subscribe_for_client: true,
            allow_publish_for_subscriber: true,
            ..Namespace::default()
        };
        let mut registry = Registry::default();
        let topic = TopicName::new(TOPIC).expect("the name is not empty");
        let other = Subscriber {
            connection: 1,
            wire: Wire::JsonFrames,
            joins: false,
            positioned: false,
            slow: SlowPolicy::Close,
        };
        registry.add(&topic, other);
        Self {
            settings: ClientSettings::default(),
            topics: Namespaces::new(NameRules::default(), namespace, []),
            registry,
            user_rates: UserRates::default(),
            effects: Vec::new(),
            now: Now { millis: 5_000, unix_millis: 1_700_000_000_000 },
        }
    }

    fn connected(&mut self) -> Session {
        let client = ClientId::parse("00000000-0000-4000-8000-000000000001").expect("it is a UUID");
        let manner = Manner { wire: Wire::JsonFrames, pings: Pings::Messages };
        let mut session = Session::new(client, manner, &self.settings, self.now);
        let connect = ConnectRequest { token: "valid".into(), ..Default::default() };
        self.command(&mut session, Command { id: 1, connect: Some(connect), ..Default::default() });
        self.answer(&mut session, Answer::Registered(Ok(())));
        assert!(session.is_open());
        session
    }

    fn subscribe(&mut self, session: &mut Session) {
        let subscribe = SubscribeRequest { channel: TOPIC.into(), ..Default::default() };
        self.command(session, Command { id: 2, subscribe: Some(subscribe), ..Default::default() });
        let Some(Effect::Topic(topic, TopicRequest::Subscribe { membership, .. })) = self.effects.pop()
        else {
            unreachable!("the topic's owner is asked")
        };
        self.answer(session, Answer::Subscribed { topic, membership, result: Ok(Joined::default()) });
        assert_eq!(session.subscriptions_count(), 1);
    }

    fn command(&mut self, session: &mut Session, command: Command) {
        // Slow enough to be allowed.
        self.now.millis += 10;
        self.with(session, |session, context| session.command(context, black_box(command)));
    }

    fn answer(&mut self, session: &mut Session, answer: Answer) {
        self.with(session, |session, context| session.answer(context, black_box(answer)));
    }

    fn with(&mut self, session: &mut Session, act: impl FnOnce(&mut Session, &mut Context<'_>)) {
        self.effects.clear();
        let mut context = Context {
            settings: &self.settings,
            topics: &self.topics,
            tokens: &OneToken,
            version: "bench",
            registry: &mut self.registry,
            user_rates: &mut self.user_rates,
            effects: &mut self.effects,
            connection: ConnectionKey { slot: 0, generation: 1 },
            now: self.now,
        };
        act(session, &mut context);
        black_box(&self.effects);
    }
}

/// Every token is one user's: what signatures cost belongs to a library.
struct OneToken;

impl Verify for OneToken {
    fn connection(&self, _: &str, _: i64) -> Result<ConnectionClaims, TokenError> {
        Ok(ConnectionClaims {
            user: "42".into(),
            expiry: Expiry::Never,
            info: Bytes::new(),
            topics: Vec::new(),
        })
    }

    fn subscription(&self, _: &str, _: i64) -> Result<SubscriptionClaims, TokenError> {
        Err(TokenError::Unavailable)
    }
}
