//! Failures of commands, each with its text and its exit code.

use std::fmt::Display;
use std::process::ExitCode;

/// The failure of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Exit code 1.
    #[error("{0}")]
    Run(String),
    /// Exit code 2: the command line or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// Exit code 1; the failure is already reported.
    #[error("")]
    Reported,
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Run(_) | Self::Reported => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }
}

/// Returns the items under a heading, one on each line.
pub(crate) fn listed(heading: &str, items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().fold(heading.to_owned(), |text, item| format!("{text}\n  {item}"))
}
