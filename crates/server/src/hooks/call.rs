//! One call of a backend.

use std::time::{Instant, SystemTime};

use fanwire_hub::hook::{HookDenial, HookQuestion, HookResult};
use tokio::time::timeout;

use super::{Hook, answer, request};
use crate::backend::{self, ClientError};
use crate::metrics::HookOutcome;
use crate::settings::StatusMeaning;

const OK: u16 = 200;

/// The end of a call.
pub(super) struct CallEnd {
    pub(super) outcome: Result<HookResult, HookDenial>,
    /// The backend is up, whatever it says.
    pub(super) is_success: bool,
    pub(super) answer: Option<backend::Answer>,
}

/// Calls the backend, counts the result, and logs why there is none.
pub(super) async fn call(hook: &Hook, question: &HookQuestion) -> CallEnd {
    let began = Instant::now();
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let request = request::make(hook, question, unix as i64);
    let settings = &hook.settings;
    let answered = timeout(settings.timeout, hook.client.send(request, settings.answer_bytes_max)).await;
    let (outcome, is_success) = match &answered {
        Err(_) => (Err("no answer within the timeout".to_owned()), false),
        Ok(Err(error)) => (Err(error.to_string()), matches!(error, ClientError::TooLarge(_))),
        Ok(Ok(answer)) => judge(hook, question, answer),
    };
    let event = question.event.name();
    let outcome = outcome.unwrap_or_else(|why| {
        hook.complain(event, &why);
        Err(HookDenial::Failed)
    });
    let result = match &outcome {
        Ok(_) => HookOutcome::Ok,
        Err(HookDenial::Error(_)) => HookOutcome::Error,
        Err(HookDenial::Close(_)) => HookOutcome::Disconnect,
        Err(HookDenial::Failed) => HookOutcome::Failed,
    };
    hook.metrics.count(&settings.name, event, result);
    hook.metrics.took(&settings.name, event, began.elapsed());
    CallEnd { outcome, is_success, answer: answered.ok().and_then(Result::ok) }
}

/// Returns the outcome, or the reason why there is none, and whether the backend is up.
fn judge(
    hook: &Hook,
    question: &HookQuestion,
    answer: &backend::Answer,
) -> (Result<Result<HookResult, HookDenial>, String>, bool) {
    if answer.status == OK {
        return (answer::read(&question.event, &answer.body).map_err(|error| error.to_string()), true);
    }
    let meaning = hook.settings.status_meanings.iter().find(|(status, _)| *status == answer.status);
    match meaning {
        Some((_, StatusMeaning::Error(refused))) => (Ok(Err(HookDenial::Error(refused.clone()))), true),
        Some((_, StatusMeaning::Close(close))) => (Ok(Err(HookDenial::Close(close.clone()))), true),
        None => (Err(format!("status {}", answer.status)), answer.status < 500),
    }
}
