//! `[client.token]` and `[client.subscription_token]`: the keys and expectations that tokens are verified with.

use std::path::PathBuf;

use fanwire_server::auth::Tokens;
use fanwire_server::settings::{BackendTlsSettings, Expected, KeySetSettings, TokenSettings};

use super::checks::Checks;
use super::section::section;
use super::values::{Period, Secret};
use super::{Client, defaults};

section! {
    /// Verification of tokens.
    Token {
        /// Turns the section on.
        enabled: bool = false,
        /// The secret for HS256, HS384 and HS512. `openssl rand -hex 32` makes one.
        hmac_secret: Option<Secret> = None,
        /// The secret before hmac_secret, still accepted while the new one is rolled out.
        hmac_previous_secret: Option<Secret> = None,
        /// Time until which that is accepted, in seconds since 1970. Not set: without end.
        hmac_previous_secret_valid_until: Option<i64> = None,
        /// The public key for RS256, RS384 and RS512, in PEM.
        rsa_public_key: Option<String> = None,
        /// The public key for ES256 or ES384, in PEM; its curve says which.
        ecdsa_public_key: Option<String> = None,
        /// The public key for EdDSA, in PEM.
        ed25519_public_key: Option<String> = None,
        /// The address of the keys of an identity provider (JWKS). It replaces all keys above; tokens name theirs by `kid`.
        /// In its path, {{name}} stands for that group of issuer_regex or audience_regex.
        jwks_url: Option<String> = None,
        /// Time after which the keys are fetched anew. Some come earlier: when three quarters of it are over.
        jwks_ttl: Period = defaults::JWKS_TTL,
        /// Time between two fetches. Sooner, a key of an unknown name is not looked for.
        jwks_refresh_min: Period = defaults::JWKS_REFRESH_MIN,
        /// Time for which keys are used while newer ones cannot be fetched.
        jwks_stale_max: Period = defaults::JWKS_STALE_MAX,
        /// Time that a fetch may take. It is tried twice.
        jwks_timeout: Period = defaults::JWKS_TIMEOUT,
        /// The certificates that the provider's own may be signed by, in PEM. Not set: those of the system.
        jwks_ca_file: Option<PathBuf> = None,
        /// The value that the claim `aud` must have or contain.
        audience: Option<String> = None,
        /// The same as a regular expression.
        audience_regex: Option<String> = None,
        /// The value that the claim `iss` must have.
        issuer: Option<String> = None,
        /// The same as a regular expression.
        issuer_regex: Option<String> = None,
        /// The claim that holds the user. Not set: `sub`.
        user_claim: Option<String> = None,
        /// Accepts any signature. For development only: every client can then be any user.
        insecure_skip_signature: bool = false,
        /// Closes the connections of a token that is revoked (`revoke_token` of the API), for which some bytes are kept of
        /// each. Else they stay until they have to bring a new one.
        revocable: bool = false,
    }
}

impl Client {
    /// Returns the settings of both kinds of token. Their keys are read once to check that they can be used.
    pub(super) fn tokens(&self, checks: &mut Checks) -> (TokenSettings, Option<TokenSettings>) {
        let connection = self.token.settings("client.token", checks);
        let subscription = self
            .subscription_token
            .enabled
            .then(|| self.subscription_token.settings("client.subscription_token", checks));
        if self.subscription_token.revocable {
            checks.warn(
                "client.subscription_token.revocable",
                "changes nothing: connections are closed for their connection tokens (client.token.revocable)",
            );
        }
        if subscription.is_none() && self.subscription_token.has_key() {
            checks.warn(
                "client.subscription_token.enabled",
                "is false, so the keys of this section are not used",
            );
        }
        (connection, subscription)
    }

    /// Returns true if there are tokens that clients may subscribe with.
    pub(super) fn takes_tokens(&self) -> bool {
        let Token { jwks_url, insecure_skip_signature, .. } = &self.token;
        self.token.has_key()
            || jwks_url.is_some()
            || *insecure_skip_signature
            || self.subscription_token.enabled
    }
}

impl Token {
    fn has_key(&self) -> bool {
        self.hmac_secret.is_some()
            || self.rsa_public_key.is_some()
            || self.ecdsa_public_key.is_some()
            || self.ed25519_public_key.is_some()
    }

    fn jwks(&self, section: &str, checks: &mut Checks) -> Option<KeySetSettings> {
        let url = self.jwks_url.clone()?;
        if self.has_key() {
            checks.warn(
                format!("{section}.jwks_url"),
                "is set, so the other keys of this section are not used",
            );
        }
        if self.jwks_stale_max < self.jwks_ttl {
            checks.error(format!("{section}.jwks_stale_max"), "must be at least jwks_ttl");
        }
        let mut period = |name, period| checks.longer_than_zero(&format!("{section}.{name}"), period);
        Some(KeySetSettings {
            url,
            ttl: period("jwks_ttl", self.jwks_ttl),
            refresh_min: period("jwks_refresh_min", self.jwks_refresh_min),
            stale_max: period("jwks_stale_max", self.jwks_stale_max),
            timeout: period("jwks_timeout", self.jwks_timeout),
            tls: BackendTlsSettings { ca_file: self.jwks_ca_file.clone(), ..BackendTlsSettings::default() },
        })
    }

    fn settings(&self, section: &str, checks: &mut Checks) -> TokenSettings {
        let audience = expected(&self.audience, &self.audience_regex, section, "audience", checks);
        let issuer = expected(&self.issuer, &self.issuer_regex, section, "issuer", checks);
        if self.user_claim.as_deref() == Some("") {
            checks.error(format!("{section}.user_claim"), "is empty; leave it out to use `sub`");
        }
        if self.hmac_previous_secret_valid_until.is_some() && self.hmac_previous_secret.is_none() {
            checks.warn(
                format!("{section}.hmac_previous_secret_valid_until"),
                "has no hmac_previous_secret to end",
            );
        }
        let settings = TokenSettings {
            hmac_secret: self.hmac_secret.as_ref().map(Secret::to_settings),
            hmac_previous_secret: self.hmac_previous_secret.as_ref().map(Secret::to_settings),
            hmac_previous_secret_valid_until: self.hmac_previous_secret_valid_until,
            dev_secret: None,
            rsa_public_key: self.rsa_public_key.clone(),
            ecdsa_public_key: self.ecdsa_public_key.clone(),
            ed25519_public_key: self.ed25519_public_key.clone(),
            jwks: self.jwks(section, checks),
            audience,
            issuer,
            user_claim: self.user_claim.clone(),
            insecure_skip_signature: self.insecure_skip_signature,
            is_revocable: self.revocable,
        };
        report_unusable_keys(settings.clone(), section, checks);
        settings
    }
}

/// Reports all unusable keys. `Tokens` names one at a time, so each is removed and the rest tried again.
fn report_unusable_keys(mut settings: TokenSettings, section: &str, checks: &mut Checks) {
    while let Err(error) = Tokens::new(&settings, None) {
        checks.error(format!("{section}.{}", error.setting), error.problem.to_string());
        match error.setting {
            "hmac_secret" => settings.hmac_secret = None,
            "hmac_previous_secret" => settings.hmac_previous_secret = None,
            "rsa_public_key" => settings.rsa_public_key = None,
            "ecdsa_public_key" => settings.ecdsa_public_key = None,
            "ed25519_public_key" => settings.ed25519_public_key = None,
            "jwks_url" | "jwks_ca_file" => settings.jwks = None,
            _ => break,
        }
    }
}

fn expected(
    exact: &Option<String>,
    pattern: &Option<String>,
    section: &str,
    claim: &str,
    checks: &mut Checks,
) -> Option<Expected> {
    match (exact, pattern) {
        (Some(_), Some(_)) => {
            checks.error(format!("{section}.{claim}_regex"), format!("is set beside {claim}; choose one"));
            None
        }
        (Some(text), None) => Some(Expected::Exactly(text.clone())),
        (None, Some(pattern)) => {
            checks.regex(&format!("{section}.{claim}_regex"), pattern).map(Expected::Matching)
        }
        (None, None) => None,
    }
}
