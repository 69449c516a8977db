//! Questions about a topic's stream, and their answers.

use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::{Position, Publication};

/// How long epoch and top of a topic in which nothing was ever published outlive the last question at most: clients
/// may ask about names that nobody else knows, as many as they like.
pub const UNPUBLISHED_META_TTL_MAX: Duration = Duration::from_secs(10 * 60);

/// The position that a reader says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since<'a> {
    /// The last offset it has seen.
    pub offset: u64,
    /// The epoch that the offset belongs to, as the reader sent it. Empty matches any.
    pub epoch: &'a str,
}

/// How much one answer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub publications: usize,
    /// As [`Publication::answer_bytes`] counts them. An engine may count some more or less for what is not data.
    pub bytes: usize,
}

impl From<usize> for Limit {
    /// So many publications, however long they are.
    fn from(publications: usize) -> Self {
        Self { publications, bytes: usize::MAX }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self::from(0)
    }
}

/// What a reader has missed.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    /// Where the stream stands.
    pub top: Position,
    /// With `publications` the reader has everything up to `top`.
    pub complete: bool,
    /// All that was missed, in order. Empty unless complete, or a part.
    pub publications: Vec<Arc<Publication>>,
    /// All of it can be had, but it does not fit the limit. Then it is not complete. For more publications than the
    /// limit, only [`Engine::recover_part`](crate::Engine::recover_part) says so.
    pub is_too_long: bool,
}

impl Recovery {
    /// Returns true if it is a part that is empty because the first publication alone does not fit the limit.
    pub fn begins_too_long(&self) -> bool {
        self.is_too_long && self.publications.is_empty()
    }
}

/// Asks for a page of history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery<'a> {
    /// At most so much, 0 publications ask for the position alone. If there is anything to read, a page holds at
    /// least one publication, however long it is.
    pub limit: Limit,
    /// Only offsets above it, or below it in reverse.
    pub since: Option<Since<'a>>,
    /// Newest first.
    pub reverse: bool,
}

/// A page of history.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Where the stream stands, whatever the page.
    pub top: Position,
    /// The page.
    pub publications: Vec<Arc<Publication>>,
    /// It ended at the limit's bytes.
    pub is_cut: bool,
}
