//! From a delivery to what each subscriber is about to be written, as a shard does it, without sockets.

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_hub::SlowPolicy;
use fanwire_hub::delivery::Delivery;
use fanwire_hub::outbox::{Chain, Outbox, Segment};
use fanwire_hub::queue::Queue;
use fanwire_hub::registry::{Registry, SubscriberKind, TopicSlot};
use fanwire_hub::wheel::Wheel;
use fanwire_protocol::reply::Push;
use fanwire_protocol::wire::Wire;
use fanwire_protocol::{Publication, TopicName};

use crate::harness::{Case, repeat};

pub(crate) const CASES: [Case; 10] = [
    Case {
        name: "delivery: encoded as JSON frame",
        rounds: 5_000,
        run: |rounds| encode(rounds, Wire::CentrifugeJson),
    },
    Case {
        name: "delivery: encoded as Protobuf frame",
        rounds: 5_000,
        run: |rounds| encode(rounds, Wire::CentrifugeProtobuf),
    },
    Case { name: "delivery: encoded as event", rounds: 5_000, run: |rounds| encode(rounds, Wire::Sse) },
    Case {
        name: "fan-out: one segment to 1,000 subscribers, each",
        rounds: 100,
        run: |rounds| fan_out(rounds, 1_000, 1, &[Wire::CentrifugeJson]),
    },
    Case {
        name: "fan-out: one segment to 10,000 subscribers, each",
        rounds: 10,
        run: |rounds| fan_out(rounds, 10_000, 1, &[Wire::CentrifugeJson]),
    },
    Case {
        name: "fan-out: three wires, 1,000 subscribers, each",
        rounds: 100,
        run: |rounds| fan_out(rounds, 1_000, 1, &[Wire::CentrifugeJson, Wire::CentrifugeProtobuf, Wire::Sse]),
    },
    Case {
        name: "fan-out: four segments to 1,000 subscribers, each",
        rounds: 50,
        run: |rounds| fan_out(rounds, 1_000, 4, &[Wire::CentrifugeJson]),
    },
    Case { name: "queue: a message in and out", rounds: 200, run: queue },
    Case { name: "queue: a publication in place of the oldest", rounds: 20_000, run: drop_oldest },
    Case { name: "wheel: an entry that comes up", rounds: 500, run: wheel },
];

const PAYLOAD_BYTES: usize = 128;

fn encode(rounds: u64, wire: Wire) -> u64 {
    let topic = topic();
    let publication = Arc::new(Publication { data: payload(), info: None, tags: None, offset: 7 });
    repeat(rounds, 1, || {
        let publication = Arc::clone(&publication);
        let delivery = Delivery::new(Push::Publication { topic: topic.clone(), publication, epoch: None });
        black_box(delivery.bytes(wire));
    })
}

/// Links so many segments to each subscriber and takes the chains.
fn fan_out(rounds: u64, subscribers: usize, segments: usize, wires: &[Wire]) -> u64 {
    let mut registry = Registry::default();
    let mut slot = None;
    for (connection, wire) in (0..subscribers as u32).zip(wires.iter().cycle()) {
        slot = Some(registry.add(&topic(), connection, kind(*wire), false).0);
    }
    let slot = slot.expect("there are subscribers");
    let mut chains = vec![Chain::default(); subscribers];
    let mut outbox = Outbox::default();
    let bytes = payload();
    repeat(rounds, subscribers * segments, || {
        for _ in 0..segments {
            link(&registry, slot, &mut outbox, &mut chains, &bytes);
        }
        let mut taken = 0;
        while let Some(connection) = outbox.next_connection() {
            for parcel in outbox.take(&mut chains[connection as usize]) {
                taken += black_box(parcel).bytes().len();
            }
        }
        assert_eq!(taken, subscribers * segments * bytes.len());
        outbox.reset();
    })
}

/// One segment for each wire, made when the first subscriber needs it.
fn link(registry: &Registry, slot: TopicSlot, outbox: &mut Outbox, chains: &mut [Chain], bytes: &Bytes) {
    let mut shares: [Option<Segment>; Registry::KINDS_MAX] = [None; Registry::KINDS_MAX];
    for subscriber in &registry.topic(slot).subscribers {
        let share = &mut shares[usize::from(subscriber.kind)];
        let segment = *share.get_or_insert_with(|| outbox.segment(bytes.clone()));
        outbox.link(subscriber.connection, &mut chains[subscriber.connection as usize], segment);
    }
}

/// Sixty-four messages wait; the socket takes them in parts that end inside a message.
fn queue(rounds: u64) -> u64 {
    const MESSAGES: usize = Queue::SLICES_MAX;
    const TAKEN_MAX: usize = 1_000;
    let bytes = payload();
    let mut queue = Queue::default();
    repeat(rounds, MESSAGES, || {
        for _ in 0..MESSAGES {
            queue.push(black_box(bytes.clone()), usize::MAX).expect("there is no bound");
        }
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); Queue::SLICES_MAX];
            let used = queue.fill(&mut slices);
            black_box(&slices[..used]);
            queue.advance(queue.bytes().min(TAKEN_MAX));
        }
    })
}

/// A full queue, as that of a client which reads nothing.
fn drop_oldest(rounds: u64) -> u64 {
    const BYTES_MAX: usize = 64 * 1024;
    let bytes = payload();
    let mut registry = Registry::default();
    let (slot, _) = registry.add(&topic(), 0, kind(Wire::CentrifugeJson), false);
    let mut queue = Queue::default();
    let mut push = || {
        let bytes = black_box(bytes.clone());
        queue.push_publication(slot, SlowPolicy::DropOldest, bytes, BYTES_MAX).expect("the oldest gives way")
    };
    while push() == 0 {}
    repeat(rounds, 1, || assert_eq!(push(), 1))
}

/// As many connections in each tick, which are entered again as for their next ping.
fn wheel(rounds: u64) -> u64 {
    const IN_A_TICK: u32 = 64;
    const TICKS_AHEAD: u32 = 250;
    let mut wheel = Wheel::new();
    let mut millis = 0;
    for tick in 1..=TICKS_AHEAD {
        for connection in 0..IN_A_TICK {
            wheel.enter(tick * IN_A_TICK + connection, u64::from(tick) * Wheel::TICK_MILLIS);
        }
    }
    let mut tick = || {
        millis += Wheel::TICK_MILLIS;
        let due = wheel.advance(millis).expect("a tick has passed");
        for connection in &due {
            wheel.enter(*connection, millis + u64::from(TICKS_AHEAD) * Wheel::TICK_MILLIS);
        }
        due.len()
    };
    repeat(rounds, IN_A_TICK as usize, || assert_eq!(tick(), IN_A_TICK as usize))
}

fn kind(wire: Wire) -> SubscriberKind {
    SubscriberKind { wire, joins: false, slow: SlowPolicy::Close }
}

fn payload() -> Bytes {
    let text = "x".repeat(PAYLOAD_BYTES - 2);
    format!("\"{text}\"").into()
}

fn topic() -> TopicName {
    TopicName::new("chat:lobby").expect("the name is not empty")
}
