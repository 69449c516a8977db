//! The limits on a listener's HTTP connections, the choice of the one that makes room when a limit is reached, and the
//! time that a peer has for each step.
//!
//! A connection that a shard owns (a WebSocket or a stream) does not count here.

mod connections;
mod drops;
mod files;
mod proxies;
mod network;
mod eviction;
mod pool;
mod watch;
mod watched;

pub(crate) use connections::{ConnectionGroup, GroupLimits, HttpConnection, HttpConnections};
pub(crate) use drops::{Port, Reason};
pub(crate) use files::{OpenFiles, Shares};
pub(crate) use network::{ClientNetwork, Counts};
pub(crate) use pool::GroupLimit;
pub(crate) use proxies::Proxies;
pub(crate) use watch::{FirstByte, Times, Watch, first_byte, refusal};
pub(crate) use watched::{StreamWatch, Watched};
