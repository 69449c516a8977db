//! The report as text for a terminal: one row for each figure, one column for each subject.

use crate::report::{Report, Spread, Summary, Turn};

/// Returns the report without the raw histograms and series.
pub(crate) fn render(report: &Report) -> String {
    let load: Vec<String> = report.load.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let mut text = format!(
        "{}: {}\n{}; {} rounds\nload tool: {}; core {}\n",
        report.scenario,
        report.about,
        load.join(", "),
        report.turns.iter().map(|turn| turn.round).max().unwrap_or(0),
        report.machine.load_tool,
        report.machine.client_core,
    );
    for server in &report.servers {
        text += &format!("{}\n", server.described());
    }
    text.push('\n');
    text += &table(&rows(&report.summaries()));
    if !report.bounds.is_empty() {
        text.push('\n');
        let bounds = report.bounds.iter().map(|bound| {
            let verdict = bound.verdict.replace("not met", "NOT MET");
            let unit = if bound.unit == "ratio" { "" } else { &bound.unit };
            let measured =
                bound.measured.map_or_else(|| "-".to_owned(), |value| format!("{} {unit}", digits(value)));
            vec![verdict, bound.name.clone(), measured, format!("<= {} {unit}", digits(bound.at_most))]
        });
        text += &table(&bounds.collect::<Vec<_>>());
    }
    for (subject, note, rounds) in notes(report) {
        text += &format!("note: {subject}, {rounds}: {note}\n");
    }
    for turn in report.turns.iter().filter(|turn| !turn.is_clean()) {
        text += &format!("FAILED round {}, {}: {}\n", turn.round, turn.subject, failure(turn));
    }
    for bound in report.bounds.iter().filter(|bound| bound.fails_the_run) {
        text += &format!("FAILED {}: {}\n", bound.name, bound.verdict);
    }
    text
}

/// Returns the notes on a subject's turns, each with its rounds.
fn notes(report: &Report) -> Vec<(&str, String, String)> {
    let mut noted: Vec<(&str, String, Vec<String>)> = Vec::new();
    for turn in &report.turns {
        let pace = turn.not_at_pace.iter().map(|why| format!("not at its pace: {why}"));
        for note in turn.notes.iter().cloned().chain(pace) {
            match noted.iter_mut().find(|(subject, known, _)| *subject == turn.subject && *known == note) {
                Some((_, _, rounds)) => rounds.push(turn.round.to_string()),
                None => noted.push((&turn.subject, note, vec![turn.round.to_string()])),
            }
        }
    }
    let told = |rounds: Vec<String>| match &*rounds {
        [one] => format!("round {one}"),
        several => format!("rounds {}", several.join(", ")),
    };
    noted.into_iter().map(|(subject, note, rounds)| (subject, note, told(rounds))).collect()
}

/// Returns one line for the end of a turn: its first figures and its faults.
pub(crate) fn turn_line(turn: &Turn) -> String {
    const FIGURES_SHOWN: usize = 5;
    let figures: Vec<String> = turn
        .figures
        .iter()
        .take(FIGURES_SHOWN)
        .map(|figure| format!("{} {} {}", figure.name, digits(figure.value), figure.unit))
        .collect();
    let figures = figures.join(", ");
    let pace = turn.not_at_pace.iter().map(|why| format!("NOT AT ITS PACE: {why}; ")).collect::<String>();
    if turn.is_clean() { pace + &figures } else { format!("FAILED: {}; {pace}{figures}", failure(turn)) }
}

fn failure(turn: &Turn) -> String {
    let mut parts = Vec::new();
    if !turn.faults.is_clean() {
        parts.push(turn.faults.describe());
    }
    if turn.connections_lost > 0 {
        parts.push(format!("{} CONNECTIONS LOST", turn.connections_lost));
    }
    parts.extend(turn.reasons.iter().cloned());
    parts.join("; ")
}

/// Returns a heading, then each figure in order of its first occurrence.
fn rows(summaries: &[Summary]) -> Vec<Vec<String>> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for figure in summaries.iter().flat_map(|summary| &summary.figures) {
        if !names.iter().any(|(name, _)| *name == figure.name) {
            names.push((&figure.name, &figure.unit));
        }
    }
    let heading = ["".to_owned(), "".to_owned()].into_iter();
    let mut rows = vec![heading.chain(summaries.iter().map(|summary| summary.subject.clone())).collect()];
    for (name, unit) in names {
        let mut row = vec![name.to_owned(), unit.to_owned()];
        for summary in summaries {
            let figure = summary.figures.iter().find(|figure| figure.name == name);
            row.push(figure.map_or_else(
                || "-".to_owned(),
                |figure| {
                    // A count is no measurement, so it has no ratio.
                    let ratio = figure.ratio_to_first.filter(|_| figure.unit != "count");
                    let ratio = ratio.map(|ratio| format!("  x{}", digits(ratio.median)));
                    format!("{}{}", spread(figure.spread), ratio.unwrap_or_default())
                },
            ));
        }
        rows.push(row);
    }
    rows
}

fn spread(Spread { median, min, max }: Spread) -> String {
    if min == max { digits(median) } else { format!("{} [{}-{}]", digits(median), digits(min), digits(max)) }
}

/// Formats a number with three significant digits, more than a measurement has here.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Aligns columns at the width of their widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::BoundRule;
    use crate::report::tests::sample;

    #[test]
    fn a_report_shows_medians_ratios_bounds_and_failures() {
        let mut report = sample();
        let rule: BoundRule = "fanwire/raw:server CPU per delivery<=1.1".parse().unwrap();
        report.bounds.push(rule.judge(&report));
        report.bounds.push(BoundRule::absolute("fanwire", "slowest", 3.0).judge(&report));
        report.bounds[1].fails_the_run = true;
        report.turns[0].notes.push("mind this".to_owned());
        report.turns[2].notes.push("mind this".to_owned());
        report.turns[3].not_at_pace = Some("0.50 s behind".to_owned());
        report.turns[1].faults.lost = 3;
        report.turns[1].connections_lost = 1;
        report.turns[1].reasons.push("the server ended the connection".to_owned());
        let text = render(&report);
        for part in [
            "server CPU per delivery  us  20.0 [10.0-30.0]  22.5 [12.0-33.0]  x1.12",
            "fanwire: fanwire 1; core 0\n",
            "NOT MET       fanwire / raw, server CPU per delivery  1.12",
            "not measured  fanwire, slowest                        -",
            "note: raw, rounds 1, 2: mind this\n",
            "note: fanwire, round 2: not at its pace: 0.50 s behind\n",
            "FAILED fanwire, slowest: not measured\n",
            "FAILED round 1, fanwire: 3 LOST; 1 CONNECTIONS LOST; the server ended the connection",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), "a     b\nlong  c\n");
    }
}
