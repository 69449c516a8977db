//! The measured part of every scenario that sends: messages at a fixed rate until all have arrived, and their cost.
//!
//! A message that is lost, duplicated or out of order on any connection is a fault of the turn.

use std::time::{Duration, Instant};

use crate::client::Clients;
use crate::dialect::Audience;
use crate::error::LoadError;
use crate::load::Load;
use crate::measure::meter::{Meter, Used};
use crate::measure::pace::Pace;
use crate::measure::process::{CpuUse, Placement, monotonic_nanoseconds, resident_bytes_roughly};
use crate::measure::sequence::Faults;
use crate::publish::Messages;
use crate::report::{Series, Turn};
use crate::scenario::{Bench, Stage};
use crate::target::Part;

/// A turn without a delivery for this long after the schedule is over, and missing messages are lost.
const STALL_MAX: Duration = Duration::from_secs(5);
/// A duplicate arrives within this time.
pub(crate) const SETTLE: Duration = Duration::from_millis(200);
/// A turn that falls behind by more than this share of the planned time, or of a second if that is less, had another load
/// than the stated one.
const BEHIND_SHARE_MAX: f64 = 0.02;
/// A server or a client that needs more of its core has no time left, so the turn measures its limit.
const CORE_SHARE_MAX: f64 = 0.97;
/// Interval at which the server's memory is read while it sends.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);
/// The series of a turn that sends.
pub(crate) const RESIDENT_MEMORY: &str = "server resident memory";
/// The seed of the pseudo-random order of topics; any odd number serves.
const ORDER_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// The choice of the topic and the publisher of the next burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The first topic, by any free publisher: each is a lane of its own.
    Shared,
    /// All of the first topics, in a fixed pseudo-random order; each always by the same publisher.
    Spread { topics: usize },
}

impl Route {
    /// Returns how many publishers send to the same topic.
    pub(crate) fn lanes(self, load: &Load) -> u32 {
        match self {
            Self::Shared => load.publishers,
            Self::Spread { .. } => 1,
        }
    }
}

/// The meaning of a core without time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FullCore {
    /// The turn had another load than the stated one.
    SpoilsTheTurn,
    /// None: the server gets more messages than it can handle one by one.
    IsThePoint,
}

/// Connects the publishers, sends the whole load, and waits for the last messages.
pub(crate) fn send(
    bench: &mut Bench<'_>,
    stage: &mut Stage,
    load: &Load,
    route: Route,
    full_core: FullCore,
) -> Result<Turn, LoadError> {
    stage.clients.shared.payload_bytes = load.payload;
    for index in 0..load.publishers as usize {
        match stage.target.publisher(index)? {
            Some(publisher) => stage.clients.add_publisher(publisher)?,
            None => break,
        }
    }
    let parts = stage.target.parts();
    let bytes_before = stage.clients.shared.received_bytes;
    let meter = Meter::start(&parts)?;
    let sent = deliver(bench, stage, load, route, &parts, &meter);
    let Delivered { used, expected, last_delivery, memory } =
        sent.map_err(|error| stage.target.explain(error))?;
    stage.clients.run_for(SETTLE)?;

    let mut turn = turn_of(stage, &used);
    let seconds = last_delivery.as_secs_f64();
    let deliveries = stage.clients.shared.received;
    turn.figure("deliveries", "count", deliveries as f64);
    let bytes = stage.clients.shared.received_bytes - bytes_before;
    turn.figure("bytes per delivery", "B", bytes as f64 / deliveries as f64);
    turn.figure("deliveries expected", "count", expected as f64);
    turn.figure("deliveries per second", "1/s", deliveries as f64 / seconds);
    // The time beyond the schedule.
    let behind = (seconds - load.planned_seconds()).max(0.0);
    turn.figure("behind the pace", "s", behind);
    turn.not_at_pace = behind_told(behind, load.planned_seconds());
    if full_core == FullCore::SpoilsTheTurn && turn.not_at_pace.is_none() {
        turn.not_at_pace = full_core_told(&used, stage.target.placement() == Some(Placement::ServerCore));
    }
    turn.series.extend(memory);
    Ok(turn)
}

fn behind_told(behind: f64, planned: f64) -> Option<String> {
    (behind > BEHIND_SHARE_MAX * planned.max(1.0))
        .then(|| format!("{behind:.2} s behind after {planned:.1} s"))
}

/// Returns true if all parts of a server share one core.
fn full_core_told(used: &Used, server_has_one_core: bool) -> Option<String> {
    let share = |cpu: CpuUse| cpu.microseconds() / 1e6 / used.seconds;
    let servers = used.all().map(share).sum::<f64>();
    let named = [("server's", servers, server_has_one_core), ("client's", share(used.client), true)];
    let (whose, share, _) =
        named.into_iter().find(|(_, share, counts)| *counts && *share > CORE_SHARE_MAX)?;
    Some(format!("the {whose} core was busy for {:.0} % of the time", 100.0 * share))
}

/// The observations of `deliver`.
struct Delivered {
    used: Used,
    expected: u64,
    last_delivery: Duration,
    memory: Option<Series>,
}

fn deliver(
    bench: &mut Bench<'_>,
    stage: &mut Stage,
    load: &Load,
    route: Route,
    parts: &[Part],
    meter: &Meter,
) -> Result<Delivered, LoadError> {
    let mut sender = Sender::begin(stage, load, route)?;
    let stall_max = STALL_MAX + Duration::from_secs_f64(1.0 / load.rate);
    let started = Instant::now();
    let mut last_received = (0, started);
    let resident = || parts.first().and_then(|part| resident_bytes_roughly(part.pid));
    let has_own_core = bench.cores.are_apart() && stage.target.placement() == Some(Placement::ServerCore);
    let waited_before = stage.clients.waited;
    let mut memory = Vec::new();
    let mut next_look = started;
    loop {
        let wait = sender.step(stage, load)?;
        let wait_max = wait.unwrap_or(SETTLE).min(SETTLE);
        if has_own_core {
            stage.clients.turn_awake(wait_max)?;
        } else {
            stage.clients.turn(Some(wait_max))?;
        }
        let received = stage.clients.shared.received;
        if received > last_received.0 {
            last_received = (received, Instant::now());
        }
        let complete = wait.is_none() && received >= sender.expected;
        if complete || last_received.1.elapsed() > stall_max {
            break;
        }
        if Instant::now() >= next_look {
            next_look = Instant::now() + MEMORY_INTERVAL;
            memory.extend(resident().map(|bytes| (started.elapsed().as_secs_f64(), bytes as f64)));
        }
        if bench.progress.is_due() {
            bench.progress.live(&state(&stage.clients, &meter.used()?, sender.expected, resident()));
        }
    }
    Ok(Delivered {
        used: meter.used()?.without_waiting(stage.clients.waited - waited_before),
        expected: sender.expected,
        last_delivery: last_received.1 - started,
        memory: (!memory.is_empty()).then(|| Series {
            name: RESIDENT_MEMORY.to_owned(),
            unit: "B".to_owned(),
            x_unit: "s".to_owned(),
            points: memory,
        }),
    })
}

/// Gives due bursts to publishers. A burst that finds none free waits, and the turn falls behind.
struct Sender {
    /// `None` if the target sends by itself.
    pace: Option<Pace>,
    route: Route,
    /// Deliveries expected for the messages published so far.
    expected: u64,
    next_publisher: usize,
    random: u64,
    /// A burst that waits for its publisher.
    held: Option<usize>,
    readers_of: Vec<u64>,
}

impl Sender {
    fn begin(stage: &mut Stage, load: &Load, route: Route) -> Result<Self, LoadError> {
        let topics = match route {
            Route::Shared => 1,
            Route::Spread { topics } => topics,
        };
        let clients = &mut stage.clients;
        let readers_of = readers_of(clients, &stage.streams.audience, topics);
        clients.shared.published = vec![0; topics * stage.streams.lanes as usize];
        let sends_itself = clients.publishers().is_empty();
        let mut expected = 0;
        if sends_itself {
            clients.shared.published[0] = load.messages();
            expected = load.messages() * readers_of[0];
            stage.target.begin()?;
        }
        let pace = (!sends_itself).then(|| Pace::start(load.rate, load.bursts()));
        Ok(Self { pace, route, expected, next_publisher: 0, random: ORDER_SEED, held: None, readers_of })
    }

    /// Publishes due bursts. Returns the time until the next call, or `None` when all are published and confirmed; a
    /// publisher that becomes free ends the wait by itself.
    fn step(&mut self, stage: &mut Stage, load: &Load) -> Result<Option<Duration>, LoadError> {
        let Some(pace) = &mut self.pace else { return Ok(None) };
        let Some(wait) = pace.wait() else {
            let is_answered = stage.clients.publishers().iter().all(|publisher| publisher.outstanding() == 0);
            return Ok(if is_answered { None } else { Some(SETTLE) });
        };
        if !wait.is_zero() {
            return Ok(Some(wait));
        }
        let topic = match (self.held.take(), self.route) {
            (Some(topic), _) => topic,
            (None, Route::Shared) => 0,
            (None, Route::Spread { topics }) => {
                // Xorshift: even enough, and the same in every turn.
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                (self.random % topics as u64) as usize
            }
        };
        let publishers = stage.clients.publishers();
        let free = match self.route {
            Route::Shared => (0..publishers.len())
                .map(|step| (self.next_publisher + step) % publishers.len())
                .find(|index| publishers[*index].outstanding() == 0),
            Route::Spread { .. } => {
                Some(topic % publishers.len()).filter(|index| publishers[*index].outstanding() == 0)
            }
        };
        let Some(index) = free else {
            self.held = Some(topic);
            return Ok(Some(SETTLE));
        };
        self.next_publisher = index + 1;
        let lane = if stage.streams.lanes > 1 { index as u32 } else { 0 };
        let stream = stage.streams.of(topic, lane);
        let published = &mut stage.clients.shared.published[stream as usize];
        let (due, payload_bytes) = (pace.due(), load.payload);
        let messages = Messages { stream, first: *published, count: load.burst, payload_bytes, due };
        *published += u64::from(load.burst);
        self.expected += self.readers_of[topic] * u64::from(load.burst);
        let late = monotonic_nanoseconds().saturating_sub(due);
        stage.clients.shared.published_late.record(late);
        let name = stage.streams.audience.topic_name(topic);
        stage.clients.publishers()[index].publish(&name, &messages)?;
        pace.advance();
        Ok(Some(Duration::ZERO))
    }
}

/// Returns how many clients of each topic read.
fn readers_of(clients: &Clients, audience: &Audience, topics: usize) -> Vec<u64> {
    let mut readers: Vec<u64> =
        (0..topics).map(|topic| audience.members(topic, clients.count()) as u64).collect();
    for (number, _) in clients.iter().enumerate().filter(|(_, client)| client.is_stalled()) {
        for topic in audience.topics_of(number).filter(|topic| *topic < topics) {
            readers[topic] -= 1;
        }
    }
    readers
}

/// Returns the figures of every scenario that sends.
fn turn_of(stage: &Stage, used: &Used) -> Turn {
    let clients = &stage.clients;
    let mut turn = Turn::default();
    let deliveries = clients.shared.received as f64;
    let publications = clients.shared.published.iter().sum::<u64>() as f64;
    if let Some(server) = used.server() {
        turn.figure("server CPU per delivery", "us", server.microseconds() / deliveries);
    }
    turn.figure("client CPU per delivery", "us", used.client.microseconds() / deliveries);
    let latency = &clients.shared.latency;
    if !latency.is_empty() {
        turn.figure("latency p50", "ms", latency.quantile_ms(0.5));
        turn.figure("latency p99", "ms", latency.quantile_ms(0.99));
        turn.figure("latency p99.9", "ms", latency.quantile_ms(0.999));
        turn.histograms.push(latency.named("latency"));
    }
    if let Some(server) = used.server() {
        turn.figure("server CPU per publication", "us", server.microseconds() / publications);
        turn.figure("server CPU in user space", "ratio", server.user_share);
        turn.figure("server CPU of a core", "ratio", server.microseconds() / 1e6 / used.seconds);
    }
    turn.figure("client CPU of a core", "ratio", used.client.microseconds() / 1e6 / used.seconds);
    if clients.shared.compressed > 0 {
        turn.figure("compressed share", "ratio", clients.shared.compressed as f64 / deliveries);
    }
    if clients.shared.others > 0 {
        turn.figure("other messages", "count", clients.shared.others as f64);
    }
    for (name, part) in used.others() {
        turn.figure(&format!("{name} CPU per delivery"), "us", part.microseconds() / deliveries);
        turn.figure(&format!("{name} CPU per publication"), "us", part.microseconds() / publications);
        turn.figure(&format!("{name} CPU of a core"), "ratio", part.microseconds() / 1e6 / used.seconds);
    }
    let (lost, reasons) = clients.losses();
    turn.faults = clients.faults();
    turn.connections_lost = lost as u64;
    turn.reasons = reasons.to_vec();
    let plain = clients.shared.received - clients.shared.compressed;
    if stage.subject.deflate && plain > 0 {
        let told = format!("{plain} of {} messages came uncompressed", clients.shared.received);
        turn.reasons.push(told);
    }
    turn
}

fn state(clients: &Clients, used: &Used, expected: u64, resident: Option<u64>) -> String {
    let shared = &clients.shared;
    let mut parts = vec![
        format!("{:.0} deliveries/s", shared.received as f64 / used.seconds),
        format!("{} of {expected}", shared.received),
    ];
    parts.extend(
        used.server().map(|server| format!("server {:.0} %", server.microseconds() / 1e4 / used.seconds)),
    );
    parts.extend(resident.map(|bytes| format!("{} MiB", bytes >> 20)));
    if !shared.latency.is_empty() {
        let latency = &shared.latency;
        parts.push(format!("p50 {:.1} p99 {:.1} ms", latency.quantile_ms(0.5), latency.quantile_ms(0.99)));
    }
    // Missing messages may still be on their way.
    let faults = Faults { lost: 0, ..clients.faults() };
    if !faults.is_clean() {
        parts.push(faults.describe());
    }
    let (lost, _) = clients.losses();
    if lost > 0 {
        parts.push(format!("{lost} CONNECTIONS LOST"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falling_behind_is_told_beyond_a_share_of_the_plan() {
        assert_eq!(behind_told(0.09, 5.0), None);
        assert_eq!(behind_told(0.11, 5.0).as_deref(), Some("0.11 s behind after 5.0 s"));
        assert_eq!(behind_told(0.01, 0.0), None);
        assert!(behind_told(0.03, 0.0).is_some());
    }

    #[test]
    fn a_full_core_is_told_whoever_it_belongs_to() {
        let cpu = |seconds: f64| CpuUse { nanoseconds: (seconds * 1e9) as u64, user_share: 0.5 };
        let used = |server, redis, client| {
            Used::of(vec![("server", cpu(server)), ("redis", cpu(redis))], cpu(client), 2.0)
        };
        let told = |used: Used, one_core| full_core_told(&used, one_core);
        assert_eq!(told(used(1.0, 0.9, 1.9), true), None);
        let both = told(used(1.0, 0.96, 0.1), true).unwrap();
        assert_eq!(both, "the server's core was busy for 98 % of the time");
        assert_eq!(told(used(3.0, 0.9, 0.1), false), None, "it has more than one core");
        assert!(told(used(0.1, 0.0, 1.98), false).unwrap().contains("client's"));
    }
}
