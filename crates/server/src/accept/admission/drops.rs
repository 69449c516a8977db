//! Counts the connections that the node ended, by reason.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fanwire_broker::LogRateLimit;

/// The listener that a connection came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Client,
    Internal,
}

impl Port {
    pub(crate) const ALL: [Self; 2] = [Self::Client, Self::Internal];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Internal => "internal",
        }
    }
}

/// The reasons for which the node ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It had sent nothing, and made room for another.
    Silent,
    /// It had no whole request or did not take its answer, and made room for another.
    Request,
    /// Like `Request`, and its last request was a publication or the commands of a client.
    Post,
    /// Like `Request`, and its last request was a call of the API.
    Api,
    /// It made room for another when no files were left.
    Files,
    /// It sent no whole request head in time.
    HeadTimeout,
    /// It took nothing of an answer in time.
    WriteTimeout,
}

impl Reason {
    pub(crate) const ALL: [Self; 7] = [
        Self::Silent,
        Self::Request,
        Self::Post,
        Self::Api,
        Self::Files,
        Self::HeadTimeout,
        Self::WriteTimeout,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Request => "request",
            Self::Post => "post",
            Self::Api => "api",
            Self::Files => "files",
            Self::HeadTimeout => "head_timeout",
            Self::WriteTimeout => "write_timeout",
        }
    }

    /// The setting with the limit.
    pub(super) fn setting(self, port: Port) -> &'static str {
        match (self, port) {
            (Self::Silent, _) => "server.silent_connections_max",
            (Self::Request, Port::Client) => "server.http_connections_max",
            (Self::Request, Port::Internal) => "internal.connections_max",
            (Self::Post, _) => "server.post_connections_max",
            (Self::Api, _) => "api.connections_max",
            (Self::Files, _) => "the limit of open files (ulimit -n)",
            (Self::HeadTimeout, _) => "server.request_header_timeout",
            (Self::WriteTimeout, _) => "server.write_timeout",
        }
    }

    /// Browsers open connections ahead and leave them unused, which is not worth a log line.
    fn is_usual(self) -> bool {
        self == Self::HeadTimeout
    }
}

/// The least interval between two log lines for one reason.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Drops {
    port: Port,
    counts: [AtomicU64; Reason::ALL.len()],
    /// The time of each reason's last log line, and its count then.
    logged: Mutex<[Option<(Instant, u64)>; Reason::ALL.len()]>,
    /// The limit on log lines about failures to accept.
    failures: LogRateLimit,
}

impl Drops {
    pub(super) fn new(port: Port) -> Self {
        Self { port, counts: Default::default(), logged: Mutex::default(), failures: LogRateLimit::default() }
    }

    pub(super) fn value(&self, why: Reason) -> u64 {
        self.counts[why as usize].load(Relaxed)
    }

    pub(super) fn accept_failed(&self, error: &io::Error) {
        if self.failures.is_due() {
            tracing::warn!(%error, port = self.port.label(), "a connection could not be accepted");
        }
    }

    pub(super) fn count(&self, why: Reason) {
        let count = self.counts[why as usize].fetch_add(1, Relaxed) + 1;
        if why.is_usual() {
            return;
        }
        let now = Instant::now();
        let before = {
            let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
            let last = &mut logged[why as usize];
            if last.is_some_and(|(at, _)| now < at + LOG_INTERVAL) {
                return;
            }
            last.replace((now, count)).map_or(0, |(_, count)| count)
        };
        tracing::warn!(
            port = self.port.label(),
            reason = why.label(),
            setting = why.setting(self.port),
            connections = count - before,
            "connections dropped"
        );
    }
}
