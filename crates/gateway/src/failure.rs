//! Failures of commands, each with its text and its exit code.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Exit code 1.
    #[error("{0}")]
    Run(String),
    /// Exit code 2: what was asked for, or the configuration, is wrong.
    #[error("{0}")]
    Usage(String),
    /// Exit code 1, and all has been said.
    #[error("")]
    Told,
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Run(_) | Self::Told => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }
}

/// One line for each, under a heading.
pub(crate) fn listed(heading: &str, items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().fold(heading.to_owned(), |text, item| format!("{text}\n  {item}"))
}
