//! `slow`: some clients stop reading; are the others affected, and does the server's memory stay bounded?
//!
//! Turns with and without stalled clients alternate. A stalled client may be closed as too slow; no other may.

use clap::Args;

use crate::client::Lost;
use crate::error::LoadError;
use crate::load::{Load, described};
use crate::measure::meter::server_memory;
use crate::report::{BoundRule, Report, Series, Turn};
use crate::scenario::flow::{FullCore, RESIDENT_MEMORY, Route, send};
use crate::scenario::{Bench, Outline, Plan, Stage};
use crate::settings::Settings;
use crate::subject::{Server, Subject};
use crate::target::fanwire::QUEUE_BYTES_MAX;

/// Maximum change of the others' latency.
const P99_RATIO_MAX: f64 = 1.1;
/// Maximum difference in memory between two turns for other reasons.
const MEMORY_NOISE_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// The close code of the Centrifuge protocol for a client that does not read fast enough.
const CLOSE_SLOW: u16 = 3008;

/// Options of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct SlowArguments {
    /// Connections, all subscribed to one topic
    #[arg(long, default_value_t = 1000, value_name = "CLIENTS", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) subscribers: u32,
    /// Percentage of them that stops reading once subscribed
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT", value_parser = percent)]
    pub(crate) stalled: f64,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

impl SlowArguments {
    /// Returns the number of stalled clients, at least one.
    fn stalled_clients(&self) -> usize {
        ((f64::from(self.subscribers) * self.stalled / 100.0).round() as usize).max(1)
    }
}

pub(crate) fn run(arguments: &SlowArguments, bench: &mut Bench<'_>) -> Result<Report, LoadError> {
    let SlowArguments { subscribers, stalled, load, .. } = arguments;
    let mut described = described(&[
        ("subscribers", subscribers.to_string()),
        ("stalled", arguments.stalled_clients().to_string()),
    ]);
    described.extend(load.described());
    let mut entries = Vec::new();
    let mut bounds = Vec::new();
    for (name, subject) in bench.subjects() {
        let (none, some) = (format!("{name}, none stalled"), format!("{name}, {stalled} % stalled"));
        bounds.push(BoundRule::ratio(&some, &none, "latency p99", P99_RATIO_MAX));
        bounds.push(BoundRule::absolute(&some, "stalled and still connected", 0.0));
        if subject.server == Server::Fanwire {
            let queues = arguments.stalled_clients() * QUEUE_BYTES_MAX;
            let at_most = queues as f64 + MEMORY_NOISE_BYTES;
            bounds.push(BoundRule::difference(&some, &none, "server memory peak growth", at_most));
        }
        entries.push((none, (subject.clone(), 0)));
        entries.push((some, (subject, arguments.stalled_clients())));
    }
    let outline = Outline {
        scenario: "slow",
        about: "some clients stop reading; latency is that of the others, and memory may grow by the queues of the stalled"
            .to_owned(),
        load: described,
        bounds,
    };
    bench.run(outline, &entries, |bench, (subject, stalled)| turn(arguments, bench, subject, *stalled))
}

fn turn(
    arguments: &SlowArguments,
    bench: &mut Bench<'_>,
    subject: &Subject,
    stalled: usize,
) -> Result<Turn, LoadError> {
    let SlowArguments { subscribers, load, .. } = arguments;
    let clients = *subscribers as usize;
    // The baseline takes no part: it needs sockets that accept everything.
    let plan = Plan::one_topic(*subscribers, Route::Shared.lanes(load));
    let mut stage = Stage::open(bench, subject, &plan)?;
    // Evenly among the others. Those of them whose latency is sampled drop out of the sample.
    for place in 0..stalled {
        stage.clients.stall(clients - 1 - place * clients / stalled);
    }
    let parts = stage.target.parts();
    let before = server_memory(&parts)?;
    let mut turn = send(bench, &mut stage, load, Route::Shared, FullCore::SpoilsTheTurn)?;
    if let Some((before, after)) = before.zip(server_memory(&parts)?) {
        turn.figure("server memory growth", "B", after.resident as f64 - before.resident as f64);
    }
    let memory = turn.series.iter().find(|series| series.name == RESIDENT_MEMORY);
    if let Some(Series { points, .. }) = memory
        && let Some((_, first)) = points.first()
    {
        let peak = points.iter().map(|(_, bytes)| *bytes).fold(*first, f64::max);
        turn.figure("server memory peak growth", "B", peak - first);
    }

    let (mut closed_slow, mut ended, mut connected) = (0, 0, 0);
    for outcome in stage.clients.resume_stalled()? {
        match outcome {
            None => connected += 1,
            Some(Lost::Closed { code: CLOSE_SLOW, .. }) => closed_slow += 1,
            // The close frame did not fit into the client's full buffer.
            Some(Lost::Ended | Lost::Io(_)) => ended += 1,
            Some(other) => turn.reasons.push(format!("a stalled client: {other}")),
        }
    }
    turn.figure("stalled and closed with 3008", "count", f64::from(closed_slow));
    turn.figure("stalled and cut off", "count", f64::from(ended));
    turn.figure("stalled and still connected", "count", f64::from(connected));
    Ok(turn)
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|percent| *percent > 0.0 && *percent <= 50.0);
    number.ok_or_else(|| "must be a number above 0 and up to 50".to_owned())
}
