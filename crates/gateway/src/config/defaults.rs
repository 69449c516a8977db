//! The defaults of the configuration, with the reason where a number needs one.

use std::net::{IpAddr, Ipv4Addr};

use super::address::HostPort;
use super::values::{Period, Size};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// The port that clients of the Centrifuge protocol expect.
pub(crate) const PORT: u16 = 8000;
/// Health and metrics are for this machine only by default.
pub(crate) const INTERNAL_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const INTERNAL_PORT: u16 = 9000;

/// A second's worth of a reconnect storm; the kernel cuts it at `net.core.somaxconn`, 4096 since Linux 5.4.
pub(crate) const BACKLOG: u32 = 4096;
/// About a kilobyte of memory each, and the kernel's part.
pub(crate) const SILENT_CONNECTIONS_MAX: usize = 4096;
pub(crate) const HTTP_CONNECTIONS_MAX: usize = 512;
pub(crate) const POST_CONNECTIONS_MAX: usize = 512;
/// Some ten thousand commands of an office behind one address.
pub(crate) const FORWARDED_BYTES_PER_SECOND_MAX: Size = Size(4 * MIB);
pub(crate) const INTERNAL_CONNECTIONS_MAX: usize = 256;
/// Long enough for two lost packets on a phone's link and their retransmissions.
pub(crate) const REQUEST_HEADER_TIMEOUT: Period = Period::from_secs(10);
/// A page sends its next request at once, or much later.
pub(crate) const IDLE_TIMEOUT: Period = Period::from_secs(10);
/// Longer than a phone passes through a tunnel.
pub(crate) const WRITE_TIMEOUT: Period = Period::from_secs(30);

/// Certificates are renewed days before they end.
pub(crate) const TLS_RELOAD_INTERVAL: Period = Period::from_secs(60);

pub(crate) const JWKS_TTL: Period = Period::from_secs(60 * 60);
/// A provider publishes a key before it signs with it.
pub(crate) const JWKS_REFRESH_MIN: Period = Period::from_secs(5);
pub(crate) const JWKS_STALE_MAX: Period = Period::from_secs(24 * 60 * 60);
pub(crate) const JWKS_TIMEOUT: Period = Period::from_secs(1);

/// Some 5,000 lines: enough for a burst.
pub(crate) const LOG_QUEUE_BYTES_MAX: Size = Size(MIB);

pub(crate) const HISTORY_BYTES_MAX: Size = Size(256 * MIB);
pub(crate) const IDEMPOTENCY_TTL: Period = Period::from_secs(5 * 60);

pub(crate) const REDIS_PREFIX: &str = "fanwire";
/// Two renewals may be lost, and Redis may be restarted, before a living node's clients vanish.
pub(crate) const REDIS_LEASE: Period = Period::from_secs(15);
/// One core of Redis serves what two connections bring.
pub(crate) const REDIS_COMMAND_LINKS: usize = 2;
pub(crate) const REDIS_CONNECT_TIMEOUT: Period = Period::from_secs(2);
/// A script of another program may hold Redis up for a second or two.
pub(crate) const REDIS_ANSWER_TIMEOUT: Period = Period::from_secs(3);
pub(crate) const REDIS_PROBE_INTERVAL: Period = Period::from_secs(1);
pub(crate) const REDIS_RETRY_MIN: Period = Period::from_millis(50);
pub(crate) const REDIS_RETRY_MAX: Period = Period::from_secs(1);
/// Longer than a page takes to reload.
pub(crate) const REDIS_LEAVE_DELAY: Period = Period::from_secs(5);

/// A Redis on this machine with its default port.
pub(crate) fn redis_address() -> HostPort {
    HostPort { host: "127.0.0.1".into(), port: 6379 }
}

/// Off: only a load balancer in front needs it, and only its operator knows the time.
pub(crate) const SHUTDOWN_PROPAGATION: Period = Period::OFF;
/// With 20,000 clients the other nodes get 670 handshakes a second.
pub(crate) const SHUTDOWN_WINDOW: Period = Period::from_secs(30);
pub(crate) const SHUTDOWN_TIMEOUT: Period = Period::from_secs(30);

/// Less than the 30 s and 60 s after which proxies and phone networks drop a silent connection.
pub(crate) const PING_INTERVAL: Period = Period::from_secs(25);
pub(crate) const PONG_TIMEOUT: Period = Period::from_secs(8);
const _: () = assert!(PONG_TIMEOUT.0.as_secs() < PING_INTERVAL.0.as_secs());
pub(crate) const STALE_CLOSE_DELAY: Period = Period::from_secs(10);
pub(crate) const EXPIRED_CLOSE_DELAY: Period = Period::from_secs(25);
pub(crate) const SUBSCRIPTIONS_MAX: usize = 128;
/// Sixteen messages of the greatest size.
pub(crate) const QUEUE_BYTES_MAX: Size = Size(MIB);
/// Every subscription at once, and as many publications, presences and histories.
pub(crate) const PENDING_COMMANDS_MAX: usize = 4 * SUBSCRIPTIONS_MAX;

/// A game that sends 60 times a second into 8 topics.
pub(crate) const COMMANDS_PER_SECOND_MAX: u32 = 500;

/// A page that subscribes to 500 topics when it connects, and asks three things of each.
pub(crate) const COMMANDS_BURST_MAX: u32 = 2000;
pub(crate) const HISTORY_PAGE_MAX: usize = 300;
pub(crate) const ANSWER_BYTES_MAX: Size = Size(MIB);
pub(crate) const RECOVERY_MAX: usize = 300;
/// Enough for the queue of a client and the buffers of the kernels on both sides.
pub(crate) const RECOVERY_BYTES_MAX: Size = Size(4 * MIB);
pub(crate) const RPC_PING_METHOD: &str = "ping";

/// As Centrifugo's.
pub(crate) const HOOK_TIMEOUT: Period = Period::from_secs(1);
/// Some backends have a process for each request.
pub(crate) const HOOK_REQUESTS_MAX: usize = 128;
/// All clients of a node come back at once.
pub(crate) const HOOK_WAITING_MAX: usize = 20_000;
/// Less than the 10 s after which a client that has not connected is closed.
pub(crate) const HOOK_WAIT_MAX: Period = Period::from_secs(5);
/// Less than the 5 s of Node's servers: the gateway closes first, and no request is lost.
pub(crate) const HOOK_IDLE_TIMEOUT: Period = Period::from_secs(4);
pub(crate) const HOOK_ANSWER_BYTES_MAX: Size = Size(256 * KIB);
/// A few cookies and a token.
pub(crate) const KEPT_BYTES_MAX: Size = Size(4 * KIB);

pub(crate) const WEBSOCKET_PATH: &str = "/connection/websocket";
pub(crate) const MESSAGE_BYTES_MAX: Size = Size(64 * KIB);
/// Most of the possible gain, for a third of the time.
pub(crate) const DEFLATE_LEVEL: u8 = 1;
/// Below it compression saves less than the headers of a packet.
pub(crate) const DEFLATE_MIN_BYTES: Size = Size(256);
pub(crate) const POLL_WAIT_MAX: Period = Period::from_secs(60);
pub(crate) const POLL_GRACE: Period = Period::from_secs(15);
pub(crate) const SUBSCRIBE_PATH: &str = "/subscribe";
/// As long as a message of a WebSocket.
pub(crate) const CLIENT_BODY_BYTES_MAX: Size = MESSAGE_BYTES_MAX;
pub(crate) const PUBLISH_PATH: &str = "/publish";
/// The words of most tutorials and libraries.
pub(crate) const HEARTBEAT: &str = "ping=pong";
pub(crate) const PROBE_PATH: &str = "/probe";
pub(crate) const HTTP_STREAM_PATH: &str = "/connection/http_stream";
pub(crate) const SSE_PATH: &str = "/connection/sse";
pub(crate) const EMULATION_PATH: &str = "/emulation";
pub(crate) const UNI_WEBSOCKET_PATH: &str = "/connection/uni_websocket";
pub(crate) const UNI_HTTP_STREAM_PATH: &str = "/connection/uni_http_stream";
pub(crate) const UNI_SSE_PATH: &str = "/connection/uni_sse";
/// The body of a request that opens a stream, or brings commands for one.
pub(crate) const STREAM_BODY_BYTES_MAX: Size = Size(64 * KIB);

pub(crate) const API_PATH: &str = "/api";
pub(crate) const API_CONNECTIONS_MAX: usize = 512;
/// Longer than the 60 s for which balancers and HTTP clients keep a connection: they close it first, and no call is lost.
pub(crate) const API_IDLE_TIMEOUT: Period = Period::from_secs(75);
/// A full batch of commands of 4 KiB each.
pub(crate) const API_BODY_BYTES_MAX: Size = Size(4 * MIB);
pub(crate) const API_COMMANDS_MAX: usize = 1000;
pub(crate) const API_TOPICS_MAX: usize = 10_000;
/// A full page of history with the longest publications of clients, or some thousand of a few kilobytes.
pub(crate) const API_ANSWER_BYTES_MAX: Size = Size(16 * MIB);

pub(crate) const TOPIC_LENGTH_MAX: usize = 255;
pub(crate) const PRIVATE_PREFIX: &str = "$";
pub(crate) const NAMESPACE_BOUNDARY: &str = ":";
pub(crate) const USER_BOUNDARY: &str = "#";
pub(crate) const USER_SEPARATOR: &str = ",";
/// Thirty days: longer than any client sleeps between two visits that should still recover.
pub(crate) const HISTORY_META_TTL: Period = Period::from_secs(30 * 24 * 3600);

/// A page change, a drain, a tunnel.
pub(crate) const OFFLINE_DELAY: Period = Period::from_secs(5);
/// A night without the application.
pub(crate) const EVENTS_RETENTION: Period = Period::from_secs(24 * 3600);
pub(crate) const OUTBOX_LENGTH_MAX: usize = 10_000;
/// Some 50,000 events: an hour without the application, for a busy node.
pub(crate) const EVENTS_MEMORY_BYTES_MAX: Size = Size(16 * MIB);
pub(crate) const DEAD_LETTERS_MAX: usize = 10_000;
/// Long enough to mend the receiver after a weekend.
pub(crate) const DEAD_LETTERS_TTL: Period = Period::from_secs(7 * 24 * 3600);
/// A receiver may write all events of a request to a database.
pub(crate) const WEBHOOK_TIMEOUT: Period = Period::from_secs(5);
pub(crate) const WEBHOOK_BATCH_EVENTS: usize = 100;
/// Some hundred events with long names.
pub(crate) const WEBHOOK_BATCH_BYTES: Size = Size(256 * KIB);
/// Some seconds: events of the same outbox wait as long.
pub(crate) const WEBHOOK_ATTEMPTS_MAX: u32 = 5;

pub(crate) const HEARTBEAT_PATH: &str = "/heartbeat";
/// Two heartbeats of an app that sends one in 25 s may be lost.
pub(crate) const HEARTBEAT_TTL: Period = Period::from_secs(60);
/// About 300,000 users.
pub(crate) const STATUS_BYTES_MAX: Size = Size(64 * MIB);
/// A holiday.
pub(crate) const LAST_SEEN_TTL: Period = Period::from_secs(30 * 24 * 3600);
