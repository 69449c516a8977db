//! Hooks: the application's backend decides on what clients do, by HTTP.
//!
//! All hooks run on one thread of their own, so a backend that is slow or gone holds up no shard. A session asks and goes
//! on. Its question waits in the queue of its hook, and is a task only while the backend is called. The number of calls
//! under way, of those that wait, and their bytes are bounded for each hook, and each question is answered within a known
//! time.

mod answer;
mod breaker;
mod call;
mod dispatch;
mod queue;
mod request;
mod thread;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanwire_broker::LogRateLimit;
use fanwire_hub::effect::Answer;
use fanwire_hub::hook::{HookAnswer, HookDenial, HookQuestion, HookResult};
use fanwire_hub::hook_settings::HookSlot;
use fanwire_hub::kept::KeptRules;
use tokio::sync::{mpsc, oneshot};

use crate::backend::{BackendTls, BackendTlsError, Client, Signer};
use crate::inbox::Inboxes;
use crate::message::{Address, ShardMessage};
use crate::metrics::{HookMetrics, HookOutcome};
use crate::settings::{HookSettings, Settings};
use queue::Interest;

pub(crate) use queue::HookTicket;
pub(crate) use thread::BackendThread;

/// Bytes of the questions that wait for one hook.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// The bytes that a question counts for beside its own.
const QUESTION_BYTES: usize = 512;

/// A hook that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("hooks: \"{name}\": {error}")]
pub struct HookError {
    name: String,
    error: BackendTlsError,
}

/// All hooks of the settings. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Hooks {
    /// In the order of the settings, which slots name.
    hooks: Arc<[Arc<Hook>]>,
    inboxes: Inboxes,
}

struct Hook {
    settings: HookSettings,
    signer: Option<Signer>,
    client: Client,
    rules: Arc<KeptRules>,
    calls: mpsc::UnboundedSender<Call>,
    /// Questions that wait, and their bytes. Counted by those who ask, so that none of them waits for another.
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    metrics: HookMetrics,
    log_limit: LogRateLimit,
}

/// The party that gets an answer.
#[derive(Debug)]
enum Asker {
    Session(Address),
    /// A request without a session.
    Request(oneshot::Sender<Outcome>),
}

type Outcome = Result<HookResult, HookDenial>;

/// A question, until it is answered.
#[derive(Debug)]
struct Call {
    question: Arc<HookQuestion>,
    from: Asker,
    interest: Interest,
    bytes: usize,
}

/// More waits than may.
#[derive(Debug)]
struct Full(Call);

impl Hooks {
    /// Makes the hooks of the settings, and starts them on `thread`, which is there if there are any.
    pub(crate) fn start(
        settings: &Settings,
        inboxes: Inboxes,
        metrics: &HookMetrics,
        thread: Option<&BackendThread>,
    ) -> Result<Self, HookError> {
        let rules = Arc::new(settings.client.hooks.kept.clone());
        Self::of(settings.hooks.clone(), rules, inboxes, metrics, thread)
    }

    fn of(
        settings: Vec<HookSettings>,
        rules: Arc<KeptRules>,
        inboxes: Inboxes,
        metrics: &HookMetrics,
        thread: Option<&BackendThread>,
    ) -> Result<Self, HookError> {
        let mut hooks = Vec::new();
        for settings in settings {
            let (calls, received) = mpsc::unbounded_channel();
            let name = settings.name.clone();
            let hook = Hook::new(settings, rules.clone(), calls, metrics.clone());
            let hook = Arc::new(hook.map_err(|error| HookError { name, error })?);
            if let Some(thread) = thread {
                thread.keep(dispatch::run(hook.clone(), received, inboxes.clone()));
            }
            hooks.push(hook);
        }
        Ok(Self { hooks: hooks.into(), inboxes })
    }

    /// Asks for a session, which gets the answer by its shard's inbox. Drop the ticket when it has no use for one.
    pub(crate) fn send(&self, from: Address, question: Arc<HookQuestion>) -> HookTicket {
        self.enter(Asker::Session(from), question)
    }

    /// Asks for a request without a session.
    pub(crate) async fn ask(&self, question: Arc<HookQuestion>) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let _ticket = self.enter(Asker::Request(answer), question);
        answered.await.unwrap_or(Err(HookDenial::Failed))
    }

    fn enter(&self, from: Asker, question: Arc<HookQuestion>) -> HookTicket {
        let interest = Interest::default();
        let ticket = interest.ticket();
        let Some(hook) = self.hooks.get(question.slot.place()) else {
            from.answer(&self.inboxes, question.number, Err(HookDenial::Failed));
            return ticket;
        };
        let kept = question.kept.as_ref().map_or(0, |kept| kept.bytes());
        let bytes = QUESTION_BYTES + question.event.bytes() + question.user.len() + kept;
        let number = question.number;
        if let Err(Full(call)) = hook.enter(Call { question, from, interest, bytes }) {
            call.from.answer(&self.inboxes, number, Err(HookDenial::Failed));
        }
        ticket
    }

    /// Logs that the answer of a hook cannot be used. `why` repeats nothing of it.
    pub(crate) fn unfit(&self, slot: HookSlot, why: &str) {
        if let Some(hook) = self.hooks.get(slot.place()) {
            hook.complain("answer", why);
        }
    }
}

impl Hook {
    fn new(
        settings: HookSettings,
        rules: Arc<KeptRules>,
        calls: mpsc::UnboundedSender<Call>,
        metrics: HookMetrics,
    ) -> Result<Self, BackendTlsError> {
        let url = &settings.url;
        let tls = match url.is_https() {
            true => Some(BackendTls::new(&settings.tls, url.host())?),
            false => None,
        };
        Ok(Self {
            signer: Signer::new(&settings.signature_secrets),
            client: Client::new(url.clone(), tls, settings.idle_timeout),
            settings,
            rules,
            calls,
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            metrics,
            log_limit: LogRateLimit::default(),
        })
    }

    /// Lets a call wait, if there is room for it.
    fn enter(&self, call: Call) -> Result<(), Full> {
        let waiting = self.waiting.fetch_add(1, Relaxed) + 1;
        let waiting_bytes = self.waiting_bytes.fetch_add(call.bytes, Relaxed) + call.bytes;
        if waiting > self.settings.waiting_max || waiting_bytes > WAITING_BYTES_MAX {
            self.leave(&call);
            let event = call.question.event.name();
            self.metrics.count(&self.settings.name, event, HookOutcome::Full);
            self.complain(event, "too many calls wait; see waiting_max");
            return Err(Full(call));
        }
        // It is received for as long as the node runs.
        self.calls.send(call).map_err(|mpsc::error::SendError(call)| Full(call))
    }

    /// A call waits no more.
    fn leave(&self, call: &Call) {
        self.waiting.fetch_sub(1, Relaxed);
        self.waiting_bytes.fetch_sub(call.bytes, Relaxed);
    }

    fn complain(&self, event: &'static str, why: &str) {
        if self.log_limit.is_due() {
            tracing::warn!(hook = self.settings.name, event, why, "a hook has no usable answer");
        }
    }
}

impl Asker {
    /// Answers, though nobody may wait for it any more.
    fn answer(self, inboxes: &Inboxes, number: u32, outcome: Outcome) {
        match self {
            Self::Session(to) => {
                let answer = Answer::Hooked(Box::new(HookAnswer { number, outcome }));
                inboxes.all[usize::from(to.shard)].send(ShardMessage::Answer(to.connection, answer));
            }
            Self::Request(answer) => drop(answer.send(outcome)),
        }
    }
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hook").field("name", &self.settings.name).finish_non_exhaustive()
    }
}
