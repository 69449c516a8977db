//! The receiver of events, over HTTP.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fanwire_broker::LogRateLimit;
use hyper::header::{HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::http::HeaderValue;
use tokio::time::timeout;

use super::progress::Reply;
use crate::backend::{BackendTls, BackendTlsError, Client, Signer, post};
use crate::metrics::PostResult;
use crate::settings::WebhookSettings;

/// The body of an answer, which says nothing to us.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Less than the 5 s of Node's servers.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// A webhook that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("events.webhook.{0}")]
pub struct WebhookError(BackendTlsError);

pub(super) struct Webhook {
    pub(super) settings: WebhookSettings,
    signer: Option<Signer>,
    headers: HeaderMap,
    client: Client,
    log_limit: LogRateLimit,
}

impl Webhook {
    pub(super) fn new(settings: &WebhookSettings) -> Result<Self, WebhookError> {
        let url = &settings.url;
        let tls = match url.is_https() {
            true => Some(BackendTls::new(&settings.tls, url.host()).map_err(WebhookError)?),
            false => None,
        };
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("fanwire/", env!("CARGO_PKG_VERSION"))));
        headers.extend(settings.static_headers.iter().cloned());
        Ok(Self {
            signer: Signer::new(&settings.signature_secrets),
            headers,
            client: Client::new(url.clone(), tls, IDLE_TIMEOUT),
            settings: settings.clone(),
            log_limit: LogRateLimit::default(),
        })
    }

    /// Posts a body. Logs why it was not taken, but nothing of it.
    pub(super) async fn post(&self, body: Bytes) -> Reply {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = post(&self.settings.url, self.headers.clone(), self.signer.as_ref(), body, unix as i64);
        let answer = timeout(self.settings.timeout, self.client.send(request, ANSWER_BYTES_MAX)).await;
        let (reply, why) = match answer {
            Err(_) => (Reply::NoAnswer, "no answer within events.webhook.timeout".to_owned()),
            Ok(Err(error)) => (Reply::NoAnswer, error.to_string()),
            Ok(Ok(answer)) => {
                let status = answer.status;
                let retry_after = answer.headers.get(RETRY_AFTER).and_then(retry_after);
                self.client.keep(answer).await;
                (Reply::Status { status, retry_after }, format!("status {status}"))
            }
        };
        if reply.result() != PostResult::Delivered && self.log_limit.is_due() {
            tracing::warn!(url = %self.settings.url, why, "the webhook did not take events");
        }
        reply
    }

    /// Closes connections that are not used.
    pub(super) fn sweep(&self) {
        self.client.sweep();
    }
}

/// Reads the seconds, or the date, of a `Retry-After` header.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_has_seconds_or_a_date() {
        let read = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read(" 0 "), Some(Duration::ZERO));
        for nothing in ["", "-1", "soon", "1.5", "99999999999999999999999"] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let read_date = read(&date).unwrap();
        assert!((58..=60).contains(&read_date.as_secs()), "{read_date:?}");
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), None);
    }
}
