//! `fanwire config`: the default file, and translations from other servers.

use std::path::Path;

use crate::cli::{Config, Import};
use crate::config::{read_file, reference};
use crate::failure::{Failure, listed};
use crate::import::translate;
use crate::output::{complain, say};

pub(crate) fn run(command: Config) -> Result<(), Failure> {
    match command {
        Config::Default => say(reference().trim_end()),
        Config::Import { from: Import::Centrifugo { file } } => import(&file),
    }
}

fn import(file: &Path) -> Result<(), Failure> {
    let values = read_file(file).map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let translation = translate(&values, folder);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    say(format!("# Translated from {name} of Centrifugo.\n{}", translation.text.trim_end()))?;
    for left in &translation.left_out {
        complain(format!("{}: {}", left.key, left.reason));
    }
    for warning in &translation.warnings {
        complain(format!("warning: {warning}"));
    }
    if translation.problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::Run(listed("The translation would not pass `fanwire check`:", &translation.problems)))
    }
}
