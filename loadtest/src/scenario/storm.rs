//! `storm`: all clients connect at once, as after a restart; is any refused, how long does it take, what does it cost?

use clap::Args;

use crate::client::HANDSHAKES_IN_FLIGHT_MAX;
use crate::client::bystander::Bystander;
use crate::dialect::Say;
use crate::error::LoadError;
use crate::load::described;
use crate::measure::meter::Meter;
use crate::report::{BoundRule, Machine, Report, Turn};
use crate::scenario::{Bench, Outline, Plan, Stage};
use crate::settings::Settings;
use crate::subject::Subject;

const SERVER_CPU_US_MAX: f64 = 120.0;
const SLOWEST_S_MAX: f64 = 3.0;
/// The server's default `requests_max`.
const HOOK_CALLS_MAX: f64 = 128.0;

const CALLS_AT_A_TIME: &str = "calls at a time";

/// Options of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct StormArguments {
    /// Clients that connect, each a user of its own with a signed token, and subscribe to one topic with presence
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,
    /// Handshakes at one time in the calmer variant
    #[arg(long, default_value_t = HANDSHAKES_IN_FLIGHT_MAX as u32, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) in_flight: u32,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

pub(crate) fn run(arguments: &StormArguments, bench: &mut Bench<'_>) -> Result<Report, LoadError> {
    let StormArguments { connections, in_flight, .. } = arguments;
    let mut entries = Vec::new();
    let mut bounds = Vec::new();
    for (name, subject) in bench.subjects() {
        let calm = format!("{name}, {in_flight} in flight");
        if subject.hook {
            bounds.push(BoundRule::absolute(&calm, CALLS_AT_A_TIME, HOOK_CALLS_MAX).required());
        } else {
            bounds.push(BoundRule::absolute(&calm, "server set-up CPU per connection", SERVER_CPU_US_MAX));
            bounds.push(BoundRule::absolute(&calm, "slowest", SLOWEST_S_MAX));
        }
        entries.push((calm, (subject.clone(), *in_flight as usize)));
        entries.push((format!("{name}, all at once"), (subject, usize::MAX)));
    }
    let outline = Outline {
        scenario: "storm",
        about: "clients connect, authenticate and subscribe; the time is from connect to the last answer"
            .to_owned(),
        load: described(&[
            ("connections", connections.to_string()),
            ("in flight", in_flight.to_string()),
            ("listen queue at most", Machine::here(bench.cores).backlog_max),
        ]),
        bounds,
    };
    bench.run(outline, &entries, |bench, (subject, in_flight)| turn(arguments, bench, subject, *in_flight))
}

fn turn(
    arguments: &StormArguments,
    bench: &mut Bench<'_>,
    subject: &Subject,
    in_flight: usize,
) -> Result<Turn, LoadError> {
    let clients = arguments.connections as usize;
    let each = clients as f64;
    let plan = Plan::one_topic(arguments.connections, 0);
    let mut stage = Stage::start(bench, subject, &plan)?;
    let bystander = subject.hook.then(|| bystander(&stage, clients)).transpose()?;
    bench.progress.live(&format!("connecting {clients} clients"));
    let meter = Meter::start(&stage.target.parts())?;
    stage.clients.connect(clients, in_flight).map_err(|error| stage.target.explain(error))?;
    let used = meter.used()?;

    let mut turn = Turn::default();
    if let Some(bystander) = bystander {
        let times = bystander.stop()?.named("ping of a bystander");
        turn.figure("ping p99", "ms", times.p99 as f64 / 1e6);
        turn.figure("slowest ping", "ms", times.max as f64 / 1e6);
        turn.histograms.push(times);
    }
    if let Some(calls) = stage.target.hook_calls() {
        turn.figure("calls", "count", calls.all as f64);
        turn.figure(CALLS_AT_A_TIME, "count", calls.under_way_max as f64);
    }
    if let Some(server) = used.server() {
        turn.figure("server set-up CPU per connection", "us", server.microseconds() / each);
    }
    turn.figure("client set-up CPU per connection", "us", used.client.microseconds() / each);
    for (name, part) in used.others() {
        turn.figure(&format!("{name} set-up CPU per connection"), "us", part.microseconds() / each);
    }
    let times = stage.clients.shared.set_up.named("set-up");
    turn.figure("set-up p50", "ms", times.p50 as f64 / 1e6);
    turn.figure("set-up p99", "ms", times.p99 as f64 / 1e6);
    turn.figure("slowest", "s", times.max as f64 / 1e9);
    turn.figure("all connected after", "s", used.seconds);
    turn.histograms.push(times);
    let (lost, reasons) = stage.clients.losses();
    turn.connections_lost = lost as u64;
    turn.reasons = reasons.to_vec();
    let settled = stage.clients.settled();
    if settled < clients {
        turn.reasons.push(format!("{} clients never got their answers", clients - settled));
    }
    Ok(turn)
}

/// A head that grants whatever a client may have offered.
const GRANTED: &[u8] = b"centrifuge-protobuf, permessage-deflate";

/// Starts a client that only pings, beside those that connect.
fn bystander(stage: &Stage, number: usize) -> Result<Bystander, LoadError> {
    let dialect = &stage.clients.shared.dialect;
    let (mut request, mut frames) = (Vec::new(), Vec::new());
    let said = dialect
        .hello(number, &mut request)
        .and_then(|_| dialect.opened(number, GRANTED, &mut Say::new(&mut frames)));
    said.map_err(|lost| LoadError::Unsupported(format!("a client cannot connect: {lost}")))?;
    let addresses = stage.target.addresses()?;
    let address = addresses.first().expect("a subject has at least one node");
    Bystander::start(*address, &request, &frames)
}
