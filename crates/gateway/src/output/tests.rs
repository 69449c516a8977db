//! Order, bounds, what a line may hold, and panics while nobody reads.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use super::*;

/// A pipe that takes nothing before it is read.
fn full_pipe() -> (std::fs::File, std::os::fd::OwnedFd) {
    let (reader, writer) = pipe();
    fill(&writer);
    (reader, writer)
}

fn fill(writer: impl AsFd) {
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[b' '; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).unwrap();
}

fn pipe() -> (std::fs::File, std::os::fd::OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer)
}

#[test]
fn lines_come_out_whole_and_in_order_from_many_threads() {
    let (mut reader, writer) = pipe();
    let output = Output::start("test", writer, 1 << 20).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let output = output.clone();
            thread::spawn(move || {
                (0..500).for_each(|line| output.push(Rank::VITAL, format!("{thread} {line}\n").as_bytes()));
            })
        })
        .collect();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while text.iter().filter(|byte| **byte == b'\n').count() < 2000 {
        let count = reader.read(&mut buffer).unwrap();
        text.extend_from_slice(&buffer[..count]);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let text = String::from_utf8(text).unwrap();
    for thread in 0..4 {
        let lines = text.lines().filter(|line| line.starts_with(&format!("{thread} ")));
        assert!(lines.eq((0..500).map(|line| format!("{thread} {line}"))));
    }
}

#[test]
fn a_non_blocking_pipe_is_waited_for() {
    let (mut reader, writer) = pipe();
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    let output = Output::start("test", writer, 1 << 20).unwrap();
    let line = [b"x".repeat(200_000), b"\n".to_vec()].concat();
    output.push(Rank::VITAL, &line);
    let mut read = vec![0; line.len()];
    reader.read_exact(&mut read).unwrap();
    assert_eq!(read, line);
}

#[test]
fn flushing_ends_when_all_is_written_or_the_time_is_up() {
    let (_reader, writer) = pipe();
    let output = Output::start("test", writer, 1 << 20).unwrap();
    output.push(Rank::VITAL, b"short\n");
    output.flush(Instant::now() + Duration::from_secs(60));
    assert_eq!(output.0.lock().writing, 0);
    output.push(Rank::VITAL, &b"x".repeat(200_000));
    output.flush(Instant::now() + Duration::from_millis(50));
    assert!(output.0.lock().writing > 0);
}

#[test]
fn a_flood_leaves_room_for_lines_that_matter_more() {
    let (reader, writer) = full_pipe();
    let output = Output::start("test", writer, 1 << 20).unwrap();
    let log = output.log(1 << 16, LogStyle::Text);
    let subscriber =
        tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false).with_writer(log).finish();
    tracing::subscriber::with_default(subscriber, || {
        // Each fills what its rank may have several times over.
        (0..2000).for_each(|_| tracing::trace!(target: "fanwire_server", "flood"));
        (0..2000).for_each(|_| tracing::debug!(target: "fanwire_server", "flood"));
        tracing::info!(target: "fanwire_server", "first info");
        (0..2000).for_each(|_| tracing::info!(target: "fanwire_server", "flood"));
        tracing::warn!(target: "fanwire_server", "first warning");
        (0..2000).for_each(|_| tracing::warn!(target: "fanwire_server", "flood"));
        tracing::error!(target: "fanwire_server", "an error");
        tracing::info!(target: "fanwire::commands::serve", "stopped");
    });
    let lines = thread::spawn(move || {
        let lines = BufReader::new(reader).lines().map(Result::unwrap);
        lines.take_while(|line| line != "end").collect::<Vec<_>>()
    });
    output.flush(Instant::now() + Duration::from_secs(60));
    output.push(Rank::VITAL, b"end\n");
    let lines = lines.join().unwrap();
    for kept in ["first info", "first warning", "an error", "stopped"] {
        assert!(lines.iter().any(|line| line.ends_with(kept)), "{kept}");
    }
    assert!(lines.iter().map(|line| line.len() + 1).sum::<usize>() < 2 << 16);
}

#[test]
fn an_event_is_one_line_without_control_characters() {
    const HOSTILE: &str =
        "x\n2026-01-01T00:00:00Z  INFO forged\r\t\x1b[31m\u{9b}2J\u{7f}\u{85}\u{202e}\u{2028}";
    // The colours of the formatter itself.
    let own = regex::Regex::new("\x1b\\[[0-9;]*m").unwrap();
    for style in [LogStyle::Text, LogStyle::Coloured, LogStyle::Json] {
        let (reader, writer) = pipe();
        let log = Output::start("test", writer, 1 << 20).unwrap().log(1 << 20, style);
        let builder = tracing_subscriber::fmt().with_writer(log);
        let log_hostile = || {
            let error = io::Error::other(HOSTILE);
            tracing::info!(string = HOSTILE, display = %HOSTILE, error = &error as &dyn std::error::Error, "{HOSTILE}");
            tracing::info!("last");
        };
        match style {
            LogStyle::Json => tracing::subscriber::with_default(builder.json().finish(), log_hostile),
            LogStyle::Text => {
                tracing::subscriber::with_default(builder.with_ansi(false).finish(), log_hostile)
            }
            LogStyle::Coloured => {
                tracing::subscriber::with_default(builder.with_ansi(true).finish(), log_hostile)
            }
        }
        let lines: Vec<String> = BufReader::new(reader).lines().take(2).map(Result::unwrap).collect();
        assert!(lines[1].contains("last"), "{style:?} {lines:?}");
        let rest = if matches!(style, LogStyle::Coloured) {
            own.replace_all(&lines[0], "")
        } else {
            (&lines[0]).into()
        };
        assert!(rest.contains("forged") && !rest.contains("\x1b[31m"), "{style:?} {rest}");
        assert_eq!(printable::one_line(&rest), rest, "{style:?}");
    }
}

/// Set in a process that is to panic.
const PANICS: &str = "FANWIRE_TEST_PANICS";

#[test]
fn a_panic_waits_for_nobody_and_is_written_in_one_line() {
    if std::env::var_os(PANICS).is_some() {
        panic_with_a_full_pipe();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "output::tests::a_panic_waits_for_nobody_and_is_written_in_one_line",
            "--nocapture",
        ])
        .env(PANICS, "1")
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // Standard error is full until the child says that its threads panicked and went on.
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (sender, panicked) = std::sync::mpsc::channel();
    thread::spawn(move || sender.send(stdout.any(|line| line.contains("both panicked"))));
    let panicked = panicked.recv_timeout(Duration::from_secs(60));
    if panicked != Ok(true) {
        child.kill().unwrap();
        panic!("{panicked:?}");
    }
    let mut text = String::new();
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let told: Vec<&str> = text.lines().map(str::trim_start).filter(|line| !line.is_empty()).collect();
    let [task, thread] = told[..] else { panic!("{told:?}") };
    assert!(task.contains(": a task got a\\nbad \\u001bname"), "{task}");
    assert!(
        thread.starts_with("thread 'planted' panicked at crates/gateway/src/output/tests.rs:"),
        "{thread}"
    );
}

/// The child of the test above. It does not return.
fn panic_with_a_full_pipe() {
    fill(io::stderr());

    queue(1 << 20).unwrap();
    let at_end = FlushAtEnd;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let task = runtime.block_on(runtime.spawn(async { panic!("a task got a\nbad \x1bname") }));
    assert!(task.unwrap_err().is_panic());
    let thread = thread::Builder::new().name("planted".into()).spawn(|| panic!("at the end"));
    thread.unwrap().join().unwrap_err();
    say("both panicked").unwrap();
    drop(at_end);
    std::process::exit(0);
}
