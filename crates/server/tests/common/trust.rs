//! An authority that issues certificates, the files in which a node finds one, and clients that trust the authority.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use fanwire_server::settings::TlsSettings;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name of a node in the tests.
const NAME: &str = "localhost";

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn issue(&self) -> Issued {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Clients that know this authority alone. They remember sessions, so one of them comes back faster.
    pub(crate) fn trust(&self, versions: &[&'static SupportedProtocolVersion]) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_protocol_versions(versions).unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Trust(TlsConnector::from(Arc::new(config)))
    }
}

pub(crate) struct Trust(TlsConnector);

impl Trust {
    pub(crate) async fn shake_hands(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.connect(ServerName::try_from(NAME).unwrap(), stream).await
    }
}

/// A folder with a certificate and its key, which goes with the test.
pub(crate) struct CertificateFiles(PathBuf);

impl CertificateFiles {
    pub(crate) fn new(issued: &Issued) -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("fanwire-tls-{}-{}", std::process::id(), FOLDERS.fetch_add(1, Relaxed));
        let files = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&files.0).unwrap();
        files.write(issued);
        files
    }

    pub(crate) fn write(&self, issued: &Issued) {
        let TlsSettings { certificate_file, key_file, .. } = self.settings();
        fs::write(certificate_file, &issued.certificate).unwrap();
        fs::write(key_file, &issued.key).unwrap();
    }

    pub(crate) fn settings(&self) -> TlsSettings {
        TlsSettings {
            certificate_file: self.0.join("certificate.pem"),
            key_file: self.0.join("key.pem"),
            reload_interval: Some(Duration::from_millis(50)),
            http2: false,
        }
    }
}

impl Drop for CertificateFiles {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
