//! `[server.tls]`: the certificate of the client port.

use std::path::PathBuf;

use fanwire_server::settings::TlsSettings;
use fanwire_server::tls::Certificate;

use super::checks::Checks;
use super::defaults;
use super::section::section;
use super::values::Period;

section! {
    /// TLS on the client port, 1.2 and 1.3. Off unless both files are set.
    Tls {
        /// The certificates in PEM: the node's own first, then those that lead to a known issuer.
        certificate_file: Option<PathBuf> = None,
        /// The certificate's private key in PEM, without a passphrase.
        key_file: Option<PathBuf> = None,
        /// Interval at which the files are checked for changes. New connections use changed files; SIGHUP reloads them
        /// immediately. "0s" reloads them on SIGHUP only.
        reload_interval: Period = defaults::TLS_RELOAD_INTERVAL,
        /// Speaks HTTP/2 with clients that offer it, WebSocket over it too. A browser then has all its streams on one
        /// connection, instead of six at most; a delivery costs more.
        http2: bool = false,
    }
}

const RELOAD_INTERVAL_MIN: Period = Period::from_secs(1);
const RELOAD_INTERVAL_MAX: Period = Period::from_secs(24 * 3600);

impl Tls {
    pub(super) fn settings(&self, checks: &mut Checks) -> Option<TlsSettings> {
        if self.reload_interval != Period::OFF {
            checks.within(
                "server.tls.reload_interval",
                self.reload_interval,
                RELOAD_INTERVAL_MIN,
                RELOAD_INTERVAL_MAX,
            );
        }
        let (certificate_file, key_file) = match (&self.certificate_file, &self.key_file) {
            (None, None) => {
                if self.http2 {
                    checks.error(
                        "server.tls.http2",
                        "needs server.tls.certificate_file and server.tls.key_file",
                    );
                }
                return None;
            }
            (Some(_), None) => {
                checks.error("server.tls.certificate_file", "needs server.tls.key_file as well");
                return None;
            }
            (None, Some(_)) => {
                checks.error("server.tls.key_file", "needs server.tls.certificate_file as well");
                return None;
            }
            (Some(certificate_file), Some(key_file)) => (certificate_file.clone(), key_file.clone()),
        };
        let reload_interval = self.reload_interval.unless_off();
        Some(TlsSettings { certificate_file, key_file, reload_interval, http2: self.http2 })
    }
}

/// Reads the files to check that a node can start with them.
pub(super) fn check_files(settings: &TlsSettings, checks: &mut Checks) {
    match Certificate::read(settings) {
        Ok(certificate) => {
            if let Some(fault) = certificate.validity.fault() {
                checks.warn("server.tls.certificate_file", fault);
            }
        }
        Err(error) => {
            let file = match error.setting {
                "key_file" => &settings.key_file,
                _ => &settings.certificate_file,
            };
            checks.error(
                format!("server.tls.{}", error.setting),
                format!("{}: {}", file.display(), error.problem),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A certificate that ends in a year, and its key.
    fn made(until: i32) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn one_file_needs_the_other() {
        let said = |tls: Tls| {
            let mut checks = Checks::default();
            let is_on = tls.settings(&mut checks).is_some();
            (is_on, checks.errors.into_iter().map(|(key, text)| format!("{key}: {text}")).collect::<Vec<_>>())
        };
        let path = || Some(PathBuf::from("a.pem"));
        assert_eq!(said(Tls::default()), (false, Vec::new()));
        assert_eq!(
            said(Tls { http2: true, ..Tls::default() }),
            (
                false,
                vec![
                    "server.tls.http2: needs server.tls.certificate_file and server.tls.key_file".to_owned()
                ]
            )
        );
        assert_eq!(
            said(Tls { certificate_file: path(), ..Tls::default() }),
            (false, vec!["server.tls.certificate_file: needs server.tls.key_file as well".to_owned()])
        );
        assert_eq!(
            said(Tls { key_file: path(), ..Tls::default() }),
            (false, vec!["server.tls.key_file: needs server.tls.certificate_file as well".to_owned()])
        );
        let both =
            Tls { certificate_file: path(), key_file: path(), reload_interval: Period::OFF, http2: true };
        assert_eq!(said(both), (true, Vec::new()));
    }

    #[test]
    fn files_are_judged_by_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let settings = TlsSettings {
            certificate_file: folder.path().join("tls.crt"),
            key_file: folder.path().join("tls.key"),
            reload_interval: None,
            http2: false,
        };
        let ((certificate, key), (expired, its_key)) = (made(2500), made(2001));
        let key_file = settings.key_file.display();
        for (certificate, key, errors, warnings) in [
            (&certificate, &*key, vec![], vec![]),
            (&expired, &*its_key, vec![], vec!["certificate_file: the certificate has expired".to_owned()]),
            (
                &certificate,
                &*its_key,
                vec![format!("key_file: {key_file}: is not the key of the certificate in")],
                vec![],
            ),
            (&certificate, "", vec![format!("key_file: {key_file}: holds no private key")], vec![]),
        ] {
            fs::write(&settings.certificate_file, certificate).unwrap();
            fs::write(&settings.key_file, key).unwrap();
            let mut checks = Checks::default();
            check_files(&settings, &mut checks);
            for (found, expected) in [(checks.errors, errors), (checks.warnings, warnings)] {
                let found: Vec<_> = found.into_iter().map(|(key, text)| format!("{key}: {text}")).collect();
                assert_eq!(found.len(), expected.len(), "{found:?}");
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        found.starts_with(&format!("server.tls.{expected}")),
                        "{found} is not {expected}"
                    );
                }
            }
        }
    }
}
