//! A certificate with its key, read from two PEM files and found to belong together.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use secrecy::{ExposeSecret, SecretSlice};

use super::validity::Validity;
use crate::settings::TlsSettings;

/// A certificate chain is a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A certificate that a node can present.
#[derive(Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    pub validity: Validity,
}

/// The setting whose file is at fault, and the reason.
#[derive(Debug, thiserror::Error)]
#[error("server.tls.{setting}: {problem}")]
pub struct CertificateError {
    /// `certificate_file` or `key_file`.
    pub setting: &'static str,
    pub problem: CertificateProblem,
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateProblem {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("is not PEM: {0}")]
    NotPem(&'static str),
    #[error("holds no certificate (\"BEGIN CERTIFICATE\")")]
    NoCertificate,
    #[error("holds a certificate that cannot be understood")]
    BadCertificate,
    #[error(
        "holds no private key (\"BEGIN PRIVATE KEY\", \"BEGIN EC PRIVATE KEY\" or \"BEGIN RSA PRIVATE KEY\")"
    )]
    NoKey,
    #[error("holds a key that is encrypted with a passphrase; it must be there in the clear")]
    EncryptedKey,
    #[error("holds a key that cannot be used; it must be RSA, ECDSA (P-256, P-384, P-521) or Ed25519")]
    BadKey,
    #[error(
        "is not the key of the certificate in server.tls.certificate_file, whose first must be the node's own"
    )]
    OtherKey,
}

impl Certificate {
    pub fn read(settings: &TlsSettings) -> Result<Self, CertificateError> {
        PemFiles::read(settings)?.certificate()
    }
}

/// The content of the two files.
#[derive(Debug)]
pub(super) struct PemFiles {
    certificate: Vec<u8>,
    key: SecretSlice<u8>,
}

impl PemFiles {
    pub(super) fn read(settings: &TlsSettings) -> Result<Self, CertificateError> {
        Ok(Self {
            certificate: read(&settings.certificate_file).map_err(in_certificate)?,
            key: read(&settings.key_file).map_err(in_key)?.into(),
        })
    }

    /// Tells contents apart, without keeping a second copy of a key.
    pub(super) fn fingerprint(&self) -> [[u8; 32]; 2] {
        [&self.certificate, self.key.expose_secret()].map(|content| {
            let mut fingerprint = [0; 32];
            fingerprint.copy_from_slice(digest(&SHA256, content).as_ref());
            fingerprint
        })
    }

    pub(super) fn certificate(&self) -> Result<Certificate, CertificateError> {
        let chain = chain(&self.certificate).map_err(in_certificate)?;
        let first = chain.first().ok_or(CertificateProblem::NoCertificate).map_err(in_certificate)?;
        let validity =
            Validity::of(first).ok_or(CertificateProblem::BadCertificate).map_err(in_certificate)?;
        let key = private_key(self.key.expose_secret()).map_err(in_key)?;
        let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => in_key(CertificateProblem::OtherKey),
            Error::InvalidCertificate(_) => in_certificate(CertificateProblem::BadCertificate),
            _ => in_key(CertificateProblem::BadKey),
        })?;
        Ok(Certificate { key: Arc::new(key), validity })
    }
}

fn in_certificate(problem: CertificateProblem) -> CertificateError {
    CertificateError { setting: "certificate_file", problem }
}

fn in_key(problem: CertificateProblem) -> CertificateError {
    CertificateError { setting: "key_file", problem }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateProblem> {
    let mut content = Vec::new();
    let file = File::open(path).map_err(CertificateProblem::Unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(CertificateProblem::Unreadable)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(CertificateProblem::TooLarge);
    }
    Ok(content)
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateProblem> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(not_pem)
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateProblem> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound if is_encrypted(pem) => CertificateProblem::EncryptedKey,
        pem::Error::NoItemsFound => CertificateProblem::NoKey,
        error => not_pem(error),
    })
}

/// Says what is wrong without a word of what was read: a key that is all on one line is taken for the name of a section.
fn not_pem(error: pem::Error) -> CertificateProblem {
    CertificateProblem::NotPem(match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end (\"-----END\" on a line of its own)",
        pem::Error::IllegalSectionStart { .. } => {
            "a section's first line (\"-----BEGIN\") does not end with \"-----\""
        }
        pem::Error::Base64Decode(_) => "a section does not hold Base64",
        _ => "it is of no known form",
    })
}

fn is_encrypted(pem: &[u8]) -> bool {
    const MARK: &[u8] = b"BEGIN ENCRYPTED PRIVATE KEY";
    pem.windows(MARK.len()).any(|window| window == MARK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::tls::made;

    fn files(certificate: &str, key: &str) -> PemFiles {
        PemFiles { certificate: certificate.into(), key: key.as_bytes().to_vec().into() }
    }

    #[test]
    fn each_mistake_is_told_with_its_setting() {
        let (certificate, key) = made::certificate();
        let (_, other_key) = made::certificate();
        let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let short = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (certificate, key, expected) in [
            ("", &*key, "server.tls.certificate_file: holds no certificate"),
            (&*key, &*key, "server.tls.certificate_file: holds no certificate"),
            (garbled, &*key, "server.tls.certificate_file: holds a certificate that cannot be understood"),
            (&certificate[..100], &*key, "server.tls.certificate_file: is not PEM"),
            (&*certificate, "", "server.tls.key_file: holds no private key"),
            (&*certificate, &*certificate, "server.tls.key_file: holds no private key"),
            (&*certificate, encrypted, "server.tls.key_file: holds a key that is encrypted"),
            (&*certificate, short, "server.tls.key_file: holds a key that cannot be used"),
            (&*certificate, &*other_key, "server.tls.key_file: is not the key of the certificate"),
        ] {
            let error = files(certificate, key).certificate().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error} is not {expected}");
        }
    }

    #[test]
    fn files_that_cannot_be_read_are_told() {
        let (certificate, key) = made::certificate();
        let files = made::Files::new();
        let settings = files.settings();
        let said = || Certificate::read(&settings).map(drop).map_err(|error| error.to_string());
        assert!(said().unwrap_err().starts_with("server.tls.certificate_file: cannot be read: "));
        std::fs::write(&settings.certificate_file, &certificate).unwrap();
        assert!(said().unwrap_err().starts_with("server.tls.key_file: cannot be read: "));
        std::fs::write(&settings.key_file, &key).unwrap();
        said().unwrap();
        std::fs::write(&settings.key_file, vec![b'x'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert_eq!(said().unwrap_err(), "server.tls.key_file: is larger than 1048576 bytes");
    }

    #[test]
    fn one_file_may_hold_both() {
        let (certificate, key) = made::certificate();
        let both = format!("{key}{certificate}");
        assert_eq!(files(&both, &both).certificate().unwrap().validity.fault(), None);
    }

    #[test]
    fn no_key_is_shown() {
        let (certificate, key) = made::certificate();
        // As it stands in the file, and as bytes are shown.
        let text = &key.lines().nth(1).unwrap()[..30];
        let shown_bytes = format!("{:?}", text.as_bytes());
        let bytes = shown_bytes.trim_matches(['[', ']']);
        let is_hidden = |shown: String| !shown.contains(text) && !shown.contains(bytes);
        let files = files(&certificate, &key);
        assert!(is_hidden(format!("{files:?} {:#?}", files.certificate().unwrap())));

        // Nor when it is broken: on one line, whole or cut, without its end, not in Base64.
        let on_one_line = key.replace('\n', "");
        let without_end = key.replace("-----END", "");
        let cut = on_one_line.trim_end_matches('-').to_owned();
        let not_base64 = key.replace(text, &format!("{text}!"));
        for (broken, why) in [
            (on_one_line, "a section has no end"),
            (without_end, "a section has no end"),
            (cut, "a section's first line"),
            (not_base64, "a section does not hold Base64"),
        ] {
            for files in [self::files(&certificate, &broken), self::files(&broken, &key)] {
                let error = files.certificate().unwrap_err();
                assert!(error.to_string().contains(&format!("_file: is not PEM: {why}")), "{error}");
                assert!(is_hidden(format!("{error} {error:?}")));
            }
        }
    }
}
