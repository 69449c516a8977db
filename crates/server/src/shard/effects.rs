//! The effects of sessions, carried out.

use std::sync::Arc;

use fanwire_hub::effect::{Answer, ConnectionKey, Effect, TopicRequest};
use fanwire_hub::hook::{HookAnswer, HookDenial, HookEvent, HookQuestion};
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::{CloseReason, Left, RequestError};
use fanwire_protocol::reply::{Outcome, Push, Reply};
use fanwire_protocol::wire::{Form, Wire};
use fanwire_protocol::{ClientId, TopicName};

use super::Shard;
use super::answer_room::Question;
use super::connection::{Connection, Feed, Role};
use super::opening::{Decision, Undecided};
use crate::inbox::Inbox;
use crate::message::{Holder, ShardMessage, UserMessage};

impl Shard {
    /// The connection's session still decides on its opening.
    fn is_undecided(&self, slot: u32) -> bool {
        self.connections.get(slot as usize).is_some_and(|connection| connection.is_undecided())
    }

    /// Does what a session wants done.
    pub(super) fn apply(&mut self, slot: u32, effects: &mut Vec<Effect>) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let key = ConnectionKey { slot, generation: connection.generation };
        let Some(session) = connection.session() else { return };
        let (wire, pings, client) = (session.wire(), session.pings(), session.client());
        for effect in effects.drain(..) {
            let is_closing = self.connections.get(slot as usize).is_none_or(|c| c.session().is_none());
            match effect {
                // An earlier effect closed the connection, after which nothing is said.
                Effect::Reply(_) | Effect::Push(_) | Effect::Open(_) | Effect::Ping | Effect::Close(_)
                    if is_closing => {}
                Effect::Moved(moved) => {
                    if let Some(Connection { role: Role::Client(session), .. }) =
                        self.connections.get_mut(moved.connection as usize)
                    {
                        session.moved(moved);
                    }
                }
                Effect::Reply(reply) => self.reply(slot, wire, &reply),
                Effect::Push(push) => self.push(slot, wire, &push),
                Effect::Open(reply) => self.open(slot, wire, reply),
                Effect::Ping if self.is_undecided(slot) => {}
                Effect::Ping => self.send(slot, wire.ping(pings)),
                Effect::Close(close) => self.close(slot, close),
                Effect::AwaitKeys { number, keys } => {
                    self.key_waits.enter(keys, key, number, self.now.millis)
                }
                Effect::Token(token) => {
                    self.tokens.insert(slot, token);
                }
                Effect::RegisterAddress => self.register_network(key, client),
                Effect::Register { user, single } => self.register(key, client, Holder::User(user), single),
                Effect::Unregister { user, left } => self.unregister(key, client, Holder::User(user), left),
                Effect::Topic(_, TopicRequest::Publish { id, .. }) if self.node.inboxes.is_fanout_full() => {
                    let answer = Answer::Published { id, result: Err(RequestError::TooManyRequests) };
                    self.with_session(slot, |session, context| session.answer(context, answer));
                }
                // The backend is not to hear of what would not be published.
                Effect::Hook(question)
                    if matches!(question.event, HookEvent::Publish { .. })
                        && self.node.inboxes.is_fanout_full() =>
                {
                    let denial = HookDenial::Error(RequestError::TooManyRequests.into());
                    let answer = HookAnswer { number: question.number, outcome: Err(denial) };
                    self.take_answer(key, Answer::Hooked(answer.into()));
                }
                Effect::Hook(question) => self.ask_hook(key, question),
                Effect::UnfitAnswer(slot, why) => self.node.hooks.unfit(slot, &why),
                effect @ Effect::Topic(..) => self.ask_owner(key, effect),
            }
        }
    }

    /// The inbox of the shard that counts the holder's connections. Anonymous clients are no user's, and stay with their
    /// shard.
    fn owner_of_holder(&self, holder: &Holder) -> &Inbox {
        match holder {
            Holder::User(user) if user.is_empty() => &self.node.inboxes.all[usize::from(self.index)],
            holder => self.node.owner_of_holder(holder),
        }
    }

    fn register(&self, key: ConnectionKey, client: ClientId, holder: Holder, single: bool) {
        let owner = self.owner_of_holder(&holder);
        let from = self.address(key);
        owner.send(ShardMessage::User(UserMessage::Register { holder, client, from, single }));
    }

    fn unregister(&self, key: ConnectionKey, client: ClientId, holder: Holder, left: Left) {
        let owner = self.owner_of_holder(&holder);
        let from = self.address(key);
        owner.send(ShardMessage::User(UserMessage::Unregister { holder, client, from, left }));
    }

    /// Has a connection counted for its network.
    fn register_network(&mut self, key: ConnectionKey, client: ClientId) {
        if let Some(of) = self.networks.get_mut(&key.slot) {
            of.is_registered = true;
            let holder = Holder::Network(of.network.to_string().into());
            self.register(key, client, holder, false);
        }
    }

    /// A connection no longer counts for its network.
    pub(super) fn leave_network(&mut self, key: ConnectionKey, client: ClientId) {
        if let Some(of) = self.networks.remove(&key.slot).filter(|of| of.is_registered) {
            self.unregister(key, client, Holder::Network(of.network.to_string().into()), Left::Gone);
        }
    }

    /// Sends a request of a session to the owner of its topic, or lets it wait until there is room for its answer.
    pub(super) fn ask_owner(&mut self, key: ConnectionKey, effect: Effect) {
        let Effect::Topic(topic, request) = effect else { return };
        let is_command = matches!(request, TopicRequest::Publish { .. } | TopicRequest::PresenceStats { .. });
        if request.is_read() || (is_command && self.answer_room.holds_up(key)) {
            self.answer_room.enter(key, self.user(key), Question::new(topic, request), self.now.millis);
            self.ask_in_turn();
        } else {
            let owner = self.node.owner_of(&topic);
            owner.send(ShardMessage::Topic(topic, self.address(key), request));
        }
    }

    /// Asks a hook for a session. The connection has the ticket for as long as it waits for the answer.
    fn ask_hook(&mut self, key: ConnectionKey, question: Arc<HookQuestion>) {
        let number = question.number;
        let ticket = self.node.hooks.send(self.address(key), question);
        let connection = self.connections.get_mut(key.slot as usize);
        if let Some(connection) = connection.filter(|connection| connection.session().is_some()) {
            connection.wait_for_hook(number, ticket);
        }
    }

    fn reply(&mut self, slot: u32, wire: Wire, reply: &Reply) {
        self.counters.replies.add(1);
        if let Err(refused) = &reply.result {
            self.counters.errors.count(codes::error(refused.error).number);
        }
        if self.is_undecided(slot) {
            return self.decide(slot, wire, reply);
        }
        self.tell(slot, wire.reply(reply));
    }

    fn push(&mut self, slot: u32, wire: Wire, push: &Push) {
        self.counters.replies.add(1);
        if let Push::Unsubscribed { reason, .. } = push {
            self.counters.unsubscribes.count(codes::unsubscribed(*reason).0);
        }
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let is_kept = connection.opening().is_some_and(|opening| opening.keep_push(push));
        if !is_kept {
            let form = connection.with_cursor(push, &self.registry).unwrap_or_else(|| wire.push(push));
            self.tell(slot, form);
        }
    }

    /// Takes the reply to a first request of a connection whose opening is not decided. The reply itself is not sent.
    fn decide(&mut self, slot: u32, wire: Wire, reply: &Reply) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let Connection { role: Role::Client(session), pending: Some(pending), .. } = connection else {
            return;
        };
        let Some(opening) = &mut pending.opening else { return };
        match opening.answered(wire, reply, |topic| {
            TopicName::new(topic).is_some_and(|topic| session.is_subscribed(&self.registry, &topic))
        }) {
            Decision::Open => {}
            Decision::Accepted => {
                let has_ended = connection.read_closed;
                let has_own_cursor = session.has_own_cursor();
                if let Some(opening) = connection.take_opening() {
                    self.begin(slot, wire, opening, has_own_cursor);
                }
                if has_ended {
                    self.leave(slot);
                }
            }
            Decision::Refused(refusal) => self.refuse(slot, refusal),
            Decision::Closed(reason) => self.close(slot, reason),
        }
    }

    /// Begins what the client asked for, with what its topics have brought already. A client that polls gets it with its
    /// first answer.
    fn begin(&mut self, slot: u32, wire: Wire, opening: Undecided, has_own_cursor: bool) {
        let has_news = opening.beginning.has_news();
        let beginning = opening.accepted(wire, has_own_cursor);
        self.reply_bytes += beginning.len();
        // It was counted as what is recovered, and is counted again as it is sent.
        self.forget_replied(slot);
        match self.connections.get_mut(slot as usize).and_then(Connection::polled_mut) {
            Some(polled) => {
                (polled.beginning, polled.has_news) = (beginning, has_news);
                self.go_live(slot);
                self.answer_poll(slot);
            }
            None => {
                self.send(slot, beginning);
                self.go_live(slot);
            }
        }
    }

    fn tell(&mut self, slot: u32, form: Form) {
        match form {
            Form::Bytes(frame) => {
                let frame = self.deflated(slot, frame);
                self.reply_bytes += frame.len();
                if !self.is_undecided(slot) {
                    return self.send(slot, frame);
                }
                let queue_bytes_max = self.node.settings.client.queue_bytes_max;
                let connection = self.connections.get_mut(slot as usize);
                if connection.is_some_and(|connection| connection.hold(frame, queue_bytes_max).is_err()) {
                    self.close(slot, CloseReason::Slow);
                }
            }
            Form::Nothing => {}
            Form::Close(reason) => self.close(slot, reason),
        }
    }

    /// The reply to connect goes before what the connection's subscriptions have brought already.
    fn open(&mut self, slot: u32, wire: Wire, mut reply: Reply) {
        if let Ok(Outcome::Connected(connected)) = &mut reply.result {
            connected.session = self.session_names(slot, connected.client);
        }
        self.reply(slot, wire, &reply);
        self.go_live(slot);
    }

    /// From now on the connection gets what its topics bring, after what they have brought already; not yet if its opening
    /// is not decided.
    fn go_live(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        // A reply that has no form on the wire closes the connection.
        let Some(session) = connection.session() else { return };
        if connection.feed != Feed::Held || connection.is_undecided() {
            return;
        }
        let feed = Feed::of(session);
        connection.set_feed(feed, &mut self.own_feeds);
        self.counters.clients.add(1);
        let held = connection.take_held();
        for bytes in held.into_iter().flat_map(|held| held.into_chunks()) {
            self.reply_bytes += bytes.len();
            self.send(slot, bytes);
        }
    }
}
