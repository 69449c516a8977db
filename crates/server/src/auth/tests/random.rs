//! Anything at all may come as a token.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::settings::Expected;

#[test]
fn random_tokens_never_panic_and_never_pass() {
    let mut random = SmallRng::seed_from_u64(6);
    let settings = TokenSettings {
        rsa_public_key: Some(RSA.into()),
        ecdsa_public_key: Some(P256.into()),
        ed25519_public_key: Some(ED25519.into()),
        user_claim: Some("uid".into()),
        ..with_hmac()
    };
    let tokens = Tokens::new(&settings, None).unwrap();
    for _ in 0..20_000 {
        let token = random_token(&mut random);
        assert!(tokens.verify_connection(&token, NOW).is_err(), "{token}");
        assert!(tokens.verify_subscription(&token, NOW).is_err(), "{token}");
    }
}

#[test]
fn random_claims_never_panic() {
    let mut random = SmallRng::seed_from_u64(7);
    let skip = TokenSettings {
        insecure_skip_signature: true,
        audience: Some(Expected::Exactly("us".into())),
        ..TokenSettings::default()
    };
    for settings in [TokenSettings { audience: None, ..skip.clone() }, skip] {
        let tokens = Tokens::new(&settings, None).unwrap();
        let mut taken = 0;
        for _ in 0..20_000 {
            let token = format!("{}.{}.", encode(r#"{"alg":"HS256"}"#), encode(&random_claims(&mut random)));
            taken += usize::from(tokens.verify_connection(&token, NOW).is_ok());
            taken += usize::from(tokens.verify_subscription(&token, NOW).is_ok());
        }
        assert!(taken > 50, "only {taken} taken: they are too random to test much");
    }
}

/// Bytes, points, or parts of true headers, with a signature that can never fit.
fn random_token(random: &mut SmallRng) -> String {
    let algorithms = ["HS256", "HS512", "RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA", "none", ""];
    match random.random_range(0..3) {
        0 => (0..random.random_range(0..80)).map(|_| random.random::<char>()).collect(),
        1 => (0..random.random_range(0..80)).map(|_| *b"eyJ.0-_=".choose(random).unwrap() as char).collect(),
        _ => {
            let header = format!(r#"{{"alg":"{}"}}"#, algorithms.choose(random).unwrap());
            let signature: Vec<u8> = (0..random.random_range(0..300)).map(|_| random.random()).collect();
            let claims = encode(&random_claims(random));
            format!("{}.{claims}.{}", encode(&header), URL_SAFE_NO_PAD.encode(signature))
        }
    }
}

fn random_claims(random: &mut SmallRng) -> String {
    const NAMES: [&str; 15] = [
        "sub",
        "aud",
        "iss",
        "exp",
        "nbf",
        "expire_at",
        "channels",
        "subs",
        "channel",
        "client",
        "info",
        "b64info",
        "data",
        "b64data",
        "override",
    ];
    const VALUES: [&str; 20] = [
        "null",
        "true",
        "0",
        "-1",
        "1e300",
        "1700000001",
        "1.7e309",
        r#""""#,
        r#""us""#,
        r#""AP8=""#,
        r#""\ud800""#,
        "[]",
        r#"["us","a"]"#,
        "[[[]]]",
        "{}",
        r#"{"a":{}}"#,
        r#"{"a":null,"b":{"info":[]}}"#,
        r#"{"presence":{"value":true}}"#,
        r#"{"a":{"b64data":"!"}}"#,
        "{",
    ];
    let count = random.random_range(0..5);
    let claims: Vec<String> = (0..count)
        .map(|_| format!(r#""{}":{}"#, NAMES.choose(random).unwrap(), VALUES.choose(random).unwrap()))
        .collect();
    format!("{{{}}}", claims.join(","))
}
