//! The cursor of a session: its places in the streams of its topics. None is kept: a shard knows up to where it has sent
//! each topic, and everybody who is subscribed there stands at that place.

use fanwire_protocol::{Cursor, Position};

use super::Session;
use super::subscribe::Subscribing;
use crate::registry::{Registry, TopicSlot};

impl Session {
    /// Returns true if what comes of a topic has to bring a cursor of the session's own, since one of that topic alone would
    /// lack others.
    pub fn has_own_cursor(&self) -> bool {
        self.mode.wire.has_cursor()
            && self.subscriptions.len() > 1
            && self.subscriptions.iter().any(|subscription| subscription.traits.positioned)
    }

    /// Returns true if it keeps a cursor that has no place for another topic, those on their way included.
    pub(super) fn has_full_cursor(&self) -> bool {
        let subscribing = self.work.iter().flat_map(|work| &work.subscribing);
        let positioned = self.subscriptions.iter().map(|subscription| subscription.traits.positioned);
        let positioned = positioned.chain(subscribing.map(Subscribing::is_positioned));
        self.mode.wire.tells_cursors()
            && positioned.filter(|positioned| *positioned).count() >= Cursor::TOPICS_MAX
    }

    /// Returns the places up to which everything was sent.
    pub fn cursor(&self, registry: &Registry) -> Cursor {
        let mut cursor = Cursor::default();
        for subscription in self.subscriptions.iter().filter(|subscription| subscription.traits.positioned) {
            let topic = registry.topic(subscription.topic);
            if let Some(position) = topic.position {
                cursor.set(topic.name.as_str(), position);
            }
        }
        cursor
    }

    /// The same, with another place in one of the topics.
    pub fn cursor_at(&self, registry: &Registry, topic: TopicSlot, at: Position) -> Cursor {
        let mut cursor = self.cursor(registry);
        cursor.advance(registry.topic(topic).name.as_str(), at);
        cursor
    }
}
