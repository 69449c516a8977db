//! The bodies of requests with events: as many as may be in one, from as many outboxes as it takes.

use bytes::Bytes;
use fanwire_broker::{EventId, StoredEvent};
use serde::Serialize;

/// The limits of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchLimits {
    pub(super) events: usize,
    /// Of the whole body. The first event is in it, however long it is.
    pub(super) bytes: usize,
}

/// The company that the events of an outbox have in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// Events of other outboxes.
    Any,
    /// Events of the same outbox: a request with them has failed.
    Own,
    /// None: a request with several of them was refused.
    None,
}

/// A request's events: of each of its outboxes the oldest ones.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// The last event of each outbox.
    pub(super) last: Vec<EventId>,
    /// The first event of all.
    pub(super) first: StoredEvent,
    pub(super) events: usize,
    pub(super) body: Bytes,
}

const HEAD: &[u8] = br#"{"events":["#;
const TAIL: &[u8] = b"]}";

/// An event as the application gets it.
#[derive(Serialize)]
pub(crate) struct EventBody<'a> {
    id: String,
    event: &'a str,
    time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<ReasonBody<'a>>,
}

#[derive(Serialize)]
struct ReasonBody<'a> {
    code: u32,
    text: &'a str,
}

impl<'a> EventBody<'a> {
    pub(crate) fn of(event: &'a StoredEvent) -> Self {
        let reason = event.reason.as_ref();
        Self {
            id: event.id.to_string(),
            event: event.kind.as_str(),
            time: event.time,
            topic: event.topic.as_ref().map(|topic| topic.as_str()),
            user: event.user.as_deref(),
            client: event.client.map(|client| client.to_string()),
            reason: reason.map(|(code, text)| ReasonBody { code: *code, text }),
        }
    }
}

/// A batch that may get further events.
struct Open {
    last: Vec<EventId>,
    first: StoredEvent,
    events: usize,
    company: Company,
    body: Vec<u8>,
}

impl Open {
    fn new(first: &StoredEvent, company: Company) -> Self {
        let mut batch =
            Self { last: Vec::new(), first: first.clone(), events: 0, company, body: HEAD.to_vec() };
        batch.add(first, &json(first));
        batch
    }

    fn has_room(&self, json: &[u8], limits: BatchLimits) -> bool {
        let events_max = if self.company == Company::None { 1 } else { limits.events };
        self.events < events_max && self.body.len() + 1 + json.len() + TAIL.len() <= limits.bytes
    }

    fn add(&mut self, event: &StoredEvent, json: &[u8]) {
        if self.events > 0 {
            self.body.push(b',');
        }
        self.body.extend_from_slice(json);
        self.events += 1;
        match self.last.last_mut().filter(|last| last.slot == event.id.slot) {
            Some(last) => *last = event.id,
            None => self.last.push(event.id),
        }
    }

    fn close(mut self) -> Batch {
        self.body.extend_from_slice(TAIL);
        let Self { last, first, events, body, .. } = self;
        Batch { last, first, events, body: body.into() }
    }
}

impl Batch {
    /// Makes a request of one event.
    pub(super) fn single(event: &StoredEvent) -> Self {
        Open::new(event, Company::None).close()
    }
}

/// Packs events, those of an outbox together and in order. Of each outbox a batch has the oldest; what does not fit is left
/// out, since an outbox is in one batch at a time.
pub(super) fn pack(
    events: &[StoredEvent],
    limits: BatchLimits,
    company: impl Fn(u16) -> Company,
) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut shared: Option<Open> = None;
    for outbox in events.chunk_by(|one, next| one.id.slot == next.id.slot) {
        let company = company(outbox[0].id.slot);
        let mut open = if company == Company::Any { shared.take() } else { None };
        for event in outbox {
            let json = json(event);
            match &mut open {
                None => open = Some(Open::new(event, company)),
                Some(batch) if batch.has_room(&json, limits) => batch.add(event, &json),
                // It is full. An outbox that has nothing in it begins the next one.
                Some(batch) => {
                    let has_some = batch.last.iter().any(|last| last.slot == event.id.slot);
                    batches.extend(open.take().map(Open::close));
                    if has_some {
                        break;
                    }
                    open = Some(Open::new(event, company));
                }
            }
        }
        if company == Company::Any {
            shared = open;
        } else {
            batches.extend(open.map(Open::close));
        }
    }
    batches.extend(shared.map(Open::close));
    batches
}

fn json(event: &StoredEvent) -> Vec<u8> {
    serde_json::to_vec(&EventBody::of(event)).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use fanwire_broker::EventKind;
    use fanwire_protocol::{ClientId, TopicName};
    use uuid::Uuid;

    use super::*;

    pub(crate) fn event(slot: u16, sequence: u64) -> StoredEvent {
        StoredEvent {
            id: EventId { slot, millis: 1_700_000_000_000, sequence },
            kind: EventKind::UserOnline,
            time: 1_700_000_000_000,
            topic: None,
            user: Some("42".into()),
            client: None,
            reason: None,
        }
    }

    fn events(counts: &[(u16, u64)]) -> Vec<StoredEvent> {
        counts.iter().flat_map(|(slot, count)| (0..*count).map(|sequence| event(*slot, sequence))).collect()
    }

    /// Batches in short: the number of events, and of each outbox the last one.
    fn told(batches: &[Batch]) -> Vec<String> {
        let tell = |batch: &Batch| {
            let last = batch.last.iter().map(|id| format!(" {}:{}", id.slot, id.sequence));
            format!("{}{}", batch.events, last.collect::<String>())
        };
        batches.iter().map(tell).collect()
    }

    const LIMITS: BatchLimits = BatchLimits { events: 5, bytes: 10_000 };

    #[test]
    fn a_body_has_the_events_as_documented() {
        let whole = StoredEvent {
            kind: EventKind::Unsubscribed,
            topic: TopicName::new("chat:\"1\""),
            user: Some("".into()),
            client: Some(ClientId(Uuid::from_u128(7))),
            reason: Some((3000, "connection closed".into())),
            ..event(9, 3)
        };
        let batches = pack(&[whole, event(10, 0)], LIMITS, |_| Company::Any);
        let expected = concat!(
            r#"{"events":[{"id":"9-1700000000000-3","event":"unsubscribed","time":1700000000000,"topic":"chat:\"1\"","#,
            r#""user":"","client":"00000000-0000-0000-0000-000000000007","#,
            r#""reason":{"code":3000,"text":"connection closed"}},"#,
            r#"{"id":"10-1700000000000-0","event":"user_online","time":1700000000000,"user":"42"}]}"#,
        );
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].body, expected);
    }

    #[test]
    fn batches_are_filled_and_an_outbox_is_in_one_of_them() {
        for (counts, expected) in [
            (&[][..], &[][..]),
            (&[(1, 2), (2, 3)], &["5 1:1 2:2"]),
            (&[(1, 2), (2, 4), (3, 2)], &["5 1:1 2:2", "2 3:1"]),
            // The rest of an outbox is for another time.
            (&[(1, 12), (2, 1)], &["5 1:4", "1 2:0"]),
            (&[(1, 5), (2, 6)], &["5 1:4", "5 2:4"]),
        ] {
            assert_eq!(told(&pack(&events(counts), LIMITS, |_| Company::Any)), expected, "{counts:?}");
        }
    }

    #[test]
    fn outboxes_that_failed_are_among_themselves() {
        let company = |slot| match slot {
            2 => Company::Own,
            3 => Company::None,
            _ => Company::Any,
        };
        let batches = pack(&events(&[(1, 1), (2, 3), (3, 3), (4, 1)]), LIMITS, company);
        assert_eq!(told(&batches), ["3 2:2", "1 3:0", "2 1:0 4:0"]);
        assert_eq!(told(&pack(&events(&[(2, 9)]), LIMITS, company)), ["5 2:4"]);
    }

    #[test]
    fn a_body_is_within_its_bytes_but_for_a_single_event() {
        let two = pack(&events(&[(1, 2)]), LIMITS, |_| Company::Any)[0].body.len();
        for (bytes, expected) in [(two, "2 1:1"), (two - 1, "1 1:0"), (0, "1 1:0")] {
            let batches = pack(&events(&[(1, 3)]), BatchLimits { bytes, ..LIMITS }, |_| Company::Any);
            assert_eq!(told(&batches), [expected]);
            assert!(batches[0].body.len() <= bytes || batches[0].events == 1);
        }
        assert_eq!(told(&[Batch::single(&event(5, 6))]), ["1 5:6"]);
    }
}
