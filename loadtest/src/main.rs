//! Loads a realtime server on one machine and measures the cost of a connection and of a delivery, compared with a bare
//! `send` and with other servers.
//!
//! One thread and one epoll set drive all clients, so the tool costs less than the server; its own CPU is reported beside
//! the server's. It knows only the wire protocol of a server and the configuration it starts it with.
//!
//!     cargo build --profile dist -p fanwire -p fanwire-loadtest && target/dist/fanwire-loadtest fanout
//!
//! Exit codes: 0 success; 1 a turn failed, by a lost, duplicated, reordered or corrupted message, a lost connection or a
//! server that ended, or a required bound is not met; 2 the run was not possible; 130 interrupted.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its user")]

mod client;
mod command_line;
mod dialect;
mod error;
mod http;
mod interrupt;
mod load;
mod measure;
mod progress;
mod publish;
mod report;
mod scenario;
mod settings;
mod subject;
mod target;
mod url;

use std::process::ExitCode;

use crate::command_line::{PageArguments, Task};
use crate::error::LoadError;
use crate::report::{Report, json, page, text};
use crate::scenario::Bench;
use crate::settings::Settings;
use crate::target::raw;

const EXIT_FAULTS: u8 = 1;
const EXIT_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    match run(&command_line::read()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAULTS),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if let LoadError::Interrupted = error {
                interrupt::EXIT_CODE
            } else {
                EXIT_NOT_RUN
            })
        }
    }
}

/// Returns true if no turn failed, and all required bounds are met.
fn run(task: &Task) -> Result<bool, LoadError> {
    match task {
        Task::Fanout(arguments) => {
            measure(&arguments.settings, |bench| scenario::fanout::run(arguments, bench))
        }
        Task::Overload(arguments) => {
            measure(&arguments.settings, |bench| scenario::overload::run(arguments, bench))
        }
        Task::Rooms(arguments) => {
            measure(&arguments.settings, |bench| scenario::rooms::run(arguments, bench))
        }
        Task::Users(arguments) => {
            measure(&arguments.settings, |bench| scenario::users::run(arguments, bench))
        }
        Task::Slow(arguments) => measure(&arguments.settings, |bench| scenario::slow::run(arguments, bench)),
        Task::Cluster(arguments) => {
            measure(&arguments.settings, |bench| scenario::cluster::run(arguments, bench))
        }
        Task::Idle(arguments) => measure(&arguments.settings, |bench| scenario::idle::run(arguments, bench)),
        Task::Storm(arguments) => {
            measure(&arguments.settings, |bench| scenario::storm::run(arguments, bench))
        }
        Task::Churn(arguments) => {
            measure(&arguments.settings, |bench| scenario::churn::run(arguments, bench))
        }
        Task::Parallel(arguments) => {
            measure(&arguments.settings, |bench| scenario::parallel::run(arguments, bench))
        }
        Task::Page(PageArguments { reports, html }) => {
            let reports: Result<Vec<Report>, LoadError> =
                reports.iter().map(|path| json::read(path)).collect();
            json::replace(html, page::render(&reports?).as_bytes())?;
            Ok(true)
        }
        Task::RawServer(arguments) => raw::serve(arguments).map(|()| true),
    }
}

/// Makes the run, which stores its JSON itself, and prints the results.
fn measure(
    settings: &Settings,
    run: impl FnOnce(&mut Bench<'_>) -> Result<Report, LoadError>,
) -> Result<bool, LoadError> {
    interrupt::listen()?;
    let report = run(&mut Bench::new(settings)?)?;
    println!("\n{}", text::render(&report));
    if let Some(path) = &settings.html {
        json::replace(path, page::render(std::slice::from_ref(&report)).as_bytes())?;
    }
    Ok(report.is_clean())
}
