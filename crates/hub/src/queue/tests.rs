use fanwire_protocol::TopicName;
use fanwire_protocol::wire::Wire;
use proptest::prelude::*;

use super::*;
use crate::registry::{Registry, SubscriberKind};

fn filled(queue: &Queue) -> Vec<Vec<u8>> {
    let mut slices = [IoSlice::new(&[]); Queue::SLICES_MAX];
    let used = queue.fill(&mut slices);
    slices[..used].iter().map(|slice| slice.to_vec()).collect()
}

#[test]
fn one_message_always_fits_and_more_are_bounded() {
    let mut queue = Queue::default();
    assert_eq!(queue.push(Bytes::from(vec![0; 100]), 10), Ok(0));
    assert_eq!(queue.push(Bytes::from_static(b"x"), 10), Err(Full));
    queue.advance(100);
    assert!(queue.is_empty());
    assert_eq!(queue.push(Bytes::from_static(b"x"), 10), Ok(0));
}

#[test]
fn a_partial_write_leaves_the_rest() {
    let mut queue = Queue::default();
    for word in ["abc", "defg"] {
        queue.push(Bytes::from_static(word.as_bytes()), 1000).unwrap();
    }
    queue.advance(4);
    assert_eq!(filled(&queue), [b"efg".to_vec()]);
    assert_eq!(queue.bytes(), 3);
    queue.push(Bytes::from_static(b"later"), 1000).unwrap();
    queue.keep_begun();
    assert_eq!(queue.bytes(), 3);
    queue.advance(3);
    queue.keep_begun();
    assert!(queue.is_empty());
}

#[test]
fn what_was_begun_gives_way_to_nothing() {
    for policy in [SlowPolicy::DropOldest, SlowPolicy::KeepLatest] {
        let (mut queue, topic) = (Queue::default(), topics()[0]);
        let push = |queue: &mut Queue, text: &'static str| {
            queue.push_publication(topic, policy, Bytes::from_static(text.as_bytes()), 3 * 64 + 16)
        };
        assert_eq!(push(&mut queue, "first"), Ok(0));
        queue.advance(1);
        for text in ["second", "third", "fourth"] {
            push(&mut queue, text).unwrap();
        }
        let waiting = filled(&queue);
        assert_eq!(
            (waiting[0].as_slice(), waiting[waiting.len() - 1].as_slice()),
            (&b"irst"[..], &b"fourth"[..])
        );
        assert_eq!(waiting.len(), if policy == SlowPolicy::KeepLatest { 2 } else { 3 });
    }
}

#[test]
fn a_stuck_queue_does_not_grow() {
    let (mut queue, topics) = (Queue::default(), topics());
    queue.push_rest(Bytes::from_static(b"stuck"), false);
    for number in 0..10_000 {
        let (topic, policy) = match number % 2 {
            0 => (topics[0], SlowPolicy::DropOldest),
            _ => (topics[1], SlowPolicy::KeepLatest),
        };
        queue.push_publication(topic, policy, Bytes::from_static(b"tick"), 1000).unwrap();
    }
    assert!(queue.chunks.len() < 200, "{}", queue.chunks.len());
    assert!(queue.droppable.len() <= queue.messages && queue.latest.len() == 1);
}

/// Three topics, whose slots only a registry makes.
fn topics() -> Vec<TopicSlot> {
    let mut registry = Registry::default();
    let kind = SubscriberKind {
        wire: Wire::CentrifugeJson,
        joins: false,
        slow: SlowPolicy::Close,
        is_filtered: false,
    };
    let names = ["a", "b", "c"].map(|name| TopicName::new(name).unwrap());
    names.iter().map(|name| registry.add(name, 0, kind, false).0).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<u8>),
    Reply(Vec<u8>),
    Publication(usize, SlowPolicy, Vec<u8>),
    /// A message in two pieces, of which the second is never kept without the first.
    Pieces(Vec<u8>, Vec<u8>),
    /// The rest of something that was written in part, where nothing waits.
    Rest(Vec<u8>, bool),
    /// The second piece of a message whose first was written, where nothing waits.
    SecondPiece(Vec<u8>),
    /// This many of the bytes that one write would be given, in percent.
    Written(usize),
    Keep,
}

fn step() -> impl Strategy<Value = Step> {
    let message = || prop::collection::vec(any::<u8>(), 1..20);
    let policy =
        prop_oneof![Just(SlowPolicy::Close), Just(SlowPolicy::DropOldest), Just(SlowPolicy::KeepLatest)];
    prop_oneof![
        2 => message().prop_map(Step::Push),
        2 => message().prop_map(Step::Reply),
        6 => (0..3_usize, policy, message()).prop_map(|(topic, policy, message)| Step::Publication(topic, policy, message)),
        2 => (message(), message()).prop_map(|(first, second)| Step::Pieces(first, second)),
        1 => message().prop_map(Step::SecondPiece),
        1 => (message(), any::<bool>()).prop_map(|(message, is_reply)| Step::Rest(message, is_reply)),
        2 => (0..=100_usize).prop_map(Step::Written),
        1 => Just(Step::Keep),
    ]
}

/// In place of a topic.
const REPLY: usize = 99;
const SECOND_PIECE: usize = 98;

/// The queue as a plain list.
#[derive(Default)]
struct Model {
    messages: Vec<(Vec<u8>, SlowPolicy, usize)>,
    written: u64,
    begun: bool,
}

impl Model {
    fn push(
        &mut self,
        message: Vec<u8>,
        policy: SlowPolicy,
        topic: usize,
        following: usize,
        bytes_max: usize,
    ) -> Result<usize, Full> {
        let from = usize::from(self.begun);
        let mut dropped = 0;
        if policy == SlowPolicy::KeepLatest {
            let before = self.messages.len();
            let mut place = 0;
            self.messages.retain(|(_, policy, of)| {
                place += 1;
                place <= from || *policy != SlowPolicy::KeepLatest || *of != topic
            });
            dropped += before - self.messages.len();
        }
        loop {
            let bytes: usize = self.messages.iter().map(|(bytes, ..)| bytes.len()).sum();
            let kept = (self.messages.len() + 1) * Queue::MESSAGE_BYTES;
            if bytes == 0 || bytes + message.len() + following + kept <= bytes_max {
                break;
            }
            let mut waiting = self.messages.iter().enumerate().skip(from);
            let oldest = waiting.find(|(_, (_, policy, _))| *policy == SlowPolicy::DropOldest);
            let place = oldest.ok_or(Full)?.0;
            self.messages.remove(place);
            dropped += 1;
        }
        self.messages.push((message, policy, topic));
        Ok(dropped)
    }

    /// The first message is the rest of one.
    fn begins_with_second_piece(&self) -> bool {
        self.messages.first().is_some_and(|(_, _, of)| *of == SECOND_PIECE)
    }
}

proptest! {
    /// Against a list of messages, of which the first may have been written in part.
    #[test]
    fn bytes_come_out_as_they_went_in(steps in prop::collection::vec(step(), 0..300)) {
        const BYTES_MAX: usize = 2000;
        let topics = topics();
        let mut queue = Queue::default();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Push(message) => {
                    let pushed = queue.push(message.clone().into(), BYTES_MAX);
                    prop_assert_eq!(pushed, model.push(message, SlowPolicy::Close, 0, 0, BYTES_MAX));
                }
                Step::Reply(message) => {
                    let pushed = queue.push_reply(message.clone().into(), BYTES_MAX);
                    prop_assert_eq!(pushed, model.push(message, SlowPolicy::Close, REPLY, 0, BYTES_MAX));
                }
                Step::Publication(topic, policy, message) => {
                    let pushed =
                        queue.push_publication(topics[topic], policy, message.clone().into(), BYTES_MAX);
                    prop_assert_eq!(pushed, model.push(message, policy, topic, 0, BYTES_MAX));
                }
                Step::Pieces(first, second) => {
                    let pushed = queue.push_beginning(first.clone().into(), second.len(), BYTES_MAX);
                    let expected = model.push(first, SlowPolicy::Close, 0, second.len(), BYTES_MAX);
                    prop_assert_eq!(pushed, expected);
                    if pushed.is_ok() {
                        queue.push_continuation(second.clone().into());
                        model.messages.push((second, SlowPolicy::Close, SECOND_PIECE));
                    }
                }
                Step::SecondPiece(message) => {
                    if model.messages.is_empty() {
                        queue.push_continuation(message.clone().into());
                        model.messages.push((message, SlowPolicy::Close, SECOND_PIECE));
                        model.begun = true;
                    }
                }
                Step::Rest(message, is_reply) => {
                    if model.messages.is_empty() {
                        queue.push_rest(message.clone().into(), is_reply);
                        let topic = if is_reply { REPLY } else { 0 };
                        model.messages.push((message, SlowPolicy::Close, topic));
                        model.begun = true;
                    }
                }
                Step::Written(percent) => {
                    let given: usize = model.messages.iter().take(Queue::SLICES_MAX).map(|(bytes, ..)| bytes.len()).sum();
                    let mut written = given * percent / 100;
                    queue.advance(written);
                    model.written += written as u64;
                    while written > 0 {
                        let first = &mut model.messages[0].0;
                        let taken = written.min(first.len());
                        first.drain(..taken);
                        written -= taken;
                        model.begun = !first.is_empty();
                        if !model.begun {
                            model.messages.remove(0);
                            model.begun = model.begins_with_second_piece();
                        }
                    }
                }
                Step::Keep => {
                    queue.keep_begun();
                    let mut index = 0;
                    model.messages.retain(|(_, _, of)| {
                        index += 1;
                        model.begun && (index == 1 || index == 2 && *of == SECOND_PIECE)
                    });
                }
            }
            let all: Vec<Vec<u8>> = model.messages.iter().map(|(bytes, ..)| bytes.clone()).collect();
            prop_assert_eq!(filled(&queue), all.iter().take(Queue::SLICES_MAX).cloned().collect::<Vec<_>>());
            prop_assert_eq!(queue.bytes(), all.iter().map(Vec::len).sum::<usize>());
            let replies = model.messages.iter().filter(|(_, _, of)| *of == REPLY);
            prop_assert_eq!(queue.reply_bytes(), replies.map(|(bytes, ..)| bytes.len()).sum::<usize>());
            prop_assert_eq!(queue.written(), model.written);
            prop_assert_eq!(queue.is_empty(), all.is_empty());
        }
        let all: Vec<Vec<u8>> = model.messages.into_iter().map(|(bytes, ..)| bytes).collect();
        prop_assert_eq!(all, queue.into_chunks().collect::<Vec<_>>());
    }
}
