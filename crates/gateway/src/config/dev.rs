//! `--dev`: a layer above the defaults that opens everything to this machine only.

use fanwire_server::settings::DevSettings;
use figment::providers::{Format, Toml};
use figment::value::Dict;
use serde::Deserialize;

use super::Config;
use super::checks::{Checks, ConfigSource};
use super::layer::Layer;

const OPENED: &str = include_str!("dev.toml");

pub(super) fn layer() -> Layer {
    let values: Dict = Toml::from_str(OPENED).expect("dev.toml is TOML, which a test sees");
    Layer { source: ConfigSource::Dev, values }
}

/// Adds what layers cannot: the chat room's namespace beside configured ones, and a new secret at every start.
pub(super) fn complete(config: &mut Config, checks: &mut Checks) -> DevSettings {
    for (key, address) in
        [("server.address", config.server.address), ("internal.address", config.internal.address)]
    {
        if !address.is_loopback() {
            checks.error(
                key,
                format!("must be 127.0.0.1 or ::1 with --dev, which opens everything; it is {address}"),
            );
        }
    }
    let opened = Config::deserialize(toml::Deserializer::new(OPENED)).expect("dev.toml is a configuration");
    for namespace in opened.topics.namespaces {
        let is_taken = config.topics.has_namespace(&namespace.name)
            || (namespace.status && config.topics.has_status_namespace());
        if !is_taken {
            config.topics.namespaces.push(namespace);
        }
    }
    let secret: [u8; 32] = rand::random();
    let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    DevSettings { token_secret: secret.into(), pages: crate::pages::CHAT }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::super::{Sources, load};

    fn dev(environment: &[(&str, &str)]) -> Result<fanwire_server::Settings, String> {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let (result, _) = load(Sources { dev: true, environment, ..Sources::default() });
        result.map(|loaded| loaded.settings).map_err(|problems| format!("{problems:?}"))
    }

    #[test]
    fn everything_is_open_and_the_chat_room_is_there() {
        let settings = dev(&[]).unwrap();
        assert!(
            settings.client.insecure && settings.api.insecure && settings.client_address.ip().is_loopback()
        );
        let (_, chat) = settings.namespaces.topic("chat:lobby").unwrap();
        assert!(chat.force_recovery && chat.show_time && chat.no_echo);
        let page = settings.dev.unwrap().token_secret;
        let verified_with = settings.connection_tokens.dev_secret.unwrap();
        assert_eq!(page.expose_secret(), verified_with.expose_secret());
        assert_eq!(page.expose_secret().len(), 64);
        assert_ne!(page.expose_secret(), dev(&[]).unwrap().dev.unwrap().token_secret.expose_secret());
    }

    #[test]
    fn what_is_configured_wins_but_for_the_address() {
        let settings = dev(&[
            ("FANWIRE_CLIENT__TOKEN__HMAC_SECRET", "0012"),
            ("FANWIRE_CLIENT__INSECURE", "false"),
            ("FANWIRE_TOPICS__NAMESPACES", r#"[{"name":"mine","status":true}]"#),
        ])
        .unwrap();
        assert_eq!(settings.connection_tokens.hmac_secret.unwrap().expose_secret(), "0012");
        // A token that the page hands out is not good where the configured secret is.
        assert_eq!(settings.dev.unwrap().token_secret.expose_secret().len(), 64);
        assert!(!settings.client.insecure);
        assert!(settings.namespaces.topic("mine:a").is_ok() && settings.namespaces.topic("chat:a").is_ok());
        // There may be one namespace with the status of users.
        assert!(
            settings.namespaces.topic("online:a").is_err()
                && dev(&[]).unwrap().namespaces.topic("online:a").is_ok()
        );
        let error = dev(&[("FANWIRE_SERVER__ADDRESS", "0.0.0.0")]).unwrap_err();
        assert!(error.contains("FANWIRE_SERVER__ADDRESS") && error.contains("127.0.0.1 or ::1"), "{error}");
    }
}
