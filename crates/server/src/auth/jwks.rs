//! Keys of identity providers: a key set for each address, kept for a while and fetched again (RFC 7517).
//!
//! Whoever verifies a token never waits: a key that is not there is asked for, and the token is refused for now, with an
//! error after which clients try again. So that invented names of keys cost little, a set is fetched at most once in
//! `refresh_min`, and a name that the last fetch did not bring is refused for good until the next.

mod fetch;
mod key_set;
mod template;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use fanwire_hub::TokenError;
use jsonwebtoken::Algorithm;
use regex::Regex;
use tokio::sync::Notify;

use super::problem::KeyProblem;
use crate::backend::{BackendTls, BackendUrl};
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

/// What is known of one address.
#[derive(Debug, Default)]
struct Source {
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

    fn fetched(&self, url: &str, set: Option<KeySet>) {
        let counter = if set.is_some() { &self.counters.complete } else { &self.counters.failed };
        counter.add(1);
        if let Some(source) = self.write().get_mut(url) {
            source.fetched(set, Instant::now());
        }
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
