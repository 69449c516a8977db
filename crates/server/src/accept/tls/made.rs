//! Certificates that tests make, and the files in which they are found.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rcgen::{CertificateParams, KeyPair};

use crate::settings::TlsSettings;

/// A certificate and its key, in PEM.
pub(super) fn certificate() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["test".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// A folder for both files, which goes with the test. There is nothing in it yet.
pub(super) struct Files(PathBuf);

impl Files {
    pub(super) fn new() -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("fanwire-certificate-{}-{}", std::process::id(), FOLDERS.fetch_add(1, Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(super) fn settings(&self) -> TlsSettings {
        TlsSettings {
            certificate_file: self.0.join("certificate.pem"),
            key_file: self.0.join("key.pem"),
            reload_interval: None,
            http2: false,
        }
    }

    pub(super) fn write(&self, (certificate, key): &(String, String)) {
        let TlsSettings { certificate_file, key_file, .. } = self.settings();
        fs::write(certificate_file, certificate).unwrap();
        fs::write(key_file, key).unwrap();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
