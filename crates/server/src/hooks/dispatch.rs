//! The task of a hook: it lets questions wait, calls the backend for as many as may be called at a time, and hands the
//! answers to those who asked.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use fanwire_hub::hook::HookDenial;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::breaker::Pass;
use super::call::{CallEnd, call};
use super::queue::{NoCall, Queue, Turn};
use super::{Asker, Call, Hook, Outcome};
use crate::inbox::Inboxes;
use crate::metrics::HookOutcome;

/// The interval at which calls that wait too long, or for nobody, and connections that are not used are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// A call under way has ended. Its result is counted before it is told, so that nobody who was answered is let through
/// by a breaker that has not heard of the answer.
struct Ended {
    pass: Option<Pass>,
    is_success: bool,
    from: Asker,
    number: u32,
    outcome: Outcome,
}

struct Dispatcher {
    hook: Arc<Hook>,
    inboxes: Inboxes,
    queue: Queue<Call>,
    under_way: JoinSet<Ended>,
}

/// Runs for as long as the node.
pub(super) async fn run(hook: Arc<Hook>, mut calls: mpsc::UnboundedReceiver<Call>, inboxes: Inboxes) {
    let settings = &hook.settings;
    let queue = Queue::new(settings.requests_max, settings.wait_max, settings.breaker, Instant::now());
    let mut dispatcher = Dispatcher { hook, inboxes, queue, under_way: JoinSet::new() };
    let mut sweep = interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_idle = false;
    loop {
        dispatcher.go_on();
        tokio::select! {
            Some(call) = calls.recv() => {
                dispatcher.enter(call);
                while let Ok(call) = calls.try_recv() {
                    dispatcher.enter(call);
                }
            }
            Some(ended) = dispatcher.under_way.join_next() => {
                dispatcher.end(ended);
                has_idle = true;
            }
            _ = sweep.tick(), if has_idle || !dispatcher.queue.is_empty() => {
                dispatcher.sweep();
                has_idle = dispatcher.hook.client.sweep();
            }
        }
    }
}

impl Dispatcher {
    fn enter(&mut self, call: Call) {
        let interest = call.interest.clone();
        let user = call.question.user.clone();
        self.queue.push(call, interest, &user, Instant::now());
    }

    /// Calls the backend for those whose turn it is.
    fn go_on(&mut self) {
        while let Some(turn) = self.queue.next(Instant::now()) {
            match turn {
                Turn::Answer(call, why_not) => self.refuse(call, why_not),
                Turn::Call(waited, pass) => {
                    let hook = self.hook.clone();
                    hook.leave(&waited);
                    self.under_way.spawn(async move {
                        let Call { question, from, .. } = waited;
                        let CallEnd { outcome, is_success, answer } = call(&hook, &question).await;
                        if let Some(answer) = answer {
                            hook.client.keep(answer).await;
                        }
                        Ended { pass, is_success, from, number: question.number, outcome }
                    });
                }
            }
        }
        let waiting = self.hook.waiting.load(Relaxed);
        let name = &self.hook.settings.name;
        self.hook.metrics.set(name, self.queue.under_way(), waiting, self.queue.is_open());
    }

    fn end(&mut self, ended: Result<Ended, JoinError>) {
        let Ended { pass, is_success, from, number, outcome } = match ended {
            Ok(ended) => ended,
            // A defect: whoever asked would wait for ever.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return,
        };
        if self.queue.ended(pass, is_success, Instant::now(), rand::random()) {
            let hook = &self.hook.settings.name;
            match self.queue.is_open() {
                true => tracing::warn!(hook, "a hook failed too often and is not called for a while"),
                false => tracing::info!(hook, "a hook answers again"),
            }
        }
        from.answer(&self.inboxes, number, outcome);
    }

    fn sweep(&mut self) {
        for (call, why_not) in self.queue.sweep(Instant::now()) {
            self.refuse(call, why_not);
        }
    }

    fn refuse(&self, call: Call, why_not: NoCall) {
        let hook = &self.hook;
        hook.leave(&call);
        let event = call.question.event.name();
        match why_not {
            NoCall::Gone => return,
            NoCall::Late => {
                hook.metrics.count(&hook.settings.name, event, HookOutcome::Late);
                hook.complain(event, "waited for its turn too long; see requests_max and wait_max");
            }
            NoCall::Open => hook.metrics.count(&hook.settings.name, event, HookOutcome::Open),
        }
        call.from.answer(&self.inboxes, call.question.number, Err(HookDenial::Failed));
    }
}
