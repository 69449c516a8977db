//! Follows a stream: decides which publication is next, which is a repeat and which shows a gap.
//!
//! Offsets are delivered one after the other. A publication that comes too early waits while the stream is asked for
//! those before it. A gap that cannot be filled is reported, never skipped. The stream's answer also tells which
//! publications are not its own: those are dropped. A stream that was asked without result is asked again only after a pause,
//! so that no sender can make a node ask without end.

mod pace;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use fanwire_broker::Recovery;
use fanwire_protocol::{Epoch, Position, Publication};
use tokio::time::Instant;

use pace::Pace;

/// The position up to which a stream was delivered, and the state of its repair.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    position: Option<Position>,
    /// The reason to ask the stream, if there is one.
    dirty: Option<DirtyReason>,
    pace: Pace,
    /// Publications that came too early.
    waiting: VecDeque<Stamped>,
    waiting_bytes: usize,
    /// The number of publications that have begun to wait.
    arrived: u64,
    /// Publications of another epoch that were not kept.
    unkept: u64,
    /// Publications of this epoch that found no room since the stream was last asked.
    crowded_out: CrowdedOut,
}

/// The reason to ask a stream. The greater one outweighs the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DirtyReason {
    /// A publication of another epoch came.
    Epoch,
    /// Something may have been missed.
    Gap,
}

/// Publications that could be the stream's own but found no room to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CrowdedOut {
    count: u64,
    offset_min: u64,
}

impl CrowdedOut {
    fn add(&mut self, offset: u64) {
        self.offset_min = if self.count == 0 { offset } else { self.offset_min.min(offset) };
        self.count += 1;
    }

    /// Returns how many are certainly not in the stream that ends at `top`: all of them or none.
    fn foreign(self, top: u64) -> u64 {
        if self.offset_min > top { self.count } else { 0 }
    }
}

/// A publication and the stream that its offset belongs to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stamped {
    pub epoch: Epoch,
    pub publication: Arc<Publication>,
}

/// The decision on a publication that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    Deliver,
    /// It was delivered before.
    Repeated,
    /// It waits until the stream has answered.
    Early,
}

/// A question to the stream: what came after `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamQuestion {
    pub since: Position,
    /// The number of publications that had begun to wait.
    arrived: u64,
    crowded_out: CrowdedOut,
}

/// The result of asking the stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Repaired {
    /// Some missing publications are lost.
    pub lost: bool,
    /// The publications to deliver now, in order; if some are lost, after the report of that.
    pub deliver: Vec<Stamped>,
    /// Publications that arrived and are not in the stream. They were dropped.
    pub foreign: u64,
    /// The answer was a part of what is missing. The stream is asked for the rest at once.
    pub is_part: bool,
}

impl Follow {
    /// Publications that wait while the stream is asked, in bytes of data. What does not fit is asked for later,
    /// with a further question.
    pub(crate) const WAITING_BYTES_MAX: usize = 1 << 20;

    /// The bytes that a waiting publication counts for beside its data.
    const WAITING_BYTES_EACH: usize = 128;

    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Begins at a position, unless it has begun.
    pub(crate) fn begin(&mut self, position: Position) {
        let begun = *self.position.get_or_insert(position);
        if begun.epoch != position.epoch {
            self.mark_dirty();
        }
    }

    /// Returns true if the stream has to be asked.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.is_some()
    }

    /// The time at which to ask the stream, if it has to be asked.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.dirty.map(|reason| self.pace.due(reason))
    }

    /// Notes that publications may be missing.
    pub(crate) fn mark_dirty(&mut self) {
        self.dirty = Some(DirtyReason::Gap);
    }

    /// The question to ask the stream now. A change from here on makes the stream dirty anew.
    pub(crate) fn ask(&mut self) -> Option<StreamQuestion> {
        let since = self.position?;
        // A stream that was dirty before it began stays so until it has begun.
        self.dirty = None;
        Some(StreamQuestion {
            since,
            arrived: self.arrived,
            crowded_out: std::mem::take(&mut self.crowded_out),
        })
    }

    pub(crate) fn take(&mut self, epoch: Epoch, publication: &Arc<Publication>) -> NextStep {
        let offset = publication.offset;
        match self.position {
            Some(at) if at.epoch == epoch && offset <= at.offset => NextStep::Repeated,
            Some(at) if at.epoch != epoch || offset != at.offset + 1 => {
                let reason = if at.epoch == epoch { DirtyReason::Gap } else { DirtyReason::Epoch };
                self.dirty = self.dirty.max(Some(reason));
                self.keep(reason, Stamped { epoch, publication: publication.clone() });
                NextStep::Early
            }
            _ => {
                self.position = Some(Position { epoch, offset });
                NextStep::Deliver
            }
        }
    }

    /// Takes the stream's answer to a question: all that is missing, or the first part of it.
    pub(crate) fn repair(&mut self, asked: StreamQuestion, answer: Recovery, now: Instant) -> Repaired {
        let lost = !answer.complete && !answer.is_too_long;
        let has_moved = if lost {
            self.position != Some(asked.since)
        } else {
            self.position.is_none_or(|position| position.epoch != asked.since.epoch)
        };
        if has_moved {
            // The answer is to an earlier question.
            self.mark_dirty();
            self.pace.asked(true, now);
            return Repaired::default();
        }
        let mut repaired = Repaired { lost, ..Repaired::default() };
        let dropped = self.drop_foreign(asked, answer.top);
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let Position { epoch, offset: top } = answer.top;
        let known = self.position.filter(|position| position.epoch == epoch);
        if let (Some(mut at), false) = (known, lost) {
            repaired.foreign = dropped;
            for publication in answer.publications {
                // Some may have arrived while the stream was asked.
                if publication.offset > at.offset {
                    at.offset = publication.offset;
                    repaired.deliver.push(Stamped { epoch, publication });
                }
            }
            if answer.complete {
                at.offset = at.offset.max(top);
            }
            self.position = Some(at);
        } else {
            // Subscribers with a position are told, and all go on with the next publication.
            let mut of_stream = waiting.iter().filter(|stamped| stamped.epoch == epoch);
            let next = of_stream.next().map_or(top, |first| first.publication.offset.saturating_sub(1));
            self.position = Some(Position { epoch, offset: next.min(top) });
        }
        let has_advanced = self.position.is_some_and(|at| at.offset > asked.since.offset);
        let is_part = answer.is_too_long && has_advanced;
        self.pace.asked(lost || (repaired.deliver.is_empty() && !is_part), now);
        for stamped in waiting {
            if self.take(stamped.epoch, &stamped.publication) == NextStep::Deliver {
                repaired.deliver.push(stamped);
            }
        }
        if answer.is_too_long && self.position.is_some_and(|at| at.offset < top) {
            self.mark_dirty();
            repaired.is_part = is_part;
        }
        repaired
    }

    /// Keeps a publication until the stream was asked, if there is room.
    fn keep(&mut self, reason: DirtyReason, stamped: Stamped) {
        let bytes = stamped.publication.data.len() + Self::WAITING_BYTES_EACH;
        let has_room = self.waiting_bytes + bytes <= Self::WAITING_BYTES_MAX;
        match reason {
            // Repeated publications of other streams get no memory: this stream's own can be read.
            DirtyReason::Epoch if self.pace.is_slow() || !has_room => self.unkept += 1,
            DirtyReason::Gap if !has_room => self.crowded_out.add(stamped.publication.offset),
            _ => {
                self.waiting_bytes += bytes;
                self.arrived += 1;
                self.waiting.push_back(stamped);
            }
        }
    }

    /// Drops publications that had arrived before the stream was asked and are not in it. Returns how many, with those
    /// that were not kept.
    fn drop_foreign(&mut self, asked: StreamQuestion, top: Position) -> u64 {
        let first = self.arrived - self.waiting.len() as u64;
        let known = asked.arrived.saturating_sub(first);
        let (before, mut number) = (self.waiting.len(), 0);
        self.waiting.retain(|Stamped { epoch, publication }| {
            number += 1;
            number > known || (*epoch == top.epoch && publication.offset <= top.offset)
        });
        let dropped = (before - self.waiting.len()) as u64;
        dropped + std::mem::take(&mut self.unkept) + asked.crowded_out.foreign(top.offset)
    }
}
