//! One client's session: which requests it may make, what it is subscribed to, when it is due for something.
//!
//! Pure rules: requests, answers and the time come in, effects go out. Replies of one topic keep their order:
//! while a subscribe is on its way to the topic's owner, later requests for that topic wait behind it.

mod asking;
mod call;
mod connect;
mod control;
mod cursor;
mod history;
mod hooked;
mod keys;
mod prepare;
mod presence;
mod publish;
mod publisher;
mod rate;
mod refresh;
mod refusal;
mod subscribe;
mod subscription;
mod timing;
mod unsubscribe;
mod work;

use std::sync::Arc;

use bytes::Bytes;

use fanwire_protocol::reason::{Close, CloseReason, Left, Mistake, RequestError};
use fanwire_protocol::reply::Outcome;
use fanwire_protocol::request::{Ask, Request};
use fanwire_protocol::wire::{Pings, TransportMode, Wire};
use fanwire_protocol::{ClientId, ClientInfo, TopicName};

use crate::effect::{Answer, ConnectionKey, Effect, TopicRequest};
use crate::registry::{Moved, Registry, TopicSlot};
use crate::{
    ClientSettings, ConnectionClaims, KeyFetch, NameError, Namespace, Namespaces, SubscriptionClaims,
    TokenError, TokenKind,
};
use refusal::{Refusal, named};
use subscription::{Subscription, Subscriptions};
use timing::Timing;
use work::Work;

pub use asking::Draft;
pub use control::{Control, ServerSubscribe};
pub use publisher::{Denial, RequestPublisher};
pub use rate::{RateLimit, Rates};

/// Proves tokens.
pub trait Verify {
    fn connection(&self, token: &str, unix: i64) -> Result<ConnectionClaims, TokenError>;
    fn subscription(&self, token: &str, unix: i64) -> Result<SubscriptionClaims, TokenError>;
    /// Returns the keys that are fetched now, if the token names one of them that is not known yet: the token is to be
    /// verified once they are there.
    fn awaits_keys(&self, kind: TokenKind, token: &str) -> Option<KeyFetch>;
    /// Returns true while the user may not connect, whatever it proves.
    fn is_blocked(&self, user: &str, unix: i64) -> bool;
}

/// The moment at which something happens.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Milliseconds since the node started: for everything that is waited for.
    pub millis: u64,
    /// Milliseconds since 1970: for what tokens and clients speak of.
    pub unix_millis: i64,
}

impl Now {
    /// Seconds since 1970.
    pub fn unix(&self) -> i64 {
        self.unix_millis.div_euclid(1000)
    }
}

/// The things that a session works with while it handles one input.
#[expect(missing_debug_implementations, reason = "a bundle of borrows, made and dropped for one call")]
pub struct Context<'a> {
    pub settings: &'a ClientSettings,
    pub namespaces: &'a Namespaces,
    pub tokens: &'a dyn Verify,
    /// The server's version and name, as the connect result gives them.
    pub version: &'static str,
    pub registry: &'a mut Registry,
    pub user_rates: &'a mut Rates,
    pub effects: &'a mut Vec<Effect>,
    pub connection: ConnectionKey,
    pub now: Now,
}

impl<'a> Context<'a> {
    fn namespace(&self, topic: &TopicName) -> Result<&'a Namespace, NameError> {
        self.namespaces.of(topic)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for the connect request.
    Fresh,
    /// Waits for answers that the connect reply needs.
    Connecting,
    Open,
    /// Connect was answered with an error: the client is to go.
    Refused,
    Closed,
}

#[derive(Debug)]
pub struct Session {
    client: ClientId,
    /// The client's user and info: set by connect.
    info: Option<Arc<ClientInfo>>,
    subscriptions: Subscriptions,
    work: Option<Box<Work>>,
    timing: Timing,
    /// Requests that a topic's owner has not answered yet.
    asked: u16,
    /// A fingerprint of the connection token's grants, by which a new token that grants something else is noticed.
    grants: u64,
    phase: Phase,
    mode: TransportMode,
    /// Requests since the last ping, as far as no bucket counts them.
    uncounted: u8,
}

impl Session {
    /// Requests of one client that topics' owners work on at the same time.
    const ASKED_MAX: u16 = 16;

    /// Bytes of requests that wait for an earlier one, from which on no further request is to be given to the session.
    const WAITING_BYTES_MAX: usize = 64 << 10;

    pub fn new(client: ClientId, mode: TransportMode, settings: &ClientSettings, now: Now) -> Self {
        Self {
            client,
            info: None,
            subscriptions: Subscriptions::default(),
            work: None,
            timing: Timing::fresh(mode.wire, settings, now),
            asked: 0,
            grants: 0,
            phase: Phase::Fresh,
            mode,
            uncounted: 0,
        }
    }

    pub fn client(&self) -> ClientId {
        self.client
    }

    pub fn wire(&self) -> Wire {
        self.mode.wire
    }

    pub fn pings(&self) -> Pings {
        self.mode.pings
    }

    /// Empty until connect, and for the anonymous user.
    pub fn user(&self) -> &str {
        self.info.as_ref().map_or("", |info| &info.user)
    }

    /// The connect reply was sent: what topics bring may be, too.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Connect is being answered.
    pub fn is_connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    /// Nothing more is taken from the client.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Refused | Phase::Closed)
    }

    pub fn subscriptions_count(&self) -> usize {
        self.subscriptions.len()
    }

    pub fn is_subscribed(&self, registry: &Registry, topic: &TopicName) -> bool {
        registry.find(topic).is_some_and(|topic| self.subscriptions.find(topic).is_some())
    }

    /// Returns the place of its subscription in the topic's list of subscribers.
    pub fn place_in(&self, topic: TopicSlot) -> Option<u32> {
        self.subscriptions.find(topic).map(|subscription| subscription.place)
    }

    /// The limit of requests in flight at topic owners is reached: further ones wait, so that no more than a few answers
    /// are made for a client before it has read any.
    pub fn is_busy(&self) -> bool {
        self.asked >= Self::ASKED_MAX || self.waiting_bytes() >= Self::WAITING_BYTES_MAX
    }

    /// Bytes of requests that wait for an earlier one to be answered.
    pub fn waiting_bytes(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.waiting_bytes)
    }

    /// There is an answer that further requests may have to wait for.
    pub fn lets_requests_wait(&self) -> bool {
        self.work.as_ref().is_some_and(|work| {
            work.connecting.is_some() || !work.subscribing.is_empty() || work.asking.is_some()
        })
    }

    /// Handles one request of the client.
    pub fn request(&mut self, context: &mut Context<'_>, request: Request) {
        let Request { id, ask } = request;
        match (self.phase, ask) {
            (Phase::Closed, _) => {}
            (Phase::Refused, _) => self.close(context, Close::mistake(Mistake::AfterRefusal)),
            (_, Ask::Pong) => self.pong(context),
            (_, Ask::Wrong(mistake)) => self.close(context, Close::mistake(mistake)),
            (Phase::Fresh, Ask::Connect(connect)) if self.prepared().is_none() => {
                self.connect(context, id, connect);
            }
            (_, Ask::Connect(_)) => self.close(context, Close::mistake(Mistake::SecondConnect)),
            (Phase::Fresh, _) => self.close(context, Close::mistake(Mistake::NoConnect)),
            (Phase::Connecting, ask) => {
                if self.has_room(context) {
                    let request = Request { id, ask };
                    let work = self.work();
                    work.waiting_bytes += request.bytes();
                    work.queued.push_back(request);
                }
            }
            (Phase::Open, ask) => self.serve(context, Request { id, ask }),
        }
    }

    /// Serves a request of an open session, or lets it wait for an earlier one of its topic.
    fn serve(&mut self, context: &mut Context<'_>, request: Request) {
        if let Some(place) = self.awaited_by(context, &request) {
            match request {
                // Nothing between would end the first subscription, so the second is refused at once.
                Request { id, ask: Ask::Subscribe(subscribe) } if self.is_first_subscribe(place) => {
                    self.subscribe(context, id, subscribe);
                }
                request => {
                    if self.has_room(context) {
                        self.work().wait(place, [request]);
                    }
                }
            }
            return;
        }
        let Request { id, ask } = request;
        // To leave a topic frees something, and clients take a refusal of it for a broken connection.
        if !self.may_request(context) && !matches!(ask, Ask::Unsubscribe { .. }) {
            return context.refuse(id, RequestError::TooManyRequests);
        }
        match ask {
            Ask::Subscribe(subscribe) if subscribe.token.is_empty() => self.subscribe(context, id, subscribe),
            Ask::Unsubscribe { topic } => self.unsubscribe(context, id, &topic),
            Ask::Publish(publish) => self.publish(context, id, publish),
            Ask::Refused(mistake) => context.refuse(id, mistake),
            Ask::Presence { topic } => self.presence(context, id, &topic),
            Ask::PresenceStats { topic } => self.presence_stats(context, id, &topic),
            Ask::History(history) => self.history(context, id, history),
            Ask::Call { method, data } => self.call(context, id, method, data),
            Ask::Send { method, data } => self.send(context, method, data),
            ask @ (Ask::Subscribe(_) | Ask::Refresh { .. } | Ask::SubRefresh(_)) => {
                self.serve_by_token(context, Request { id, ask });
            }
            // The others were handled before.
            Ask::Ping | Ask::Pong | Ask::Wrong(_) | Ask::Connect(_) => {
                self.close(context, Close::mistake(Mistake::PingUnserved));
            }
        }
    }

    /// Handles what the session was told in return for an effect.
    pub fn answer(&mut self, context: &mut Context<'_>, answer: Answer) {
        if self.phase == Phase::Closed {
            if let Answer::Subscribed { topic, membership, result: Ok(_) } = answer {
                context.effects.push(Effect::unsubscribe(topic, membership, Left::Gone));
            }
            return;
        }
        if answer.is_to_request() {
            self.asked = self.asked.saturating_sub(1);
        }
        match answer {
            Answer::AddressRegistered(result) => self.address_registered(context, result),
            Answer::Registered(result) => self.registered(context, result),
            Answer::Subscribed { topic, membership, result } => {
                self.subscribed(context, topic, membership, result);
            }
            Answer::Published { id, result } => {
                context.reply_with(id, result.map(|()| Outcome::Published));
            }
            Answer::Presence { id, result } => {
                context.reply_with(id, result.map(Outcome::Presence));
            }
            Answer::PresenceStats { id, result } => {
                let stats = |(clients, users)| Outcome::PresenceStats { clients, users };
                context.reply_with(id, result.map(stats));
            }
            Answer::History { id, result, shows_time } => {
                let history = |(top, publications)| Outcome::History { top, publications, shows_time };
                context.reply_with(id, result.map(history));
            }
            Answer::Hooked(answer) => self.hooked(context, *answer),
            Answer::KeysFetched { number } => self.keys_fetched(context, number),
        }
    }

    /// Another subscriber left and this session's subscription took its place in the topic.
    pub fn moved(&mut self, moved: Moved) {
        self.subscriptions.moved(moved.topic, moved.place);
    }

    /// Gives everything back and says nothing to the client: it has gone, or is told by its transport.
    pub fn end(&mut self, context: &mut Context<'_>, left: Left) {
        if self.phase == Phase::Closed {
            return;
        }
        self.phase = Phase::Closed;
        self.work = None;
        for subscription in std::mem::take(&mut self.subscriptions) {
            self.leave(context, subscription, left.clone());
        }
        let is_registered = |user: &str| !user.is_empty() || !context.settings.events.is_empty();
        if let Some(info) = self.info.as_ref().filter(|info| is_registered(&info.user)) {
            context.effects.push(Effect::Unregister { user: info.user.clone(), left });
        }
    }

    /// Ends the session and closes the connection.
    pub fn close(&mut self, context: &mut Context<'_>, close: impl Into<Close>) {
        if self.phase != Phase::Closed {
            let close = close.into();
            self.end(context, Left::Closed(close.clone()));
            context.effects.push(Effect::Close(close));
        }
    }

    /// Sends a request on to the owner of its topic.
    fn ask(&mut self, context: &mut Context<'_>, topic: TopicName, request: TopicRequest) {
        self.asked = self.asked.saturating_add(1);
        context.effects.push(Effect::Topic(topic, request));
    }

    fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    /// Frees the work of a session that has become idle.
    fn rest(&mut self) {
        let Some(work) = &mut self.work else { return };
        if work.is_done() {
            self.work = None;
        } else if work.kept.is_some() {
            work.give_room_back();
        }
    }

    /// Returns true if one more request may wait. If not, the connection is closed.
    fn has_room(&mut self, context: &mut Context<'_>) -> bool {
        let waiting = self.work.as_ref().map_or(0, |work| work.waiting());
        let has_room = waiting < context.settings.pending_commands_max;
        if !has_room {
            self.close(context, CloseReason::TooManyRequests);
        }
        has_room
    }

    fn subscribing(&self, topic: &TopicName) -> Option<usize> {
        self.work.as_ref()?.subscribing.iter().position(|s| s.topic == *topic)
    }

    fn subscription(&self, context: &Context<'_>, topic: &TopicName) -> Option<&Subscription> {
        // Spares the search for the topic.
        if self.subscriptions.len() == 0 {
            return None;
        }
        self.subscriptions.find(context.registry.find(topic)?)
    }

    /// The connection's credentials now say something else of the client: others see it from now on, in
    /// publications and in the presence of the topics that it is in.
    fn set_connection_info(&mut self, context: &mut Context<'_>, connection: Bytes) {
        let Some(own) = self.info.as_mut().filter(|own| own.connection != connection) else { return };
        *own = Arc::new(ClientInfo { connection, ..ClientInfo::clone(own) });
        let own = own.clone();
        for subscription in self.subscriptions.iter_mut() {
            if let Some(info) = &mut subscription.info {
                let subscription = info.subscription.clone();
                *info = Arc::new(ClientInfo { subscription, ..ClientInfo::clone(&own) });
            }
            if subscription.traits.presence {
                let info = subscription.info.clone().unwrap_or_else(|| own.clone());
                let topic = context.registry.topic(subscription.topic).name.clone();
                let join_leave = subscription.traits.join_leave;
                context.effects.push(Effect::Topic(topic, TopicRequest::UpdatePresence { info, join_leave }));
            }
        }
    }

    /// Returns the client's info as a topic shows it.
    fn info_in(&self, context: &Context<'_>, topic: &TopicName) -> Option<Arc<ClientInfo>> {
        // Few subscriptions have one of their own.
        let has_own = self.subscriptions.iter().any(|subscription| subscription.info.is_some());
        let subscription = if has_own { self.subscription(context, topic) } else { None };
        subscription.and_then(|subscription| subscription.info.clone()).or_else(|| self.info.clone())
    }
}

#[cfg(test)]
mod tests {
    use fanwire_protocol::request::{Connect, Subscribe};

    use super::*;
    use crate::effect::{SubscriptionStart, TopicRequest};

    /// Every idle connection costs a session, and every subscription one of these: neither grows unnoticed.
    const _: () = assert!(size_of::<Session>() == 104);
    const _: () = assert!(size_of::<Subscription>() == 32);

    struct NoTokens;

    impl Verify for NoTokens {
        fn connection(&self, _: &str, _: i64) -> Result<ConnectionClaims, TokenError> {
            Err(TokenError::Unavailable)
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

    #[test]
    fn an_idle_session_keeps_nothing_of_its_work() {
        let settings = ClientSettings { insecure: true, ..ClientSettings::default() };
        let namespaces = Namespaces::default();
        let now = Now { millis: 0, unix_millis: 0 };
        let mut registry = Registry::default();
        let mut user_rates = Rates::default();
        let mut effects = Vec::new();
        let mut context = Context {
            settings: &settings,
            namespaces: &namespaces,
            tokens: &NoTokens,
            version: "test",
            registry: &mut registry,
            user_rates: &mut user_rates,
            effects: &mut effects,
            connection: ConnectionKey { slot: 0, generation: 0 },
            now,
        };
        let client = ClientId::parse("00000000-0000-4000-8000-000000000001").unwrap();
        let mode = TransportMode { wire: Wire::CentrifugeJson, pings: Pings::Messages };
        let mut session = Session::new(client, mode, &settings, now);

        session.request(&mut context, Request { id: 1, ask: Ask::Connect(Connect::default()) });
        assert!(session.is_open() && session.work.is_none());

        let subscribe = Subscribe { topic: "news".into(), ..Subscribe::default() };
        session.request(&mut context, Request { id: 2, ask: Ask::Subscribe(subscribe) });
        assert!(session.work.is_some());
        let Some(Effect::Topic(topic, TopicRequest::Subscribe { membership, .. })) = context.effects.pop()
        else {
            panic!("the topic's owner is asked");
        };
        let result = Ok(SubscriptionStart::default());
        session.answer(&mut context, Answer::Subscribed { topic, membership, result });
        assert_eq!(session.subscriptions_count(), 1);
        assert!(session.work.is_none());
    }
}
