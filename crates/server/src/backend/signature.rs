//! The signature of a call, by which a backend knows that the call is the gateway's and not an old one.
//!
//! `Fanwire-Signature: t=1700000000,v1=HEX`, where HEX is the HMAC-SHA256 of `t`, a dot and the body with the secret of
//! the hook or webhook. While a secret is replaced there is a `v1` for each of the two.

use std::fmt::Write as _;

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use secrecy::{ExposeSecret, SecretString};

pub(super) const HEADER: &str = "fanwire-signature";

/// The secrets of a hook or webhook: the one in use, and the one before it.
#[derive(Debug)]
pub(crate) struct Signer(Vec<Key>);

impl Signer {
    /// Returns `None` without secrets.
    pub(crate) fn new(secrets: &[SecretString]) -> Option<Self> {
        let key = |secret: &SecretString| Key::new(HMAC_SHA256, secret.expose_secret().as_bytes());
        let keys: Vec<Key> = secrets.iter().map(key).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Returns the header's value for a body that is sent at this second since 1970.
    pub(crate) fn sign(&self, unix: i64, body: &[u8]) -> String {
        let mut value = format!("t={unix}");
        for key in &self.0 {
            let mut context = Context::with_key(key);
            context.update(unix.to_string().as_bytes());
            context.update(b".");
            context.update(body);
            value.push_str(",v1=");
            for byte in context.sign().as_ref() {
                // Writing to a text cannot fail.
                let _ = write!(value, "{byte:02x}");
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hmac_of_time_and_body() {
        let [one, two] = ["one", "two"].map(SecretString::from);
        let body = br#"{"user":"42"}"#;
        // printf '1700000000.{"user":"42"}' | openssl dgst -sha256 -hmac one
        const ONE: &str = "t=1700000000,v1=4a048fd8a1ee1424cb36173008b7b0f2649b19c5ad43515e41dc39959e73642b";
        const TWO: &str = "9aab6be7382bc07aacf0b13e2c3ce490082d2a901bc303345c5726ea75434482";
        let signed = Signer::new(std::slice::from_ref(&one)).unwrap().sign(1_700_000_000, body);
        assert_eq!(signed, ONE);
        let signed = Signer::new(&[one, two]).unwrap().sign(1_700_000_000, body);
        assert_eq!(signed, format!("{ONE},v1={TWO}"));
        assert!(Signer::new(&[]).is_none());
    }
}
