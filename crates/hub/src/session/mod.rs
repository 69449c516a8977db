//! One client's session: which commands it may give, what it is subscribed to, when it is due for something.
//!
//! Pure rules: commands, answers and the time come in, effects go out. Replies of one topic keep their order:
//! while a subscribe is on its way to the topic's owner, later commands for that topic wait behind it.

mod connect;
mod control;
mod history;
mod presence;
mod publish;
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

use fanwire_protocol::centrifuge::{Command, Empty, ReplyMessage, Request};
use fanwire_protocol::{ClientId, ClientInfo, Disconnect, ErrorCode, TopicName};

use crate::delivery::Wire;
use crate::effect::{Answer, ConnectionKey, Effect, TopicRequest};
use crate::registry::{Moved, Registry};
use crate::{
    ClientSettings, ConnectionClaims, NameError, Namespace, Namespaces, SubscriptionClaims, TokenError,
};
use refusal::{Refusal, named};
use subscription::{Subscription, Subscriptions};
use timing::Timing;
use work::Work;

pub use control::{Control, ServerSubscribe};
pub use rate::UserRates;

/// Proves tokens.
pub trait Verify {
    fn connection(&self, token: &str, unix: i64) -> Result<ConnectionClaims, TokenError>;
    fn subscription(&self, token: &str, unix: i64) -> Result<SubscriptionClaims, TokenError>;
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

/// What a session works with while it handles one input.
#[expect(missing_debug_implementations, reason = "a bundle of borrows, made and dropped for one call")]
pub struct Context<'a> {
    pub settings: &'a ClientSettings,
    pub topics: &'a Namespaces,
    pub tokens: &'a dyn Verify,
    /// What the server calls itself in the connect result.
    pub version: &'a str,
    pub registry: &'a mut Registry,
    pub user_rates: &'a mut UserRates,
    pub effects: &'a mut Vec<Effect>,
    pub connection: ConnectionKey,
    pub now: Now,
}

impl<'a> Context<'a> {
    fn namespace(&self, topic: &str) -> Result<&'a Namespace, NameError> {
        self.topics.of(topic)
    }

    fn reply(&mut self, reply: ReplyMessage) {
        self.effects.push(Effect::Reply(reply));
    }
}

/// How a session speaks with its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    pub wire: Wire,
    pub pings: Pings,
}

/// How a client is pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pings {
    /// By the protocol's own empty messages, which the client answers.
    Messages,
    /// By WebSocket ping frames, which every WebSocket client answers by itself.
    Frames,
    /// The transport cannot answer: something is sent, so that a dead connection shows.
    Keepalive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for the connect command.
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
    /// Who the client is: set by connect.
    info: Option<Arc<ClientInfo>>,
    subscriptions: Subscriptions,
    work: Option<Box<Work>>,
    timing: Timing,
    /// Commands that a topic's owner has not answered yet.
    asked: u16,
    /// What the connection token granted, to notice that a new one grants something else.
    grants: u64,
    phase: Phase,
    manner: Manner,
    /// Commands since the last ping, as far as no bucket counts them.
    uncounted: u8,
}

impl Session {
    /// Commands of one client that topics' owners work on at the same time.
    const ASKED_MAX: u16 = 16;

    /// Bytes of commands that wait for an earlier one, from which on no further command is to be given to the session.
    const WAITING_BYTES_MAX: usize = 64 << 10;

    pub fn new(client: ClientId, manner: Manner, settings: &ClientSettings, now: Now) -> Self {
        Self {
            client,
            info: None,
            subscriptions: Subscriptions::default(),
            work: None,
            timing: Timing::fresh(settings, now),
            asked: 0,
            grants: 0,
            phase: Phase::Fresh,
            manner,
            uncounted: 0,
        }
    }

    pub fn client(&self) -> ClientId {
        self.client
    }

    pub fn wire(&self) -> Wire {
        self.manner.wire
    }

    pub fn pings(&self) -> Pings {
        self.manner.pings
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

    /// As many commands as may be are with topics' owners: further ones had better wait, so that a client has no
    /// more than a few answers made for it before it has read any.
    pub fn is_busy(&self) -> bool {
        self.asked >= Self::ASKED_MAX || self.waiting_bytes() >= Self::WAITING_BYTES_MAX
    }

    /// Bytes of commands that wait for an earlier one to be answered.
    pub fn waiting_bytes(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.waiting_bytes)
    }

    /// There is an answer that further commands may have to wait for.
    pub fn lets_commands_wait(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.connecting.is_some() || !work.subscribing.is_empty())
    }

    /// Handles one command of the client.
    pub fn command(&mut self, context: &mut Context<'_>, command: Command) {
        let (id, request) = command.into_request();
        match (self.phase, request) {
            (Phase::Closed, _) => {}
            (Phase::Refused, _) => {
                let why = "connect was refused; open a new connection";
                self.close(context, Disconnect::bad_request(why));
            }
            (_, None) if id == 0 => self.pong(context),
            (_, None) => {
                let why = "the command has no known request; send one, such as subscribe";
                self.close(context, Disconnect::bad_request(why));
            }
            (_, Some(request)) if id == 0 && !matches!(request, Request::Send(_)) => {
                let why = "id is 0 or missing; number commands from 1";
                self.close(context, Disconnect::bad_request(why));
            }
            (Phase::Fresh, Some(Request::Connect(request))) => self.connect(context, id, request),
            (Phase::Fresh, Some(_)) => {
                let why = "the first command is not connect; send connect first";
                self.close(context, Disconnect::bad_request(why));
            }
            (_, Some(Request::Connect(_))) => {
                let why = "connect was sent before; send it once in each connection";
                self.close(context, Disconnect::bad_request(why));
            }
            (Phase::Connecting, Some(request)) => {
                if self.has_room(context) {
                    let work = self.work();
                    work.waiting_bytes += request.bytes();
                    work.queued.push_back((id, request));
                }
            }
            (Phase::Open, Some(request)) => self.request(context, id, request),
        }
    }

    fn request(&mut self, context: &mut Context<'_>, id: u32, request: Request) {
        if let Some(topic) = topic_of(&request)
            && let Some(place) = self.subscribing(topic)
        {
            match request {
                // Nothing between would end the first subscription, so the second is refused at once.
                Request::Subscribe(request) if self.work().subscribing[place].waiting.is_empty() => {
                    self.subscribe(context, id, request);
                }
                request => {
                    if self.has_room(context) {
                        let work = self.work();
                        work.waiting_bytes += request.bytes();
                        work.subscribing[place].waiting.push_back((id, request));
                    }
                }
            }
            return;
        }
        // To leave a topic frees something, and clients take a refusal of it for a broken connection.
        if !self.may_command(context) && !matches!(request, Request::Unsubscribe(_)) {
            return context.refuse(id, ErrorCode::TOO_MANY_REQUESTS);
        }
        match request {
            Request::Connect(_) | Request::Ping => {
                let why = "ping is not served; answer the server's pings instead";
                self.close(context, Disconnect::bad_request(why));
            }
            Request::Subscribe(request) => self.subscribe(context, id, request),
            Request::Unsubscribe(request) => self.unsubscribe(context, id, &request.channel),
            Request::Publish(request) => self.publish(context, id, request),
            Request::Presence(request) => self.presence(context, id, &request.channel),
            Request::PresenceStats(request) => self.presence_stats(context, id, &request.channel),
            Request::History(request) => self.history(context, id, request),
            Request::Rpc(request) => {
                // Only the built-in method exists; with none configured there is nothing to call at all.
                match &context.settings.rpc_ping_method {
                    Some(method) if *method == request.method => {
                        context.reply(ReplyMessage {
                            id,
                            rpc: Some(Default::default()),
                            ..ReplyMessage::default()
                        });
                    }
                    Some(_) => context.refuse(id, ErrorCode::METHOD_NOT_FOUND),
                    None => context.refuse(id, ErrorCode::NOT_AVAILABLE),
                }
            }
            Request::Send(_) => self.close(context, Disconnect::NOT_AVAILABLE),
            Request::Refresh(request) => self.refresh(context, id, &request.token),
            Request::SubRefresh(request) => self.sub_refresh(context, id, &request),
        }
    }

    /// Handles what the session was told in return for an effect.
    pub fn answer(&mut self, context: &mut Context<'_>, answer: Answer) {
        if self.phase == Phase::Closed {
            if let Answer::Subscribed { topic, membership, result: Ok(_) } = answer {
                context.effects.push(Effect::unsubscribe(topic, membership));
            }
            return;
        }
        if answer.is_to_command() {
            self.asked = self.asked.saturating_sub(1);
        }
        match answer {
            Answer::Registered(result) => self.registered(context, result),
            Answer::Subscribed { topic, membership, result } => {
                self.subscribed(context, topic, membership, result);
            }
            Answer::Published { command, result } => match result {
                Ok(()) => {
                    context.reply(ReplyMessage {
                        id: command,
                        publish: Some(Empty {}),
                        ..ReplyMessage::default()
                    });
                }
                Err(error) => context.refuse(command, error),
            },
            Answer::Presence { command, result } => presence::reply(context, command, result),
            Answer::PresenceStats { command, result } => presence::reply_stats(context, command, result),
            Answer::History { command, result } => history::reply(context, command, result),
        }
    }

    /// Another subscriber left and this session's subscription took its place in the topic.
    pub fn moved(&mut self, moved: Moved) {
        self.subscriptions.moved(moved.topic, moved.place);
    }

    /// Gives everything back and says nothing to the client: it has gone, or is told by its transport.
    pub fn end(&mut self, context: &mut Context<'_>) {
        if self.phase == Phase::Closed {
            return;
        }
        self.phase = Phase::Closed;
        self.work = None;
        for subscription in std::mem::take(&mut self.subscriptions) {
            self.leave(context, subscription);
        }
        if let Some(info) = self.info.as_ref().filter(|info| !info.user.is_empty()) {
            context.effects.push(Effect::Unregister { user: info.user.clone() });
        }
    }

    /// Ends the session and closes the connection.
    pub fn close(&mut self, context: &mut Context<'_>, why: Disconnect) {
        if self.phase != Phase::Closed {
            self.end(context);
            context.effects.push(Effect::Close(why));
        }
    }

    /// Sends a command on to the owner of its topic.
    fn ask(&mut self, context: &mut Context<'_>, topic: TopicName, request: TopicRequest) {
        self.asked = self.asked.saturating_add(1);
        context.effects.push(Effect::Topic(topic, request));
    }

    fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    /// Frees the work of a session that has become idle.
    fn rest(&mut self) {
        if self.work.as_ref().is_some_and(|work| work.is_done()) {
            self.work = None;
        }
    }

    /// Whether one more command may wait; if not, the connection is closed.
    fn has_room(&mut self, context: &mut Context<'_>) -> bool {
        let waiting = self.work.as_ref().map_or(0, |work| work.waiting());
        let has_room = waiting < context.settings.pending_commands_max;
        if !has_room {
            self.close(context, Disconnect::TOO_MANY_REQUESTS);
        }
        has_room
    }

    fn subscribing(&self, topic: &str) -> Option<usize> {
        self.work.as_ref()?.subscribing.iter().position(|s| s.topic.as_str() == topic)
    }

    fn subscription(&self, context: &Context<'_>, topic: &str) -> Option<&Subscription> {
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

    /// Who the client is in a topic.
    fn info_in(&self, context: &Context<'_>, topic: &str) -> Option<Arc<ClientInfo>> {
        let own = self.subscription(context, topic).and_then(|subscription| subscription.info.clone());
        own.or_else(|| self.info.clone())
    }
}

/// The topic whose order a request has to keep.
fn topic_of(request: &Request) -> Option<&str> {
    match request {
        Request::Subscribe(request) => Some(&request.channel),
        Request::Unsubscribe(request) => Some(&request.channel),
        Request::Publish(request) => Some(&request.channel),
        Request::Presence(request) => Some(&request.channel),
        Request::PresenceStats(request) => Some(&request.channel),
        Request::History(request) => Some(&request.channel),
        Request::SubRefresh(request) => Some(&request.channel),
        Request::Connect(_) | Request::Ping | Request::Rpc(_) | Request::Send(_) | Request::Refresh(_) => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use fanwire_protocol::centrifuge::{ConnectRequest, SubscribeRequest};

    use super::*;
    use crate::effect::{Joined, TopicRequest};

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
    }

    #[test]
    fn an_idle_session_keeps_nothing_of_its_work() {
        let settings = ClientSettings { insecure: true, ..ClientSettings::default() };
        let topics = Namespaces::default();
        let now = Now { millis: 0, unix_millis: 0 };
        let mut registry = Registry::default();
        let mut user_rates = UserRates::default();
        let mut effects = Vec::new();
        let mut context = Context {
            settings: &settings,
            topics: &topics,
            tokens: &NoTokens,
            version: "test",
            registry: &mut registry,
            user_rates: &mut user_rates,
            effects: &mut effects,
            connection: ConnectionKey { slot: 0, generation: 0 },
            now,
        };
        let client = ClientId::parse("00000000-0000-4000-8000-000000000001").unwrap();
        let manner = Manner { wire: Wire::JsonFrames, pings: Pings::Messages };
        let mut session = Session::new(client, manner, &settings, now);

        let connect = ConnectRequest::default();
        session.command(&mut context, Command { id: 1, connect: Some(connect), ..Command::default() });
        assert!(session.is_open() && session.work.is_none());

        let subscribe = SubscribeRequest { channel: "news".into(), ..SubscribeRequest::default() };
        session.command(&mut context, Command { id: 2, subscribe: Some(subscribe), ..Command::default() });
        assert!(session.work.is_some());
        let Some(Effect::Topic(topic, TopicRequest::Subscribe { membership, .. })) = context.effects.pop()
        else {
            panic!("the topic's owner is asked");
        };
        let result = Ok(Joined::default());
        session.answer(&mut context, Answer::Subscribed { topic, membership, result });
        assert_eq!(session.subscriptions_count(), 1);
        assert!(session.work.is_none());
    }
}
