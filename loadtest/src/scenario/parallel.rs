//! `parallel`: one publication to many subscribers that do not read meanwhile; do shards share the work? The baseline's
//! threads show what the machine gains from two cores.
//!
//! The kernel records when each connection received its message, which on loopback is when it was sent. So this process can
//! sleep while the server has all cores, and read afterwards. Meanwhile its sockets are in no epoll set: the server's
//! threads would do the waking, and compete for the set's lock.

use std::time::Duration;

use clap::Args;

use crate::error::LoadError;
use crate::load::{Load, described, payload_bytes};
use crate::measure::histogram::Recorder;
use crate::measure::meter::Meter;
use crate::measure::process::monotonic_nanoseconds;
use crate::publish::{Messages, Publisher};
use crate::report::{BoundRule, Report, Spread, Turn};
use crate::scenario::flow::SETTLE;
use crate::scenario::{Bench, Outline, Plan, Stage};
use crate::settings::Settings;
use crate::subject::Subject;

/// Multiples of the time and of the CPU with one shard.
const SPREAD_RATIO_MAX: f64 = 0.6;
const CPU_RATIO_MAX: f64 = 1.0;
/// The server is done when it used almost no CPU for this long.
const REST: Duration = Duration::from_millis(250);
const REST_CPU_US_MAX: f64 = 5_000.0;
/// Publications before the timed ones, until the kernel records times.
const WARM_UPS_MAX: u32 = 10;
/// Time allowed for a fan-out.
const REST_CHECKS_MAX: u32 = 40;

/// Options of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct ParallelArguments {
    /// Connections, all subscribed to one topic
    #[arg(long, default_value_t = 10_000, value_name = "CLIENTS", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) subscribers: u32,
    /// Publications in a turn, one after the other
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) publications: u32,
    /// Bytes of a message, without the protocol's envelope
    #[arg(long, default_value_t = 128, value_name = "BYTES", value_parser = payload_bytes)]
    pub(crate) payload: usize,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

pub(crate) fn run(arguments: &ParallelArguments, bench: &mut Bench<'_>) -> Result<Report, LoadError> {
    let ParallelArguments { subscribers, publications, payload, .. } = arguments;
    let subjects = bench.subjects();
    let mut bounds = Vec::new();
    if let [(one, first), others @ ..] = &*subjects {
        for (name, _) in others.iter().filter(|(_, subject)| subject.server == first.server) {
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
    // One message, which a target that sends by itself sends at each `begin`.
    let load = Load { rate: 1.0, payload: arguments.payload, burst: 1, seconds: 1, publishers: 1 };
    let plan = Plan { load: Some(&load), ..Plan::one_topic(arguments.subscribers, 1) };
    let mut stage = Stage::open(bench, subject, &plan)?;
    let mut publisher = stage.target.publisher(0)?;
    stage.clients.shared.payload_bytes = arguments.payload;
    stage.clients.stamp()?;
    stage.clients.unwatch()?;
    let mut volleys = 0;
    let mut fire = |stage: &mut Stage| {
        volleys += 1;
        let volley = Volley::fire(stage, publisher.as_deref_mut(), volleys - 1, arguments.payload);
        volley.map_err(|error| stage.target.explain(error))
    };
    // The kernel begins to record times with a delay; these publications also warm the server up.
    for _ in 0..WARM_UPS_MAX {
        bench.progress.live("publishing until all messages have a time stamp");
        if fire(&mut stage)?.stamps.len() == clients {
            break;
        }
    }

    let mut spans = Vec::new();
    let mut cpu = 0.0;
    let mut deliveries = 0;
    let mut since_first = Recorder::new();
    let mut turn = Turn::default();
    let pings = stage.clients.shared.pings;
    for number in 1..=arguments.publications {
        bench.progress.live(&format!("publication {number} of {}", arguments.publications));
        let volley = fire(&mut stage)?;
        let (stamps, received) = (volley.stamps, volley.received);
        if stamps.len() != clients || received != clients as u64 {
            let count = stamps.len();
            let told = format!(
                "publication {number}: {received} of {clients} messages came, {count} with a time stamp"
            );
            turn.reasons.push(told);
        }
        cpu += volley.cpu_us;
        deliveries += received;
        if let Some((first, last)) = stamps.iter().min().zip(stamps.iter().max()) {
            spans.push((*last - *first).as_secs_f64() * 1e3);
            for stamp in &stamps {
                since_first.record((*stamp - *first).as_nanos() as u64);
            }
        }
    }

    // A ping after a message changes its time stamp.
    let pings = stage.clients.shared.pings - pings;
    if pings > 0 {
        let told = format!("{pings} pings came between the publications: time fewer of them in a turn");
        turn.reasons.push(told);
    }
    stage.clients.watch()?;
    stage.clients.run_for(SETTLE)?;

    let deliveries = deliveries as f64;
    if let Some(span) = Spread::of(spans) {
        turn.figure("first to last send", "ms", span.median);
    }
    if !stage.target.parts().is_empty() {
        turn.figure("server CPU per delivery", "us", cpu / deliveries);
    }
    turn.figure("deliveries", "count", deliveries);
    turn.histograms.push(since_first.named("sent after the first"));
    turn.faults = stage.clients.faults();
    let (lost, reasons) = stage.clients.losses();
    turn.connections_lost = lost as u64;
    turn.reasons.extend_from_slice(reasons);
    turn.notes.push("first to last send is the median of the turn's publications".to_owned());
    Ok(turn)
}

/// One publication and its result.
struct Volley {
    /// The times at which the kernel received each client's message.
    stamps: Vec<Duration>,
    received: u64,
    cpu_us: f64,
}

impl Volley {
    fn fire(
        stage: &mut Stage,
        mut publisher: Option<&mut (dyn Publisher + 'static)>,
        number: u64,
        payload_bytes: usize,
    ) -> Result<Self, LoadError> {
        let before = stage.clients.shared.received;
        stage.clients.shared.published = vec![number + 1];
        let topic = stage.streams.audience.topic_name(0);
        let meter = Meter::start(&stage.target.parts())?;
        let due = monotonic_nanoseconds();
        match &mut publisher {
            Some(publisher) => {
                publisher
                    .publish(&topic, &Messages { stream: 0, first: number, count: 1, payload_bytes, due })?;
            }
            None => stage.target.begin()?,
        }
        wait_until_at_rest(&meter, publisher)?;
        let cpu_us = meter.used()?.server().map_or(0.0, |server| server.microseconds());
        let stamps = stage.clients.take_stamped();
        Ok(Self { stamps, received: stage.clients.shared.received - before, cpu_us })
    }
}

/// Sleeps until the server is done, since this process must not take a core from it. A server that has not responded may not
/// have begun.
fn wait_until_at_rest(
    meter: &Meter,
    mut publisher: Option<&mut (dyn Publisher + 'static)>,
) -> Result<(), LoadError> {
    let mut before = f64::NEG_INFINITY;
    for _ in 0..REST_CHECKS_MAX {
        std::thread::sleep(REST);
        let mut outstanding = 0;
        if let Some(publisher) = &mut publisher {
            publisher.ready()?;
            outstanding = publisher.outstanding();
        }
        let used = meter.used()?.server().map_or(0.0, |server| server.microseconds());
        if outstanding == 0 && used - before < REST_CPU_US_MAX {
            return Ok(());
        }
        before = used;
    }
    Err(LoadError::Server("does not come to rest after a publication".to_owned()))
}
