//! Finds the programs and packages of peers. Errors say how to install missing ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::LoadError;

/// Debian's folder for programs of administrators.
const FURTHER_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

const UNKNOWN: &str = "version unknown";

/// Finds a program in the folders of `PATH` or of administrators.
pub(crate) fn program(name: &str) -> Result<PathBuf, LoadError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(FURTHER_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| missing(name))
}

/// Checks that a file exists.
pub(crate) fn file(path: &Path) -> Result<&Path, LoadError> {
    if path.exists() { Ok(path) } else { Err(missing(&path.display().to_string())) }
}

/// Returns the folder of the servers in JavaScript, with their dependencies.
pub(crate) fn peers_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))
}

/// Returns the first line of a program's version.
pub(crate) fn version(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output();
    let told = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let told = String::from_utf8_lossy(&told);
    let first = told.lines().map(str::trim).find(|line| !line.is_empty());
    first.map_or_else(|| UNKNOWN.to_owned(), str::to_owned)
}

/// Returns the version of a Debian package.
pub(crate) fn package_version(package: &str) -> String {
    let output = Command::new("dpkg-query").args(["--show", package]).stdin(Stdio::null()).output();
    let told = output.map(|output| output.stdout).unwrap_or_default();
    let told = String::from_utf8_lossy(&told).trim().replace('\t', " ");
    if told.is_empty() { format!("{package}, {UNKNOWN}") } else { told }
}

/// Returns the version of an installed package that a server in JavaScript depends on.
pub(crate) fn node_package_version(package: &str) -> String {
    let file = peers_folder().join("node_modules").join(package).join("package.json");
    let parsed =
        fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let version = parsed.and_then(|parsed| Some(parsed["version"].as_str()?.to_owned()));
    format!("{package} {}", version.unwrap_or_else(|| UNKNOWN.to_owned()))
}

fn missing(what: &str) -> LoadError {
    LoadError::Unsupported(format!("{what} is not installed; `cargo xtask bench` installs every peer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_or_unknown() {
        assert_eq!(version(Path::new("/bin/echo"), "a 1"), "a 1");
        assert_eq!(version(Path::new("/nonexistent"), "-v"), UNKNOWN);
        assert_eq!(node_package_version("no-such-package"), "no-such-package version unknown");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(program("sh").unwrap().ends_with("sh"));
        let error = program("no-such-program").unwrap_err().to_string();
        assert!(error.contains("no-such-program") && error.contains("cargo xtask bench"), "{error}");
        assert!(file(&peers_folder().join("no-such-file")).is_err());
        assert!(file(&peers_folder().join("package-lock.json")).is_ok());
    }
}
