//! Sessions that wait for keys of an identity provider.

use fanwire_hub::KeyFetch;
use fanwire_hub::effect::ConnectionKey;
use fanwire_protocol::capacity::GiveBack;

use crate::auth::KEYS_PATIENCE;

/// One question of a session that waits.
#[derive(Debug)]
pub(super) struct KeyWait {
    keys: KeyFetch,
    pub(super) connection: ConnectionKey,
    /// The session's number for it.
    pub(super) number: u32,
    until_millis: u64,
}

/// A session asks no more at a time than it may ask of hooks.
#[derive(Debug, Default)]
pub(super) struct KeyWaits(Vec<KeyWait>);

impl KeyWaits {
    pub(super) fn enter(&mut self, keys: KeyFetch, connection: ConnectionKey, number: u32, now_millis: u64) {
        let until_millis = now_millis + KEYS_PATIENCE.as_millis() as u64;
        self.0.push(KeyWait { keys, connection, number, until_millis });
    }

    /// Takes those that wait for keys whose fetch has ended.
    pub(super) fn take_fetched(&mut self, keys: KeyFetch) -> Vec<KeyWait> {
        self.take(|wait| wait.keys == keys)
    }

    /// Takes those that have waited for too long.
    pub(super) fn take_late(&mut self, now_millis: u64) -> Vec<KeyWait> {
        self.take(|wait| wait.until_millis <= now_millis)
    }

    fn take(&mut self, is_over: impl Fn(&KeyWait) -> bool) -> Vec<KeyWait> {
        let taken = self.0.extract_if(.., |wait| is_over(wait)).collect();
        self.0.give_back();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_wait_for_their_keys_and_not_for_ever() {
        let mut waits = KeyWaits::default();
        for number in 0..4 {
            let connection = ConnectionKey { slot: number, generation: 0 };
            waits.enter(KeyFetch(u64::from(number % 2)), connection, number, u64::from(number));
        }
        let numbers = |taken: Vec<KeyWait>| taken.iter().map(|wait| wait.number).collect::<Vec<_>>();
        assert_eq!(numbers(waits.take_fetched(KeyFetch(7))), [0; 0]);
        assert_eq!(numbers(waits.take_fetched(KeyFetch(1))), [1, 3]);
        let patience = KEYS_PATIENCE.as_millis() as u64;
        assert_eq!(numbers(waits.take_late(patience - 1)), [0; 0]);
        assert_eq!(numbers(waits.take_late(patience)), [0]);
        assert_eq!(numbers(waits.take_late(patience + 2)), [2]);
    }
}
