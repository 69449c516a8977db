//! The map of the code, `docs/architecture.md`: its paths exist, no walk passes more files than one can follow, and the legs
//! that a walk names are explained. That each file leads to the next is not checked: most calls go through methods, which names
//! alone do not tell apart.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::process::root;

const PAGE: &str = "docs/architecture.md";
/// The heading above the table of walks.
const HEADING: &str = "## Walks";
/// Files of one walk.
const FILES_MAX: usize = 12;

/// Returns the mistakes of the page.
pub(super) fn check() -> Result<Vec<String>, String> {
    let page =
        fs::read_to_string(root().join(PAGE)).map_err(|error| format!("cannot read {PAGE}: {error}"))?;
    Ok(mistakes(&page, |path| exists(root(), path)))
}

/// Paths begin with the name of a crate's folder and leave out its `src`, or begin at the root.
fn exists(root: &Path, path: &str) -> bool {
    let of_crate = path.split_once('/').is_some_and(|(folder, rest)| {
        let tool = root.join(folder).join("src");
        root.join("crates").join(folder).join("src").join(rest).exists() || tool.join(rest).exists()
    });
    of_crate || root.join(path).exists()
}

fn mistakes(page: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut mistakes = Vec::new();
    let missing = paths(page).into_iter().filter(|path| !exists(path));
    mistakes.extend(missing.map(|path| format!("{PAGE}: there is no {path}")));
    let walks = page.split_once(HEADING).map_or("", |(_, rest)| rest);
    let walks = walks.split_once("\n## ").map_or(walks, |(section, _)| section);
    let rows: Vec<_> = walks.lines().filter(|line| line.starts_with('|') && line.contains(".rs`")).collect();
    if rows.is_empty() {
        mistakes.push(format!("{PAGE}: there is no table of walks below \"{HEADING}\""));
    }
    let cells: Vec<_> = rows.iter().filter_map(|row| row.trim_start_matches('|').split_once('|')).collect();
    let legs: BTreeSet<&str> = cells.iter().flat_map(|(leg, _)| in_italics(leg)).collect();
    for (verb, files) in cells {
        let (verb, count) = (verb.trim(), paths(files).len());
        if count > FILES_MAX {
            mistakes.push(format!("{PAGE}: the walk {verb:?} passes {count} files, more than {FILES_MAX}"));
        }
        let unknown = in_italics(files).filter(|leg| !legs.contains(leg));
        mistakes
            .extend(unknown.map(|leg| format!("{PAGE}: the walk {verb:?} passes {leg:?}, which is no leg")));
    }
    mistakes
}

fn in_italics(text: &str) -> impl Iterator<Item = &str> {
    text.split('*').skip(1).step_by(2)
}

/// The paths of files and folders between backticks.
fn paths(text: &str) -> BTreeSet<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|word| word.contains('/') && (word.ends_with(".rs") || word.ends_with('/')))
        .filter(|word| !word.starts_with('/') && !word.contains(char::is_whitespace))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALK: &str = "# Architecture\n\n## Walks\n\n| verb | files |\n| --- | --- |\n";

    #[test]
    fn paths_that_do_not_exist_are_mistakes() {
        let page = format!(
            "{WALK}| publish | `server/a.rs`, `server/b.rs` |\n\n## Rules\n\n`server/gone/`, `a b/c.rs`"
        );
        let found = mistakes(&page, |path| path == "server/a.rs");
        let expected = ["there is no server/b.rs", "there is no server/gone/"];
        assert_eq!(found, expected.map(|mistake| format!("docs/architecture.md: {mistake}")));
    }

    #[test]
    fn long_walks_and_a_page_without_walks_are_mistakes() {
        let row = |count: usize| (0..count).map(|n| format!("`server/{n}.rs`")).collect::<Vec<_>>().join(" ");
        let page =
            |count| format!("{WALK}| publish | {} `server/0.rs` |\n## Rules\n| `x/y.rs` |", row(count));
        assert!(mistakes(&page(12), |_| true).is_empty());
        let expected = "docs/architecture.md: the walk \"publish\" passes 13 files, more than 12";
        assert_eq!(mistakes(&page(13), |_| true), [expected]);
        let expected = "docs/architecture.md: there is no table of walks below \"## Walks\"";
        assert_eq!(mistakes(WALK, |_| true), [expected]);
    }

    #[test]
    fn a_leg_that_no_row_explains_is_a_mistake() {
        let page = format!(
            "{WALK}| *in*, to the session | `server/a.rs` |\n| publish | *in*, `server/b.rs`, *out* |\n"
        );
        let expected = "docs/architecture.md: the walk \"publish\" passes \"out\", which is no leg";
        assert_eq!(mistakes(&page, |_| true), [expected]);
    }

    #[test]
    fn paths_name_crates_tools_and_folders_of_the_work_tree() {
        for path in ["xtask/structure/walks.rs", "loadtest/main.rs", "crates/xtask/", "xtask/structure/"] {
            assert!(exists(root(), path), "{path}");
        }
        assert!(!exists(root(), "xtask/no.rs"));
    }
}
