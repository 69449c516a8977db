//! How the parts of a node reach each other: every shard has one inbox, and everything for it goes through there.
//!
//! Messages from one sender arrive in order. A topic's owner therefore sends the answer to a subscribe and the
//! topic's publications through the same inbox, and neither can overtake the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanwire_hub::delivery::{Delivery, Message as Content};
use fanwire_hub::effect::{Answer, Completion, ConnectionKey, TopicRequest};
use fanwire_hub::session::Control;
use fanwire_protocol::{ClientId, TopicName};
use rustc_hash::FxHashSet;
use tokio::sync::mpsc;

use crate::node::TopicCall;
use crate::users::UserMessage;

/// A connection anywhere on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub shard: u16,
    pub connection: ConnectionKey,
}

#[derive(Debug)]
pub(crate) enum Message {
    /// For every subscriber of the topic on this shard.
    Deliver(Arc<Delivery>),
    /// The topic's stream has a hole: subscriptions with a position have to start over.
    Lost(TopicName),
    /// For one session.
    Answer(ConnectionKey, Answer),
    Control(Order),
    /// For the topic's owner, from a session.
    Topic(TopicName, Address, TopicRequest),
    /// For the topic's owner, from the API.
    Call(TopicName, TopicCall),
    /// For the user's owner.
    User(UserMessage),
    Survey(Survey),
    /// Close every client, then say so by dropping the sender.
    Drain(mpsc::Sender<()>),
}

impl Message {
    /// It comes from what a client asked.
    fn is_request(&self) -> bool {
        matches!(self, Self::Topic(..) | Self::Answer(..) | Self::User(_))
    }
}

/// An order of the API for the sessions of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub to: Recipients,
    pub control: Control,
    pub completion: Completion,
}

#[derive(Clone, Debug)]
pub(crate) enum Recipients {
    /// A session that its user's owner knows; with a client id, only if it is that client.
    Connection(ConnectionKey, Arc<Filter>),
    /// The session of this client, if it is on the shard.
    Client(ClientId),
}

/// Which of a user's sessions an order is for.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub only: Option<ClientId>,
    pub except: FxHashSet<ClientId>,
}

impl Filter {
    pub(crate) fn takes(&self, client: ClientId) -> bool {
        self.only.is_none_or(|only| only == client) && !self.except.contains(&client)
    }
}

/// A question to every shard.
#[derive(Debug)]
pub(crate) enum Survey {
    /// Topics with subscribers on the shard, and how many.
    Topics(mpsc::UnboundedSender<Vec<(TopicName, usize)>>),
}

/// The sending side of a shard's inbox.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    sender: mpsc::UnboundedSender<Message>,
    waiting_bytes: Arc<AtomicUsize>,
    waiting_requests: Arc<AtomicUsize>,
}

/// What a waiting delivery is counted for beside its data.
const DELIVERY_BYTES: usize = 256;

impl Inbox {
    /// Publications that wait for a shard's fan-out, in bytes. Beyond it publishers wait, and clients that
    /// publish are answered error 111.
    pub(crate) const WAITING_BYTES_MAX: usize = 64 << 20;

    /// What clients asked and were answered, as far as a shard has not come to it. Beyond it no shard reads from
    /// its clients, so those who ask faster than the node answers wait in their own sockets.
    pub(crate) const WAITING_REQUESTS_MAX: usize = 4096;

    pub(crate) fn new() -> (Self, Outlet) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (waiting_bytes, waiting_requests) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let inbox =
            Self { sender, waiting_bytes: waiting_bytes.clone(), waiting_requests: waiting_requests.clone() };
        (inbox, Outlet { receiver, waiting_bytes, waiting_requests })
    }

    /// Only a node that is going down has inboxes that nobody reads; nothing can be done for the message then.
    pub(crate) fn send(&self, message: Message) {
        match &message {
            Message::Deliver(delivery) => {
                self.waiting_bytes.fetch_add(bytes(delivery), Relaxed);
            }
            message if message.is_request() => {
                self.waiting_requests.fetch_add(1, Relaxed);
            }
            _ => {}
        }
        let _ = self.sender.send(message);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting_bytes.load(Relaxed) > Self::WAITING_BYTES_MAX
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.waiting_requests.load(Relaxed) > Self::WAITING_REQUESTS_MAX
    }
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct Outlet {
    receiver: mpsc::UnboundedReceiver<Message>,
    waiting_bytes: Arc<AtomicUsize>,
    waiting_requests: Arc<AtomicUsize>,
}

impl Outlet {
    /// Waits for a message; safe to cancel.
    pub(crate) async fn receive(&mut self) -> Option<Message> {
        let message = self.receiver.recv().await;
        self.note(message.as_ref());
        message
    }

    pub(crate) fn try_receive(&mut self) -> Option<Message> {
        let message = self.receiver.try_recv().ok();
        self.note(message.as_ref());
        message
    }

    fn note(&self, message: Option<&Message>) {
        match message {
            Some(Message::Deliver(delivery)) => {
                self.waiting_bytes.fetch_sub(bytes(delivery), Relaxed);
            }
            Some(message) if message.is_request() => {
                self.waiting_requests.fetch_sub(1, Relaxed);
            }
            _ => {}
        }
    }
}

fn bytes(delivery: &Delivery) -> usize {
    let data = match &delivery.message {
        Content::Publication(publication, _) => publication.data.len(),
        Content::Join(_) | Content::Leave(_) => 0,
    };
    data + DELIVERY_BYTES
}
