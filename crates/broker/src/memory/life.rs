//! A stream, how long it lives, and what it counts for where memory is short.

use std::cmp::Reverse;
use std::time::Duration;

use fanwire_protocol::{Epoch, Publication, TopicName};
use tokio::time::Instant;

use super::order::Place;
use super::stream::Stream;

/// A topic that nobody has come back to for so long after it was made may be one that nobody ever will.
pub(super) const RETURN_AFTER: Duration = Duration::from_secs(60);

/// How long a topic is young.
pub(super) const YOUNG_FOR: Duration = Duration::from_secs(10 * 60);

pub(super) struct Life {
    pub(super) stream: Stream,
    /// What the stream takes, as far as it is counted.
    pub(super) bytes: usize,
    pub(super) created: Instant,
    /// Streams that were made before have lower numbers.
    pub(super) number: u64,
    /// Somebody used it again at least [`RETURN_AFTER`] after it was made.
    pub(super) has_returned: bool,
    /// When the publications go, all together.
    pub(super) history_expires: Instant,
    pub(super) history_due: Place<u64>,
    /// When epoch and top go.
    pub(super) expires: Instant,
    pub(super) due: Place<u64>,
    /// Among the streams that keep publications, the largest first, then those that expire first.
    pub(super) size: Place<(Reverse<u32>, u64)>,
    /// Among the young streams that nobody uses, the youngest first.
    pub(super) young: Place<Reverse<u64>>,
    /// Among the older streams that nobody has come back to, the oldest first.
    pub(super) unused: Place<u64>,
}

impl Life {
    /// What a stream takes beside its name and publications: it, its places in the orders, and the topic's entry in
    /// the table. Measured, with what an allocator adds.
    const OVERHEAD: usize = 560;

    /// A new stream, to live as long as its opener says.
    pub(super) fn new(topic: &TopicName, number: u64, now: Instant) -> Self {
        Self {
            stream: Stream::new(Epoch::from_random(rand::random())),
            bytes: Self::OVERHEAD + topic.as_str().len(),
            created: now,
            number,
            has_returned: false,
            history_expires: now,
            history_due: Place::default(),
            expires: now,
            due: Place::default(),
            size: Place::default(),
            young: Place::default(),
            unused: Place::default(),
        }
    }
}

/// What a kept publication takes. Info and tags are counted as if nothing shared them.
pub(super) fn publication_bytes(publication: &Publication) -> usize {
    /// The structs, their reference counts, and what an allocator adds to each.
    const OVERHEAD: usize = 160;
    const OVERHEAD_INFO: usize = 160;
    const OVERHEAD_TAG: usize = 96;

    let info = publication
        .info
        .as_ref()
        .map_or(0, |info| OVERHEAD_INFO + info.user.len() + info.connection.len() + info.subscription.len());
    let tags = publication
        .tags
        .as_ref()
        .map_or(0, |tags| tags.iter().map(|(name, value)| OVERHEAD_TAG + name.len() + value.len()).sum());
    OVERHEAD + publication.data.len() + info + tags
}
