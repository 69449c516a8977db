//! `cargo xtask structure`: rules about files and crates that the compiler does not check.
//!
//! Files that are not parent and child do not import one another in a circle, crates without input and output are built
//! from such crates alone, and the architecture's walks are true. Names with several meanings and long files are printed.

mod dependencies;
mod imports;
mod modules;
mod names;
mod walks;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::process::{self, Outcome, cargo, root};
use crate::report::{Report, Stop};

use modules::Crate;

const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn run(report: &mut Report) -> Result<(), Stop> {
    let mut crates = Vec::new();
    report.prepare("names and sizes", || {
        crates = read_crates()?;
        println!("{}\n{}", names::shared_names(&crates), names::long_files()?);
        Ok(Outcome::DONE)
    })?;
    let circles = report.step("no circles between files", || {
        verdict(crates.iter().flat_map(|krate| {
            let circles = imports::circles(krate).into_iter();
            circles.map(|circle| format!("{}: {circle}", krate.name))
        }))
    });
    let pure = report.step("no input or output in pure crates", || verdict(dependencies::check()?));
    let walks = report.step("walks of the architecture", || verdict(walks::check()?));
    circles.and(pure).and(walks)
}

fn verdict(mistakes: impl IntoIterator<Item = String>) -> Result<Outcome, String> {
    let mistakes: Vec<String> = mistakes.into_iter().collect();
    if mistakes.is_empty() { Ok(Outcome::DONE) } else { Err(mistakes.join("\n")) }
}

/// Reads the libraries and programs of the workspace.
fn read_crates() -> Result<Vec<Crate>, String> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        targets: Vec<CrateTarget>,
    }
    #[derive(Deserialize)]
    struct CrateTarget {
        kind: Vec<String>,
        src_path: PathBuf,
    }

    let metadata =
        process::capture(cargo(&["metadata", "--locked", "--no-deps", "--format-version", "1"]), DEADLINE)?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).map_err(|error| format!("cannot read cargo's metadata: {error}"))?;
    let mut crates = Vec::new();
    for package in &metadata.packages {
        for target in &package.targets {
            if target.kind.iter().any(|kind| kind == "lib" || kind == "bin") {
                let file = target.src_path.strip_prefix(root()).unwrap_or(&target.src_path);
                let read = |file: &Path| fs::read_to_string(root().join(file)).ok();
                crates.push(Crate::read(&package.name, file, &read)?);
            }
        }
    }
    Ok(crates)
}

/// A file's path as documentation names it: a crate's folder, and the path below its `src`.
fn short(file: &Path) -> String {
    let parts = file.iter().filter(|part| *part != "crates" && *part != "src");
    parts.collect::<PathBuf>().display().to_string()
}
