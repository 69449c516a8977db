//! Users that are blocked and tokens that are revoked, each until a time.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use fanwire_hub::TokenPrint;

/// Bytes of all names, with [`ENTRY_BYTES`] for each.
pub(crate) const REVOKED_BYTES_MAX: usize = 16 << 20;

/// The bytes that an entry counts for beside its name.
const ENTRY_BYTES: usize = 96;

/// The user or the token of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revoked<'a> {
    User(&'a str),
    /// By its claim `jti`.
    Token(&'a str),
    /// A token without that claim, by a hash of what is signed.
    Signed(&'a str),
}

/// Its name in the engine.
impl fmt::Display for Revoked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "u:{user}"),
            Self::Token(id) => write!(f, "t:{id}"),
            Self::Signed(hash) => write!(f, "s:{hash}"),
        }
    }
}

/// There is no room for another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Debug)]
pub(crate) struct Revocations {
    /// Nothing was ever entered: the table needs no look.
    is_empty: AtomicBool,
    /// Locked to look an entry up, and to change one.
    entries: RwLock<Entries>,
    /// Makes fingerprints, with a secret of this process.
    prints: RandomState,
}

impl Default for Revocations {
    fn default() -> Self {
        Self { is_empty: AtomicBool::new(true), entries: RwLock::default(), prints: RandomState::new() }
    }
}

#[derive(Debug, Default)]
struct Entries {
    /// The times, in seconds since 1970, by names in the engine; 0 is for ever.
    until: HashMap<Box<str>, i64>,
    bytes: usize,
}

impl Entries {
    fn put(&mut self, name: Box<str>, until: i64, now: i64) -> Result<(), Full> {
        let bytes = name.len() + ENTRY_BYTES;
        if !self.until.contains_key(&name) {
            if self.bytes + bytes > REVOKED_BYTES_MAX {
                self.forget_past(now);
            }
            if self.bytes + bytes > REVOKED_BYTES_MAX {
                return Err(Full);
            }
            self.bytes += bytes;
        }
        self.until.insert(name, until);
        Ok(())
    }

    fn remove(&mut self, name: &str) {
        if self.until.remove(name).is_some() {
            self.bytes -= name.len() + ENTRY_BYTES;
        }
    }

    fn forget_past(&mut self, now: i64) {
        let bytes = &mut self.bytes;
        self.until.retain(|name, until| {
            let is_kept = holds(*until, now);
            *bytes -= if is_kept { 0 } else { name.len() + ENTRY_BYTES };
            is_kept
        });
    }
}

impl Revocations {
    /// Enters a user or token until a time, instead of the time before. `now` is in seconds since 1970.
    pub(crate) fn put(&self, what: Revoked<'_>, until: i64, now: i64) -> Result<(), Full> {
        self.is_empty.store(false, Relaxed);
        self.write().put(what.to_string().into(), until, now)
    }

    pub(crate) fn remove(&self, what: Revoked<'_>) {
        self.write().remove(&what.to_string());
    }

    /// Replaces all entries by those of the engine. Returns the names of those whose time is over.
    pub(crate) fn replace(&self, all: Vec<(Box<str>, i64)>, now: i64) -> Vec<Box<str>> {
        let mut entries = Entries::default();
        let mut past = Vec::new();
        for (name, until) in all {
            if holds(until, now) {
                // More than fit can only be there for a moment, from nodes that wrote at the same time.
                let _ = entries.put(name, until, now);
            } else {
                past.push(name);
            }
        }
        self.is_empty.store(entries.until.is_empty(), Relaxed);
        *self.write() = entries;
        past
    }

    pub(super) fn is_empty(&self) -> bool {
        self.is_empty.load(Relaxed)
    }

    /// Returns the fingerprint of a name on this node.
    pub(crate) fn print(&self, what: Revoked<'_>) -> TokenPrint {
        TokenPrint(self.prints.hash_one(what.to_string()))
    }

    pub(crate) fn has(&self, what: Revoked<'_>, now: i64) -> bool {
        if self.is_empty() {
            return false;
        }
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.until.get(&*what.to_string()).is_some_and(|until| holds(*until, now))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn holds(until: i64, now: i64) -> bool {
    until == 0 || until > now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_hold_until_their_time() {
        let revocations = Revocations::default();
        let (ann, bob, token) = (Revoked::User("ann"), Revoked::User("bob"), Revoked::Token("ann"));
        assert!(!revocations.has(ann, 100));
        revocations.put(ann, 200, 100).unwrap();
        revocations.put(bob, 0, 100).unwrap();
        let has = |now| [ann, bob, token].map(|what| revocations.has(what, now));
        assert_eq!(has(199), [true, true, false]);
        assert_eq!(has(200), [false, true, false]);
        revocations.put(ann, 300, 250).unwrap();
        revocations.put(token, 300, 250).unwrap();
        revocations.remove(bob);
        assert_eq!(has(299), [true, false, true]);
    }

    #[test]
    fn what_the_engine_has_replaces_all_and_what_is_over_is_told() {
        let revocations = Revocations::default();
        revocations.put(Revoked::User("old"), 0, 100).unwrap();
        let all = vec![("u:ann".into(), 0), ("t:1".into(), 100), ("t:2".into(), 101)];
        assert_eq!(revocations.replace(all, 100), [Box::<str>::from("t:1")]);
        let has = |what| revocations.has(what, 100);
        assert!(has(Revoked::User("ann")) && has(Revoked::Token("2")));
        assert!(!has(Revoked::User("old")) && !has(Revoked::Token("1")));
    }

    #[test]
    fn names_are_bounded_in_bytes_and_those_whose_time_is_over_give_way() {
        let revocations = Revocations::default();
        let long = |number: usize| format!("{number:01000}");
        let count = REVOKED_BYTES_MAX / (1002 + ENTRY_BYTES);
        for number in 0..count {
            revocations.put(Revoked::User(&long(number)), 200, 100).unwrap();
        }
        assert_eq!(revocations.put(Revoked::User(&long(count)), 300, 199), Err(Full));
        assert_eq!(revocations.put(Revoked::User(&long(0)), 300, 199), Ok(()), "it is there already");
        assert_eq!(revocations.put(Revoked::User(&long(count)), 300, 200), Ok(()));
        assert_eq!(revocations.entries.read().unwrap().until.len(), 2);
        revocations.remove(Revoked::User(&long(0)));
        revocations.remove(Revoked::User(&long(count)));
        assert_eq!(revocations.entries.read().unwrap().bytes, 0);
    }
}
