//! The keys that verify signatures, read and checked at start.
//!
//! Each key has a place of its own and serves the algorithms of its own family only: a public key can never be
//! taken for a secret, whatever a token's header says.

use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::{ExposeSecret as _, SecretString};

use fanwire_hub::TokenError;

use super::problem::{KeyError, KeyProblem};
use crate::settings::TokenSettings;

/// The sizes that the provider accepts; it refuses all tokens of a smaller or larger key.
pub(super) const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// One place per family. The keys' `Debug` is redacted by their crate.
#[derive(Debug)]
pub(super) struct VerifyingKeys {
    hmac: Option<DecodingKey>,
    hmac_previous: Option<PreviousKey>,
    dev: Option<DecodingKey>,
    rsa: Option<DecodingKey>,
    ecdsa: Option<EcdsaKey>,
    ed25519: Option<DecodingKey>,
}

#[derive(Debug)]
struct PreviousKey {
    key: DecodingKey,
    /// The last second in which it counts; `None` is without end.
    valid_until: Option<i64>,
}

#[derive(Debug)]
struct EcdsaKey {
    key: DecodingKey,
    /// The only one that the key's curve goes with.
    algorithm: Algorithm,
}

impl VerifyingKeys {
    pub(super) fn new(settings: &TokenSettings, section: &'static str) -> Result<Self, KeyError> {
        let named = |setting| move |problem| KeyError { section, setting, problem };
        let hmac_previous = settings.hmac_previous_secret.as_ref().map(hmac).transpose();
        Ok(Self {
            hmac: settings.hmac_secret.as_ref().map(hmac).transpose().map_err(named("hmac_secret"))?,
            hmac_previous: hmac_previous
                .map_err(named("hmac_previous_secret"))?
                .map(|key| PreviousKey { key, valid_until: settings.hmac_previous_secret_valid_until }),
            dev: settings.dev_secret.as_ref().map(hmac).transpose().map_err(named("dev_secret"))?,
            rsa: settings.rsa_public_key.as_deref().map(rsa).transpose().map_err(named("rsa_public_key"))?,
            ecdsa: settings
                .ecdsa_public_key
                .as_deref()
                .map(ecdsa)
                .transpose()
                .map_err(named("ecdsa_public_key"))?,
            ed25519: settings
                .ed25519_public_key
                .as_deref()
                .map(ed25519)
                .transpose()
                .map_err(named("ed25519_public_key"))?,
        })
    }

    /// Returns true if one of the keys for `algorithm` made `signature` over `message`.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
        now: i64,
    ) -> Result<(), TokenError> {
        let keys = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                let previous = self.hmac_previous.as_ref().and_then(|previous| previous.key_at(now));
                [self.hmac.as_ref(), previous, self.dev.as_ref()]
            }
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => [self.rsa.as_ref(), None, None],
            Algorithm::ES256 | Algorithm::ES384 => {
                let fitting = self.ecdsa.as_ref().filter(|ecdsa| ecdsa.algorithm == algorithm);
                [fitting.map(|ecdsa| &ecdsa.key), None, None]
            }
            Algorithm::EdDSA => [self.ed25519.as_ref(), None, None],
            _ => return Err(TokenError::Invalid("its algorithm is not supported")),
        };
        if keys.iter().all(Option::is_none) {
            return Err(TokenError::Invalid("no key is configured for its algorithm"));
        }
        let signed = keys.into_iter().flatten().any(|key| signed_by(key, algorithm, message, signature));
        signed.then_some(()).ok_or(TokenError::Invalid("its signature is not by a configured key"))
    }
}

impl PreviousKey {
    fn key_at(&self, now: i64) -> Option<&DecodingKey> {
        self.valid_until.is_none_or(|until| now <= until).then_some(&self.key)
    }
}

/// The provider is named, not looked up: the crate's own choice panics when a build enables two of them.
pub(super) fn signed_by(
    key: &DecodingKey,
    algorithm: Algorithm,
    message: &[u8],
    signature: &Vec<u8>,
) -> bool {
    (DEFAULT_PROVIDER.verifier_factory)(&algorithm, key)
        .is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
}

fn hmac(secret: &SecretString) -> Result<DecodingKey, KeyProblem> {
    let secret = secret.expose_secret();
    if secret.trim().is_empty() {
        return Err(KeyProblem::EmptySecret);
    }
    if secret.contains("-----BEGIN ") {
        return Err(KeyProblem::PemAsSecret);
    }
    Ok(DecodingKey::from_secret(secret.as_bytes()))
}

fn rsa(pem: &str) -> Result<DecodingKey, KeyProblem> {
    public_key_body(pem)?;
    let key = DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| KeyProblem::NotRsa)?;
    let der = key.try_get_as_bytes().map_err(|_| KeyProblem::NotRsa)?;
    let (modulus, _) = (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(der)
        .map_err(|_| KeyProblem::NotRsa)?;
    let bits = bits(&modulus);
    if !RSA_BITS.contains(&bits) {
        return Err(KeyProblem::RsaSize { bits });
    }
    Ok(key)
}

/// Returns the number of bits of a number, the highest byte first.
pub(super) fn bits(number: &[u8]) -> usize {
    match number.iter().position(|byte| *byte != 0) {
        Some(first) => (number.len() - first) * 8 - number[first].leading_zeros() as usize,
        None => 0,
    }
}

fn ecdsa(pem: &str) -> Result<EcdsaKey, KeyProblem> {
    // The length of a point alone would also let in other curves of 256 bits, and no token would ever pass. A
    // public key's DER begins with the algorithm and the curve, always in these bytes, here in base64.
    const P256: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
    const P384: &str = "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE";
    const P521: &str = "MIGbMBAGByqGSM49AgEGBSuBBAAj";
    let body = public_key_body(pem)?;
    let (algorithm, point_bytes) = if body.starts_with(P256) {
        (Algorithm::ES256, 65)
    } else if body.starts_with(P384) {
        (Algorithm::ES384, 97)
    } else if body.starts_with(P521) {
        return Err(KeyProblem::Es512);
    } else {
        return Err(KeyProblem::NotEcdsa);
    };
    let key = DecodingKey::from_ec_pem(pem.as_bytes()).map_err(|_| KeyProblem::NotEcdsa)?;
    if key.try_get_as_bytes().map_err(|_| KeyProblem::NotEcdsa)?.len() != point_bytes {
        return Err(KeyProblem::NotEcdsa);
    }
    Ok(EcdsaKey { key, algorithm })
}

fn ed25519(pem: &str) -> Result<DecodingKey, KeyProblem> {
    public_key_body(pem)?;
    let key = DecodingKey::from_ed_pem(pem.as_bytes()).map_err(|_| KeyProblem::NotEd25519)?;
    match key.try_get_as_bytes() {
        Ok(bytes) if bytes.len() == 32 => Ok(key),
        _ => Err(KeyProblem::NotEd25519),
    }
}

/// The base64 of a text that announces a public key and nothing else, in one line.
fn public_key_body(pem: &str) -> Result<String, KeyProblem> {
    if pem.contains("PRIVATE KEY-----") {
        return Err(KeyProblem::PrivateKey);
    }
    if pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(KeyProblem::Certificate);
    }
    let (_, label_and_body) = pem.split_once("-----BEGIN ").ok_or(KeyProblem::NotPem)?;
    let (_, body) = label_and_body.split_once("PUBLIC KEY-----").ok_or(KeyProblem::NotPem)?;
    if body.contains('\\') {
        return Err(KeyProblem::NotPem);
    }
    Ok(body.split_whitespace().collect())
}
