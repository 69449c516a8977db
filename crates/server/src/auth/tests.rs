//! Tables of tokens and keys, each with what becomes of it; the time is always `NOW`.

mod claims;
mod keys;
mod random;
mod signatures;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanwire_hub::{ConnectionClaims, Expiry, SubscriptionClaims, TokenError};
use jsonwebtoken::{Algorithm, EncodingKey};
use secrecy::SecretString;

use super::{TOKEN_BYTES_MAX, Tokens, topic_of};
use crate::settings::TokenSettings;

pub(super) const NOW: i64 = 1_700_000_000;
const SECRET: &str = "test-secret";

const RSA: &str = include_str!("testdata/rsa_public.pem");
const RSA_PKCS1: &str = include_str!("testdata/rsa_public_pkcs1.pem");
const RSA_1024: &str = include_str!("testdata/rsa_1024_public.pem");
const RSA_PRIVATE: &str = include_str!("testdata/rsa_private.pem");
const P256: &str = include_str!("testdata/p256_public.pem");
const P256_PRIVATE: &str = include_str!("testdata/p256_private.pem");
const P384: &str = include_str!("testdata/p384_public.pem");
const P521: &str = include_str!("testdata/p521_public.pem");
const SECP256K1: &str = include_str!("testdata/secp256k1_public.pem");
const ED25519: &str = include_str!("testdata/ed25519_public.pem");
const ED25519_PRIVATE: &str = include_str!("testdata/ed25519_private.pem");
const ED448: &str = include_str!("testdata/ed448_public.pem");
const CERTIFICATE: &str = include_str!("testdata/certificate.pem");

/// One token of `{"sub":"ann"}` for each algorithm, with its name before it, none made by the crate under test.
const SIGNED_BY_OPENSSL: &str = include_str!("testdata/signed_by_openssl.txt");

pub(super) fn with_hmac() -> TokenSettings {
    TokenSettings { hmac_secret: Some(SecretString::from(SECRET)), ..TokenSettings::default() }
}

fn nobody() -> ConnectionClaims {
    ConnectionClaims {
        user: "".into(),
        expiry: Expiry::Never,
        info: "".into(),
        topics: Vec::new(),
        extras: None,
    }
}

fn check_connection(settings: &TokenSettings, token: &str, outcome: Result<ConnectionClaims, TokenError>) {
    let tokens = Tokens::new(settings, None).unwrap();
    assert_eq!(tokens.verify_connection(token, NOW), outcome, "{}", readable(token));
}

fn check_subscription(
    settings: &TokenSettings,
    token: &str,
    outcome: Result<SubscriptionClaims, TokenError>,
) {
    let tokens = Tokens::new(settings, None).unwrap();
    assert_eq!(tokens.verify_subscription(token, NOW), outcome, "{}", readable(token));
}

fn readable(token: &str) -> String {
    let part = |part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap_or_default()).unwrap_or_default();
    token.split('.').take(2).map(part).collect::<Vec<_>>().join(" ")
}

pub(super) fn signed(claims: &str) -> String {
    signed_with(SECRET, claims)
}

fn signed_with(secret: &str, claims: &str) -> String {
    sign(secret, format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(claims)))
}

/// Signed as HS256, whatever the header says.
fn with_header(header: &str, claims: &str) -> String {
    sign(SECRET, format!("{}.{}", encode(header), encode(claims)))
}

fn sign(secret: &str, message: String) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

#[test]
fn the_topic_of_a_token_is_read_whether_or_not_the_token_is_good() {
    let topic = |token: &str| topic_of(token).map(String::from);
    for token in [signed(r#"{"channel":"a"}"#), signed_with("forged", r#"{"channel":"a","exp":1}"#)] {
        assert_eq!(topic(&token).as_deref(), Some("a"));
    }
    for claims in [r#"{"sub":"ann"}"#, r#"{"channel":""}"#, r#"{"channel":7}"#, "[]", "no JSON"] {
        assert_eq!(topic(&signed(claims)), None, "{claims}");
    }
    let long = signed(&format!(r#"{{"channel":"a","info":"{}"}}"#, "x".repeat(TOKEN_BYTES_MAX)));
    for text in ["", "a", "a.b", "..", "a.!.c", &long] {
        assert_eq!(topic(text), None, "{text}");
    }
}
