//! The task that fetches key sets, one after the other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_broker::LogRateLimit;
use fanwire_hub::KeyFetch;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use tokio::time::timeout;

use super::KeySets;
use super::key_set::{KeySet, NoKeySet};
use crate::backend::{BackendUrl, Client, ClientError, UrlError};

const ATTEMPTS: u32 = 2;

/// A longer answer is not read.
const SET_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the address {0}")]
    Url(#[from] UrlError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no answer within {0:?} (`jwks_timeout`)")]
    Timeout(Duration),
    #[error("the answer has the status {0} instead of 200")]
    Status(u16),
    #[error(transparent)]
    NoKeySet(#[from] NoKeySet),
}

/// Fetches sets when they are wanted, and again before their time is over, for as long as it is polled. `tell` is called
/// after each fetch, complete or not.
pub(crate) async fn follow(sets: Arc<KeySets>, tell: impl Fn(KeyFetch)) {
    let failures = LogRateLimit::default();
    loop {
        let url = sets.next().await;
        let set = match fetch_patiently(&sets, &url).await {
            Ok((set, unused)) => {
                tracing::debug!(%url, unused, "fetched the keys of an identity provider");
                Some(set)
            }
            Err(error) => {
                if failures.is_due() {
                    tracing::warn!(%error, "the keys of the identity provider could not be fetched");
                }
                None
            }
        };
        if let Some(number) = sets.fetched(&url, set) {
            tell(number);
        }
    }
}

/// Returns a set, and the number of its keys that cannot be used.
async fn fetch_patiently(sets: &KeySets, url: &str) -> Result<(KeySet, usize), FetchError> {
    let patience = sets.settings.timeout;
    let mut attempt = 1;
    loop {
        let fetched = timeout(patience, fetch(sets, url)).await;
        let fetched = fetched.unwrap_or(Err(FetchError::Timeout(patience)));
        if fetched.is_ok() || attempt == ATTEMPTS {
            return fetched;
        }
        attempt += 1;
    }
}

async fn fetch(sets: &KeySets, url: &str) -> Result<(KeySet, usize), FetchError> {
    let url = BackendUrl::parse(url)?;
    let request = Request::get(url.path().clone())
        .header(HOST, url.authority())
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("fanwire/", env!("CARGO_PKG_VERSION")))
        .body(Full::<Bytes>::default())
        .expect("a parsed address is a valid request");
    let client = Client::new(url, sets.tls.clone(), Duration::ZERO);
    let answer = client.send(request, SET_BYTES_MAX).await?;
    match answer.status {
        200 => Ok(KeySet::parse(&answer.body)?),
        status => Err(FetchError::Status(status)),
    }
}
