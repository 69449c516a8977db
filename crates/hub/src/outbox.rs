//! The bytes that a shard is about to write: for every connection a chain of shared segments, one write each.
//!
//! Fan-out and replies only link segments to connections; nothing is copied or allocated per delivery, as the
//! links live in one arena that is reused. A connection that is in several topics of one batch gets one write,
//! in order. The arena starts over whenever everything was written.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::Position;
use fanwire_protocol::capacity::shrunk;

use crate::delivery::Delivery;
use crate::namespace::SlowPolicy;
use crate::queue::{Full, Queue};
use crate::registry::TopicSlot;

const NONE: u32 = u32::MAX;

/// A segment in the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment(u32);

/// Bytes for one connection or many, which a socket takes as a whole or in part.
#[derive(Clone, Debug)]
pub struct Parcel {
    bytes: Bytes,
    content: Content,
}

/// The kind of a parcel, which decides how it waits in a queue.
#[derive(Clone, Debug)]
enum Content {
    /// Messages of topics that all of their subscribers get alike.
    Shared,
    /// A reply to one client.
    Reply,
    /// Several messages that are looked at one by one. In one box, so that most parcels are dropped without a call.
    Several(Box<Several>),
}

#[derive(Clone, Debug)]
enum Several {
    /// Messages of which some may give way.
    Messages(Messages),
    /// Deliveries of which each connection makes its own bytes.
    Deliveries(Deliveries),
}

/// Deliveries of one topic that bring each connection a cursor of its own. It is made as they are written: what does not
/// fit a connection is never made.
#[derive(Clone, Debug)]
pub struct Deliveries {
    /// The place in the topic's stream before them.
    pub before: Position,
    pub all: Box<[Arc<Delivery>]>,
}

/// The messages of one topic.
#[derive(Clone, Debug)]
pub struct Messages {
    pub topic: TopicSlot,
    pub policy: SlowPolicy,
    /// Each with whether it is a publication: joins and leaves never give way.
    pub all: Box<[(Bytes, bool)]>,
}

impl From<Bytes> for Parcel {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, content: Content::Shared }
    }
}

impl From<Deliveries> for Parcel {
    fn from(deliveries: Deliveries) -> Self {
        Self { bytes: Bytes::new(), content: Content::Several(Box::new(Several::Deliveries(deliveries))) }
    }
}

impl Parcel {
    pub fn reply(bytes: Bytes) -> Self {
        Self { bytes, content: Content::Reply }
    }

    /// Returns the deliveries, where each connection makes its own bytes of them. Such a parcel has none.
    pub fn deliveries(&self) -> Option<&Deliveries> {
        match &self.content {
            Content::Several(several) => match &**several {
                Several::Deliveries(deliveries) => Some(deliveries),
                Several::Messages(_) => None,
            },
            Content::Shared | Content::Reply => None,
        }
    }

    /// `bytes` are those of the messages, one after the other.
    pub fn new(bytes: Bytes, messages: Messages) -> Self {
        debug_assert_eq!(bytes.len(), messages.all.iter().map(|(message, _)| message.len()).sum::<usize>());
        Self { bytes, content: Content::Several(Box::new(Several::Messages(messages))) }
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the fate of its publications for a client that is too slow.
    pub fn policy(&self) -> SlowPolicy {
        self.messages().map_or(SlowPolicy::Close, |messages| messages.policy)
    }

    fn messages(&self) -> Option<&Messages> {
        match &self.content {
            Content::Several(several) => match &**several {
                Several::Messages(messages) => Some(messages),
                Several::Deliveries(_) => None,
            },
            Content::Shared | Content::Reply => None,
        }
    }

    /// Queues what the socket did not take of it: all but the first `taken` bytes. Says how many publications gave
    /// way.
    pub fn queue(&self, mut taken: usize, queue: &mut Queue, bytes_max: usize) -> Result<usize, Full> {
        let whole = [(self.bytes.clone(), false)];
        let messages = self.messages();
        let all = messages.map_or(&whole[..], |messages| &messages.all);
        let is_reply = matches!(self.content, Content::Reply);
        let mut dropped = 0;
        for (message, is_publication) in all {
            if taken >= message.len() {
                taken -= message.len();
                continue;
            }
            let rest = message.slice(taken..);
            dropped += match messages {
                _ if taken > 0 => {
                    queue.push_rest(rest, is_reply);
                    0
                }
                Some(messages) if *is_publication => {
                    queue.push_publication(messages.topic, messages.policy, rest, bytes_max)?
                }
                _ if is_reply => queue.push_reply(rest, bytes_max)?,
                _ => queue.push(rest, bytes_max)?,
            };
            taken = 0;
        }
        Ok(dropped)
    }
}

/// A connection's chain: lives in the connection and costs eight bytes.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    first: u32,
    last: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl Chain {
    pub fn is_empty(&self) -> bool {
        self.first == NONE
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    segment: u32,
    next: u32,
}

/// The arena, and the connections that have something to write in the order in which they got it.
#[derive(Debug, Default)]
pub struct Outbox {
    segments: Vec<Parcel>,
    links: Vec<Link>,
    waiting: Vec<u32>,
    written: usize,
    /// The most links of late, slowly forgotten.
    links_usual: usize,
}

impl Outbox {
    /// The links that any batch may need. Memory for more is kept for as long as it is used: a rare burst does not hold it
    /// for ever.
    const LINKS_USUAL_MIN: usize = 1 << 12;

    pub fn segment(&mut self, parcel: impl Into<Parcel>) -> Segment {
        self.segments.push(parcel.into());
        Segment(self.segments.len() as u32 - 1)
    }

    pub fn bytes(&self, segment: Segment) -> &Bytes {
        &self.parcel(segment).bytes
    }

    pub fn parcel(&self, segment: Segment) -> &Parcel {
        &self.segments[segment.0 as usize]
    }

    /// Puts a segment at the end of a connection's chain.
    pub fn link(&mut self, connection: u32, chain: &mut Chain, segment: Segment) {
        let link = self.links.len() as u32;
        self.links.push(Link { segment: segment.0, next: NONE });
        if chain.is_empty() {
            chain.first = link;
            self.waiting.push(connection);
        } else {
            self.links[chain.last as usize].next = link;
        }
        chain.last = link;
    }

    /// Takes a connection's chain: its segments in order.
    pub fn take(&self, chain: &mut Chain) -> Segments<'_> {
        let next = std::mem::take(chain).first;
        Segments { outbox: self, next }
    }

    /// The connection whose turn it is. One that has gone, or whose chain is empty, is skipped by the caller.
    pub fn next_connection(&mut self) -> Option<u32> {
        let connection = *self.waiting.get(self.written)?;
        self.written += 1;
        Some(connection)
    }

    /// The connections whose turn it is next.
    pub fn upcoming(&self) -> &[u32] {
        &self.waiting[self.written..]
    }

    pub fn is_empty(&self) -> bool {
        self.written == self.waiting.len()
    }

    /// Starts over once everything was written.
    pub fn reset(&mut self) {
        debug_assert!(self.is_empty());
        self.links_usual = self.links.len().max(self.links_usual - self.links_usual / 64);
        let usual = Self::LINKS_USUAL_MIN.max(self.links_usual);
        self.segments.clear();
        self.links.clear();
        self.waiting.clear();
        self.written = 0;
        give_back(&mut self.segments, usual);
        give_back(&mut self.links, usual);
        give_back(&mut self.waiting, usual);
    }
}

/// Gives back the memory of an empty list that usually is much shorter than it was.
fn give_back<T>(empty: &mut Vec<T>, usual: usize) {
    if let Some(capacity) = shrunk(usual, empty.capacity()) {
        empty.shrink_to(capacity);
    }
}

/// A connection's segments, in the order in which they were linked.
#[derive(Clone, Debug)]
pub struct Segments<'o> {
    outbox: &'o Outbox,
    next: u32,
}

impl<'o> Iterator for Segments<'o> {
    type Item = &'o Parcel;

    fn next(&mut self) -> Option<&'o Parcel> {
        let link = *self.outbox.links.get(self.next as usize)?;
        self.next = link.next;
        Some(&self.outbox.segments[link.segment as usize])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const _: () = assert!(size_of::<Chain>() == 8);

    fn taken(outbox: &Outbox, chain: &mut Chain) -> Vec<Bytes> {
        outbox.take(chain).map(|parcel| parcel.bytes().clone()).collect()
    }

    #[test]
    fn a_connection_gets_its_segments_in_order_and_one_turn() {
        let mut outbox = Outbox::default();
        let (mut one, mut two) = (Chain::default(), Chain::default());
        let a = outbox.segment(Bytes::from_static(b"a"));
        let b = outbox.segment(Bytes::from_static(b"b"));
        outbox.link(1, &mut one, a);
        outbox.link(2, &mut two, a);
        outbox.link(1, &mut one, b);
        assert_eq!(outbox.next_connection(), Some(1));
        assert_eq!(taken(&outbox, &mut one), ["a", "b"]);
        outbox.link(1, &mut one, b);
        assert_eq!(outbox.next_connection(), Some(2));
        assert_eq!(taken(&outbox, &mut two), ["a"]);
        assert_eq!(outbox.next_connection(), Some(1));
        assert_eq!(taken(&outbox, &mut one), ["b"]);
        assert!(outbox.is_empty());
        outbox.reset();
        assert_eq!(outbox.next_connection(), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Link {
            connection: u32,
            segment: usize,
        },
        Write,
        /// The connection goes, with what was linked to it.
        Drop {
            connection: u32,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..6_u32, 0..4_usize).prop_map(|(connection, segment)| Step::Link { connection, segment }),
            3 => Just(Step::Write),
            1 => (0..6_u32).prop_map(|connection| Step::Drop { connection }),
        ]
    }

    proptest! {
        /// Against one queue for each connection, and one of whose turn it is.
        #[test]
        fn chains_are_queues(steps in prop::collection::vec(step(), 0..200)) {
            let mut outbox = Outbox::default();
            let mut chains = [Chain::default(); 6];
            let mut queues: [Vec<Bytes>; 6] = Default::default();
            let mut turns = VecDeque::new();
            for step in steps {
                match step {
                    Step::Link { connection, segment } => {
                        let bytes = Bytes::from(vec![segment as u8]);
                        let segment = outbox.segment(bytes.clone());
                        prop_assert_eq!(outbox.bytes(segment), &bytes);
                        outbox.link(connection, &mut chains[connection as usize], segment);
                        let queue = &mut queues[connection as usize];
                        if queue.is_empty() {
                            turns.push_back(connection);
                        }
                        queue.push(bytes);
                    }
                    Step::Write => {
                        let turn = outbox.next_connection();
                        prop_assert_eq!(turn, turns.pop_front());
                        if let Some(connection) = turn {
                            let written = taken(&outbox, &mut chains[connection as usize]);
                            prop_assert_eq!(written, std::mem::take(&mut queues[connection as usize]));
                        } else {
                            outbox.reset();
                        }
                    }
                    Step::Drop { connection } => {
                        chains[connection as usize] = Chain::default();
                        queues[connection as usize].clear();
                    }
                }
                prop_assert_eq!(outbox.is_empty(), turns.is_empty());
                for (chain, queue) in chains.iter().zip(&queues) {
                    prop_assert_eq!(chain.is_empty(), queue.is_empty());
                }
            }
        }
    }
}
