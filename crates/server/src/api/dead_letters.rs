//! Events that the webhook refused: `dead_letters`, `dead_letters_retry` and `dead_letters_remove`.

use fanwire_broker::{DeadLetter, EngineError, LetterId, Letters, Outboxes};
use fanwire_protocol::json::null_is_default;
use fanwire_protocol::reason::RequestError;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::reply::{ApiReply, result};
use crate::events::EventBody;
use crate::node::Node;

/// The most letters of one call.
const LETTERS_MAX: usize = 1000;

const LETTERS_DEFAULT: usize = 100;

pub(super) const INSTEAD: &str = "ask with a smaller limit";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiDeadLetters {
    #[serde(deserialize_with = "null_is_default")]
    limit: usize,
}

/// Some letters, or all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiLetters {
    #[serde(deserialize_with = "null_is_default")]
    ids: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    all: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct LettersCount {
    count: u64,
}

#[derive(Serialize)]
struct LettersResult<'a> {
    letters: Vec<LetterResult<'a>>,
}

#[derive(Serialize)]
struct LetterResult<'a> {
    id: String,
    /// Milliseconds since 1970.
    refused_at: u64,
    status: u16,
    attempts: u32,
    event: EventBody<'a>,
}

pub(super) async fn list(node: &Node, request: &ApiDeadLetters) -> ApiReply {
    let limit = match request.limit {
        0 => LETTERS_DEFAULT,
        1..=LETTERS_MAX => request.limit,
        _ => return Err(ApiError::bad_request(format!("limit is greater than {LETTERS_MAX}"))),
    };
    let letters = outboxes(node)?.dead_letters(limit).await.map_err(unavailable)?;
    result(&LettersResult { letters: letters.iter().map(LetterResult::of).collect() })
}

pub(super) async fn retry(node: &Node, request: &ApiLetters) -> Result<LettersCount, ApiError> {
    let (outboxes, letters) = (outboxes(node)?, request.letters()?);
    if node.settings.webhook.is_none() {
        let why = "there is no webhook that they could be posted to; see events.deliver";
        return Err(ApiError::because(RequestError::NotAvailable, why));
    }
    Ok(LettersCount { count: outboxes.retry(&letters).await.map_err(unavailable)? })
}

pub(super) async fn remove(node: &Node, request: &ApiLetters) -> Result<LettersCount, ApiError> {
    let (outboxes, letters) = (outboxes(node)?, request.letters()?);
    Ok(LettersCount { count: outboxes.remove_dead_letters(&letters).await.map_err(unavailable)? })
}

fn outboxes(node: &Node) -> Result<&Outboxes, ApiError> {
    let why = "the settings ask for no events; see client.events and the namespaces' events";
    node.outboxes.as_ref().ok_or_else(|| ApiError::because(RequestError::NotAvailable, why))
}

fn unavailable(_: EngineError) -> ApiError {
    RequestError::Internal.into()
}

impl ApiLetters {
    fn letters(&self) -> Result<Letters, ApiError> {
        if self.all != self.ids.is_empty() {
            return Err(ApiError::bad_request("ids, or \"all\": true, says which letters are meant"));
        }
        if self.all {
            return Ok(Letters::All);
        }
        if self.ids.len() > LETTERS_MAX {
            return Err(ApiError::bad_request(format!("ids has more than {LETTERS_MAX} letters")));
        }
        let parse = |(place, id): (usize, &String)| {
            LetterId::parse(id).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "ids[{place}] is no id of dead_letters, such as \"1700000000000-0\""
                ))
            })
        };
        Ok(Letters::These(self.ids.iter().enumerate().map(parse).collect::<Result<_, _>>()?))
    }
}

impl<'a> LetterResult<'a> {
    fn of(letter: &'a DeadLetter) -> Self {
        let DeadLetter { id, event, refusal } = letter;
        Self {
            id: id.to_string(),
            refused_at: id.millis,
            status: refusal.status,
            attempts: refusal.attempts,
            event: EventBody::of(event),
        }
    }
}
