//! Looks whether the certificate's files have changed, and has new handshakes present what they hold. Contents are
//! compared, not times: Kubernetes replaces a secret's files by turning a link. What cannot be used changes nothing.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Tls;
use super::certificate::{Certificate, CertificateError, Files};
use crate::settings::TlsSettings;

/// Certificate and key are written one after the other: what does not fit together is looked at again before it is
/// called wrong.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Follows the files for as long as it is polled.
pub(crate) async fn follow(tls: Tls, settings: TlsSettings) {
    let mut known = Known::Content(tls.0.fingerprint);
    loop {
        let is_asked = wait(&tls, settings.reload_interval).await;
        let mut found = look(&settings).await;
        if found.known == known && !is_asked {
            continue;
        }
        if found.certificate.is_err() {
            tokio::time::sleep(SETTLE_TIME).await;
            found = look(&settings).await;
        }
        known = found.known;
        match found.certificate {
            Ok(certificate) => {
                let days_left = certificate.validity.days_left();
                match certificate.validity.fault() {
                    None => tracing::info!(days_left, "the TLS certificate was reloaded"),
                    Some(fault) => tracing::warn!(days_left, "the TLS certificate was reloaded, but {fault}"),
                }
                tls.0.current.replace(certificate);
                tls.0.reloads.fetch_add(1, Relaxed);
            }
            Err(error) => {
                tracing::error!(%error, "the TLS certificate was not reloaded; the one from before stays in use");
                tls.0.reloads_failed.fetch_add(1, Relaxed);
            }
        }
    }
}

/// What was found last, whether it could be used or not: an error is told once for each change.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    Content([[u8; 32]; 2]),
    /// Why there was no content.
    Nothing(String),
}

struct Found {
    known: Known,
    certificate: Result<Certificate, CertificateError>,
}

/// Waits until it is time to look, and says whether somebody asked for it.
async fn wait(tls: &Tls, interval: Option<Duration>) -> bool {
    let asked = tls.0.asked.notified();
    match interval {
        Some(interval) => tokio::time::timeout(interval, asked).await.is_ok(),
        None => {
            asked.await;
            true
        }
    }
}

/// Reads beside the runtime: the files may be on a disk that does not answer.
async fn look(settings: &TlsSettings) -> Found {
    let settings = settings.clone();
    let look = move || match Files::read(&settings) {
        Ok(files) => Found { known: Known::Content(files.fingerprint()), certificate: files.certificate() },
        Err(error) => Found { known: Known::Nothing(error.to_string()), certificate: Err(error) },
    };
    tokio::task::spawn_blocking(look).await.expect("reading files does not panic")
}
