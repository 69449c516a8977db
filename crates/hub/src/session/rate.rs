//! The rate at which a client, and where that is set a user, may make requests. A token bucket, in memory that only
//! those have who make many.
//!
//! The first requests between two pings are not counted one by one, so a client that makes a few has no bucket. When
//! counting begins they are charged as if all of them had just come.

use std::collections::HashMap;

use fanwire_protocol::capacity::GiveBack;

use super::{Context, Now, Session};
use crate::ClientSettings;

/// Requests between two pings for which no bucket is kept.
const UNCOUNTED_MAX: u64 = 64;

/// A token bucket as the moment at which it is full again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    full_at_nanos: u64,
}

/// Tokens that come in a second, and those that a bucket holds.
#[derive(Clone, Copy)]
struct RateLimit {
    per_second: u64,
    burst: u64,
}

/// The buckets of those who made requests lately, by their names.
#[derive(Debug, Default)]
pub struct Rates(HashMap<Box<str>, Bucket>);

impl RateLimit {
    /// The limit of one client.
    fn of_client(settings: &ClientSettings) -> Self {
        Self {
            per_second: settings.commands_per_second_max.into(),
            burst: settings.commands_burst_max.into(),
        }
    }

    fn token_nanos(self) -> u64 {
        1_000_000_000 / self.per_second.min(1_000_000_000)
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
        let limit = RateLimit {
            per_second: settings.user_commands_per_second_max.into(),
            burst: settings.commands_burst_max.into(),
        };
        // Anonymous clients are nobody's.
        limit.per_second == 0 || user.is_empty() || self.take(user, now, limit)
    }

    /// Takes a token for one request without a session, at the rate of a session. `false`: there is none left, and the
    /// request is to be refused.
    pub fn may_request_alone(&mut self, name: &str, settings: &ClientSettings, now: Now) -> bool {
        let limit = RateLimit::of_client(settings);
        limit.per_second == 0 || self.take(name, now, limit)
    }

    fn take(&mut self, name: &str, now: Now, limit: RateLimit) -> bool {
        let now = nanos(now);
        if let Some(bucket) = self.0.get_mut(name) {
            return bucket.take(now, limit);
        }
        self.0.entry(name.into()).or_insert(Bucket::full(now)).take(now, limit)
    }

    /// Forgets those who may give a whole burst again, and gives their memory back.
    pub fn sweep(&mut self, now: Now) {
        let now = nanos(now);
        self.0.retain(|_, bucket| bucket.full_at_nanos > now);
        self.0.give_back();
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
        assert_eq!(rates.0.len(), 0);
    }

    #[test]
    fn a_table_of_one_user_is_kept_as_it_is() {
        let limit = RateLimit { per_second: 1, burst: 10 };
        let now = Now { millis: 0, unix_millis: 0 };
        let mut rates = Rates::default();
        rates.0.reserve(20);
        assert!(rates.take("42", now, limit));
        let capacity = rates.0.capacity();
        for _ in 0..3 {
            rates.sweep(now);
            assert_eq!((rates.0.len(), rates.0.capacity()), (1, capacity));
        }
    }
}
