//! The messages of other parts of the node, each handed to the part of the shard that it is for.

use std::time::Duration;

use fanwire_broker::Event;
use fanwire_hub::TokenPrint;
use fanwire_hub::effect::{Answer, ConnectionKey, Effect};
use fanwire_hub::session::{RateLimit, Session};
use fanwire_protocol::reason::{CloseReason, Left};
use fanwire_protocol::{ClientId, TopicName};

use super::Shard;
use super::connection::Connection;
use super::drain_schedule::DrainSchedule;
use super::key_waits::KeyWait;
use crate::message::{RateExceeded, Recipients, Requester, SessionOrder, ShardMessage, Survey};

impl Shard {
    pub(super) fn message(&mut self, message: ShardMessage) {
        let message = match message {
            ShardMessage::Deliver(delivery) => return self.groups.add(delivery),
            // What comes of it comes through the inbox too.
            ShardMessage::Event(event) => return self.topics.event(event),
            message => message,
        };
        if message.is_for_sessions() {
            // It may change who is subscribed, and must not overtake what came before it.
            self.link_groups();
        }
        match message {
            ShardMessage::Deliver(_) | ShardMessage::Event(_) => {}
            ShardMessage::Unrecoverable(topic) => self.lose_positions(&topic),
            ShardMessage::Answer(key, answer) => self.take_answer(key, answer),
            ShardMessage::ReadAnswer(key, answer, allowance) => {
                self.take_read_answer(key, answer, &allowance)
            }
            ShardMessage::Larger(key, topic, request, allowance) => {
                self.ask_again(key, topic, request, &allowance);
            }
            ShardMessage::Control(order) => self.order(order),
            ShardMessage::KeysFetched(keys) => {
                let waiting = self.key_waits.take_fetched(keys);
                self.end_waits(waiting);
            }
            ShardMessage::Revoke(token, reply) => {
                // Whoever asked may have given up.
                let _ = reply.send(self.close_revoked(token));
            }
            ShardMessage::Session(call) => self.take_session_call(*call),
            ShardMessage::ParkedAnswer(key, answer) => self.take_poll_answer(key, *answer),
            ShardMessage::NodeGone(node) => self.node_has_gone(node),
            ShardMessage::Topic(topic, from, request) => {
                self.topics.handle_request(topic, from, request, None)
            }
            ShardMessage::Read(topic, from, request, allowance) => {
                self.topics.handle_request(topic, from, request, Some(allowance));
            }
            ShardMessage::Call(topic, call) => self.topics.call(topic, call),
            ShardMessage::Publish(topic, publish, publisher) => {
                self.topics.publish(topic, *publish, publisher)
            }
            ShardMessage::User(message) => self.users.handle(message),
            ShardMessage::Debts(debts) => {
                let limit = RateLimit::of_user(&self.node.settings.client);
                for (user, debt) in debts {
                    self.user_rates.adopt(&user, debt, limit, self.now);
                }
            }
            ShardMessage::Survey(Survey::Topics(reply)) => {
                let topics = self.registry.topics().map(|t| (t.name.clone(), t.subscribers.len())).collect();
                // Whoever asked may have given up.
                let _ = reply.send(topics);
            }
            ShardMessage::Survey(Survey::Subscribers { topics, exclude, reply }) => {
                let counts = topics.iter().map(|topic| self.subscribers_of(topic, exclude)).collect();
                // Whoever asked may have given up.
                let _ = reply.send(counts);
            }
            ShardMessage::Count(requester, reply) => {
                // Whoever asked may have left.
                let _ = reply.send(self.count_request(&requester));
            }
            ShardMessage::GapsNoted => {
                for topic in self.node.inboxes.all[usize::from(self.index)].take_missed() {
                    self.topics.event(Event::Gap { topic });
                }
            }
            ShardMessage::Barrier(reached) => drop(reached),
            ShardMessage::Close(reason) => self.close_all(reason),
            ShardMessage::Drain(window) => self.drain(window),
        }
    }

    fn subscribers_of(&self, topic: &TopicName, exclude: Option<ClientId>) -> usize {
        let Some(topic) = self.registry.find(topic) else { return 0 };
        let slot = exclude.and_then(|client| self.clients.get(&client));
        let session = slot.and_then(|slot| self.connections[*slot as usize].session());
        let is_excluded = session.is_some_and(|session| session.place_in(topic).is_some());
        self.registry.topic(topic).subscribers.len() - usize::from(is_excluded)
    }

    /// Counts a request without a session.
    fn count_request(&mut self, requester: &Requester) -> Result<(), RateExceeded> {
        let settings = &self.node.settings.client;
        if !self.user_rates.may_request(&requester.user, settings, self.now) {
            return Err(RateExceeded::User);
        }
        match self.request_rates.may_request_alone(&requester.name(), settings, self.now) {
            true => Ok(()),
            false => Err(RateExceeded::Alone),
        }
    }

    pub(super) fn take_answer(&mut self, key: ConnectionKey, answer: Answer) {
        let is_there =
            self.connections.get(key.slot as usize).is_some_and(|c| c.is(key) && c.session().is_some());
        if is_there {
            if let Answer::Hooked(answer) = &answer {
                self.connections[key.slot as usize].has_hook_answer(answer.number);
            }
            // A hook may have had the last word on what the connection begins with.
            let begins = self.connections.get(key.slot as usize).is_some_and(Connection::is_prepared);
            self.with_session(key.slot, |session, context| {
                session.answer(context, answer);
                if begins {
                    session.begin(context);
                }
            });
            self.resume(key.slot);
        } else if let Answer::Subscribed { topic, membership, result: Ok(_) } = answer {
            // The client left while it was being subscribed.
            self.ask_owner(key, Effect::unsubscribe(topic, membership, Left::Gone));
        }
    }

    fn order(&mut self, order: SessionOrder) {
        let slot = match &order.to {
            Recipients::Connection(key, filter) => {
                let connection = self.connections.get(key.slot as usize).filter(|c| c.is(*key));
                let session = connection.and_then(Connection::session);
                session.filter(|session| filter.takes(session.client())).map(|_| key.slot)
            }
            Recipients::Client(client) => self.clients.get(client).copied(),
            Recipients::Session(one) => {
                let session = self.session_of(&one.key);
                let is_meant = |session: &&Session| {
                    one.filter.takes(session.client())
                        && one.user.as_ref().is_none_or(|user| **user == *session.user())
                };
                session.filter(is_meant).map(|_| one.key.connection.slot)
            }
        };
        if let Some(slot) = slot {
            // Kept until what follows from the order is on its way to the topics' owners: whoever gave the order
            // finds it carried out there.
            let _completion = order.completion.clone();
            self.with_session(slot, |session, context| {
                session.control(context, &order.control, order.completion);
            });
        }
    }

    /// Sessions need not wait any longer for keys.
    pub(super) fn end_waits(&mut self, waiting: Vec<KeyWait>) {
        for KeyWait { connection, number, .. } in waiting {
            self.take_answer(connection, Answer::KeysFetched { number });
        }
    }

    /// Closes the connections of a token, and returns how many there were.
    fn close_revoked(&mut self, token: TokenPrint) -> usize {
        let of_token = self.tokens.iter().filter(|(_, of)| **of == token);
        let slots: Vec<u32> = of_token.map(|(slot, _)| *slot).collect();
        for slot in &slots {
            self.close(*slot, CloseReason::InvalidToken);
        }
        slots.len()
    }

    fn lose_positions(&mut self, topic: &TopicName) {
        let Some(topic) = self.registry.find(topic) else { return };
        let subscribers = &self.registry.topic(topic).subscribers;
        let positioned: Vec<u32> =
            subscribers.iter().filter(|s| s.positioned).map(|s| s.connection).collect();
        for slot in positioned {
            self.with_session(slot, |session, context| session.lose_position(context, topic));
        }
    }

    fn close_all(&mut self, reason: CloseReason) {
        let clients: Vec<u32> = self.clients.values().copied().collect();
        for slot in clients {
            self.close(slot, reason);
        }
    }

    /// Begins to send everybody away, evenly over the window. Until it is their turn they are served as before.
    fn drain(&mut self, window: Duration) {
        let all = self.connections.iter();
        let all = all.map(|(slot, connection)| connection.key(slot as u32)).collect();
        self.drain_schedule = Some(DrainSchedule::new(all, Duration::from_millis(self.now.millis), window));
    }

    pub(super) fn close_due(&mut self) {
        let now = Duration::from_millis(self.now.millis);
        while let Some(key) = self.drain_schedule.as_mut().and_then(|schedule| schedule.take_due(now)) {
            if self.connections.get(key.slot as usize).is_some_and(|connection| connection.is(key)) {
                self.close(key.slot, CloseReason::Shutdown);
            }
        }
    }
}
