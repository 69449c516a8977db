//! A stream with its lifetime and its place among the streams to evict.

use std::cmp::Reverse;
use std::time::Duration;

use fanwire_protocol::{Epoch, Publication, TopicName};
use tokio::time::Instant;

use super::order::Place;
use super::stream::Stream;

/// The age from which a further use marks a stream as returned to.
pub(super) const RETURN_AFTER: Duration = Duration::from_secs(60);

/// The age up to which a stream is young.
pub(super) const YOUNG_FOR: Duration = Duration::from_secs(10 * 60);

pub(super) struct Life {
    pub(super) stream: Stream,
    /// The counted bytes of the stream.
    pub(super) bytes: usize,
    pub(super) created: Instant,
    /// Increases with each stream that is created.
    pub(super) number: u64,
    /// The stream was used again at least [`RETURN_AFTER`] after it was created.
    pub(super) has_returned: bool,
    /// The expiry of all publications.
    pub(super) history_expires: Instant,
    pub(super) history_due: Place<u64>,
    /// The expiry of epoch and top.
    pub(super) expires: Instant,
    pub(super) due: Place<u64>,
    /// Place among streams with publications: the largest first, then those that expire first.
    pub(super) size: Place<(Reverse<u32>, u64)>,
    /// Place among unused young streams: the youngest first.
    pub(super) young: Place<Reverse<u64>>,
    /// Place among unused older streams: the oldest first.
    pub(super) unused: Place<u64>,
}

impl Life {
    /// Bytes of a stream beside its name and publications: the value, its places in the orders, and the topic's entry
    /// in the table. Measured, allocator overhead included.
    const OVERHEAD: usize = 560;

    /// Creates a stream. The caller sets its expiry.
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

/// The bytes of a stored publication. Info and tags are counted as if they were not shared.
pub(super) fn publication_bytes(publication: &Publication) -> usize {
    /// The structs, their reference counts, and allocator overhead.
    const OVERHEAD: usize = 192;
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
