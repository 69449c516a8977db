//! `fanout`: one topic, many subscribers, messages at a fixed rate; what does a delivery cost, compared with a bare send?

use clap::Args;

use crate::dialect::{PushFormat, Seats};
use crate::error::LoadError;
use crate::load::{Load, described};
use crate::report::{BoundRule, Report};
use crate::scenario::flow::{FullCore, Route, send};
use crate::scenario::{Bench, Outline, Plan, Stage};
use crate::settings::Settings;
use crate::subject::{Server, Subject, SubjectWire};

/// Multiples of a bare send's CPU, one message at a time and in bursts.
const CPU_OF_RAW_MAX: f64 = 1.2;
const CPU_OF_RAW_IN_BURSTS_MAX: f64 = 1.3;
/// Multiple of the peers' CPU.
const CPU_OF_PEERS_MAX: [(&str, f64); 3] = [("nchan", 0.75), ("ws", 0.75), ("socketio", 0.55)];
/// Multiples of plain WebSocket's CPU.
const CPU_OF_EVENTS_MAX: f64 = 1.15;
const CPU_OF_OTHER_WIRES_MAX: f64 = 1.2;
const CPU_OF_DEFLATE_MAX: f64 = 1.1;
const CPU_OF_FILTER_MAX: f64 = 1.1;
/// Multiple of a bare send's latency, one message at a time.
const P50_OF_RAW_MAX: f64 = 1.2;
const P99_OF_RAW_MAX: f64 = 2.0;

/// Options of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct FanoutArguments {
    /// Connections, all subscribed to one topic
    #[arg(long, default_value_t = 1000, value_name = "CLIENTS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) subscribers: u32,
    /// Topics, to all of which each is subscribed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=128))]
    pub(crate) topics: u32,
    /// Let topics keep publications, so that each has its place in every message; only with fanwire
    #[arg(long)]
    pub(crate) history: bool,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

impl FanoutArguments {
    /// Returns the clients of each turn, and the topics that messages go to.
    pub(crate) fn plan(&self, bench: &Bench<'_>) -> Result<(Plan<'_>, Route), LoadError> {
        let topics = self.topics as usize;
        let route = if topics == 1 { Route::Shared } else { Route::Spread { topics } };
        let plan = Plan {
            clients: self.subscribers as usize,
            seats: Seats::All { topics },
            topic_prefix: bench.prefix_with_history(self.history)?,
            load: Some(&self.load),
            lanes: route.lanes(&self.load),
        };
        Ok((plan, route))
    }

    pub(crate) fn described_audience(&self) -> Vec<(String, String)> {
        described(&[
            ("subscribers", self.subscribers.to_string()),
            ("topics", self.topics.to_string()),
            ("history", self.history.to_string()),
        ])
    }
}

pub(crate) fn run(arguments: &FanoutArguments, bench: &mut Bench<'_>) -> Result<Report, LoadError> {
    let load = &arguments.load;
    let (plan, route) = arguments.plan(bench)?;
    let mut described = arguments.described_audience();
    described.extend(load.described());
    let subjects = bench.subjects();
    let outline = Outline {
        scenario: "fanout",
        about:
            "topics with the same many subscribers; what a delivery costs, and how long the last hop takes"
                .to_owned(),
        load: described,
        bounds: bounds(load, &subjects),
    };
    bench.run(outline, &subjects, |bench, subject| {
        let mut stage = Stage::open(bench, subject, &plan)?;
        send(bench, &mut stage, load, route, FullCore::SpoilsTheTurn)
    })
}

fn bounds(load: &Load, subjects: &[(String, Subject)]) -> Vec<BoundRule> {
    const CPU: &str = "server CPU per delivery";
    let cpu_of_raw = if load.burst > 1 { CPU_OF_RAW_IN_BURSTS_MAX } else { CPU_OF_RAW_MAX };
    let mut rules = Vec::new();
    for (name, subject) in subjects.iter().filter(|(_, subject)| subject.server == Server::Fanwire) {
        let websocket = Subject { wire: subject.wire.over_websocket(), ..subject.clone() };
        let plain = Subject { deflate: false, ..subject.clone() };
        let unfiltered = Subject { filter: false, ..subject.clone() };
        if subject.wire == SubjectWire::Poll {
            // A delivery is a request, whose cost is no share of a publication's.
        } else if websocket != *subject {
            let at_most = match subject.wire {
                SubjectWire::Plain(PushFormat::Events) | SubjectWire::Uni(PushFormat::Events) => {
                    CPU_OF_EVENTS_MAX
                }
                _ => CPU_OF_OTHER_WIRES_MAX,
            };
            rules.push(BoundRule::ratio(name, &websocket.to_string(), CPU, at_most).required());
        } else if unfiltered != *subject {
            rules.push(BoundRule::ratio(name, &unfiltered.to_string(), CPU, CPU_OF_FILTER_MAX).required());
        } else if plain != *subject {
            rules.push(BoundRule::ratio(name, &plain.to_string(), CPU, CPU_OF_DEFLATE_MAX));
        } else {
            rules.push(BoundRule::ratio(name, "raw", CPU, cpu_of_raw));
            if load.burst == 1 {
                rules.push(BoundRule::ratio(name, "raw", "latency p50", P50_OF_RAW_MAX));
                rules.push(BoundRule::ratio(name, "raw", "latency p99", P99_OF_RAW_MAX));
            }
            for (peer, at_most) in CPU_OF_PEERS_MAX {
                rules.push(BoundRule::ratio(name, peer, CPU, at_most));
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wire_is_held_against_the_websocket_of_its_encoding() {
        let subjects = ["fanwire+sse+redis", "fanwire+http_stream+protobuf", "fanwire+bare", "raw"]
            .map(|text| (text.to_owned(), text.parse().unwrap()));
        let load = Load { rate: 1.0, payload: 128, burst: 1, seconds: 1, publishers: 1 };
        let expected = [
            ("fanwire+sse+redis", "fanwire+redis", CPU_OF_EVENTS_MAX),
            ("fanwire+http_stream+protobuf", "fanwire+protobuf", CPU_OF_OTHER_WIRES_MAX),
            ("fanwire+bare", "fanwire", CPU_OF_OTHER_WIRES_MAX),
        ];
        let expected = expected.map(|(subject, websocket, at_most)| {
            BoundRule::ratio(subject, websocket, "server CPU per delivery", at_most).required()
        });
        assert_eq!(bounds(&load, &subjects), expected);
    }
}
