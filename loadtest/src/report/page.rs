//! Reports as one HTML file with style, script and data, which opens without a server.
//!
//! Names and texts in a report may come from a measured server, so the data is inert JSON in the file, and the script adds
//! it to the page as text only.

use super::{Report, Summarised};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page/style.css");
/// In order of their dependencies.
const SCRIPTS: [&str; 4] = [
    include_str!("page/figures.js"),
    include_str!("page/elements.js"),
    include_str!("page/plots.js"),
    include_str!("page/page.js"),
];

/// Returns the page of these reports, in their order.
pub(crate) fn render(reports: &[Report]) -> String {
    let script = format!("'use strict';\n(() => {{\n{}\n}})();", SCRIPTS.join("\n"));
    fill(TEMPLATE, &[("{{style}}", STYLE), ("{{data}}", &inert_json(reports)), ("{{script}}", &script)])
}

/// Returns JSON that can neither end its element nor open a comment: both begin with `<`.
fn inert_json(reports: &[Report]) -> String {
    let without_buckets: Vec<Report> = reports.iter().map(without_buckets).collect();
    let summarised: Vec<Summarised<'_>> = reports
        .iter()
        .zip(&without_buckets)
        .map(|(whole, report)| Summarised { report, summary: whole.summaries() })
        .collect();
    let json = serde_json::to_string(&summarised).expect("a report has string keys and numbers alone");
    json.replace('<', "\\u003c")
}

/// Returns a report whose turns have percentiles only: the page draws the sums of the rounds, which are in the summary.
fn without_buckets(report: &Report) -> Report {
    let mut report = report.clone();
    for histogram in report.turns.iter_mut().flat_map(|turn| &mut turn.histograms) {
        histogram.buckets.clear();
    }
    report
}

/// Inserts each part at its place, in order; inserted parts are not searched again.
fn fill(template: &str, parts: &[(&str, &str)]) -> String {
    let mut page =
        String::with_capacity(template.len() + parts.iter().map(|(_, part)| part.len()).sum::<usize>());
    let mut rest = template;
    for (place, part) in parts {
        let (before, after) = rest.split_once(place).expect("the template has a place for every part");
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page.push_str(rest);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    const HOSTILE: &str = "</script><script>document.title='taken'</script><!--{{script}}\u{2028}";

    /// Returns the data for the page's script.
    fn embedded(page: &str) -> &str {
        let (_, data) = page.split_once(r#"<script type="application/json" id="data">"#).unwrap();
        data.split_once("</script>").unwrap().0
    }

    #[test]
    fn the_reports_come_back_out_of_the_page() {
        let reports = [sample(), sample()];
        let page = render(&reports);
        let read: Vec<Report> = serde_json::from_str(embedded(&page)).unwrap();
        assert_eq!(read, [without_buckets(&sample()), without_buckets(&sample())]);
        let summarised: serde_json::Value = serde_json::from_str(embedded(&page)).unwrap();
        assert_eq!(summarised[1]["summary"], serde_json::to_value(sample().summaries()).unwrap());
    }

    #[test]
    fn hostile_names_stay_data() {
        let harmless = render(&[sample()]);
        let mut report = sample();
        report.about = HOSTILE.to_owned();
        report.subjects[1] = HOSTILE.to_owned();
        report.turns[1].subject = HOSTILE.to_owned();
        report.turns[1].reasons.push(HOSTILE.to_owned());
        let page = render(&[report.clone()]);
        for markup in ["<script", "</script", "<!--"] {
            assert_eq!(page.matches(markup).count(), harmless.matches(markup).count(), "{markup}");
        }
        let read: Vec<Report> = serde_json::from_str(embedded(&page)).unwrap();
        assert_eq!(read, [without_buckets(&report)]);
    }

    #[test]
    fn the_page_asks_nothing_of_a_network() {
        let page = render(&[]);
        assert!(page.contains("default-src 'none'"));
        // The name of the SVG namespace is the only address.
        let addresses: Vec<_> = page.match_indices("://").map(|(at, _)| &page[at - 5..at + 22]).collect();
        assert_eq!(addresses, ["'http://www.w3.org/2000/svg"]);
    }

    #[test]
    fn every_place_is_filled() {
        assert!(!render(&[sample()]).contains("{{"), "a place is left");
    }
}
