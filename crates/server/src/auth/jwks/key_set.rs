//! The public keys of an identity provider: a JSON Web Key Set (RFC 7517, keys as in RFC 7518 and RFC 8037).

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanwire_protocol::json::Object;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::auth::keys::{RSA_BITS, bits, signed_by};

/// Keys of a set that are read.
const KEYS_MAX: usize = 100;

/// Keys by their `kid`.
#[derive(Debug, Default)]
pub(super) struct KeySet(HashMap<Box<str>, SetKey>);

/// The key's `Debug` is redacted by its crate.
#[derive(Debug)]
struct SetKey {
    key: DecodingKey,
    algorithms: &'static [Algorithm],
}

/// A body that is no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not a JSON object with a list `keys`")]
pub(super) struct NoKeySet;

#[derive(Deserialize)]
struct SetFields<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct KeyFields<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow, rename = "use")]
    usage: Cow<'a, str>,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    alg: Option<Cow<'a, str>>,
    #[serde(borrow)]
    crv: Option<Cow<'a, str>>,
    #[serde(borrow)]
    n: Option<Cow<'a, str>>,
    #[serde(borrow)]
    e: Option<Cow<'a, str>>,
    #[serde(borrow)]
    x: Option<Cow<'a, str>>,
    #[serde(borrow)]
    y: Option<Cow<'a, str>>,
}

impl KeySet {
    /// Reads a set, and returns it with the number of keys that cannot be used: such a key does not spoil the others.
    pub(super) fn parse(body: &[u8]) -> Result<(Self, usize), NoKeySet> {
        let Object(SetFields { keys }): Object<SetFields<'_>> =
            serde_json::from_slice(body).map_err(|_| NoKeySet)?;
        let mut set = HashMap::new();
        for raw in keys.iter().take(KEYS_MAX) {
            if let Some((kid, key)) = read(raw) {
                set.entry(kid).or_insert(key);
            }
        }
        let unused = keys.len() - set.len();
        Ok((Self(set), unused))
    }

    pub(super) fn has(&self, kid: &str) -> bool {
        self.0.contains_key(kid)
    }

    /// Returns true if the key of this name made `signature` over `message`.
    pub(super) fn verifies(
        &self,
        kid: &str,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> bool {
        self.0.get(kid).is_some_and(|key| {
            key.algorithms.contains(&algorithm) && signed_by(&key.key, algorithm, message, signature)
        })
    }
}

/// Returns a key that is for signatures, of a kind and size that tokens may have, or `None`.
fn read(raw: &RawValue) -> Option<(Box<str>, SetKey)> {
    let Object(fields): Object<KeyFields<'_>> = serde_json::from_str(raw.get()).ok()?;
    if fields.usage != "sig" {
        return None;
    }
    let (key, algorithms): (_, &'static [Algorithm]) = match (&*fields.kty, fields.crv.as_deref()) {
        ("RSA", _) => {
            const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];
            let (modulus, exponent) = (fields.n?, fields.e?);
            if !RSA_BITS.contains(&bits(&URL_SAFE_NO_PAD.decode(&*modulus).ok()?)) {
                return None;
            }
            (DecodingKey::from_rsa_components(&modulus, &exponent).ok()?, &ALGORITHMS)
        }
        ("EC", Some("P-256")) => (point(&fields, 32)?, &[Algorithm::ES256]),
        ("EC", Some("P-384")) => (point(&fields, 48)?, &[Algorithm::ES384]),
        ("OKP", Some("Ed25519")) => {
            let x = fields.x.as_deref().filter(|x| is_long(x, 32))?;
            (DecodingKey::from_ed_components(x).ok()?, &[Algorithm::EdDSA])
        }
        _ => return None,
    };
    let algorithms = match fields.alg {
        None => algorithms,
        Some(name) => {
            let only: Algorithm = name.parse().ok()?;
            let place = algorithms.iter().position(|algorithm| *algorithm == only)?;
            &algorithms[place..=place]
        }
    };
    Some((fields.kid.into(), SetKey { key, algorithms }))
}

/// RFC 7518, section 6.2.1.2: coordinates have their full length.
fn point(fields: &KeyFields<'_>, bytes: usize) -> Option<DecodingKey> {
    let (x, y) = (fields.x.as_deref()?, fields.y.as_deref()?);
    (is_long(x, bytes) && is_long(y, bytes)).then_some(())?;
    DecodingKey::from_ec_components(x, y).ok()
}

fn is_long(encoded: &str, bytes: usize) -> bool {
    URL_SAFE_NO_PAD.decode(encoded).is_ok_and(|decoded| decoded.len() == bytes)
}
