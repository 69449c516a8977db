//! Loads a Fanwire server on one machine and says what a connection and a delivery cost, beside a bare `send`.
//!
//! One thread and one epoll set drive all clients, so the tool stays cheaper than what it measures; its own CPU is reported
//! beside the server's. It knows nothing of the server but the wire protocol and the configuration it starts it with.
//!
//!     cargo build --release -p fanwire -p fanwire-loadtest && target/release/fanwire-loadtest fanout
//!
//! Exit codes: 0 all well; 1 a message or a connection was lost, doubled or out of order; 2 the run could not be made.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its user")]

mod client;
mod clients;
mod error;
mod fanout;
mod frame;
mod http;
mod idle;
mod pace;
mod payload;
mod process;
mod publisher;
mod raw_server;
mod report;
mod sequence;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::error::{Doing, LoadError};
use crate::fanout::Load;
use crate::idle::IdleArguments;
use crate::process::Cores;
use crate::report::{Machine, write_json};

const EXIT_FAULTS: u8 = 1;
const EXIT_NOT_RUN: u8 = 2;

/// Measures what connections and deliveries cost a Fanwire server on this machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
    /// Store every turn as JSON
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Memory and CPU of connections that are subscribed and idle
    Idle(IdleArguments),
    /// CPU and latency per delivery, in turn with the raw baseline
    Fanout(FanoutArguments),
    /// The raw baseline alone: what a bare send costs on this machine
    Raw(RawArguments),
    /// The baseline's server, started by the other scenarios
    #[command(name = raw_server::ROLE, hide = true)]
    RawServer(Load),
}

#[derive(Args, Debug)]
struct FanoutArguments {
    #[command(flatten)]
    raw: RawArguments,
    /// The built server [default: `fanwire` beside this program]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct RawArguments {
    #[command(flatten)]
    load: Load,
    /// How often each server takes its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAULTS),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_NOT_RUN)
        }
    }
}

/// Returns whether all was well with the server.
fn run(arguments: &Arguments) -> Result<bool, LoadError> {
    let cores = Cores::choose()?;
    let progress = |line: &str| eprintln!("{line}");
    match &arguments.scenario {
        Scenario::RawServer(load) => raw_server::serve(load).map(|()| true),
        Scenario::Idle(idle) => {
            let report = idle::run(idle, &server_binary(idle.server.clone())?, cores, progress)?;
            conclude(arguments, cores, &report, &report.text())?;
            Ok(report.is_clean())
        }
        Scenario::Fanout(FanoutArguments { raw, server }) => {
            let binary = server_binary(server.clone())?;
            let report = fanout::run(&raw.load, raw.rounds, Some(&binary), cores, progress)?;
            conclude(arguments, cores, &report, &report.text())?;
            Ok(report.is_clean())
        }
        Scenario::Raw(RawArguments { load, rounds }) => {
            let report = fanout::run(load, *rounds, None, cores, progress)?;
            conclude(arguments, cores, &report, &report.text())?;
            Ok(report.is_clean())
        }
    }
}

fn conclude(
    arguments: &Arguments,
    cores: Cores,
    report: &impl Serialize,
    text: &str,
) -> Result<(), LoadError> {
    println!("\nserver on core {}, client on core {}\n{text}", cores.server, cores.client);
    match &arguments.json {
        Some(path) => write_json(path, &Machine::here(cores), report),
        None => Ok(()),
    }
}

/// Both programs are built into one folder.
fn server_binary(named: Option<PathBuf>) -> Result<PathBuf, LoadError> {
    match named {
        Some(path) => Ok(path),
        None => Ok(std::env::current_exe().doing("find this program's file")?.with_file_name("fanwire")),
    }
}
