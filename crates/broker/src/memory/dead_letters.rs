//! The dead letters of a node without Redis, bounded in number, bytes and time.

use std::collections::VecDeque;
use std::time::Duration;

use fanwire_protocol::capacity::GiveBack;

use super::event_bytes;
use crate::outbox::{DeadLetter, LetterId, Letters, OutboxOptions, Refusal, StoredEvent};

pub(super) struct DeadLetters {
    options: OutboxOptions,
    /// By their ids, as all letters.
    buried: VecDeque<DeadLetter>,
    /// Those to be posted again.
    retried: VecDeque<DeadLetter>,
    bytes: usize,
    last: LetterId,
}

impl DeadLetters {
    pub(super) fn new(options: OutboxOptions) -> Self {
        let last = LetterId { millis: 0, sequence: 0 };
        Self { options, buried: VecDeque::new(), retried: VecDeque::new(), bytes: 0, last }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns their number, without those to be posted again, and when the oldest was refused.
    pub(super) fn backlog(&self) -> (u64, Option<u64>) {
        (self.buried.len() as u64, self.buried.front().map(|letter| letter.id.millis))
    }

    /// `now` is the time since 1970.
    pub(super) fn bury(&mut self, now: Duration, event: StoredEvent, refusal: Refusal) {
        let id = self.next_id(now);
        self.bytes += event_bytes(&event);
        self.buried.push_back(DeadLetter { id, event, refusal });
        // Live events have the rest of the bytes.
        while self.buried.len() > self.options.dead_letters_max || self.bytes > self.options.bytes_max / 4 {
            if !self.drop_oldest() {
                break;
            }
        }
    }

    pub(super) fn oldest(&self, limit: usize) -> Vec<DeadLetter> {
        self.buried.iter().take(limit).cloned().collect()
    }

    pub(super) fn retried(&self, limit: usize) -> Vec<DeadLetter> {
        self.retried.iter().take(limit).cloned().collect()
    }

    /// Marks letters to be posted again, and returns their number.
    pub(super) fn retry(&mut self, now: Duration, which: &Letters) -> u64 {
        let taken = self.take(which);
        let count = taken.len() as u64;
        for letter in taken {
            let id = self.next_id(now);
            self.retried.push_back(DeadLetter { id, ..letter });
        }
        count
    }

    pub(super) fn remove(&mut self, which: &Letters) -> u64 {
        let taken = self.take(which);
        self.bytes -= taken.iter().map(|letter| event_bytes(&letter.event)).sum::<usize>();
        taken.len() as u64
    }

    /// Ends the retry of a letter, which may have been dropped meanwhile.
    pub(super) fn end_retry(&mut self, id: LetterId) {
        if let Ok(place) = self.retried.binary_search_by_key(&id, |letter| letter.id)
            && let Some(letter) = self.retried.remove(place)
        {
            self.bytes -= event_bytes(&letter.event);
            self.retried.give_back();
        }
    }

    /// Drops those that are too old.
    pub(super) fn tidy(&mut self, now: Duration) {
        let oldest = now.saturating_sub(self.options.dead_letters_ttl).as_millis() as u64;
        for letters in [&mut self.buried, &mut self.retried] {
            while letters.front().is_some_and(|letter| letter.id.millis < oldest)
                && let Some(letter) = letters.pop_front()
            {
                self.bytes -= event_bytes(&letter.event);
            }
            letters.give_back();
        }
    }

    fn take(&mut self, which: &Letters) -> Vec<DeadLetter> {
        let letters = std::mem::take(&mut self.buried);
        match which {
            Letters::All => letters.into(),
            Letters::These(ids) => {
                let mut ids = ids.clone();
                ids.sort_unstable();
                let is_taken = |letter: &DeadLetter| ids.binary_search(&letter.id).is_ok();
                let (taken, kept) = letters.into_iter().partition::<Vec<_>, _>(is_taken);
                self.buried = kept.into();
                taken
            }
        }
    }

    /// Returns false if there is none.
    fn drop_oldest(&mut self) -> bool {
        let letter = self.buried.pop_front().or_else(|| self.retried.pop_front());
        if let Some(letter) = &letter {
            self.bytes -= event_bytes(&letter.event);
        }
        letter.is_some()
    }

    fn next_id(&mut self, now: Duration) -> LetterId {
        let now = now.as_millis() as u64;
        let LetterId { millis, sequence } = self.last;
        // The clock may be set back.
        self.last = if now > millis {
            LetterId { millis: now, sequence: 0 }
        } else {
            LetterId { millis, sequence: sequence + 1 }
        };
        self.last
    }
}
