//! Opens connections to Redis and checks the server.
//!
//! An opened connection leads to a usable primary: its version, role and lineage are known.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo,
    PushKind, RedisConnectionInfo, RedisError, ServerErrorKind, Value,
};
use secrecy::ExposeSecret;
use tokio::sync::Notify;

use crate::redis::frame::Lineage;
use crate::redis::settings::RedisSettings;

/// The reason for a missing connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No attempt has finished yet.
    #[error("not connected yet")]
    NotYet,
    /// No server answers at the address.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// The server closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The connection exists, but no answer arrives.
    #[error("no answer in time")]
    Silent,
    /// The connection answers, but published messages do not arrive through it.
    #[error("published messages do not arrive")]
    Deaf,
    /// The user or password is wrong or missing.
    #[error("Redis refuses the user or password")]
    WrongPassword,
    /// The server is too old, or is not Redis.
    #[error("Redis 6.2 or later is required, this is {0}")]
    WrongVersion(String),
    /// The server is a replica, or another primary than before.
    #[error("the server is a replica, or another primary than before")]
    NotPrimary,
    /// The server is reading its data from disk.
    #[error("Redis is loading its data")]
    Loading,
    /// The user lacks a right. The text names the command, and the channel if there is one.
    #[error(
        "Redis does not permit {0} to engine.redis.username; docs/operations.md lists the required rights"
    )]
    NotPermitted(String),
    /// Another error of the server.
    #[error("Redis refuses: {0}")]
    Refused(String),
}

/// Opens connections with the same settings.
#[derive(Debug)]
pub(in crate::redis) struct Connector {
    client: Client,
    connect_timeout: Duration,
    answer_timeout: Duration,
    /// The last maxmemory policy that was warned about, so that each connection does not warn again.
    policy_told: Mutex<String>,
}

/// An open connection.
pub(in crate::redis) struct OpenedLink {
    pub(in crate::redis) connection: MultiplexedConnection,
    pub(in crate::redis) lineage: Lineage,
    /// Notified when the connection is closed.
    pub(in crate::redis) lost: Arc<Notify>,
}

/// Pauses between attempts: each twice the last up to a bound, with jitter so that nodes do not reconnect at once.
#[derive(Debug)]
pub(in crate::redis) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Connector {
    /// The most commands that wait for one connection to take them.
    const WAITING_MAX: usize = 1024;

    pub(in crate::redis) fn new(settings: &RedisSettings) -> Result<Self, LinkError> {
        let mut redis = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(settings.database)
            .set_lib_name("fanwire", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &settings.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &settings.password {
            redis = redis.set_password(password.expose_secret());
        }
        // The kernel counts whole seconds and refuses 0.
        const SECOND: Duration = Duration::from_secs(1);
        let keepalive = TcpKeepalive::new()
            .with_time(settings.answer_timeout.max(SECOND))
            .with_interval(settings.probe_interval.max(SECOND))
            .with_retries(3);
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive)
            .set_user_timeout(settings.answer_timeout);
        let info = ConnectionAddr::Tcp(settings.host.to_string(), settings.port)
            .into_connection_info()
            .map_err(|error| LinkError::Unreachable(error.to_string()))?
            .set_redis_settings(redis)
            .set_tcp_settings(tcp);
        let client = Client::open(info).map_err(|error| LinkError::Unreachable(error.to_string()))?;
        Ok(Self {
            client,
            connect_timeout: settings.connect_timeout,
            answer_timeout: settings.answer_timeout,
            policy_told: Mutex::default(),
        })
    }

    /// Opens a connection. `on_push` receives pushed messages in order and must not block.
    pub(in crate::redis) async fn open(
        &self,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<OpenedLink, LinkError> {
        let lost = Arc::new(Notify::new());
        let on_lost = Arc::clone(&lost);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.answer_timeout))
            .set_pipeline_buffer_size(Self::WAITING_MAX)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    on_lost.notify_one();
                } else {
                    on_push(push);
                }
                Ok::<(), ()>(())
            });
        let connection = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connection.await.map_err(|error| open_error(&error))?;
        check_version(&mut connection).await?;
        self.check_policy(&mut connection).await?;
        let lineage = identify(&mut connection).await?;
        Ok(OpenedLink { connection, lineage, lost })
    }

    /// Warns if Redis would evict data in use once its memory is full. All keys of this engine expire, so every
    /// policy but one does. Until then it works.
    async fn check_policy(&self, connection: &mut MultiplexedConnection) -> Result<(), LinkError> {
        let info = info(connection, "memory").await?;
        let policy = field(&info, "maxmemory_policy").unwrap_or_default();
        let mut told = self.policy_told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != policy && !policy.is_empty() && policy != "noeviction" {
            tracing::warn!(
                "maxmemory-policy of Redis is {policy}: once its memory is full it evicts history, presence and the \
                 leases of nodes; set maxmemory-policy to noeviction"
            );
        }
        policy.clone_into(&mut told);
        Ok(())
    }
}

/// Returns the lineage of a primary, or an error for other servers. Also serves as a probe.
pub(in crate::redis) async fn identify(connection: &mut MultiplexedConnection) -> Result<Lineage, LinkError> {
    let info = info(connection, "replication").await?;
    if field(&info, "role") != Some("master") {
        return Err(LinkError::NotPrimary);
    }
    let lineage = field(&info, "master_replid").and_then(|id| Lineage::parse(id.as_bytes()));
    lineage.ok_or_else(|| LinkError::Refused("INFO has no replication id".to_owned()))
}

impl Backoff {
    pub(in crate::redis) fn new(settings: &RedisSettings) -> Self {
        Self { min: settings.retry_min, max: settings.retry_max, next: settings.retry_min }
    }

    /// Starts over after a connection that lasted. One that is lost at once counts as a failed attempt.
    pub(in crate::redis) fn held(&mut self, lasted: Duration) {
        if lasted > self.max {
            self.next = self.min;
        }
    }

    pub(in crate::redis) async fn pause(&mut self) {
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(self.next.mul_f64(jitter)).await;
        self.next = (self.next * 2).min(self.max);
    }
}

async fn check_version(connection: &mut MultiplexedConnection) -> Result<(), LinkError> {
    let info = info(connection, "server").await?;
    let version = field(&info, "redis_version").unwrap_or("unknown");
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version_number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version_number < (6, 2) { Err(LinkError::WrongVersion(version.to_owned())) } else { Ok(()) }
}

async fn info(connection: &mut MultiplexedConnection, section: &str) -> Result<String, LinkError> {
    let answer = connection.send_packed_command(redis::cmd("INFO").arg(section)).await;
    match answer.map_err(|error| lost_error(&error))? {
        Value::VerbatimString { text, .. } => Ok(text),
        Value::BulkString(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Value::ServerError(error) if error.kind() == Some(ServerErrorKind::BusyLoading) => {
            Err(LinkError::Loading)
        }
        Value::ServerError(error) => Err(refused("INFO", error.code())),
        _ => Err(LinkError::Refused("the answer to INFO is not text".to_owned())),
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The error of a refused command that every connection needs.
pub(in crate::redis) fn refused(command: &str, code: &str) -> LinkError {
    match code {
        "NOPERM" => LinkError::NotPermitted(command.to_owned()),
        code => LinkError::Refused(format!("{command}: {code}")),
    }
}

/// The error of a command on an open connection without an answer.
pub(in crate::redis) fn lost_error(error: &RedisError) -> LinkError {
    if error.is_timeout() { LinkError::Silent } else { LinkError::Closed }
}

fn open_error(error: &RedisError) -> LinkError {
    match error.kind() {
        ErrorKind::AuthenticationFailed => LinkError::WrongPassword,
        ErrorKind::RESP3NotSupported => LinkError::WrongVersion("a version without RESP3".to_owned()),
        ErrorKind::Server(ServerErrorKind::BusyLoading) => LinkError::Loading,
        _ if matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) => LinkError::WrongPassword,
        _ if error.is_timeout() => LinkError::Silent,
        ErrorKind::Io => LinkError::Unreachable(error.to_string()),
        ErrorKind::Parse => LinkError::WrongVersion("a server of another protocol".to_owned()),
        _ => LinkError::Refused(error.to_string()),
    }
}
