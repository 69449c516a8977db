//! From a delivery to what each subscriber is about to be written, as a shard does it, without sockets.

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_hub::SlowPolicy;
use fanwire_hub::delivery::Delivery;
use fanwire_hub::fanout::{Destination, Fanout, Group};
use fanwire_hub::outbox::{Chain, Outbox};
use fanwire_hub::queue::Queue;
use fanwire_hub::registry::{Registry, SubscriberKind};
use fanwire_hub::wheel::Wheel;
use fanwire_protocol::reply::Push;
use fanwire_protocol::websocket::Deflate;
use fanwire_protocol::wire::Wire;
use fanwire_protocol::{Cursor, Epoch, Position, Publication, TopicName};
use slab::Slab;

use crate::harness::{Case, repeat};

pub(crate) const CASES: [Case; 15] = [
    Case {
        name: "delivery: encoded as JSON frame",
        rounds: 5_000,
        run: |rounds| encode(rounds, Wire::CentrifugeJson, None),
    },
    Case {
        name: "delivery: encoded as Protobuf frame",
        rounds: 5_000,
        run: |rounds| encode(rounds, Wire::CentrifugeProtobuf, None),
    },
    Case {
        name: "delivery: encoded as event",
        rounds: 5_000,
        run: |rounds| encode(rounds, Wire::Events, None),
    },
    Case {
        name: "delivery: encoded as event with cursor",
        rounds: 5_000,
        run: |rounds| encode(rounds, Wire::Events, Some(epoch())),
    },
    Case { name: "delivery: an event with a cursor of its own, each", rounds: 5_000, run: own_cursor },
    Case {
        name: "fan-out: a publication to one subscriber",
        rounds: 10_000,
        run: |rounds| fan_out(rounds, 1, 1, &[Wire::CentrifugeJson], None),
    },
    Case {
        name: "fan-out: a publication to 1,000 subscribers, each",
        rounds: 100,
        run: |rounds| fan_out(rounds, 1_000, 1, &[Wire::CentrifugeJson], None),
    },
    Case {
        name: "fan-out: a publication to 10,000 subscribers, each",
        rounds: 10,
        run: |rounds| fan_out(rounds, 10_000, 1, &[Wire::CentrifugeJson], None),
    },
    Case {
        name: "fan-out: a publication on three wires, 1,000 subscribers, each",
        rounds: 100,
        run: |rounds| {
            fan_out(rounds, 1_000, 1, &[Wire::CentrifugeJson, Wire::CentrifugeProtobuf, Wire::Events], None)
        },
    },
    Case {
        name: "fan-out: a publication on six wires, 1,000 subscribers, each",
        rounds: 100,
        run: |rounds| fan_out(rounds, 1_000, 1, &SIX_WIRES, None),
    },
    Case {
        name: "fan-out: four publications to 1,000 subscribers, each",
        rounds: 50,
        run: |rounds| fan_out(rounds, 1_000, 4, &[Wire::CentrifugeJson], None),
    },
    Case {
        name: "fan-out: a compressed publication to 1,000 subscribers, each",
        rounds: 100,
        run: |rounds| fan_out(rounds, 1_000, 1, &[Wire::CentrifugeJson], deflate()),
    },
    Case { name: "queue: a message in and out", rounds: 200, run: queue },
    Case { name: "queue: a publication in place of the oldest", rounds: 20_000, run: drop_oldest },
    Case { name: "wheel: an entry that comes up", rounds: 500, run: wheel },
];

const PAYLOAD_BYTES: usize = 128;

fn epoch() -> Epoch {
    Epoch::from_random(7)
}

const SIX_WIRES: [Wire; 6] = [
    Wire::CentrifugeJson,
    Wire::CentrifugeProtobuf,
    Wire::CentrifugeLines,
    Wire::CentrifugeStream,
    Wire::UniEvents,
    Wire::Events,
];

/// Encodes a publication, of a stream if there is an epoch.
fn encode(rounds: u64, wire: Wire, epoch: Option<Epoch>) -> u64 {
    let topic = topic();
    let publication = Arc::new(Publication { data: payload(), offset: 7, ..Publication::default() });
    repeat(rounds, 1, || {
        let publication = Arc::clone(&publication);
        let delivery =
            Delivery::new(Push::Publication { topic: topic.clone(), publication, epoch, shows_time: false });
        black_box(delivery.bytes(wire));
    })
}

/// Moves the cursor of a listener to 16 topics on, and puts it before the bytes that others get.
fn own_cursor(rounds: u64) -> u64 {
    let publication = Arc::new(Publication { data: payload(), offset: 7, ..Publication::default() });
    let delivery = Delivery::new(Push::Publication {
        topic: topic(),
        publication,
        epoch: Some(epoch()),
        shows_time: false,
    });
    let encoded = delivery.encoded(Wire::Events);
    let mut cursor = Cursor::default();
    cursor.set(topic().as_str(), Position { epoch: epoch(), offset: 0 });
    for number in 1..Cursor::TOPICS_MAX {
        cursor.set(&format!("chat:{number}"), Position { epoch: epoch(), offset: 1000 });
    }
    let place = cursor.place(topic().as_str()).expect("it was set");
    let mut offset = 1000;
    repeat(rounds, 1, || {
        offset += 1;
        cursor.advance_at(place, Position { epoch: epoch(), offset });
        black_box(Wire::Events.with_cursor(encoded, &cursor));
    })
}

/// Links so many publications to each subscriber and takes the chains.
fn fan_out(
    rounds: u64,
    subscribers: usize,
    publications: usize,
    wires: &[Wire],
    deflate: Option<Deflate>,
) -> u64 {
    let mut registry = Registry::default();
    let mut connections = Slab::new();
    for wire in wires.iter().cycle().take(subscribers) {
        let connection = connections.insert(Connection::new(deflate));
        registry.add(&topic(), connection as u32, kind(*wire), false);
    }
    let publication = Arc::new(Publication { data: payload(), offset: 7, ..Publication::default() });
    let delivery =
        Delivery::new(Push::Publication { topic: topic(), publication, epoch: None, shows_time: false });
    let bytes: usize = wires.iter().cycle().take(subscribers).map(|wire| delivery.bytes(*wire).len()).sum();
    let topic = registry.find(&topic()).expect("there are subscribers");
    let group = Group { topic, deliveries: &[Arc::new(delivery)] };
    let mut fanout = Fanout::default();
    let mut outbox = Outbox::default();
    let mut delivered = 0;
    repeat(rounds, subscribers * publications, || {
        for _ in 0..publications {
            let alone = |_, _: &mut _, _: &mut _, _| unreachable!("every connection was answered");
            fanout.link(group, &registry, &mut connections, &mut outbox, |_| None, alone);
            delivered += fanout.delivered(&registry).map(|(_, messages)| messages).sum::<u64>();
        }
        let mut taken = 0;
        while let Some(connection) = outbox.next_connection() {
            for parcel in outbox.take(&mut connections[connection as usize].chain) {
                taken += black_box(parcel).bytes().len();
            }
        }
        assert_eq!(taken, publications * bytes);
        outbox.reset();
    });
    assert_eq!(delivered, rounds * (subscribers * publications) as u64);
    delivered
}

/// Stands in for a shard's connection: as large, with what fan-out reads of it.
#[repr(C)]
struct Connection {
    socket: [u64; 2],
    chain: Chain,
    other: [u64; 8],
    is_live: bool,
    deflate: Option<Deflate>,
    session: [u64; 10],
}

const _: () = assert!(size_of::<Connection>() == 176);

impl Connection {
    fn new(deflate: Option<Deflate>) -> Self {
        let chain = Chain::default();
        Self { socket: [0; 2], chain, other: [0; 8], is_live: true, deflate, session: [0; 10] }
    }
}

impl Destination for Connection {
    fn takes_compressed(&self, longest: impl FnOnce() -> usize) -> bool {
        self.deflate.is_some_and(|deflate| deflate.takes(longest()))
    }

    fn chain(&mut self) -> Option<&mut Chain> {
        self.is_live.then_some(&mut self.chain)
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

fn deflate() -> Option<Deflate> {
    Deflate::negotiate(["permessage-deflate; client_no_context_takeover"]).map(|agreement| agreement.deflate)
}

fn kind(wire: Wire) -> SubscriberKind {
    SubscriberKind { wire, joins: false, slow: SlowPolicy::Close, is_filtered: false }
}

fn payload() -> Bytes {
    let text = "x".repeat(PAYLOAD_BYTES - 2);
    format!("\"{text}\"").into()
}

fn topic() -> TopicName {
    TopicName::new("chat:lobby").expect("the name is not empty")
}
