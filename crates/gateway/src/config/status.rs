//! `[status]`: who is online, and when the others were last seen.

use fanwire_hub::Namespaces;
use fanwire_server::settings::{
    EngineSettings, MemoryStatusBounds, OutboxOptions, StatusOptions, StatusSettings,
};

use super::checks::Checks;
use super::defaults;
use super::events::Events;
use super::section::section;
use super::values::{Period, Size};

section! {
    /// User status: who is online, and when the others were last seen. On while a namespace has status = true.
    Status {
        /// The path that takes heartbeats of users without a connection: `POST /heartbeat`, with a connection token. Empty:
        /// there is none.
        heartbeat_path: String = defaults::HEARTBEAT_PATH.into(),
        /// Time for which a heartbeat keeps a user online.
        heartbeat_ttl: Period = defaults::HEARTBEAT_TTL,
        /// Time for which it is kept when a user was last seen.
        last_seen_ttl: Period = defaults::LAST_SEEN_TTL,
        /// Maximum size of all that on the memory engine, where it is lost at a restart. Beyond it, those who have been
        /// offline for longest are forgotten. On Redis it does not count.
        memory_bytes_max: Size = defaults::STATUS_BYTES_MAX,
    }
}

impl Status {
    /// Returns the settings if a namespace has the status of users, and sets up the engine for it.
    pub(super) fn settings(
        &self,
        namespaces: &Namespaces,
        events: &Events,
        engine: &mut EngineSettings,
        checks: &mut Checks,
    ) -> Option<StatusSettings> {
        const HEARTBEAT_MIN: Period = Period::from_secs(1);
        const HEARTBEAT_MAX: Period = Period::from_secs(24 * 3600);
        const LAST_SEEN_MIN: Period = Period::from_secs(60);
        const LAST_SEEN_MAX: Period = Period::from_secs(3 * 365 * 24 * 3600);
        checks.within("status.last_seen_ttl", self.last_seen_ttl, LAST_SEEN_MIN, LAST_SEEN_MAX);
        checks.within("status.heartbeat_ttl", self.heartbeat_ttl, HEARTBEAT_MIN, HEARTBEAT_MAX);
        let namespace = namespaces.named().find(|namespace| namespace.status)?;
        if let EngineSettings::Redis(redis) = engine {
            redis.outbox.get_or_insert(OutboxOptions {
                offline_delay: events.offline_delay.0,
                ..OutboxOptions::default()
            });
        }
        let options = StatusOptions {
            prefix: format!("{}{}", namespace.name, namespaces.rules.namespace_boundary).into(),
            heartbeat_ttl: self.heartbeat_ttl.0,
            last_seen_ttl: self.last_seen_ttl.0,
        };
        let path = Some(&self.heartbeat_path).filter(|path| !path.is_empty());
        let heartbeat_path = path.map(|path| checks.path("status.heartbeat_path", path));
        let in_memory =
            MemoryStatusBounds { offline_delay: events.offline_delay.0, bytes_max: self.memory_bytes_max.0 };
        Some(StatusSettings { options, heartbeat_path, in_memory })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::Config;

    use super::*;

    const ONLINE: &str = "[[topics.namespaces]]\nname = 'online'\nstatus = true\n";
    const REDIS: &str = "[engine]\ntype = 'redis'\n";

    fn settings(text: &str) -> (fanwire_server::Settings, Vec<String>) {
        let mut checks = Checks::default();
        let config: Config = toml::from_str(text).unwrap();
        let settings = config.settings(&mut checks);
        (settings, checks.errors.iter().map(|(key, text)| format!("{key}: {text}")).collect())
    }

    #[test]
    fn a_namespace_turns_status_on() {
        let text = format!(
            "{ONLINE}{REDIS}[events]\noffline_delay = '2s'\n[status]\nlast_seen_ttl = '1h'\n\
             [topics]\nnamespace_boundary = '/'\n"
        );
        // The table [topics] comes before its namespaces.
        let text = text.replace(ONLINE, "") + ONLINE;
        let (settings, errors) = settings(&text);
        assert_eq!(errors, [""; 0]);
        let StatusSettings { options: status, heartbeat_path, in_memory } = settings.status.unwrap();
        assert_eq!(heartbeat_path.as_deref(), Some("/heartbeat"));
        assert_eq!((in_memory.offline_delay, in_memory.bytes_max), (Duration::from_secs(2), 64 << 20));
        assert_eq!((&*status.prefix, status.last_seen_ttl), ("online/", Duration::from_secs(3600)));
        let EngineSettings::Redis(redis) = settings.engine else { panic!("not Redis") };
        assert_eq!(redis.outbox.map(|outbox| outbox.offline_delay), Some(Duration::from_secs(2)));
    }

    #[test]
    fn without_such_a_namespace_status_is_off() {
        let (settings, errors) = settings(REDIS);
        assert_eq!(errors, [""; 0]);
        assert!(settings.status.is_none());
        let EngineSettings::Redis(redis) = settings.engine else { panic!("not Redis") };
        assert!(redis.outbox.is_none());
    }

    #[test]
    fn mistakes_name_the_field_and_the_remedy() {
        let two = format!("{ONLINE}{}", ONLINE.replace("online", "other"));
        for (text, expected) in [
            (format!("{REDIS}{two}"), "topics.namespaces.1.status: is on in \"online\" already"),
            (
                format!("{REDIS}{ONLINE}history_size = 1\nhistory_ttl = '1s'\n"),
                "topics.namespaces.0.history_size: must be 0 with status",
            ),
            (format!("{REDIS}[topics.default]\nstatus = true\n"), "topics.default.status: needs a namespace"),
            ("[status]\nlast_seen_ttl = '1s'\n".to_owned(), "status.last_seen_ttl: must be 1m to "),
        ] {
            let (_, errors) = settings(&text);
            assert_eq!(errors.len(), 1, "{text}: {errors:?}");
            assert!(errors[0].starts_with(expected), "{text}: {errors:?}");
        }
    }
}
