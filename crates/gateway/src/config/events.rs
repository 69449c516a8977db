//! `[events]`: the events of clients, topics and users that the application gets.

use fanwire_server::settings::{EngineSettings, EventMask, OutboxOptions};

use super::checks::Checks;
use super::defaults;
use super::section::{choice, section};
use super::values::Period;

section! {
    /// Events for the application, of those kinds that client.events and the namespaces' events name.
    Events {
        /// The way to the application. "stream": it reads them from Redis streams; needs the Redis engine.
        deliver: Deliver = Deliver::Stream,
        /// Time for which a user without connections is not yet said to be offline, nor a topic without subscribers to be
        /// vacated. Nothing is said of who is back within it, and it stays online in its user's status. "0s", or 1s or more.
        offline_delay: Period = defaults::OFFLINE_DELAY,
        /// Time for which events are kept that the application has not taken.
        retention: Period = defaults::EVENTS_RETENTION,
        /// Maximum number of events kept in one stream, about; the oldest are dropped. There are up to 16,384 streams, and
        /// those of one topic or one user are in one.
        outbox_length_max: usize = defaults::OUTBOX_LENGTH_MAX,
    }
}

choice! {
    /// The way of events to the application.
    Deliver {
        Stream = "stream",
    }
}

choice! {
    /// An event of a namespace's topics.
    TopicEvent {
        Subscribed = "subscribed",
        Unsubscribed = "unsubscribed",
        Occupied = "topic_occupied",
        Vacated = "topic_vacated",
    }
}

choice! {
    /// An event of connections and users.
    ClientEvent {
        Connected = "connected",
        Disconnected = "disconnected",
        Online = "user_online",
        Offline = "user_offline",
    }
}

impl From<TopicEvent> for EventMask {
    fn from(event: TopicEvent) -> Self {
        match event {
            TopicEvent::Subscribed => Self::JOIN,
            TopicEvent::Unsubscribed => Self::LEAVE,
            TopicEvent::Occupied => Self::OCCUPIED,
            TopicEvent::Vacated => Self::VACATED,
        }
    }
}

impl From<ClientEvent> for EventMask {
    fn from(event: ClientEvent) -> Self {
        match event {
            ClientEvent::Connected => Self::JOIN,
            ClientEvent::Disconnected => Self::LEAVE,
            ClientEvent::Online => Self::OCCUPIED,
            ClientEvent::Offline => Self::VACATED,
        }
    }
}

/// Returns the events of a list.
pub(super) fn mask<E: Copy + Into<EventMask>>(events: &[E]) -> EventMask {
    events.iter().fold(EventMask::NONE, |mask, event| mask | (*event).into())
}

impl Events {
    /// Sets up the engine's outboxes. `wants_any` is true if some event is wanted.
    pub(super) fn apply(&self, wants_any: bool, engine: &mut EngineSettings, checks: &mut Checks) {
        const DELAY_MIN: Period = Period::from_secs(1);
        const DELAY_MAX: Period = Period::from_secs(3600);
        const RETENTION_MIN: Period = Period::from_secs(60);
        const RETENTION_MAX: Period = Period::from_secs(30 * 24 * 3600);
        if self.offline_delay != Period::OFF {
            checks.within("events.offline_delay", self.offline_delay, DELAY_MIN, DELAY_MAX);
        }
        checks.within("events.retention", self.retention, RETENTION_MIN, RETENTION_MAX);
        let length_max = checks.at_least_one("events.outbox_length_max", self.outbox_length_max);
        match (self.deliver, engine) {
            _ if !wants_any => {}
            (Deliver::Stream, EngineSettings::Redis(redis)) => {
                redis.outbox = Some(OutboxOptions {
                    offline_delay: self.offline_delay.0,
                    retention: self.retention.0,
                    length_max,
                    ..OutboxOptions::default()
                });
            }
            (Deliver::Stream, EngineSettings::Memory(_)) => {
                checks.error("events.deliver", "\"stream\" needs engine.type = \"redis\", where it is read");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::Config;
    use crate::config::checks::Checks;

    use super::*;

    fn settings(text: &str) -> (fanwire_server::Settings, Vec<String>) {
        let mut checks = Checks::default();
        let config: Config = toml::from_str(text).unwrap();
        let settings = config.settings(&mut checks);
        (settings, checks.errors.iter().map(|(key, text)| format!("{key}: {text}")).collect())
    }

    #[test]
    fn events_of_namespaces_and_clients_turn_the_outboxes_on() {
        let redis = "[engine]\ntype = 'redis'\n[events]\noffline_delay = '2s'\nretention = '1h'\n";
        for (text, client, chat) in [
            ("", 0, 0),
            ("[client]\nevents = ['user_offline', 'connected']\n", 9, 0),
            ("[[topics.namespaces]]\nname = 'chat'\nevents = ['topic_occupied', 'unsubscribed']\n", 0, 6),
        ] {
            let (settings, errors) = settings(&format!("{redis}{text}"));
            assert_eq!(errors, [""; 0]);
            assert_eq!(settings.client.events.bits(), client);
            let mut named = settings.namespaces.named();
            assert_eq!(named.next().map_or(0, |namespace| namespace.events.bits()), chat);
            let EngineSettings::Redis(redis) = settings.engine else { panic!("not Redis") };
            let outbox = redis.outbox.map(|outbox| (outbox.offline_delay, outbox.retention));
            let expected = (Duration::from_secs(2), Duration::from_secs(3600));
            assert_eq!(outbox, (client + chat > 0).then_some(expected));
        }
    }

    #[test]
    fn mistakes_name_the_field_and_the_remedy() {
        let wanted = "[client]\nevents = ['connected']\n";
        for (text, expected) in [
            (wanted.to_owned(), "events.deliver: \"stream\" needs engine.type = \"redis\""),
            ("[events]\noffline_delay = '500ms'\n".to_owned(), "events.offline_delay: must be 1s to 1h"),
            ("[events]\nretention = '1s'\n".to_owned(), "events.retention: must be 1m to 720h"),
            ("[events]\noutbox_length_max = 0\n".to_owned(), "events.outbox_length_max: must be at least 1"),
        ] {
            let (_, errors) = settings(&text);
            assert_eq!(errors.len(), 1, "{text}: {errors:?}");
            assert!(errors[0].starts_with(expected), "{text}: {errors:?}");
        }
        let unknown =
            toml::from_str::<Config>("[client]\nevents = ['subscribed']\n").unwrap_err().to_string();
        assert!(unknown.contains("user_online"), "{unknown}");
    }
}
