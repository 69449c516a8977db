//! `cargo xtask bench`: named runs of the load tool against the build for production, whose results `docs/performance.md` cites,
//! and the Redis engine's own benchmark.

use std::path::PathBuf;
use std::time::Duration;

use crate::end_to_end::target_folder;
use crate::process::{self, cargo, command, root};
use crate::report::{Report, Stop};
use crate::tools;

/// Arguments of the load tool, stored under a name.
struct Run {
    name: &'static str,
    /// The measured quantity, as in a table's row.
    about: &'static str,
    /// The scenario and its options, between spaces.
    arguments: &'static str,
}

/// Every row of the table of goals, quick ones first. Each has five rounds, or nine where bounds are close, or says how many.
const RUNS: &[Run] = &[
    Run {
        name: "fanout-1000",
        about: "CPU of a delivery to 1,000 subscribers, beside raw sends and peers",
        arguments: "fanout --subscribers 1000 --rate 50 --payload 128 --rounds 9 \
                    --subjects raw,fanwire,fanwire+redis,fanwire+sse,nchan,ws,socketio,nats",
    },
    Run {
        name: "fanout-1000-100",
        about: "latency of the last hop, 1,000 subscribers",
        arguments: "fanout --subscribers 1000 --rate 100 --payload 128 --rounds 9 --subjects raw,fanwire,fanwire+redis",
    },
    Run {
        name: "fanout-5000",
        about: "CPU of a delivery to 5,000 subscribers; 10 messages/s, since one core cannot send 50 to each singly",
        arguments: "fanout --subscribers 5000 --rate 10 --payload 128 --rounds 5 \
                    --subjects raw,fanwire,fanwire+redis,nchan,ws,socketio",
    },
    Run {
        name: "bursts",
        about: "CPU of a delivery in bursts of 16",
        arguments: "fanout --subscribers 1000 --burst 16 --rate 40 --payload 128 --rounds 9 \
                    --subjects raw,fanwire,fanwire+redis",
    },
    Run {
        name: "bursts-peers",
        about: "CPU of a delivery in bursts of 16 beside peers, as often as the slowest of them can keep up with",
        arguments: "fanout --subscribers 1000 --burst 16 --rate 3 --seconds 12 --payload 128 --rounds 5 \
                    --subjects raw,fanwire,nchan,ws,socketio,nats",
    },
    Run {
        name: "deflate",
        about: "CPU of a delivery with permessage-deflate",
        arguments: "fanout --subscribers 1000 --rate 50 --payload 512 --rounds 9 --subjects fanwire,fanwire+deflate",
    },
    Run {
        name: "transports",
        about: "CPU of a delivery by each transport, beside WebSocket: more than is allowed fails the run",
        arguments: "fanout --subscribers 1000 --history --rate 50 --payload 128 --rounds 5 \
                    --subjects fanwire,fanwire+sse,fanwire+ndjson,fanwire+bare,fanwire+http_stream,fanwire+uni_sse,\
                    fanwire+uni_http_stream,fanwire+uni_websocket,fanwire+protobuf,fanwire+http_stream+protobuf",
    },
    Run {
        name: "transports-topics",
        about: "the same with four topics, so that each stream has cursors of its own",
        arguments: "fanout --subscribers 1000 --topics 4 --history --rate 50 --payload 128 --rounds 5 \
                    --subjects fanwire,fanwire+sse,fanwire+ndjson,fanwire+bare,fanwire+http_stream",
    },
    Run {
        name: "polls",
        about: "CPU of a delivery by long polls, each of which is a request, beside WebSocket; five rounds",
        arguments: "fanout --subscribers 1000 --history --rate 5 --payload 128 --rounds 5 --subjects fanwire,fanwire+poll",
    },
    Run {
        name: "overload",
        about: "a million deliveries a second planned on one core",
        arguments: "overload --rounds 5 --subjects fanwire,fanwire+redis",
    },
    Run {
        name: "rooms",
        about: "CPU of a delivery in many small topics; three rounds",
        arguments: "rooms --rounds 3 --subjects fanwire,fanwire+redis,nchan,ws,socketio,nats",
    },
    Run {
        name: "users",
        about: "CPU of a publication to one user; three rounds",
        arguments: "users --rounds 3 --subjects fanwire,fanwire+redis,nchan,ws,socketio,nats",
    },
    Run {
        name: "cluster",
        about: "the cost of one, two and three nodes and their Redis",
        arguments: "cluster --rounds 5 --subjects fanwire+redis,fanwire+redis+nodes=2,fanwire+redis+nodes=3",
    },
    Run {
        name: "cluster-busy",
        about: "the same with little to deliver: what a publication costs Redis and each node that has subscribers",
        arguments: "cluster --subscribers 30 --topics 10 --rate 3000 --rounds 5 \
                    --subjects fanwire+redis,fanwire+redis+nodes=2,fanwire+redis+nodes=3",
    },
    Run {
        name: "storm",
        about: "15,000 clients connect: server CPU, slowest, refused",
        arguments: "storm --rounds 5 --subjects fanwire,fanwire+redis",
    },
    Run {
        name: "parallel",
        about: "one publication to 10,000, two shards beside one, and the same of bare sends; fifteen rounds",
        arguments: "parallel --rounds 15 --publications 10 \
                    --subjects fanwire+shards=1,fanwire+shards=2,raw+shards=1,raw+shards=2",
    },
    Run {
        name: "slow",
        about: "1 % stalled sockets: latency of the others, memory; at half load, where the p99 is not one of queueing",
        arguments: "slow --rate 50 --payload 8192 --rounds 5 --subjects fanwire,fanwire+redis",
    },
    Run {
        name: "idle-peers",
        about: "memory of an idle connection of peers; one round",
        arguments: "idle --connections 10000 --rounds 1 --subjects nchan,nats,ws,socketio",
    },
    Run {
        name: "idle",
        about: "memory of an idle connection and its parts, of a further subscription; CPU of idling and of set-up",
        arguments: "idle --connections 15000 --window 25 --split --further 10 --rounds 5 --subjects fanwire,fanwire+redis",
    },
    Run {
        name: "idle-transports",
        about: "memory of an idle client of each transport; three rounds",
        arguments: "idle --connections 5000 --history --window 25 --rounds 3 \
                    --subjects fanwire,fanwire+sse,fanwire+ndjson,fanwire+bare,fanwire+http_stream,fanwire+uni_sse,\
                    fanwire+poll",
    },
    Run {
        name: "churn",
        about: "a million clients come and go: memory and Redis keys; one round",
        arguments: "churn --cycles 1000000 --warm-up 50000 --rounds 1 --subjects fanwire,fanwire+redis",
    },
];

/// Measures the engine that keeps topics in Redis, without a server around it.
const ENGINE: &str = "engine";
/// The folder of results, from the root of the work tree.
const RESULTS: &str = "loadtest/results";
const PAGE: &str = "loadtest/results/report.html";
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
const RUN_DEADLINE: Duration = Duration::from_secs(3600);
const PAGE_DEADLINE: Duration = Duration::from_secs(60);

/// Prints the runs.
pub(crate) fn list() {
    for Run { name, about, arguments } in RUNS {
        println!("{name:16} {about}\n{:16} fanwire-loadtest {arguments}", "");
    }
    println!("{ENGINE:16} the engine that keeps topics in Redis, alone");
}

/// Makes the named runs, or all; `arguments` are added to each and override its own.
pub(crate) fn run(report: &mut Report, names: &[String], arguments: &[String]) -> Result<(), Stop> {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    report.prepare("names of runs", || match names.iter().find(|name| !is_known(name)) {
        Some(unknown) => Err(format!("no run is called {unknown}; cargo xtask bench --list prints all")),
        None => Ok(process::Outcome::DONE),
    })?;
    let runs: Vec<&Run> = RUNS.iter().filter(|run| wanted(run.name)).collect();
    let mut result = if runs.is_empty() { Ok(()) } else { load_test(report, &runs, arguments) };
    if wanted(ENGINE) {
        // They are the load tool's, unless the engine alone is asked for.
        let own = if runs.is_empty() { arguments } else { &[] };
        result = result.and(engine(report, own));
    }
    result
}

fn load_test(report: &mut Report, runs: &[&Run], arguments: &[String]) -> Result<(), Stop> {
    report.prepare("programs", tools::load_test)?;
    report.prepare("peers of the load test", tools::peer_packages)?;
    report.prepare("build for production", || {
        let build = cargo(&["build", "--profile", "dist", "-p", "fanwire", "-p", "fanwire-loadtest"]);
        process::run(build, BUILD_DEADLINE)
    })?;
    report.prepare("folder of results", || {
        std::fs::create_dir_all(root().join(RESULTS))
            .map_err(|error| format!("cannot make {RESULTS}: {error}"))?;
        Ok(process::Outcome::DONE)
    })?;
    let built = target_folder().join("dist");
    let tool = built.join("fanwire-loadtest");
    let mut result = Ok(());
    for run in runs {
        let passed = report.step(run.name, || {
            let mut load = command(&tool, &[]);
            load.args(run.arguments.split_whitespace()).arg("--server").arg(built.join("fanwire"));
            load.arg("--json").arg(result_of(run)).args(arguments);
            process::run_group(load, RUN_DEADLINE)
        });
        result = result.and(passed);
    }
    let page = report.prepare("page of all results", || {
        let stored: Vec<PathBuf> =
            RUNS.iter().map(result_of).filter(|file| root().join(file).exists()).collect();
        if stored.is_empty() {
            return Ok(process::Outcome::DONE);
        }
        let mut page = command(&tool, &["page"]);
        page.args(stored).args(["--html", PAGE]);
        process::run(page, PAGE_DEADLINE)
    });
    result.and(page)
}

fn result_of(run: &Run) -> PathBuf {
    PathBuf::from(RESULTS).join(run.name).with_extension("json")
}

fn is_known(name: &str) -> bool {
    name == ENGINE || RUNS.iter().any(|run| run.name == name)
}

fn engine(report: &mut Report, arguments: &[String]) -> Result<(), Stop> {
    report.step(ENGINE, || {
        let mut bench = cargo(&["bench", "-p", "fanwire-broker", "--bench", ENGINE, "--"]);
        bench.args(arguments);
        process::run_group(bench, RUN_DEADLINE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_names_of_their_own_that_are_file_names() {
        for (place, run) in RUNS.iter().enumerate() {
            assert!(
                run.name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-'),
                "{}",
                run.name
            );
            assert!(RUNS[..place].iter().all(|other| other.name != run.name), "{}", run.name);
            assert!(is_known(run.name) && run.arguments.contains("--rounds "), "{}", run.name);
        }
        assert!(!is_known("fanout") && is_known(ENGINE));
    }
}
