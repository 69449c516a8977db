//! `[api]`: the HTTP API that backends publish with.

use fanwire_server::settings::ApiSettings;

use super::checks::Checks;
use super::defaults;
use super::section::{choice, section};
use super::values::{Period, Secret, Size};

section! {
    /// The HTTP API for backends: publish, broadcast, presence, history and the rest.
    Api {
        /// The path of the API: calls go to `/api/publish` and so on.
        path: String = defaults::API_PATH.into(),
        /// The port that serves it: "client", "internal" or "both".
        on: ApiPort = ApiPort::Both,
        /// Keys of callers, sent in the header `X-API-Key: KEY`. Without any key here every call receives 401.
        keys: Vec<Secret> = Vec::new(),
        /// Allows calls without a key. For development only.
        insecure: bool = false,
        /// Maximum number of API connections, for each shard and for the internal port. At the limit a connection that
        /// is waiting for its caller is dropped, chosen as for server.silent_connections_max; if none is, the call
        /// receives 503. While more than half are in use, responses carry "connection: close".
        connections_max: usize = defaults::API_CONNECTIONS_MAX,
        /// Time for which a caller's connection is kept open between two calls. Responses announce it: "keep-alive:
        /// timeout=75".
        idle_timeout: Period = defaults::API_IDLE_TIMEOUT,
        /// Maximum size of a request body; a larger one receives 413.
        body_bytes_max: Size = defaults::API_BODY_BYTES_MAX,
        /// Maximum number of commands in one batch or pipeline, and of topics in one broadcast.
        commands_max: usize = defaults::API_COMMANDS_MAX,
        /// Maximum number of topics in one `channels` response.
        topics_max: usize = defaults::API_TOPICS_MAX,
        /// Maximum bytes in the responses to all commands of one request. A command whose response is too long receives
        /// error 106, which says how to ask for less.
        answer_bytes_max: Size = defaults::API_ANSWER_BYTES_MAX,
        /// "body": errors are bodies with status 200, as SDKs expect; "transport": errors are HTTP statuses.
        error_mode: ErrorMode = ErrorMode::Body,
    }
}

choice! {
    /// The ports that serve the API.
    ApiPort {
        Client = "client",
        Internal = "internal",
        Both = "both",
    }
}

choice! {
    /// The form of API errors.
    ErrorMode {
        Body = "body",
        Transport = "transport",
    }
}

impl Api {
    pub(super) fn settings(&self, checks: &mut Checks) -> ApiSettings {
        if self.keys.iter().any(Secret::is_empty) {
            checks.error("api.keys", "has an empty key; `openssl rand -hex 32` makes a good one");
        }
        ApiSettings {
            path: checks.path("api.path", &self.path),
            on_client_port: self.on != ApiPort::Internal,
            on_internal_port: self.on != ApiPort::Client,
            keys: self.keys.iter().map(Secret::to_settings).collect(),
            insecure: self.insecure,
            connections_max: checks.connections("api.connections_max", self.connections_max),
            idle_timeout: checks.longer_than_zero("api.idle_timeout", self.idle_timeout),
            body_bytes_max: checks.at_least_one("api.body_bytes_max", self.body_bytes_max.0),
            commands_max: checks.at_least_one("api.commands_max", self.commands_max),
            topics_max: checks.at_least_one("api.topics_max", self.topics_max),
            answer_bytes_max: checks.at_least_one("api.answer_bytes_max", self.answer_bytes_max.0),
            transport_errors: self.error_mode == ErrorMode::Transport,
        }
    }
}
