//! `cargo xtask bench --compare`: the instructions of codec, parser, sessions and fan-out, compared with a baseline.
//!
//! Instructions are counted, not timed, so the same code gives the same figures on a busy machine and on an idle
//! one, and a loss of a few percent shows in one run.

mod baseline;
mod count;
mod table;

use crate::process::Outcome;
use crate::report::{Report, Stop};
use crate::tools;

use baseline::{Baseline, Tools, Unlike};
use count::Counts;

/// A case may exceed its baseline by this many percent. Counting itself is exact, but unchanged code is compiled a little
/// differently when code beside it changes.
const TOLERANCE_PERCENT: f64 = 3.0;
/// The same where the baseline was made with another compiler or C library, which change figures by themselves.
const TOLERANCE_WITH_OTHER_TOOLS_PERCENT: f64 = 15.0;

/// Counts the cases whose name contains the filter, and fails if one of them is over its baseline.
pub(crate) fn compare(report: &mut Report, filter: Option<&str>) -> Result<(), Stop> {
    let counts = count(report, filter)?;
    report.step("instructions against the baseline", || {
        let baseline = Baseline::read()?;
        let unlike = baseline.unlike(&Tools::here());
        let tolerance = tolerance_percent(&unlike);
        if !unlike.is_empty() {
            let unlike: Vec<String> = unlike.iter().map(Unlike::to_string).collect();
            let unlike = unlike.join("; ");
            println!("The baseline was made with other tools, so the tolerance is wider: {unlike}.\n");
        }
        println!("{}", table::of(&baseline, &counts, filter, tolerance));
        verdict(&baseline, &counts, tolerance)
    })
}

/// Counts all cases and makes them the baseline.
pub(crate) fn save(report: &mut Report) -> Result<(), Stop> {
    let counts = count(report, None)?;
    report.step("save the baseline", || {
        // There may be none yet.
        let before = Baseline::read().unwrap_or_default();
        println!("{}", table::of(&before, &counts, None, TOLERANCE_PERCENT));
        Baseline::new(Tools::here(), counts).write()
    })
}

fn count(report: &mut Report, filter: Option<&str>) -> Result<Counts, Stop> {
    report.prepare("valgrind", tools::valgrind)?;
    let mut programs = Vec::new();
    report.prepare("optimized build", || {
        programs = count::build()?;
        Ok(Outcome::DONE)
    })?;
    let mut counts = Counts::new();
    report.prepare("count instructions", || {
        counts = count::count(&programs, filter)?;
        Ok(Outcome::DONE)
    })?;
    Ok(counts)
}

/// Another target has instructions of its own, which cannot be compared.
fn tolerance_percent(unlike: &[Unlike]) -> f64 {
    match unlike {
        [] => TOLERANCE_PERCENT,
        unlike if unlike.iter().any(Unlike::is_of_target) => f64::INFINITY,
        _ => TOLERANCE_WITH_OTHER_TOOLS_PERCENT,
    }
}

fn verdict(baseline: &Baseline, counts: &Counts, tolerance_percent: f64) -> Result<Outcome, String> {
    let changes = counts.iter().filter_map(|(name, now)| baseline.change_percent(name, *now));
    match changes.filter(|change| *change > tolerance_percent).count() {
        0 => Ok(Outcome::DONE),
        worse => Err(format!(
            "{worse} of {} cases are more than {tolerance_percent} % over the baseline.\n\
             Where each spends its instructions is in {}, for callgrind_annotate. To accept a higher cost, run \
              `cargo xtask bench --save`.",
            counts.len(),
            count::profiles_folder().display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, f64)]) -> Counts {
        counts.iter().map(|&(name, instructions)| (name.to_owned(), instructions)).collect()
    }

    #[test]
    fn only_what_is_over_its_baseline_by_more_than_the_tolerance_fails() {
        let baseline = Baseline::new(Tools::default(), counts(&[("a", 100.0), ("b", 200.0), ("gone", 1.0)]));
        for (now, tolerance, expected) in [
            (&[("a", 102.9), ("b", 100.0), ("new", 9.0)][..], 3.0, None),
            (&[("a", 103.1), ("b", 200.0)], 3.0, Some("1 of 2 ")),
            (&[("a", 110.0), ("b", 210.0)], 3.0, Some("2 of 2 ")),
            (&[("a", 110.0), ("b", 210.0)], 15.0, None),
            (&[("a", 900.0)], f64::INFINITY, None),
        ] {
            match verdict(&baseline, &counts(now), tolerance) {
                Ok(_) => assert_eq!(expected, None),
                Err(why) => assert!(expected.is_some_and(|expected| why.starts_with(expected)), "{why}"),
            }
        }
    }

    #[test]
    fn other_tools_are_allowed_more_and_another_target_anything() {
        let tools = |rustc: &str, target: &str| Tools {
            rustc: rustc.to_owned(),
            target: target.to_owned(),
            ..Tools::default()
        };
        let baseline = Baseline::new(tools("1", "x86"), Counts::new());
        for (here, tolerance) in [
            (tools("1", "x86"), TOLERANCE_PERCENT),
            (tools("2", "x86"), TOLERANCE_WITH_OTHER_TOOLS_PERCENT),
            (tools("2", "arm"), f64::INFINITY),
        ] {
            assert_eq!(tolerance_percent(&baseline.unlike(&here)), tolerance);
        }
    }
}
