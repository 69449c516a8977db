//! `fanwire check`: reports all mistakes of a configuration, or a summary of it.

use std::collections::BTreeMap;
use std::fmt::Display;

use fanwire_server::settings::{EngineSettings, HookSettings};
use fanwire_server::tls::Certificate;
use fanwire_server::{BackendTls, Settings, reach_backend};
use tokio::task::JoinSet;

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
    let loaded = match result {
        Ok(loaded) => loaded,
        Err(problems) => return reported(problems),
    };
    let mut lines = summary(&loaded, warnings.len());
    let mut unreached = Vec::new();
    if arguments.connect {
        for (hook, result) in connect(&loaded.settings.hooks)? {
            let HookSettings { name, url, .. } = &loaded.settings.hooks[hook];
            match result {
                Ok(()) => lines.push(format!("  hook        {name}: {url} can be reached")),
                Err(why) => unreached.push(format!("hooks.{hook}.url: {url}: {why}")),
            }
        }
    }
    say(lines.join("\n"))?;
    if unreached.is_empty() { Ok(()) } else { reported(unreached) }
}

fn reported(problems: Vec<impl Display>) -> Result<(), Failure> {
    for problem in &problems {
        complain(format!("error: {problem}"));
    }
    complain(match problems.len() {
        1 => "1 error".to_owned(),
        count => format!("{count} errors"),
    });
    Err(Failure::Reported)
}

/// Connects to the backends of all hooks, each for as long as a call of it may take.
fn connect(hooks: &[HookSettings]) -> Result<BTreeMap<usize, Result<(), String>>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Run(format!("cannot connect: {error}")))?;
    let results = runtime.block_on(async {
        let mut under_way = JoinSet::new();
        for (place, hook) in hooks.iter().cloned().enumerate() {
            under_way.spawn(async move { (place, connect_to(hook).await) });
        }
        under_way.join_all().await
    });
    // A name may still be looked up.
    runtime.shutdown_background();
    Ok(results.into_iter().collect())
}

async fn connect_to(HookSettings { url, tls, timeout, .. }: HookSettings) -> Result<(), String> {
    let tls = match url.is_https() {
        true => Some(BackendTls::new(&tls, url.host()).map_err(|error| error.to_string())?),
        false => None,
    };
    reach_backend(&url, tls.as_ref(), timeout).await.map_err(|error| error.to_string())
}

fn summary(loaded: &Loaded, warnings: usize) -> Vec<String> {
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
    vec![
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
