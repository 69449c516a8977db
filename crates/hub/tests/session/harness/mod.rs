//! A shard without sockets: sessions on one registry, a table of tokens, and a clock that the test moves.
//!
//! Whatever a session wants done comes back as lines of text (see `lines`), all of it and in order, so that a
//! test states exactly what follows from an input and that nothing else does.

mod lines;
pub(crate) mod tokens;

use std::time::Duration;

use fanwire_hub::effect::{
    Answer, Completion, ConnectionKey, Effect, Membership, SubscriptionStart, TopicRequest,
};
use fanwire_hub::hook::{HookAnswer, HookDenial, HookResult};
use fanwire_hub::registry::Registry;
use fanwire_hub::session::{Context, Control, Now, Rates, Session};
use fanwire_hub::{ClientSettings, HistoryBounds, NameRules, Namespace, Namespaces};
use fanwire_protocol::reason::{CloseReason, Left, RequestError};
use fanwire_protocol::wire::{ClientMessage, Pings, TransportMode, Wire};
use fanwire_protocol::{ClientId, Epoch, Position, Publication, TopicName};

use tokens::Tokens;

/// Unix time at which every test begins, in seconds.
pub(crate) const START: i64 = 1_700_000_000;

pub(crate) const MESSAGES: TransportMode =
    TransportMode { wire: Wire::CentrifugeJson, pings: Pings::Messages };

/// A namespace in which everybody may do everything.
pub(crate) fn open() -> Namespace {
    let ttl = Duration::from_secs(60);
    Namespace {
        presence: true,
        history: Some(HistoryBounds { size: 10, ttl, meta_ttl: ttl }),
        allow_subscribe_for_client: true,
        allow_publish_for_client: true,
        allow_presence_for_client: true,
        allow_history_for_client: true,
        ..Namespace::default()
    }
}

pub(crate) struct TestShard {
    pub(crate) settings: ClientSettings,
    pub(crate) topics: Namespaces,
    pub(crate) tokens: Tokens,
    pub(crate) now: Now,
    pub(crate) registry: Registry,
    pub(crate) user_rates: Rates,
    sessions: Vec<Session>,
    /// Subscribe requests that the topics' owners have not answered yet.
    asked: Vec<(u32, TopicName, Membership)>,
}

/// The outcome of a command, for tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Error(u32),
    Close(u16),
    /// A topic's owner is asked.
    Asks,
    /// A result.
    Done,
}

impl Default for TestShard {
    /// Topics without a namespace are open to everybody; there are no others.
    fn default() -> Self {
        Self::new(Namespace { allow_subscribe_for_client: true, ..Namespace::default() }, [])
    }
}

impl TestShard {
    pub(crate) fn new(default: Namespace, named: impl IntoIterator<Item = Namespace>) -> Self {
        Self {
            settings: ClientSettings::default(),
            topics: Namespaces::new(NameRules::default(), default, named),
            tokens: Tokens::default(),
            now: Now { millis: 5_000, unix_millis: START * 1000 },
            registry: Registry::default(),
            user_rates: Rates::default(),
            sessions: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// A connection that has not said anything.
    pub(crate) fn open(&mut self) -> u32 {
        self.open_as(MESSAGES)
    }

    pub(crate) fn open_as(&mut self, mode: TransportMode) -> u32 {
        let number = self.sessions.len() as u32 + 1;
        let client = ClientId::parse(&lines::client_id(number)).expect("the number makes a UUID");
        self.sessions.push(Session::new(client, mode, &self.settings, self.now));
        number
    }

    /// A client that is connected by a token of the table.
    pub(crate) fn connect(&mut self, token: &str) -> u32 {
        let client = self.open();
        let lines = self.say(client, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        let lines = if lines[0].starts_with("register") { self.registered(client, Ok(())) } else { lines };
        assert!(self.session(client).is_open(), "{lines:?}");
        client
    }

    /// A frame of the client, as its shard hands it over: command by command until the session is over.
    pub(crate) fn say(&mut self, client: u32, frame: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for request in Wire::CentrifugeJson.requests(ClientMessage::Text(frame), 0) {
            let request = request.expect("the frame is well formed");
            lines.extend(self.with(client, |session, context| session.request(context, request)));
            if self.session(client).is_over() {
                break;
            }
        }
        lines
    }

    /// Prepares the commands of a frame, as those that a connection begins with, until the session is over.
    pub(crate) fn prepare(&mut self, client: u32, frame: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for request in Wire::CentrifugeJson.requests(ClientMessage::Text(frame), 0) {
            let request = request.expect("the frame is well formed");
            lines.extend(self.with(client, |session, context| session.prepare(context, request)));
            if self.session(client).is_over() {
                break;
            }
        }
        lines
    }

    pub(crate) fn begin(&mut self, client: u32) -> Vec<String> {
        self.with(client, |session, context| session.begin(context))
    }

    /// Says a frame and checks all that follows.
    #[track_caller]
    pub(crate) fn check(&mut self, client: u32, frame: &str, expected: &[&str]) {
        assert_eq!(self.say(client, frame), expected, "{frame}");
    }

    /// Returns the outcome of one command, given without its id.
    pub(crate) fn outcome(&mut self, client: u32, command: &str) -> Outcome {
        let lines = self.say(client, &format!(r#"{{"id":7,{command}}}"#));
        lines::outcome(&lines)
    }

    pub(crate) fn answer(&mut self, client: u32, answer: Answer) -> Vec<String> {
        self.with(client, |session, context| session.answer(context, answer))
    }

    /// A hook answers the question of this number.
    pub(crate) fn hooked(
        &mut self,
        client: u32,
        number: u32,
        outcome: Result<HookResult, HookDenial>,
    ) -> Vec<String> {
        self.answer(client, Answer::Hooked(Box::new(HookAnswer { number, outcome })))
    }

    pub(crate) fn registered(&mut self, client: u32, result: Result<(), CloseReason>) -> Vec<String> {
        self.answer(client, Answer::Registered(result))
    }

    /// The topic's owner makes the oldest subscription that the client asked for.
    pub(crate) fn started(&mut self, client: u32, topic: &str, start: SubscriptionStart) -> Vec<String> {
        self.subscribed(client, topic, Ok(start))
    }

    pub(crate) fn subscribed(
        &mut self,
        client: u32,
        topic: &str,
        result: Result<SubscriptionStart, RequestError>,
    ) -> Vec<String> {
        let place = self.asked.iter().position(|(by, name, _)| *by == client && name.as_str() == topic);
        let (_, topic, membership) = self.asked.remove(place.expect("the client asked for the topic"));
        self.answer(client, Answer::Subscribed { topic, membership, result })
    }

    /// A client's subscription without anything special, from command to answer.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, client: u32, topic: &str) {
        let lines = self.say(client, &format!(r#"{{"id":2,"subscribe":{{"channel":"{topic}"}}}}"#));
        assert!(lines.len() == 1 && lines[0].starts_with(topic), "{lines:?}");
        let lines = self.started(client, topic, SubscriptionStart::default());
        assert!(lines.len() == 1 && lines[0].contains(r#""subscribe":{"#), "{lines:?}");
    }

    pub(crate) fn control(&mut self, client: u32, control: &Control) -> Vec<String> {
        let nothing = Completion(std::sync::Arc::new(|_| {}));
        self.control_with(client, control, nothing)
    }

    pub(crate) fn control_with(
        &mut self,
        client: u32,
        control: &Control,
        completion: Completion,
    ) -> Vec<String> {
        self.with(client, |session, context| session.control(context, control, completion))
    }

    /// Lets time pass without looking at anybody.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now.millis += time.as_millis() as u64;
        self.now.unix_millis += time.as_millis() as i64;
    }

    /// Moves on to the moment at which the session wants to be looked at, and looks.
    pub(crate) fn next(&mut self, client: u32) -> Vec<String> {
        let deadline = self.session(client).deadline();
        assert_ne!(deadline, u64::MAX, "nothing is due");
        self.wait(Duration::from_millis(deadline.saturating_sub(self.now.millis)));
        self.tick(client)
    }

    pub(crate) fn tick(&mut self, client: u32) -> Vec<String> {
        self.with(client, |session, context| session.tick(context))
    }

    /// The client has gone.
    pub(crate) fn end(&mut self, client: u32) -> Vec<String> {
        self.with(client, |session, context| session.end(context, Left::Gone))
    }

    pub(crate) fn session(&self, client: u32) -> &Session {
        &self.sessions[client as usize - 1]
    }

    pub(crate) fn session_mut(&mut self, client: u32) -> &mut Session {
        &mut self.sessions[client as usize - 1]
    }

    /// Lets a session act, as its shard would, and says what it wants done. Places that moved are told at once,
    /// as the shard does.
    pub(crate) fn with(
        &mut self,
        client: u32,
        act: impl FnOnce(&mut Session, &mut Context<'_>),
    ) -> Vec<String> {
        self.effects(client, act).iter().filter_map(lines::line).collect()
    }

    pub(crate) fn effects(
        &mut self,
        client: u32,
        act: impl FnOnce(&mut Session, &mut Context<'_>),
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut context = Context {
            settings: &self.settings,
            namespaces: &self.topics,
            tokens: &self.tokens,
            version: "test",
            registry: &mut self.registry,
            user_rates: &mut self.user_rates,
            effects: &mut effects,
            connection: ConnectionKey { slot: client, generation: 1 },
            now: self.now,
        };
        act(&mut self.sessions[client as usize - 1], &mut context);
        for effect in &effects {
            match effect {
                Effect::Moved(moved) => self.session_mut(moved.connection).moved(*moved),
                Effect::Topic(topic, TopicRequest::Subscribe { membership, .. }) => {
                    self.asked.push((client, topic.clone(), membership.clone()));
                }
                _ => {}
            }
        }
        effects
    }
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("the name is not empty")
}

pub(crate) fn position(offset: u64) -> Position {
    Position { epoch: Epoch::parse(b"abcdefgh").expect("eight letters"), offset }
}

/// A subscription at a position, with nothing missed and nothing recovered.
pub(crate) fn at(offset: u64) -> SubscriptionStart {
    SubscriptionStart { position: Some(position(offset)), recovered: None, is_too_long: false }
}

/// A subscription at a position, with what was missed up to there.
pub(crate) fn recovered(offset: u64, missed: &[u64]) -> SubscriptionStart {
    let publication = |&offset: &u64| {
        let data = format!("{offset}0").into();
        std::sync::Arc::new(Publication { data, offset, ..Publication::default() })
    };
    SubscriptionStart { recovered: Some(missed.iter().map(publication).collect()), ..at(offset) }
}
