//! The command line: one command for each scenario, with the defaults of its published figures.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::scenario::churn::ChurnArguments;
use crate::scenario::cluster::ClusterArguments;
use crate::scenario::fanout::FanoutArguments;
use crate::scenario::idle::IdleArguments;
use crate::scenario::parallel::ParallelArguments;
use crate::scenario::rooms::RoomsArguments;
use crate::scenario::slow::SlowArguments;
use crate::scenario::storm::StormArguments;
use crate::scenario::users::UsersArguments;
use crate::target::raw::{self, RawArguments};

/// Measures the cost of connections and deliveries in a realtime server on this machine.
///
/// Servers take turns, A B A B, each started afresh on one core while this program drives all clients from another. Every
/// figure is a median over the rounds with its range. A message that is lost, doubled or out of order makes the run fail.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

const AFTER_HELP: &str = "\
Examples:
  fanwire-loadtest fanout --subscribers 5000 --rate 10 --html fanout.html
  fanwire-loadtest fanout --subjects raw,fanwire,fanwire+redis --burst 16 --rate 50 --json bursts.json
  fanwire-loadtest fanout --subjects fanwire,fanwire+sse,fanwire+ndjson,fanwire+http_stream,fanwire+bare
  FANWIRE_LOADTEST_API_KEY=KEY FANWIRE_LOADTEST_TOKEN_SECRET=SECRET fanwire-loadtest fanout \\
      --subjects centrifuge,fanwire --api http://HOST:8000/api --centrifuge ws://HOST:8000/connection/websocket
  fanwire-loadtest page fanout.json bursts.json --html performance.html

Exit codes: 0 all well; 1 a turn failed: a message or a connection was lost, a message came doubled or out of order, a
server ended, or a required bound is not met, such as that of fanwire+sse beside fanwire; 2 the run could not be made.";

/// The command to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// One topic, many subscribers: CPU and latency per delivery, beside a bare send
    Fanout(FanoutArguments),
    /// A million deliveries a second to one topic: nothing may be lost
    Overload(FanoutArguments),
    /// Many small topics, each client in a few of them
    Rooms(RoomsArguments),
    /// A topic for each user, one receiver for each message
    Users(UsersArguments),
    /// Some clients stop reading: the others must not be affected
    Slow(SlowArguments),
    /// Several nodes on one Redis, clients spread over them
    Cluster(ClusterArguments),
    /// Connections that are subscribed and idle: memory, CPU, set-up
    Idle(IdleArguments),
    /// All clients connect at once: nobody may be refused
    Storm(StormArguments),
    /// Clients connect and leave a million times: memory and Redis keys must be freed
    Churn(ChurnArguments),
    /// One publication to many subscribers, one shard beside two, on all cores
    Parallel(ParallelArguments),
    /// Make one page with plots from stored reports
    Page(PageArguments),
    /// The server of the baseline, started by the other commands
    #[command(name = raw::ROLE, hide = true)]
    RawServer(RawArguments),
}

/// The reports of a page, and its file.
#[derive(Args, Debug)]
pub(crate) struct PageArguments {
    /// Reports stored by --json, in the order of the page
    #[arg(required = true, value_name = "FILE")]
    pub(crate) reports: Vec<PathBuf>,
    /// The file of the page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: PathBuf,
}

/// Defaults that differ between scenarios: command, option, value.
const DEFAULTS: [(&str, &str, &str); 17] = [
    ("fanout", "subjects", "raw,fanwire"),
    ("overload", "subjects", "fanwire,fanwire+redis"),
    ("overload", "rate", "1000"),
    ("overload", "publishers", "16"),
    ("rooms", "rate", "2000"),
    ("rooms", "publishers", "16"),
    ("users", "rate", "5000"),
    ("users", "publishers", "16"),
    // Enough to fill a stalled client's queue in the server, after the kernel's buffers.
    ("slow", "payload", "4096"),
    ("slow", "seconds", "15"),
    ("cluster", "subjects", "fanwire+redis,fanwire+redis+nodes=2,fanwire+redis+nodes=3"),
    ("cluster", "publishers", "12"),
    ("idle", "rounds", "1"),
    ("storm", "rounds", "3"),
    ("churn", "subjects", "fanwire,fanwire+redis"),
    ("churn", "rounds", "1"),
    ("parallel", "subjects", "fanwire+shards=1,fanwire+shards=2,raw+shards=1,raw+shards=2"),
];

/// Reads the program's arguments. A wrong one ends the program with a message.
pub(crate) fn read() -> Task {
    let mut matches = command().get_matches();
    match Arguments::from_arg_matches_mut(&mut matches) {
        Ok(arguments) => arguments.task,
        Err(error) => error.exit(),
    }
}

fn command() -> clap::Command {
    DEFAULTS.iter().fold(Arguments::command(), |command, (scenario, option, value)| {
        command.mut_subcommand(scenario, |scenario| {
            // The last value of an option counts, so that a line can be varied by adding to it.
            scenario.args_override_self(true).mut_arg(option, |argument| argument.default_value(*value))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Task, clap::Error> {
        let words = std::iter::once("fanwire-loadtest").chain(line.split_whitespace());
        Ok(Arguments::from_arg_matches(&command().try_get_matches_from(words)?)?.task)
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn each_scenario_has_its_defaults() {
        let Ok(Task::Fanout(fanout)) = parse("fanout") else { panic!("not read") };
        assert_eq!((fanout.settings.subjects.len(), fanout.settings.rounds), (2, 5));
        assert_eq!(fanout.load.rate, 100.0);
        let Ok(Task::Overload(overload)) = parse("overload --seconds 1") else { panic!("not read") };
        assert_eq!((overload.load.rate, overload.load.publishers), (1000.0, 16));
        let Ok(Task::Fanout(fanout)) = parse("fanout --rate 5 --subjects raw --rate 7 --subjects ws,raw")
        else {
            panic!("not read")
        };
        assert_eq!((fanout.load.rate, fanout.settings.subjects.len()), (7.0, 2));
        let Ok(Task::Cluster(cluster)) = parse("cluster") else { panic!("not read") };
        let names: Vec<String> = cluster.settings.subjects.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["fanwire+redis", "fanwire+redis+nodes=2", "fanwire+redis+nodes=3"]);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["", "fanout --subjects nobody", "fanout --rate 0", "page --html x", "fanout --bound x"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
