//! Keys of identity providers: a key set for each address, kept for a while and fetched again (RFC 7517).
//!
//! Whoever verifies a token never waits: a key that is not there is asked for, and the token is refused for now, with an
//! error after which clients try again. [`KeySets::awaited`] tells before whether a fetch may bring the key, so that a
//! client can wait for it. So that invented names of keys cost little, a set is fetched at most once in
//! `refresh_min`, and a name that the last fetch did not bring is refused for good until the next.

mod fetch;
mod key_set;
mod template;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use fanwire_hub::{KeyFetch, TokenError};
use jsonwebtoken::Algorithm;
use regex::Regex;
use tokio::sync::Notify;

use super::problem::KeyProblem;
use crate::backend::{BackendTls, BackendUrl};
use crate::condition::Condition;
use crate::counters::Counter;
use crate::settings::KeySetSettings;
pub(crate) use fetch::follow;
use key_set::KeySet;
pub(super) use template::Groups;
use template::Template;

/// Addresses of which sets are kept.
const URLS_MAX: usize = 64;

/// Names of keys that are remembered of an address until its next fetch.
const NAMES_MAX: usize = 1000;

/// A longer name is invalid.
const KID_BYTES_MAX: usize = 512;

/// A set is fetched again when this part of its time is over.
const REFRESH_AT: f64 = 0.75;

/// The key sets of one section of the settings.
#[derive(Debug)]
pub(crate) struct KeySets {
    settings: KeySetSettings,
    template: Template,
    tls: Option<BackendTls>,
    /// Locked to look one up, to ask for one, and when one was fetched.
    sources: RwLock<HashMap<Arc<str>, Source>>,
    /// A set is wanted.
    wanted: Notify,
    /// A set was fetched, or could not be.
    fetched: Condition,
    counters: FetchCounters,
}

#[derive(Debug, Default)]
struct FetchCounters {
    complete: Counter,
    failed: Counter,
}

/// For metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeySetStats {
    pub(crate) fetched: u64,
    pub(crate) failed: u64,
    /// The age of the oldest set.
    pub(crate) age: Duration,
}

/// A key in its set.
pub(super) struct FoundKey {
    set: Arc<KeySet>,
    kid: Box<str>,
}

impl FoundKey {
    /// Fails unless the key made `signature` over `message`.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> Result<(), TokenError> {
        let is_verified = self.set.verifies(&self.kid, algorithm, message, signature);
        is_verified.then_some(()).ok_or(TokenError::Invalid(
            "its signature is not by the provider's key of that name (`kid`) with that algorithm",
        ))
    }
}

/// The number of a source, which no other of this process has.
#[derive(Debug)]
struct SourceNumber(KeyFetch);

impl Default for SourceNumber {
    fn default() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(KeyFetch(LAST.fetch_add(1, Relaxed)))
    }
}

/// What is known of one address.
#[derive(Debug, Default)]
struct Source {
    number: SourceNumber,
    /// The last set, and when it was fetched.
    set: Option<(Arc<KeySet>, Instant)>,
    /// When the last fetch began.
    attempted: Option<Instant>,
    is_wanted: bool,
    /// Names that are looked for by the next fetch, and by the one under way.
    sought: HashSet<Box<str>>,
    asked: HashSet<Box<str>>,
    /// Names that the last fetch was to bring, and did not.
    absent: HashSet<Box<str>>,
}

impl Source {
    /// Returns the set if it is not too old.
    fn set(&self, stale_max: Duration, now: Instant) -> Option<&Arc<KeySet>> {
        let (set, fetched) = self.set.as_ref()?;
        (now.saturating_duration_since(*fetched) < stale_max).then_some(set)
    }

    fn may_fetch(&self, refresh_min: Duration, now: Instant) -> bool {
        self.attempted.is_none_or(|attempted| now.saturating_duration_since(attempted) >= refresh_min)
    }

    /// Asks for the set if it may be fetched, or is wanted already. Returns true if this name will be looked for.
    fn seek(&mut self, kid: &str, refresh_min: Duration, now: Instant) -> bool {
        self.is_wanted = self.is_wanted || self.may_fetch(refresh_min, now);
        if self.is_wanted && self.sought.len() < NAMES_MAX {
            self.sought.insert(kid.into());
        }
        self.is_wanted
    }

    fn begin_fetch(&mut self, now: Instant) {
        self.is_wanted = true;
        self.attempted = Some(now);
        self.asked = std::mem::take(&mut self.sought);
    }

    fn fetched(&mut self, set: Option<KeySet>, now: Instant) {
        self.is_wanted = false;
        let asked = std::mem::take(&mut self.asked);
        if let Some(set) = set {
            self.absent = asked.into_iter().filter(|kid| !set.has(kid)).collect();
            self.set = Some((Arc::new(set), now));
        }
    }

    /// The instant from which the set is to be fetched, though nobody asks for it.
    fn due(&self, settings: &KeySetSettings) -> Option<Instant> {
        let (_, fetched) = self.set.as_ref()?;
        let due = *fetched + settings.ttl.mul_f64(REFRESH_AT);
        Some(self.attempted.map_or(due, |attempted| due.max(attempted + settings.refresh_min)))
    }
}

impl KeySets {
    /// `patterns` are those of the issuer and the audience. A mistake comes with the name of the setting.
    pub(super) fn new(
        settings: &KeySetSettings,
        patterns: &[&Regex],
    ) -> Result<Self, (&'static str, KeyProblem)> {
        let of_url = |problem| ("jwks_url", problem);
        let template = Template::new(&settings.url, patterns).map_err(of_url)?;
        let url = BackendUrl::parse(&template.example()).map_err(|error| of_url(error.into()))?;
        let tls = url.is_https().then(|| BackendTls::new(&settings.tls, url.host())).transpose();
        let tls = tls.map_err(|error| ("jwks_ca_file", KeyProblem::Tls(error.problem.to_string())))?;
        let mut sources: HashMap<Arc<str>, Source> = HashMap::new();
        if let Some(url) = template.fixed() {
            sources.insert(url.into(), Source { is_wanted: true, ..Source::default() });
        }
        Ok(Self {
            settings: settings.clone(),
            template,
            tls,
            sources: RwLock::new(sources),
            wanted: Notify::new(),
            fetched: Condition::default(),
            counters: FetchCounters::default(),
        })
    }

    /// Returns the provider's key of a name. `groups` are what the patterns matched in the token's issuer and audience.
    pub(super) fn find(&self, groups: &Groups, kid: Option<&str>) -> Result<FoundKey, TokenError> {
        let kid = kid.filter(|kid| kid.len() <= KID_BYTES_MAX);
        let kid = kid.ok_or(TokenError::Invalid("its header names no key (`kid`)"))?;
        let url = self
            .template
            .fill(groups)
            .ok_or(TokenError::Invalid("its issuer or audience does not give the address of a key set"))?;
        Ok(FoundKey { set: self.find_set(&url, kid, Instant::now())?, kid: kid.into() })
    }

    /// Returns the fetch that may bring the key, if it is not there yet: one that is under way, or is asked for by this.
    pub(super) fn awaited(&self, groups: &Groups, kid: &str) -> Option<KeyFetch> {
        let kid = Some(kid).filter(|kid| kid.len() <= KID_BYTES_MAX)?;
        self.await_set(&self.template.fill(groups)?, kid, Instant::now())
    }

    fn await_set(&self, url: &str, kid: &str, now: Instant) -> Option<KeyFetch> {
        match self.find_set(url, kid, now) {
            Err(TokenError::Unavailable) => {}
            Ok(_) | Err(_) => return None,
        }
        let sources = self.read();
        sources.get(url).filter(|source| source.is_wanted).map(|source| source.number.0)
    }

    /// Waits until the fetch of these keys has ended. Returns at the deadline at the latest.
    pub(super) async fn wait_for(&self, keys: KeyFetch, deadline: tokio::time::Instant) {
        let is_over = || !self.read().values().any(|source| source.number.0 == keys && source.is_wanted);
        self.fetched.wait_until(deadline, is_over).await;
    }

    /// Returns a set that has the key.
    fn find_set(&self, url: &str, kid: &str, now: Instant) -> Result<Arc<KeySet>, TokenError> {
        let KeySetSettings { refresh_min, stale_max, .. } = self.settings;
        if let Some(source) = self.read().get(url) {
            if let Some(set) = source.set(stale_max, now).filter(|set| set.has(kid)) {
                return Ok(set.clone());
            }
            if !source.is_wanted && !source.may_fetch(refresh_min, now) {
                return Err(match source.absent.contains(kid) {
                    true => TokenError::Invalid("the provider has no key of its name (`kid`)"),
                    false => TokenError::Unavailable,
                });
            }
        }
        let mut sources = self.write();
        if !sources.contains_key(url) && !has_room(&mut sources, refresh_min, now) {
            return Err(TokenError::Unavailable);
        }
        if sources.entry(url.into()).or_default().seek(kid, refresh_min, now) {
            self.wanted.notify_one();
        }
        Err(TokenError::Unavailable)
    }

    /// Waits until a set is to be fetched and returns its address: those that were there before go first.
    async fn next(&self) -> Arc<str> {
        loop {
            let now = Instant::now();
            let due = {
                let mut sources = self.write();
                let due_of = |source: &Source| match source.is_wanted {
                    true => Some(now),
                    false => source.due(&self.settings),
                };
                let first = sources
                    .iter_mut()
                    .filter_map(|(url, source)| Some((due_of(source)?, source.set.is_none(), url, source)))
                    .min_by_key(|(due, is_new, ..)| (*due, *is_new));
                match first {
                    Some((due, _, url, source)) if due <= now => {
                        source.begin_fetch(now);
                        return url.clone();
                    }
                    first => first.map(|(due, ..)| due),
                }
            };
            match due {
                None => self.wanted.notified().await,
                Some(due) => {
                    let _ = tokio::time::timeout_at(due.into(), self.wanted.notified()).await;
                }
            }
        }
    }

    /// Takes the result of a fetch, and returns its number.
    fn fetched(&self, url: &str, set: Option<KeySet>) -> Option<KeyFetch> {
        let counter = if set.is_some() { &self.counters.complete } else { &self.counters.failed };
        counter.add(1);
        let number = self.write().get_mut(url).map(|source| {
            source.fetched(set, Instant::now());
            source.number.0
        });
        self.fetched.notify();
        number
    }

    /// Adds this section's figures.
    pub(crate) fn count(&self, stats: &mut KeySetStats) {
        stats.fetched += self.counters.complete.value();
        stats.failed += self.counters.failed.value();
        let ages = self.read().values().filter_map(|source| Some(source.set.as_ref()?.1.elapsed())).max();
        stats.age = stats.age.max(ages.unwrap_or_default());
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Arc<str>, Source>> {
        self.sources.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Arc<str>, Source>> {
        self.sources.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for one more address. Only one that has brought no set gives way: tokens may name any.
fn has_room(sources: &mut HashMap<Arc<str>, Source>, refresh_min: Duration, now: Instant) -> bool {
    if sources.len() < URLS_MAX {
        return true;
    }
    let is_useless =
        |source: &Source| source.set.is_none() && !source.is_wanted && source.may_fetch(refresh_min, now);
    let useless = sources.iter().find(|(_, source)| is_useless(source)).map(|(url, _)| url.clone());
    useless.is_some_and(|url| sources.remove(&url).is_some())
}

#[cfg(test)]
mod tests;
