//! A topic's stream: its epoch, its top, and the newest publications. Knows no clock.
//!
//! The publications are an unbroken run of offsets that ends at the top, or none. So the publications that a reader
//! missed are either a slice of the run or not complete.

use std::collections::VecDeque;
use std::collections::vec_deque::Iter;
use std::sync::Arc;

use fanwire_protocol::{Epoch, Position, Publication};

use crate::contract::{EngineError, HistoryPage, HistoryQuery, ReadLimit, Recovery, Since};

pub(super) struct Stream {
    top: Position,
    publications: VecDeque<Arc<Publication>>,
    /// The newest published version; number 0 before the first.
    version: Version,
}

/// A publisher's version of its data. Only numbers of equal epochs compare; 0 is no version.
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

    /// Returns true if the stream has seen this version or a later one.
    pub(super) fn has_seen(&self, version: &Version) -> bool {
        version.number > 0 && version.epoch == self.version.epoch && version.number <= self.version.number
    }

    /// The bytes of the version epoch.
    pub(super) fn version_bytes(&self) -> usize {
        self.version.epoch.len()
    }

    /// Gives the publication the next offset and stores it.
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

    /// Removes the oldest publication.
    pub(super) fn pop_oldest(&mut self) -> Option<Arc<Publication>> {
        self.publications.pop_front()
    }

    /// Removes all publications and releases their memory.
    pub(super) fn take_all(&mut self) -> VecDeque<Arc<Publication>> {
        std::mem::take(&mut self.publications)
    }

    pub(super) fn recover(&self, since: Option<Since<'_>>, limit: ReadLimit) -> Recovery {
        let top = self.top;
        let incomplete =
            |is_too_long| Recovery { top, complete: false, publications: Vec::new(), is_too_long };
        let Some(since) = since else {
            return Recovery { complete: true, ..incomplete(false) };
        };
        let Some(missed) = self.missed(since, limit.publications) else { return incomplete(false) };
        match cut(missed, limit.bytes, 0) {
            (publications, false) => Recovery { complete: true, publications, ..incomplete(false) },
            (_, true) => incomplete(true),
        }
    }

    pub(super) fn recover_part(&self, since: Since<'_>, limit: ReadLimit) -> Recovery {
        let incomplete =
            Recovery { top: self.top, complete: false, publications: Vec::new(), is_too_long: false };
        let Some(missed) = self.missed(since, usize::MAX) else { return incomplete };
        let count = missed.len();
        let (publications, _) = cut(missed.take(limit.publications), limit.bytes, 0);
        let complete = publications.len() == count;
        Recovery { complete, is_too_long: !complete, publications, ..incomplete }
    }

    pub(super) fn history(&self, query: HistoryQuery<'_>) -> Result<HistoryPage, EngineError> {
        let HistoryQuery { limit, since, reverse } = query;
        if since.is_some_and(|since| !self.epoch_matches(since)) {
            return Err(EngineError::UnrecoverablePosition);
        }
        let range = match (reverse, since) {
            (_, None) => 0..self.publications.len(),
            (false, Some(since)) => self.seen(since.offset)..self.publications.len(),
            (true, Some(since)) => 0..self.seen(since.offset.saturating_sub(1)),
        };
        let publications = self.publications.range(range);
        let (publications, is_cut) = if reverse {
            cut(publications.rev().take(limit.publications), limit.bytes, 1)
        } else {
            cut(publications.take(limit.publications), limit.bytes, 1)
        };
        Ok(HistoryPage { top: self.top, publications, is_cut })
    }

    /// Returns all publications after `since`; `None` if some are missing.
    fn missed(&self, since: Since<'_>, limit: usize) -> Option<Iter<'_, Arc<Publication>>> {
        if !self.epoch_matches(since) {
            return None;
        }
        let missed = usize::try_from(self.top.offset.checked_sub(since.offset)?).ok()?;
        let first = self.publications.len().checked_sub(missed)?;
        (missed <= limit).then(|| self.publications.range(first..))
    }

    fn epoch_matches(&self, since: Since<'_>) -> bool {
        since.epoch.is_empty() || since.epoch == self.top.epoch.as_str()
    }

    /// The number of stored publications with offsets up to `offset`.
    fn seen(&self, offset: u64) -> usize {
        let newer = self.top.offset.saturating_sub(offset);
        self.publications.len().saturating_sub(usize::try_from(newer).unwrap_or(usize::MAX))
    }
}

/// Returns the first publications that fit, at least `at_least`, and true if some do not fit.
fn cut<'p>(
    publications: impl Iterator<Item = &'p Arc<Publication>>,
    bytes_max: usize,
    at_least: usize,
) -> (Vec<Arc<Publication>>, bool) {
    let mut page = Vec::new();
    let mut bytes = 0_usize;
    for publication in publications {
        bytes = bytes.saturating_add(publication.answer_bytes());
        if bytes > bytes_max && page.len() >= at_least {
            return (page, true);
        }
        page.push(publication.clone());
    }
    (page, false)
}
