//! A client's commands, from the command to the effects that its shard carries out.

use std::hint::black_box;

use bytes::Bytes;
use fanwire_hub::effect::{Answer, ConnectionKey, Effect, SubscriptionStart, TopicRequest};
use fanwire_hub::registry::{Registry, SubscriberKind};
use fanwire_hub::session::{Context, Now, Rates, Session, Verify};
use fanwire_hub::{
    ClientSettings, ConnectionClaims, Expiry, KeyFetch, NameRules, Namespace, Namespaces, SlowPolicy,
    SubscriptionClaims, TokenError, TokenKind,
};
use fanwire_protocol::reason::Left;
use fanwire_protocol::request::{Ask, Connect, Publish, Request, Subscribe};
use fanwire_protocol::wire::{Pings, TransportMode, Wire};
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
        shard.with(&mut session, |session, context| session.end(context, Left::Gone));
    })
}

fn subscribe(rounds: u64) -> u64 {
    let mut shard = Shard::new();
    let mut session = shard.connected();
    repeat(rounds, 1, || {
        shard.subscribe(&mut session);
        shard.request(&mut session, 3, Ask::Unsubscribe { topic: TOPIC.into() });
        assert_eq!(session.subscriptions_count(), 0);
    })
}

fn publish(rounds: u64) -> u64 {
    let mut shard = Shard::new();
    let mut session = shard.connected();
    shard.subscribe(&mut session);
    repeat(rounds, 1, || {
        let data = Bytes::from_static(b"{}");
        let publish = Publish { topic: TOPIC.into(), data, ..Default::default() };
        shard.request(&mut session, 4, Ask::Publish(publish));
        assert!(matches!(shard.effects[..], [Effect::Topic(_, TopicRequest::Publish { id: 4, .. })]));
        shard.answer(&mut session, Answer::Published { id: 4, result: Ok(()) });
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
        shard.request(&mut session, 0, Ask::Pong);
        assert!(shard.effects.is_empty());
    })
}

/// The things that sessions work with, and the effects of the last input.
struct Shard {
    settings: ClientSettings,
    topics: Namespaces,
    registry: Registry,
    user_rates: Rates,
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
        let kind = SubscriberKind {
            wire: Wire::CentrifugeJson,
            joins: false,
            slow: SlowPolicy::Close,
            is_filtered: false,
        };
        registry.add(&topic, 1, kind, false);
        Self {
            settings: ClientSettings::default(),
            topics: Namespaces::new(NameRules::default(), namespace, []),
            registry,
            user_rates: Rates::default(),
            effects: Vec::new(),
            now: Now { millis: 5_000, unix_millis: 1_700_000_000_000 },
        }
    }

    fn connected(&mut self) -> Session {
        let client = ClientId::parse("00000000-0000-4000-8000-000000000001").expect("it is a UUID");
        let mode = TransportMode { wire: Wire::CentrifugeJson, pings: Pings::Messages };
        let mut session = Session::new(client, mode, &self.settings, self.now);
        let connect = Connect { token: "valid".into(), ..Default::default() };
        self.request(&mut session, 1, Ask::Connect(connect));
        self.answer(&mut session, Answer::Registered(Ok(())));
        assert!(session.is_open());
        session
    }

    fn subscribe(&mut self, session: &mut Session) {
        let subscribe = Subscribe { topic: TOPIC.into(), ..Default::default() };
        self.request(session, 2, Ask::Subscribe(subscribe));
        let Some(Effect::Topic(topic, TopicRequest::Subscribe { membership, .. })) = self.effects.pop()
        else {
            unreachable!("the topic's owner is asked")
        };
        self.answer(
            session,
            Answer::Subscribed { topic, membership, result: Ok(SubscriptionStart::default()) },
        );
        assert_eq!(session.subscriptions_count(), 1);
    }

    fn request(&mut self, session: &mut Session, id: u32, ask: Ask) {
        // Slow enough to be allowed.
        self.now.millis += 10;
        let request = Request { id, ask };
        self.with(session, |session, context| session.request(context, black_box(request)));
    }

    fn answer(&mut self, session: &mut Session, answer: Answer) {
        self.with(session, |session, context| session.answer(context, black_box(answer)));
    }

    fn with(&mut self, session: &mut Session, act: impl FnOnce(&mut Session, &mut Context<'_>)) {
        self.effects.clear();
        let mut context = Context {
            settings: &self.settings,
            namespaces: &self.topics,
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
            extras: None,
        })
    }

    fn subscription(&self, _: &str, _: i64) -> Result<SubscriptionClaims, TokenError> {
        Err(TokenError::Unavailable)
    }

    fn awaits_keys(&self, _: TokenKind, _: &str) -> Option<KeyFetch> {
        None
    }

    fn is_blocked(&self, _: &str, _: i64) -> bool {
        false
    }
}
