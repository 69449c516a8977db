//! `[client]`: access of clients, and the limits of each one.

use fanwire_hub::hook_settings::{ClientHooks, RpcHooks};
use fanwire_hub::{ClientSettings, PersonalTopic, PublicationFormat};
use fanwire_server::settings::Origins;

use super::checks::Checks;
use super::defaults;
use super::events::{self, ClientEvent};
use super::hooks::{HookNames, HookUse};
use super::origins::{self, Judged};
use super::section::section;
use super::token::Token;
use super::values::{Period, Size};

section! {
    /// Access of clients, and the limits of each one.
    Client {
        /// Web pages that may connect: origins such as "https://example.com", without a path. `*` stands for any
        /// characters, as in "https://*.example.com" and "http://localhost:*"; "*" alone allows every page. "null"
        /// allows pages without an origin: files and sandboxed frames. Programs that send no `Origin` header may always
        /// connect.
        allowed_origins: Vec<String> = Vec::new(),
        /// Interval between pings from the server, in whole seconds. "0s" sends none: a client that vanishes is then
        /// noticed late or never.
        ping_interval: Period = defaults::PING_INTERVAL,
        /// Time allowed for the answer to a ping; less than ping_interval. "0s" requires no answer.
        pong_timeout: Period = defaults::PONG_TIMEOUT,
        /// Time allowed for a connection to stay open without a successful connect command.
        stale_close_delay: Period = defaults::STALE_CLOSE_DELAY,
        /// Time for which an expired connection stays open while its client fetches a new token.
        expired_close_delay: Period = defaults::EXPIRED_CLOSE_DELAY,
        /// The same for a subscription.
        expired_subscription_close_delay: Period = defaults::EXPIRED_CLOSE_DELAY,
        /// Maximum number of subscriptions of one client.
        subscriptions_max: usize = defaults::SUBSCRIPTIONS_MAX,
        /// Maximum bytes that wait for one slow client; beyond them it is closed with code 3008. A waiting message
        /// counts 64 bytes more than its length; one message alone always fits.
        queue_bytes_max: Size = defaults::QUEUE_BYTES_MAX,
        /// Maximum number of commands of one client that wait for an earlier answer; beyond it the client is closed
        /// with code 3013.
        pending_commands_max: usize = defaults::PENDING_COMMANDS_MAX,
        /// Commands allowed to one client per second, on average; further ones receive error 111. As many requests to
        /// publish.path are allowed to a user, or to an address where there is no user, on one shard of a node; further
        /// ones receive 429. 0 sets no limit.
        commands_per_second_max: u32 = defaults::COMMANDS_PER_SECOND_MAX,
        /// Commands allowed to one user per second, on average, over all of its clients on one shard of a node; further
        /// ones receive error 111. Anonymous clients have no such limit. 0 sets no limit.
        user_commands_per_second_max: u32 = 0,
        /// New connections of clients of one address, or one /64 of IPv6, per second on a node, on average, and as many
        /// at once; further ones receive 503. Behind a proxy that is not in server.trusted_proxies all clients have its
        /// address. 0 sets no limit.
        address_connects_per_second_max: u32 = 0,
        /// Counts user_commands_per_second_max and address_connects_per_second_max over all nodes of a cluster
        /// together, with a delay of about 250 ms and without those who use less than an eighth of the limit.
        cluster_rates: bool = false,
        /// Commands that a client, or a user, may send at once after a quiet time; at least subscriptions_max.
        commands_burst_max: u32 = defaults::COMMANDS_BURST_MAX,
        /// Maximum number of publications in one history result.
        history_page_max: usize = defaults::HISTORY_PAGE_MAX,
        /// Maximum bytes of publications in one history result, which ends early there but has at least one, and of
        /// clients in one presence result; a longer list receives error 106.
        answer_bytes_max: Size = defaults::ANSWER_BYTES_MAX,
        /// Maximum number of publications that recovery replays; a client that missed more is told that it was not
        /// recovered.
        recovery_max: usize = defaults::RECOVERY_MAX,
        /// Maximum bytes of publications that one subscribe, or one connect with all its subscriptions, recovers; a
        /// client that missed more is told that it was not recovered. A client that was closed with code 3008 has
        /// missed everything that waited for it, so set this to several times queue_bytes_max.
        recovery_bytes_max: Size = defaults::RECOVERY_BYTES_MAX,
        /// Maximum number of connections of one user, on all nodes of a cluster together. 0 sets no limit.
        user_connections_max: usize = 0,
        /// Events of connections and users for the application: "connected", "disconnected", "user_online",
        /// "user_offline"; see [events].
        events: Vec<ClientEvent> = Vec::new(),
        /// Maximum number of connections of clients of one address, or one /64 of IPv6, on all nodes of a cluster
        /// together. Behind a proxy that is not in server.trusted_proxies all clients have its address. 0 sets no limit.
        address_connections_max: usize = 0,
        /// Sends the server's time to clients when they connect.
        include_server_time: bool = false,
        /// Lets clients without a token connect as the anonymous user.
        allow_anonymous_connect_without_token: bool = false,
        /// Refuses tokens without a user.
        disallow_anonymous_connection_tokens: bool = false,
        /// Allows everything to every client. For development only.
        insecure: bool = false,
        sections {
            /// Verification of connection tokens (JWT). A token whose algorithm has no key here is invalid.
            token: Token,
            /// Separate keys for subscription tokens; without them [client.token] serves both.
            subscription_token: Token,
            /// Subscribes every user to a topic of its own, such as `#42`. Users whose name contains a separator, such
            /// as `1,2`, cannot connect: `#1,2` belongs to users 1 and 2.
            personal_topic: PersonalTopicConfig,
            /// Answers one RPC method with an empty result, for clients that measure the round trip to the server.
            rpc_ping: RpcPing,
            /// Backends that are asked about clients; each key names one of [[hooks]].
            hooks: ClientHooksConfig,
        }
    }
}

section! {
    /// Subscribes every user to a topic of its own.
    PersonalTopicConfig {
        /// Turns it on.
        enabled: bool = false,
        /// The namespace of the topics; empty for none.
        namespace: String = String::new(),
        /// A user's newer connection closes its older ones.
        single_connection: bool = false,
    }
}

section! {
    /// Backends that are asked about clients.
    ClientHooksConfig {
        /// Says who a client without a token is, and which topics it is subscribed to. A token wins.
        connect: String = String::new(),
        /// Prolongs connections that expire, in place of their clients.
        refresh: String = String::new(),
        /// Gets the messages that clients send without a topic. They are not answered.
        send: String = String::new(),
        /// Maximum bytes of the headers and metadata that are kept of one client for later hooks.
        kept_bytes_max: Size = defaults::KEPT_BYTES_MAX,
    }
}

section! {
    /// Answers one RPC method with an empty result.
    RpcPing {
        /// Turns it on.
        enabled: bool = false,
        /// The method's name.
        method: String = defaults::RPC_PING_METHOD.into(),
    }
}

impl Client {
    pub(super) fn origins(&self, checks: &mut Checks) -> Origins {
        let mut allowed = Vec::new();
        for (index, entry) in self.allowed_origins.iter().enumerate() {
            let key = format!("client.allowed_origins.{index}");
            match origins::judge(entry) {
                Ok(Judged { origin, warning }) => {
                    allowed.push(origin);
                    if let Some(warning) = warning {
                        checks.warn(key, warning);
                    }
                }
                Err(problem) => checks.error(key, problem),
            }
        }
        Origins { allowed }
    }

    pub(super) fn settings(
        &self,
        info_format: PublicationFormat,
        hooks: ClientHooks,
        checks: &mut Checks,
    ) -> ClientSettings {
        if !self.ping_interval.is_whole_seconds() {
            checks.error("client.ping_interval", "must be whole seconds, as clients receive it in seconds");
        }
        let pings = self.ping_interval != Period::OFF;
        if pings && self.pong_timeout >= self.ping_interval {
            checks.error(
                "client.pong_timeout",
                format!(
                    "must be less than client.ping_interval ({} is not less than {})",
                    self.pong_timeout, self.ping_interval
                ),
            );
        }
        if self.rpc_ping.enabled && self.rpc_ping.method.is_empty() {
            checks.error("client.rpc_ping.method", "is empty");
        }
        let has_rate = self.commands_per_second_max > 0 || self.user_commands_per_second_max > 0;
        if has_rate && (self.commands_burst_max as usize) < self.subscriptions_max {
            checks.error(
                "client.commands_burst_max",
                format!(
                    "must be at least client.subscriptions_max ({}), as clients subscribe to all their topics at once when they connect",
                    self.subscriptions_max
                ),
            );
        }
        let has_shared_rate =
            self.user_commands_per_second_max > 0 || self.address_connects_per_second_max > 0;
        if self.cluster_rates && !has_shared_rate {
            checks.warn(
                "client.cluster_rates",
                "counts nothing: set client.user_commands_per_second_max or client.address_connects_per_second_max",
            );
        }
        ClientSettings {
            ping_interval: self.ping_interval.unless_off(),
            pong_timeout: self.pong_timeout.unless_off().filter(|_| pings),
            stale_close_delay: checks.longer_than_zero("client.stale_close_delay", self.stale_close_delay),
            expired_close_delay: self.expired_close_delay.0,
            expired_subscription_close_delay: self.expired_subscription_close_delay.0,
            subscriptions_max: checks.at_least_one("client.subscriptions_max", self.subscriptions_max),
            queue_bytes_max: checks.at_least_one("client.queue_bytes_max", self.queue_bytes_max.0),
            pending_commands_max: checks
                .at_least_one("client.pending_commands_max", self.pending_commands_max),
            commands_per_second_max: self.commands_per_second_max,
            user_commands_per_second_max: self.user_commands_per_second_max,
            address_connects_per_second_max: self.address_connects_per_second_max,
            cluster_rates: self.cluster_rates,
            commands_burst_max: self.commands_burst_max,
            history_page_max: checks.at_least_one("client.history_page_max", self.history_page_max),
            answer_bytes_max: checks.at_least_one("client.answer_bytes_max", self.answer_bytes_max.0),
            recovery_max: checks.at_least_one("client.recovery_max", self.recovery_max),
            recovery_bytes_max: checks.at_least_one("client.recovery_bytes_max", self.recovery_bytes_max.0),
            user_connections_max: self.user_connections_max,
            events: events::mask(&self.events),
            address_connections_max: self.address_connections_max,
            include_server_time: self.include_server_time,
            allow_anonymous_connect_without_token: self.allow_anonymous_connect_without_token,
            disallow_anonymous_connection_tokens: self.disallow_anonymous_connection_tokens,
            insecure: self.insecure,
            personal_topic: self.personal_topic.enabled.then(|| PersonalTopic {
                namespace: self.personal_topic.namespace.clone(),
                single_connection: self.personal_topic.single_connection,
            }),
            info_format,
            rpc_ping_method: self.rpc_ping.enabled.then(|| self.rpc_ping.method.clone()),
            hooks,
        }
    }
}

impl ClientHooksConfig {
    /// Returns the hooks of clients. All other sections have named theirs.
    pub(super) fn settings(
        &self,
        rpc: RpcHooks,
        hooks: &mut HookNames<'_>,
        checks: &mut Checks,
    ) -> ClientHooks {
        let mut find = |name: &str, hook: &str, used_by| {
            hooks.find(&format!("client.hooks.{name}"), hook, used_by, checks)
        };
        let connect = find("connect", &self.connect, HookUse::Connect);
        let refresh = find("refresh", &self.refresh, HookUse::Other);
        let send = find("send", &self.send, HookUse::Other);
        if hooks.is_empty() {
            return ClientHooks::default();
        }
        let kept = hooks.kept(self.kept_bytes_max.0, checks);
        ClientHooks { connect, refresh, send, rpc, patience: hooks.patience(), kept }
    }
}
