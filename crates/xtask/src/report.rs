//! The steps of a run, their times and their tests. Every step is counted exactly once.

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{self, Outcome};

/// The rest of a command makes no sense.
#[derive(Debug)]
pub(crate) struct Stop;

/// Steps that run at the same time. Most suites of real clients wait more than they compute.
const LANES: usize = 2;

/// The steps of one run.
pub(crate) struct Report {
    started: Instant,
    steps: Vec<Step>,
}

struct Step {
    name: String,
    took: Duration,
    passed: u64,
    failed: u64,
    /// Why the step failed.
    said: Vec<String>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), steps: Vec::new() }
    }

    /// Runs one step under a heading and counts its tests. A failed step is noted and the run goes on, unless
    /// the caller uses `?`.
    pub(crate) fn step(
        &mut self,
        name: &str,
        run: impl FnOnce() -> Result<Outcome, String>,
    ) -> Result<(), Stop> {
        let step = timed(name, run);
        self.note(step)
    }

    /// Like [`Self::step`] for the preparation of tests: a failure counts, success does not.
    pub(crate) fn prepare(
        &mut self,
        name: &str,
        run: impl FnOnce() -> Result<Outcome, String>,
    ) -> Result<(), Stop> {
        let step = timed(name, run);
        self.note(Step { passed: 0, ..step })
    }

    /// Runs commands as steps of these names beside one another, begun in their order; each is shown when it ended. All
    /// run, whatever fails.
    pub(crate) fn steps_in_lanes(
        &mut self,
        commands: Vec<(String, Command)>,
        deadline: Duration,
    ) -> Result<(), Stop> {
        let lanes = LANES.min(commands.len());
        let to_begin = Mutex::new(commands.into_iter().enumerate());
        let ended = Mutex::new(Vec::new());
        let next = || to_begin.lock().expect("no lane panics with the lock").next();
        thread::scope(|scope| {
            for _ in 0..lanes {
                scope.spawn(|| {
                    while let Some((at, (name, command))) = next() {
                        let started = Instant::now();
                        let result = process::run_unshown(command, deadline);
                        let took = started.elapsed();
                        let mut ended = ended.lock().expect("no lane panics with the lock");
                        println!("\n=== {name} ===");
                        ended.push((at, Step::new(&name, took, result)));
                    }
                });
            }
        });
        let mut ended = ended.into_inner().expect("no lane panics with the lock");
        ended.sort_unstable_by_key(|(at, _)| *at);
        ended.into_iter().map(|(_, step)| self.note(step)).fold(Ok(()), Result::and)
    }

    /// Prints again what failed, then the time of each step and the closing line, so that the end of a long run says why
    /// it failed.
    pub(crate) fn finish(self) -> ExitCode {
        for step in self.steps.iter().filter(|step| step.failed > 0) {
            println!("\n=== Output of {}, which failed ===", step.name);
            for line in &step.said {
                println!("{}", line.trim_end());
            }
        }
        let width = self.steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
        println!("\n=== Summary ===");
        for step in &self.steps {
            let verdict = if step.failed == 0 { "ok" } else { "FAILED" };
            println!(
                "{:width$}  {:>7.1} s  {:>5} passed  {:>3} failed  {verdict}",
                step.name,
                step.took.as_secs_f64(),
                step.passed,
                step.failed
            );
        }
        println!("{:width$}  {:>7.1} s", "total", self.started.elapsed().as_secs_f64());
        let passed: u64 = self.steps.iter().map(|step| step.passed).sum();
        let failed: u64 = self.steps.iter().map(|step| step.failed).sum();
        println!("{passed} passed, {failed} failed");
        if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn note(&mut self, step: Step) -> Result<(), Stop> {
        let went_well = step.failed == 0;
        self.steps.push(step);
        if went_well { Ok(()) } else { Err(Stop) }
    }
}

impl Step {
    /// Counts what a step did, and shows what it has not shown yet.
    fn new(name: &str, took: Duration, result: Result<Outcome, String>) -> Self {
        let ((passed, failed), said) = match result {
            Ok(outcome) => {
                print!("{}", outcome.unshown().concat());
                (outcome.counts(), outcome.said())
            }
            Err(why) => {
                eprintln!("{name}: {why}");
                ((0, 1), vec![why])
            }
        };
        Self { name: name.to_owned(), took, passed, failed, said }
    }
}

fn timed(name: &str, run: impl FnOnce() -> Result<Outcome, String>) -> Step {
    println!("\n=== {name} ===");
    let started = Instant::now();
    let result = run();
    Step::new(name, started.elapsed(), result)
}
