//! The keys that all sections of a backend have: its address, what it is sent with each request, and TLS.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fanwire_server::settings::{BackendTlsSettings, BackendUrl, HeaderName, HeaderValue, IdentityFiles};
use secrecy::{ExposeSecret, SecretString};

use super::checks::Checks;
use super::values::Secret;

/// The values of those keys.
pub(super) struct BackendKeys<'c> {
    pub(super) section: &'c str,
    pub(super) url: &'c str,
    pub(super) static_headers: &'c BTreeMap<String, Secret>,
    pub(super) signature_secret: Option<&'c Secret>,
    pub(super) signature_previous_secret: Option<&'c Secret>,
    pub(super) ca_file: Option<&'c PathBuf>,
    pub(super) certificate_file: Option<&'c PathBuf>,
    pub(super) key_file: Option<&'c PathBuf>,
    pub(super) server_name: Option<&'c String>,
}

impl BackendKeys<'_> {
    pub(super) fn url(&self, checks: &mut Checks) -> Option<BackendUrl> {
        let url = BackendUrl::parse(self.url);
        url.map_err(|error| checks.error(self.at("url"), error.to_string())).ok()
    }

    pub(super) fn static_headers(&self, checks: &mut Checks) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, value) in self.static_headers {
            let key = self.at("static_headers");
            let Some(header) = header_name(&key, name, checks) else { continue };
            match HeaderValue::from_str(value.to_settings().expose_secret()) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    headers.push((header, value));
                }
                Err(_) => checks.error(key, format!("the value of \"{name}\" cannot be in a header")),
            }
        }
        headers
    }

    pub(super) fn tls(&self, checks: &mut Checks) -> BackendTlsSettings {
        let files = [
            ("ca_file", self.ca_file.is_some()),
            ("certificate_file", self.certificate_file.is_some()),
            ("key_file", self.key_file.is_some()),
            ("server_name", self.server_name.is_some()),
        ];
        if self.url.starts_with("http://") {
            for (name, _) in files.into_iter().filter(|(_, is_set)| *is_set) {
                checks.warn(self.at(name), "has no effect: url begins with http://");
            }
        }
        let identity = match (self.certificate_file, self.key_file) {
            (Some(certificate_file), Some(key_file)) => {
                Some(IdentityFiles { certificate_file: certificate_file.clone(), key_file: key_file.clone() })
            }
            (Some(_), None) => {
                checks.error(self.at("certificate_file"), "needs key_file as well");
                None
            }
            (None, Some(_)) => {
                checks.error(self.at("key_file"), "needs certificate_file as well");
                None
            }
            (None, None) => None,
        };
        BackendTlsSettings {
            ca_file: self.ca_file.cloned(),
            identity,
            server_name: self.server_name.cloned(),
        }
    }

    pub(super) fn signature_secrets(&self, checks: &mut Checks) -> Vec<SecretString> {
        if self.signature_previous_secret.is_some() && self.signature_secret.is_none() {
            checks.error(self.at("signature_previous_secret"), "needs signature_secret as well");
        }
        let secrets = [
            ("signature_secret", self.signature_secret),
            ("signature_previous_secret", self.signature_previous_secret),
        ];
        let mut used = Vec::new();
        for (name, secret) in secrets {
            match secret {
                Some(secret) if secret.is_empty() => checks.error(self.at(name), "the secret is empty"),
                Some(secret) => used.push(secret.to_settings()),
                None => {}
            }
        }
        used
    }

    fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.section)
    }
}

/// Headers that belong to a connection, or to the body that is sent.
const NOT_SENT_ALONG: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
];

/// Checks the name of a header that is sent to a backend.
pub(super) fn header_name(key: &str, name: &str, checks: &mut Checks) -> Option<HeaderName> {
    let lower = name.to_ascii_lowercase();
    if NOT_SENT_ALONG.contains(&&*lower) || lower.starts_with("content-") || lower == "fanwire-signature" {
        checks.error(key, format!("\"{name}\" is set by the gateway itself"));
        return None;
    }
    let parsed = HeaderName::try_from(lower);
    parsed.map_err(|_| checks.error(key, format!("\"{name}\" cannot be the name of a header"))).ok()
}
