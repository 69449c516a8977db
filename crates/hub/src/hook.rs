//! Hooks: the questions that sessions have for the application's backend, and its answers. Nothing here asks: the server
//! does.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::reason::{Close, Refused};
use fanwire_protocol::wire::Wire;
use fanwire_protocol::{ClientId, Tags, TopicName};

use crate::hook_settings::HookSlot;
use crate::kept::Kept;
use crate::{ConnectionClaims, Expiry, GrantOptions};

/// A question to a hook.
#[derive(Debug)]
pub struct HookQuestion {
    /// The session's number for it, which the answer has too.
    pub number: u32,
    pub slot: HookSlot,
    pub client: ClientId,
    /// Empty: anonymous, or not known yet.
    pub user: Box<str>,
    /// `None`: a request without a session.
    pub wire: Option<Wire>,
    pub event: HookEvent,
    pub kept: Option<Arc<Kept>>,
}

/// The event that a hook is asked about.
pub enum HookEvent {
    Connect {
        data: Bytes,
        /// The client's name and version, by its own word.
        name: Box<str>,
        version: Box<str>,
        /// Topics that the client asks for.
        topics: Vec<Box<str>>,
    },
    Refresh,
    Subscribe {
        topic: TopicName,
        data: Bytes,
    },
    SubRefresh {
        topic: TopicName,
    },
    Publish {
        topic: TopicName,
        data: Bytes,
        tags: Option<Arc<Tags>>,
    },
    Call {
        method: Box<str>,
        data: Bytes,
    },
    Send {
        method: Option<Box<str>>,
        data: Bytes,
    },
}

impl HookEvent {
    /// Returns the name of the event.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Refresh => "refresh",
            Self::Subscribe { .. } => "subscribe",
            Self::SubRefresh { .. } => "sub_refresh",
            Self::Publish { .. } => "publish",
            Self::Call { .. } => "rpc",
            Self::Send { .. } => "send",
        }
    }

    /// Returns the bytes of the client's own words in it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Connect { data, name, version, topics } => {
                let topics = topics.iter().map(|topic| topic.len());
                data.len() + name.len() + version.len() + topics.sum::<usize>()
            }
            Self::Refresh | Self::SubRefresh { .. } => 0,
            Self::Subscribe { data, .. } | Self::Publish { data, .. } => data.len(),
            Self::Call { method, data } => method.len() + data.len(),
            Self::Send { method, data } => method.as_ref().map_or(0, |method| method.len()) + data.len(),
        }
    }
}

/// Without a word of the client: data and headers may be secrets.
impl fmt::Debug for HookEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} bytes", self.name(), self.bytes())
    }
}

/// The answer to a question.
#[derive(Debug)]
pub struct HookAnswer {
    /// That of the question.
    pub number: u32,
    pub outcome: Result<HookResult, HookDenial>,
}

/// A hook that did not grant what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookDenial {
    /// The application refuses the request.
    Error(Refused),
    /// The application sends the client away.
    Close(Close),
    /// There is no answer, or none that can be read.
    Failed,
}

/// The result of a hook, by the event that it was asked about.
#[derive(Debug)]
pub enum HookResult {
    /// `None`: the application does not know the client.
    Connect(Option<Box<HookClaims>>),
    /// Of a connection or of a subscription.
    Refresh(Renewal),
    Subscribe(Box<SubscribeGrant>),
    Publish(Box<PublishChange>),
    /// The result of a method; empty: none.
    Called(Bytes),
    Sent,
}

/// A client as a hook knows it.
#[derive(Debug)]
pub struct HookClaims {
    pub claims: ConnectionClaims,
    /// Handed to the client with the connect result; empty when not given.
    pub data: Bytes,
    /// Sent to other hooks, and not to the client; empty when not given.
    pub meta: Bytes,
}

/// A subscription that a hook grants.
#[derive(Debug)]
pub struct SubscribeGrant {
    pub options: GrantOptions,
    pub expiry: Expiry,
}

/// The word of a hook on credentials that expire.
#[derive(Debug)]
pub enum Renewal {
    Expired,
    Until {
        expiry: Expiry,
        /// What is not given stays as it is.
        info: Option<Bytes>,
        meta: Option<Bytes>,
    },
}

/// A publication as a hook wants it.
#[derive(Debug, Default)]
pub struct PublishChange {
    /// In place of the client's.
    pub data: Option<Bytes>,
    pub tags: Option<Arc<Tags>>,
    pub options: PublishOptions,
}

/// Bytes of an idempotency key, and of a version epoch.
pub const KEY_BYTES_MAX: usize = 256;

/// Options of one publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// It is delivered, and not kept.
    pub skip_history: bool,
    /// A repeated key in the same topic publishes nothing.
    pub idempotency_key: Option<Box<str>>,
    /// A version above 0 is published only if it is above the last one of the same `version_epoch`.
    pub version: u64,
    pub version_epoch: Box<str>,
}

impl PublishOptions {
    pub fn has_long_key(&self) -> bool {
        let key = self.idempotency_key.as_deref().unwrap_or_default();
        key.len() > KEY_BYTES_MAX || self.version_epoch.len() > KEY_BYTES_MAX
    }
}
