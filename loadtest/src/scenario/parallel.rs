//! `parallel`: one publication to very many subscribers who do not read meanwhile; do shards share the work?
//!
//! The kernel notes when each connection received its message, and on loopback that is when it was sent. So this process
//! can sleep while the server has all cores, and read afterwards.

use std::time::Duration;

use clap::Args;

use crate::dialect::Seats;
use crate::error::LoadError;
use crate::measure::histogram::Recorder;
use crate::measure::meter::Meter;
use crate::publish::Messages;
use crate::report::{BoundRule, Report, Spread, Turn};
use crate::scenario::{Bench, Outline, Plan, Stage, described};
use crate::settings::Settings;
use crate::subject::Subject;

/// Of the time and of the CPU with one shard.
const SPREAD_RATIO_MAX: f64 = 0.6;
const CPU_RATIO_MAX: f64 = 1.0;
/// The server is done when it used next to nothing for so long.
const REST: Duration = Duration::from_millis(250);
const REST_CPU_US_MAX: f64 = 5_000.0;
/// A fan-out that is not over by then is given up.
const REST_CHECKS_MAX: u32 = 40;

/// What to do.
#[derive(Args, Clone, Debug)]
pub(crate) struct ParallelArguments {
    /// Connections, all subscribed to one topic
    #[arg(long, default_value_t = 10_000, value_name = "CLIENTS", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) subscribers: u32,
    /// Publications in a turn, one after the other
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) publications: u32,
    /// Bytes of a message, without the protocol's envelope
    #[arg(long, default_value_t = 128, value_name = "BYTES", value_parser = super::payload_bytes)]
    pub(crate) payload: usize,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

pub(crate) fn run(arguments: &ParallelArguments, bench: &mut Bench<'_>) -> Result<Report, LoadError> {
    let ParallelArguments { subscribers, publications, payload, .. } = arguments;
    let subjects = bench.subjects();
    let mut bounds = Vec::new();
    if let [(one, _), others @ ..] = &*subjects {
        for (name, _) in others {
            bounds.push(BoundRule::ratio(name, one, "first to last send", SPREAD_RATIO_MAX));
            bounds.push(BoundRule::ratio(name, one, "server CPU per delivery", CPU_RATIO_MAX));
        }
    }
    let outline = Outline {
        scenario: "parallel",
        about: "one publication to many who do not read meanwhile; first to last send by the kernel's clock"
            .to_owned(),
        load: described(&[
            ("subscribers", subscribers.to_string()),
            ("publications", publications.to_string()),
            ("payload", format!("{payload} B")),
        ]),
        bounds,
    };
    bench.run(outline, &subjects, |bench, subject| turn(arguments, bench, subject))
}

fn turn(arguments: &ParallelArguments, bench: &mut Bench<'_>, subject: &Subject) -> Result<Turn, LoadError> {
    let clients = arguments.subscribers as usize;
    let plan = Plan { clients, seats: Seats::All { topics: 1 }, topic_prefix: None, load: None, lanes: 1 };
    let mut stage = Stage::open(bench, subject, &plan)?;
    let Some(mut publisher) = stage.target.publisher(0)? else {
        return Err(LoadError::Unsupported(format!("{subject} cannot be published to")));
    };
    stage.clients.stamp()?;
    let topic = stage.streams.audience.topic_name(0);
    let parts = stage.target.parts();
    let mut spans = Vec::new();
    let mut cpu = 0.0;
    let mut since_first = Recorder::new();
    for number in 0..u64::from(arguments.publications) {
        bench.progress.live(&format!("publication {} of {}", number + 1, arguments.publications));
        stage.clients.shared.published = vec![number + 1];
        let meter = Meter::start(&parts)?;
        let messages = Messages { stream: 0, first: number, count: 1, payload_bytes: arguments.payload };
        publisher.publish(&topic, &messages)?;
        wait_until_at_rest(&meter)?;
        cpu += meter.used()?.server().map_or(0.0, |server| server.microseconds());
        publisher.ready()?;
        let stamps = stage.clients.take_stamped()?;
        if let Some((first, last)) = stamps.iter().min().zip(stamps.iter().max()) {
            spans.push((*last - *first).as_secs_f64() * 1e3);
            for stamp in &stamps {
                since_first.record((*stamp - *first).as_nanos() as u64);
            }
        }
    }

    let mut turn = Turn::default();
    let deliveries = stage.clients.shared.received as f64;
    if let Some(span) = Spread::of(spans) {
        turn.figure("first to last send", "ms", span.median);
    }
    if !parts.is_empty() {
        turn.figure("server CPU per delivery", "us", cpu / deliveries);
    }
    turn.figure("deliveries", "count", deliveries);
    turn.histograms.push(since_first.named("sent after the first"));
    turn.faults = stage.clients.faults();
    turn.notes.push("first to last send is the median of the turn's publications".to_owned());
    Ok(turn)
}

/// This process sleeps: it must not take a core from the server.
fn wait_until_at_rest(meter: &Meter) -> Result<(), LoadError> {
    let mut before = f64::NEG_INFINITY;
    for _ in 0..REST_CHECKS_MAX {
        std::thread::sleep(REST);
        let used = meter.used()?.server().map_or(0.0, |server| server.microseconds());
        if used - before < REST_CPU_US_MAX {
            return Ok(());
        }
        before = used;
    }
    Err(LoadError::Server("does not come to rest after a publication".to_owned()))
}
