//! `rooms`: many small topics, each client in a few of them; what does a delivery cost if little is shared?

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
pub(crate) struct RoomsArguments {
    /// Topics
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rooms: u32,
    /// Clients in each
    #[arg(long, default_value_t = 20, value_name = "CLIENTS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) members: u32,
    /// Rooms that each client is in
    #[arg(long, default_value_t = 2, value_name = "ROOMS", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) topics_per_client: u32,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

pub(crate) fn run(arguments: &RoomsArguments, bench: &mut Bench<'_>) -> Result<Report, LoadError> {
    let RoomsArguments { rooms, members, topics_per_client, load, .. } = arguments;
    let (rooms, members, per_client) = (*rooms as usize, *members as usize, *topics_per_client as usize);
    if per_client > rooms {
        let told = format!("a client cannot be in {per_client} of {rooms} rooms");
        return Err(LoadError::Unsupported(told));
    }
    let clients = (rooms * members).div_ceil(per_client);
    let mut described = described(&[
        ("rooms", rooms.to_string()),
        ("members", members.to_string()),
        ("rooms of a client", per_client.to_string()),
        ("clients", clients.to_string()),
    ]);
    described.extend(load.described());
    let outline = Outline {
        scenario: "rooms",
        about: "many small topics; messages go to all of them in a fixed pseudo-random order".to_owned(),
        load: described,
        bounds: Vec::new(),
    };
    let route = Route::Spread { topics: rooms };
    let plan = Plan {
        clients,
        seats: Seats::Rooms { rooms, per_client },
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
