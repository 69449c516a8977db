//! `fanwire check`: reports all mistakes of a configuration, or a summary of it.

use fanwire_server::Settings;
use fanwire_server::settings::EngineSettings;
use fanwire_server::tls::Certificate;

use crate::cli::CheckArguments;
use crate::config::{Loaded, Sources, load};
use crate::failure::Failure;
use crate::output::{complain, say};

pub(crate) fn run(arguments: CheckArguments) -> Result<(), Failure> {
    let sources = Sources {
        dev: arguments.dev,
        files: arguments.files,
        environment: std::env::vars_os().collect(),
        flags: Vec::new(),
    };
    let (result, warnings) = load(sources);
    for warning in &warnings {
        complain(format!("warning: {warning}"));
    }
    match result {
        Ok(loaded) => say(summary(&loaded, warnings.len())),
        Err(problems) => {
            for problem in &problems {
                complain(format!("error: {problem}"));
            }
            complain(match problems.len() {
                1 => "1 error".to_owned(),
                count => format!("{count} errors"),
            });
            Err(Failure::Reported)
        }
    }
}

fn summary(loaded: &Loaded, warnings: usize) -> String {
    let settings = &loaded.settings;
    let mut namespaces: Vec<&str> = settings.namespaces.named().map(|namespace| &*namespace.name).collect();
    namespaces.sort_unstable();
    let tokens = &settings.connection_tokens;
    let algorithms: Vec<&str> = [
        (tokens.hmac_secret.is_some(), "HS256/384/512"),
        (tokens.rsa_public_key.is_some(), "RS256/384/512"),
        (tokens.ecdsa_public_key.is_some(), "ES256/384"),
        (tokens.ed25519_public_key.is_some(), "EdDSA"),
    ]
    .into_iter()
    .filter_map(|(is_set, name)| is_set.then_some(name))
    .collect();
    let api_ports = match (settings.api.on_client_port, settings.api.on_internal_port) {
        (true, true) => "both ports",
        (true, false) => "the client port",
        _ => "the internal port",
    };
    let api_keys = match settings.api.keys.len() {
        _ if settings.api.insecure => "no key needed".to_owned(),
        0 => "closed: there are no api.keys".to_owned(),
        1 => "1 key".to_owned(),
        count => format!("{count} keys"),
    };
    let origins: Vec<&str> = settings.origins.allowed.iter().map(String::as_str).collect();
    let verdict = match warnings {
        0 => "The configuration is fine.".to_owned(),
        1 => "The configuration can be used. There is 1 warning.".to_owned(),
        count => format!("The configuration can be used. There are {count} warnings."),
    };
    let algorithms = match &tokens.jwks {
        _ if tokens.insecure_skip_signature => vec!["any signature: clients may be any user"],
        Some(jwks) => vec!["by the keys at", &*jwks.url],
        None => algorithms,
    };
    let no_tokens = match &settings.client {
        client if client.insecure => "not needed",
        client if client.allow_anonymous_connect_without_token => "none: clients are anonymous",
        _ => "none: clients cannot connect without keys in [client.token]",
    };
    [
        verdict,
        format!("  clients     {}, {}", settings.client_address, encryption(settings)),
        format!("  internal    {}", settings.internal_address),
        format!("  shards      {}", settings.shards),
        format!("  engine      {}", engine(&settings.engine)),
        format!("  pages       {}", joined(&origins, "none: client.allowed_origins is empty")),
        format!("  tokens      {}", joined(&algorithms, no_tokens)),
        format!("  api         {} on {api_ports}, {api_keys}", settings.api.path),
        format!("  namespaces  {}", joined(&namespaces, "none")),
    ]
    .join("\n")
}

/// The certificate was read before, and its file may be gone since.
fn encryption(settings: &Settings) -> String {
    match settings.tls.as_ref().map(Certificate::read) {
        None => "without TLS".to_owned(),
        Some(Ok(certificate)) => {
            format!("TLS until {}", humantime::format_rfc3339_seconds(certificate.validity.until()))
        }
        Some(Err(error)) => error.to_string(),
    }
}

fn engine(settings: &EngineSettings) -> String {
    match settings {
        EngineSettings::Memory(_) => "memory: this node alone".to_owned(),
        EngineSettings::Redis(redis) => {
            let host =
                if redis.host.contains(':') { format!("[{}]", redis.host) } else { redis.host.to_string() };
            format!("redis at {host}:{}, prefix {}", redis.port, redis.prefix)
        }
    }
}

fn joined(items: &[&str], otherwise: &str) -> String {
    if items.is_empty() { otherwise.to_owned() } else { items.join(", ") }
}
