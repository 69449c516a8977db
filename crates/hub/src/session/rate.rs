//! How fast a client may give commands. A token bucket, in memory that only a client has that gives many.
//!
//! The first commands between two pings are not counted one by one, so a client that gives a few has no bucket. When
//! counting begins they are charged as if all of them had just come.

use super::{Context, Session};

/// Commands between two pings for which no bucket is kept.
const UNCOUNTED_MAX: u64 = 64;

/// A token bucket as the moment at which it is full again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    full_at_nanos: u64,
}

impl Session {
    /// Takes a token for one command. `false`: there is none left, and the command is to be refused.
    pub(super) fn may_command(&mut self, context: &Context<'_>) -> bool {
        let rate = u64::from(context.settings.commands_per_second_max);
        let burst = u64::from(context.settings.commands_burst_max);
        if rate == 0 {
            return true;
        }
        let uncounted_max = UNCOUNTED_MAX.min(burst / 2);
        if u64::from(self.uncounted) < uncounted_max {
            self.uncounted += 1;
            return true;
        }
        let now = nanos(context);
        let token_nanos = 1_000_000_000 / rate.min(1_000_000_000);
        let charged = Bucket { full_at_nanos: now + uncounted_max * token_nanos };
        let bucket = self.work().bucket.get_or_insert(charged);
        let full_at = bucket.full_at_nanos.max(now) + token_nanos;
        let has_token = full_at <= now + burst * token_nanos;
        if has_token {
            bucket.full_at_nanos = full_at;
        }
        has_token
    }

    /// Frees the bucket of a client that has not given many commands lately.
    pub(super) fn rest_bucket(&mut self, context: &Context<'_>) {
        let now = nanos(context);
        if let Some(work) = &mut self.work {
            work.bucket.take_if(|bucket| bucket.full_at_nanos <= now);
        }
        if self.work.as_ref().is_none_or(|work| work.bucket.is_none()) {
            self.uncounted = 0;
            self.rest();
        }
    }
}

fn nanos(context: &Context<'_>) -> u64 {
    context.now.millis.saturating_mul(1_000_000)
}
