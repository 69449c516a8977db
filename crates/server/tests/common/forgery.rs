//! Commands that cost the node a signature each, and that anybody may send.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};
use serde_json::json;

use fanwire_server::Settings;

/// Has the node take tokens of a key, and returns the key.
pub(crate) fn signing_key(settings: &mut Settings) -> EncodingKey {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    settings.connection_tokens.ecdsa_public_key = Some(key.public_key_pem());
    EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap()
}

/// Has the node take tokens of a key, and returns a subscription token that another key signed.
pub(crate) fn forge(settings: &mut Settings, topic: &str) -> String {
    let other = signing_key(settings);
    signing_key(settings);
    let claims = json!({"sub": "ann", "channel": topic});
    jsonwebtoken::encode(&Header::new(Algorithm::ES384), &claims, &other).unwrap()
}
