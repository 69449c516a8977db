//! Bursts of everything that can happen to many sessions at once, against a simple reference.
//!
//! The owners of topics answer each topic's requests in order, but whenever they like; users are registered
//! whenever they like. Whatever the order, what clients were told, what the registry holds and what the owners
//! believe have to agree.

mod reference;
mod world;

use proptest::prelude::*;

use world::World;

/// One thing that happens. Numbers choose among what is there at that moment.
#[derive(Clone, Debug)]
enum Step {
    Connect {
        token: usize,
    },
    Say {
        client: usize,
        topic: usize,
        what: Saying,
    },
    /// The client goes without a word.
    Leave {
        client: usize,
    },
    Kick {
        client: usize,
    },
    ServerSubscribe {
        client: usize,
        topic: usize,
    },
    ServerUnsubscribe {
        client: usize,
        topic: usize,
    },
    /// A topic's stream has a hole.
    Lose {
        topic: usize,
    },
    /// A topic's owner does what it was asked longest ago; `accept` says whether it makes a subscription.
    Work {
        topic: usize,
        accept: bool,
    },
    /// The oldest answer of a topic's owner arrives.
    Deliver {
        topic: usize,
    },
    /// The oldest registration is decided.
    Register {
        accept: bool,
    },
    /// Everything that is on its way arrives.
    Settle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saying {
    Subscribe,
    Unsubscribe,
    Publish,
}

/// Indices are taken modulo what is there.
fn any_index() -> impl Strategy<Value = usize> {
    0..60_usize
}

fn step() -> impl Strategy<Value = Step> {
    let saying =
        prop_oneof![4 => Just(Saying::Subscribe), 4 => Just(Saying::Unsubscribe), 2 => Just(Saying::Publish)];
    let mostly = || prop::bool::weighted(0.85);
    prop_oneof![
        3 => any_index().prop_map(|token| Step::Connect { token }),
        30 => (any_index(), any_index(), saying)
            .prop_map(|(client, topic, what)| Step::Say { client, topic, what }),
        1 => any_index().prop_map(|client| Step::Leave { client }),
        1 => any_index().prop_map(|client| Step::Kick { client }),
        2 => (any_index(), any_index()).prop_map(|(client, topic)| Step::ServerSubscribe { client, topic }),
        3 => (any_index(), any_index()).prop_map(|(client, topic)| Step::ServerUnsubscribe { client, topic }),
        1 => any_index().prop_map(|topic| Step::Lose { topic }),
        20 => (any_index(), mostly()).prop_map(|(topic, accept)| Step::Work { topic, accept }),
        20 => any_index().prop_map(|topic| Step::Deliver { topic }),
        4 => mostly().prop_map(|accept| Step::Register { accept }),
        1 => Just(Step::Settle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_everybody_agrees(steps in prop::collection::vec(step(), 1..300)) {
        let mut world = World::default();
        for step in steps {
            world.step(&step);
            world.check();
        }
        world.settle();
        world.everybody_leaves();
    }
}
