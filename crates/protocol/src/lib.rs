//! The words every part of Fanwire shares, and one module per wire protocol: bytes to values and back.
//!
//! Nothing here knows a socket, a clock or a runtime, so all of it can be fuzzed and measured alone.

pub mod position;
pub mod publication;
pub mod topic;
pub mod capacity;
pub mod event_mask;
pub mod user_status;
pub mod filter;
pub mod reason;
pub mod request;
pub mod reply;
pub mod cursor;
pub mod wire;

pub mod centrifuge;
pub mod json;
pub mod plain;
pub mod proxy;
pub mod websocket;

pub use cursor::Cursor;
pub use event_mask::EventMask;
pub use position::{Epoch, Position};
pub use publication::{ANSWER_OVERHEAD_BYTES, ClientId, ClientInfo, Publication, Tags};
pub use topic::TopicName;
pub use user_status::StatusMessage;
