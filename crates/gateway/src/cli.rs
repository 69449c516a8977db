//! The command line: commands, options and their help.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{LogFormat, Period};

const EXAMPLES: &str = "\
Examples:
  fanwire serve --dev                      try it: everything open, this machine only
  fanwire serve --config fanwire.toml      run a node
  fanwire check fanwire.toml               report all mistakes in a configuration
  fanwire config default > fanwire.toml    start a configuration
  fanwire token connection --user 42 --config fanwire.toml

Environment:
  Every key of the configuration has a variable: FANWIRE_CLIENT__PING_INTERVAL=20s sets
  client.ping_interval. Append _FILE to read the value, such as a secret, from a file.

Exit codes:
  0  success
  1  a failure at run time; for `check` and `token check`: not valid
  2  the command line or the configuration is wrong";

const ABOUT: &str = "\
A realtime gateway: backends publish over HTTP, clients receive over WebSocket or EventSource.
Without a command it runs `fanwire serve`.";

#[derive(Debug, Parser)]
#[command(name = "fanwire", version, about = ABOUT, after_help = EXAMPLES, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<CliCommand>,
    #[command(flatten)]
    pub(crate) serve: Serve,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Run a node until SIGTERM or SIGINT.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Check configuration files and the environment, and report all mistakes at once.
    #[command(after_help = CHECK_NOTES)]
    Check(CheckArguments),
    /// Make and check tokens (JWT) for connections and subscriptions.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Token {
        #[command(subcommand)]
        command: Token,
    },
    /// Print the default configuration, or translate another server's.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Config {
        #[command(subcommand)]
        command: Config,
    },
}

const CHECK_NOTES: &str = "\
Reads what `serve` would read, in the same order, and starts nothing.
Exits with 0 if the configuration is valid, and with 1 if it is not, or if --connect
does not reach a backend.";

const SERVE_EXAMPLES: &str = "\
Examples:
  fanwire serve --dev
  fanwire serve --config base.toml --config site.yaml
  FANWIRE_API__KEYS_FILE=/run/secrets/api-keys fanwire serve --config fanwire.toml

A later source wins: defaults < files in their order < environment < flags.
The first SIGTERM or SIGINT shuts the node down within the times of [shutdown],
a second one stops it immediately.";

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options of serve")]
pub(crate) struct Serve {
    /// A configuration file (.toml, .yaml, .yml or .json); repeat it for more, later files win.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Vec<PathBuf>,
    /// Open everything, on this machine only: a chat page, no tokens, no API key.
    #[arg(long)]
    pub(crate) dev: bool,
    /// The port for clients [server.port, default 8000].
    #[arg(short, long)]
    pub(crate) port: Option<u16>,
    /// The port for health and metrics [internal.port, default 9000].
    #[arg(long, value_name = "PORT")]
    pub(crate) internal_port: Option<u16>,
    /// The address for clients [server.address, default 0.0.0.0].
    #[arg(short, long)]
    pub(crate) address: Option<IpAddr>,
    /// Threads that own connections: "auto" or a number [server.shards].
    #[arg(long, value_name = "COUNT")]
    pub(crate) shards: Option<String>,
    /// The log level: "error", "warn", "info", "debug", "trace", or levels by part [log.level].
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// The log format: "auto", "text" or "json" [log.format].
    #[arg(long, value_name = "FORMAT", hide_possible_values = true, value_parser = clap::builder::PossibleValuesParser::new(LogFormat::WORDS))]
    pub(crate) log_format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Configuration files, in this order; without any, the environment alone is checked.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Check as for `serve --dev`.
    #[arg(long)]
    pub(crate) dev: bool,
    /// Also connect to the backend of each hook: look up its name and, for https, check its certificate. Sends nothing.
    #[arg(long)]
    pub(crate) connect: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a connection token, for a user and the topics that the server subscribes it to.
    #[command(after_help = CONNECTION_EXAMPLES)]
    Connection(ConnectionToken),
    /// Make a subscription token, for one user and one topic.
    Subscription(SubscriptionToken),
    /// Check a token of either kind and print its claims.
    #[command(
        after_help = "Exits with 0 when the token is valid now, and with 1 when it is expired or invalid."
    )]
    Check(CheckToken),
}

const CONNECTION_EXAMPLES: &str = "\
Examples:
  fanwire token connection --user 42 --config fanwire.toml
  fanwire token connection --user 42 --info '{\"name\":\"Ada\"}' --topic news --ttl 12h --secret s3cret
  fanwire token connection --user 42 --private-key ec.pem --algorithm ES256";

#[derive(Debug, Args)]
pub(crate) struct ConnectionToken {
    /// The user; empty for the anonymous user.
    #[arg(short, long, default_value = "")]
    pub(crate) user: String,
    /// A topic that the server subscribes the client to; repeat it for more.
    #[arg(short, long)]
    pub(crate) topic: Vec<String>,
    #[command(flatten)]
    pub(crate) claims: TokenClaims,
    #[command(flatten)]
    pub(crate) key: SigningKey,
}

#[derive(Debug, Args)]
pub(crate) struct SubscriptionToken {
    /// The user; empty for the anonymous user.
    #[arg(short, long, default_value = "")]
    pub(crate) user: String,
    /// The topic.
    #[arg(short, long)]
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) claims: TokenClaims,
    #[command(flatten)]
    pub(crate) key: SigningKey,
}

#[derive(Debug, Args)]
pub(crate) struct TokenClaims {
    /// The lifetime of the token, such as 30m or 12h; 0s for a token that never expires.
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    pub(crate) ttl: Period,
    /// Information about the client that other clients see, as JSON.
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub(crate) info: Option<serde_json::Value>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The key")]
pub(crate) struct SigningKey {
    /// Read hmac_secret from this configuration; the environment is read as for `serve`.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Vec<PathBuf>,
    /// Sign with this secret. Other users of the machine can see it while the command runs.
    #[arg(long, conflicts_with = "private_key")]
    pub(crate) secret: Option<String>,
    /// Sign with this private key, in PEM; needs --algorithm.
    #[arg(long, value_name = "FILE", requires = "algorithm")]
    pub(crate) private_key: Option<PathBuf>,
    /// The algorithm; HS256 by default, which signs with a secret.
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) algorithm: Option<Algorithm>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckToken {
    /// The token; "-" reads it from standard input.
    pub(crate) token: String,
    /// Read the keys from this configuration; the environment is read as for `serve`.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Vec<PathBuf>,
    /// Check with this secret instead. Other users of the machine can see it while the command runs.
    #[arg(long)]
    pub(crate) secret: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algorithm {
    #[value(name = "HS256")]
    Hs256,
    #[value(name = "HS384")]
    Hs384,
    #[value(name = "HS512")]
    Hs512,
    #[value(name = "RS256")]
    Rs256,
    #[value(name = "RS384")]
    Rs384,
    #[value(name = "RS512")]
    Rs512,
    #[value(name = "ES256")]
    Es256,
    #[value(name = "ES384")]
    Es384,
    #[value(name = "EdDSA")]
    EdDsa,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print every key with its description and default, as a file to start from.
    Default,
    /// Translate another server's configuration, and print the result.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Import {
        #[command(subcommand)]
        from: Import,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Centrifugo, version 6.
    #[command(after_help = IMPORT_NOTES)]
    Centrifugo {
        /// Its configuration file (.json, .yaml, .yml or .toml).
        file: PathBuf,
    },
}

const IMPORT_NOTES: &str = "\
Example:
  fanwire config import centrifugo config.json > fanwire.toml

Settings without a counterpart are listed on standard error, one a line with the reason.";

fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
