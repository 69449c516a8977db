//! Finds what peers are made of, and says how to get what is missing.

use std::path::{Path, PathBuf};

use crate::error::LoadError;

/// Where Debian keeps programs that are no user's commands.
const FURTHER_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A program in one of the folders of `PATH`, or where administrators have theirs.
pub(crate) fn program(name: &str) -> Result<PathBuf, LoadError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(FURTHER_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| missing(name))
}

/// A file that has to be there.
pub(crate) fn file(path: &Path) -> Result<&Path, LoadError> {
    if path.exists() { Ok(path) } else { Err(missing(&path.display().to_string())) }
}

/// The servers in JavaScript and what they depend on.
pub(crate) fn peers_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))
}

fn missing(what: &str) -> LoadError {
    LoadError::Unsupported(format!("{what} is not installed; `cargo xtask bench` installs every peer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert!(program("sh").unwrap().ends_with("sh"));
        let error = program("no-such-program").unwrap_err().to_string();
        assert!(error.contains("no-such-program") && error.contains("cargo xtask bench"), "{error}");
        assert!(file(&peers_folder().join("no-such-file")).is_err());
        assert!(file(&peers_folder().join("package-lock.json")).is_ok());
    }
}
