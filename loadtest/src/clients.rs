//! All simulated clients of a run behind one epoll set and one thread.
//!
//! The loop has no timers and no tasks: whoever drives it calls `turn` and does its own work in between.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::{Client, Lost, Peer, Tally, read_buffer};
use crate::error::{Doing, LoadError};
use crate::sequence::Faults;

/// Connections that are being set up at any one time.
pub(crate) const HANDSHAKES_IN_FLIGHT_MAX: usize = 512;
/// Connections from one loopback address. The kernel looks for a local port among half of its range first; beyond that
/// half every connect searches long, and the search would count as the client's cost.
const CONNECTIONS_PER_SOURCE: usize = 10_000;
/// Few, so that a publisher on the same thread is at most a third of a millisecond late.
const EVENTS_PER_TURN: usize = 64;
/// Set-up without a single step forward for this long has failed.
const SET_UP_STALL_MAX: Duration = Duration::from_secs(10);
/// How many reasons for lost connections are kept word for word.
const REASONS_MAX: usize = 3;

/// The clients in the order they were started; a client's place is its token in the epoll set.
pub(crate) struct Clients {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    peer: Peer,
    clients: Vec<Client>,
    lost: usize,
    reasons: Vec<String>,
    pub(crate) tally: Tally,
}

impl Clients {
    /// Connects `count` clients and returns when all are subscribed; the first loss ends it with the reason.
    pub(crate) fn connect(server: SocketAddrV4, count: usize, peer: Peer) -> Result<Self, LoadError> {
        let mut all = Self {
            poll: Poll::new().doing("make an epoll set")?,
            events: Events::with_capacity(EVENTS_PER_TURN),
            buffer: read_buffer(),
            peer,
            clients: Vec::with_capacity(count),
            lost: 0,
            reasons: Vec::new(),
            tally: Tally::new(),
        };
        let mut last_live = 0;
        let mut last_step = Instant::now();
        while all.tally.live < count {
            while all.clients.len() < count && all.clients.len() - all.tally.live < HANDSHAKES_IN_FLIGHT_MAX {
                all.start_one(server)?;
            }
            all.turn(Some(Duration::from_millis(100)))?;
            if all.tally.live > last_live {
                last_live = all.tally.live;
                last_step = Instant::now();
            }
            if all.lost > 0 || last_step.elapsed() > SET_UP_STALL_MAX {
                return Err(all.set_up_failed(count));
            }
        }
        Ok(all)
    }

    /// Waits at most `timeout` for readiness and serves a few sockets.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> Result<(), LoadError> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error).doing("wait for readiness"),
        }
        for event in &self.events {
            let client = &mut self.clients[event.token().0];
            if client.is_gone() {
                continue;
            }
            if let Err(lost) = serve(client, event, &mut self.buffer, &self.peer, &mut self.tally) {
                client.mark_gone();
                // The connection is over; an error while taking it off the set changes nothing.
                let _ = self.poll.registry().deregister(client.stream_mut());
                self.lost += 1;
                if self.reasons.len() < REASONS_MAX {
                    self.reasons.push(lost.to_string());
                }
            }
        }
        Ok(())
    }

    /// Goes on for `span`, calling nobody.
    pub(crate) fn run_for(&mut self, span: Duration) -> Result<(), LoadError> {
        let end = Instant::now() + span;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.turn(Some(left))?;
        }
        Ok(())
    }

    /// How many clients were set up.
    pub(crate) fn count(&self) -> usize {
        self.clients.len()
    }

    /// How many of them are gone, and the first reasons.
    pub(crate) fn losses(&self) -> (usize, &[String]) {
        (self.lost, &self.reasons)
    }

    /// What is wrong on all connections if nothing more arrives.
    pub(crate) fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        for client in &self.clients {
            faults += client.sequence.faults(self.tally.published);
        }
        faults
    }

    fn start_one(&mut self, server: SocketAddrV4) -> Result<(), LoadError> {
        let index = self.clients.len();
        let stream = begin_connect(server, index).doing(format!("connect to {server}"))?;
        let mut client = Client::new(stream, index);
        self.poll
            .registry()
            .register(client.stream_mut(), Token(index), Interest::READABLE | Interest::WRITABLE)
            .doing("add a socket to the epoll set")?;
        self.clients.push(client);
        Ok(())
    }

    fn set_up_failed(&self, wanted: usize) -> LoadError {
        let reasons = self.reasons.iter().map(|reason| format!("; {reason}")).collect();
        LoadError::SetUp { wanted, live: self.tally.live, lost: self.lost, reasons }
    }
}

/// The readiness set is edge-triggered: a hang-up behind the last bytes brings no further event, so it is honoured here.
fn serve(
    client: &mut Client,
    event: &Event,
    buffer: &mut [u8],
    peer: &Peer,
    tally: &mut Tally,
) -> Result<(), Lost> {
    if event.is_writable() {
        client.writable(peer, tally)?;
    }
    if event.is_readable() {
        client.readable(buffer, peer, tally)?;
    }
    if event.is_read_closed() || event.is_error() { Err(Lost::Ended) } else { Ok(()) }
}

/// A non-blocking connect; the first sources leave the choice of address and port to the kernel.
fn begin_connect(server: SocketAddrV4, index: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let source = index / CONNECTIONS_PER_SOURCE;
    if source > 0 {
        let address = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + source as u32);
        socket.bind(&SocketAddr::from((address, 0)).into())?;
    }
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
