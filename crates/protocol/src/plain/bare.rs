//! Bare messages: data that clients publish without a protocol around it.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::centrifuge::codes;
use crate::reason::{Mistake, Refused, RequestError};
use crate::{Tags, json};

/// The tag of data that is a JSON string because its publisher sent a text that is no JSON.
pub const TEXT_TAG: &str = "text";

/// Publications of texts have the same tags.
static TEXT_TAGS: LazyLock<Arc<Tags>> =
    LazyLock::new(|| Arc::new(Tags::from([(TEXT_TAG.to_owned(), "true".to_owned())])));

/// Returns the data that a text is published as, with its tags. A JSON value is data as it is. Any other text becomes a
/// JSON string, so that clients of every wire can read it, and its tag says so.
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

/// Returns the sentence for a publish that is refused, with what to change.
pub fn sentence(refused: &Refused) -> Cow<'_, str> {
    match (refused.error, refused.mistake.as_deref()) {
        (_, Some(Mistake::TopicName(why))) => (&**why).into(),
        (_, Some(mistake)) => codes::mistake(mistake),
        (RequestError::PermissionDenied, None) => "this client may not publish to the topic: \
            see allow_publish_for_client, allow_publish_for_subscriber and allow_publish_for_anonymous of its namespace"
            .into(),
        (RequestError::UnknownTopic, None) => "no namespace of the topic's name is configured".into(),
        (error, None) => codes::error(error).text.into(),
    }
}
