//! The figures of hooks. Their names are those of the settings, a closed set.

use std::fmt;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

/// From a backend beside the node to one that is about to time out.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The result of a call, or the reason why it was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookOutcome {
    Ok,
    Error,
    Disconnect,
    Failed,
    Open,
    Late,
    Full,
}

impl HookOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Disconnect => "disconnect",
            Self::Failed => "failed",
            Self::Open => "open",
            Self::Late => "late",
            Self::Full => "full",
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct HookMetrics {
    calls: IntCounterVec,
    seconds: HistogramVec,
    under_way: IntGaugeVec,
    waiting: IntGaugeVec,
    open: IntGaugeVec,
}

impl Default for HookMetrics {
    fn default() -> Self {
        const VALID: &str = "names and labels are constants, and a test makes them all";
        let calls = Opts::new(
            "fanwire_hook_calls_total",
            "Questions to hooks, by their result: the backend's own word is ok, error or disconnect; failed: it gave no \
             answer that can be used. Not called at all: open, as the hook fails too often; late, after wait_max; full, \
             as more than waiting_max wait.",
        );
        let seconds = HistogramOpts::new("fanwire_hook_duration_seconds", "Time that a call of a hook took.");
        let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &["hook"]).expect(VALID);
        Self {
            calls: IntCounterVec::new(calls, &["hook", "event", "result"]).expect(VALID),
            seconds: HistogramVec::new(seconds.buckets(SECONDS.into()), &["hook", "event"]).expect(VALID),
            under_way: gauge("fanwire_hook_calls_under_way", "Calls of a hook that its backend works on."),
            waiting: gauge("fanwire_hook_calls_waiting", "Questions that wait for their call."),
            open: gauge("fanwire_hook_breaker_open", "1 while a hook is not called, as it fails too often."),
        }
    }
}

impl HookMetrics {
    pub(crate) fn count(&self, hook: &str, event: &str, outcome: HookOutcome) {
        self.calls.with_label_values(&[hook, event, outcome.label()]).inc();
    }

    pub(crate) fn took(&self, hook: &str, event: &str, time: Duration) {
        self.seconds.with_label_values(&[hook, event]).observe(time.as_secs_f64());
    }

    pub(crate) fn set(&self, hook: &str, under_way: usize, waiting: usize, is_open: bool) {
        self.under_way.with_label_values(&[hook]).set(under_way as i64);
        self.waiting.with_label_values(&[hook]).set(waiting as i64);
        self.open.with_label_values(&[hook]).set(i64::from(is_open));
    }

    /// Returns the families that have a sample.
    pub(crate) fn collect(&self) -> Vec<MetricFamily> {
        let collectors: [&dyn Collector; 5] =
            [&self.calls, &self.seconds, &self.under_way, &self.waiting, &self.open];
        let families = collectors.into_iter().flat_map(|collector| collector.collect());
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

impl fmt::Debug for HookMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookMetrics").finish_non_exhaustive()
    }
}
