//! Verifies connection and subscription tokens (JWT) and reads what they grant.
//!
//! No claim is used before the signature is verified, with a key that was configured for the family of algorithms which
//! the token's header names. Where an identity provider has the keys, issuer and audience are compared first, as they say
//! whose keys these are. Time comes in as an argument, and there is no leeway: a token is
//! good from `nbf` on and until, but not at, `exp`.

mod claims;
mod jwks;
mod keys;
mod problem;
mod revoked;
mod token_name;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanwire_hub::session::Verify;
use fanwire_hub::{ClaimExtras, ConnectionClaims, KeyFetch, SubscriptionClaims, TokenError, TokenKind};
use fanwire_protocol::json::Object;
use jsonwebtoken::Algorithm;
use regex::Regex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::settings::{Expected, TokenSettings};
use claims::Claims;
use jwks::Groups;
use keys::VerifyingKeys;

pub(crate) use jwks::{KeySetStats, KeySets, follow as fetch_keys};
pub use problem::{KeyError, KeyProblem};
pub(crate) use revoked::{REVOKED_BYTES_MAX, Revocations, Revoked};
pub(crate) use token_name::TokenName;

/// A longer token is invalid. It bounds the work and the memory that one token costs before anything is proved.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The longest time for which a client waits for keys that are being fetched.
pub(crate) const KEYS_PATIENCE: Duration = Duration::from_secs(5);

/// Verifies both kinds of tokens. Made once, shared by all shards.
#[derive(Debug)]
pub struct Tokens {
    connection: Verifier,
    /// `None` verifies subscription tokens as connection tokens are.
    subscription: Option<Verifier>,
    revocations: Revocations,
}

impl Tokens {
    /// Reads all keys, so that a wrong one stops the start and not the first client.
    pub fn new(connection: &TokenSettings, subscription: Option<&TokenSettings>) -> Result<Self, KeyError> {
        Ok(Self {
            connection: Verifier::new(connection, "client.token")?,
            subscription: subscription
                .map(|settings| Verifier::new(settings, "client.subscription_token"))
                .transpose()?,
            revocations: Revocations::default(),
        })
    }

    fn verifier(&self, kind: TokenKind) -> &Verifier {
        match kind {
            TokenKind::Connection => &self.connection,
            TokenKind::Subscription => self.subscription.as_ref().unwrap_or(&self.connection),
        }
    }

    /// Waits for the keys of a connection token, if they are being fetched.
    pub(crate) async fn fetch_keys_of(&self, token: &str) {
        if let Some(keys) = self.connection.awaits_keys(token)
            && let Keys::Published(sets) = &self.connection.keys
        {
            sets.wait_for(keys, Instant::now() + KEYS_PATIENCE).await;
        }
    }

    /// Returns the blocked users and revoked tokens of this node.
    pub(crate) fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Returns true if connections of tokens that are revoked are closed.
    pub(crate) fn closes_revoked(&self) -> bool {
        self.connection.is_revocable
    }

    fn check_revoked(&self, token: &str, claims: &Claims<'_>, now: i64) -> Result<(), TokenError> {
        if !self.revocations.is_empty() && self.revocations.has(TokenName::new(token, claims).revoked(), now)
        {
            return Err(TokenError::Invalid("it is revoked (`revoke_token`)"));
        }
        Ok(())
    }

    /// The parts of a connection token that few have.
    fn extras(&self, token: &str, claims: &Claims<'_>) -> Option<Box<ClaimExtras>> {
        let meta = claims.meta();
        let print = self
            .connection
            .is_revocable
            .then(|| self.revocations.print(TokenName::new(token, claims).revoked()));
        (!meta.is_empty() || print.is_some()).then(|| ClaimExtras { meta, print }.into())
    }

    /// Returns the key sets of identity providers, for which [`fetch_keys`] is to be run.
    pub(crate) fn key_sets(&self) -> impl Iterator<Item = &Arc<KeySets>> {
        [Some(&self.connection), self.subscription.as_ref()].into_iter().flatten().filter_map(|verifier| {
            match &verifier.keys {
                Keys::Configured(_) => None,
                Keys::Published(sets) => Some(sets),
            }
        })
    }

    /// Returns the figures of all sections with keys of an identity provider, if there is one.
    pub(crate) fn key_stats(&self) -> Option<KeySetStats> {
        self.key_sets().fold(None, |stats, sets| {
            let mut stats = stats.unwrap_or_default();
            sets.count(&mut stats);
            Some(stats)
        })
    }

    /// `now` is in seconds since 1970.
    pub fn verify_connection(&self, token: &str, now: i64) -> Result<ConnectionClaims, TokenError> {
        let verifier = &self.connection;
        let payload = verifier.payload(token, now)?;
        let claims = Claims::parse(&payload)?;
        verifier.check_parties(&claims)?;
        if !claims.topic()?.is_empty() {
            return Err(TokenError::Invalid("it has the claim `channel`, so it is a subscription token"));
        }
        claims.check_window(now)?;
        self.check_revoked(token, &claims, now)?;
        Ok(ConnectionClaims {
            user: verifier.user(&payload, &claims)?,
            expiry: claims.expiry()?,
            info: claims.info()?,
            topics: claims.topics()?,
            extras: self.extras(token, &claims),
        })
    }

    /// `now` is in seconds since 1970.
    pub fn verify_subscription(&self, token: &str, now: i64) -> Result<SubscriptionClaims, TokenError> {
        let verifier = self.verifier(TokenKind::Subscription);
        let payload = verifier.payload(token, now)?;
        let claims = Claims::parse(&payload)?;
        verifier.check_parties(&claims)?;
        let topic = claims.topic()?;
        if topic.is_empty() {
            return Err(TokenError::Invalid("it lacks the claim `channel`, so it is no subscription token"));
        }
        claims.check_window(now)?;
        self.check_revoked(token, &claims, now)?;
        Ok(SubscriptionClaims {
            user: verifier.user(&payload, &claims)?,
            topic,
            client: claims.client()?,
            expiry: claims.expiry()?,
            options: claims.options()?,
        })
    }
}

/// As sessions verify tokens.
impl Verify for Tokens {
    fn connection(&self, token: &str, unix: i64) -> Result<ConnectionClaims, TokenError> {
        self.verify_connection(token, unix).inspect_err(refused)
    }

    fn subscription(&self, token: &str, unix: i64) -> Result<SubscriptionClaims, TokenError> {
        self.verify_subscription(token, unix).inspect_err(refused)
    }

    fn awaits_keys(&self, kind: TokenKind, token: &str) -> Option<KeyFetch> {
        self.verifier(kind).awaits_keys(token)
    }

    fn is_blocked(&self, user: &str, unix: i64) -> bool {
        self.revocations.has(Revoked::User(user), unix)
    }
}

/// Says why a token was refused, which its owner is not told.
fn refused(error: &TokenError) {
    tracing::debug!(%error, "token refused");
}

/// Returns the topic that a subscription token names. Nothing is verified: it says only for which topic the token is to be
/// verified.
pub(crate) fn topic_of(token: &str) -> Option<Box<str>> {
    let payload = unverified_payload(token)?;
    let topic = Claims::parse(&payload).ok()?.topic().ok()?;
    Some(topic).filter(|topic| !topic.is_empty())
}

/// Returns the claims' JSON of what looks like a token.
fn unverified_payload(token: &str) -> Option<String> {
    let (_, rest) = Some(token).filter(|token| token.len() <= TOKEN_BYTES_MAX)?.split_once('.')?;
    let (payload, _) = rest.split_once('.')?;
    text(payload).ok()
}

#[derive(Debug)]
enum Keys {
    Configured(Box<VerifyingKeys>),
    /// Of an identity provider.
    Published(Arc<KeySets>),
}

/// The rules for one kind of tokens.
#[derive(Debug)]
struct Verifier {
    keys: Keys,
    audience: Option<Expected>,
    issuer: Option<Expected>,
    user_claim: Option<String>,
    insecure_skip_signature: bool,
    is_revocable: bool,
}

impl Verifier {
    fn new(settings: &TokenSettings, section: &'static str) -> Result<Self, KeyError> {
        let keys = match &settings.jwks {
            None => Keys::Configured(Box::new(VerifyingKeys::new(settings, section)?)),
            Some(jwks) => {
                let patterns = [&settings.issuer, &settings.audience];
                let patterns =
                    patterns.into_iter().flatten().filter_map(Expected::pattern).collect::<Vec<_>>();
                let sets = KeySets::new(jwks, &patterns);
                let sets = sets.map_err(|(setting, problem)| KeyError { section, setting, problem })?;
                Keys::Published(Arc::new(sets))
            }
        };
        Ok(Self {
            keys,
            audience: settings.audience.clone(),
            issuer: settings.issuer.clone(),
            user_claim: settings.user_claim.clone(),
            insecure_skip_signature: settings.insecure_skip_signature,
            is_revocable: settings.is_revocable,
        })
    }

    /// Returns the claims' JSON, once the signature over it is verified.
    fn payload(&self, token: &str, now: i64) -> Result<String, TokenError> {
        let Parts { message, header, payload, signature } = Parts::of(token)?;
        let header = decode(header, "its header is not base64url")?;
        let header = JwtHeader::parse(&header)?;
        if !self.insecure_skip_signature {
            let algorithm = header.algorithm()?;
            let signature = decode(signature, "its signature is not base64url")?;
            match &self.keys {
                Keys::Configured(keys) => keys.verify(algorithm, message.as_bytes(), &signature, now)?,
                Keys::Published(sets) => {
                    let payload = text(payload)?;
                    let key = sets.find(&self.groups(&payload)?, header.key_name().as_deref())?;
                    key.verify(algorithm, message.as_bytes(), &signature)?;
                    return Ok(payload);
                }
            }
        }
        text(payload)
    }

    /// Returns the fetch that may bring the key of a token, if it is not there yet.
    fn awaits_keys(&self, token: &str) -> Option<KeyFetch> {
        let Keys::Published(sets) = &self.keys else { return None };
        let Parts { header, payload, .. } =
            Parts::of(token).ok().filter(|_| !self.insecure_skip_signature)?;
        let header = decode(header, "").ok()?;
        let header = JwtHeader::parse(&header).ok()?;
        header.algorithm().ok()?;
        sets.awaited(&self.groups(&text(payload).ok()?).ok()?, &header.key_name()?)
    }

    /// Returns what the groups of the patterns matched in the issuer and the audience, once these are the expected ones.
    /// The signature is not verified yet.
    fn groups(&self, payload: &str) -> Result<Groups, TokenError> {
        let claims = Claims::parse(payload)?;
        self.check_parties(&claims)?;
        let mut groups = Groups::default();
        if let Some(pattern) = self.issuer.as_ref().and_then(Expected::pattern) {
            groups.add(pattern, claims.issuer()?.as_slice());
        }
        if let Some(pattern) = self.audience.as_ref().and_then(Expected::pattern) {
            groups.add(pattern, &claims.audience()?);
        }
        Ok(groups)
    }

    /// Fails unless issuer and audience are the expected ones.
    fn check_parties(&self, claims: &Claims<'_>) -> Result<(), TokenError> {
        if let Some(expected) = &self.issuer
            && !claims.issuer()?.is_some_and(|issuer| expected.accepts(&issuer))
        {
            return Err(TokenError::Invalid("its issuer (`iss`) is not the expected one"));
        }
        if let Some(expected) = &self.audience
            && !claims.audience()?.iter().any(|audience| expected.accepts(audience))
        {
            return Err(TokenError::Invalid("its audience (`aud`) is not the expected one"));
        }
        Ok(())
    }

    fn user(&self, payload: &str, claims: &Claims<'_>) -> Result<Box<str>, TokenError> {
        match &self.user_claim {
            None => claims.subject(),
            Some(name) => claims::user_from(payload, name),
        }
    }
}

/// The parts of a token, each in base64url.
struct Parts<'t> {
    /// What is signed: header and payload.
    message: &'t str,
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Parts<'t> {
    fn of(token: &'t str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid("it is longer than 16 KiB"));
        }
        let split = token.rsplit_once('.').and_then(|(message, signature)| {
            let (header, payload) = message.split_once('.')?;
            Some(Self { message, header, payload, signature })
        });
        split.ok_or(TokenError::Invalid("it is not three parts with points between them"))
    }
}

/// The fields that the check of the signature needs. `typ` is ignored, and `kid` where the keys are configured.
#[derive(Deserialize)]
struct JwtHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<&'a RawValue>,
    crit: Option<IgnoredAny>,
}

impl<'a> JwtHeader<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, TokenError> {
        let Object(header): Object<Self> = serde_json::from_slice(text)
            .map_err(|_| TokenError::Invalid("its header is not a JSON object with `alg`"))?;
        if header.crit.is_some() {
            // RFC 7515, section 4.1.11: what must be understood and is not makes the token invalid.
            return Err(TokenError::Invalid("its header has `crit`, and no extension is supported"));
        }
        if header.alg.eq_ignore_ascii_case("none") {
            return Err(TokenError::Invalid("it is not signed: its algorithm is `none`"));
        }
        Ok(header)
    }

    fn algorithm(&self) -> Result<Algorithm, TokenError> {
        Algorithm::from_str(&self.alg).map_err(|_| TokenError::Invalid("its algorithm is not supported"))
    }

    fn key_name(&self) -> Option<Cow<'a, str>> {
        serde_json::from_str(self.kid?.get()).ok()
    }
}

impl Expected {
    fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Exactly(expected) => expected == text,
            Self::Matching(expected) => expected.is_match(text),
        }
    }

    fn pattern(&self) -> Option<&Regex> {
        match self {
            Self::Exactly(_) => None,
            Self::Matching(pattern) => Some(pattern),
        }
    }
}

/// Returns the claims' JSON.
fn text(payload: &str) -> Result<String, TokenError> {
    String::from_utf8(decode(payload, "its claims are not base64url")?)
        .map_err(|_| TokenError::Invalid("its claims are not UTF-8"))
}

fn decode(part: &str, otherwise: &'static str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Invalid(otherwise))
}
