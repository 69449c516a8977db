//! `[engine.redis]`: the address of Redis, and the times and limits of the engine that uses it.

use fanwire_server::settings::RedisSettings;

use super::address::HostPort;
use super::checks::Checks;
use super::defaults;
use super::section::section;
use super::values::{Period, Secret};

section! {
    /// The engine that nodes share.
    RedisEngine {
        /// The primary, as "host:port"; an IPv6 address needs brackets, as in "[::1]:6379".
        address: HostPort = defaults::redis_address(),
        /// The user to authenticate as; needs password. Not set: Redis' default user.
        username: Option<String> = None,
        /// The user's password. Not set: Redis requires none.
        password: Option<Secret> = None,
        /// The number of the database that holds the keys. Clusters in different databases are independent.
        database: u32 = 0,
        /// The prefix of every key and channel. Nodes with the same prefix form one cluster; clusters that share a
        /// Redis need different ones.
        prefix: String = defaults::REDIS_PREFIX.into(),
        /// Starts even though a cluster with another prefix uses this Redis. That is refused otherwise, since usually
        /// it is the same cluster, and this node's setting is wrong.
        allow_other_prefixes: bool = false,
        /// Time for which this node's clients stay present after its last heartbeat; it sends three heartbeats in that
        /// time. Must be equal on all nodes.
        lease: Period = defaults::REDIS_LEASE,
        /// Number of connections for commands. There are two more, for the node's heartbeats and for messages from
        /// Redis.
        command_links: usize = defaults::REDIS_COMMAND_LINKS,
        /// Time allowed for one attempt to connect.
        connect_timeout: Period = defaults::REDIS_CONNECT_TIMEOUT,
        /// Time allowed for the reply to a command. A connection without a reply in that time is dropped.
        answer_timeout: Period = defaults::REDIS_ANSWER_TIMEOUT,
        /// Interval at which each connection is tested.
        probe_interval: Period = defaults::REDIS_PROBE_INTERVAL,
        /// Pause after the first failed attempt to connect; each further one is twice as long.
        retry_min: Period = defaults::REDIS_RETRY_MIN,
        /// The longest of these pauses.
        retry_max: Period = defaults::REDIS_RETRY_MAX,
        /// Time for which a publication's idempotency key is remembered.
        idempotency_ttl: Period = defaults::IDEMPOTENCY_TTL,
        /// Time for which this node still receives a topic after its last subscriber has left; a subscriber that
        /// returns in that time costs Redis nothing.
        leave_delay: Period = defaults::REDIS_LEAVE_DELAY,
    }
}

/// Every key contains the prefix, so it is short.
const PREFIX_BYTES_MAX: usize = 64;

/// Guards against a typing error: one core of Redis cannot serve more.
const COMMAND_LINKS_MAX: usize = 64;

/// With a shorter lease a pause of either process looks like a failure.
const LEASE_MIN: Period = Period::from_secs(3);
/// The presence of a dead node's clients stays for as long.
const LEASE_MAX: Period = Period::from_secs(3600);

/// Bounds of timeouts and intervals: shorter ones would keep a core busy, longer ones would prolong a failure.
const WAIT_MIN: Period = Period::from_millis(10);
const WAIT_MAX: Period = Period::from_secs(60);

/// Redis counts it in milliseconds.
const IDEMPOTENCY_TTL_MIN: Period = Period::from_millis(1);
const IDEMPOTENCY_TTL_MAX: Period = Period::from_secs(30 * 24 * 3600);
const LEAVE_DELAY_MAX: Period = Period::from_secs(3600);

impl RedisEngine {
    pub(super) fn settings(&self, checks: &mut Checks) -> RedisSettings {
        self.check_user(checks);
        self.check_times(checks);
        if !(1..=COMMAND_LINKS_MAX).contains(&self.command_links) {
            checks.error("engine.redis.command_links", format!("must be 1 to {COMMAND_LINKS_MAX}"));
        }
        let is_plain = !self.prefix.contains(|letter: char| letter.is_control() || letter.is_whitespace());
        if !(1..=PREFIX_BYTES_MAX).contains(&self.prefix.len()) || !is_plain {
            checks.error(
                "engine.redis.prefix",
                format!("must have 1 to {PREFIX_BYTES_MAX} bytes, and neither spaces nor control characters"),
            );
        }
        RedisSettings {
            host: self.address.host.clone(),
            port: self.address.port,
            username: self.username.as_deref().map(Into::into),
            password: self.password.as_ref().map(Secret::to_settings),
            database: self.database.into(),
            prefix: self.prefix.as_str().into(),
            command_links: self.command_links,
            connect_timeout: self.connect_timeout.0,
            answer_timeout: self.answer_timeout.0,
            probe_interval: self.probe_interval.0,
            retry_min: self.retry_min.0,
            retry_max: self.retry_max.0,
            idempotency_ttl: self.idempotency_ttl.0,
            leave_delay: self.leave_delay.0,
            allow_other_prefixes: self.allow_other_prefixes,
            lease: self.lease.0,
            // One application for each cluster, until the API can name others.
            ..RedisSettings::default()
        }
    }

    fn check_user(&self, checks: &mut Checks) {
        if self.password.as_ref().is_some_and(Secret::is_empty) {
            checks.error("engine.redis.password", "is empty; leave it out if Redis requires none");
        }
        match &self.username {
            Some(name) if name.is_empty() => {
                checks.error("engine.redis.username", "is empty; leave it out for Redis' default user");
            }
            Some(_) if self.password.is_none() => {
                checks.error("engine.redis.username", "needs engine.redis.password as well");
            }
            _ => {}
        }
    }

    fn check_times(&self, checks: &mut Checks) {
        let times = [
            ("lease", self.lease, LEASE_MIN, LEASE_MAX),
            ("connect_timeout", self.connect_timeout, WAIT_MIN, WAIT_MAX),
            ("answer_timeout", self.answer_timeout, WAIT_MIN, WAIT_MAX),
            ("probe_interval", self.probe_interval, WAIT_MIN, WAIT_MAX),
            ("retry_min", self.retry_min, WAIT_MIN, WAIT_MAX),
            ("retry_max", self.retry_max, WAIT_MIN, WAIT_MAX),
            ("idempotency_ttl", self.idempotency_ttl, IDEMPOTENCY_TTL_MIN, IDEMPOTENCY_TTL_MAX),
            ("leave_delay", self.leave_delay, Period::OFF, LEAVE_DELAY_MAX),
        ];
        let mut are_possible = true;
        for (key, period, min, max) in times {
            are_possible &= checks.within(&format!("engine.redis.{key}"), period, min, max);
        }
        if !are_possible {
            return;
        }
        if self.retry_max < self.retry_min {
            checks.error(
                "engine.redis.retry_max",
                format!(
                    "must be at least engine.redis.retry_min ({} is less than {})",
                    self.retry_max, self.retry_min
                ),
            );
        }
        for (key, period, times, reason) in [
            ("answer_timeout", self.answer_timeout, 2, "one slow answer must not end it"),
            ("probe_interval", self.probe_interval, 3, "a dead connection must be found before it ends"),
        ] {
            if self.lease.0 < period.0 * times {
                checks.error(
                    "engine.redis.lease",
                    format!(
                        "must be at least {times} × engine.redis.{key}, since {reason} ({} is less than {times} × \
                         {period}); raise it, on all nodes, or lower the other",
                        self.lease
                    ),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fanwire_server::settings::EngineSettings;
    use secrecy::ExposeSecret;

    use super::*;

    fn engine(text: &str) -> (EngineSettings, Vec<String>) {
        let config: super::super::Config = toml::from_str(text).unwrap();
        let mut checks = Checks::default();
        let settings = config.engine.settings(&mut checks);
        (settings, checks.errors.into_iter().map(|(key, text)| format!("{key}: {text}")).collect())
    }

    #[test]
    fn defaults_are_those_of_the_engine() {
        let (EngineSettings::Redis(settings), errors) = engine("[engine]\ntype = 'redis'\n") else {
            panic!("not Redis")
        };
        assert_eq!(errors, [""; 0]);
        assert_eq!(format!("{settings:?}"), format!("{:?}", RedisSettings::default()));
    }

    #[test]
    fn every_key_arrives() {
        let (EngineSettings::Redis(settings), errors) = engine(
            "[engine]\ntype = 'redis'\n[engine.redis]\naddress = '[::1]:1'\nusername = 'u'\npassword = 'hunter2'\n\
             database = 2\nprefix = 'p'\nallow_other_prefixes = true\nlease = '30s'\ncommand_links = 3\n\
             connect_timeout = '4s'\nanswer_timeout = '5s'\nprobe_interval = '6s'\nretry_min = '7s'\nretry_max = '8s'\n\
             idempotency_ttl = '9s'\nleave_delay = '10s'\n",
        ) else {
            panic!("not Redis")
        };
        assert_eq!(errors, [""; 0]);
        assert_eq!(settings.password.as_ref().unwrap().expose_secret(), "hunter2");
        let shown = format!("{settings:?}");
        for expected in [
            "host: \"::1\", port: 1, username: Some(\"u\")",
            "database: 2, prefix: \"p\", application: \"default\", command_links: 3, connect_timeout: 4s",
            "answer_timeout: 5s, probe_interval: 6s, retry_min: 7s, retry_max: 8s, idempotency_ttl: 9s, leave_delay: 10s",
            "allow_other_prefixes: true, lease: 30s",
        ] {
            assert!(shown.contains(expected), "{expected}\nnot in {shown}");
        }
        assert!(!shown.contains("hunter2"));
    }

    #[test]
    fn mistakes_name_the_field_and_the_remedy() {
        for (text, expected) in [
            ("username = 'u'", "username: needs engine.redis.password as well"),
            ("username = ''", "username: is empty; leave it out"),
            ("password = ''", "password: is empty; leave it out"),
            ("prefix = ''", "prefix: must have 1 to 64 bytes, and neither spaces"),
            ("prefix = \"a\\nb\"", "prefix: must have 1 to 64 bytes"),
            ("command_links = 0", "command_links: must be 1 to 64"),
            ("lease = '2s'", "lease: must be 3s to 1h"),
            (
                "lease = '3s'",
                "lease: must be at least 2 × engine.redis.answer_timeout, since one slow answer",
            ),
            (
                "lease = '6s'\nprobe_interval = '2500ms'",
                "lease: must be at least 3 × engine.redis.probe_interval, since a dead connection must be found \
                 before it ends (6s is less than 3 × 2500ms)",
            ),
            ("retry_min = '0s'", "retry_min: must be 10ms to 1m"),
            ("retry_min = '2s'", "retry_max: must be at least engine.redis.retry_min (1s is less than 2s)"),
            ("answer_timeout = '1h'", "answer_timeout: must be 10ms to 1m"),
            ("idempotency_ttl = '0s'", "idempotency_ttl: must be 1ms to 720h"),
            ("leave_delay = '2h'", "leave_delay: must be 0s to 1h"),
        ] {
            let (_, errors) = engine(&format!("[engine.redis]\n{text}\n"));
            assert_eq!(errors.len(), 1, "{text}: {errors:?}");
            assert!(errors[0].starts_with(&format!("engine.redis.{expected}")), "{text}: {errors:?}");
        }
    }
}
