//! `cargo xtask`: the developers' verbs. CI runs nothing that a developer cannot run by the same words.
//!
//! A verb is a plain function over a [`Report`]: it runs steps in the order one reads, each under a heading,
//! and the report ends with the line `N passed, N failed` that tells a person and CI how it went.

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
mod report;
mod structure;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;

/// The developers' verbs of Fanwire.
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
    /// Installs what the tests need where it may (packages as root on Debian, Node and Python
    /// packages inside the work tree), and says what to install where it may not.
    Test {
        /// Only tests, or end-to-end suites, whose name contains this.
        filter: Option<String>,
    },
    /// Everything that has to hold before a change lands: format, lints, tests, metrics, attacks, chart,
    /// costs in instructions, a short fuzz run.
    Ci,
    /// Check what the compiler does not: circles between files, crates that must not do input or output, the walks of
    /// docs/architecture.md.
    ///
    /// Names of types with several definitions and files over 500 lines are told, and do not fail.
    Structure,
    /// Attack the built binary beside honest clients, which must not be closed, refused or kept waiting.
    ///
    /// Each case compares the same clients without the attack and under it, and watches the server's memory. The table
    /// at the end has a row for each.
    Attack(attack::Arguments),
    /// Check the Helm chart and the files of `deploy/`: lint, render, validate, and test what came out.
    Chart,
    /// Measure the build for production with the load tool, or count instructions and compare them with the baseline.
    ///
    /// Each run is stored in loadtest/results, and a page is made of all that are there. All of them take more than an
    /// hour, and the machine should do nothing else meanwhile. The secrets of an external server are best given as
    /// FANWIRE_LOADTEST_API_KEY and FANWIRE_LOADTEST_TOKEN_SECRET.
    Bench {
        /// Only these runs (see --list). With `--compare`, only cases whose name contains this.
        names: Vec<String>,
        /// Say which runs there are.
        #[arg(long, conflicts_with_all = ["compare", "save", "names", "arguments"])]
        list: bool,
        /// Count the instructions of codec, parser, sessions and fan-out; fail where they are more than they were.
        #[arg(long, conflicts_with = "arguments")]
        compare: bool,
        /// Count them and make them the baseline for `--compare`, a file to commit.
        #[arg(long, conflicts_with_all = ["names", "arguments"])]
        save: bool,
        /// Passed on to the load tool, above the run's own: `-- --rounds 1 --json one.json`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run fuzz targets, one after the other.
    Fuzz {
        /// Only this target; without it, all of them.
        target: Option<String>,
        /// How long each target runs.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

fn main() -> ExitCode {
    let verb = Arguments::parse().verb;
    let mut report = Report::new();
    // A verb stops at the first thing that makes the rest pointless; the report then says what that was.
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
