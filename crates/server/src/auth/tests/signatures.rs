//! Tokens with good and bad signatures, and tokens that no signature makes good.

use super::*;
use crate::auth::TOKEN_BYTES_MAX;
use crate::settings::Expected;

#[test]
fn every_algorithm_is_verified_with_its_own_key_only() {
    let hmac = with_hmac();
    let rsa = TokenSettings { rsa_public_key: Some(RSA.into()), ..TokenSettings::default() };
    let rsa_pkcs1 = TokenSettings { rsa_public_key: Some(RSA_PKCS1.into()), ..TokenSettings::default() };
    let p256 = TokenSettings { ecdsa_public_key: Some(P256.into()), ..TokenSettings::default() };
    let p384 = TokenSettings { ecdsa_public_key: Some(P384.into()), ..TokenSettings::default() };
    let ed25519 = TokenSettings { ed25519_public_key: Some(ED25519.into()), ..TokenSettings::default() };
    let table: [(&TokenSettings, &[&str]); 7] = [
        (&hmac, &["HS256", "HS384", "HS512"]),
        (&rsa, &["RS256", "RS384", "RS512"]),
        (&rsa_pkcs1, &["RS256", "RS384", "RS512"]),
        (&p256, &["ES256"]),
        (&p384, &["ES384"]),
        (&ed25519, &["EdDSA"]),
        (&TokenSettings::default(), &[]),
    ];
    assert_eq!(SIGNED_BY_OPENSSL.lines().count(), 9);
    for (settings, taken) in table {
        let tokens = Tokens::new(settings, None).unwrap();
        for line in SIGNED_BY_OPENSSL.lines() {
            let (algorithm, token) = line.split_once(' ').unwrap();
            let outcome = tokens.verify_connection(token, NOW).map(|claims| claims.user);
            if taken.contains(&algorithm) {
                assert_eq!(outcome, Ok("ann".into()), "{algorithm}");
            } else {
                let no_key = TokenError::Invalid("no key is configured for its algorithm");
                assert_eq!(outcome, Err(no_key), "{algorithm} with keys for {taken:?}");
            }
        }
    }
}

#[test]
fn all_keys_stand_side_by_side_and_every_changed_byte_is_noticed() {
    let settings = TokenSettings {
        rsa_public_key: Some(RSA.into()),
        ecdsa_public_key: Some(P256.into()),
        ed25519_public_key: Some(ED25519.into()),
        ..with_hmac()
    };
    let tokens = Tokens::new(&settings, None).unwrap();
    for line in SIGNED_BY_OPENSSL.lines().filter(|line| !line.starts_with("ES384")) {
        let (algorithm, token) = line.split_once(' ').unwrap();
        assert!(tokens.verify_connection(token, NOW).is_ok(), "{algorithm}");
        for place in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let outcome = tokens.verify_connection(&changed, NOW);
            assert!(matches!(outcome, Err(TokenError::Invalid(_))), "{algorithm}, byte {place}: {outcome:?}");
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let message = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(r#"{"sub":"mallory"}"#));
    for settings in [
        TokenSettings { rsa_public_key: Some(RSA.into()), ..TokenSettings::default() },
        TokenSettings { rsa_public_key: Some(RSA.into()), ..with_hmac() },
    ] {
        let key = EncodingKey::from_secret(RSA.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        let outcome =
            Tokens::new(&settings, None).unwrap().verify_connection(&format!("{message}.{signature}"), NOW);
        assert!(matches!(outcome, Err(TokenError::Invalid(_))), "{outcome:?}");
    }
}

#[test]
fn rsa_with_pss_padding_is_not_supported() {
    let settings = TokenSettings { rsa_public_key: Some(RSA.into()), ..TokenSettings::default() };
    let message = format!("{}.{}", encode(r#"{"alg":"PS256"}"#), encode("{}"));
    let key = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::PS256).unwrap();
    let outcome =
        Tokens::new(&settings, None).unwrap().verify_connection(&format!("{message}.{signature}"), NOW);
    assert_eq!(outcome, Err(TokenError::Invalid("its algorithm is not supported")));
}

#[test]
fn a_token_that_others_made_is_taken() {
    // The one that jwt.io shows.
    let settings =
        TokenSettings { hmac_secret: Some("your-256-bit-secret".into()), ..TokenSettings::default() };
    let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
                 eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.\
                 SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";
    let claims = Tokens::new(&settings, None).unwrap().verify_connection(token, NOW).unwrap();
    assert_eq!((&*claims.user, claims.expiry), ("1234567890", Expiry::Never));
}

#[test]
fn shapes_that_are_no_token_are_invalid() {
    let whole = signed("{}");
    let (message, signature) = whole.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let table: [(String, &str); 17] = [
        (String::new(), "it is not three parts with points between them"),
        ("a".into(), "it is not three parts with points between them"),
        ("a.b".into(), "it is not three parts with points between them"),
        ("..".into(), "its header is not a JSON object with `alg`"),
        (format!("{whole}.{signature}"), "its signature is not by a configured key"),
        (format!("{whole}="), "its signature is not base64url"),
        (format!("{header}=.{payload}.{signature}"), "its header is not base64url"),
        (format!("{header}.{payload}."), "its signature is not by a configured key"),
        (format!("{header}..{signature}"), "its signature is not by a configured key"),
        ("a".repeat(TOKEN_BYTES_MAX + 1), "it is longer than 16 KiB"),
        (with_header("7", "{}"), "its header is not a JSON object with `alg`"),
        (with_header(r#"["HS256"]"#, "{}"), "its header is not a JSON object with `alg`"),
        (with_header("{}", "{}"), "its header is not a JSON object with `alg`"),
        (with_header(r#"{"alg":"HS256","alg":"none"}"#, "{}"), "its header is not a JSON object with `alg`"),
        (with_header(r#"{"alg":"ES512"}"#, "{}"), "its algorithm is not supported"),
        (with_header(r#"{"alg":"hs256"}"#, "{}"), "its algorithm is not supported"),
        (
            with_header(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, "{}"),
            "its header has `crit`, and no extension is supported",
        ),
    ];
    for (token, why) in table {
        check_connection(&with_hmac(), &token, Err(TokenError::Invalid(why)));
        check_subscription(&with_hmac(), &token, Err(TokenError::Invalid(why)));
    }
}

#[test]
fn a_token_may_be_as_long_as_the_limit() {
    let info_bytes = (TOKEN_BYTES_MAX - signed(r#"{"info":""}"#).len()) * 3 / 4;
    let longest = signed(&format!(r#"{{"info":"{}"}}"#, "x".repeat(info_bytes)));
    assert!((TOKEN_BYTES_MAX - 1..=TOKEN_BYTES_MAX).contains(&longest.len()), "{}", longest.len());
    let claims = Tokens::new(&with_hmac(), None).unwrap().verify_connection(&longest, NOW).unwrap();
    assert_eq!(claims.info.len(), info_bytes + 2);
}

#[test]
fn none_is_refused_even_when_signatures_are_skipped() {
    let skip = TokenSettings { insecure_skip_signature: true, ..TokenSettings::default() };
    for settings in [with_hmac(), skip] {
        for algorithm in ["none", "None", "NONE", "nOnE"] {
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            for token in [format!("{}.{}.", encode(&header), encode("{}")), with_header(&header, "{}")] {
                let why = TokenError::Invalid("it is not signed: its algorithm is `none`");
                check_connection(&settings, &token, Err(why));
            }
        }
    }
}

#[test]
fn skipping_signatures_skips_nothing_else() {
    let settings = TokenSettings {
        insecure_skip_signature: true,
        issuer: Some(Expected::Exactly("us".into())),
        ..TokenSettings::default()
    };
    let token = |claims| format!("{}.{}.x", encode(r#"{"alg":"ES512"}"#), encode(claims));
    let ann = ConnectionClaims { user: "ann".into(), ..nobody() };
    check_connection(&settings, &token(r#"{"sub":"ann","iss":"us"}"#), Ok(ann));
    let stranger = TokenError::Invalid("its issuer (`iss`) is not the expected one");
    check_connection(&settings, &token(r#"{"sub":"ann"}"#), Err(stranger));
    check_connection(&settings, &token(r#"{"iss":"us","exp":1}"#), Err(TokenError::Expired));
}

#[test]
fn a_previous_secret_counts_until_its_end() {
    let old = signed("{}");
    let new = signed_with("new", "{}");
    let rotated = |valid_until| TokenSettings {
        hmac_secret: Some("new".into()),
        hmac_previous_secret: Some(SECRET.into()),
        hmac_previous_secret_valid_until: valid_until,
        ..TokenSettings::default()
    };
    let refused = Err(TokenError::Invalid("its signature is not by a configured key"));
    for (valid_until, outcome) in [
        (None, Ok(nobody())),
        (Some(NOW), Ok(nobody())),
        (Some(NOW - 1), refused.clone()),
        (Some(0), refused.clone()),
    ] {
        check_connection(&rotated(valid_until), &new, Ok(nobody()));
        check_connection(&rotated(valid_until), &old, outcome);
        check_connection(&rotated(valid_until), &signed_with("other", "{}"), refused.clone());
    }

    let only_previous = TokenSettings { hmac_secret: None, ..rotated(Some(NOW)) };
    check_connection(&only_previous, &old, Ok(nobody()));
    let only_past = TokenSettings { hmac_secret: None, ..rotated(Some(NOW - 1)) };
    check_connection(&only_past, &old, Err(TokenError::Invalid("no key is configured for its algorithm")));
}
