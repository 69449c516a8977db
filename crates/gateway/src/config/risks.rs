//! Settings that are valid and insecure: switches for development, and secrets that can be guessed. Each is a warning
//! of `check`, of `config import` and at start.

use std::net::IpAddr;

use fanwire_server::Settings;
use fanwire_server::settings::{
    BackendUrl, EngineSettings, HeaderName, HookSettings, TokenSettings, WebhookSettings,
};
use secrecy::{ExposeSecret, SecretString};

use super::checks::Checks;

/// Secrets of tokens can be guessed offline. As long as the hash of HS256 (RFC 7518, section 3.2).
const TOKEN_SECRET_BYTES_MIN: usize = 32;

/// API keys can be guessed only by sending requests.
const API_KEY_BYTES_MIN: usize = 16;

/// Warns of insecure settings. `--dev` opens everything on purpose, and its banner says so.
pub(super) fn warn(settings: &Settings, is_dev: bool, checks: &mut Checks) {
    if !is_dev {
        warn_of_open_doors(settings, checks);
    }
    warn_of_tokens(&settings.connection_tokens, "client.token", checks);
    if let Some(tokens) = &settings.subscription_tokens {
        warn_of_tokens(tokens, "client.subscription_token", checks);
    }
    for key in &settings.api.keys {
        weigh(key, "api.keys", API_KEY_BYTES_MIN, checks);
    }
    for (index, hook) in settings.hooks.iter().enumerate() {
        warn_of_hook(hook, &format!("hooks.{index}"), checks);
    }
    if let Some(webhook) = &settings.webhook {
        warn_of_webhook(webhook, checks);
    }
    if let EngineSettings::Redis(redis) = &settings.engine
        && let Some(password) = &redis.password
    {
        // Its length is the choice of whoever runs Redis.
        weigh(password, "engine.redis.password", 0, checks);
    }
}

fn warn_of_open_doors(settings: &Settings, checks: &mut Checks) {
    if settings.client.insecure {
        checks.warn(
            "client.insecure",
            "is on: every client may do everything, without a token. For development only",
        );
    }
    if settings.subscribe.token_cookie.is_some()
        && settings.origins.allowed.iter().any(|origin| origin == "*")
    {
        checks.warn(
            "subscribe.token_cookie",
            "is set, and client.allowed_origins has \"*\": every page may act for the users who visit it. Name the pages",
        );
    }
    let api = &settings.api;
    let ports = [
        (api.on_client_port, "server.address", settings.client_address.ip()),
        (api.on_internal_port, "internal.address", settings.internal_address.ip()),
    ];
    let public: Vec<(&str, IpAddr)> = ports
        .into_iter()
        .filter(|(is_there, _, address)| *is_there && !address.is_loopback())
        .map(|(_, key, address)| (key, address))
        .collect();
    if let Some((key, address)) = public.first().filter(|_| api.insecure) {
        checks.warn(
            "api.insecure",
            format!(
                "is on, and {key} is {address}: everybody who reaches it may publish and disconnect, without a key. \
                 Set api.keys, or keep the API to this machine with api.on = \"internal\" and internal.address = \
                 \"127.0.0.1\""
            ),
        );
    }
}

/// Warns of secrets of clients, and of the hook, that anybody on the way could read.
fn warn_of_hook(hook: &HookSettings, section: &str, checks: &mut Checks) {
    weigh_signatures(&hook.signature_secrets, section, checks);
    let is_secret = |name: &HeaderName| ["cookie", "authorization"].contains(&name.as_str());
    let secrets = [
        ("http_headers", hook.http_headers.iter().any(is_secret)),
        ("cookies", !hook.cookies.is_empty()),
        ("static_headers", !hook.static_headers.is_empty()),
    ];
    let sent = secrets.into_iter().find(|(_, is_sent)| *is_sent);
    warn_of_readers(&hook.url, sent.map(|(name, _)| name), section, checks);
    if sent.is_none() && !hook.signature_secrets.is_empty() && may_be_read(&hook.url) {
        checks.warn(
            format!("{section}.url"),
            "is http: calls are signed, but they can be read, and answers can be changed, on the way; use https",
        );
    }
}

fn warn_of_webhook(webhook: &WebhookSettings, checks: &mut Checks) {
    let section = "events.webhook";
    weigh_signatures(&webhook.signature_secrets, section, checks);
    let sent = (!webhook.static_headers.is_empty()).then_some("static_headers");
    warn_of_readers(&webhook.url, sent, section, checks);
}

fn weigh_signatures(secrets: &[SecretString], section: &str, checks: &mut Checks) {
    for (name, secret) in ["signature_secret", "signature_previous_secret"].into_iter().zip(secrets) {
        weigh(secret, &format!("{section}.{name}"), TOKEN_SECRET_BYTES_MIN, checks);
    }
}

/// `sent` names the setting of a secret that is sent to the address.
fn warn_of_readers(url: &BackendUrl, sent: Option<&str>, section: &str, checks: &mut Checks) {
    if let Some(name) = sent.filter(|_| may_be_read(url)) {
        checks.warn(
            format!("{section}.url"),
            format!("is http, and what {name} sends can be read on the way; use https"),
        );
    }
}

/// Returns true if others on the way can read what is sent to the address.
fn may_be_read(url: &BackendUrl) -> bool {
    !url.is_https() && !url.is_local()
}

fn warn_of_tokens(tokens: &TokenSettings, section: &str, checks: &mut Checks) {
    if tokens.insecure_skip_signature {
        checks.warn(
            format!("{section}.insecure_skip_signature"),
            "is on: every client may be any user with any permission, since signatures are not verified. For development only",
        );
    }
    for (name, secret) in
        [("hmac_secret", &tokens.hmac_secret), ("hmac_previous_secret", &tokens.hmac_previous_secret)]
    {
        if let Some(secret) = secret {
            weigh(secret, &format!("{section}.{name}"), TOKEN_SECRET_BYTES_MIN, checks);
        }
    }
}

/// Warns of a secret that can be guessed. The warning does not contain it.
fn weigh(secret: &SecretString, key: &str, bytes_min: usize, checks: &mut Checks) {
    let secret = secret.expose_secret().trim();
    let bytes = secret.len();
    if secret.is_empty() {
        // Other checks report it as an error.
    } else if is_reference(secret) {
        let variable = key.to_uppercase().replace('.', "__");
        checks.warn(
            key,
            format!(
                "looks like a reference that nothing has filled in, such as ${{NAME}}, env:NAME or <NAME>, and is the \
                 secret as it stands. Set the variable FANWIRE_{variable}, or FANWIRE_{variable}_FILE, instead"
            ),
        );
    } else if is_example(secret) {
        checks.warn(
            key,
            "is a word from examples, which attackers try first. `openssl rand -hex 32` makes a secret",
        );
    } else if bytes < bytes_min {
        checks.warn(
            key,
            format!(
                "has {bytes} bytes and can be guessed; use {bytes_min} or more. `openssl rand -hex 32` makes a secret"
            ),
        );
    }
}

/// Returns true for placeholders that templates, shells and other programs replace by a value.
fn is_reference(secret: &str) -> bool {
    let is_within = |open: &str, close: &str| secret.starts_with(open) && secret.ends_with(close);
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./:".contains(&byte))
    };
    let after = |prefix: &str| {
        // In upper or lower case, as in ENV:NAME.
        let (start, rest) = secret.split_at_checked(prefix.len()).unwrap_or_default();
        start.eq_ignore_ascii_case(prefix) && is_name(rest.trim_start_matches('/'))
    };
    [("${", "}"), ("$(", ")"), ("{{", "}}"), ("<", ">"), ("[", "]"), ("__", "__")]
        .into_iter()
        .any(|(open, close)| is_within(open, close))
        || (secret.len() > 2 && is_within("%", "%"))
        || ["$", "env:", "env.", "file:", "vault:", "secret:", "ref:"].into_iter().any(after)
}

/// Words that examples and older manuals use, without their separators.
fn is_example(secret: &str) -> bool {
    const WORDS: [&str; 22] = [
        "secret",
        "mysecret",
        "yoursecret",
        "supersecret",
        "topsecret",
        "secretkey",
        "yoursecretkey",
        "hmacsecret",
        "jwtsecret",
        "password",
        "passw0rd",
        "apikey",
        "myapikey",
        "yourapikey",
        "key",
        "token",
        "test",
        "example",
        "default",
        "admin",
        "todo",
        "keyboardcat",
    ];
    let letters: String =
        secret.chars().filter(|letter| letter.is_alphanumeric()).collect::<String>().to_lowercase();
    ["changeme", "changethis", "replaceme", "replacethis"].iter().any(|word| letters.contains(word))
        || WORDS.contains(&letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load};

    fn warnings(variables: &[(&str, &str)]) -> Vec<String> {
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let (result, warnings) = load(Sources { environment, ..Sources::default() });
        assert!(result.is_ok(), "{result:?}");
        warnings
    }

    #[test]
    fn secrets_that_can_be_guessed_are_told_and_not_shown() {
        const SECRET: &str = "FANWIRE_CLIENT__TOKEN__HMAC_SECRET";
        let long = "0123456789abcdef0123456789abcdef";
        for (secret, expected) in [
            ("${SECRET}", "reference that nothing has filled in"),
            ("${SECRET:-something rather long that stands for the default}", "reference"),
            ("$FANWIRE_TOKEN_SECRET_OF_THE_PRODUCTION", "reference"),
            ("$(cat /run/secrets/token)", "reference"),
            ("{{ .Values.secret }}", "reference"),
            ("<SECRET>", "reference"),
            ("<please put a long random secret here>", "reference"),
            ("env:NAME", "reference"),
            ("ENV:FANWIRE_SECRET_OF_ALL_THE_NODES_HERE", "reference"),
            ("file:///run/secrets/token_hmac_secret_key", "reference"),
            ("%SECRET%", "reference"),
            ("changeme", "a word from examples"),
            ("please-CHANGE_ME-before-you-go-to-production", "a word from examples"),
            ("secret", "a word from examples"),
            ("my-secret", "a word from examples"),
            ("x", "has 1 bytes and can be guessed; use 32 or more"),
            ("0123456789abcdef0123456789abcde", "has 31 bytes"),
        ] {
            let found = warnings(&[(SECRET, secret)]);
            assert_eq!(found.len(), 1, "{secret}: {found:?}");
            assert!(found[0].starts_with(&format!("{SECRET} (client.token.hmac_secret): ")), "{found:?}");
            assert!(found[0].contains(expected), "{secret}: {found:?}");
            assert!(
                secret.len() < 3
                    || ["<SECRET>", "env:NAME", "secret"].contains(&secret)
                    || !found[0].contains(secret)
            );
        }
        for good in [long, "$2y$10$u1dQ7Vb1rXh8mKfJYh3YbOQq0Zb", "a<b>c{d}e%f%0123456789012345678901"] {
            assert_eq!(warnings(&[(SECRET, good)]), [""; 0], "{good}");
        }
        // Each place of its own.
        let found = warnings(&[
            (SECRET, long),
            ("FANWIRE_CLIENT__TOKEN__HMAC_PREVIOUS_SECRET", "old"),
            ("FANWIRE_CLIENT__SUBSCRIPTION_TOKEN__ENABLED", "true"),
            ("FANWIRE_CLIENT__SUBSCRIPTION_TOKEN__HMAC_SECRET", "short"),
            ("FANWIRE_API__KEYS", "0123456789abcdef,short"),
            ("FANWIRE_ENGINE__TYPE", "redis"),
            ("FANWIRE_ENGINE__REDIS__PASSWORD", "${REDIS_PASSWORD}"),
        ]);
        for expected in [
            "(client.token.hmac_previous_secret): has 3 bytes",
            "(client.subscription_token.hmac_secret): has 5 bytes and can be guessed; use 32",
            "(api.keys): has 5 bytes and can be guessed; use 16",
            "(engine.redis.password): looks like a reference",
        ] {
            assert!(found.iter().any(|line| line.contains(expected)), "{expected} not in {found:#?}");
        }
        assert_eq!(found.len(), 4, "{found:#?}");
    }

    #[test]
    fn doors_left_open_are_told() {
        let found = warnings(&[
            ("FANWIRE_CLIENT__INSECURE", "true"),
            ("FANWIRE_CLIENT__TOKEN__INSECURE_SKIP_SIGNATURE", "true"),
            ("FANWIRE_CLIENT__SUBSCRIPTION_TOKEN__ENABLED", "true"),
            ("FANWIRE_CLIENT__SUBSCRIPTION_TOKEN__INSECURE_SKIP_SIGNATURE", "true"),
            ("FANWIRE_API__INSECURE", "true"),
        ]);
        for expected in [
            "(client.insecure): is on: every client may do everything",
            "(client.token.insecure_skip_signature): is on: every client may be any user",
            "(client.subscription_token.insecure_skip_signature): is on",
            "(api.insecure): is on, and server.address is 0.0.0.0: everybody who reaches it",
        ] {
            assert!(found.iter().any(|line| line.contains(expected)), "{expected} not in {found:#?}");
        }
        assert_eq!(found.len(), 4, "{found:#?}");
        let internal = [("FANWIRE_API__INSECURE", "true"), ("FANWIRE_API__ON", "internal")];
        assert_eq!(warnings(&internal), [""; 0]);
        let open = [internal[0], internal[1], ("FANWIRE_INTERNAL__ADDRESS", "::")];
        assert!(warnings(&open)[0].contains("internal.address is ::"));
        let cookie = ("FANWIRE_SUBSCRIBE__TOKEN_COOKIE", "fanwire_token");
        assert_eq!(warnings(&[cookie, ("FANWIRE_CLIENT__ALLOWED_ORIGINS", "https://a.example")]), [""; 0]);
        let any_page = [cookie, ("FANWIRE_CLIENT__ALLOWED_ORIGINS", "*")];
        assert!(
            warnings(&any_page)[0].contains("(subscribe.token_cookie): is set, and client.allowed_origins")
        );
    }

    #[test]
    fn development_warns_of_what_is_not_its_own() {
        let secret = ("FANWIRE_CLIENT__TOKEN__HMAC_SECRET".into(), "0012".into());
        let (result, warnings) = load(Sources { dev: true, environment: vec![secret], ..Sources::default() });
        assert!(result.is_ok());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("has 4 bytes"));
    }
}
