//! Tokens: made, signed and checked.

use std::process::Command;

use serde_json::json;

use crate::run::{Files, fanwire};

#[test]
fn tokens_are_made_and_checked() {
    let files = Files::new();
    let config = files.write(
        "a.toml",
        "[client.token]\nhmac_secret = 'first'\naudience = 'app'\nuser_claim = 'uid'\n\
         [client.subscription_token]\nenabled = true\nhmac_secret = 'second'\n",
    );
    let connection = fanwire(&[
        "token",
        "connection",
        "--user",
        "42",
        "--topic",
        "a",
        "--topic",
        "b",
        "--info",
        r#"{"name":"Ada"}"#,
        "--ttl",
        "5m",
        "--config",
        &config,
    ])
    .exits(0);
    fanwire(&["token", "check", connection.out.trim(), "--config", &config])
        .exits(0)
        .says("valid: a connection token of user \"42\", until 20")
        .says("\"name\": \"Ada\"")
        .says("\"aud\": \"app\"");
    let subscription =
        fanwire(&["token", "subscription", "--user", "42", "--topic", "news", "--ttl", "0s", "-c", &config])
            .exits(0);
    fanwire(&["token", "check", subscription.out.trim(), "--config", &config])
        .exits(0)
        .says("valid: a subscription token of user \"42\", without end");
    let run =
        fanwire(&["token", "check", subscription.out.trim(), "--secret", "wrong"]).exits(1).says("invalid: ");
    assert!(!run.out.contains("wrong") && !run.out.contains("second"));
    fanwire(&["token", "check", "nonsense", "--secret", "x"]).exits(1).says("invalid: ");
    let key = jsonwebtoken::EncodingKey::from_secret(b"x");
    for (claims, why) in [
        (
            json!({"sub": "42", "b64info": "/w=="}),
            "refused: a connection token that is valid, but info is not JSON",
        ),
        (json!({"subs": {"a": {"b64data": "/w=="}}}), "data in subs is not JSON"),
        (
            json!({"sub": "42", "channel": "a", "b64info": "/w=="}),
            "refused: a subscription token that is valid, but",
        ),
    ] {
        let unfit = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        fanwire(&["token", "check", &unfit, "--secret", "x"]).exits(1).says(why);
    }
    fanwire(&["token", "connection", "--user", "1"]).exits(2).complains("no key to sign with");
    fanwire(&["token", "connection", "--info", "{"]).exits(2).complains("not JSON");
    fanwire(&["token", "connection", "--ttl", "5"]).exits(2).complains("has no unit");
    fanwire(&["token", "connection", "--algorithm", "ES256", "--secret", "x"])
        .exits(2)
        .complains("ES256 signs with --private-key");

    let expired = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI0MiIsImV4cCI6MX0.OgVhr9d2iIHg_BMnJFoCd84sTSBT0PCdrUCKWcgrkMk";
    fanwire(&["token", "check", expired, "--secret", "x"]).exits(1);
}

#[test]
fn private_keys_sign_for_their_public_half() {
    let key_pairs = [
        (
            "RS256",
            "rsa_public_key",
            &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..],
        ),
        (
            "ES256",
            "ecdsa_public_key",
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ),
        (
            "ES384",
            "ecdsa_public_key",
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        ),
        ("EdDSA", "ed25519_public_key", &["genpkey", "-algorithm", "ed25519"]),
    ];
    for (algorithm, setting, arguments) in key_pairs {
        let files = Files::new();
        let private = files.write("private.pem", "");
        let generated = Command::new("openssl").args(arguments).args(["-out", &private]).output().unwrap();
        assert!(generated.status.success());
        let public = Command::new("openssl").args(["pkey", "-in", &private, "-pubout"]).output().unwrap();
        let public = String::from_utf8(public.stdout).unwrap();
        let config = files.write("a.toml", &format!("[client.token]\n{setting} = '''\n{public}'''\n"));
        let made = fanwire(&[
            "token",
            "connection",
            "-u",
            "42",
            "--private-key",
            &private,
            "--algorithm",
            algorithm,
        ])
        .exits(0);
        fanwire(&["token", "check", made.out.trim(), "-c", &config])
            .exits(0)
            .says("valid: a connection token");
        fanwire(&["token", "connection", "--private-key", &config, "--algorithm", algorithm])
            .exits(2)
            .complains("not a private key");
    }
}
