//! One simulated client: a socket, and the steps from connecting to being subscribed.
//!
//! An idle client has no buffer; the kept part of a frame is freed as soon as the frame is complete. Each readiness event
//! costs one `recv`, and of a frame only the header and the message's numbers are read.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use fanwire_protocol::websocket::Opcode;
use fanwire_protocol::websocket::client::ServerFrame;
use memchr::{memchr, memmem};
use mio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::time::TimeSpec;
use socket2::SockRef;

use crate::dialect::{Framing, Progress, Say, Units, write_frame};
use crate::http::read_response;
use crate::measure::payload::{Measured, Times};
use crate::measure::process::monotonic_nanoseconds;
use crate::measure::sequence::StreamChecks;

pub(crate) mod bystander;
pub(crate) mod clients;
mod inflate;
mod lost;
mod shared;
mod units;

pub(crate) use clients::{Clients, HANDSHAKES_IN_FLIGHT_MAX};
pub(crate) use lost::Lost;
pub(crate) use shared::Shared;

/// Maximum size of one `recv`; a full one is followed by another.
const RECV_BYTES_MAX: usize = 256 * 1024;
/// The largest frame that a test message or a reply can need.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// A normal closure (RFC 6455 section 7.4.1).
const CLOSE_NORMAL: u16 = 1000;

/// Makes the one buffer that every client of a run reads into: a kept part of a frame, then received bytes.
pub(crate) fn read_buffer() -> Box<[u8]> {
    vec![0; kept_bytes_max() + RECV_BYTES_MAX].into_boxed_slice()
}

/// A socket, its stage, and the checks of its messages.
#[derive(Debug)]
pub(crate) struct Client {
    /// `None` when it is gone.
    stream: Option<TcpStream>,
    /// Its number in the run, from which its user and its topics follow.
    number: usize,
    stage: Stage,
    /// For the dialect alone.
    step: u8,
    gone_is_told: bool,
    was_stalled: bool,
    started: Instant,
    /// The start of a frame whose end has not arrived.
    kept: Vec<u8>,
    /// The start of a message whose end comes in another frame.
    cut: Vec<u8>,
    pub(crate) checks: StreamChecks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// Waiting for the response's head.
    Opening,
    /// Waiting for answers.
    Greeting,
    Live,
    /// Subscribed, and connecting again, as its last poll has taken its connection.
    Returning,
    /// Not reading.
    Stalled,
    /// Closed by its protocol, and waiting for the server to end the connection.
    Leaving,
    Gone,
}

impl Client {
    /// Makes a client from a socket that is connecting.
    pub(crate) fn new(stream: TcpStream, number: usize, checks: StreamChecks) -> Self {
        Self {
            stream: Some(stream),
            number,
            stage: Stage::Connecting,
            step: 0,
            gone_is_told: false,
            was_stalled: false,
            started: Instant::now(),
            kept: Vec::new(),
            cut: Vec::new(),
            checks,
        }
    }

    /// Returns the socket of a client that is not gone.
    pub(crate) fn stream_mut(&mut self) -> &mut TcpStream {
        self.stream.as_mut().expect("a client has its socket until it is gone")
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.stream.as_ref().expect("a client has its socket until it is gone")
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    /// Returns true once if the client is gone.
    pub(crate) fn take_gone(&mut self) -> bool {
        self.stage == Stage::Gone && !std::mem::replace(&mut self.gone_is_told, true)
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live | Stage::Returning)
    }

    /// Returns true if it needs another socket for its next poll.
    pub(crate) fn needs_socket(&self) -> bool {
        self.stage == Stage::Returning && self.stream.is_none()
    }

    /// Gives it one that is connecting.
    pub(crate) fn return_by(&mut self, stream: TcpStream) {
        self.stream = Some(stream);
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stage == Stage::Stalled
    }

    /// Returns true if the client was stalled at any time.
    pub(crate) fn was_stalled(&self) -> bool {
        self.was_stalled
    }

    /// Returns true until its last answer has arrived.
    pub(crate) fn is_setting_up(&self) -> bool {
        matches!(self.stage, Stage::Connecting | Stage::Opening | Stage::Greeting)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.stage == Stage::Leaving
    }

    /// Closes the socket if it is still open.
    pub(crate) fn mark_gone(&mut self) {
        self.stage = Stage::Gone;
        self.stream = None;
        self.kept = Vec::new();
        self.cut = Vec::new();
    }

    /// Stops reading.
    pub(crate) fn stall(&mut self) {
        self.stage = Stage::Stalled;
        self.was_stalled = true;
    }

    /// Starts reading again.
    pub(crate) fn resume(&mut self) {
        self.stage = Stage::Live;
    }

    /// Closes the connection by the protocol; the server then ends it. Responses have no close, so their client ends the
    /// connection itself.
    pub(crate) fn leave(&mut self, shared: &mut Shared) -> Result<(), Lost> {
        if let Framing::Body(_) | Framing::Answers = shared.dialect.framing() {
            self.mark_gone();
            return Ok(());
        }
        write_frame(Opcode::Close, &CLOSE_NORMAL.to_be_bytes(), &mut shared.out);
        self.stage = Stage::Leaving;
        self.send_all(&mut shared.out)
    }

    /// Ends the connection without a close, and without leaving the port in use.
    pub(crate) fn vanish(&mut self) -> Result<(), Lost> {
        SockRef::from(self.stream()).set_linger(Some(Duration::ZERO))?;
        self.mark_gone();
        Ok(())
    }

    /// Handles a writable socket, which matters only once, when its connect is done.
    pub(crate) fn writable(&mut self, shared: &mut Shared) -> Result<(), Lost> {
        let next = match self.stage {
            Stage::Connecting => Stage::Opening,
            Stage::Returning => Stage::Live,
            _ => return Ok(()),
        };
        if let Some(error) = self.stream().take_error()? {
            return Err(error.into());
        }
        self.stream().set_nodelay(true)?;
        self.stage = next;
        let progress = shared.dialect.hello(self.number, &mut shared.out)?;
        self.follow(progress, shared);
        self.send_all(&mut shared.out)
    }

    /// Handles a readable socket: reads by one `recv`, or more if that fills the buffer.
    pub(crate) fn readable(&mut self, buffer: &mut [u8], shared: &mut Shared) -> Result<(), Lost> {
        while self.stage != Stage::Stalled && self.stream.is_some() {
            let kept = self.kept.len();
            buffer[..kept].copy_from_slice(&self.kept);
            let received = match self.stream_mut().read(&mut buffer[kept..kept + RECV_BYTES_MAX]) {
                Ok(0) => return Err(Lost::Ended),
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            shared.received_bytes += received as u64;
            self.received(&buffer[..kept + received], shared)?;
            if received < RECV_BYTES_MAX {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Like `readable`, but reads once and returns the time at which the kernel received the last of it, if it records that.
    pub(crate) fn readable_stamped(
        &mut self,
        buffer: &mut [u8],
        shared: &mut Shared,
    ) -> Result<Option<Duration>, Lost> {
        let kept = self.kept.len();
        buffer[..kept].copy_from_slice(&self.kept);
        let Some((received, stamp)) =
            receive_stamped(self.stream(), &mut buffer[kept..kept + RECV_BYTES_MAX])?
        else {
            return Ok(None);
        };
        shared.received_bytes += received as u64;
        self.received(&buffer[..kept + received], shared)?;
        Ok(stamp)
    }

    /// Returns true if a read would return data or the end.
    pub(crate) fn has_more(&self) -> bool {
        let Some(stream) = &self.stream else { return false };
        !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Handles kept and received bytes together.
    fn received(&mut self, bytes: &[u8], shared: &mut Shared) -> Result<(), Lost> {
        let rest = &bytes[self.take(bytes, shared)?..];
        if rest.len() > kept_bytes_max() {
            return Err(Lost::TooLong);
        }
        // Assigning a fresh vector also frees the old one.
        self.kept = rest.to_vec();
        self.send_all(&mut shared.out)
    }

    /// Returns how many bytes were consumed.
    fn take(&mut self, bytes: &[u8], shared: &mut Shared) -> Result<usize, Lost> {
        let mut at = 0;
        let framing = shared.dialect.framing();
        if self.stage == Stage::Opening && framing != Framing::Answers {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(0) };
            at = end + 4;
            self.take_head(&bytes[..at], shared)?;
        }
        let measures_latency = self.number.is_multiple_of(shared.latency_every);
        let now = measures_latency.then(monotonic_nanoseconds);
        match framing {
            Framing::WebSocket(units) => self.take_frames(bytes, at, units, now, shared),
            Framing::Body(units) => {
                let mut rest = &bytes[at..];
                while let Some((message, behind)) = units::of_body(units, rest) {
                    self.take_message(message, now, shared)?;
                    rest = behind;
                }
                Ok(bytes.len() - rest.len())
            }
            Framing::Answers => self.take_answer(bytes, now, shared),
        }
    }

    /// Takes the answer to a poll, and polls again.
    fn take_answer(&mut self, bytes: &[u8], now: Option<u64>, shared: &mut Shared) -> Result<usize, Lost> {
        let response = read_response(bytes).map_err(|_| Lost::refused(bytes))?;
        let Some(response) = response else { return Ok(0) };
        if response.status != 200 {
            return Err(Lost::refused(bytes));
        }
        let mut rest = response.body;
        while self.stage == Stage::Live
            && let Some(measured) = shared.payload.read(rest)
        {
            rest = measured.behind();
            self.take_measured(&measured, now, shared);
        }
        self.take_other(response.body, shared)?;
        if response.is_last {
            // The port is free at once, as many times as a client polls in a minute.
            SockRef::from(self.stream()).set_linger(Some(Duration::ZERO))?;
            self.stream = None;
            self.stage = Stage::Returning;
        } else {
            shared.dialect.hello(self.number, &mut shared.out)?;
        }
        Ok(response.bytes)
    }

    fn take_head(&mut self, head: &[u8], shared: &mut Shared) -> Result<(), Lost> {
        let is_open = match shared.dialect.framing() {
            Framing::WebSocket(_) => head.starts_with(b"HTTP/1.1 101 "),
            Framing::Body(_) | Framing::Answers => head.starts_with(b"HTTP/1.1 200 "),
        };
        if !is_open {
            return Err(Lost::refused(head));
        }
        self.stage = Stage::Greeting;
        let mut say = Say::new(&mut shared.out);
        let progress = shared.dialect.opened(self.number, head, &mut say)?;
        self.follow(progress, shared);
        Ok(())
    }

    fn take_frames(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        units: Units,
        now: Option<u64>,
        shared: &mut Shared,
    ) -> Result<usize, Lost> {
        while let Some(header) = ServerFrame::read(&bytes[at..], FRAME_BYTES_MAX)? {
            let start = at + header.header_bytes;
            let Some(payload) = bytes.get(start..start + header.payload_bytes) else { break };
            match header.opcode {
                Opcode::Text | Opcode::Binary if header.is_deflated => {
                    let received = shared.received;
                    let mut inflater = shared.inflater.take().expect("it is put back below");
                    let taken = match inflater.inflate(payload) {
                        Ok(plain) => self.take_units(plain, units, now, shared),
                        Err(error) => Err(error.into()),
                    };
                    shared.inflater = Some(inflater);
                    shared.compressed += shared.received - received;
                    taken?;
                }
                Opcode::Text | Opcode::Binary => self.take_units(payload, units, now, shared)?,
                Opcode::Ping => {
                    shared.pings += 1;
                    write_frame(Opcode::Pong, payload, &mut shared.out);
                }
                // No header of a fragment is accepted.
                Opcode::Pong | Opcode::Continuation => {}
                Opcode::Close => return Err(closed(payload)),
            }
            at = start + header.payload_bytes;
        }
        Ok(at)
    }

    /// Handles the messages of a frame.
    fn take_units(
        &mut self,
        mut payload: &[u8],
        units: Units,
        now: Option<u64>,
        shared: &mut Shared,
    ) -> Result<(), Lost> {
        match units {
            Units::Whole => self.take_message(payload, now, shared),
            Units::Lines => {
                while let Some(end) = memchr(b'\n', payload) {
                    self.take_message(&payload[..end], now, shared)?;
                    payload = &payload[end + 1..];
                }
                if payload.is_empty() { Ok(()) } else { self.take_message(payload, now, shared) }
            }
            Units::LengthPrefixed => {
                while let Some((message, rest)) = units::length_prefixed(payload) {
                    self.take_message(message, now, shared)?;
                    payload = rest;
                }
                if payload.is_empty() { Ok(()) } else { Err(Lost::refused(payload)) }
            }
            Units::NatsCommands => {
                let joined = [&std::mem::take(&mut self.cut), payload].concat();
                let mut commands = &*joined;
                while let Some((message, rest)) = units::nats_command(commands) {
                    self.take_message(message, now, shared)?;
                    commands = rest;
                }
                if commands.len() > kept_bytes_max() {
                    return Err(Lost::TooLong);
                }
                self.cut = commands.to_vec();
                Ok(())
            }
        }
    }

    fn take_message(&mut self, message: &[u8], now: Option<u64>, shared: &mut Shared) -> Result<(), Lost> {
        if self.stage == Stage::Live
            && let Some(measured) = shared.payload.read(message)
        {
            self.take_measured(&measured, now, shared);
            return Ok(());
        }
        self.take_other(message, shared)
    }

    fn take_measured(&mut self, measured: &Measured<'_>, now: Option<u64>, shared: &mut Shared) {
        self.checks.accept(measured.stream, measured.sequence, &shared.published);
        shared.received += 1;
        if let Some(now) = now {
            match measured.intact(shared.payload_bytes) {
                Some(Times { sent_at, due }) => {
                    shared.latency.record(now.saturating_sub(sent_at));
                    shared.latency_from_due.record(now.saturating_sub(due));
                }
                None => shared.corrupted += 1,
            }
        }
    }

    fn take_other(&mut self, message: &[u8], shared: &mut Shared) -> Result<(), Lost> {
        let mut say = Say::new(&mut shared.out);
        let progress = shared.dialect.message(self.number, &mut self.step, message, &mut say)?;
        self.follow(progress, shared);
        Ok(())
    }

    fn follow(&mut self, progress: Progress, shared: &mut Shared) {
        match progress {
            Progress::Live => {
                self.stage = Stage::Live;
                shared.live += 1;
                shared.set_up.record(self.started.elapsed().as_nanos() as u64);
                self.acknowledge_when_read();
            }
            Progress::Ping => shared.pings += 1,
            Progress::Other => shared.others += 1,
            Progress::Waiting => {}
        }
    }

    /// Sends queued bytes. They are far fewer than a socket's buffer, so one write sends them, or the server does not read.
    fn send_all(&mut self, out: &mut Vec<u8>) -> Result<(), Lost> {
        if out.is_empty() {
            return Ok(());
        }
        let sent = self.stream_mut().write(out);
        let length = out.len();
        out.clear();
        match sent {
            Ok(sent) if sent == length => {
                self.acknowledge_when_read();
                Ok(())
            }
            Ok(_) => Err(Lost::Unread),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Lost::Unread),
            Err(error) => Err(error.into()),
        }
    }

    /// Turns off delayed acknowledgements. After a client has sent something, the kernel expects it to send again and delays
    /// its acknowledgements: the server's core then makes them, at the next message. Some clients would be in that mode by
    /// chance, and those of the baseline never, so none is.
    fn acknowledge_when_read(&self) {
        if let (Stage::Live, Some(stream)) = (self.stage, &self.stream) {
            // Fails only for a lost socket, which the next read reports.
            let _ = SockRef::from(stream).set_tcp_quickack(true);
        }
    }
}

/// Calls `recvmsg` once. Returns the number of bytes and the time at which the kernel received them, or `None` if there are
/// none.
fn receive_stamped(stream: &TcpStream, buffer: &mut [u8]) -> Result<Option<(usize, Option<Duration>)>, Lost> {
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let message = match recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()) {
        Ok(message) if message.bytes == 0 => return Err(Lost::Ended),
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
        Err(error) => return Err(io::Error::from(error).into()),
    };
    let mut notes = message.cmsgs().map_err(io::Error::from)?;
    let stamp = notes.find_map(|note| match note {
        ControlMessageOwned::ScmTimestampns(time) => Some(time.into()),
        _ => None,
    });
    Ok(Some((message.bytes, stamp)))
}

/// The size of a whole frame less its last byte.
const fn kept_bytes_max() -> usize {
    FRAME_BYTES_MAX + 10
}

fn closed(payload: &[u8]) -> Lost {
    match payload.split_first_chunk() {
        Some((code, reason)) => Lost::Closed {
            code: u16::from_be_bytes(*code),
            reason: String::from_utf8_lossy(reason).into_owned(),
        },
        None => Lost::Ended,
    }
}

#[cfg(test)]
mod tests;
