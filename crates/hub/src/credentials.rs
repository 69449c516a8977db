//! The claims of a verified token. The server proves it; the session decides what it may do. Topics are texts here, as
//! the token has them; the session makes names of them where it checks the claims.

use bytes::Bytes;

use crate::format::{PublicationFormat, UnfitField};
use crate::namespace::{Namespace, Namespaces};

/// The end of something that a token granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Never,
    /// Seconds since 1970.
    At(i64),
}

/// A connection token, verified.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionClaims {
    /// Empty: an anonymous user.
    pub user: Box<str>,
    pub expiry: Expiry,
    /// Shown to others as the connection's info; empty when not given.
    pub info: Bytes,
    /// Topics subscribed on the server's side, from the claims `channels` and `subs`, each once, in their order.
    pub topics: Vec<TopicGrant>,
    pub extras: Option<Box<ClaimExtras>>,
}

/// The parts of a connection token that few have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimExtras {
    /// Sent to hooks, and not to clients: a JSON object; empty when not given.
    pub meta: Bytes,
    /// By which the client's connection is found when the token is revoked.
    pub print: Option<TokenPrint>,
}

/// The fingerprint of a token's name on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPrint(pub u64);

/// One server-side subscription that a connection token grants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicGrant {
    pub topic: Box<str>,
    pub options: GrantOptions,
}

/// The options that a token may set for one subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GrantOptions {
    /// Shown to others as the subscription's info; empty when not given.
    pub info: Bytes,
    /// Handed to the client with the subscribe result; empty when not given.
    pub data: Bytes,
    pub overrides: Overrides,
}

/// Namespace options that a token turns on or off for its own subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Overrides {
    pub presence: Option<bool>,
    pub join_leave: Option<bool>,
    pub force_push_join_leave: Option<bool>,
    pub force_positioning: Option<bool>,
    pub force_recovery: Option<bool>,
}

/// A subscription token, verified.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionClaims {
    pub user: Box<str>,
    pub topic: Box<str>,
    /// Binds the token to one client when not empty (a legacy claim).
    pub client: Box<str>,
    pub expiry: Expiry,
    pub options: GrantOptions,
}

/// The two kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Connection,
    Subscription,
}

/// Keys that are being fetched, by a number of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFetch(pub u64);

/// The reasons for which a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has expired or is not valid yet")]
    Expired,
    /// The text says what is wrong with it, for the operator's log; it never holds the token.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
    /// The keys cannot be had just now.
    #[error("tokens cannot be verified just now")]
    Unavailable,
}

impl ConnectionClaims {
    /// Checks everything in the token that clients are sent. Topics without a namespace are passed over.
    #[inline]
    pub fn check(&self, info_format: PublicationFormat, namespaces: &Namespaces) -> Result<(), UnfitField> {
        info_format.check_info(&self.info).map_err(|unfit| unfit.of("info"))?;
        for TopicGrant { topic, options } in &self.topics {
            if let Ok((_, namespace)) = namespaces.topic(topic) {
                options.check(namespace.publication_format, ["info in subs", "data in subs"])?;
            }
        }
        Ok(())
    }
}

impl SubscriptionClaims {
    /// The same for a subscription token of a topic in this namespace.
    pub fn check(&self, namespace: &Namespace) -> Result<(), UnfitField> {
        self.options.check(namespace.publication_format, ["info", "data"])
    }
}

impl GrantOptions {
    /// Checks info and data for a topic whose publications have this format. `fields` are their names in the error.
    pub fn check(&self, format: PublicationFormat, fields: [&'static str; 2]) -> Result<(), UnfitField> {
        let [info, data] = fields;
        format.check_info(&self.info).map_err(|unfit| unfit.of(info))?;
        format.check_info(&self.data).map_err(|unfit| unfit.of(data))
    }
}
