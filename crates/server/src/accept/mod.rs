//! From a listening socket to a request that can be routed: listeners, admission, TLS, HTTP/1 and its limits.

pub(crate) mod bind;
pub(crate) mod serve;
pub(crate) mod admission;
pub mod tls;
pub(crate) mod unreadable;
pub(crate) mod framing;
pub(crate) mod validity;
pub(crate) mod foreign;
pub(crate) mod origin;
