//! `[events]`: the events of clients, topics and users that the application gets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fanwire_server::BackendTls;
use fanwire_server::settings::{EngineSettings, EventMask, OutboxOptions, WebhookSettings};

use super::backend::BackendKeys;
use super::checks::Checks;
use super::defaults;
use super::section::{choice, section};
use super::values::{Period, Secret, Size};

section! {
    /// Events for the application, of those kinds that client.events and the namespaces' events name.
    Events {
        /// The way to the application. "webhook": one node of the cluster posts them to events.webhook.url. "stream": it reads
        /// them from Redis streams, so this needs the Redis engine.
        deliver: Deliver = Deliver::Stream,
        /// Time for which a user without connections is not yet said to be offline, nor a topic without subscribers to be
        /// vacated. Nothing is said of who is back within it, and it stays online in its user's status. "0s", or 1s or more.
        offline_delay: Period = defaults::OFFLINE_DELAY,
        /// Time for which events are kept that the application has not taken.
        retention: Period = defaults::EVENTS_RETENTION,
        /// Maximum number of events kept in one stream, about; the oldest are dropped. There are up to 16,384 streams, and
        /// those of one topic or one user are in one.
        outbox_length_max: usize = defaults::OUTBOX_LENGTH_MAX,
        /// Maximum bytes of events and dead letters with the memory engine, which loses them when the node stops; the oldest
        /// are dropped. 64KiB or more.
        memory_bytes_max: Size = defaults::EVENTS_MEMORY_BYTES_MAX,
        /// Maximum number of dead letters, about: events that the webhook refused. The oldest are dropped.
        dead_letters_max: usize = defaults::DEAD_LETTERS_MAX,
        /// Time for which dead letters are kept.
        dead_letters_ttl: Period = defaults::DEAD_LETTERS_TTL,
        sections {
            /// The receiver of events with events.deliver = "webhook": they are posted to it as JSON.
            webhook: Webhook,
        }
    }
}

section! {
    /// The receiver of events with events.deliver = "webhook": they are posted to it as JSON.
    Webhook {
        /// Its address, such as "https://backend.example/events".
        url: String = String::new(),
        /// Time allowed for a request, from its connection to the last byte of the answer. 1ms to 8s.
        timeout: Period = defaults::WEBHOOK_TIMEOUT,
        /// Maximum number of events in a request; 1 to 1000.
        batch_events: usize = defaults::WEBHOOK_BATCH_EVENTS,
        /// Maximum bytes of a request's body, unless it has a single event.
        batch_bytes: Size = defaults::WEBHOOK_BATCH_BYTES,
        /// Attempts after which an event that is refused becomes a dead letter. A receiver that takes nothing at all is tried
        /// for as long as events are kept.
        attempts_max: u32 = defaults::WEBHOOK_ATTEMPTS_MAX,
        /// Headers that are always sent, as in { "Authorization" = "Bearer …" }.
        static_headers: BTreeMap<String, Secret> = BTreeMap::new(),
        /// Signs each request: the header "Fanwire-Signature: t=SECONDS,v1=HEX" has the HMAC-SHA256 of the seconds, a dot and
        /// the body. Not set: requests are not signed. `openssl rand -hex 32` makes one.
        signature_secret: Option<Secret> = None,
        /// The secret before signature_secret: while it is replaced, requests have a "v1" for each.
        signature_previous_secret: Option<Secret> = None,
        /// The authorities whose certificates are trusted, in PEM. Not set: those of the system.
        ca_file: Option<PathBuf> = None,
        /// The certificate by which this node is known to the receiver, in PEM; needs key_file.
        certificate_file: Option<PathBuf> = None,
        /// The certificate's private key in PEM, without a passphrase.
        key_file: Option<PathBuf> = None,
        /// The name in the receiver's certificate. Not set: the one in url.
        server_name: Option<String> = None,
    }
}

choice! {
    /// The way of events to the application.
    Deliver {
        Webhook = "webhook",
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
    /// Sets up the engine's outboxes, and returns their receiver. `wants_any` is true if some event is wanted.
    pub(super) fn apply(
        &self,
        wants_any: bool,
        engine: &mut EngineSettings,
        checks: &mut Checks,
    ) -> Option<WebhookSettings> {
        const DELAY_MIN: Period = Period::from_secs(1);
        const DELAY_MAX: Period = Period::from_secs(3600);
        const KEPT_MIN: Period = Period::from_secs(60);
        const MEMORY_BYTES_MIN: Size = Size(64 << 10);
        const KEPT_MAX: Period = Period::from_secs(30 * 24 * 3600);
        if self.offline_delay != Period::OFF {
            checks.within("events.offline_delay", self.offline_delay, DELAY_MIN, DELAY_MAX);
        }
        checks.within("events.retention", self.retention, KEPT_MIN, KEPT_MAX);
        checks.within("events.dead_letters_ttl", self.dead_letters_ttl, KEPT_MIN, KEPT_MAX);
        if self.memory_bytes_max.0 < MEMORY_BYTES_MIN.0 {
            checks.error("events.memory_bytes_max", format!("must be at least {MEMORY_BYTES_MIN}"));
        }
        let options = OutboxOptions {
            offline_delay: self.offline_delay.0,
            retention: self.retention.0,
            length_max: checks.at_least_one("events.outbox_length_max", self.outbox_length_max),
            dead_letters_max: checks.at_least_one("events.dead_letters_max", self.dead_letters_max),
            dead_letters_ttl: self.dead_letters_ttl.0,
            bytes_max: self.memory_bytes_max.0,
        };
        if self.deliver == Deliver::Stream && !self.webhook.url.is_empty() {
            checks.warn("events.webhook.url", "has no effect: events.deliver is \"stream\"");
        }
        if !wants_any {
            return None;
        }
        match engine {
            EngineSettings::Redis(redis) => redis.outbox = Some(options),
            EngineSettings::Memory(_) if self.deliver == Deliver::Stream => checks.error(
                "events.deliver",
                "\"stream\" needs engine.type = \"redis\", where it is read. With the memory engine use \"webhook\"",
            ),
            EngineSettings::Memory(memory) => {
                checks.warn(
                    "events.deliver",
                    "events in the memory engine that are not delivered are lost when the node stops. \
                     engine.type = \"redis\" keeps them",
                );
                memory.outbox = Some(options);
            }
        }
        match self.deliver {
            Deliver::Stream => None,
            Deliver::Webhook => self.webhook.settings(checks),
        }
    }
}

impl Webhook {
    const SECTION: &str = "events.webhook";

    fn settings(&self, checks: &mut Checks) -> Option<WebhookSettings> {
        /// A node's claim on the work outlasts a request.
        const TIMEOUT_MAX: Period = Period::from_secs(8);
        const BATCH_EVENTS_MAX: usize = 1000;
        let at = |name: &str| format!("{}.{name}", Self::SECTION);
        let backend = BackendKeys {
            section: Self::SECTION,
            url: &self.url,
            static_headers: &self.static_headers,
            signature_secret: self.signature_secret.as_ref(),
            signature_previous_secret: self.signature_previous_secret.as_ref(),
            ca_file: self.ca_file.as_ref(),
            certificate_file: self.certificate_file.as_ref(),
            key_file: self.key_file.as_ref(),
            server_name: self.server_name.as_ref(),
        };
        checks.within(&at("timeout"), self.timeout, Period::from_millis(1), TIMEOUT_MAX);
        if !(1..=BATCH_EVENTS_MAX).contains(&self.batch_events) {
            checks.error(at("batch_events"), format!("must be 1 to {BATCH_EVENTS_MAX}"));
        }
        if self.attempts_max == 0 {
            checks.error(at("attempts_max"), "must be at least 1");
        }
        let (tls, static_headers) = (backend.tls(checks), backend.static_headers(checks));
        let signature_secrets = backend.signature_secrets(checks);
        Some(WebhookSettings {
            url: backend.url(checks)?,
            tls,
            timeout: self.timeout.0,
            batch_events: self.batch_events,
            batch_bytes: self.batch_bytes.0,
            attempts_max: self.attempts_max,
            static_headers,
            signature_secrets,
        })
    }
}

/// Reads the files of the webhook to check that a node can start with them.
pub(super) fn check_files(webhook: &WebhookSettings, checks: &mut Checks) {
    if webhook.url.is_https()
        && let Err(error) = BackendTls::new(&webhook.tls, webhook.url.host())
    {
        checks.error(format!("{}.{}", Webhook::SECTION, error.setting), error.problem.to_string());
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
    fn the_memory_engine_keeps_events_for_a_webhook_and_warns() {
        let text = "[events]\ndeliver = 'webhook'\nmemory_bytes_max = '1MiB'\n\
                    [events.webhook]\nurl = 'http://127.0.0.1:9000/events'\n";
        for (events, expected) in [("", None), ("[client]\nevents = ['connected']\n", Some(1 << 20))] {
            let mut checks = Checks::default();
            let config: Config = toml::from_str(&format!("{events}{text}")).unwrap();
            let settings = config.settings(&mut checks);
            assert!(checks.errors.is_empty(), "{:?}", checks.errors);
            let EngineSettings::Memory(memory) = settings.engine else { panic!("not memory") };
            assert_eq!(memory.outbox.map(|outbox| outbox.bytes_max), expected);
            let warnings: Vec<_> = checks.warnings.iter().map(|(key, _)| &**key).collect();
            let warned = if expected.is_some() { vec!["events.deliver"] } else { vec![] };
            assert_eq!(warnings, warned);
        }
    }

    #[test]
    fn a_webhook_is_used_if_some_event_is_wanted() {
        let text = "[engine]\ntype = 'redis'\n[events]\ndeliver = 'webhook'\n\
                    [events.webhook]\nurl = 'https://backend.example/events?key=1'\nbatch_bytes = '1KiB'\n\
                    static_headers = { Authorization = 'Bearer a' }\n\
                    signature_secret = 'one'\nsignature_previous_secret = 'two'\n";
        let (without, errors) = settings(text);
        assert_eq!((without.webhook.is_none(), errors), (true, Vec::new()));
        let (with, errors) = settings(&format!("[client]\nevents = ['connected']\n{text}"));
        assert_eq!(errors, [""; 0]);
        let webhook = with.webhook.unwrap();
        assert_eq!(webhook.url.to_string(), "https://backend.example/events");
        assert_eq!((webhook.batch_events, webhook.batch_bytes, webhook.attempts_max), (100, 1024, 5));
        assert_eq!((webhook.signature_secrets.len(), webhook.static_headers.len()), (2, 1));
        assert!(!format!("{webhook:?}").contains("Bearer"));
    }

    #[test]
    fn mistakes_name_the_field_and_the_remedy() {
        let wanted = "[client]\nevents = ['connected']\n";
        let webhook = |text: &str| {
            let url = if text.starts_with("url") { "" } else { "url = 'https://backend.example/events'\n" };
            let engine = "[engine]\ntype = 'redis'\n[events]\ndeliver = 'webhook'\n[events.webhook]\n";
            format!("{wanted}{engine}{url}{text}\n")
        };
        for (text, expected) in [
            (
                wanted.to_owned(),
                "events.deliver: \"stream\" needs engine.type = \"redis\", where it is read. With",
            ),
            (
                "[events]\nmemory_bytes_max = '63KiB'\n".to_owned(),
                "events.memory_bytes_max: must be at least 64KiB",
            ),
            ("[events]\noffline_delay = '500ms'\n".to_owned(), "events.offline_delay: must be 1s to 1h"),
            ("[events]\nretention = '1s'\n".to_owned(), "events.retention: must be 1m to 720h"),
            ("[events]\noutbox_length_max = 0\n".to_owned(), "events.outbox_length_max: must be at least 1"),
            ("[events]\ndead_letters_max = 0\n".to_owned(), "events.dead_letters_max: must be at least 1"),
            ("[events]\ndead_letters_ttl = '1s'\n".to_owned(), "events.dead_letters_ttl: must be 1m to 720h"),
            (webhook("timeout = '9s'"), "events.webhook.timeout: must be 1ms to 8s"),
            (webhook("batch_events = 1001"), "events.webhook.batch_events: must be 1 to 1000"),
            (webhook("batch_events = 0"), "events.webhook.batch_events: must be 1 to 1000"),
            (webhook("attempts_max = 0"), "events.webhook.attempts_max: must be at least 1"),
            (webhook("url = ''"), "events.webhook.url: is empty"),
            (webhook("url = 'backend'"), "events.webhook.url: must begin with http:// or https://"),
            (webhook("signature_secret = ''"), "events.webhook.signature_secret: the secret is empty"),
            (webhook("static_headers = { Host = 'a' }"), "events.webhook.static_headers: \"Host\" is set by"),
            (webhook("key_file = 'a'"), "events.webhook.key_file: needs certificate_file as well"),
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
