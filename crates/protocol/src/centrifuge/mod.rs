//! The Centrifuge client protocol, version 2, in JSON and Protobuf.
//!
//! A client sends commands, the server sends replies; several of either may share one frame.
//! Its "channel" is our topic. The server's API, which follows the same protocol, and claims of tokens have the word too.

pub mod encoding;
pub mod request;
pub mod reply;
pub mod decode;
pub mod encode;
pub mod requests;
pub mod replies;
pub mod codes;

pub use decode::{Commands, commands, commands_from, connect_request};
pub use encode::encode;
pub use encoding::Encoding;
pub use reply::*;
pub use request::*;
