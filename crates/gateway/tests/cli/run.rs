//! Runs of the program, and files for them. Every command runs without the environment of the test, with only the
//! variables that a test sets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// One run of the program: its exit code and its output.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, expected: &str) -> Self {
        assert!(self.out.contains(expected), "{expected}\nnot in\n{}", self.out);
        self
    }

    #[track_caller]
    pub(crate) fn complains(self, expected: &str) -> Self {
        assert!(self.err.contains(expected), "{expected}\nnot in\n{}", self.err);
        self
    }
}

pub(crate) fn fanwire(arguments: &[&str]) -> Run {
    fanwire_with(arguments, &[])
}

pub(crate) fn fanwire_with(arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanwire"));
    Run::new(command.args(arguments).env_clear().envs(environment.iter().copied()).output().unwrap())
}

/// A folder with files that is removed after the test.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// A certificate and its key, in PEM.
pub(crate) fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[track_caller]
pub(crate) fn check(text: &str, expected: &[&str]) {
    let files = Files::new();
    check_file(&files.write("fanwire.toml", text), expected);
}

#[track_caller]
pub(crate) fn check_file(file: &str, expected: &[&str]) {
    let run = fanwire(&["check", file]).exits(1);
    for line in expected {
        assert!(run.err.contains(&format!("error: {file}: {line}")), "{line}\nnot in\n{}", run.err);
    }
}
