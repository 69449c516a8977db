//! `churn`: clients connect, subscribe and leave, over and over, always new users; is all their memory freed?
//!
//! Half of them close, half just disconnect. The server's memory at the end is compared with that after a warm-up, the keys
//! in Redis with those before the first client.

use std::time::{Duration, Instant};

use clap::Args;

use crate::client::Lost;
use crate::dialect::Seats;
use crate::error::LoadError;
use crate::load::described;
use crate::measure::meter::{Meter, server_memory};
use crate::report::{BoundRule, Report, Series, Turn};
use crate::scenario::{Bench, Outline, Plan, Stage};
use crate::settings::Settings;
use crate::subject::Subject;

const GROWTH_MAX: f64 = 0.05;
/// Points of each series.
const SAMPLES: u32 = 200;
/// Number of loopback addresses of clients: one would run out of ports.
const SOURCES: usize = 16;
/// Without any client that connects or leaves for this long the server has stopped.
const STALL_MAX: Duration = Duration::from_secs(10);
const TURN_MAX: Duration = Duration::from_millis(100);

/// Options of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChurnArguments {
    /// Clients that connect and leave after the warm-up
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cycles: u32,
    /// Clients that connect and leave before the first measurement
    #[arg(long, default_value_t = 50_000, value_name = "CYCLES")]
    pub(crate) warm_up: u32,
    /// Topics that clients subscribe to in turn; with fewer topics than clients at a time, topics have several members
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) topics: u32,
    /// Clients at one time
    #[arg(long, default_value_t = 64, value_name = "CLIENTS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) at_once: u32,
    /// Seconds of rest before the server is measured; longer than it keeps topics after their last subscriber
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) rest: u32,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

pub(crate) fn run(arguments: &ChurnArguments, bench: &mut Bench<'_>) -> Result<Report, LoadError> {
    let ChurnArguments { cycles, warm_up, topics, at_once, .. } = arguments;
    let subjects = bench.subjects();
    let bounds = subjects.iter().flat_map(|(name, subject)| {
        // Nobody reads the events.
        let keys =
            (subject.redis && !subject.events).then(|| BoundRule::absolute(name, "Redis keys growth", 0.0));
        std::iter::once(BoundRule::absolute(name, "memory growth", GROWTH_MAX)).chain(keys)
    });
    let outline = Outline {
        scenario: "churn",
        about:
            "clients connect, subscribe and leave, half of them without a word; memory grows from the warm-up's end, \
             keys from its start"
                .to_owned(),
        load: described(&[
            ("cycles", cycles.to_string()),
            ("warm-up", warm_up.to_string()),
            ("topics", topics.to_string()),
            ("at once", at_once.to_string()),
        ]),
        bounds: bounds.collect(),
    };
    bench.run(outline, &subjects, |bench, subject| turn(arguments, bench, subject))
}

fn turn(arguments: &ChurnArguments, bench: &mut Bench<'_>, subject: &Subject) -> Result<Turn, LoadError> {
    let ChurnArguments { cycles, warm_up, topics, at_once, rest, .. } = arguments;
    let plan = Plan {
        clients: *at_once as usize,
        seats: Seats::Rotating { topics: *topics as usize },
        topic_prefix: None,
        load: None,
        lanes: 0,
    };
    let mut stage = Stage::start(bench, subject, &plan)?;
    let rest = Duration::from_secs((*rest).into());
    let topics = *topics as usize;
    let mut churn = Churn { at_once: *at_once as usize, topics, started: 0, done: 0 };
    let before = Sample::take(&stage)?;
    churn.run(&mut stage, *warm_up as usize, |_, _| Ok(()))?;
    bench.progress.live("resting after the warm-up");
    stage.clients.run_for(rest)?;
    let start = Sample::take(&stage)?;

    let mut samples = vec![(0, before), (*warm_up as usize, start)];
    let sample_every = (cycles / SAMPLES).max(1) as usize;
    let mut next_sample = *warm_up as usize + sample_every;
    let meter = Meter::start(&stage.target.parts())?;
    churn.run(&mut stage, *cycles as usize, |stage, done| {
        if done >= next_sample {
            next_sample += sample_every;
            samples.push((done, Sample::take(stage)?));
        }
        let done = done - *warm_up as usize;
        if bench.progress.is_due() {
            let used = meter.used()?;
            let memory = samples.last().map_or(0, |(_, sample)| sample.resident >> 20);
            let rate = done as f64 / used.seconds;
            bench.progress.live(&format!("{done} of {cycles} cycles, {rate:.0}/s, {memory} MiB"));
        }
        Ok(())
    })?;
    let used = meter.used()?;
    bench.progress.live("resting before the end is measured");
    stage.clients.run_for(rest)?;
    let end = Sample::take(&stage)?;
    samples.push((*warm_up as usize + *cycles as usize, end));

    let mut turn = Turn::default();
    let each = f64::from(*cycles);
    let growth = (end.resident as f64 - start.resident as f64) / start.resident as f64;
    turn.figure("memory growth", "ratio", growth);
    turn.figure("memory after warm-up", "B", start.resident as f64);
    turn.figure("memory at the end", "B", end.resident as f64);
    if let (Some(before), Some(start), Some(end)) = (before.redis, start.redis, end.redis) {
        turn.figure("Redis keys growth", "count", end.keys as f64 - before.keys as f64);
        turn.figure("Redis keys at the end", "count", end.keys as f64);
        let growth = |from: u64| (end.bytes as f64 - from as f64) / from as f64;
        turn.figure("Redis memory growth", "ratio", growth(start.bytes));
        turn.figure("Redis memory growth from before the warm-up", "ratio", growth(before.bytes));
    }
    if let Some(server) = used.server() {
        turn.figure("server CPU per cycle", "us", server.microseconds() / each);
    }
    turn.figure("client CPU per cycle", "us", used.client.microseconds() / each);
    for (name, part) in used.others() {
        turn.figure(&format!("{name} CPU per cycle"), "us", part.microseconds() / each);
    }
    turn.figure("cycles per second", "1/s", each / used.seconds);
    turn.series = series(&samples);
    turn.histograms.push(stage.clients.shared.set_up.named("set-up"));
    let (lost, reasons) = stage.clients.losses();
    turn.connections_lost = lost as u64;
    turn.reasons = reasons.to_vec();
    let mut present = 0;
    for topic in 0..topics {
        present += stage.target.present(&stage.streams.audience.topic_name(topic))?.unwrap_or(0);
    }
    if present > 0 {
        turn.reasons.push(format!("the server still counts {present} clients, but all have gone"));
    }
    Ok(turn)
}

/// Clients that connect and leave, each under the next number.
#[derive(Debug)]
struct Churn {
    at_once: usize,
    topics: usize,
    started: usize,
    done: usize,
}

impl Churn {
    /// Runs until `cycles` more clients have connected and left; there is none before and after.
    fn run(
        &mut self,
        stage: &mut Stage,
        cycles: usize,
        mut watch: impl FnMut(&Stage, usize) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        let end = self.done + cycles;
        for place in 0..self.at_once.min(cycles) {
            self.start(stage, place)?;
        }
        let mut last_step = (0, Instant::now());
        while self.done < end {
            let step = stage.clients.settled() + self.done;
            if step != last_step.0 {
                last_step = (step, Instant::now());
            }
            if last_step.1.elapsed() > STALL_MAX {
                let told = format!("let nobody come or go for {STALL_MAX:?}, after {} cycles", self.done);
                return Err(stage.target.explain(LoadError::Server(told)));
            }
            stage.clients.turn(Some(TURN_MAX)).map_err(|error| stage.target.explain(error))?;
            // Checks all of them: a client that left during this turn is not in any later event.
            for place in 0..self.at_once.min(cycles) {
                if stage.clients.is_live(place) {
                    self.leave(stage, place)?;
                }
                if stage.clients.take_gone(place) {
                    self.done += 1;
                    if self.started < end {
                        self.start(stage, place)?;
                    }
                }
            }
            watch(stage, self.done)?;
        }
        Ok(())
    }

    fn start(&mut self, stage: &mut Stage, place: usize) -> Result<(), LoadError> {
        let number = self.started;
        self.started += 1;
        stage.clients.start_at(place, number, number % SOURCES)
    }

    /// Ends a client's connection. Every other client of each topic closes it by the protocol.
    fn leave(&self, stage: &mut Stage, place: usize) -> Result<(), LoadError> {
        let of_its_topic = stage.clients.number(place) / self.topics;
        let left: Result<(), Lost> = if of_its_topic.is_multiple_of(2) {
            stage.clients.leave(place)
        } else {
            stage.clients.vanish(place)
        };
        left.map_err(|lost| LoadError::Server(format!("did not let a client go: {lost}")))
    }
}

/// The resources in use at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    resident: u64,
    redis: Option<crate::target::redis::Use>,
}

impl Sample {
    fn take(stage: &Stage) -> Result<Self, LoadError> {
        let memory = server_memory(&stage.target.parts())?.ok_or_else(|| {
            LoadError::Unsupported("churn needs the server's process here; name it by --pid".to_owned())
        })?;
        Ok(Self { resident: memory.resident, redis: stage.target.redis_use()? })
    }
}

fn series(samples: &[(usize, Sample)]) -> Vec<Series> {
    let series = |name: &str, unit: &str, value: &dyn Fn(&Sample) -> Option<u64>| Series {
        name: name.to_owned(),
        unit: unit.to_owned(),
        x_unit: "cycles".to_owned(),
        points: samples
            .iter()
            .filter_map(|(cycles, sample)| Some((*cycles as f64, value(sample)? as f64)))
            .collect(),
    };
    let mut all = vec![
        series("server resident memory", "B", &|sample| Some(sample.resident)),
        series("Redis keys", "count", &|sample| sample.redis.map(|redis| redis.keys)),
        series("Redis memory", "B", &|sample| sample.redis.map(|redis| redis.bytes)),
    ];
    all.retain(|series| !series.points.is_empty());
    all
}
