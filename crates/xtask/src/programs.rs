//! The programs of tests and benchmarks, which cargo builds and others run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::process::{self, cargo, command};

const BUILD_DEADLINE: Duration = Duration::from_secs(1800);

/// A program, and the file and the package that it was built of.
pub(crate) struct Program {
    pub executable: PathBuf,
    source: PathBuf,
    manifest: PathBuf,
}

impl Program {
    /// Returns its source, by the path from the folder of the crates.
    pub(crate) fn name(&self) -> String {
        let crates = self.manifest.ancestors().nth(2).unwrap_or(Path::new("/"));
        self.source.strip_prefix(crates).unwrap_or(&self.source).display().to_string()
    }

    /// A command that runs it as `cargo test` does, in the folder of its package.
    pub(crate) fn test(&self) -> Command {
        let folder = self.manifest.parent().unwrap_or(Path::new("/"));
        let mut test = command(&self.executable, &[]);
        test.current_dir(folder).env("CARGO_MANIFEST_DIR", folder);
        test
    }
}

/// Builds what `cargo test` or `cargo bench` would run with these words, and returns it.
pub(crate) fn build(words: &[&str]) -> Result<Vec<Program>, String> {
    /// The parts of cargo's messages that are read.
    #[derive(Deserialize)]
    struct Built {
        executable: Option<PathBuf>,
        manifest_path: PathBuf,
        profile: Profile,
        target: Target,
    }
    #[derive(Deserialize)]
    struct Profile {
        /// A program of tests or of a benchmark, not one that these run.
        test: bool,
    }
    #[derive(Deserialize)]
    struct Target {
        src_path: PathBuf,
    }

    let options = ["--no-run", "--message-format=json-render-diagnostics"];
    let messages = process::capture(cargo(&[words, &options].concat()), BUILD_DEADLINE)?;
    let programs = messages.lines().filter_map(|message| {
        let built = serde_json::from_str::<Built>(message).ok().filter(|built| built.profile.test)?;
        Some(Program {
            executable: built.executable?,
            source: built.target.src_path,
            manifest: built.manifest_path,
        })
    });
    Ok(programs.collect())
}
