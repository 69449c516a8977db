//! `fanwire token`: makes and checks the tokens that clients connect and subscribe with.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanwire_hub::{Expiry, Namespaces, PublicationFormat, SubscriptionClaims, TokenError};
use fanwire_server::auth::Tokens;
use fanwire_server::settings::{Expected, TokenSettings};
use jsonwebtoken::{AlgorithmFamily, EncodingKey, Header};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use crate::cli::{self, Algorithm, CheckToken, ConnectionToken, SigningKey, SubscriptionToken, TokenClaims};
use crate::config::{Sources, load};
use crate::failure::{Failure, listed};
use crate::output::{complain, say};
use crate::printable;

pub(crate) fn run(command: cli::Token) -> Result<(), Failure> {
    match command {
        cli::Token::Connection(arguments) => connection(arguments),
        cli::Token::Subscription(arguments) => subscription(arguments),
        cli::Token::Check(arguments) => check(arguments),
    }
}

fn connection(arguments: ConnectionToken) -> Result<(), Failure> {
    let keys = SigningKeys::load(arguments.key.config)?;
    let mut claims = claims(&arguments.user, &arguments.claims, &keys.connection);
    if !arguments.topic.is_empty() {
        claims.insert("channels".into(), json!(arguments.topic));
    }
    sign(&claims, arguments.key.secret, arguments.key.private_key, arguments.key.algorithm, &keys.connection)
}

fn subscription(arguments: SubscriptionToken) -> Result<(), Failure> {
    let keys = SigningKeys::load(arguments.key.config)?;
    let settings = keys.subscription.as_ref().unwrap_or(&keys.connection);
    let mut claims = claims(&arguments.user, &arguments.claims, settings);
    claims.insert("channel".into(), json!(arguments.topic));
    let SigningKey { secret, private_key, algorithm, .. } = arguments.key;
    sign(&claims, secret, private_key, algorithm, settings)
}

/// The settings for tokens, from the configuration and the environment.
struct SigningKeys {
    connection: TokenSettings,
    subscription: Option<TokenSettings>,
    namespaces: Namespaces,
    info_format: PublicationFormat,
}

impl SigningKeys {
    fn load(files: Vec<PathBuf>) -> Result<Self, Failure> {
        let environment = std::env::vars_os().collect();
        let (result, warnings) = load(Sources { files, environment, ..Sources::default() });
        for warning in warnings {
            complain(format!("warning: {warning}"));
        }
        let settings = result
            .map_err(|problems| Failure::Usage(listed("The configuration is wrong:", &problems)))?
            .settings;
        Ok(Self {
            connection: settings.connection_tokens,
            subscription: settings.subscription_tokens,
            namespaces: settings.namespaces,
            info_format: settings.client.info_format,
        })
    }
}

/// Returns the claims for either kind of token. `aud` and `iss` are set if the configuration requires exact values.
fn claims(user: &str, claims: &TokenClaims, settings: &TokenSettings) -> Map<String, Value> {
    let now = unix_now();
    let mut map = Map::new();
    if !user.is_empty() {
        map.insert(settings.user_claim.clone().unwrap_or("sub".into()), json!(user));
    }
    map.insert("iat".into(), json!(now));
    if let Some(ttl) = claims.ttl.unless_off() {
        map.insert("exp".into(), json!(now.saturating_add_unsigned(ttl.as_secs().max(1))));
    }
    if let Some(info) = &claims.info {
        map.insert("info".into(), info.clone());
    }
    for (claim, expected) in [("aud", &settings.audience), ("iss", &settings.issuer)] {
        if let Some(Expected::Exactly(text)) = expected {
            map.insert(claim.into(), json!(text));
        }
    }
    map
}

fn sign(
    claims: &Map<String, Value>,
    secret: Option<String>,
    private_key: Option<PathBuf>,
    algorithm: Option<Algorithm>,
    settings: &TokenSettings,
) -> Result<(), Failure> {
    let algorithm = jsonwebtoken::Algorithm::from(algorithm.unwrap_or(Algorithm::Hs256));
    let is_secret = algorithm.family() == AlgorithmFamily::Hmac;
    let key = match private_key {
        Some(_) if is_secret => {
            return Err(Failure::Usage(format!("{algorithm:?} signs with --secret, not with --private-key")));
        }
        Some(file) => read_private_key(&file, algorithm)?,
        None if !is_secret => return Err(Failure::Usage(format!("{algorithm:?} signs with --private-key"))),
        None => {
            let configured = || settings.hmac_secret.as_ref().map(|secret| secret.expose_secret().to_owned());
            let secret = secret.or_else(configured).filter(|secret| !secret.is_empty()).ok_or_else(|| {
                Failure::Usage(
                    "no key to sign with: give --secret, --private-key, or --config with client.token.hmac_secret"
                        .into(),
                )
            })?;
            EncodingKey::from_secret(secret.as_bytes())
        }
    };
    // Only here a public key in place of the private one is noticed.
    let token = jsonwebtoken::encode(&Header::new(algorithm), claims, &key).map_err(|_| {
        Failure::Usage(format!("the key cannot sign: it is not a private key for {algorithm:?}"))
    })?;
    say(token)
}

fn read_private_key(file: &Path, algorithm: jsonwebtoken::Algorithm) -> Result<EncodingKey, Failure> {
    let pem = std::fs::read(file)
        .map_err(|error| Failure::Usage(format!("{}: cannot be read: {error}", file.display())))?;
    match algorithm.family() {
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(&pem),
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(&pem),
        _ => EncodingKey::from_ed_pem(&pem),
    }
    .map_err(|error| {
        Failure::Usage(format!("{}: not a private key for {algorithm:?} in PEM: {error}", file.display()))
    })
}

fn check(arguments: CheckToken) -> Result<(), Failure> {
    let token = match arguments.token.as_str() {
        "-" => std::io::read_to_string(std::io::stdin())
            .map_err(|error| Failure::Run(format!("standard input cannot be read: {error}")))?,
        token => token.to_owned(),
    };
    let token = token.trim();
    let SigningKeys { mut connection, mut subscription, namespaces, info_format } =
        SigningKeys::load(arguments.config)?;
    if let Some(secret) = arguments.secret {
        connection.hmac_secret = Some(secret.into());
        subscription = None;
    }
    let tokens =
        Tokens::new(&connection, subscription.as_ref()).map_err(|error| Failure::Usage(error.to_string()))?;
    let claims = payload(token);
    let is_subscription = claims.as_ref().is_some_and(|claims| claims.get("channel").is_some());
    let verified = if is_subscription {
        let verified = tokens.verify_subscription(token, unix_now());
        let unfit = |claims: &SubscriptionClaims| match namespaces.topic(&claims.topic) {
            Ok((_, namespace)) => claims.check(namespace),
            Err(_) => Ok(()),
        };
        verified.map(|claims| (unfit(&claims), claims.user, claims.expiry))
    } else {
        let verified = tokens.verify_connection(token, unix_now());
        verified.map(|claims| (claims.check(info_format, &namespaces), claims.user, claims.expiry))
    };
    let kind = if is_subscription { "subscription" } else { "connection" };
    let verdict = match &verified {
        Ok((Err(unfit), ..)) => format!("refused: a {kind} token that is valid, but {unfit}"),
        Ok((Ok(()), user, expiry)) => {
            let whose =
                if user.is_empty() { "of the anonymous user".into() } else { format!("of user \"{user}\"") };
            format!("valid: a {kind} token {whose}, {}", until(*expiry))
        }
        Err(TokenError::Expired) => format!("expired: a {kind} token that has expired or is not valid yet"),
        Err(error) => format!("invalid: {}", error.to_string().trim_start_matches("invalid token: ")),
    };
    say(printable::one_line(&verdict))?;
    if let Some(claims) = claims {
        say(printable::lines(&format!("{:#}", Value::Object(claims))))?;
    }
    match verified {
        Ok((Ok(()), ..)) => Ok(()),
        _ => Err(Failure::Reported),
    }
}

/// Returns the claims of a token without verifying it.
fn payload(token: &str) -> Option<Map<String, Value>> {
    let part = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn until(expiry: Expiry) -> String {
    match expiry {
        Expiry::Never => "without end".into(),
        Expiry::At(seconds) => {
            let time = u64::try_from(seconds)
                .ok()
                .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
            match time {
                Some(time) if seconds < LAST_YEAR_WITH_FOUR_DIGITS => {
                    format!("until {}", humantime::format_rfc3339_seconds(time))
                }
                _ => format!("until {seconds} seconds after 1970"),
            }
        }
    }
}

/// The end of the year 9999. RFC 3339 has no later dates.
const LAST_YEAR_WITH_FOUR_DIGITS: i64 = 253_402_300_799;

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Hs256 => Self::HS256,
            Algorithm::Hs384 => Self::HS384,
            Algorithm::Hs512 => Self::HS512,
            Algorithm::Rs256 => Self::RS256,
            Algorithm::Rs384 => Self::RS384,
            Algorithm::Rs512 => Self::RS512,
            Algorithm::Es256 => Self::ES256,
            Algorithm::Es384 => Self::ES384,
            Algorithm::EdDsa => Self::EdDSA,
        }
    }
}
