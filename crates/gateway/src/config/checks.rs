//! The problems of a configuration, collected so that one run reports all of them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use fanwire_server::{ServedEndpoint, Settings};

use super::values::Period;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConfigSource {
    Dev,
    File(PathBuf),
    /// An environment variable, by its full name.
    Variable(String),
    /// A flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dev => f.write_str("--dev"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A mistake to correct. Its text never holds a value that may be secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) source: Option<ConfigSource>,
    /// Empty if the problem is the source itself.
    pub(crate) key: String,
    pub(crate) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, &*self.key) {
            (None, "") => write!(f, "{}", self.text),
            (None, key) => write!(f, "{key}: {}", self.text),
            (Some(source), "") => write!(f, "{source}: {}", self.text),
            (Some(source @ ConfigSource::File(_)), key) => write!(f, "{source}: {key}: {}", self.text),
            (Some(source), key) => write!(f, "{source} ({key}): {}", self.text),
        }
    }
}

/// Collects the problems that sections find while they are turned into settings.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// Keys, each with its mistake.
    pub(crate) errors: Vec<(String, String)>,
    /// Keys, each with a doubtful choice.
    pub(crate) warnings: Vec<(String, String)>,
}

impl Checks {
    pub(crate) fn error(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.errors.push((key.into(), text.into()));
    }

    pub(crate) fn warn(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.warnings.push((key.into(), text.into()));
    }

    pub(crate) fn at_least_one(&mut self, key: &str, number: usize) -> usize {
        if number == 0 {
            self.error(key, "must be at least 1");
        }
        number
    }

    /// Checks a limit on connections. Each needs an open file, and no process may open more than this many.
    pub(crate) fn connections(&mut self, key: &str, number: usize) -> usize {
        const MAX: usize = 1 << 30;
        if !(1..=MAX).contains(&number) {
            self.error(key, format!("must be 1 to {MAX}"));
        }
        number
    }

    pub(crate) fn longer_than_zero(&mut self, key: &str, period: Period) -> Duration {
        if period.0.is_zero() {
            self.error(key, "must be longer than 0s");
        }
        period.0
    }

    /// Returns true if the period is `min` to `max`, and reports an error otherwise.
    pub(crate) fn within(&mut self, key: &str, period: Period, min: Period, max: Period) -> bool {
        let is_within = (min..=max).contains(&period);
        if !is_within {
            self.error(key, format!("must be {min} to {max}"));
        }
        is_within
    }

    /// Checks a path of the HTTP server: it begins with a slash, ends without one, and has no query.
    pub(crate) fn path(&mut self, key: &str, path: &str) -> String {
        let is_plain =
            path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%'));
        if path.len() < 2 || !path.starts_with('/') || path.ends_with('/') || !is_plain {
            self.error(key, "must be a path such as \"/realtime\": a slash first, none last, no query");
        }
        path.to_owned()
    }

    /// Checks the path of an endpoint, and returns it if the endpoint is served.
    pub(crate) fn endpoint(&mut self, key: &str, enabled: bool, path: &str) -> Option<String> {
        let path = self.path(key, path);
        enabled.then_some(path)
    }

    /// Checks that no two endpoints of the client port share a path, and that none lies inside the API's.
    pub(crate) fn endpoints(&mut self, settings: &Settings) {
        let mut taken = vec![("api.path", &*settings.api.path)];
        for ServedEndpoint { setting, path, .. } in settings.endpoints() {
            let is_inside = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
            for (other, other_path) in &taken {
                if path == *other_path || *other == "api.path" && is_inside(other_path) {
                    let hint = if (setting, *other) == ("sse.path", "subscribe.path") {
                        "; [subscribe] is what [sse] was, and [sse] is a transport of the Centrifuge protocol"
                    } else {
                        ""
                    };
                    self.error(setting, format!("\"{path}\" is taken by {other}{hint}"));
                }
            }
            taken.push((setting, path));
        }
    }

    pub(crate) fn regex(&mut self, key: &str, pattern: &str) -> Option<regex::Regex> {
        match regex::Regex::new(pattern) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                self.error(key, format!("is not a regular expression: {reason}"));
                None
            }
        }
    }
}
