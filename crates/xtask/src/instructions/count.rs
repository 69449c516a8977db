//! Builds the programs of cases, and counts the instructions of one operation of each case under callgrind.
//!
//! Each case runs twice, the second time with twice the rounds. The difference is its work alone, without what it
//! takes to start and to set up.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::end_to_end::target_folder;
use crate::process::{self, command};
use crate::{programs, tools};

/// Instructions of one operation of each case.
pub(super) type Counts = BTreeMap<String, f64>;

/// The crates that have such a program, a bench called `instructions`.
const CRATES: [&str; 2] = ["fanwire-protocol", "fanwire-hub"];

/// Keeps the C library from copying and clearing by one instruction for all bytes, which callgrind counts once for
/// each byte: large buffers would weigh far more than they cost.
const NO_STRING_INSTRUCTIONS: &str = "glibc.cpu.hwcaps=-ERMS";

const CASE_DEADLINE: Duration = Duration::from_secs(120);

/// Builds the programs and says where they are.
pub(super) fn build() -> Result<Vec<PathBuf>, String> {
    let packages = CRATES.iter().flat_map(|package| ["--package", package]);
    let words: Vec<&str> = ["bench", "--bench", "instructions"].into_iter().chain(packages).collect();
    let programs: Vec<PathBuf> =
        programs::build(&words)?.into_iter().map(|program| program.executable).collect();
    if programs.len() == CRATES.len() {
        Ok(programs)
    } else {
        Err(format!("{} programs were built, not {}", programs.len(), CRATES.len()))
    }
}

/// Counts every case whose name contains the filter, as many at a time as there are cores: what else runs changes
/// nothing about a count.
pub(super) fn count(programs: &[PathBuf], filter: Option<&str>) -> Result<Counts, String> {
    let folder = profiles_folder();
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let mut cases = Vec::new();
    for program in programs {
        let names = process::capture(command(program, &[]), CASE_DEADLINE)?;
        let wanted = names.lines().filter(|name| filter.is_none_or(|filter| name.contains(filter)));
        cases.extend(wanted.map(|name| (program.as_path(), name.to_owned())));
    }
    if cases.is_empty() {
        return Err("no case has such a name".to_owned());
    }
    println!("{} cases", cases.len());

    let cases = Mutex::new(cases.into_iter());
    let next = || cases.lock().expect("nobody fails while taking a case").next();
    let counts = Mutex::new(Ok(Counts::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                while let Some((program, name)) = next() {
                    let counted = count_one(program, &name);
                    let mut counts = counts.lock().expect("nobody fails while noting a count");
                    match (&mut *counts, counted) {
                        (Ok(counts), Ok(instructions)) => {
                            counts.insert(name, instructions);
                        }
                        (Ok(_), Err(why)) => *counts = Err(why),
                        // The first failure is told; the other cases do not matter any more.
                        (Err(_), _) => return,
                    }
                }
            });
        }
    });
    counts.into_inner().expect("nobody fails while noting a count")
}

/// The folder of the profiles that the counts are taken from.
pub(super) fn profiles_folder() -> PathBuf {
    target_folder().join("instructions")
}

fn count_one(program: &Path, name: &str) -> Result<f64, String> {
    let once = run(program, name, 1)?;
    let twice = run(program, name, 2)?;
    let difference = |once: u64, twice: u64| twice.checked_sub(once).filter(|more| *more > 0);
    let each = difference(once.instructions, twice.instructions)
        .zip(difference(once.operations, twice.operations))
        .map(|(instructions, operations)| instructions as f64 / operations as f64)
        .ok_or_else(|| format!("{name}: twice the rounds are no more work"))?;
    // Further digits would be of no use to who reads the file.
    Ok((each * 100.0).round() / 100.0)
}

struct Run {
    operations: u64,
    instructions: u64,
}

fn run(program: &Path, name: &str, times: u64) -> Result<Run, String> {
    let valgrind = tools::find("valgrind").ok_or("valgrind is not there")?;
    let file: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let profile = profiles_folder().join(format!("{file}.{times}"));
    let mut counted = command(valgrind, &["--quiet", "--tool=callgrind"]);
    counted
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(Path::new(".").join(program.file_name().expect("an executable has a name")))
        .args([name, &times.to_string()])
        .current_dir(program.parent().expect("an executable lies in a folder"))
        // The environment lies on the stack, whose place decides what is aligned.
        .env_clear()
        .env("GLIBC_TUNABLES", NO_STRING_INSTRUCTIONS);
    let printed = process::capture(counted, CASE_DEADLINE)?;
    let operations =
        printed.trim().parse().map_err(|_| format!("{name} does not say what it did: {printed}"))?;
    let profile = fs::read_to_string(&profile)
        .map_err(|error| format!("cannot read {}: {error}", profile.display()))?;
    let instructions = total(&profile).ok_or_else(|| format!("{name}: callgrind has counted nothing"))?;
    Ok(Run { operations, instructions })
}

/// The instructions of a whole run, from its profile.
fn total(profile: &str) -> Option<u64> {
    profile.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_ends_with_the_total() {
        assert_eq!(total("events: Ir\nfn=(1) main\n12 34\n\ntotals: 123456\n"), Some(123_456));
        assert_eq!(total("events: Ir\n"), None);
    }
}
