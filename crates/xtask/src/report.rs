//! What ran, how long it took and how many tests passed. Every step is counted exactly once.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::process::Outcome;

/// The rest of a verb makes no sense any more.
#[derive(Debug)]
pub(crate) struct Stop;

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
        let (took, passed, failed) = timed(name, run);
        self.note(name, took, passed, failed)
    }

    /// Like [`Self::step`] for what has to be there before tests: a failure counts, success does not.
    pub(crate) fn prepare(
        &mut self,
        name: &str,
        run: impl FnOnce() -> Result<Outcome, String>,
    ) -> Result<(), Stop> {
        let (took, _, failed) = timed(name, run);
        self.note(name, took, 0, failed)
    }

    /// Prints the time of each step and the closing line.
    pub(crate) fn finish(self) -> ExitCode {
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

    fn note(&mut self, name: &str, took: Duration, passed: u64, failed: u64) -> Result<(), Stop> {
        self.steps.push(Step { name: name.to_owned(), took, passed, failed });
        if failed == 0 { Ok(()) } else { Err(Stop) }
    }
}

fn timed(name: &str, run: impl FnOnce() -> Result<Outcome, String>) -> (Duration, u64, u64) {
    println!("\n=== {name} ===");
    let started = Instant::now();
    let (passed, failed) = match run() {
        Ok(outcome) => outcome.counts(),
        Err(why) => {
            eprintln!("{name}: {why}");
            (0, 1)
        }
    };
    (started.elapsed(), passed, failed)
}
