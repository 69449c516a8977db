//! The rules of a node without any I/O: what a session may do, who is subscribed, what waits for whom.
//!
//! Time comes in as an argument and effects go out as values, so every rule is tested without a runtime.
//! Nothing here knows Redis, HTTP or a socket.

pub mod settings;
pub mod namespace;
pub mod format;
pub mod credentials;
pub mod kept;
pub mod hook_settings;
pub mod permission;
pub mod hook;

pub mod session;
pub mod polls;
pub mod reorder;
pub mod effect;

pub mod registry;
pub mod delivery;
pub mod outbox;
pub mod fanout;
pub mod queue;
pub mod wheel;

pub use credentials::{
    ClaimExtras, ConnectionClaims, Expiry, GrantOptions, KeyFetch, Overrides, SubscriptionClaims, TokenError,
    TokenKind, TokenPrint, TopicGrant,
};
pub use format::{PublicationFormat, Unfit, UnfitField};
pub use namespace::{HistoryBounds, NameError, NameRules, Namespace, Namespaces, RecoveryMode, SlowPolicy};
pub use settings::{ClientSettings, PersonalTopic};
