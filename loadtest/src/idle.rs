//! `idle`: many clients connect, authenticate, subscribe to one topic with presence, and then only answer pings.
//!
//! Says what a connection costs to set up, what it holds in memory, and what it takes of a core while nothing happens.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::client::Peer;
use crate::clients::{Clients, HANDSHAKES_IN_FLIGHT_MAX};
use crate::error::LoadError;
use crate::process::{Cores, CpuSnapshot, CpuUse, Memory, reserve_files};
use crate::report::{Percentiles, table};
use crate::server::Server;

const TOPIC: &str = "load:idle";

/// Time for the server to let go of what only the handshakes needed.
const SETTLE: Duration = Duration::from_secs(2);

/// What to do.
#[derive(Args, Clone, Debug)]
pub(crate) struct IdleArguments {
    /// Connections to hold
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,
    /// How long to watch them; two ping intervals and a little
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) window: u32,
    /// The built server [default: `fanwire` beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) server: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct IdleReport {
    connections: usize,
    set_up: SetUp,
    memory: MemoryGrowth,
    idle: Idle,
    /// How many clients the server counts as present at the end.
    present: u64,
    connections_lost: usize,
    /// Of the lost connections, the first few.
    reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SetUp {
    wall_seconds: f64,
    in_flight_max: usize,
    server: CpuUse,
    server_us_per_connection: f64,
    client_us_per_connection: f64,
    /// From the start of the connect to the answer to the subscription.
    time_ms: Option<Percentiles>,
}

#[derive(Debug, Serialize)]
struct MemoryGrowth {
    before: Memory,
    after: Memory,
    after_window: Memory,
    resident_bytes_per_connection: f64,
    anonymous_bytes_per_connection: f64,
    resident_bytes_per_connection_after_window: f64,
}

#[derive(Debug, Serialize)]
struct Idle {
    window_seconds: f64,
    server: CpuUse,
    server_us_per_connection_second: f64,
    client_us_per_connection_second: f64,
    pings_answered: u64,
}

/// Makes the run.
pub(crate) fn run(
    arguments: &IdleArguments,
    binary: &Path,
    cores: Cores,
    mut progress: impl FnMut(&str),
) -> Result<IdleReport, LoadError> {
    let count = arguments.connections as usize;
    let each = count as f64;
    reserve_files(count)?;
    let this = std::process::id();
    let server = Server::start(binary, cores)?;
    let before = Memory::of(server.pid())?;

    progress(&format!("connecting {count} clients"));
    let (server_cpu, client_cpu) = (CpuSnapshot::of(server.pid())?, CpuSnapshot::of(this)?);
    let started = Instant::now();
    let mut clients = Clients::connect(server.address(), count, Peer::Centrifuge(server.login(TOPIC)))
        .map_err(|error| server.explain(error))?;
    let wall_seconds = started.elapsed().as_secs_f64();
    let server_used = CpuSnapshot::of(server.pid())?.since(&server_cpu);
    let client_used = CpuSnapshot::of(this)?.since(&client_cpu);
    let set_up = SetUp {
        wall_seconds,
        in_flight_max: HANDSHAKES_IN_FLIGHT_MAX,
        server: server_used,
        server_us_per_connection: server_used.nanoseconds as f64 / 1e3 / each,
        client_us_per_connection: client_used.nanoseconds as f64 / 1e3 / each,
        time_ms: Percentiles::of(std::mem::take(&mut clients.tally.set_up_times)),
    };

    clients.run_for(SETTLE)?;
    let after = Memory::of(server.pid())?;

    progress(&format!("watching them for {} s", arguments.window));
    let pings_before = clients.tally.pings_answered;
    let (server_cpu, client_cpu) = (CpuSnapshot::of(server.pid())?, CpuSnapshot::of(this)?);
    let started = Instant::now();
    clients.run_for(Duration::from_secs(arguments.window.into()))?;
    let window_seconds = started.elapsed().as_secs_f64();
    let server_used = CpuSnapshot::of(server.pid())?.since(&server_cpu);
    let client_used = CpuSnapshot::of(this)?.since(&client_cpu);
    let idle = Idle {
        window_seconds,
        server: server_used,
        server_us_per_connection_second: server_used.nanoseconds as f64 / 1e3 / each / window_seconds,
        client_us_per_connection_second: client_used.nanoseconds as f64 / 1e3 / each / window_seconds,
        pings_answered: clients.tally.pings_answered - pings_before,
    };

    let after_window = Memory::of(server.pid())?;
    let growth = |after: u64, before: u64| after.saturating_sub(before) as f64 / each;
    let memory = MemoryGrowth {
        before,
        after,
        after_window,
        resident_bytes_per_connection: growth(after.resident, before.resident),
        anonymous_bytes_per_connection: growth(after.anonymous, before.anonymous),
        resident_bytes_per_connection_after_window: growth(after_window.resident, before.resident),
    };
    let present = server.present_clients(TOPIC)?;
    let (connections_lost, reasons) = clients.losses();
    let report = IdleReport {
        connections: count,
        set_up,
        memory,
        idle,
        present,
        connections_lost,
        reasons: reasons.to_vec(),
    };
    // The side that closes first keeps the ports for a minute; it has to be the server, whose port is new in each run.
    drop(server);
    Ok(report)
}

impl IdleReport {
    /// Every client stayed, and the server counts every one.
    pub(crate) fn is_clean(&self) -> bool {
        self.connections_lost == 0 && self.present == self.connections as u64
    }

    /// The report as a person reads it.
    pub(crate) fn text(&self) -> String {
        let Self { connections, set_up, memory, idle, present, connections_lost, reasons } = self;
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        row("connections", format!("{connections}, each a user of its own, one topic with presence"));
        row("set-up", format!("{:.2} s, at most {} in flight", set_up.wall_seconds, set_up.in_flight_max));
        row(
            "  server CPU",
            format!(
                "{:.1} us per connection ({:.0} % user)",
                set_up.server_us_per_connection,
                set_up.server.user_share * 100.0
            ),
        );
        row("  client CPU", format!("{:.1} us per connection", set_up.client_us_per_connection));
        if let Some(time) = set_up.time_ms {
            row("  time", format!("p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms", time.p50, time.p99, time.max));
        }
        row("memory", format!("{:.0} B resident per connection", memory.resident_bytes_per_connection));
        row("  of it anonymous", format!("{:.0} B", memory.anonymous_bytes_per_connection));
        row(
            "  after the window",
            format!("{:.0} B resident", memory.resident_bytes_per_connection_after_window),
        );
        row(
            "  whole process",
            format!(
                "{} KiB before, {} KiB after",
                memory.before.resident / 1024,
                memory.after.resident / 1024
            ),
        );
        row("idle", format!("{:.1} s, {} pings answered", idle.window_seconds, idle.pings_answered));
        row(
            "  server CPU",
            format!("{:.3} us per connection and second", idle.server_us_per_connection_second),
        );
        row(
            "  client CPU",
            format!("{:.3} us per connection and second", idle.client_us_per_connection_second),
        );
        row("present at the end", present.to_string());
        let mut text = table(&rows);
        if *connections_lost > 0 {
            text += &format!("FAILED {connections_lost} connections were lost: {}\n", reasons.join("; "));
        }
        if *present != *connections as u64 {
            text += &format!("FAILED the server counts {present} clients instead of {connections}\n");
        }
        text
    }
}
