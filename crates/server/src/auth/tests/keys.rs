//! Keys that are accepted, and the errors about others.

use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::auth::KeyProblem;

#[test]
fn wrong_keys_stop_the_start_with_a_remedy() {
    let hmac = |text: &str| TokenSettings { hmac_secret: Some(text.into()), ..TokenSettings::default() };
    let previous =
        |text: &str| TokenSettings { hmac_previous_secret: Some(text.into()), ..TokenSettings::default() };
    let rsa = |text: &str| TokenSettings { rsa_public_key: Some(text.into()), ..TokenSettings::default() };
    let ecdsa =
        |text: &str| TokenSettings { ecdsa_public_key: Some(text.into()), ..TokenSettings::default() };
    let ed25519 =
        |text: &str| TokenSettings { ed25519_public_key: Some(text.into()), ..TokenSettings::default() };
    let damaged = |pem: &str| {
        // Half of the base64 is gone.
        let lines: Vec<&str> = pem.lines().collect();
        let half = lines[1].len() / 2 / 4 * 4;
        format!("{}\n{}\n{}\n", lines[0], &lines[1][..half], lines[lines.len() - 1])
    };
    let table: [(TokenSettings, &str, KeyProblem); 33] = [
        (hmac(""), "hmac_secret", KeyProblem::EmptySecret),
        (hmac(" \n"), "hmac_secret", KeyProblem::EmptySecret),
        (hmac(RSA), "hmac_secret", KeyProblem::PemAsSecret),
        (hmac(P256_PRIVATE), "hmac_secret", KeyProblem::PemAsSecret),
        (previous(""), "hmac_previous_secret", KeyProblem::EmptySecret),
        (previous(ED25519), "hmac_previous_secret", KeyProblem::PemAsSecret),
        (rsa(""), "rsa_public_key", KeyProblem::NotPem),
        (rsa("secret"), "rsa_public_key", KeyProblem::NotPem),
        (rsa("ssh-rsa AAAAB3NzaC1yc2E"), "rsa_public_key", KeyProblem::NotPem),
        (rsa(&RSA.replace('\n', "\\n")), "rsa_public_key", KeyProblem::NotPem),
        (rsa(RSA_PRIVATE), "rsa_public_key", KeyProblem::PrivateKey),
        (rsa(CERTIFICATE), "rsa_public_key", KeyProblem::Certificate),
        (rsa(P256), "rsa_public_key", KeyProblem::NotRsa),
        (rsa(ED25519), "rsa_public_key", KeyProblem::NotRsa),
        (rsa(&damaged(RSA)), "rsa_public_key", KeyProblem::NotRsa),
        (rsa(&damaged(RSA_PKCS1)), "rsa_public_key", KeyProblem::NotRsa),
        (rsa(RSA_1024), "rsa_public_key", KeyProblem::RsaSize { bits: 1024 }),
        (ecdsa(""), "ecdsa_public_key", KeyProblem::NotPem),
        (ecdsa(P256_PRIVATE), "ecdsa_public_key", KeyProblem::PrivateKey),
        (ecdsa(CERTIFICATE), "ecdsa_public_key", KeyProblem::Certificate),
        (ecdsa(P521), "ecdsa_public_key", KeyProblem::Es512),
        (ecdsa(SECP256K1), "ecdsa_public_key", KeyProblem::NotEcdsa),
        (ecdsa(RSA), "ecdsa_public_key", KeyProblem::NotEcdsa),
        (ecdsa(ED25519), "ecdsa_public_key", KeyProblem::NotEcdsa),
        (ecdsa(&damaged(P256)), "ecdsa_public_key", KeyProblem::NotEcdsa),
        (ecdsa(&P384.replace("END PUBLIC", "END")), "ecdsa_public_key", KeyProblem::NotEcdsa),
        (ed25519("x"), "ed25519_public_key", KeyProblem::NotPem),
        (ed25519(ED25519_PRIVATE), "ed25519_public_key", KeyProblem::PrivateKey),
        (ed25519(CERTIFICATE), "ed25519_public_key", KeyProblem::Certificate),
        (ed25519(ED448), "ed25519_public_key", KeyProblem::NotEd25519),
        (ed25519(P256), "ed25519_public_key", KeyProblem::NotEd25519),
        (ed25519(RSA), "ed25519_public_key", KeyProblem::NotEd25519),
        (ed25519(&damaged(ED25519)), "ed25519_public_key", KeyProblem::NotEd25519),
    ];
    for (settings, setting, problem) in table {
        let error = Tokens::new(&settings, None).unwrap_err();
        assert_eq!(error.to_string(), format!("client.token.{setting}: {problem}"));
        assert_eq!((error.section, error.setting, error.problem), ("client.token", setting, problem));
        let error = Tokens::new(&with_hmac(), Some(&settings)).unwrap_err();
        assert_eq!((error.section, error.setting), ("client.subscription_token", setting));
    }
}

#[test]
fn pem_may_stand_among_other_text() {
    for pem in [P384.replace('\n', "\r\n"), format!("  \n{P384}\n\n"), format!("the key of ann\n{P384}")] {
        let settings = TokenSettings { ecdsa_public_key: Some(pem.clone()), ..TokenSettings::default() };
        let tokens = Tokens::new(&settings, None).unwrap_or_else(|error| panic!("{error}: {pem}"));
        let line = SIGNED_BY_OPENSSL.lines().find(|line| line.starts_with("ES384")).unwrap();
        assert!(tokens.verify_connection(line.split_once(' ').unwrap().1, NOW).is_ok(), "{pem}");
    }
}

#[test]
fn no_secret_is_shown() {
    let secret = "the-secret-that-nobody-sees";
    let settings = TokenSettings {
        hmac_secret: Some(secret.into()),
        hmac_previous_secret: Some(secret.into()),
        rsa_public_key: Some(RSA.into()),
        ..TokenSettings::default()
    };
    let shown = format!("{:?} {settings:?}", Tokens::new(&settings, None).unwrap());
    for hidden in [secret.to_string(), STANDARD.encode(secret), format!("{:?}", secret.as_bytes())] {
        assert!(!shown.contains(&hidden), "{shown}");
    }
    let private = TokenSettings { rsa_public_key: Some(RSA_PRIVATE.into()), ..TokenSettings::default() };
    let error = Tokens::new(&private, None).unwrap_err();
    let line = RSA_PRIVATE.lines().nth(1).unwrap();
    assert!(!format!("{error} {error:?}").contains(&line[..16]));
}

#[test]
fn tokens_are_shared_between_shards() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Tokens>();
}
