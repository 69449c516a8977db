//! `overload`: one topic gets more messages than one write per message could deliver; is anything lost, and how late is it?

use crate::error::LoadError;
use crate::load::described;
use crate::report::{BoundRule, Report};
use crate::scenario::fanout::FanoutArguments;
use crate::scenario::flow::{FullCore, send};
use crate::scenario::{Bench, Outline, Stage};

const P99_MS_MAX: f64 = 25.0;

pub(crate) fn run(arguments: &FanoutArguments, bench: &mut Bench<'_>) -> Result<Report, LoadError> {
    let load = &arguments.load;
    let (plan, route) = arguments.plan(bench)?;
    let planned = load.rate * f64::from(load.burst) * f64::from(arguments.subscribers);
    let mut load_described = arguments.described_audience();
    load_described.extend(described(&[("planned", format!("{planned:.0} deliveries/s"))]));
    load_described.extend(load.described());
    let subjects = bench.subjects();
    let bounds = subjects.iter().map(|(name, _)| BoundRule::absolute(name, "latency p99", P99_MS_MAX));
    let outline = Outline {
        scenario: "overload",
        about: "more is published than one write per message can carry; nothing may be lost".to_owned(),
        load: load_described,
        bounds: bounds.collect(),
    };
    bench.run(outline, &subjects, |bench, subject| {
        let mut stage = Stage::open(bench, subject, &plan)?;
        let mut turn = send(bench, &mut stage, load, route, FullCore::IsThePoint)?;
        turn.figure("deliveries per second planned", "1/s", planned);
        // A publisher that waits for a busy server publishes late, which latency from its write does not show.
        let (late, from_due) = (&stage.clients.shared.published_late, &stage.clients.shared.latency_from_due);
        for (name, recorder) in [("published late", late), ("latency from due time", from_due)] {
            if !recorder.is_empty() {
                turn.figure(&format!("{name} p50"), "ms", recorder.quantile_ms(0.5));
                turn.figure(&format!("{name} p99"), "ms", recorder.quantile_ms(0.99));
                turn.histograms.push(recorder.named(name));
            }
        }
        Ok(turn)
    })
}
