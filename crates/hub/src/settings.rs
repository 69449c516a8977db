//! The limits and rules that hold for every client of a node.

use std::time::Duration;

use fanwire_protocol::EventMask;

use crate::PublicationFormat;
use crate::hook_settings::ClientHooks;

/// Checked settings of the configuration's `client` section, where each is described with its default.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Between the server's pings; `None` sends none.
    pub ping_interval: Option<Duration>,
    /// The time that a client may take to answer a ping; `None` asks for no answer. Less than `ping_interval`.
    pub pong_timeout: Option<Duration>,
    /// The time for which a connection may live without a successful connect.
    pub stale_close_delay: Duration,
    /// The time for which an expired connection may live on while its client fetches a new token.
    pub expired_close_delay: Duration,
    /// The same for a subscription.
    pub expired_subscription_close_delay: Duration,
    /// Subscriptions of one client.
    pub subscriptions_max: usize,
    /// Bytes that wait for one slow client before it is closed with 3008; see [`crate::queue::Queue`].
    pub queue_bytes_max: usize,
    /// Requests of one client that wait for an earlier answer before it is closed with 3013.
    pub pending_commands_max: usize,
    /// Requests of one client in a second, on average; more are answered error 111. 0 sets no limit.
    pub commands_per_second_max: u32,
    /// Requests of one user in a second, on average, by all of its clients on one shard; more are answered error 111. 0
    /// sets no limit.
    pub user_commands_per_second_max: u32,
    /// New connections of one address in a second, on average, and as many at once; more are refused. 0 sets no limit.
    pub address_connects_per_second_max: u32,
    /// Nodes count the requests of a user and the new connections of an address together.
    pub cluster_rates: bool,
    /// Requests that a client, or a user, may make at once after it was quiet. At least 1.
    pub commands_burst_max: u32,
    /// Publications in one history result.
    pub history_page_max: usize,
    /// Bytes of publications in one history result, and of clients in one presence result.
    pub answer_bytes_max: usize,
    /// Bytes of publications that one subscribe, or one connect with all its subscriptions, may recover.
    pub recovery_bytes_max: usize,
    /// Publications that recovery may replay; a client that missed more is told so.
    pub recovery_max: usize,
    /// Connections of one user on this node; 0 sets no limit.
    pub user_connections_max: usize,
    /// The events of connections and users that the application wants.
    pub events: EventMask,
    /// Connections of clients of one address, with a user or without; 0 sets no limit.
    pub address_connections_max: usize,
    /// Tell the client the server's time when it connects.
    pub include_server_time: bool,
    /// Clients without a token connect as the anonymous user.
    pub allow_anonymous_connect_without_token: bool,
    /// Refuse tokens of the anonymous user.
    pub disallow_anonymous_connection_tokens: bool,
    /// Everything is allowed to everybody. For development on loopback.
    pub insecure: bool,
    pub personal_topic: Option<PersonalTopic>,
    /// The format that the info of a connection must have, which is shown in every topic.
    pub info_format: PublicationFormat,
    /// Answers the RPC method of this name with an empty result.
    pub rpc_ping_method: Option<String>,
    pub hooks: ClientHooks,
}

/// Subscribes every user to a topic of its own.
#[derive(Clone, Debug, Default)]
pub struct PersonalTopic {
    /// The namespace of the topic; empty for topics without one.
    pub namespace: String,
    /// A user's newer connection closes its older ones.
    pub single_connection: bool,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            ping_interval: Some(Duration::from_secs(25)),
            pong_timeout: Some(Duration::from_secs(8)),
            stale_close_delay: Duration::from_secs(10),
            expired_close_delay: Duration::from_secs(25),
            expired_subscription_close_delay: Duration::from_secs(25),
            subscriptions_max: 128,
            queue_bytes_max: 1 << 20,
            pending_commands_max: 512,
            commands_per_second_max: 500,
            user_commands_per_second_max: 0,
            address_connects_per_second_max: 0,
            cluster_rates: false,
            commands_burst_max: 2000,
            history_page_max: 300,
            recovery_max: 300,
            answer_bytes_max: 1 << 20,
            recovery_bytes_max: 4 << 20,
            user_connections_max: 0,
            events: EventMask::NONE,
            address_connections_max: 0,
            include_server_time: false,
            allow_anonymous_connect_without_token: false,
            disallow_anonymous_connection_tokens: false,
            insecure: false,
            personal_topic: None,
            info_format: PublicationFormat::default(),
            rpc_ping_method: None,
            hooks: ClientHooks::default(),
        }
    }
}
