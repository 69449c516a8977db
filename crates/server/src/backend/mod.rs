//! Calls of the application's backends and of identity providers, over HTTP.

mod client;
mod post;
mod signature;
mod tls;
mod url;

pub(crate) use client::{Answer, Client};
pub use client::{ClientError, reach};
pub(crate) use post::post;
pub(crate) use signature::Signer;
pub use tls::{BackendTls, BackendTlsError};
pub use url::{BackendUrl, UrlError};
