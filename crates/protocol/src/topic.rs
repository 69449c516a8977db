//! A topic's name: what clients subscribe to and backends publish to. On the Centrifuge wire it is "channel".

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The name of a topic. Cloning shares the text.
///
/// Holding one says only that the text is not empty; whether a namespace takes it is for
/// `fanwire_hub::namespace` to decide.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// `None` for an empty name, which no topic has.
    pub fn new(name: &str) -> Option<Self> {
        (!name.is_empty()).then(|| Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
