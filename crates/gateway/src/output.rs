//! Standard output and standard error. Commands that end by themselves write to them directly. `serve` queues its
//! output, and one thread for each of the two writes it, so that no other thread waits for a reader.
//!
//! `tracing-appender` limits lines and not bytes, does not report dropped lines in the log, and writes log lines only.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{mem, panic, thread};

use fanwire_server::count_dropped_log_line;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::failure::Failure;
use crate::printable;

/// Time for which the end of the program waits for queued output.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A larger buffer is freed once it is written.
const KEPT_BYTES_MAX: usize = 64 << 10;

static QUEUES: OnceLock<Queues> = OnceLock::new();

/// The two queues of `serve`.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
}

/// Starts to queue the program's output. Panics are written to standard error, which is queued too.
pub(crate) fn queue(bytes_max: usize) -> Result<&'static Queues, Failure> {
    let failed = |error| Failure::Run(format!("cannot start a thread for the logs: {error}"));
    let queues = Queues {
        stdout: Output::start("stdout", io::stdout(), bytes_max).map_err(failed)?,
        stderr: Output::start("stderr", io::stderr(), bytes_max).map_err(failed)?,
    };
    let queues = QUEUES.get_or_init(|| queues);
    panic::set_hook(Box::new(|panic| queues.stderr.push(Rank::VITAL, told(panic).as_bytes())));
    Ok(queues)
}

/// Returns a panic as one line, followed by its backtrace if that is enabled.
fn told(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref().map(String::as_str));
    let message = printable::one_line(text.unwrap_or("no message"));
    let mut text = format!("thread '{name}' panicked at {place}: {message}\n");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        text.push_str(&format!("stack backtrace:\n{trace}\n"));
    }
    text
}

/// Writes to standard output. A closed pipe, as in `fanwire … | head`, is no failure.
pub(crate) fn say(text: impl Display) -> Result<(), Failure> {
    if let Some(queues) = QUEUES.get() {
        queues.stdout.push(Rank::VITAL, format!("{text}\n").as_bytes());
        return Ok(());
    }
    let mut stdout = io::stdout();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Run(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes to standard error. A failure to write there cannot be reported anywhere.
pub(crate) fn complain(text: impl Display) {
    let text = text.to_string();
    let text = printable::lines(&text);
    match QUEUES.get() {
        Some(queues) => queues.stderr.push(Rank::VITAL, format!("{text}\n").as_bytes()),
        None => drop(writeln!(io::stderr(), "{text}")),
    }
}

/// Writes a failure to standard error, and returns the exit code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    let text = failure.to_string();
    if !text.is_empty() {
        complain(text);
    }
    failure.exit_code()
}

/// Waits when dropped, for a limited time, until all queued output is written. `main` holds it, so that a panic of the
/// main thread is written as well.
pub(crate) struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        if let Some(queues) = QUEUES.get() {
            let deadline = Instant::now() + FLUSH_TIMEOUT;
            queues.stdout.flush(deadline);
            queues.stderr.flush(deadline);
        }
    }
}

/// One of the two streams, with a queue limited in bytes. Lines that do not fit are dropped and counted. A line may
/// fill the queue only as far as its rank allows, so a flood of lines of one rank leaves room for higher ranks.
#[derive(Clone, Debug)]
pub(crate) struct Output(Arc<OutputShared>);

#[derive(Debug)]
struct OutputShared {
    queue: Mutex<LogQueue>,
    /// Notified when the queue gets its first bytes, and when all of them are written.
    changed: Condvar,
}

#[derive(Debug)]
struct LogQueue {
    waiting: Lines,
    /// The number of bytes that the thread is writing.
    writing: usize,
    /// The limit of waiting and writing together.
    bytes_max: usize,
    /// Lines dropped since the last notice in the log.
    dropped: u64,
    style: LogStyle,
}

/// Lines in order of arrival.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// The end of each line, and its level.
    ends: Vec<(usize, Level)>,
}

/// The importance of a line.
#[derive(Clone, Copy, Debug)]
struct Rank {
    level: Level,
    /// The part of the queue that may be full, with this line included.
    eighths: usize,
}

impl Rank {
    /// Errors, panics and messages of the program about itself.
    const VITAL: Self = Self { level: Level::ERROR, eighths: 8 };

    fn of(event: &Metadata<'_>) -> Self {
        let level = *event.level();
        let eighths = match level {
            // This crate logs that the node is ready, shuts down and has stopped.
            _ if event.target().starts_with(concat!(env!("CARGO_PKG_NAME"), "::")) => 8,
            Level::ERROR => 8,
            Level::WARN => 7,
            Level::INFO => 6,
            _ => 4,
        };
        Self { level, eighths }
    }
}

/// The style of log lines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LogStyle {
    Text,
    /// Text in colour.
    Coloured,
    Json,
}

impl LogStyle {
    /// Returns the line that reports how many lines were dropped.
    fn notice(self, lines: u64) -> String {
        let time = humantime::format_rfc3339_micros(SystemTime::now());
        match self {
            Self::Text | Self::Coloured => {
                format!("{time}  WARN fanwire: log lines were dropped lines={lines}\n")
            }
            Self::Json => format!(
                "{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\"log lines were dropped\",\
                 \"lines\":{lines},\"target\":\"fanwire\"}}\n"
            ),
        }
    }
}

impl Output {
    fn start(name: &'static str, stream: impl AsFd + Send + 'static, bytes_max: usize) -> io::Result<Self> {
        let queue =
            LogQueue { waiting: Lines::default(), writing: 0, bytes_max, dropped: 0, style: LogStyle::Text };
        let shared = Arc::new(OutputShared { queue: Mutex::new(queue), changed: Condvar::new() });
        let output = Self(shared.clone());
        thread::Builder::new().name(name.to_owned()).spawn(move || shared.write_on(&stream))?;
        Ok(output)
    }

    /// Makes this stream the log, with a limit and a style.
    pub(crate) fn log(&self, bytes_max: usize, style: LogStyle) -> Log {
        let mut queue = self.0.lock();
        queue.bytes_max = bytes_max;
        queue.style = style;
        Log { output: self.clone(), style }
    }

    /// Queues one line, or lines that belong together.
    fn push(&self, rank: Rank, line: &[u8]) {
        let mut queue = self.0.lock();
        let bytes = queue.waiting.bytes.len() + queue.writing + line.len();
        if bytes > queue.bytes_max / 8 * rank.eighths {
            queue.count_dropped([rank.level]);
            return;
        }
        let was_empty = queue.waiting.bytes.is_empty();
        queue.waiting.bytes.extend_from_slice(line);
        let end = queue.waiting.bytes.len();
        queue.waiting.ends.push((end, rank.level));
        drop(queue);
        if was_empty {
            self.0.changed.notify_all();
        }
    }

    fn flush(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let is_busy = |queue: &mut LogQueue| !queue.waiting.bytes.is_empty() || queue.writing > 0;
        drop(self.0.changed.wait_timeout_while(self.0.lock(), left, is_busy));
    }
}

impl LogQueue {
    fn count_dropped(&mut self, levels: impl IntoIterator<Item = Level>) {
        for level in levels {
            self.dropped += 1;
            count_dropped_log_line(level);
        }
    }
}

impl OutputShared {
    /// Nothing that panics runs under this lock.
    fn lock(&self) -> MutexGuard<'_, LogQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of the writing thread.
    fn write_on(&self, stream: &impl AsFd) {
        let mut batch = Lines::default();
        loop {
            let mut queue = self.lock();
            while queue.waiting.bytes.is_empty() {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            mem::swap(&mut batch, &mut queue.waiting);
            queue.writing = batch.bytes.len();
            let dropped = mem::take(&mut queue.dropped);
            let style = queue.style;
            drop(queue);

            if dropped > 0 {
                batch.bytes.extend_from_slice(style.notice(dropped).as_bytes());
            }
            let written = write(stream, &batch.bytes);
            let mut queue = self.lock();
            queue.writing = 0;
            if written < batch.bytes.len() {
                queue.dropped += dropped;
                queue.count_dropped(
                    batch.ends.iter().filter(|(end, _)| *end > written).map(|(_, level)| *level),
                );
            }
            drop(queue);
            self.changed.notify_all();
            batch.bytes.clear();
            batch.ends.clear();
            if batch.bytes.capacity() > KEPT_BYTES_MAX {
                batch = Lines::default();
            }
        }
    }
}

/// Returns how many bytes were written before an error, such as a closed pipe or a full disk.
fn write(stream: &impl AsFd, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(stream, &bytes[written..]) {
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            // Another process may have made a shared pipe or terminal non-blocking.
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(stream, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            },
            Err(_) => break,
        }
    }
    written
}

/// Receives events from the formatter.
#[derive(Debug)]
pub(crate) struct Log {
    output: Output,
    style: LogStyle,
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LogEvent<'a>;

    fn make_writer(&'a self) -> LogEvent<'a> {
        LogEvent { log: self, rank: Rank::VITAL }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> LogEvent<'a> {
        LogEvent { log: self, rank: Rank::of(event) }
    }
}

/// Receives one event.
#[derive(Debug)]
pub(crate) struct LogEvent<'a> {
    log: &'a Log,
    rank: Rank,
}

/// The formatter writes each event in one call. One event becomes one line, whatever its values contain.
impl Write for LogEvent<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = match self.log.style {
            LogStyle::Text | LogStyle::Json => printable::one_line(text),
            LogStyle::Coloured => printable::coloured_line(text),
        };
        self.log.output.push(self.rank, format!("{text}\n").as_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
