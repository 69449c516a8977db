//! Looks whether the certificate's files have changed, and has new handshakes present what they hold. Contents are
//! compared, not times: Kubernetes replaces a secret's files by turning a link. What cannot be used changes nothing.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Tls;
use super::certificate::{Certificate, CertificateError, PemFiles};
use crate::settings::TlsSettings;

/// Certificate and key are written one after the other: what does not fit together is looked at again before it is
/// called wrong.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Follows the files for as long as it is polled.
pub(crate) async fn follow(tls: Tls, settings: TlsSettings) {
    let mut follower = Follower::new(tls, settings, SETTLE_TIME);
    loop {
        let occasion = wait(&follower.tls, follower.settings.reload_interval).await;
        follower.look(occasion).await;
    }
}

/// The reasons to look at the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    /// It is time. What is known already is left alone.
    Interval,
    /// Somebody asked, and is to be told what came of it.
    Request,
}

struct Follower {
    tls: Tls,
    settings: TlsSettings,
    settle_time: Duration,
    known: Known,
}

impl Follower {
    fn new(tls: Tls, settings: TlsSettings, settle_time: Duration) -> Self {
        let known = Known::Content(tls.0.fingerprint);
        Self { tls, settings, settle_time, known }
    }

    async fn look(&mut self, occasion: Occasion) {
        let mut found = look(&self.settings).await;
        if found.known == self.known && occasion == Occasion::Interval {
            return;
        }
        if found.certificate.is_err() {
            tokio::time::sleep(self.settle_time).await;
            found = look(&self.settings).await;
        }
        self.known = found.known;
        match found.certificate {
            Ok(certificate) => {
                let days_left = certificate.validity.days_left();
                match certificate.validity.fault() {
                    None => tracing::info!(days_left, "the TLS certificate was reloaded"),
                    Some(fault) => tracing::warn!(days_left, "the TLS certificate was reloaded, but {fault}"),
                }
                self.tls.0.current.replace(certificate);
                self.tls.0.reloads.fetch_add(1, Relaxed);
            }
            Err(error) => {
                tracing::error!(%error, "the TLS certificate was not reloaded; the previous one stays in use");
                self.tls.0.reloads_failed.fetch_add(1, Relaxed);
            }
        }
    }
}

/// The last content that was found, usable or not: an error is logged once for each change.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    Content([[u8; 32]; 2]),
    /// The reason for which there was no content.
    Nothing(String),
}

struct Found {
    known: Known,
    certificate: Result<Certificate, CertificateError>,
}

/// Waits until there is a reason to look.
async fn wait(tls: &Tls, interval: Option<Duration>) -> Occasion {
    let asked = tls.0.asked.notified();
    match interval {
        Some(interval) => match tokio::time::timeout(interval, asked).await {
            Ok(()) => Occasion::Request,
            Err(_) => Occasion::Interval,
        },
        None => {
            asked.await;
            Occasion::Request
        }
    }
}

/// Reads beside the runtime: the files may be on a disk that does not answer.
async fn look(settings: &TlsSettings) -> Found {
    let settings = settings.clone();
    let look = move || match PemFiles::read(&settings) {
        Ok(files) => Found { known: Known::Content(files.fingerprint()), certificate: files.certificate() },
        Err(error) => Found { known: Known::Nothing(error.to_string()), certificate: Err(error) },
    };
    tokio::task::spawn_blocking(look).await.expect("reading files does not panic")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;
    use crate::accept::tls::made;

    fn started() -> (made::Files, Tls) {
        let files = made::Files::new();
        files.write(&made::certificate());
        let tls = Tls::new(&files.settings()).unwrap();
        (files, tls)
    }

    #[tokio::test]
    async fn each_change_counts_once_however_often_it_is_seen() {
        let (files, tls) = started();
        let TlsSettings { certificate_file, key_file, .. } = files.settings();
        let mut follower = Follower::new(tls.clone(), files.settings(), Duration::ZERO);
        let mut counts = async || {
            for _ in 0..3 {
                follower.look(Occasion::Interval).await;
            }
            let stats = tls.stats();
            (stats.reloads, stats.reloads_failed)
        };
        assert_eq!(counts().await, (0, 0));
        let second = made::certificate();
        files.write(&second);
        assert_eq!(counts().await, (1, 0));
        fs::write(&key_file, "no key").unwrap();
        assert_eq!(counts().await, (1, 1));
        fs::write(&key_file, made::certificate().1).unwrap();
        assert_eq!(counts().await, (1, 2));
        fs::remove_file(&certificate_file).unwrap();
        assert_eq!(counts().await, (1, 3));
        files.write(&second);
        assert_eq!(counts().await, (2, 3));
    }

    #[tokio::test]
    async fn whoever_asks_is_told_though_nothing_has_changed() {
        let (files, tls) = started();
        let mut follower = Follower::new(tls.clone(), files.settings(), Duration::ZERO);
        follower.look(Occasion::Request).await;
        fs::write(files.settings().key_file, "no key").unwrap();
        for _ in 0..2 {
            follower.look(Occasion::Request).await;
        }
        let stats = tls.stats();
        assert_eq!((stats.reloads, stats.reloads_failed), (1, 2));
    }

    #[tokio::test]
    async fn the_second_of_two_files_may_come_a_little_later() {
        let (files, tls) = started();
        let (certificate, key) = made::certificate();
        fs::write(files.settings().certificate_file, certificate).unwrap();
        let mut follower = Follower::new(tls.clone(), files.settings(), Duration::from_millis(500));
        let mut looking = pin!(follower.look(Occasion::Interval));
        // The first look finds two that do not fit.
        tokio::time::timeout(Duration::from_millis(250), looking.as_mut()).await.unwrap_err();
        fs::write(files.settings().key_file, key).unwrap();
        looking.await;
        let stats = tls.stats();
        assert_eq!((stats.reloads, stats.reloads_failed), (1, 0));
    }

    #[tokio::test]
    async fn a_look_has_its_occasion() {
        let (_files, tls) = started();
        let mut waiting = pin!(wait(&tls, None));
        let is_pending = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await;
        assert!(is_pending);
        tls.reload();
        assert_eq!(waiting.await, Occasion::Request);
        // Nobody was waiting yet.
        tls.reload();
        assert_eq!(wait(&tls, Some(Duration::MAX)).await, Occasion::Request);
        assert_eq!(wait(&tls, Some(Duration::from_millis(1))).await, Occasion::Interval);
    }
}
