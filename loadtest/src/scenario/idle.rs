//! `idle`: many clients connect, authenticate, subscribe to one topic with presence, and then answer pings only.
//!
//! Measures the cost of setting up a connection, its memory, and its CPU while nothing happens. The memory of a connection's
//! parts is measured from outside, by servers with one part more each.

use std::time::Duration;

use clap::Args;

use crate::dialect::{PushFormat, Seats};
use crate::error::LoadError;
use crate::load::described;
use crate::measure::meter::{Meter, server_memory};
use crate::measure::process::Memory;
use crate::report::{BoundRule, Report, Turn};
use crate::scenario::{Bench, Outline, Plan, Stage};
use crate::settings::Settings;
use crate::subject::{Server, Subject, SubjectWire};
use crate::target::fanwire::NAMESPACE_WITHOUT_PRESENCE;

/// Of the Centrifuge protocol over WebSocket, of plain Server-Sent Events, and of a long poll that waits.
const MEMORY_BYTES_MAX: f64 = 1024.0;
const MEMORY_OF_EVENTS_BYTES_MAX: f64 = 1100.0;
const MEMORY_OF_POLL_BYTES_MAX: f64 = 2048.0;
const FURTHER_BYTES_MAX: f64 = 100.0;
const SET_UP_CPU_US_MAX: f64 = 120.0;
const IDLE_CPU_US_PER_SECOND_MAX: f64 = 1.0;

/// The ping interval of every server here, by default or by its configuration.
const PING_INTERVAL_S: u32 = 25;
/// Time for the server to free the memory of handshakes.
const SETTLE: Duration = Duration::from_secs(2);

/// Options of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct IdleArguments {
    /// Connections to hold, each a user of its own with a signed token
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,
    /// Seconds of watching; exactly two ping intervals, so that each connection gets two pings
    #[arg(long, default_value_t = 2 * PING_INTERVAL_S, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) window: u32,
    /// Additional subscriptions of each connection, to measure the cost of one; 0 skips that
    #[arg(long, default_value_t = 0, value_name = "TOPICS", value_parser = clap::value_parser!(u32).range(0..=127))]
    pub(crate) further: u32,
    /// Let topics keep publications, so that clients have places in them; only with fanwire
    #[arg(long)]
    pub(crate) history: bool,
    /// Measure session, subscription and presence, by a separate server for each
    #[arg(long, conflicts_with = "history")]
    pub(crate) split: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

pub(crate) fn run(arguments: &IdleArguments, bench: &mut Bench<'_>) -> Result<Report, LoadError> {
    let IdleArguments { connections, window, further, history, .. } = arguments;
    let subjects = bench.subjects();
    let prefix = bench.prefix_with_history(*history)?;
    let bounds = subjects.iter().filter(|(_, subject)| subject.server == Server::Fanwire).flat_map(
        |(name, subject)| {
            let bound = |figure, at_most| BoundRule::absolute(name, figure, at_most);
            let memory = |at_most| bound("memory per connection", at_most);
            let memory = match subject.wire {
                SubjectWire::Centrifuge(_) => Some(memory(MEMORY_BYTES_MAX)),
                SubjectWire::Plain(PushFormat::Events) => Some(memory(MEMORY_OF_EVENTS_BYTES_MAX).required()),
                SubjectWire::Poll => Some(memory(MEMORY_OF_POLL_BYTES_MAX).required()),
                _ => None,
            };
            let further = (arguments.further > 0).then_some(FURTHER_BYTES_MAX);
            let bounds = [
                bound("idle CPU per connection and second", IDLE_CPU_US_PER_SECOND_MAX),
                bound("server set-up CPU per connection", SET_UP_CPU_US_MAX),
            ];
            let further = further.map(|at_most| bound("memory per further subscription", at_most));
            memory.into_iter().chain(bounds).chain(further)
        },
    );
    let outline = Outline {
        scenario: "idle",
        about: "clients that are subscribed and only answer pings; memory is what the server grew by"
            .to_owned(),
        load: described(&[
            ("connections", connections.to_string()),
            ("window", format!("{window} s")),
            ("ping interval", format!("{PING_INTERVAL_S} s")),
            ("further subscriptions", further.to_string()),
            ("history", history.to_string()),
        ]),
        bounds: bounds.collect(),
    };
    bench.run(outline, &subjects, |bench, subject| turn(arguments, prefix, bench, subject))
}

fn turn(
    arguments: &IdleArguments,
    prefix: Option<&str>,
    bench: &mut Bench<'_>,
    subject: &Subject,
) -> Result<Turn, LoadError> {
    let IdleArguments { connections, window, further, split, .. } = arguments;
    let clients = *connections as usize;
    let each = clients as f64;
    let one = seats(1);
    let mut turn = Turn::default();
    if subject.wire.is_emulated() {
        turn.notes.push("pings are not answered, so the requests of pongs are not in its CPU".to_owned());
    }
    if subject.wire == SubjectWire::Poll {
        turn.notes.push("its set-up ends with the answer to the first poll, which waits for 1 s".to_owned());
    }
    let mut stage = Crowd::gather(bench, subject, clients, one, prefix, Some(&mut turn))?;
    turn.figure("memory per connection", "B", stage.resident_each);
    turn.figure("anonymous memory per connection", "B", stage.anonymous_each);

    bench.progress.live(&format!("watching {clients} clients for {window} s"));
    let pings = stage.stage.clients.shared.pings;
    let parts = stage.stage.target.parts();
    let meter = Meter::start(&parts)?;
    stage.stage.clients.run_for(Duration::from_secs((*window).into()))?;
    let used = meter.used()?;
    if let Some(server) = used.server() {
        let per_second = server.microseconds() / each / used.seconds;
        turn.figure("idle CPU per connection and second", "us", per_second);
    }
    for (name, part) in used.others() {
        let per_second = part.microseconds() / each / used.seconds;
        turn.figure(&format!("{name} CPU per connection and second"), "us", per_second);
    }
    let client_per_second = used.client.microseconds() / each / used.seconds;
    turn.figure("client CPU per connection and second", "us", client_per_second);
    let pings = (stage.stage.clients.shared.pings - pings) as f64;
    turn.figure("pings", "count", pings);
    turn.figure("pings per connection and second", "1/s", pings / each / used.seconds);
    let (resident, _) = stage.growth()?;
    turn.figure("memory per connection after the window", "B", resident / each);
    turn.figure("whole server before", "B", stage.before.resident as f64);
    conclude(&stage.stage, clients, &mut turn)?;
    let with_one = stage.resident_each;
    drop(stage);

    if *further > 0 {
        let more = Crowd::gather(bench, subject, clients, seats(1 + *further as usize), prefix, None)?;
        let per_further = (more.resident_each - with_one) / f64::from(*further);
        turn.figure("memory per further subscription", "B", per_further);
    }
    if *split && !subject.connects_without_topics() {
        turn.notes.push("has no connections without a topic, so memory is not split".to_owned());
    } else if *split {
        let session = Crowd::gather(bench, subject, clients, seats(0), None, None)?.resident_each;
        turn.figure("memory of connection and session", "B", session);
        if subject.server == Server::Fanwire {
            let prefix = Some(NAMESPACE_WITHOUT_PRESENCE);
            let absent = Crowd::gather(bench, subject, clients, one, prefix, None)?.resident_each;
            turn.figure("memory of the subscription", "B", absent - session);
            turn.figure("memory of presence", "B", with_one - absent);
        } else {
            turn.figure("memory of the subscription", "B", with_one - session);
        }
    }
    Ok(turn)
}

/// Subscribed clients, and the growth of the server.
struct Crowd {
    stage: Stage,
    before: Memory,
    resident_each: f64,
    anonymous_each: f64,
}

impl Crowd {
    /// Connects the clients and waits until the server is at rest; adds the cost of set-up to `turn`.
    fn gather(
        bench: &mut Bench<'_>,
        subject: &Subject,
        clients: usize,
        seats: Seats,
        topic_prefix: Option<&str>,
        turn: Option<&mut Turn>,
    ) -> Result<Self, LoadError> {
        let each = clients as f64;
        let plan = Plan { clients, seats, topic_prefix, load: None, lanes: 0 };
        let mut stage = Stage::start(bench, subject, &plan)?;
        bench.progress.live(&format!("connecting {clients} clients"));
        let parts = stage.target.parts();
        let without_process = || {
            LoadError::Unsupported(format!("{subject} has no process here to be measured; name it by --pid"))
        };
        let before = server_memory(&parts)?.ok_or_else(without_process)?;
        let redis_before = stage.target.redis_use()?;
        let meter = Meter::start(&parts)?;
        stage.connect(clients)?;
        let used = meter.used()?;
        stage.clients.run_for(SETTLE)?;
        if let Some(turn) = turn {
            if let Some(server) = used.server() {
                turn.figure("server set-up CPU per connection", "us", server.microseconds() / each);
            }
            for (name, part) in used.others() {
                turn.figure(&format!("{name} set-up CPU per connection"), "us", part.microseconds() / each);
            }
            if let Some((before, after)) = redis_before.zip(stage.target.redis_use()?) {
                let growth = after.bytes as f64 - before.bytes as f64;
                turn.figure("Redis memory per connection", "B", growth / each);
            }
            turn.figure("client set-up CPU per connection", "us", used.client.microseconds() / each);
            let times = stage.clients.shared.set_up.named("set-up");
            turn.figure("set-up p50", "ms", times.p50 as f64 / 1e6);
            turn.figure("set-up p99", "ms", times.p99 as f64 / 1e6);
            turn.histograms.push(times);
        }
        let mut crowd = Self { stage, before, resident_each: 0.0, anonymous_each: 0.0 };
        let (resident, anonymous) = crowd.growth()?;
        crowd.resident_each = resident / each;
        crowd.anonymous_each = anonymous / each;
        Ok(crowd)
    }

    /// Returns the growth of resident and of anonymous memory; below zero if the server freed more than the clients needed.
    fn growth(&self) -> Result<(f64, f64), LoadError> {
        let now = server_memory(&self.stage.target.parts())?.unwrap_or_default();
        let resident = now.resident as f64 - self.before.resident as f64;
        Ok((resident, now.anonymous as f64 - self.before.anonymous as f64))
    }
}

/// Checks that every client stayed, and that the server counts every one.
fn conclude(stage: &Stage, clients: usize, turn: &mut Turn) -> Result<(), LoadError> {
    let (lost, reasons) = stage.clients.losses();
    turn.connections_lost = lost as u64;
    turn.reasons.extend_from_slice(reasons);
    if let Some(present) = stage.target.present(&stage.streams.audience.topic_name(0))?
        && present != clients as u64
    {
        turn.reasons.push(format!("the server counts {present} clients instead of {clients}"));
    }
    Ok(())
}

fn seats(topics: usize) -> Seats {
    Seats::All { topics }
}
