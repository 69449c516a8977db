//! TLS to backends: the authorities that are trusted, and the gateway's own certificate where a backend asks for one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, pem};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, Error, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::settings::BackendTlsSettings;

const HTTP1: &[u8] = b"http/1.1";

/// The setting at fault, by its name, and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct BackendTlsError {
    pub setting: &'static str,
    pub problem: BackendTlsProblem,
}

#[derive(Debug, thiserror::Error)]
pub enum BackendTlsProblem {
    #[error("{}: cannot be read: {error}", file.display())]
    Unreadable { file: PathBuf, error: io::Error },
    #[error("{}: holds no certificate in PEM (\"BEGIN CERTIFICATE\") that can be understood", .0.display())]
    NoCertificate(PathBuf),
    #[error("{}: holds no private key in PEM, without a passphrase, that can be used", .0.display())]
    NoKey(PathBuf),
    #[error("is not the key of the certificate in certificate_file")]
    OtherKey,
    #[error(
        "is not set, and this system has no certificates of authorities. Set it, or install ca-certificates"
    )]
    NoRoots,
    #[error("is no name of a server: {0}")]
    Name(InvalidDnsNameError),
}

/// Makes TLS connections to one backend.
#[derive(Clone)]
pub struct BackendTls {
    pub(crate) connector: TlsConnector,
    /// The name that the backend's certificate has to have.
    pub(crate) name: ServerName<'static>,
}

impl BackendTls {
    /// `host` is the name in the backend's URL.
    pub fn new(settings: &BackendTlsSettings, host: &str) -> Result<Self, BackendTlsError> {
        let at = |setting| move |problem| BackendTlsError { setting, problem };
        let name = settings.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| at("server_name")(BackendTlsProblem::Name(error)))?;
        let roots = match &settings.ca_file {
            Some(file) => roots_in(file).map_err(at("ca_file"))?,
            None => roots_of_the_system().map_err(at("ca_file"))?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has cipher suites for both versions")
            .with_root_certificates(roots);
        let mut config = match &settings.identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let chain = certificates(&identity.certificate_file).map_err(at("certificate_file"))?;
                let key = private_key(&identity.key_file).map_err(at("key_file"))?;
                config.with_client_auth_cert(chain, key).map_err(|error| match error {
                    Error::InconsistentKeys(_) => at("key_file")(BackendTlsProblem::OtherKey),
                    Error::InvalidCertificate(_) => {
                        let file = identity.certificate_file.clone();
                        at("certificate_file")(BackendTlsProblem::NoCertificate(file))
                    }
                    _ => at("key_file")(BackendTlsProblem::NoKey(identity.key_file.clone())),
                })?
            }
        };
        config.alpn_protocols = vec![HTTP1.to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

impl std::fmt::Debug for BackendTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendTls").field("name", &self.name).finish_non_exhaustive()
    }
}

fn roots_in(file: &Path) -> Result<RootCertStore, BackendTlsProblem> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(file)?);
    if added == 0 { Err(BackendTlsProblem::NoCertificate(file.to_owned())) } else { Ok(roots) }
}

fn roots_of_the_system() -> Result<RootCertStore, BackendTlsProblem> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(BackendTlsProblem::NoRoots) } else { Ok(roots) }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BackendTlsProblem> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    read.ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| BackendTlsProblem::NoCertificate(file.to_owned()))
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, BackendTlsProblem> {
    let key: Result<_, pem::Error> = PrivateKeyDer::from_pem_slice(&read(file)?);
    key.map_err(|_| BackendTlsProblem::NoKey(file.to_owned()))
}

fn read(file: &Path) -> Result<Vec<u8>, BackendTlsProblem> {
    fs::read(file).map_err(|error| BackendTlsProblem::Unreadable { file: file.to_owned(), error })
}
