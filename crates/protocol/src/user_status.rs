//! The message that says whether a user is online.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::json;

/// The data of a publication in a status topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusMessage {
    pub user: Box<str>,
    pub online: bool,
    /// The last time at which the user is known to have been online, in milliseconds since 1970; 0 if it is not known.
    #[serde(default, skip_serializing_if = "json::is_default")]
    pub last_seen: i64,
}

impl StatusMessage {
    pub fn to_json(&self) -> Bytes {
        let mut data = Vec::with_capacity(64 + self.user.len());
        json::write(self, &mut data);
        data.into()
    }

    /// Returns `None` if the data is none.
    pub fn parse(data: &[u8]) -> Option<Self> {
        serde_json::from_slice(data).ok()
    }

    /// Returns true if both say the same. While a user is online, the time at which it was seen says nothing.
    pub fn says(&self, other: &Self) -> bool {
        self.online == other.online && (self.online || self.last_seen == other.last_seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(online: bool, last_seen: i64) -> StatusMessage {
        StatusMessage { user: "a\"/ü".into(), online, last_seen }
    }

    #[test]
    fn messages_go_back_and_forth() {
        let online = message(true, 7);
        assert_eq!(online.to_json(), r#"{"user":"a\"/ü","online":true,"last_seen":7}"#);
        assert_eq!(StatusMessage::parse(&online.to_json()), Some(online));
        let unknown = message(false, 0);
        assert_eq!(unknown.to_json(), r#"{"user":"a\"/ü","online":false}"#);
        assert_eq!(StatusMessage::parse(&unknown.to_json()), Some(unknown));
        // As a script of Redis writes it.
        let written = br#"{"user":"a\"\/\u00fc","online":false,"last_seen":9}"#;
        assert_eq!(StatusMessage::parse(written), Some(message(false, 9)));
        assert_eq!(StatusMessage::parse(b"{}"), None);
    }

    #[test]
    fn when_a_user_was_seen_is_news_only_while_it_is_offline() {
        assert!(message(true, 1).says(&message(true, 2)));
        assert!(!message(true, 1).says(&message(false, 1)));
        assert!(!message(false, 1).says(&message(false, 2)));
        assert!(message(false, 2).says(&message(false, 2)));
    }
}
