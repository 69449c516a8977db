//! `cluster`: several nodes on one Redis, clients spread over all of them, publishing to any; what does it cost nodes and
//! Redis?
//!
//! All nodes and Redis share the server's core, so CPU per delivery says more than the rate.

use clap::Args;

use crate::dialect::Seats;
use crate::error::LoadError;
use crate::load::{Load, described};
use crate::report::Report;
use crate::scenario::flow::{FullCore, Route, send};
use crate::scenario::{Bench, Outline, Plan, Stage};
use crate::settings::Settings;

/// Options of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterArguments {
    /// Connections, spread over the nodes by their numbers
    #[arg(long, default_value_t = 1000, value_name = "CLIENTS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) subscribers: u32,
    /// Topics, each client in one of them; each has subscribers on every node
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) topics: u32,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

pub(crate) fn run(arguments: &ClusterArguments, bench: &mut Bench<'_>) -> Result<Report, LoadError> {
    let ClusterArguments { subscribers, topics, load, .. } = arguments;
    let (clients, topics) = (*subscribers as usize, *topics as usize);
    let mut described = described(&[("subscribers", clients.to_string()), ("topics", topics.to_string())]);
    described.extend(load.described());
    let outline = Outline {
        scenario: "cluster",
        about: "nodes on one Redis; clients spread over them, each publisher on one of them".to_owned(),
        load: described,
        bounds: Vec::new(),
    };
    let route = Route::Spread { topics };
    let plan = Plan {
        clients,
        seats: Seats::Rooms { rooms: topics, per_client: 1 },
        topic_prefix: None,
        load: None,
        lanes: route.lanes(load),
    };
    let subjects = bench.subjects();
    bench.run(outline, &subjects, |bench, subject| {
        let mut stage = Stage::open(bench, subject, &plan)?;
        send(bench, &mut stage, load, route, FullCore::SpoilsTheTurn)
    })
}
