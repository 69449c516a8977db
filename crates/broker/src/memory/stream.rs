//! A topic's stream: its epoch, its top, and the newest publications. Knows no clock.
//!
//! The publications are always an unbroken run of offsets that ends at the top, or none at all. So what a
//! reader has missed is either a slice of the run, or is not complete.

use std::collections::VecDeque;
use std::sync::Arc;

use fanwire_protocol::{Epoch, Position, Publication};

use crate::engine::EngineError;
use crate::history::{History, HistoryQuery, Recovery, Since};

pub(super) struct Stream {
    top: Position,
    publications: VecDeque<Arc<Publication>>,
    /// The newest version that was published; number 0 before the first.
    version: Version,
}

/// A publisher's own version of what it publishes. Numbers compare only under equal epochs; 0 is no version.
pub(super) struct Version {
    pub(super) number: u64,
    pub(super) epoch: Box<str>,
}

impl Stream {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            top: Position { epoch, offset: 0 },
            publications: VecDeque::new(),
            version: Version { number: 0, epoch: Box::default() },
        }
    }

    pub(super) fn top(&self) -> Position {
        self.top
    }

    pub(super) fn len(&self) -> usize {
        self.publications.len()
    }

    /// Whether the stream has already seen this version or a later one.
    pub(super) fn has_seen(&self, version: &Version) -> bool {
        version.number > 0 && version.epoch == self.version.epoch && version.number <= self.version.number
    }

    /// Gives the publication the next offset and keeps it.
    pub(super) fn append(&mut self, mut publication: Publication, version: Version) -> Arc<Publication> {
        self.top.offset += 1;
        publication.offset = self.top.offset;
        let publication = Arc::new(publication);
        self.publications.push_back(Arc::clone(&publication));
        if version.number > 0 {
            self.version = version;
        }
        publication
    }

    /// Gives up the oldest publication.
    pub(super) fn pop_oldest(&mut self) -> Option<Arc<Publication>> {
        self.publications.pop_front()
    }

    /// Gives up all publications, and their memory.
    pub(super) fn take_all(&mut self) -> VecDeque<Arc<Publication>> {
        std::mem::take(&mut self.publications)
    }

    pub(super) fn recover(&self, since: Option<Since<'_>>, limit: usize) -> Recovery {
        let missed = match since {
            None => Some(Vec::new()),
            Some(since) => self.missed(since, limit),
        };
        Recovery { top: self.top, complete: missed.is_some(), publications: missed.unwrap_or_default() }
    }

    pub(super) fn history(&self, query: HistoryQuery<'_>) -> Result<History, EngineError> {
        if query.since.is_some_and(|since| !self.epoch_matches(since)) {
            return Err(EngineError::UnrecoverablePosition);
        }
        let publications = match (query.reverse, query.since) {
            (false, None) => self.publications.iter().take(query.limit).cloned().collect(),
            (false, Some(since)) => {
                let newer = self.publications.range(self.seen(since.offset)..);
                newer.take(query.limit).cloned().collect()
            }
            (true, None) => self.publications.iter().rev().take(query.limit).cloned().collect(),
            (true, Some(since)) => {
                let older = self.publications.range(..self.seen(since.offset.saturating_sub(1)));
                older.rev().take(query.limit).cloned().collect()
            }
        };
        Ok(History { top: self.top, publications })
    }

    /// All that a reader at `since` has missed; `None` if it cannot be had in full.
    fn missed(&self, since: Since<'_>, limit: usize) -> Option<Vec<Arc<Publication>>> {
        if !self.epoch_matches(since) {
            return None;
        }
        let missed = usize::try_from(self.top.offset.checked_sub(since.offset)?).ok()?;
        let first = self.publications.len().checked_sub(missed)?;
        (missed <= limit).then(|| self.publications.range(first..).cloned().collect())
    }

    fn epoch_matches(&self, since: Since<'_>) -> bool {
        since.epoch.is_empty() || since.epoch == self.top.epoch.as_str()
    }

    /// How many of the kept publications have offsets up to `offset`.
    fn seen(&self, offset: u64) -> usize {
        let newer = self.top.offset.saturating_sub(offset);
        self.publications.len().saturating_sub(usize::try_from(newer).unwrap_or(usize::MAX))
    }
}
