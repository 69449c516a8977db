//! `[topics]`: the rules of names, and the options of each namespace.

use std::collections::HashSet;

use fanwire_hub::hook_settings::NamespaceHooks;
use fanwire_hub::{self as hub, HistoryBounds, NameRules, Namespaces};

use super::checks::Checks;
use super::defaults;
use super::events::{self, TopicEvent};
use super::hooks::{HookNames, HookUse};
use super::section::{choice, section};
use super::values::Period;

section! {
    /// Names of topics, and defaults for all of them.
    Topics {
        /// Maximum length of a name, in bytes.
        length_max: usize = defaults::TOPIC_LENGTH_MAX,
        /// The prefix of private topics, which need a subscription token.
        private_prefix: String = defaults::PRIVATE_PREFIX.into(),
        /// Ends the namespace in a name, as in `chat:lobby`.
        namespace_boundary: String = defaults::NAMESPACE_BOUNDARY.into(),
        /// Begins the list of users in a name, as in `dialog#12,43`.
        user_boundary: String = defaults::USER_BOUNDARY.into(),
        /// Separates those users.
        user_separator: String = defaults::USER_SEPARATOR.into(),
        /// Time for which a stream's position is kept after its last use, unless a namespace sets it.
        history_meta_ttl: Period = defaults::HISTORY_META_TTL,
        /// Required format of data, unless a namespace sets it: "json", "json_object", "not_empty" (one byte or more)
        /// or "binary" (any bytes). JSON clients receive bytes that are not JSON as "b64data". With either of the first
        /// two, the information about a client in tokens and from the API must be JSON, too.
        publication_format: PublicationFormat = PublicationFormat::Json,
        sections {
            /// Topics without a namespace. Every option is off by default.
            default: Namespace,
            /// Topics whose name begins with the namespace's name, as in `chat:lobby`. Repeat for each namespace.
            namespaces: Vec<Namespace>,
        }
    }
}

section! {
    /// The options of the topics in a namespace.
    Namespace {
        /// The part of a name before the boundary: two or more letters, digits, `-`, `_` or `.`.
        name: String = String::new(),
        /// Keeps the list of subscribers.
        presence: bool = false,
        /// Sends a join when a client subscribes, and a leave when it unsubscribes.
        join_leave: bool = false,
        /// Events of subscribers for the application: "subscribed", "unsubscribed", "topic_occupied", "topic_vacated"; see
        /// [events]. The list of subscribers is then kept for them alone, unless presence is on.
        events: Vec<TopicEvent> = Vec::new(),
        /// Sends joins and leaves to every subscriber, not only to those that ask.
        force_push_join_leave: bool = false,
        /// Number of publications kept. 0 keeps none; needs history_ttl.
        history_size: usize = 0,
        /// Time for which they are kept after the last one, in whole seconds. "0s" keeps none.
        history_ttl: Period = Period::OFF,
        /// Time for which the stream's position is kept after its last use; at least history_ttl. Not set: as in
        /// [topics].
        history_meta_ttl: Option<Period> = None,
        /// Watches the position of every subscription; needs history.
        force_positioning: bool = false,
        /// Lets clients ask for that.
        allow_positioning: bool = false,
        /// Recovers missed publications for every subscription; needs history.
        force_recovery: bool = false,
        /// Lets clients ask for that.
        allow_recovery: bool = false,
        /// Publications that recovery sends: "stream" all that were missed, "cache" the newest one only.
        recovery_mode: RecoveryMode = RecoveryMode::Stream,
        /// In cache mode, sends the newest publication even to clients that do not ask; needs force_recovery.
        auto_cache_recover: bool = false,
        /// Lets clients with a user subscribe without a subscription token.
        allow_subscribe_for_client: bool = false,
        /// Extends that to anonymous clients.
        allow_subscribe_for_anonymous: bool = false,
        /// Lets clients with a user publish, subscribed or not, except to topics that are private or list other users.
        allow_publish_for_client: bool = false,
        /// Lets subscribers with a user publish.
        allow_publish_for_subscriber: bool = false,
        /// Extends both to anonymous clients.
        allow_publish_for_anonymous: bool = false,
        /// Lets clients with a user ask for presence, in the same topics.
        allow_presence_for_client: bool = false,
        /// Lets subscribers with a user do so.
        allow_presence_for_subscriber: bool = false,
        /// Extends both to anonymous clients.
        allow_presence_for_anonymous: bool = false,
        /// Lets clients with a user read history, in the same topics.
        allow_history_for_client: bool = false,
        /// Lets subscribers with a user do so.
        allow_history_for_subscriber: bool = false,
        /// Extends both to anonymous clients.
        allow_history_for_anonymous: bool = false,
        /// Applies the list of users in names: `dialog#12,43` is for users 12 and 43 only.
        allow_user_limited_topics: bool = false,
        /// A regular expression for the part of a name after the namespace. Not set: names are ASCII.
        topic_regex: Option<String> = None,
        /// Required format of data. Not set: as in [topics].
        publication_format: Option<PublicationFormat> = None,
        /// Handling of publications that wait for a slow client: "close" keeps them, and closes the client with code
        /// 3008 at client.queue_bytes_max; "drop_oldest" drops the oldest at that limit; "keep_latest" keeps only the
        /// newest of each topic. A subscription with a position in the stream never has a gap: its client is closed,
        /// and recovers.
        slow_policy: SlowPolicy = SlowPolicy::Close,
        /// Sends clients what they publish themselves, as all other subscribers get it. Without it only the publishing
        /// connection is left out: another of its user, or a later one of the same client, gets it.
        echo: bool = true,
        /// Tells clients the time of each publication, as `time` in milliseconds since 1970.
        show_time: bool = false,
        /// The hook in [[hooks]] that decides who subscribes, in place of allow_subscribe_for_client. A subscription token,
        /// and a name that lists its users, win.
        subscribe_hook: String = String::new(),
        /// The hook that decides on each publication of a client, and may change it, in place of the options
        /// allow_publish_for_*.
        publish_hook: String = String::new(),
        /// The hook that prolongs subscriptions that expire, in place of their clients.
        sub_refresh_hook: String = String::new(),
        /// Clients may ask for the publications with certain tags alone (`tf`).
        allow_tags_filter: bool = false,
        /// Each topic tells the status of a user: `online:42` whether user 42 is online, and when it was last seen. Who may
        /// subscribe may know. One namespace may have it; nobody publishes there.
        status: bool = false,
    }
}

choice! {
    /// Publications that recovery sends to a client that reconnects.
    RecoveryMode {
        Stream = "stream",
        Cache = "cache",
    }
}

choice! {
    /// Required format of a publication's data.
    PublicationFormat {
        NotEmpty = "not_empty",
        Json = "json",
        JsonObject = "json_object",
        Binary = "binary",
    }
}

choice! {
    /// Handling of publications that wait for a slow client.
    SlowPolicy {
        Close = "close",
        DropOldest = "drop_oldest",
        KeepLatest = "keep_latest",
    }
}

impl From<PublicationFormat> for hub::PublicationFormat {
    fn from(format: PublicationFormat) -> Self {
        match format {
            PublicationFormat::NotEmpty => Self::NotEmpty,
            PublicationFormat::Json => Self::Json,
            PublicationFormat::JsonObject => Self::JsonObject,
            PublicationFormat::Binary => Self::Binary,
        }
    }
}

impl Topics {
    pub(super) fn settings(&self, hooks: &mut HookNames<'_>, checks: &mut Checks) -> Namespaces {
        let rules = self.name_rules(checks);
        let default = self.namespace(&self.default, "topics.default", hooks, checks);
        let mut names = HashSet::new();
        let mut named = Vec::new();
        for (index, namespace) in self.namespaces.iter().enumerate() {
            let key = format!("topics.namespaces.{index}");
            if !is_namespace_name(&namespace.name) {
                checks.error(
                    format!("{key}.name"),
                    format!("\"{}\" must be two or more letters, digits, `-`, `_` or `.`", namespace.name),
                );
            } else if !names.insert(&namespace.name) {
                checks.error(
                    format!("{key}.name"),
                    format!("\"{}\" is the name of two namespaces", namespace.name),
                );
            }
            named.push(self.namespace(namespace, &key, hooks, checks));
        }
        self.check_status(checks);
        Namespaces::new(rules, default, named)
    }

    /// Warns of a `sub_refresh_hook` where nothing gives subscriptions an end, if clients have no tokens.
    pub(super) fn warn_of_refresh_without_end(&self, checks: &mut Checks) {
        let named = self.namespaces.iter().enumerate();
        let named = named.map(|(index, namespace)| (format!("topics.namespaces.{index}"), namespace));
        for (key, namespace) in named.chain([("topics.default".to_owned(), &self.default)]) {
            if !namespace.sub_refresh_hook.is_empty() && namespace.subscribe_hook.is_empty() {
                checks.warn(
                    format!("{key}.sub_refresh_hook"),
                    "is asked only about subscriptions of the API's subscribe that end: there is no subscribe_hook, and \
                     there are no tokens, to give one an end",
                );
            }
        }
    }

    fn check_status(&self, checks: &mut Checks) {
        if self.default.status {
            checks
                .error("topics.default.status", "needs a namespace: set it in one of [[topics.namespaces]]");
        }
        let with_status = self.namespaces.iter().enumerate().filter(|(_, namespace)| namespace.status);
        let mut first: Option<&Namespace> = None;
        for (index, namespace) in with_status {
            let key = format!("topics.namespaces.{index}");
            if namespace.history_size > 0 {
                let why = "must be 0 with status: a new subscriber is told the present status";
                checks.error(format!("{key}.history_size"), why);
            }
            match first {
                None => first = Some(namespace),
                Some(first) => {
                    let why =
                        format!("is on in \"{}\" already; one namespace has the status of users", first.name);
                    checks.error(format!("{key}.status"), why);
                }
            }
        }
    }

    pub(super) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.iter().any(|namespace| namespace.name == name)
    }

    pub(super) fn has_status_namespace(&self) -> bool {
        self.namespaces.iter().any(|namespace| namespace.status)
    }

    fn name_rules(&self, checks: &mut Checks) -> NameRules {
        let parts = [
            ("topics.private_prefix", &self.private_prefix),
            ("topics.namespace_boundary", &self.namespace_boundary),
            ("topics.user_boundary", &self.user_boundary),
            ("topics.user_separator", &self.user_separator),
        ];
        for (index, (key, text)) in parts.iter().enumerate() {
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                checks.error(*key, "must be one or more visible ASCII characters");
            } else if text.starts_with('!') {
                checks.error(*key, "begins with !, which is reserved for the cluster's own topics");
            } else if let Some((other, _)) = parts[..index].iter().find(|(_, earlier)| earlier == text) {
                checks.error(*key, format!("is the same as {other}"));
            }
        }
        NameRules {
            length_max: checks.at_least_one("topics.length_max", self.length_max),
            private_prefix: self.private_prefix.clone(),
            namespace_boundary: self.namespace_boundary.clone(),
            user_boundary: self.user_boundary.clone(),
            user_separator: self.user_separator.clone(),
        }
    }

    fn namespace(
        &self,
        config: &Namespace,
        key: &str,
        hooks: &mut HookNames<'_>,
        checks: &mut Checks,
    ) -> hub::Namespace {
        let at = |name: &str| format!("{key}.{name}");
        let history = self.history(config, key, checks);
        if history.is_none() && config.history_size == 0 && config.history_ttl == Period::OFF {
            for (name, is_on) in [
                ("force_positioning", config.force_positioning),
                ("allow_positioning", config.allow_positioning),
                ("force_recovery", config.force_recovery),
                ("allow_recovery", config.allow_recovery),
            ] {
                if is_on {
                    checks.error(at(name), "needs history: set history_size and history_ttl");
                }
            }
        }
        if config.auto_cache_recover
            && !(config.force_recovery && config.recovery_mode == RecoveryMode::Cache)
        {
            checks
                .error(at("auto_cache_recover"), "needs force_recovery = true and recovery_mode = \"cache\"");
        }
        if (config.force_positioning || config.force_recovery)
            && config.recovery_mode == RecoveryMode::Stream
            && config.slow_policy != SlowPolicy::Close
        {
            let forced = if config.force_recovery { "force_recovery" } else { "force_positioning" };
            checks.error(
                at("slow_policy"),
                format!("drops publications, and {forced} rules that out; remove one of them"),
            );
        }
        hub::Namespace {
            hooks: config.hooks(key, hooks, checks),
            name: config.name.clone(),
            presence: config.presence,
            events: events::mask(&config.events),
            join_leave: config.join_leave,
            force_push_join_leave: config.force_push_join_leave,
            history,
            force_positioning: config.force_positioning,
            allow_positioning: config.allow_positioning,
            force_recovery: config.force_recovery,
            allow_recovery: config.allow_recovery,
            recovery_mode: match config.recovery_mode {
                RecoveryMode::Stream => hub::RecoveryMode::Stream,
                RecoveryMode::Cache => hub::RecoveryMode::Cache,
            },
            auto_cache_recover: config.auto_cache_recover,
            allow_subscribe_for_client: config.allow_subscribe_for_client,
            allow_subscribe_for_anonymous: config.allow_subscribe_for_anonymous,
            allow_publish_for_client: config.allow_publish_for_client,
            allow_publish_for_subscriber: config.allow_publish_for_subscriber,
            allow_publish_for_anonymous: config.allow_publish_for_anonymous,
            allow_presence_for_client: config.allow_presence_for_client,
            allow_presence_for_subscriber: config.allow_presence_for_subscriber,
            allow_presence_for_anonymous: config.allow_presence_for_anonymous,
            allow_history_for_client: config.allow_history_for_client,
            allow_history_for_subscriber: config.allow_history_for_subscriber,
            allow_history_for_anonymous: config.allow_history_for_anonymous,
            allow_user_limited_topics: config.allow_user_limited_topics,
            topic_regex: config
                .topic_regex
                .as_ref()
                .and_then(|pattern| checks.regex(&at("topic_regex"), pattern)),
            publication_format: config.publication_format.unwrap_or(self.publication_format).into(),
            slow_policy: match config.slow_policy {
                SlowPolicy::Close => hub::SlowPolicy::Close,
                SlowPolicy::DropOldest => hub::SlowPolicy::DropOldest,
                SlowPolicy::KeepLatest => hub::SlowPolicy::KeepLatest,
            },
            show_time: config.show_time,
            allow_tags_filter: config.allow_tags_filter,
            no_echo: !config.echo,
            status: config.status,
        }
    }

    fn history(&self, config: &Namespace, key: &str, checks: &mut Checks) -> Option<HistoryBounds> {
        let at = |name: &str| format!("{key}.{name}");
        let meta_ttl = config.history_meta_ttl.unwrap_or(self.history_meta_ttl);
        for (name, period) in [("history_ttl", config.history_ttl), ("history_meta_ttl", meta_ttl)] {
            if !period.is_whole_seconds() {
                checks.error(at(name), "must be whole seconds");
            }
        }
        match (config.history_size, config.history_ttl) {
            (0, Period::OFF) => None,
            (0, _) => {
                checks.error(at("history_ttl"), "needs history_size as well");
                None
            }
            (_, Period::OFF) => {
                checks.error(at("history_size"), "needs history_ttl as well");
                None
            }
            (size, ttl) => {
                if meta_ttl < ttl {
                    checks.error(
                        at("history_meta_ttl"),
                        format!("must be at least history_ttl ({meta_ttl} is less than {ttl})"),
                    );
                }
                Some(HistoryBounds { size, ttl: ttl.0, meta_ttl: meta_ttl.0 })
            }
        }
    }
}

impl Namespace {
    fn hooks(&self, key: &str, hooks: &mut HookNames<'_>, checks: &mut Checks) -> NamespaceHooks {
        let at = |name: &str| format!("{key}.{name}");
        for (hook, decides, permissions) in [
            (
                &self.subscribe_hook,
                "subscribe_hook decides who subscribes",
                &[
                    ("allow_subscribe_for_client", self.allow_subscribe_for_client),
                    ("allow_subscribe_for_anonymous", self.allow_subscribe_for_anonymous),
                ][..],
            ),
            (
                &self.publish_hook,
                "publish_hook decides what is published",
                &[
                    ("allow_publish_for_client", self.allow_publish_for_client),
                    ("allow_publish_for_subscriber", self.allow_publish_for_subscriber),
                    ("allow_publish_for_anonymous", self.allow_publish_for_anonymous),
                ][..],
            ),
        ] {
            for (name, _) in permissions.iter().filter(|(_, is_on)| *is_on && !hook.is_empty()) {
                checks.warn(at(name), format!("has no effect: {decides}"));
            }
        }
        let mut find = |name: &str, hook| hooks.find(&at(name), hook, HookUse::Other, checks);
        NamespaceHooks {
            subscribe: find("subscribe_hook", &self.subscribe_hook),
            publish: find("publish_hook", &self.publish_hook),
            sub_refresh: find("sub_refresh_hook", &self.sub_refresh_hook),
        }
    }
}

fn is_namespace_name(name: &str) -> bool {
    name.len() >= 2
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
