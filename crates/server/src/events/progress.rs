//! The state of the deliveries: which outboxes wait, and what follows from an answer. All of it may be forgotten: events
//! are in their outboxes until they are delivered.
//!
//! An answer that is about the events, as 400, isolates them: each is posted alone, and one that is refused alone as often
//! as is tried is a dead letter. Any other failure may be that of the receiver as a whole. It counts against the events
//! only if others were delivered since the last attempt, so a receiver that is down, or takes nothing, loses nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fanwire_broker::{EventId, Refusal};

use super::batch::{Batch, Company};
use crate::metrics::PostResult;

/// Requests under way while the receiver works.
const POSTS_MAX: usize = 4;

/// The pause before the next attempt: up to the first, doubled with each failure up to the last.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The longest pause before anything is posted to a receiver that fails. A single request at a time does it no harm, and
/// events of others must not wait long for one that it never takes.
const RECEIVER_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The longest time that a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Failures against events of several outboxes after which each event is posted alone.
const SUSPICIONS_MAX: u32 = 2;

/// Failures in a row after which the receiver was down.
const OUTAGE: u32 = 3;

/// The receiver's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Status {
        status: u16,
        /// The time after which it wants the next request.
        retry_after: Option<Duration>,
    },
    NoAnswer,
}

impl Reply {
    pub(super) fn result(self) -> PostResult {
        match self {
            Self::Status { status: 200..=299, .. } => PostResult::Delivered,
            Self::Status { status: 400 | 413 | 422, .. } => PostResult::Refused,
            Self::Status { status: 429 | 503, .. } => PostResult::Busy,
            Self::Status { .. } | Self::NoAnswer => PostResult::Failed,
        }
    }

    /// Returns the status, or 0.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Status { status, .. } => status,
            Self::NoAnswer => 0,
        }
    }

    fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => retry_after,
            Self::NoAnswer => None,
        }
    }
}

/// The consequence of an answer for its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    /// Posted again later.
    Again,
    /// Posted again one by one.
    Alone,
    Dead(Refusal),
}

/// An outbox whose events are under way or were not taken.
#[derive(Debug, Default)]
struct Outbox {
    is_under_way: bool,
    /// Failed attempts in a row.
    failures: u32,
    /// Those of them that count against the events.
    suspicions: u32,
    /// The deliveries up to the last failure.
    deliveries: u64,
    not_before: Option<Instant>,
    /// Events up to this one are posted alone.
    alone_until: Option<EventId>,
}

impl Outbox {
    fn is_forgettable(&self) -> bool {
        !self.is_under_way && self.failures == 0 && self.alone_until.is_none()
    }

    /// Its first event has been dealt with, or those up to `last`.
    fn goes_on(&mut self, last: EventId) {
        let alone_until = self.alone_until.filter(|until| *until > last);
        *self = Self { alone_until, ..Self::default() };
    }
}

/// A receiver that fails.
#[derive(Debug, Default)]
struct Receiver {
    failures: u32,
    not_before: Option<Instant>,
}

pub(super) struct Progress {
    attempts_max: u32,
    outboxes: HashMap<u16, Outbox>,
    receiver: Receiver,
    /// Requests whose events were taken.
    deliveries: u64,
    /// Failed attempts at the letter that is posted again.
    letter_failures: u32,
}

impl Progress {
    pub(super) fn new(attempts_max: u32) -> Self {
        Self {
            attempts_max,
            outboxes: HashMap::new(),
            receiver: Receiver::default(),
            deliveries: 0,
            letter_failures: 0,
        }
    }

    /// Returns the number of requests that may be under way.
    pub(super) fn posts_max(&self, now: Instant) -> usize {
        match self.receiver.not_before {
            Some(not_before) if not_before > now => 0,
            _ if self.receiver.failures > 0 => 1,
            _ => POSTS_MAX,
        }
    }

    /// Returns true if the events of the outbox may be posted.
    pub(super) fn is_ready(&self, slot: u16, now: Instant) -> bool {
        self.outboxes.get(&slot).is_none_or(|outbox| {
            !outbox.is_under_way && outbox.not_before.is_none_or(|not_before| not_before <= now)
        })
    }

    pub(super) fn company(&self, slot: u16) -> Company {
        match self.outboxes.get(&slot) {
            Some(Outbox { alone_until: Some(_), .. }) => Company::None,
            Some(Outbox { failures: 1.., .. }) => Company::Own,
            _ => Company::Any,
        }
    }

    pub(super) fn begins(&mut self, batch: &Batch) {
        for last in &batch.last {
            self.outboxes.entry(last.slot).or_default().is_under_way = true;
        }
    }

    /// `random` is at least 0 and less than 1.
    pub(super) fn ends(&mut self, batch: &Batch, reply: Reply, now: Instant, random: f64) -> Verdict {
        self.receiver_answers(reply, now, random);
        let mut verdict = Verdict::Delivered;
        for last in &batch.last {
            let outbox = self.outboxes.entry(last.slot).or_default();
            outbox.is_under_way = false;
            // Outboxes of one batch have the same past, so this is the same for all of them.
            verdict = outbox.judge(reply, batch, self.deliveries, self.attempts_max);
            match verdict {
                Verdict::Delivered | Verdict::Dead(_) => outbox.goes_on(*last),
                Verdict::Alone => *outbox = Outbox { alone_until: Some(*last), ..Outbox::default() },
                Verdict::Again => outbox.not_before = Some(now + pause(outbox.failures, PAUSE_MAX, random)),
            }
            if outbox.is_forgettable() {
                self.outboxes.remove(&last.slot);
            }
        }
        verdict
    }

    /// Judges the answer to a letter that is posted again. `Again` leaves it where it is.
    pub(super) fn ends_letter(&mut self, reply: Reply, now: Instant, random: f64) -> Verdict {
        self.receiver_answers(reply, now, random);
        let attempts = self.letter_failures + 1;
        let (verdict, failures) = match reply.result() {
            PostResult::Delivered => (Verdict::Delivered, 0),
            PostResult::Busy | PostResult::Failed if attempts < self.attempts_max => {
                (Verdict::Again, attempts)
            }
            PostResult::Busy | PostResult::Failed | PostResult::Refused => {
                (Verdict::Dead(Refusal { status: reply.status(), attempts }), 0)
            }
        };
        self.letter_failures = failures;
        verdict
    }

    /// Returns true if the receiver does not take what it is sent.
    pub(super) fn is_receiver_failing(&self) -> bool {
        self.receiver.failures >= OUTAGE
    }

    fn receiver_answers(&mut self, reply: Reply, now: Instant, random: f64) {
        match reply.result() {
            PostResult::Delivered | PostResult::Refused => {
                let was_down = self.is_receiver_failing();
                self.receiver = Receiver::default();
                if reply.result() == PostResult::Delivered {
                    self.deliveries += 1;
                }
                if was_down {
                    self.outboxes.values_mut().for_each(|outbox| outbox.not_before = None);
                }
            }
            PostResult::Busy | PostResult::Failed => {
                let failures = self.receiver.failures + 1;
                let wanted = reply.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
                let not_before = now + pause(failures, RECEIVER_PAUSE_MAX, random).max(wanted);
                let not_before = self.receiver.not_before.max(Some(not_before));
                self.receiver = Receiver { failures, not_before };
            }
        }
    }
}

impl Outbox {
    fn judge(&mut self, reply: Reply, batch: &Batch, deliveries: u64, attempts_max: u32) -> Verdict {
        let result = reply.result();
        if result == PostResult::Delivered {
            return Verdict::Delivered;
        }
        let is_alone = batch.events == 1;
        let others_were_taken = self.failures > 0 && deliveries > self.deliveries;
        self.failures += 1;
        self.deliveries = deliveries;
        match result {
            PostResult::Refused if !is_alone => return Verdict::Alone,
            PostResult::Refused => self.suspicions += 1,
            PostResult::Failed if others_were_taken => self.suspicions += 1,
            _ => {}
        }
        if is_alone && self.suspicions >= attempts_max {
            Verdict::Dead(Refusal { status: reply.status(), attempts: self.failures })
        } else if !is_alone && self.suspicions >= SUSPICIONS_MAX {
            Verdict::Alone
        } else {
            Verdict::Again
        }
    }
}

/// Returns a random pause, with the chance of none at all, so that nobody is hit in step.
fn pause(failures: u32, max: Duration, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (PAUSE_MIN * (1 << doublings)).min(max).mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests::event;
    use super::super::batch::{BatchLimits, pack};
    use super::*;

    const ATTEMPTS_MAX: u32 = 3;

    /// Progress with a clock, and a batch of some events of each outbox.
    struct Case {
        progress: Progress,
        now: Instant,
    }

    impl Case {
        fn new() -> Self {
            Self { progress: Progress::new(ATTEMPTS_MAX), now: Instant::now() }
        }

        /// Posts events of these outboxes, and goes on to the next attempt.
        fn post(&mut self, counts: &[(u16, u64)], reply: Reply) -> Verdict {
            let events =
                counts.iter().flat_map(|(slot, count)| (0..*count).map(|sequence| event(*slot, sequence)));
            let events: Vec<_> = events.collect();
            let limits = BatchLimits { events: 100, bytes: 100_000 };
            let batches = pack(&events, limits, |slot| self.progress.company(slot));
            let batch = &batches[0];
            assert!(batch.last.iter().all(|last| self.progress.is_ready(last.slot, self.now)));
            self.progress.begins(batch);
            assert!(!batch.last.iter().any(|last| self.progress.is_ready(last.slot, self.now)));
            let verdict = self.progress.ends(batch, reply, self.now, 0.5);
            self.now += PAUSE_MAX;
            verdict
        }
    }

    fn status(status: u16) -> Reply {
        Reply::Status { status, retry_after: None }
    }

    #[test]
    fn answers_have_their_result() {
        for (result, statuses) in [
            (PostResult::Delivered, &[200, 201, 202, 204, 299][..]),
            (PostResult::Refused, &[400, 413, 422]),
            (PostResult::Busy, &[429, 503]),
            (
                PostResult::Failed,
                &[100, 301, 302, 304, 401, 403, 404, 405, 408, 410, 500, 501, 502, 504, 599],
            ),
        ] {
            for number in statuses {
                assert_eq!(status(*number).result(), result, "{number}");
            }
        }
        assert_eq!(Reply::NoAnswer.result(), PostResult::Failed);
    }

    #[test]
    fn what_is_delivered_leaves_nothing_behind() {
        let mut case = Case::new();
        assert_eq!(case.post(&[(1, 2), (2, 1)], status(204)), Verdict::Delivered);
        assert!(case.progress.outboxes.is_empty());
        assert_eq!(case.progress.posts_max(case.now), POSTS_MAX);
    }

    #[test]
    fn a_receiver_that_takes_nothing_loses_nothing() {
        for reply in [Reply::NoAnswer, status(500), status(404), status(302), status(503), status(429)] {
            let mut case = Case::new();
            for attempt in 0..50 {
                assert_eq!(case.post(&[(1, 2)], reply), Verdict::Again, "{reply:?} {attempt}");
                assert_eq!(case.post(&[(2, 1)], reply), Verdict::Again, "{reply:?} {attempt}");
            }
            assert!(case.progress.is_receiver_failing());
            // Nor does it when it works again, with an accident.
            assert_eq!(case.post(&[(3, 1)], status(200)), Verdict::Delivered);
            assert_eq!(case.post(&[(1, 2)], Reply::NoAnswer), Verdict::Again);
            assert_eq!(case.post(&[(1, 2)], status(200)), Verdict::Delivered);
            assert_eq!(case.post(&[(2, 1)], status(200)), Verdict::Delivered);
            assert!(case.progress.outboxes.is_empty());
        }
    }

    #[test]
    fn a_refused_event_is_found_and_put_aside() {
        let mut case = Case::new();
        assert_eq!(case.post(&[(1, 3), (2, 1)], status(400)), Verdict::Alone);
        assert_eq!([case.progress.company(1), case.progress.company(2)], [Company::None; 2]);
        assert_eq!(case.post(&[(2, 1)], status(200)), Verdict::Delivered);
        assert_eq!(case.progress.company(2), Company::Any);
        for _ in 1..ATTEMPTS_MAX {
            assert_eq!(case.post(&[(1, 3)], status(400)), Verdict::Again);
            assert_eq!(case.progress.company(1), Company::None);
        }
        let refusal = Refusal { status: 400, attempts: ATTEMPTS_MAX };
        assert_eq!(case.post(&[(1, 3)], status(400)), Verdict::Dead(refusal));
        // The others of the batch are posted alone too.
        assert_eq!(case.progress.company(1), Company::None);
        assert_eq!(case.progress.outboxes[&1].failures, 0);
    }

    #[test]
    fn isolation_ends_with_the_last_event_of_the_batch() {
        let mut case = Case::new();
        assert_eq!(case.post(&[(1, 2)], status(422)), Verdict::Alone);
        let single = |sequence| Batch::single(&event(1, sequence));
        for (sequence, company) in [(0, Company::None), (1, Company::Any)] {
            case.progress.begins(&single(sequence));
            let verdict = case.progress.ends(&single(sequence), status(200), case.now, 0.5);
            assert_eq!((verdict, case.progress.company(1)), (Verdict::Delivered, company));
        }
    }

    #[test]
    fn an_event_that_breaks_the_receiver_is_put_aside_while_others_are_taken() {
        for reply in [status(500), Reply::NoAnswer] {
            let mut case = Case::new();
            let mut verdicts = Vec::new();
            while !matches!(verdicts.last(), Some(Verdict::Dead(_))) {
                verdicts.push(case.post(&[(1, 2)], reply));
                assert_eq!(case.post(&[(2, 1)], status(200)), Verdict::Delivered);
                assert!(verdicts.len() < 20, "{verdicts:?}");
            }
            let (again, alone) = (Verdict::Again, Verdict::Alone);
            let dead = Verdict::Dead(Refusal { status: reply.status(), attempts: 4 });
            assert_eq!(verdicts, [again, again, alone, again, again, again, dead]);
        }
    }

    #[test]
    fn busy_is_no_word_on_the_events() {
        let mut case = Case::new();
        for _ in 0..50 {
            assert_eq!(case.post(&[(1, 1)], status(503)), Verdict::Again);
            assert_eq!(case.post(&[(2, 1)], status(200)), Verdict::Delivered);
        }
    }

    #[test]
    fn pauses_double_and_are_random() {
        for (failures, expected) in [(1, 500), (2, 1000), (3, 2000), (5, 8000), (6, 10_000), (99, 10_000)] {
            assert_eq!(pause(failures, PAUSE_MAX, 1.0), Duration::from_millis(expected));
            assert_eq!(pause(failures, PAUSE_MAX, 0.5), Duration::from_millis(expected / 2));
            assert_eq!(pause(failures, PAUSE_MAX, 0.0), Duration::ZERO);
        }
    }

    #[test]
    fn a_receiver_gets_the_time_that_it_asks_for() {
        let mut case = Case::new();
        for (asked, expected) in [(7, 7), (1_000_000, 3600)] {
            let now = case.now;
            case.post(
                &[(1, 1)],
                Reply::Status { status: 503, retry_after: Some(Duration::from_secs(asked)) },
            );
            let until = now + Duration::from_secs(expected);
            assert_eq!(case.progress.posts_max(until - Duration::from_millis(1)), 0);
            assert_eq!(case.progress.posts_max(until), 1);
            case.now = until + PAUSE_MAX;
        }
        case.post(&[(1, 1)], status(200));
        assert_eq!(case.progress.posts_max(case.now), POSTS_MAX);
    }

    #[test]
    fn after_an_outage_everything_is_posted_at_once() {
        let mut progress = Progress::new(ATTEMPTS_MAX);
        let now = Instant::now();
        let posted = |slot| Batch::single(&event(slot, 0));
        for _ in 0..OUTAGE {
            progress.begins(&posted(1));
            progress.ends(&posted(1), Reply::NoAnswer, now, 0.9);
        }
        assert!(!progress.is_ready(1, now));
        progress.begins(&posted(2));
        progress.ends(&posted(2), status(200), now, 0.9);
        assert!(progress.is_ready(1, now) && !progress.is_receiver_failing());
    }

    #[test]
    fn a_letter_that_is_refused_again_goes_back() {
        let mut progress = Progress::new(ATTEMPTS_MAX);
        let now = Instant::now();
        assert_eq!(progress.ends_letter(status(200), now, 0.5), Verdict::Delivered);
        let dead = |status, attempts| Verdict::Dead(Refusal { status, attempts });
        assert_eq!(progress.ends_letter(status(400), now, 0.5), dead(400, 1));
        for _ in 0..2 {
            assert_eq!(progress.ends_letter(Reply::NoAnswer, now, 0.5), Verdict::Again);
            assert_eq!(progress.ends_letter(status(503), now, 0.5), Verdict::Again);
            assert_eq!(progress.ends_letter(Reply::NoAnswer, now, 0.5), dead(0, 3));
        }
    }
}
