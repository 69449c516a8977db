//! `fanout` and `raw`: one topic, many subscribers, messages at a pace; what does a delivery cost, beside a bare send?
//!
//! Servers take turns, each started afresh, so that drift of the machine hits both. A message that is lost, doubled or out
//! of order on any connection makes the run fail.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::client::Peer;
use crate::clients::Clients;
use crate::error::LoadError;
use crate::pace::Pace;
use crate::payload::PAYLOAD_BYTES_MIN;
use crate::process::{Cores, CpuSnapshot, CpuUse, reserve_files};
use crate::publisher::{OUTSTANDING_MAX, Publisher};
use crate::raw_server::RawServer;
use crate::report::{Percentiles, Spread, table};
use crate::sequence::Faults;
use crate::server::{API_KEY, Server};

/// What everybody subscribes to, in the namespace that the server is configured with.
pub(crate) const TOPIC: &str = "load:fanout";

/// Bursts per second: one in a longest turn, and more than any server here can take.
const RATE_MIN: f64 = 1.0 / 3600.0;
const RATE_MAX: f64 = 100_000.0;
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// A turn without a delivery for this long beyond the pace is over, and what is missing is lost.
const STALL_MAX: Duration = Duration::from_secs(5);
/// A message that comes twice comes within this time.
const SETTLE: Duration = Duration::from_millis(200);
/// Falling behind the pace by more than this, in seconds, is told: the machine or the client was too slow.
const BEHIND_SHOWN: f64 = 0.25;
/// How soon to look again at a publisher that waits for answers.
const PUBLISHER_RECHECK: Duration = Duration::from_millis(1);

/// The load that every server of a run is given.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Load {
    /// Connections, all subscribed to one topic
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) subscribers: u32,
    /// Bursts per second; with a burst of 1, messages per second
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// Bytes of a message, without the protocol's envelope
    #[arg(long, default_value_t = 128, value_parser = payload_bytes)]
    pub(crate) payload: usize,
    /// Messages that are published together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) burst: u32,
    /// How long each turn sends
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
}

impl Load {
    pub(crate) fn bursts(&self) -> u32 {
        (self.rate * f64::from(self.seconds)).ceil() as u32
    }

    pub(crate) fn messages(&self) -> u64 {
        self.first_sequence(self.bursts())
    }

    /// The sequence number that a burst begins with.
    pub(crate) fn first_sequence(&self, burst: u32) -> u64 {
        u64::from(burst) * u64::from(self.burst)
    }

    /// The same load on another command line.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let Self { subscribers, rate, payload, burst, seconds } = self;
        vec![
            format!("--subscribers={subscribers}"),
            format!("--rate={rate}"),
            format!("--payload={payload}"),
            format!("--burst={burst}"),
            format!("--seconds={seconds}"),
        ]
    }

    /// From the first burst to the last.
    fn planned_seconds(&self) -> f64 {
        f64::from(self.bursts() - 1) / self.rate
    }

    fn stall_max(&self) -> Duration {
        STALL_MAX + Duration::from_secs_f64(1.0 / self.rate)
    }
}

/// Who sends in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    Raw,
    Fanwire,
}

/// All turns of a run and what follows from them.
#[derive(Debug, Serialize)]
pub(crate) struct FanoutReport {
    load: Load,
    turns: Vec<Turn>,
    raw: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    fanwire: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<Ratio>,
}

/// One server under the whole load, once.
#[derive(Debug, Serialize)]
struct Turn {
    subject: Subject,
    deliveries: u64,
    wall_seconds: f64,
    /// How much longer it took than the pace asked for; the figures of a turn that fell behind are of another load.
    behind_seconds: f64,
    server: CpuUse,
    client: CpuUse,
    server_us_per_delivery: f64,
    client_us_per_delivery: f64,
    latency_ms: Option<Percentiles>,
    faults: Faults,
    connections_lost: usize,
    /// Of the lost connections, the first few.
    reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Summary {
    server_us_per_delivery: Option<Spread>,
    client_us_per_delivery: Option<Spread>,
    p50_ms: Option<Spread>,
    p99_ms: Option<Spread>,
}

/// Fanwire's medians divided by the raw baseline's.
#[derive(Debug, Serialize)]
struct Ratio {
    cpu: f64,
    /// Of the single rounds.
    cpu_by_round: Spread,
    p50: Option<f64>,
    p99: Option<f64>,
}

/// Makes the run. Without a server only the baseline is measured.
pub(crate) fn run(
    load: &Load,
    rounds: u32,
    server: Option<&Path>,
    cores: Cores,
    mut progress: impl FnMut(&str),
) -> Result<FanoutReport, LoadError> {
    reserve_files(load.subscribers as usize)?;
    let mut turns = Vec::new();
    for round in 1..=rounds {
        let mut take = |turn: Turn| {
            progress(&format!("round {round} of {rounds}: {}", turn.describe()));
            turns.push(turn);
        };
        take(raw_turn(load, cores)?);
        if let Some(binary) = server {
            take(fanwire_turn(load, binary, cores)?);
        }
    }
    let raw = Summary::of(&turns, Subject::Raw);
    let fanwire = server.map(|_| Summary::of(&turns, Subject::Fanwire));
    let ratio = fanwire.as_ref().and_then(|fanwire| Ratio::of(fanwire, &raw, &turns));
    Ok(FanoutReport { load: load.clone(), turns, raw, fanwire, ratio })
}

impl FanoutReport {
    /// Every message came once and in order, and no connection was lost.
    pub(crate) fn is_clean(&self) -> bool {
        self.turns.iter().all(Turn::is_clean)
    }

    /// The report as a person reads it.
    pub(crate) fn text(&self) -> String {
        let load = &self.load;
        let heading = format!(
            "{} subscribers, {} bursts/s of {}, {} B, {} s per turn\n\n",
            load.subscribers, load.rate, load.burst, load.payload, load.seconds
        );
        let columns = ["server", "CPU us/delivery", "client us/delivery", "p50 ms", "p99 ms"];
        let mut rows = vec![columns.map(str::to_owned).to_vec()];
        rows.push(self.raw.row("raw send"));
        rows.extend(self.fanwire.as_ref().map(|fanwire| fanwire.row("fanwire")));
        rows.extend(self.ratio.as_ref().map(Ratio::row));
        let faults: String = self
            .turns
            .iter()
            .filter(|turn| !turn.is_clean())
            .map(|turn| format!("FAILED {}\n", turn.describe()))
            .collect();
        format!("{heading}{}{faults}", table(&rows))
    }
}

fn raw_turn(load: &Load, cores: Cores) -> Result<Turn, LoadError> {
    let mut server = RawServer::start(load, cores)?;
    let mut clients = Clients::connect(server.address(), load.subscribers as usize, Peer::Raw)?;
    server.wait_until_accepted()?;
    let mut begun = false;
    let turn = measure(Subject::Raw, load, server.pid(), &mut clients, || {
        if !std::mem::replace(&mut begun, true) {
            server.begin()?;
        }
        Ok(None)
    });
    // The side that closes first keeps the ports for a minute; it has to be the server, whose port is new in each turn.
    drop(server);
    turn
}

fn fanwire_turn(load: &Load, binary: &Path, cores: Cores) -> Result<Turn, LoadError> {
    let server = Server::start(binary, cores)?;
    let peer = Peer::Centrifuge(server.login(TOPIC));
    let mut clients = Clients::connect(server.address(), load.subscribers as usize, peer)
        .map_err(|error| server.explain(error))?;
    let mut publisher = Publisher::connect(server.address(), API_KEY, TOPIC, load.payload)?;
    let mut pace = Pace::start(load.rate, load.bursts());
    let turn = measure(Subject::Fanwire, load, server.pid(), &mut clients, || {
        publisher.progress()?;
        let free = publisher.outstanding() < OUTSTANDING_MAX;
        match pace.wait() {
            Some(Duration::ZERO) if free => {
                publisher.publish(load.first_sequence(pace.advance()), load.burst)?;
                Ok(Some(Duration::ZERO))
            }
            Some(Duration::ZERO) => Ok(Some(PUBLISHER_RECHECK)),
            Some(wait) => Ok(Some(wait)),
            None if publisher.outstanding() > 0 => Ok(Some(PUBLISHER_RECHECK)),
            None => Ok(None),
        }
    });
    let turn = turn.map_err(|error| server.explain(error));
    // See `raw_turn`.
    drop(server);
    turn
}

/// Calls `drive` between the clients' turns until it has nothing more to do and all messages have arrived. It says how soon
/// it wants to be called again.
fn measure(
    subject: Subject,
    load: &Load,
    server: u32,
    clients: &mut Clients,
    mut drive: impl FnMut() -> Result<Option<Duration>, LoadError>,
) -> Result<Turn, LoadError> {
    let this = std::process::id();
    let expected = load.messages() * clients.count() as u64;
    clients.tally.published = load.messages();
    let (server_before, client_before) = (CpuSnapshot::of(server)?, CpuSnapshot::of(this)?);
    let started = Instant::now();
    let mut last_received = (0, Instant::now());
    loop {
        let wait = drive()?;
        clients.turn(Some(wait.unwrap_or(SETTLE).min(SETTLE)))?;
        if clients.tally.received > last_received.0 {
            last_received = (clients.tally.received, Instant::now());
        }
        let complete = wait.is_none() && clients.tally.received >= expected;
        if complete || last_received.1.elapsed() > load.stall_max() {
            break;
        }
    }
    let wall_seconds = (last_received.1 - started).as_secs_f64();
    let server = CpuSnapshot::of(server)?.since(&server_before);
    let client = CpuSnapshot::of(this)?.since(&client_before);
    clients.run_for(SETTLE)?;

    let deliveries = clients.tally.received;
    let per_delivery = |used: CpuUse| used.nanoseconds as f64 / 1e3 / deliveries.max(1) as f64;
    let (connections_lost, reasons) = clients.losses();
    Ok(Turn {
        subject,
        deliveries,
        wall_seconds,
        behind_seconds: (wall_seconds - load.planned_seconds()).max(0.0),
        server,
        client,
        server_us_per_delivery: per_delivery(server),
        client_us_per_delivery: per_delivery(client),
        latency_ms: Percentiles::of(clients.tally.latencies.iter().copied().map(Duration::from_nanos)),
        faults: clients.faults(),
        connections_lost,
        reasons: reasons.to_vec(),
    })
}

impl Turn {
    fn is_clean(&self) -> bool {
        self.faults.is_clean() && self.connections_lost == 0
    }

    fn describe(&self) -> String {
        let name = self.subject.name();
        let Self { deliveries, wall_seconds, server, faults, connections_lost, .. } = self;
        let mut text = format!(
            "{name}: {:.2} us/delivery ({:.0} % user), client {:.2}, {deliveries} deliveries in {wall_seconds:.2} s",
            self.server_us_per_delivery,
            server.user_share * 100.0,
            self.client_us_per_delivery,
        );
        if let Some(latency) = self.latency_ms {
            text += &format!(", p50 {:.2} ms, p99 {:.2} ms", latency.p50, latency.p99);
        }
        if self.behind_seconds > BEHIND_SHOWN {
            text += &format!(", FELL BEHIND by {:.2} s", self.behind_seconds);
        }
        if !faults.is_clean() {
            let Faults { lost, duplicated, reordered, unknown } = faults;
            text +=
                &format!(", {lost} LOST, {duplicated} DUPLICATED, {reordered} REORDERED, {unknown} UNKNOWN");
        }
        if *connections_lost > 0 {
            text += &format!(", {connections_lost} CONNECTIONS LOST ({})", self.reasons.join("; "));
        }
        text
    }
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw send",
            Self::Fanwire => "fanwire",
        }
    }
}

impl Summary {
    fn of(turns: &[Turn], subject: Subject) -> Self {
        let own = || turns.iter().filter(move |turn| turn.subject == subject);
        let latency = |point: fn(&Percentiles) -> f64| {
            Spread::of(own().filter_map(|turn| turn.latency_ms.as_ref().map(point)))
        };
        Self {
            server_us_per_delivery: Spread::of(own().map(|turn| turn.server_us_per_delivery)),
            client_us_per_delivery: Spread::of(own().map(|turn| turn.client_us_per_delivery)),
            p50_ms: latency(|latency| latency.p50),
            p99_ms: latency(|latency| latency.p99),
        }
    }

    fn row(&self, name: &str) -> Vec<String> {
        let cell =
            |spread: &Option<Spread>| spread.map_or_else(|| "-".to_owned(), |spread| spread.to_string());
        let Self { server_us_per_delivery, client_us_per_delivery, p50_ms, p99_ms } = self;
        let figures = [server_us_per_delivery, client_us_per_delivery, p50_ms, p99_ms].map(cell);
        [name.to_owned()].into_iter().chain(figures).collect()
    }
}

impl Ratio {
    fn of(fanwire: &Summary, raw: &Summary, turns: &[Turn]) -> Option<Self> {
        let divide = |above: Option<Spread>, below: Option<Spread>| Some(above?.median / below?.median);
        let by_round =
            turns.chunks_exact(2).map(|pair| pair[1].server_us_per_delivery / pair[0].server_us_per_delivery);
        Some(Self {
            cpu: divide(fanwire.server_us_per_delivery, raw.server_us_per_delivery)?,
            cpu_by_round: Spread::of(by_round)?,
            p50: divide(fanwire.p50_ms, raw.p50_ms),
            p99: divide(fanwire.p99_ms, raw.p99_ms),
        })
    }

    fn row(&self) -> Vec<String> {
        let cell = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let cpu = format!("{:.2} [{:.2}-{:.2}]", self.cpu, self.cpu_by_round.min, self.cpu_by_round.max);
        vec!["ratio".to_owned(), cpu, String::new(), cell(self.p50), cell(self.p99)]
    }
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate))
        .ok_or_else(|| format!("must be a number from {RATE_MIN:.4} to {RATE_MAX}"))
}

fn payload_bytes(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|bytes| (PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(bytes))
        .ok_or_else(|| format!("must be a number from {PAYLOAD_BYTES_MIN} to {PAYLOAD_BYTES_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_survives_its_command_line() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            load: Load,
        }
        let load = Load { subscribers: 7, rate: 12.5, payload: 256, burst: 16, seconds: 3 };
        let arguments = std::iter::once("program".to_owned()).chain(load.to_arguments());
        let read = <Line as clap::Parser>::parse_from(arguments).load;
        assert_eq!(format!("{read:?}"), format!("{load:?}"));
        assert_eq!((load.bursts(), load.messages()), (38, 608));
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for text in ["0", "-1", "NaN", "inf", "many"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert!(payload_bytes("63").is_err());
        assert!(payload_bytes("65537").is_err());
        assert_eq!(payload_bytes("64"), Ok(64));
    }
}
