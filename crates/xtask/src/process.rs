//! Runs a program, shows what it prints as it prints it, and counts the tests that it reports.
//!
//! No step can hang a run: each has a deadline, after which its program is killed. What is shown of a command has no
//! secrets in it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Lines of a failed program that are printed again: those before its end, or before a runner's closing line.
const LINES_REPEATED: usize = 60;

/// The end of a program, and the tests that it reported.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Tests passed and failed; `None` if the program reported no tests.
    tests: Option<(u64, u64)>,
    exited_well: bool,
    /// Of a program that failed, the lines that are likely to say why.
    said: Vec<String>,
    /// What a program printed that was not shown.
    unshown: Vec<String>,
}

/// What happens to the lines that a program prints.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Shown,
    Kept,
}

impl Outcome {
    /// There was nothing to run.
    pub(crate) const DONE: Self =
        Self { tests: None, exited_well: true, said: Vec::new(), unshown: Vec::new() };

    /// Returns passed and failed tests. A program that reports no tests counts as one; one that exits with an error has
    /// failed even if none of its tests did.
    pub(crate) fn counts(&self) -> (u64, u64) {
        match (self.tests, self.exited_well) {
            (None, true) => (1, 0),
            (None, false) => (0, 1),
            (Some((passed, failed)), true) => (passed, failed),
            (Some((passed, failed)), false) => (passed, failed.max(1)),
        }
    }

    /// Returns the lines to print again: why it failed, or nothing.
    pub(crate) fn said(self) -> Vec<String> {
        self.said
    }

    /// Returns what was printed and is not shown yet.
    pub(crate) fn unshown(&self) -> &[String] {
        &self.unshown
    }
}

/// Options of the load tool with secret values.
const SECRETS: [&str; 2] = ["--api-key", "--token-secret"];
const REDACTED: &str = "REDACTED";

/// A command in the root of the work tree, without standard input.
pub(crate) fn command(program: impl AsRef<Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// `cargo` as this program was started by.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    command(Path::new(&cargo), arguments)
}

/// The root of the work tree.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lies two folders below the root")
}

/// Runs to the end, or kills at the deadline.
pub(crate) fn run(command: Command, deadline: Duration) -> Result<Outcome, String> {
    run_until(command, deadline, Output::Shown, |_| {})
}

/// Like [`run`] for a program that runs beside others: its output is kept until it ends.
pub(crate) fn run_unshown(command: Command, deadline: Duration) -> Result<Outcome, String> {
    run_until(command, deadline, Output::Kept, |_| {})
}

/// Like `run` for a program that starts servers: at the deadline everything in its process group is killed. An interrupt
/// from the keyboard does not reach that group; its program ends when its output is closed.
pub(crate) fn run_group(mut command: Command, deadline: Duration) -> Result<Outcome, String> {
    command.process_group(0);
    run_until(command, deadline, Output::Shown, |leader| {
        // The shell's own `kill` is on every system.
        let kill = format!("kill -KILL -{leader}");
        let _ = Command::new("sh").args(["-c", &kill]).status();
    })
}

/// At the deadline `too_late` gets the process' number before the process itself is killed.
fn run_until(
    mut command: Command,
    deadline: Duration,
    output: Output,
    too_late: impl FnOnce(u32),
) -> Result<Outcome, String> {
    let line = format!("$ {}\n", shown(&command));
    if output == Output::Shown {
        print!("{line}");
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", command.get_program().display()))?;

    let (to_counter, lines) = mpsc::channel();
    let printed = child.stdout.take().expect("standard output is piped");
    let errors = child.stderr.take().expect("standard error is piped");
    let readers = [
        thread::spawn({
            let to_counter = to_counter.clone();
            move || match output {
                Output::Shown => forward(printed, std::io::stdout(), &to_counter),
                Output::Kept => forward(printed, std::io::sink(), &to_counter),
            }
        }),
        thread::spawn(move || match output {
            Output::Shown => forward(errors, std::io::stderr(), &to_counter),
            Output::Kept => forward(errors, std::io::sink(), &to_counter),
        }),
    ];
    let ended = wait(&mut child, deadline, too_late);
    // What the program started may hold the pipes open after a kill; then the rest of the output is not
    // waited for.
    if ended.is_ok() {
        for reader in readers {
            let _ = reader.join();
        }
    }

    let lines: Vec<String> = lines.try_iter().collect();
    match ended {
        Ok(exited_well) => {
            let mut outcome = outcome(&lines, exited_well);
            if output == Output::Kept {
                outcome.unshown = [vec![line], lines].concat();
            }
            Ok(outcome)
        }
        Err(why) => Err(format!("{why}; before that:\n{}", repeated(&lines).concat())),
    }
}

fn outcome(lines: &[String], exited_well: bool) -> Outcome {
    let tests = lines
        .iter()
        .filter_map(|line| counted(line))
        .reduce(|(passed, failed), more| (passed + more.0, failed + more.1));
    let mut outcome = Outcome { tests, exited_well, said: Vec::new(), unshown: Vec::new() };
    if outcome.counts().1 > 0 {
        outcome.said = repeated(lines);
    }
    outcome
}

/// Returns the lines before each closing line that reports failed tests, and the last lines.
fn repeated(lines: &[String]) -> Vec<String> {
    let has_failed = |line: &String| counted(line).is_some_and(|(_, failed)| failed > 0);
    let mut end = 0;
    let mut said = Vec::new();
    for (at, _) in lines.iter().enumerate().filter(|(at, line)| at + 1 == lines.len() || has_failed(line)) {
        said.extend_from_slice(&lines[end.max((at + 1).saturating_sub(LINES_REPEATED))..=at]);
        end = at + 1;
    }
    said
}

/// Returns the output of a program, or why it failed. Only its standard error is shown; at the deadline it is killed.
pub(crate) fn capture(mut command: Command, deadline: Duration) -> Result<String, String> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", command.get_program().display()))?;
    let mut output = child.stdout.take().expect("standard output is piped");
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
    });
    if !wait(&mut child, deadline, |_| {})? {
        return Err(format!("fails: {}", shown(&command)));
    }
    let read = reader.join().expect("reading does not panic");
    read.map_err(|error| format!("cannot read what {} prints: {error}", command.get_program().display()))
}

/// Returns the output of a program without showing it; `None` if it cannot be run or fails.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = command(program, arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn wait(child: &mut Child, deadline: Duration, too_late: impl FnOnce(u32)) -> Result<bool, String> {
    let until = Instant::now() + deadline;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(50)),
            Ok(None) => {
                too_late(child.id());
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("not done after {} s, killed", deadline.as_secs()));
            }
            Err(error) => return Err(format!("cannot wait for it: {error}")),
        }
    }
}

/// Lines of any length and any bytes: what tests print about bad input is not always UTF-8.
fn forward(from: impl Read, mut to: impl Write, lines: &mpsc::Sender<String>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(from.read_until(b'\n', &mut line), Ok(count) if count > 0) {
        let _ = to.write_all(&line);
        let _ = to.flush();
        let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
        line.clear();
    }
}

/// Tests passed and failed, when this is a runner's closing line: cargo test, Node's test runner, pytest.
fn counted(line: &str) -> Option<(u64, u64)> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("test result: ") {
        return Some((number_before(rest, " passed;"), number_before(rest, " failed;")));
    }
    if let Some(rest) = line.strip_prefix("\u{2139} pass ") {
        return Some((rest.parse().ok()?, 0));
    }
    if let Some(rest) = line.strip_prefix("\u{2139} fail ") {
        return Some((0, rest.parse().ok()?));
    }
    if line.starts_with('=') && line.ends_with('=') && line.contains(" in ") {
        let failed = number_before(line, " failed") + number_before(line, " error");
        return Some((number_before(line, " passed"), failed));
    }
    None
}

fn number_before(line: &str, word: &str) -> u64 {
    let Some((before, _)) = line.split_once(word) else { return 0 };
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    let mut follows_secret = false;
    for word in command.get_args().map(|word| word.to_string_lossy()) {
        let option = word.split_once('=').map_or(&*word, |(option, _)| option);
        let is_secret = SECRETS.contains(&option);
        words.push(match (follows_secret, is_secret && option.len() < word.len()) {
            (true, _) => REDACTED.to_owned(),
            (false, true) => format!("{option}={REDACTED}"),
            (false, false) => word.clone().into_owned(),
        });
        follows_secret = !follows_secret && is_secret && option.len() == word.len();
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_every_runner_are_counted() {
        let cases = [
            ("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out", Some((12, 0))),
            ("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured", Some((3, 2))),
            ("\u{2139} pass 41", Some((41, 0))),
            ("\u{2139} fail 2", Some((0, 2))),
            ("======= 7 passed in 1.20s =======", Some((7, 0))),
            ("=== 1 failed, 7 passed, 2 errors in 1.20s ===", Some((7, 3))),
            ("=== short test summary info ===", None),
            ("nothing passed in particular", None),
        ];
        for (line, expected) in cases {
            assert_eq!(counted(line), expected, "{line}");
        }
    }

    #[test]
    fn a_bad_exit_is_a_failure_even_without_failed_tests() {
        let counts = |line: &str| outcome(&[line.to_owned()], false).counts();
        assert_eq!(counts("test result: ok. 3 passed; 0 failed;"), (3, 1));
        assert_eq!(counts("test result: FAILED. 3 passed; 2 failed;"), (3, 2));
        assert_eq!(counts("nothing in particular"), (0, 1));
        assert_eq!(Outcome::DONE.counts(), (1, 0));
    }

    #[test]
    fn lines_before_each_verdict_of_a_failed_program_are_printed_again() {
        let filler = |from: usize, count: usize| (from..from + count).map(|number| format!("line {number}"));
        let mut lines: Vec<String> = filler(0, 100).collect();
        lines.push("test result: FAILED. 3 passed; 2 failed;".to_owned());
        lines.push("test result: ok. 9 passed; 0 failed;".to_owned());
        lines.extend(filler(200, 100));
        let said = outcome(&lines, false).said();
        assert_eq!(said.len(), 2 * LINES_REPEATED);
        assert_eq!(said[LINES_REPEATED - 1], lines[100]);
        assert_eq!(said.last(), lines.last());

        assert_eq!(
            outcome(&lines[..=101], false).said().len(),
            LINES_REPEATED + 1,
            "no line is printed twice"
        );
        assert!(outcome(&lines[101..], true).said().is_empty(), "a success is not printed again");
        assert!(outcome(&[], false).said().is_empty());
    }

    #[test]
    fn secrets_are_not_shown() {
        let line =
            ["--api-key", "hush", "--rate", "5", "--token-secret=hu=sh", "--api-key", "--api-key", "last"];
        let shown = shown(&command("load", &line));
        let expected = "load --api-key REDACTED --rate 5 --token-secret=REDACTED --api-key REDACTED last";
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_a_program_started_is_killed_with_it() {
        assert!(
            run_group(command("sh", &["-c", "sleep 61.0625 & wait"]), Duration::from_millis(300)).is_err()
        );
        let sleepers = || {
            let processes = std::fs::read_dir("/proc").expect("Linux has it").flatten();
            let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
            lines.filter(|line| line == b"sleep\x0061.0625\0").count()
        };
        let until = Instant::now() + Duration::from_secs(10);
        while sleepers() > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(sleepers(), 0);
    }

    #[test]
    fn a_program_that_hangs_is_killed_at_its_deadline() {
        let started = Instant::now();
        assert!(run(command("sleep", &["60"]), Duration::from_millis(200)).is_err());
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
