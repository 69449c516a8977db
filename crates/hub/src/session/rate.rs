//! The rate at which a client, and where that is set a user, may make requests. A token bucket, in memory that only
//! those have who make many.
//!
//! The first requests between two pings are not counted one by one, so a client that makes a few has no bucket. When
//! counting begins they are charged as if all of them had just come.

use std::collections::HashMap;
use std::time::Duration;

use fanwire_protocol::capacity::GiveBack;

use super::{Context, Now, Session};
use crate::ClientSettings;

/// Requests between two pings for which no bucket is kept.
const UNCOUNTED_MAX: u64 = 64;

/// The part of the limit that one may use on each shard without being counted together.
const QUIET_DIVISOR: u64 = 8;

/// A token bucket as the moment at which it is full again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    full_at_nanos: u64,
}

/// Tokens that come in a second, and those that a bucket holds.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    per_second: u64,
    burst: u64,
    /// Nodes count together.
    is_shared: bool,
}

/// The buckets of those who made requests lately, by their names.
///
/// Where nodes count together, each has its own buckets, and what the busy take from them is charged to a bucket that all
/// share. Its debt becomes that of each of the others: nobody waits for that when a request comes.
#[derive(Debug, Default)]
pub struct Rates {
    buckets: HashMap<Box<str>, Counted>,
    /// Those who took enough for others to be told.
    busy: Vec<Box<str>>,
}

#[derive(Debug)]
struct Counted {
    bucket: Bucket,
    /// Tokens of which others were not told.
    taken: u32,
    is_busy: bool,
}

impl RateLimit {
    /// The limit of one client.
    fn of_client(settings: &ClientSettings) -> Self {
        Self {
            per_second: settings.commands_per_second_max.into(),
            burst: settings.commands_burst_max.into(),
            is_shared: false,
        }
    }

    /// The limit of all clients of one user.
    pub fn of_user(settings: &ClientSettings) -> Self {
        Self {
            per_second: settings.user_commands_per_second_max.into(),
            burst: settings.commands_burst_max.into(),
            is_shared: settings.cluster_rates,
        }
    }

    /// The limit on new connections of one address.
    pub fn of_address(settings: &ClientSettings) -> Self {
        let per_second = settings.address_connects_per_second_max.into();
        Self { per_second, burst: per_second, is_shared: settings.cluster_rates }
    }

    fn token_nanos(self) -> u64 {
        1_000_000_000 / self.per_second.clamp(1, 1_000_000_000)
    }

    /// The time in which a token comes back.
    pub fn token(self) -> Duration {
        Duration::from_nanos(self.token_nanos())
    }

    /// The time in which a bucket fills that several have emptied at once. Whoever did that waits no longer.
    pub fn debt_max(self) -> Duration {
        Duration::from_nanos(self.token_nanos().saturating_mul(2 * self.burst))
    }

    /// The tokens of a second of which others are not told.
    fn quiet_max(self) -> u64 {
        self.per_second / QUIET_DIVISOR
    }
}

impl Counted {
    fn full(now_nanos: u64) -> Self {
        Self { bucket: Bucket::full(now_nanos), taken: 0, is_busy: false }
    }
}

impl Bucket {
    fn full(now_nanos: u64) -> Self {
        Self { full_at_nanos: now_nanos }
    }

    /// Takes a token; `false` if there is none.
    fn take(&mut self, now_nanos: u64, limit: RateLimit) -> bool {
        let full_at = self.full_at_nanos.max(now_nanos) + limit.token_nanos();
        let has_token = full_at <= now_nanos + limit.burst * limit.token_nanos();
        if has_token {
            self.full_at_nanos = full_at;
        }
        has_token
    }
}

impl Rates {
    /// Takes a token for one request of a user, where `user_commands_per_second_max` is set. `false`: there is none left,
    /// and the request is to be refused.
    pub fn may_request(&mut self, user: &str, settings: &ClientSettings, now: Now) -> bool {
        let limit = RateLimit::of_user(settings);
        // Anonymous clients are nobody's.
        limit.per_second == 0 || user.is_empty() || self.take(user, now, limit)
    }

    /// Takes a token for one request without a session, at the rate of a session. `false`: there is none left, and the
    /// request is to be refused.
    pub fn may_request_alone(&mut self, name: &str, settings: &ClientSettings, now: Now) -> bool {
        let limit = RateLimit::of_client(settings);
        limit.per_second == 0 || self.take(name, now, limit)
    }

    /// Takes a token for a new connection of an address, where `address_connects_per_second_max` is set. `false`: there is
    /// none left, and the connection is to be refused.
    pub fn may_connect(&mut self, address: &str, settings: &ClientSettings, now: Now) -> bool {
        let limit = RateLimit::of_address(settings);
        limit.per_second == 0 || self.take(address, now, limit)
    }

    fn take(&mut self, name: &str, now: Now, limit: RateLimit) -> bool {
        let now = nanos(now);
        let counted = match self.buckets.get_mut(name) {
            Some(counted) => counted,
            None => self.buckets.entry(name.into()).or_insert(Counted::full(now)),
        };
        let has_token = counted.bucket.take(now, limit);
        if has_token && limit.is_shared {
            counted.taken = counted.taken.saturating_add(1);
            if !counted.is_busy && u64::from(counted.taken) > limit.quiet_max() {
                counted.is_busy = true;
                self.busy.push(name.into());
            }
        }
        has_token
    }

    /// Takes out the tokens of those who took many of late, for others to be told: of at most so many of them.
    pub fn take_busy(&mut self, max: usize) -> Vec<(Box<str>, u32)> {
        let mut taken = Vec::new();
        for name in self.busy.drain(..max.min(self.busy.len())) {
            if let Some(counted) = self.buckets.get_mut(&name) {
                counted.is_busy = false;
                taken.push((name, std::mem::take(&mut counted.taken)));
            }
        }
        self.busy.give_back();
        taken
    }

    /// Learns that the bucket which all share is full again after this time.
    pub fn adopt(&mut self, name: &str, debt: Duration, limit: RateLimit, now: Now) {
        let now = nanos(now);
        let full_at = |taken: u32| now + debt.as_nanos() as u64 + u64::from(taken) * limit.token_nanos();
        match self.buckets.get_mut(name) {
            // Nobody was told yet of what was taken since.
            Some(Counted { bucket, taken, .. }) => {
                bucket.full_at_nanos = bucket.full_at_nanos.max(full_at(*taken));
            }
            None => {
                self.buckets.insert(name.into(), Counted::full(full_at(0)));
            }
        }
    }

    /// Forgets those who may give a whole burst again, and gives their memory back. Call it every second: what the quiet
    /// took since then is not told to others.
    pub fn sweep(&mut self, now: Now) {
        let now = nanos(now);
        self.buckets.retain(|_, counted| {
            if !counted.is_busy {
                counted.taken = 0;
            }
            counted.bucket.full_at_nanos > now || counted.is_busy
        });
        self.buckets.give_back();
    }
}

impl Session {
    /// Takes a token for one request. `false`: there is none left, and the request is to be refused.
    pub fn may_request(&mut self, context: &mut Context<'_>) -> bool {
        self.has_token(context)
            && context.user_rates.may_request(self.asking_user(), context.settings, context.now)
    }

    fn has_token(&mut self, context: &Context<'_>) -> bool {
        let limit = RateLimit::of_client(context.settings);
        if limit.per_second == 0 {
            return true;
        }
        let uncounted_max = UNCOUNTED_MAX.min(limit.burst / 2);
        if u64::from(self.uncounted) < uncounted_max {
            self.uncounted += 1;
            return true;
        }
        let now = nanos(context.now);
        let charged = Bucket { full_at_nanos: now + uncounted_max * limit.token_nanos() };
        self.work().bucket.get_or_insert(charged).take(now, limit)
    }

    /// Frees the bucket of a client that has not made many requests lately.
    pub(super) fn rest_bucket(&mut self, context: &Context<'_>) {
        if let Some(work) = &mut self.work {
            work.bucket.take_if(|bucket| bucket.full_at_nanos <= nanos(context.now));
        }
        if self.work.as_ref().is_none_or(|work| work.bucket.is_none()) {
            self.uncounted = 0;
            self.rest();
        }
    }
}

fn nanos(now: Now) -> u64 {
    now.millis.saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_without_a_session_have_the_rate_of_one() {
        let mut settings = ClientSettings { commands_per_second_max: 10, ..ClientSettings::default() };
        settings.commands_burst_max = 3;
        let at = |millis| Now { millis, unix_millis: 0 };
        let mut rates = Rates::default();
        let mut may = |name: &str, millis| rates.may_request_alone(name, &settings, at(millis));
        assert_eq!([0; 5].map(|millis| may("a", millis)), [true, true, true, false, false]);
        assert!(may("b", 0), "each has a bucket");
        assert_eq!([100; 2].map(|millis| may("a", millis)), [true, false]);
        settings.commands_per_second_max = 0;
        let mut rates = Rates::default();
        assert!((0..1000).all(|_| rates.may_request_alone("a", &settings, at(0))));
        assert_eq!(rates.buckets.len(), 0);
    }

    /// The bucket that all share.
    #[derive(Default)]
    struct Shared {
        full_at: Duration,
    }

    impl Shared {
        fn charge(&mut self, taken: u32, limit: RateLimit, now: Duration) -> Duration {
            let debt = self.full_at.saturating_sub(now) + limit.token() * taken;
            let debt = debt.min(limit.debt_max());
            self.full_at = now + debt;
            debt
        }
    }

    /// Returns how many requests of one user the nodes serve in 20 seconds, each being asked `asked` times in 10 ms, and how
    /// many charges there are.
    fn served(nodes: usize, asked: usize, cluster_rates: bool) -> (usize, usize) {
        let mut settings =
            ClientSettings { user_commands_per_second_max: 100, cluster_rates, ..Default::default() };
        settings.commands_burst_max = 200;
        let limit = RateLimit::of_user(&settings);
        let mut all: Vec<_> = (0..nodes).map(|_| Rates::default()).collect();
        let (mut shared, mut served, mut charges) = (Shared::default(), 0, 0);
        for millis in (0..20_000).step_by(10) {
            let now = Now { millis, unix_millis: 0 };
            for (number, rates) in all.iter_mut().enumerate() {
                served += (0..asked).filter(|_| rates.may_request("a", &settings, now)).count();
                // Each at its own moment.
                if (millis + 70 * number as u64).is_multiple_of(250) {
                    for (name, taken) in rates.take_busy(10) {
                        charges += 1;
                        let debt = shared.charge(taken, limit, Duration::from_millis(millis));
                        rates.adopt(&name, debt, limit, now);
                    }
                }
                if millis.is_multiple_of(1000) {
                    rates.sweep(now);
                }
            }
        }
        (served, charges)
    }

    #[test]
    fn nodes_that_count_together_serve_little_more_than_one() {
        let (alone, _) = served(1, 10, false);
        // The last token comes at the end, when nobody asks any more.
        assert_eq!(alone, 200 + 2000 - 1);
        for nodes in 1..=4 {
            assert_eq!(served(nodes, 10, false).0, nodes * alone);
            let (served, charges) = served(nodes, 10, true);
            // Each gives a burst before it knows of the others, and then what it takes before it is told.
            let overshoot = (nodes - 1) * 200 + nodes * 100 / 4;
            // What was taken before the first charge counts as if all of it had come then.
            let least = alone - 100 / 4;
            assert!((least..=alone + overshoot).contains(&served), "{nodes}: {served}");
            assert!(charges <= nodes * 80, "{nodes}: {charges}");
        }
    }

    #[test]
    fn others_are_told_of_the_busy_alone() {
        let settings =
            ClientSettings { user_commands_per_second_max: 80, cluster_rates: true, ..Default::default() };
        let limit = RateLimit::of_user(&settings);
        let at = |millis| Now { millis, unix_millis: 0 };
        let mut rates = Rates::default();
        for second in 0..10 {
            assert!((0..10).all(|_| rates.may_request("quiet", &settings, at(second * 1000))));
            assert_eq!(rates.take_busy(1), [], "an eighth of the limit");
            rates.sweep(at(second * 1000));
        }
        for name in ["a", "b", "c"] {
            assert!((0..11).all(|_| rates.may_request(name, &settings, at(20_000))));
        }
        assert_eq!(rates.take_busy(2), [("a".into(), 11), ("b".into(), 11)]);
        // The bucket is full again, and what was taken from it is not told yet.
        rates.sweep(at(30_000));
        assert_eq!(rates.take_busy(2), [("c".into(), 11)]);
        assert_eq!(rates.take_busy(2), []);
        // What is taken while others are told comes on top.
        assert!((0..80).all(|_| rates.may_request("a", &settings, at(30_000))));
        rates.adopt("a", limit.token() * (2000 - 80), limit, at(30_000));
        assert!(!rates.may_request("a", &settings, at(30_000)));
        // One who was never here.
        rates.adopt("d", limit.token() * 2000, limit, at(30_000));
        assert!(!rates.may_request("d", &settings, at(30_000)));
        assert!(rates.may_request("d", &settings, at(31_000)));
    }

    #[test]
    fn a_table_of_one_user_is_kept_as_it_is() {
        let limit = RateLimit { per_second: 1, burst: 10, is_shared: false };
        let now = Now { millis: 0, unix_millis: 0 };
        let mut rates = Rates::default();
        rates.buckets.reserve(20);
        assert!(rates.take("42", now, limit));
        let capacity = rates.buckets.capacity();
        for _ in 0..3 {
            rates.sweep(now);
            assert_eq!((rates.buckets.len(), rates.buckets.capacity()), (1, capacity));
        }
    }
}
