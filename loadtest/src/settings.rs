//! Options of every scenario: subjects, rounds, servers and results.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Doing, LoadError};
use crate::report::BoundRule;
use crate::report::command::REDACTED;
use crate::subject::Subject;
use crate::url::Url;

/// Options that all scenarios share.
#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// The measured subjects, in turn; the others are compared with the first
    ///
    ///   raw         a bare loop of sends: the limit of the machine; with +shards=N, one in each of N threads
    ///   fanwire     the built server, with any of +redis +protobuf +deflate +filter +hook +events +shards=N
    ///               +nodes=N; its clients use a WebSocket, unless one of these says otherwise: +http_stream +uni_sse
    ///               +uni_http_stream +uni_websocket; +sse +ndjson +bare +poll, which are the forms of GET /subscribe
    ///   centrifuge  a running server of the Centrifuge protocol, with +protobuf +deflate
    ///   nchan, nats, ws, socketio
    ///               peers, if they are installed
    #[arg(
        long,
        verbatim_doc_comment,
        action = clap::ArgAction::Set,
        value_delimiter = ',',
        default_value = "fanwire",
        value_name = "SUBJECT,...",
        help_heading = "Subjects"
    )]
    pub(crate) subjects: Vec<Subject>,
    /// Number of turns of each subject
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = "Subjects")]
    pub(crate) rounds: u32,
    /// The built server [default: `fanwire` beside this program]
    #[arg(long, value_name = "FILE", help_heading = "Subjects")]
    pub(crate) server: Option<PathBuf>,
    /// The Redis that +redis starts
    #[arg(long, value_name = "FILE", default_value = "redis-server", help_heading = "Subjects")]
    pub(crate) redis: PathBuf,
    #[command(flatten)]
    pub(crate) external: ExternalSettings,
    /// A bound to report as met or not met, such as "fanwire/raw:server CPU per delivery<=1.2"
    #[arg(long, value_name = "RULE", help_heading = "Results")]
    pub(crate) bound: Vec<BoundRule>,
    /// Store all measurements as JSON in this file
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(crate) json: Option<PathBuf>,
    /// Store one page with plots in this file; it needs no network
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(crate) html: Option<PathBuf>,
}

/// The subject `centrifuge`: an external server.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExternalSettings {
    /// The URL for its clients: ws://HOST:PORT/PATH
    #[arg(long, value_name = "URL", help_heading = "A server of the Centrifuge protocol")]
    pub(crate) centrifuge: Option<Url>,
    /// The URL of its HTTP API, which has `publish` and `batch`: http://HOST:PORT/PATH
    #[arg(long, value_name = "URL", help_heading = "A server of the Centrifuge protocol")]
    pub(crate) api: Option<Url>,
    /// The key of the API
    #[arg(
        long,
        env = "FANWIRE_LOADTEST_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        default_value = "",
        hide_default_value = true,
        help_heading = "A server of the Centrifuge protocol"
    )]
    pub(crate) api_key: String,
    /// The secret of its connection tokens (HS256)
    #[arg(
        long,
        env = "FANWIRE_LOADTEST_TOKEN_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        default_value = "",
        hide_default_value = true,
        help_heading = "A server of the Centrifuge protocol"
    )]
    pub(crate) token_secret: String,
    /// The namespace of the topics; clients must be allowed to subscribe to them
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true,
        help_heading = "A server of the Centrifuge protocol"
    )]
    pub(crate) namespace: String,
    /// Its processes, if they are on this machine, to measure CPU and memory
    #[arg(long, value_name = "PID", help_heading = "A server of the Centrifuge protocol")]
    pub(crate) pid: Vec<u32>,
}

impl Settings {
    /// Returns the built server, which is in the folder of this program by default.
    pub(crate) fn server_binary(&self) -> Result<PathBuf, LoadError> {
        match &self.server {
            Some(path) => Ok(path.clone()),
            None => Ok(std::env::current_exe().doing("find this program's file")?.with_file_name("fanwire")),
        }
    }
}

impl ExternalSettings {
    /// Returns a text for a report, with secrets and names of hosts removed.
    pub(crate) fn presentable(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in [&self.api_key, &self.token_secret].into_iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(&**secret, REDACTED);
        }
        for url in [&self.centrifuge, &self.api].into_iter().flatten().filter(|url| !url.is_loopback()) {
            text = text.replace(url.name(), "HOST");
            if let Ok(address) = url.address() {
                text = text.replace(&address.ip().to_string(), "HOST");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_hosts_stay_out_of_reports() {
        let external = ExternalSettings {
            centrifuge: Some("ws://inner.example:8000/ws".parse().unwrap()),
            api: Some("http://127.0.0.1:9000/api".parse().unwrap()),
            api_key: "hush".to_owned(),
            token_secret: String::new(),
            namespace: String::new(),
            pid: Vec::new(),
        };
        let text = "401 to key hush: connect to inner.example:8000, 127.0.0.1:9000";
        let shown = external.presentable(text);
        assert_eq!(shown, "401 to key REDACTED: connect to HOST:8000, 127.0.0.1:9000");
    }
}
