//! The askers whose questions to other nodes wait for answers, by number.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fanwire_protocol::capacity::GiveBack;

#[derive(Debug)]
pub(super) struct Askers<T>(Mutex<HashMap<u64, T>>);

impl<T> Default for Askers<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Askers<T> {
    /// Enters an asker for as long as the result lives.
    pub(super) fn enter(&self, number: u64, asker: T) -> Entered<'_, T> {
        self.lock().insert(number, asker);
        Entered { askers: self, number }
    }

    /// Takes an asker out, whom nothing else is told.
    pub(super) fn take(&self, number: u64) -> Option<T> {
        let mut askers = self.lock();
        let asker = askers.remove(&number);
        askers.give_back();
        asker
    }

    /// Calls back with the asker, if it still waits.
    pub(super) fn tell(&self, number: u64, with: impl FnOnce(&T)) {
        if let Some(asker) = self.lock().get(&number) {
            with(asker);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An asker that waits. Dropped, it no longer does.
#[derive(Debug)]
pub(super) struct Entered<'a, T> {
    askers: &'a Askers<T>,
    number: u64,
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        self.askers.take(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asker_waits_no_longer_than_its_entry() {
        let askers = Askers::default();
        let entered = askers.enter(1, "asker");
        let mut told = 0;
        askers.tell(1, |asker| told += asker.len());
        askers.tell(2, |_| panic!("nobody has this number"));
        drop(entered);
        askers.tell(1, |_| panic!("it no longer waits"));
        assert_eq!(told, "asker".len());

        let _entered = askers.enter(3, "taken");
        assert_eq!(askers.take(3), Some("taken"));
        assert_eq!(askers.take(3), None);
    }
}
