//! The Centrifuge client protocol, version 2, in JSON and Protobuf.
//!
//! A client sends commands, the server sends replies; several of either may share one frame.
//! Its "channel" is our topic. The server's API, which follows the same protocol, and claims of tokens have the word too.

pub mod encoding;
pub mod filter;
pub mod command;
pub mod reply_message;
pub mod decode;
pub mod emulation;
pub mod encode;
pub mod from_command;
pub mod to_reply_message;
pub mod codes;

pub use command::*;
pub use decode::{Commands, commands, commands_from, connect_request};
pub use emulation::EmulationRequest;
pub use encode::encode;
pub use encoding::Encoding;
pub use filter::FilterNode;
pub use reply_message::*;
