//! Bare WebSocket messages: each publication's data is one message, and each message of the client is the data of one.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde::Serialize;

use crate::centrifuge::codes;
use crate::reason::{Mistake, RefusalDetail, Refused, RequestError};
use crate::websocket::{self, Opcode};
use crate::{Publication, Tags, json};

/// The tag of data that is a JSON string because its publisher sent a text that is no JSON.
pub const TEXT_TAG: &str = "text";

/// Publications of texts have the same tags.
static TEXT_TAGS: LazyLock<Arc<Tags>> =
    LazyLock::new(|| Arc::new(Tags::from([(TEXT_TAG.to_owned(), "true".to_owned())])));

/// Returns the data that a text is published as, with its tags. A JSON value is data as it is. Any other text becomes a
/// JSON string, so that clients of every wire can read it, and its tag keeps the way back exact.
pub fn data(text: &str) -> (Bytes, Option<Arc<Tags>>) {
    match json::check(text.as_bytes()) {
        Ok(()) => (Bytes::copy_from_slice(text.as_bytes()), None),
        Err(_) => {
            let mut data = Vec::with_capacity(text.len() + 2);
            json::write(&text, &mut data);
            (data.into(), Some(TEXT_TAGS.clone()))
        }
    }
}

/// Returns the message that a publication is: its kind, and its payload, which is the data or, of a text, the text.
pub fn message(publication: &Publication) -> (Opcode, Cow<'_, [u8]>) {
    let data = &*publication.data;
    let is_text = publication.tags.as_ref().is_some_and(|tags| tags.contains_key(TEXT_TAG));
    if is_text && let Ok(text) = serde_json::from_slice::<String>(data) {
        return (Opcode::Text, text.into_bytes().into());
    }
    let opcode = if json::check(data).is_ok() { Opcode::Text } else { Opcode::Binary };
    (opcode, data.into())
}

/// A text by which a client asks for a sign of life, and the text that answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatWord {
    pub word: String,
    pub answer: String,
}

/// Returns the frame that answers a text, if it is a heartbeat.
pub fn answer(text: &str, heartbeats: &[HeartbeatWord]) -> Option<Bytes> {
    let heartbeat = heartbeats.iter().find(|heartbeat| heartbeat.word == text)?;
    Some(websocket::framed(Opcode::Text, |to| to.extend_from_slice(heartbeat.answer.as_bytes())))
}

/// Returns the frame that tells of a refused request:
///
/// ```text
/// {"error":{"code":103,"message":"permission denied"}}
/// ```
pub fn refusal(refused: &Refused) -> Bytes {
    #[derive(Serialize)]
    struct Message<'a> {
        error: ErrorObject<'a>,
    }

    #[derive(Serialize)]
    struct ErrorObject<'a> {
        code: u32,
        message: Cow<'a, str>,
    }

    let message = Message {
        error: ErrorObject { code: codes::error(refused.error).number, message: sentence(refused) },
    };
    websocket::framed(Opcode::Text, |to| json::write(&message, to))
}

/// Returns the sentence for a publish that is refused, with what to change.
pub fn sentence(refused: &Refused) -> Cow<'_, str> {
    match (refused.error, refused.detail.as_deref()) {
        (_, Some(RefusalDetail::Mistake(Mistake::TopicName(why)))) => (&**why).into(),
        (_, Some(RefusalDetail::Words { text, .. })) => text.into(),
        (_, Some(RefusalDetail::Mistake(mistake))) => codes::mistake(mistake),
        (RequestError::PermissionDenied, None) => "this client may not publish to the topic: \
            see allow_publish_for_client, allow_publish_for_subscriber and allow_publish_for_anonymous of its namespace"
            .into(),
        (RequestError::UnknownTopic, None) => "no namespace of the topic's name is configured".into(),
        (error, None) => codes::error(error).text.into(),
    }
}
