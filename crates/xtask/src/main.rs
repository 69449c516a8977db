//! `cargo xtask`: the commands for developers. CI runs the same ones.
//!
//! A command is a plain function over a [`Report`]: it runs steps in order, each under a heading, and the report ends with
//! the line `N passed, N failed`.

// A developers' program talks to its terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod attack;
mod bench;
mod chart;
mod ci;
mod end_to_end;
mod fuzz;
mod instructions;
mod process;
mod programs;
mod report;
mod structure;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;

/// Fanwire's commands for developers.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run every test: the workspace's own, then real clients against the built binary.
    ///
    /// Installs what the tests need if it may (packages as root on Debian, Node and Python packages inside the work tree),
    /// and otherwise says what to install.
    Test {
        /// Only tests, or end-to-end suites, whose name contains this.
        filter: Option<String>,
    },
    /// Run every check that a change must pass: format, lints, structure, tests, metrics, attacks, chart, instruction counts,
    /// a short fuzz run.
    Ci,
    /// Check the structure: no circles between files, no input or output in pure crates, true walks in
    /// docs/architecture.md.
    ///
    /// Names of types with several definitions and files over 500 lines are printed and do not fail.
    Structure,
    /// Attack the built binary beside honest clients, which must not be closed, refused or delayed.
    ///
    /// Each case compares the same clients without the attack and under it, and watches the server's memory. The table
    /// at the end has a row for each.
    Attack(attack::Arguments),
    /// Check the Helm chart and the files of `deploy/`: lint, render, validate, and test the result.
    Chart,
    /// Measure the build for production with the load tool, or count instructions and compare them with the baseline.
    ///
    /// Each run is stored in loadtest/results, and a page shows all stored runs. All runs together take more than an hour, and
    /// the machine should do nothing else meanwhile. Give the secrets of an external server as FANWIRE_LOADTEST_API_KEY and
    /// FANWIRE_LOADTEST_TOKEN_SECRET.
    Bench {
        /// Only these runs (see --list). With `--compare`, only cases whose name contains this.
        names: Vec<String>,
        /// List the runs.
        #[arg(long, conflicts_with_all = ["compare", "save", "names", "arguments"])]
        list: bool,
        /// Count the instructions of codec, parser, sessions and fan-out; fail if they grew.
        #[arg(long, conflicts_with = "arguments")]
        compare: bool,
        /// Count the instructions and save them as the baseline for `--compare`, a file to commit.
        #[arg(long, conflicts_with_all = ["names", "arguments"])]
        save: bool,
        /// Arguments for the load tool that override the run's own: `-- --rounds 1 --json one.json`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run fuzz targets, two at a time.
    Fuzz {
        /// Only this target; without it, all of them.
        target: Option<String>,
        /// Seconds for each target.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

fn main() -> ExitCode {
    let verb = Arguments::parse().verb;
    let mut report = Report::new();
    // A command stops when the rest makes no sense; the report says why.
    let _ = match &verb {
        Verb::Test { filter } => test::run(&mut report, filter.as_deref()),
        Verb::Attack(arguments) => attack::run(&mut report, arguments),
        Verb::Ci => ci::run(&mut report),
        Verb::Structure => structure::run(&mut report),
        Verb::Chart => chart::run(&mut report),
        Verb::Bench { save: true, .. } => instructions::save(&mut report),
        Verb::Bench { list: true, .. } => {
            bench::list();
            return ExitCode::SUCCESS;
        }
        Verb::Bench { compare: true, names, .. } => {
            instructions::compare(&mut report, names.first().map(String::as_str))
        }
        Verb::Bench { names, arguments, .. } => bench::run(&mut report, names, arguments),
        Verb::Fuzz { target, seconds } => fuzz::run(&mut report, target.as_deref(), *seconds),
    };
    report.finish()
}
