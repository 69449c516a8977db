//! Mistakes in the keys of the settings.

use crate::backend::UrlError;

/// A key that cannot be used. Its text holds no part of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{section}.{setting}: {problem}")]
pub struct KeyError {
    pub section: &'static str,
    pub setting: &'static str,
    pub problem: KeyProblem,
}

/// The mistakes in keys, each with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    #[error("the secret is empty; make one with `openssl rand -hex 32`, or remove the setting")]
    EmptySecret,
    #[error(
        "this is a PEM key, not a secret; put a public key into rsa_public_key, ecdsa_public_key or \
         ed25519_public_key"
    )]
    PemAsSecret,
    #[error(
        "this is not PEM; it begins with `-----BEGIN PUBLIC KEY-----`, and its line breaks are real ones, not \
         `\\n`"
    )]
    NotPem,
    #[error(
        "this is a private key, which only the signer may have; extract the public one with `openssl pkey -in \
         private.pem -pubout`"
    )]
    PrivateKey,
    #[error(
        "this is a certificate; extract its public key with `openssl x509 -in certificate.pem -pubkey -noout`"
    )]
    Certificate,
    #[error(
        "this is not an RSA public key, or it is damaged; `openssl pkey -pubin -text -noout` shows what it is"
    )]
    NotRsa,
    #[error("an RSA key must have 2048 to 8192 bits, this one has {bits}; make a new pair")]
    RsaSize { bits: usize },
    #[error(
        "this is not an ECDSA public key on P-256 or P-384 with its curve named and its point uncompressed, or it \
         is damaged; `openssl pkey -pubin -text -noout` shows what it is"
    )]
    NotEcdsa,
    #[error("this key is on the curve P-521, and ES512 is not supported; use P-256 (ES256) or P-384 (ES384)")]
    Es512,
    #[error(
        "this is not an Ed25519 public key, or it is damaged; `openssl pkey -pubin -text -noout` shows what it is"
    )]
    NotEd25519,
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("{{{{ has no }}}} after it")]
    OpenGroup,
    #[error(
        "{{{{{0}}}}} names a group that neither issuer_regex nor audience_regex has; it is written (?P<{0}>...) there"
    )]
    NoGroup(String),
    #[error(
        "has a group before its path, so tokens would choose the host; write the host out, and use groups in the path alone"
    )]
    GroupInHost,
    #[error("{0}")]
    Tls(String),
}
