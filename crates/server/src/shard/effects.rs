//! The effects of sessions, carried out.

use fanwire_hub::effect::{Answer, ConnectionKey, Effect, TopicRequest};
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::reply::{Push, Reply};
use fanwire_protocol::wire::{Form, Wire};

use super::Shard;
use super::connection::{Connection, Role};
use crate::message::{ShardMessage, UserMessage};

impl Shard {
    /// Does what a session wants done.
    pub(super) fn apply(&mut self, slot: u32, effects: &mut Vec<Effect>) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let key = ConnectionKey { slot, generation: connection.generation };
        let Some(session) = connection.session() else { return };
        let (wire, pings) = (session.wire(), session.pings());
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
                Effect::Open(reply) => self.open(slot, wire, &reply),
                Effect::Ping => self.send(slot, wire.ping(pings)),
                Effect::Close(close) => self.close(slot, close),
                Effect::Register { user, single } => {
                    let message =
                        UserMessage::Register { user: user.clone(), from: self.address(key), single };
                    self.node.owner_of(&user).send(ShardMessage::User(message));
                }
                Effect::Unregister { user } => {
                    let message = UserMessage::Unregister { user: user.clone(), from: self.address(key) };
                    self.node.owner_of(&user).send(ShardMessage::User(message));
                }
                Effect::Topic(_, TopicRequest::Publish { command, .. })
                    if self.node.inboxes.is_fanout_full() =>
                {
                    let answer = Answer::Published { command, result: Err(RequestError::TooManyRequests) };
                    self.with_session(slot, |session, context| session.answer(context, answer));
                }
                effect @ Effect::Topic(..) => self.request(key, effect),
            }
        }
    }

    fn reply(&mut self, slot: u32, wire: Wire, reply: &Reply) {
        self.counters.replies.add(1);
        if let Err(refused) = &reply.result {
            self.counters.errors.count(codes::error(refused.error).number);
        }
        self.tell(slot, wire.reply(reply));
    }

    fn push(&mut self, slot: u32, wire: Wire, push: &Push) {
        self.counters.replies.add(1);
        if let Push::Unsubscribed { reason, .. } = push {
            self.counters.unsubscribes.count(codes::unsubscribed(*reason).0);
        }
        self.tell(slot, wire.push(push));
    }

    fn tell(&mut self, slot: u32, form: Form) {
        match form {
            Form::Bytes(frame) => {
                let frame = self.deflated(slot, frame);
                self.turn_bytes += frame.len();
                self.send(slot, frame);
            }
            Form::Nothing => {}
            Form::Close(reason) => self.close(slot, reason),
        }
    }

    /// The reply to connect goes before what the connection's subscriptions have brought already.
    fn open(&mut self, slot: u32, wire: Wire, reply: &Reply) {
        self.reply(slot, wire, reply);
        // A reply that has no form on the wire closes the connection.
        let connection = self.connections.get_mut(slot as usize).filter(|c| c.session().is_some());
        let Some(connection) = connection else { return };
        connection.is_live = true;
        self.counters.clients.add(1);
        let held = connection.held.take();
        for bytes in held.into_iter().flat_map(|held| held.into_chunks()) {
            self.send(slot, bytes);
        }
    }
}
