//! The beginning of a stream: the topics that it has, and what these brought before its response was decided.
//!
//! It is kept as publications, not as bytes: the cursor of each needs the places in all topics, and those are known only once
//! all topics are subscribed.

use std::sync::Arc;

use fanwire_hub::SlowPolicy;
use fanwire_hub::delivery::Delivery;
use fanwire_hub::queue::{Full, Queue};
use fanwire_protocol::cursor::Parsed;
use fanwire_protocol::reply::{Push, Subscribed};
use fanwire_protocol::wire::{Encoded, Wire};
use fanwire_protocol::{Cursor, Position, TopicName};
use rustc_hash::FxHashSet;

/// The beginning of a stream, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    topics: Vec<Granted>,
    /// The publications that the client missed. They come before `live`, which their topics brought later.
    recovered: Vec<Push>,
    live: Vec<Live>,
    /// The bytes that they come to, with all that the wire puts around them.
    live_bytes: usize,
}

/// A delivery that waits for the response.
#[derive(Debug)]
struct Live {
    delivery: Arc<Delivery>,
    policy: SlowPolicy,
    bytes: usize,
}

/// A topic of the stream.
#[derive(Debug)]
struct Granted {
    topic: TopicName,
    /// The place where the stream begins, before what is recovered. `None` if the client has no position in the topic.
    start: Option<Position>,
    /// The client goes on where it left off. `None` if it does not come from anywhere.
    recovered: Option<bool>,
}

impl Beginning {
    /// Adds a topic, and what the client missed there. `resume` is the cursor that the client came with.
    pub(super) fn grant(&mut self, topic: &TopicName, subscribed: &Subscribed, resume: Option<&Parsed>) {
        let is_new = match resume {
            None => true,
            Some(Parsed::OtherVersion) => false,
            // A topic without a place in any cursor may always miss something.
            Some(Parsed::Cursor(cursor)) => {
                subscribed.positioned && cursor.position(topic.as_str()).is_none()
            }
        };
        let missed = subscribed.recovered.as_deref();
        let start = subscribed.top.map(|top| match missed.unwrap_or_default() {
            [] => top,
            [first, ..] => Position { offset: first.offset.saturating_sub(1), ..top },
        });
        let recovered = (!is_new).then_some(subscribed.was_recovering && missed.is_some());
        self.topics.push(Granted { topic: topic.clone(), start, recovered });
        let epoch = subscribed.top.map(|top| top.epoch);
        let shows_time = subscribed.shows_time;
        self.recovered.extend(missed.into_iter().flatten().map(|publication| Push::Publication {
            topic: topic.clone(),
            publication: publication.clone(),
            epoch,
            shows_time,
        }));
    }

    /// Keeps what a topic brings. At the bound older publications give way where the policy allows it; says how many did.
    pub(super) fn keep(
        &mut self,
        deliveries: &[Arc<Delivery>],
        wire: Wire,
        policy: SlowPolicy,
        bytes_max: usize,
    ) -> Result<usize, Full> {
        let before = self.live.len();
        let mut kept = 0;
        for delivery in deliveries {
            let Some(bytes) = kept_bytes(delivery, wire) else { continue };
            // Joins and leaves never give way.
            let policy = if delivery.push.is_join_or_leave() { SlowPolicy::Close } else { policy };
            self.live_bytes += bytes;
            self.live.push(Live { delivery: delivery.clone(), policy, bytes });
            kept += 1;
            if self.live_bytes > bytes_max {
                self.give_way(bytes_max);
            }
            // As in a queue, one always fits.
            if self.live_bytes > bytes_max && self.live.len() > 1 {
                return Err(Full);
            }
        }
        Ok(before + kept - self.live.len())
    }

    /// Lets publications give way for which a newer one is kept: all but the newest of their topic, or the oldest. A quarter of
    /// the bound gets free where it can, so that few deliveries have to look for room.
    fn give_way(&mut self, bytes_max: usize) {
        let room = bytes_max - bytes_max / 4;
        let last = self.live.len().saturating_sub(1);
        let mut newest = FxHashSet::default();
        for live in self.live.iter_mut().rev().filter(|live| live.policy == SlowPolicy::KeepLatest) {
            if live.delivery.push.topic().is_some_and(|topic| !newest.insert(topic.clone())) {
                self.live_bytes -= std::mem::take(&mut live.bytes);
            }
        }
        for live in self.live[..last].iter_mut().filter(|live| live.policy == SlowPolicy::DropOldest) {
            if self.live_bytes <= room {
                break;
            }
            self.live_bytes -= std::mem::take(&mut live.bytes);
        }
        self.live.retain(|live| live.bytes > 0);
    }

    pub(super) fn has_topics(&self) -> bool {
        !self.topics.is_empty()
    }

    /// Returns true if there are messages, or some may be missing.
    pub(super) fn has_news(&self) -> bool {
        let may_miss_some = self.topics.iter().any(|granted| granted.recovered == Some(false));
        may_miss_some || !self.recovered.is_empty() || !self.live.is_empty()
    }

    /// The topics in which the client has a position.
    pub(super) fn positions(&self) -> usize {
        self.topics.iter().filter(|granted| granted.start.is_some()).count()
    }

    /// Appends the topics, and all that they brought.
    pub(super) fn write(self, wire: Wire, has_own_cursor: bool, to: &mut Vec<u8>) {
        let mut cursor = Cursor::default();
        for Granted { topic, start, .. } in &self.topics {
            if let Some(start) = start {
                cursor.set(topic.as_str(), *start);
            }
        }
        let topics = self.topics.iter().map(|granted| (&granted.topic, granted.recovered));
        wire.begin(topics, &cursor, to);
        let mut write = |push: &Push, encoded: &Encoded| match push.topic().zip(push.position()) {
            Some((topic, at)) if has_own_cursor => {
                cursor.advance(topic.as_str(), at);
                wire.with_cursor(encoded, &cursor).iter().for_each(|piece| to.extend_from_slice(piece));
            }
            _ => to.extend_from_slice(&encoded.bytes),
        };
        self.recovered.iter().for_each(|push| write(push, &wire.encode(push, None)));
        self.live.iter().for_each(|live| write(&live.delivery.push, live.delivery.encoded(wire)));
    }
}

/// Returns the bytes that a delivery counts for while it is kept; `None` where the wire has no form for it. The cursor that it
/// brings is known later: it counts as the longest.
fn kept_bytes(delivery: &Delivery, wire: Wire) -> Option<usize> {
    let bytes = delivery.bytes(wire).len();
    let has_cursor = wire.has_cursor() && delivery.push.position().is_some();
    let cursor = if has_cursor { Cursor::TEXT_BYTES_MAX } else { 0 };
    (bytes > 0).then_some(bytes + cursor + Queue::MESSAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanwire_protocol::{Epoch, Publication};

    use super::*;

    const BYTES_MAX: usize = 10_000;

    fn topic(name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    fn at(offset: u64) -> Position {
        Position { epoch: Epoch::from_random(7), offset }
    }

    fn publication(offset: u64) -> Arc<Publication> {
        Arc::new(Publication { data: Bytes::from_static(b"1"), offset, ..Publication::default() })
    }

    fn delivery(name: &str, offset: u64) -> Arc<Delivery> {
        let (publication, epoch) = (publication(offset), (offset > 0).then_some(at(0).epoch));
        Arc::new(Delivery::new(Push::Publication {
            topic: topic(name),
            publication,
            epoch,
            shows_time: false,
        }))
    }

    /// A topic with history, up to `top`, of which these were missed.
    fn subscribed(top: u64, recovered: Option<&[u64]>) -> Subscribed {
        let recovered = recovered.map(|offsets| offsets.iter().map(|offset| publication(*offset)).collect());
        Subscribed {
            positioned: true,
            recoverable: true,
            was_recovering: recovered.is_some(),
            top: Some(at(top)),
            recovered,
            ..Subscribed::default()
        }
    }

    fn cursor(places: &[(&str, u64)]) -> Cursor {
        let mut cursor = Cursor::default();
        places.iter().for_each(|(topic, offset)| cursor.set(topic, at(*offset)));
        cursor
    }

    fn written(beginning: Beginning, has_own_cursor: bool) -> Vec<String> {
        let mut bytes = Vec::new();
        beginning.write(Wire::Events, has_own_cursor, &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        text.split_terminator("\n\n").map(str::to_owned).collect()
    }

    fn begins(cursor: &Cursor, topics: &str) -> String {
        let cursor = cursor.text();
        format!(
            "event: subscribed\nid: {cursor}\ndata: {{\"subscribed\":[{topics}],\"cursor\":\"{cursor}\"}}"
        )
    }

    fn event(cursor: &Cursor, topic: &str, offset: u64) -> String {
        let cursor = cursor.text();
        format!("id: {cursor}\ndata: {{\"topic\":\"{topic}\",\"data\":1,\"offset\":{offset}}}")
    }

    #[test]
    fn the_first_cursor_is_where_the_stream_starts_and_each_publication_moves_on() {
        let mut beginning = Beginning::default();
        let resume = Parsed::Cursor(cursor(&[("a", 3), ("b", 5)]));
        beginning.grant(&topic("a"), &subscribed(5, Some(&[4, 5])), Some(&resume));
        beginning.keep(&[delivery("a", 6)], Wire::Events, SlowPolicy::Close, BYTES_MAX).unwrap();
        beginning.grant(&topic("b"), &subscribed(6, Some(&[6])), Some(&resume));
        beginning.keep(&[delivery("b", 7)], Wire::Events, SlowPolicy::Close, BYTES_MAX).unwrap();
        let expected = [
            begins(
                &cursor(&[("a", 3), ("b", 5)]),
                r#"{"topic":"a","recovered":true},{"topic":"b","recovered":true}"#,
            ),
            event(&cursor(&[("a", 4), ("b", 5)]), "a", 4),
            event(&cursor(&[("a", 5), ("b", 5)]), "a", 5),
            event(&cursor(&[("a", 5), ("b", 6)]), "b", 6),
            event(&cursor(&[("a", 6), ("b", 6)]), "a", 6),
            event(&cursor(&[("a", 6), ("b", 7)]), "b", 7),
        ];
        assert_eq!(written(beginning, true), expected);
    }

    #[test]
    fn a_topic_alone_has_the_cursor_that_all_share() {
        let mut beginning = Beginning::default();
        beginning.grant(&topic("a"), &subscribed(5, None), None);
        beginning.keep(&[delivery("a", 6)], Wire::Events, SlowPolicy::Close, BYTES_MAX).unwrap();
        let expected =
            [begins(&cursor(&[("a", 5)]), r#"{"topic":"a"}"#), event(&cursor(&[("a", 6)]), "a", 6)];
        assert_eq!(written(beginning, false), expected);
    }

    #[test]
    fn a_topic_without_position_is_in_no_cursor_and_never_recovered() {
        let resume = Parsed::Cursor(cursor(&[("a", 5)]));
        let mut beginning = Beginning::default();
        beginning.grant(&topic("a"), &subscribed(5, Some(&[])), Some(&resume));
        beginning.grant(&topic("plain"), &Subscribed::default(), Some(&resume));
        beginning.grant(&topic("new"), &subscribed(9, None), Some(&resume));
        beginning
            .keep(&[delivery("plain", 0), delivery("plain", 3)], Wire::Events, SlowPolicy::Close, BYTES_MAX)
            .unwrap();
        let cursor = cursor(&[("a", 5), ("new", 9)]);
        let topics = r#"{"topic":"a","recovered":true},{"topic":"plain","recovered":false},{"topic":"new"}"#;
        let expected = [
            begins(&cursor, topics),
            "data: {\"topic\":\"plain\",\"data\":1}".to_owned(),
            event(&cursor, "plain", 3),
        ];
        assert_eq!(written(beginning, true), expected);
    }

    #[test]
    fn a_resume_that_is_not_complete_says_so() {
        let (mut lost, mut foreign) = (Beginning::default(), Beginning::default());
        let resume = Parsed::Cursor(cursor(&[("a", 3)]));
        lost.grant(&topic("a"), &Subscribed { was_recovering: true, ..subscribed(5, None) }, Some(&resume));
        foreign.grant(&topic("a"), &subscribed(5, None), Some(&Parsed::OtherVersion));
        let expected = begins(&cursor(&[("a", 5)]), r#"{"topic":"a","recovered":false}"#);
        assert_eq!(written(lost, false), [&*expected]);
        assert_eq!(written(foreign, false), [expected]);
    }

    #[test]
    fn what_is_kept_is_bounded_like_a_queue() {
        let mut beginning = Beginning::default();
        assert_eq!(
            beginning.keep(&[delivery("a", 1)], Wire::Events, SlowPolicy::Close, 10),
            Ok(0),
            "one always fits"
        );
        assert_eq!(beginning.keep(&[delivery("a", 2)], Wire::Events, SlowPolicy::Close, 10), Err(Full));
    }

    #[test]
    fn at_the_bound_publications_give_way_as_their_topics_allow() {
        let keep_all = |policy, topics: &[&str]| {
            let mut beginning = Beginning::default();
            let mut dropped = 0;
            for offset in 1..=100 {
                for topic in topics {
                    // Each takes about 650 bytes.
                    let deliveries = [delivery(topic, offset)];
                    dropped += beginning.keep(&deliveries, Wire::Events, policy, BYTES_MAX)?;
                }
            }
            assert!(beginning.live_bytes <= BYTES_MAX);
            let kept = beginning.live.iter().map(|live| live.delivery.push.position().unwrap().offset);
            Ok((kept.collect::<Vec<_>>(), dropped))
        };
        assert_eq!(keep_all(SlowPolicy::Close, &["a"]), Err(Full));
        let (oldest_gone, dropped) = keep_all(SlowPolicy::DropOldest, &["a"]).unwrap();
        assert!(oldest_gone.len() > 5, "{oldest_gone:?}");
        assert_eq!(oldest_gone, (101 - oldest_gone.len() as u64..=100).collect::<Vec<_>>());
        assert_eq!(dropped, 100 - oldest_gone.len());
        let (latest, dropped) = keep_all(SlowPolicy::KeepLatest, &["a", "b"]).unwrap();
        assert_eq!((latest.last(), latest.len() + dropped), (Some(&100), 200));
    }

    /// Nothing gives way for a publication that could not be kept without it.
    #[test]
    fn what_may_not_give_way_closes() {
        let mut beginning = Beginning::default();
        let keep = |beginning: &mut Beginning, topic, offset, policy| {
            beginning.keep(&[delivery(topic, offset)], Wire::Events, policy, 1000)
        };
        assert_eq!(keep(&mut beginning, "a", 1, SlowPolicy::Close), Ok(0));
        assert_eq!(keep(&mut beginning, "b", 1, SlowPolicy::KeepLatest), Err(Full));
    }

    /// A publication of one byte is written with its topic and the places in all topics.
    #[test]
    fn what_is_written_is_what_is_counted() {
        const KEPT_BYTES_MAX: usize = 64 << 10;
        let names: Vec<String> = (0..Cursor::TOPICS_MAX).map(|number| format!("{number:>0200}")).collect();
        let mut beginning = Beginning::default();
        for name in &names {
            beginning.grant(&topic(name), &subscribed(u64::MAX >> 1, None), None);
        }
        let begins = {
            let mut bytes = Vec::new();
            let topics = names.iter().map(|name| topic(name)).collect::<Vec<_>>();
            Wire::Events.begin(topics.iter().map(|topic| (topic, None)), &Cursor::default(), &mut bytes);
            bytes.len() + 2 * Cursor::TEXT_BYTES_MAX
        };
        let mut kept = 0;
        while beginning
            .keep(
                &[delivery(&names[0], (u64::MAX >> 1) + kept)],
                Wire::Events,
                SlowPolicy::Close,
                KEPT_BYTES_MAX,
            )
            .is_ok()
        {
            kept += 1;
        }
        assert!(kept > 50, "{kept}");
        let mut bytes = Vec::new();
        beginning.write(Wire::Events, true, &mut bytes);
        assert!(bytes.len() <= begins + KEPT_BYTES_MAX, "{}", bytes.len());
    }
}
