//! Following a stream: what is delivered next, what is a repeat, and what shows that something is missing.
//!
//! Offsets are delivered one after the other. Whatever does not follow waits while the stream is asked for what is
//! between; what cannot be had is said, never skipped.

use std::collections::VecDeque;
use std::sync::Arc;

use fanwire_broker::Recovery;
use fanwire_protocol::{Epoch, Position, Publication};

/// How far a stream has been delivered.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    position: Option<Position>,
    /// Something may be missing, so the stream has to be asked.
    doubtful: bool,
    /// Publications that came too early.
    waiting: VecDeque<Stamped>,
    waiting_bytes: usize,
}

/// A publication and the stream that its offset belongs to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stamped {
    pub epoch: Epoch,
    pub publication: Arc<Publication>,
}

/// What to do with a publication that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Deliver,
    /// It was delivered before.
    Repeated,
    /// It has to wait until the stream was asked.
    Early,
}

/// What came of asking the stream.
#[derive(Debug, PartialEq)]
pub(crate) struct Repaired {
    /// Some of what is missing cannot be had.
    pub lost: bool,
    /// What is delivered now, in order; if something was lost, after it.
    pub deliver: Vec<Stamped>,
}

impl Follow {
    /// Publications that wait while the stream is asked, in bytes of data. What does not fit is asked for later,
    /// with a further question.
    pub(crate) const WAITING_BYTES_MAX: usize = 1 << 20;

    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Begins at a position, unless it has begun.
    pub(crate) fn begin(&mut self, position: Position) {
        self.position.get_or_insert(position);
    }

    /// The stream has to be asked.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Something may have been missed.
    pub(crate) fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// The position after which the stream is to be asked now. What raises doubt from here on raises it anew.
    pub(crate) fn ask(&mut self) -> Option<Position> {
        // Doubt that came before the beginning is for when it has begun.
        self.doubtful &= self.position.is_none();
        self.position
    }

    pub(crate) fn take(&mut self, epoch: Epoch, publication: &Arc<Publication>) -> Step {
        let offset = publication.offset;
        match self.position {
            Some(at) if at.epoch == epoch && offset <= at.offset => Step::Repeated,
            Some(at) if at.epoch != epoch || offset != at.offset + 1 => {
                self.doubtful = true;
                if self.waiting_bytes + publication.data.len() <= Self::WAITING_BYTES_MAX {
                    self.waiting_bytes += publication.data.len();
                    self.waiting.push_back(Stamped { epoch, publication: publication.clone() });
                }
                Step::Early
            }
            _ => {
                self.position = Some(Position { epoch, offset });
                Step::Deliver
            }
        }
    }

    /// Takes the stream's answer to a question for what came after a position.
    pub(crate) fn repair(&mut self, asked: Position, answer: Recovery) -> Repaired {
        let has_moved = if answer.complete {
            self.position.is_none_or(|position| position.epoch != asked.epoch)
        } else {
            self.position != Some(asked)
        };
        if has_moved {
            // The answer is to a question that is not asked any more.
            self.doubt();
            return Repaired { lost: false, deliver: Vec::new() };
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let mut deliver = Vec::new();
        let epoch = answer.top.epoch;
        let known = self.position.filter(|position| position.epoch == epoch);
        let lost = !answer.complete;
        if let (Some(mut at), false) = (known, lost) {
            for publication in answer.publications {
                // Some may have arrived while the stream was asked.
                if publication.offset > at.offset {
                    at.offset = publication.offset;
                    deliver.push(Stamped { epoch, publication });
                }
            }
            at.offset = at.offset.max(answer.top.offset);
            self.position = Some(at);
        } else {
            // Whoever has a position is told, and everybody goes on with what comes next.
            waiting.retain(|stamped| stamped.epoch == epoch);
            let next = waiting.front().map(|first| first.publication.offset.saturating_sub(1));
            let offset = next.unwrap_or(answer.top.offset);
            self.position = Some(Position { epoch, offset });
        }
        for stamped in waiting {
            if self.take(stamped.epoch, &stamped.publication) == Step::Deliver {
                deliver.push(stamped);
            }
        }
        Repaired { lost, deliver }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch(number: u64) -> Epoch {
        Epoch::parse(format!("epoch{number:03}").as_bytes()).unwrap()
    }

    fn publication(offset: u64) -> Arc<Publication> {
        let data = bytes::Bytes::from_static(b"data");
        Arc::new(Publication { data, info: None, tags: None, offset })
    }

    fn at(number: u64, offset: u64) -> Position {
        Position { epoch: epoch(number), offset }
    }

    fn answer(number: u64, top: u64, complete: bool, offsets: impl IntoIterator<Item = u64>) -> Recovery {
        Recovery {
            top: at(number, top),
            complete,
            is_too_long: false,
            publications: offsets.into_iter().map(publication).collect(),
        }
    }

    fn offsets(repaired: &Repaired) -> Vec<u64> {
        repaired.deliver.iter().map(|stamped| stamped.publication.offset).collect()
    }

    fn following(number: u64, offset: u64) -> Follow {
        let mut follow = Follow::default();
        follow.begin(at(number, offset));
        follow
    }

    #[test]
    fn what_follows_is_delivered_once() {
        let mut follow = following(1, 4);
        assert_eq!(follow.take(epoch(1), &publication(5)), Step::Deliver);
        assert_eq!(follow.take(epoch(1), &publication(5)), Step::Repeated);
        assert_eq!(follow.take(epoch(1), &publication(2)), Step::Repeated);
        assert_eq!(follow.position(), Some(at(1, 5)));
        assert!(!follow.is_doubtful());
    }

    #[test]
    fn a_hole_is_filled() {
        let mut follow = following(1, 4);
        assert_eq!(follow.take(epoch(1), &publication(7)), Step::Early);
        assert!(follow.is_doubtful());
        let asked = follow.ask().unwrap();
        assert_eq!(asked, at(1, 4));
        assert_eq!(follow.take(epoch(1), &publication(8)), Step::Early);
        let repaired = follow.repair(asked, answer(1, 7, true, [5, 6, 7]));
        assert_eq!((repaired.lost, offsets(&repaired)), (false, vec![5, 6, 7, 8]));
        assert_eq!(follow.position(), Some(at(1, 8)));
    }

    #[test]
    fn what_arrived_meanwhile_is_not_delivered_again() {
        let mut follow = following(1, 4);
        follow.doubt();
        let asked = follow.ask().unwrap();
        assert_eq!(follow.take(epoch(1), &publication(5)), Step::Deliver);
        let repaired = follow.repair(asked, answer(1, 6, true, [5, 6]));
        assert_eq!((repaired.lost, offsets(&repaired)), (false, vec![6]));
    }

    #[test]
    fn a_loss_is_said_and_what_comes_next_is_delivered() {
        let mut follow = following(1, 4);
        assert_eq!(follow.take(epoch(1), &publication(9)), Step::Early);
        let asked = follow.ask().unwrap();
        let repaired = follow.repair(asked, answer(1, 9, false, []));
        assert_eq!((repaired.lost, offsets(&repaired)), (true, vec![9]));
        assert_eq!(follow.position(), Some(at(1, 9)));
    }

    #[test]
    fn another_epoch_is_a_loss() {
        let mut follow = following(1, 4);
        assert_eq!(follow.take(epoch(2), &publication(1)), Step::Early);
        let asked = follow.ask().unwrap();
        let repaired = follow.repair(asked, answer(2, 1, false, []));
        assert_eq!((repaired.lost, offsets(&repaired)), (true, vec![1]));
        assert_eq!(follow.position(), Some(at(2, 1)));
    }

    #[test]
    fn offsets_that_jumped_are_followed_when_the_stream_says_so() {
        let mut follow = following(1, 4);
        follow.doubt();
        assert_eq!(follow.take(epoch(1), &publication(1_048_581)), Step::Early);
        let asked = follow.ask().unwrap();
        let repaired = follow.repair(asked, answer(1, 1_048_581, true, [1_048_581]));
        assert_eq!((repaired.lost, offsets(&repaired)), (false, vec![1_048_581]));
    }

    #[test]
    fn too_much_at_once_is_asked_for_again() {
        let mut follow = following(1, 0);
        let large = |offset| {
            let data = vec![0; Follow::WAITING_BYTES_MAX / 2].into();
            Arc::new(Publication { data, info: None, tags: None, offset })
        };
        follow.take(epoch(1), &large(2));
        let asked = follow.ask().unwrap();
        for offset in 3..10 {
            assert_eq!(follow.take(epoch(1), &large(offset)), Step::Early);
        }
        assert!(follow.waiting_bytes <= Follow::WAITING_BYTES_MAX);
        let repaired = follow.repair(asked, answer(1, 2, true, [1, 2]));
        assert_eq!(offsets(&repaired), [1, 2, 3]);
        assert!(follow.is_doubtful());
    }

    #[test]
    fn doubt_from_before_the_beginning_stays() {
        let mut follow = Follow::default();
        follow.doubt();
        assert_eq!(follow.ask(), None);
        follow.begin(at(1, 3));
        assert!(follow.is_doubtful());
        assert_eq!(follow.ask(), Some(at(1, 3)));
        assert!(!follow.is_doubtful());
    }

    #[test]
    fn an_answer_that_comes_too_late_to_matter_is_asked_for_again() {
        let mut follow = following(1, 4);
        follow.doubt();
        let asked = follow.ask().unwrap();
        assert_eq!(follow.take(epoch(1), &publication(5)), Step::Deliver);
        assert!(!follow.repair(asked, answer(1, 5, false, [])).lost);
        assert!(follow.is_doubtful());
        let asked = follow.ask().unwrap();
        assert!(follow.repair(asked, answer(2, 0, false, [])).lost);
        // Of two that asked at the same time, the second learns nothing from the old stream's answer.
        assert_eq!(follow.repair(asked, answer(1, 5, true, [])).deliver, []);
        assert_eq!(follow.position(), Some(at(2, 0)));
    }

    proptest! {
        /// A stream of which any part arrives, in any order, is delivered whole, in order and once, as long as the
        /// stream answers.
        #[test]
        fn whatever_arrives_all_is_delivered(
            arrivals in prop::collection::vec((1..60_u64, any::<bool>()), 0..120),
        ) {
            let mut follow = following(1, 0);
            let mut delivered = Vec::new();
            let mut top = 0;
            for (offset, asks) in arrivals {
                top = top.max(offset);
                if follow.take(epoch(1), &publication(offset)) == Step::Deliver {
                    delivered.push(offset);
                }
                if asks && follow.is_doubtful() {
                    let asked = follow.ask().unwrap();
                    delivered.extend(offsets(&follow.repair(asked, answer(1, top, true, asked.offset + 1..=top))));
                }
            }
            follow.doubt();
            while follow.is_doubtful() {
                let asked = follow.ask().unwrap();
                delivered.extend(offsets(&follow.repair(asked, answer(1, top, true, asked.offset + 1..=top))));
            }
            prop_assert_eq!(delivered, (1..=top).collect::<Vec<_>>());
        }
    }
}
