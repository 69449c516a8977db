//! Cases with what they cost before and cost now, for people.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::baseline::Baseline;
use super::count::Counts;

const HEADING: &str = "instructions";

/// One line for each case of either, of those whose name contains the filter.
pub(super) fn of(
    baseline: &Baseline,
    counts: &Counts,
    filter: Option<&str>,
    tolerance_percent: f64,
) -> String {
    let before = baseline.instructions();
    let names: BTreeSet<&str> = before
        .keys()
        .map(String::as_str)
        .filter(|name| filter.is_none_or(|filter| name.contains(filter)))
        .chain(counts.keys().map(String::as_str))
        .collect();
    let width = names.iter().map(|name| name.len()).chain([HEADING.len()]).max().unwrap_or(0);
    let mut table = format!("{:width$}  {:>12}  {:>12}  {:>9}", HEADING, "baseline", "now", "change");
    for name in names {
        let figure = |counts: &Counts| counts.get(name).map_or("-".to_owned(), |count| format!("{count:.2}"));
        let change = match counts.get(name).map(|now| baseline.change_percent(name, *now)) {
            Some(Some(percent)) if percent > tolerance_percent => format!("{percent:>+7.2} %  WORSE"),
            Some(Some(percent)) => format!("{percent:>+7.2} %"),
            Some(None) => format!("{:>9}", "new"),
            None => format!("{:>9}", "gone"),
        };
        let _ = write!(table, "\n{name:width$}  {:>12}  {:>12}  {change}", figure(before), figure(counts));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::baseline::Tools;
    use super::*;

    #[test]
    fn every_wanted_case_of_either_has_a_line() {
        let counts = |counts: &[(&str, f64)]| {
            counts.iter().map(|&(name, instructions)| (name.to_owned(), instructions)).collect()
        };
        let before = counts(&[("a left", 7.0), ("a same", 200.0), ("a slow", 100.0), ("b", 1.0)]);
        let baseline = Baseline::new(Tools::default(), before);
        let now = counts(&[("a fresh", 3.5), ("a same", 199.0), ("a slow", 110.0)]);
        let lines = [
            "instructions      baseline           now     change",
            "a fresh                  -          3.50        new",
            "a left                7.00             -       gone",
            "a same              200.00        199.00    -0.50 %",
            "a slow              100.00        110.00   +10.00 %  WORSE",
        ];
        assert_eq!(of(&baseline, &now, Some("a "), 3.0).lines().collect::<Vec<_>>(), lines);
    }
}
