//! Errors that prevent a run. Faults of the server that a run finds are in its report instead.

use std::io;

/// An error that stops the run. Its message names the action that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
    #[error("{0} is not what this tool expects to read")]
    Unreadable(String),
    #[error("the server {0}")]
    Server(String),
    #[error("the HTTP API answered {0}")]
    Api(String),
    #[error("{0}")]
    Unsupported(String),
    #[error(
        "{wanted} connections need {needed} open files but the limit is {limit}; raise the hard limit (ulimit -Hn)"
    )]
    FileLimit { wanted: usize, needed: u64, limit: u64 },
    #[error("set-up failed: {live} of {wanted} connections are subscribed, {lost} were lost{reasons}")]
    SetUp { wanted: usize, live: usize, lost: usize, reasons: String },
    #[error("interrupted; all started servers are stopped")]
    Interrupted,
    #[error("{0}")]
    NotStarted(Box<LoadError>),
    #[error("{error}\nThe server's log ends with:\n{log}")]
    Logged { error: Box<LoadError>, log: String },
}

impl LoadError {
    /// Returns true if the next turns would fail in the same way.
    pub(crate) fn ends_the_run(&self) -> bool {
        matches!(self, Self::Unsupported(_) | Self::FileLimit { .. })
    }

    /// The error of a server that did not start.
    pub(crate) fn not_started(self) -> Self {
        if self.ends_the_run() { self } else { Self::NotStarted(Box::new(self)) }
    }

    /// Returns the text for a report, which is published: a log may contain private details.
    pub(crate) fn without_log(&self) -> String {
        match self {
            Self::Logged { error, .. } | Self::NotStarted(error) => error.without_log(),
            other => other.to_string(),
        }
    }
}

/// Adds the action that failed to an I/O error.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, LoadError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T, LoadError> {
        self.map_err(|error| LoadError::Io { doing: what.into(), source: error.into() })
    }
}
