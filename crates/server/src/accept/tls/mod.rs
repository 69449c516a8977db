//! TLS on the client port, one configuration for all shards. The certificate can be replaced while the node runs; open
//! connections keep the one they have.

mod accept;
mod certificate;
mod reload;
mod validity;

#[cfg(test)]
mod made;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use tokio::sync::Notify;

pub(crate) use accept::{ServerStream, TlsHandshake, has_agreed_on_http2, shake_hands};
use certificate::PemFiles;
pub use certificate::{Certificate, CertificateError, CertificateProblem};
pub(crate) use reload::follow;
pub use validity::Validity;

use crate::settings::TlsSettings;

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// Sessions that are remembered for clients of TLS 1.2 that take no tickets, on the whole node. Tickets are kept by
/// clients and cost the node nothing.
const SESSIONS_MAX: usize = 1024;

/// A client with one connection comes back with one ticket.
const TICKETS: usize = 1;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Arc<TlsShared>);

#[derive(Debug)]
struct TlsShared {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    /// The fingerprint of the files when they were first read.
    fingerprint: [[u8; 32]; 2],
    /// Somebody wants the files to be read now.
    asked: Notify,
    reloads: AtomicU64,
    reloads_failed: AtomicU64,
}

/// The figures of the certificate that metrics show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlsStats {
    /// In seconds since 1970.
    pub expires: i64,
    pub reloads: u64,
    pub reloads_failed: u64,
}

/// The certificate for the next handshake. The lock guards it alone, and is held to copy or replace a pointer.
#[derive(Debug)]
struct Current(RwLock<Arc<Certificate>>);

impl Current {
    fn certificate(&self) -> Arc<Certificate> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, certificate: Certificate) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificate);
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certificate().key.clone())
    }
}

impl Tls {
    pub(crate) fn new(settings: &TlsSettings) -> Result<Self, CertificateError> {
        let files = PemFiles::read(settings)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(files.certificate()?))));
        let mut config = versions().with_no_client_auth().with_cert_resolver(current.clone());
        let protocols: &[&[u8]] = if settings.http2 { &[HTTP2, HTTP1] } else { &[HTTP1] };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        config.send_tls13_tickets = TICKETS;
        match Ticketer::new() {
            Ok(ticketer) => config.ticketer = ticketer,
            // Clients then come back by whole handshakes.
            Err(error) => tracing::warn!(%error, "TLS session tickets cannot be made"),
        }
        Ok(Self(Arc::new(TlsShared {
            config: Arc::new(config),
            current,
            fingerprint: files.fingerprint(),
            asked: Notify::new(),
            reloads: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
        })))
    }

    /// Reads the files now, independent of the interval.
    pub(crate) fn reload(&self) {
        self.0.asked.notify_one();
    }

    pub(crate) fn stats(&self) -> TlsStats {
        TlsStats {
            expires: self.0.current.certificate().validity.until,
            reloads: self.0.reloads.load(Relaxed),
            reloads_failed: self.0.reloads_failed.load(Relaxed),
        }
    }
}

fn versions() -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has cipher suites for both versions")
}
