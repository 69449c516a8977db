//! `users`: a topic for each user, messages to one user at a time; what does a publication cost that is not shared?

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
pub(crate) struct UsersArguments {
    /// Connections, each with a topic of its own
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) users: u32,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

pub(crate) fn run(arguments: &UsersArguments, bench: &mut Bench<'_>) -> Result<Report, LoadError> {
    let UsersArguments { users, load, .. } = arguments;
    let users = *users as usize;
    let mut described = described(&[("users", users.to_string())]);
    described.extend(load.described());
    let outline = Outline {
        scenario: "users",
        about: "a topic for each user; every message has one receiver, in a fixed pseudo-random order"
            .to_owned(),
        load: described,
        bounds: Vec::new(),
    };
    let route = Route::Spread { topics: users };
    let plan =
        Plan { clients: users, seats: Seats::Own, topic_prefix: None, load: None, lanes: route.lanes(load) };
    let subjects = bench.subjects();
    bench.run(outline, &subjects, |bench, subject| {
        let mut stage = Stage::open(bench, subject, &plan)?;
        send(bench, &mut stage, load, route, FullCore::SpoilsTheTurn)
    })
}
