//! All simulated clients of a run, and the publishers beside them, behind one epoll set and one thread.
//!
//! The loop has no timers and no tasks: its caller calls `turn` and does its own work in between.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{IpBindAddressNoPort, ReceiveTimestampns};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::{Client, Lost, Shared, read_buffer};
use crate::dialect::{Audience, Dialect};
use crate::error::{Doing, LoadError};
use crate::interrupt;
use crate::measure::sequence::{Faults, StreamChecks};
use crate::publish::Publisher;
use crate::target::node_of;

/// Connections that are being set up at any one time, unless a scenario says otherwise.
pub(crate) const HANDSHAKES_IN_FLIGHT_MAX: usize = 512;
/// Connections from one loopback address. The kernel looks for a local port among half of its range first; beyond that
/// half every connect searches long, and the search would count as the client's cost. Servers may give an address a share of
/// what they take, as Fanwire does to clients that poll.
const CONNECTIONS_PER_SOURCE: usize = 4_000;
/// Few, so that a publisher on the same thread is at most a third of a millisecond late.
const EVENTS_PER_TURN: usize = 64;
/// Set-up without progress for this long has failed.
const SET_UP_STALL_MAX: Duration = Duration::from_secs(10);
/// Maximum number of reasons for lost connections that are kept as text.
const REASONS_MAX: usize = 3;
/// Resumed clients have received everything when nothing more arrived for this long.
const RESUMED_QUIET: Duration = Duration::from_secs(1);
/// The first token of a publisher.
const FIRST_PUBLISHER: usize = usize::MAX / 2;
/// With more clients than this, only some have their latency measured.
const LATENCY_OF_ALL_MAX: usize = 200;
/// Of more clients one in this many is measured: a prime, so that no pattern of topics or nodes coincides with it.
const LATENCY_SAMPLE_EVERY: usize = 37;

/// The streams of the messages to a topic: `lanes` for each topic.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    pub(crate) audience: Rc<Audience>,
    /// Publishers that share each topic; zero if nothing is published.
    pub(crate) lanes: u32,
}

impl Streams {
    /// Returns the stream of `lane` in `topic`.
    pub(crate) fn of(&self, topic: usize, lane: u32) -> u32 {
        topic as u32 * self.lanes + lane
    }

    fn of_client(&self, number: usize) -> impl Iterator<Item = u32> {
        let of_topic = move |topic| (0..self.lanes).map(move |lane| self.of(topic, lane));
        self.audience.topics_of(number).flat_map(of_topic)
    }
}

/// The clients in the order they were started; a client's place is its token in the epoll set.
pub(crate) struct Clients {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    addresses: Vec<SocketAddrV4>,
    streams: Streams,
    clients: Vec<Client>,
    publishers: Vec<Box<dyn Publisher>>,
    lost: usize,
    /// Lost clients that were never subscribed.
    never_live: usize,
    reasons: Vec<String>,
    /// Clients that were stalled at some time and are gone.
    stalled_gone: Vec<Lost>,
    /// Time spent awake with nothing to do.
    pub(crate) waited: Duration,
    pub(crate) shared: Shared,
}

impl Clients {
    /// Makes a set without clients.
    pub(crate) fn new(
        addresses: Vec<SocketAddrV4>,
        dialect: Box<dyn Dialect>,
        streams: Streams,
    ) -> Result<Self, LoadError> {
        assert!(!addresses.is_empty(), "clients connect somewhere");
        Ok(Self {
            poll: Poll::new().doing("make an epoll set")?,
            events: Events::with_capacity(EVENTS_PER_TURN),
            buffer: read_buffer(),
            addresses,
            streams,
            clients: Vec::new(),
            publishers: Vec::new(),
            lost: 0,
            never_live: 0,
            reasons: Vec::new(),
            stalled_gone: Vec::new(),
            waited: Duration::ZERO,
            shared: Shared::new(dialect),
        })
    }

    /// Connects `count` clients, at most `in_flight` at a time. Returns when each is subscribed or lost, or when there is no
    /// more progress.
    pub(crate) fn connect(&mut self, count: usize, in_flight: usize) -> Result<(), LoadError> {
        if count > LATENCY_OF_ALL_MAX {
            self.shared.latency_every = LATENCY_SAMPLE_EVERY;
        }
        let mut last_done = 0;
        let mut last_step = Instant::now();
        loop {
            let done = self.settled();
            if done > last_done {
                (last_done, last_step) = (done, Instant::now());
            }
            if done >= count || last_step.elapsed() > SET_UP_STALL_MAX {
                return Ok(());
            }
            while self.clients.len() < count && self.clients.len() - done < in_flight {
                let number = self.clients.len();
                self.start_at(number, number, number / CONNECTIONS_PER_SOURCE)?;
            }
            self.turn(Some(Duration::from_millis(100)))?;
        }
    }

    /// Returns how many clients were subscribed or never will be: each counts once, whatever happens to it later.
    pub(crate) fn settled(&self) -> usize {
        self.shared.live + self.never_live
    }

    /// Returns an error with the first reasons unless that many clients are subscribed.
    pub(crate) fn require(&self, wanted: usize) -> Result<(), LoadError> {
        if self.shared.live >= wanted && self.lost == 0 {
            return Ok(());
        }
        let reasons = self.reasons.iter().map(|reason| format!("; {reason}")).collect();
        Err(LoadError::SetUp { wanted, live: self.shared.live, lost: self.lost, reasons })
    }

    /// Starts client `number` in a free place, at most the next one. `source` selects the loopback address.
    pub(crate) fn start_at(&mut self, place: usize, number: usize, source: usize) -> Result<(), LoadError> {
        let client = self.begin(place, source, number)?;
        if place == self.clients.len() {
            self.clients.push(client);
        } else {
            self.clients[place] = client;
        }
        Ok(())
    }

    /// Adds a publisher to the epoll set.
    pub(crate) fn add_publisher(&mut self, mut publisher: Box<dyn Publisher>) -> Result<(), LoadError> {
        let token = Token(FIRST_PUBLISHER + self.publishers.len());
        self.poll
            .registry()
            .register(publisher.stream(), token, Interest::READABLE | Interest::WRITABLE)
            .doing("add a publisher to the epoll set")?;
        self.publishers.push(publisher);
        Ok(())
    }

    pub(crate) fn publishers(&mut self) -> &mut [Box<dyn Publisher>] {
        &mut self.publishers
    }

    /// Waits at most `timeout` for readiness and serves a few sockets.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> Result<(), LoadError> {
        self.poll(timeout)?;
        self.serve_ready()
    }

    /// Does the same without sleeping: the server's `send` would have to wake a sleeping client, which costs the server's
    /// core a microsecond and more, and clients on other machines cost nothing of the kind.
    pub(crate) fn turn_awake(&mut self, timeout: Duration) -> Result<(), LoadError> {
        let started = Instant::now();
        loop {
            let waited = started.elapsed();
            self.poll(Some(Duration::ZERO))?;
            if !self.events.is_empty() || waited >= timeout {
                self.waited += waited;
                return self.serve_ready();
            }
        }
    }

    fn poll(&mut self, timeout: Option<Duration>) -> Result<(), LoadError> {
        interrupt::check()?;
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            polled => polled.doing("wait for readiness"),
        }
    }

    fn serve_ready(&mut self) -> Result<(), LoadError> {
        // The events are moved out while clients are served.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let place = event.token().0;
            if let Some(publisher) = place.checked_sub(FIRST_PUBLISHER) {
                self.publishers[publisher].ready()?;
                continue;
            }
            let client = &mut self.clients[place];
            if client.is_gone() {
                continue;
            }
            let served = serve(client, event, &mut self.buffer, &mut self.shared);
            self.conclude(place, served);
            self.return_if_needed(place)?;
        }
        self.events = events;
        Ok(())
    }

    /// Connects a client again whose next poll needs another connection.
    fn return_if_needed(&mut self, place: usize) -> Result<(), LoadError> {
        let client = &mut self.clients[place];
        if client.needs_socket() {
            let number = client.number();
            client.return_by(connect_to(&self.addresses, number, number / CONNECTIONS_PER_SOURCE)?);
            register(&self.poll, client, place)?;
        }
        Ok(())
    }

    /// Marks a lost client as gone, and counts it unless the loss was wanted.
    fn conclude(&mut self, place: usize, served: Result<(), Lost>) {
        let Err(lost) = served else { return };
        let client = &mut self.clients[place];
        let (is_leaving, was_stalled) = (client.is_leaving(), client.was_stalled());
        self.never_live += usize::from(client.is_setting_up());
        // The connection is over; an error while removing it from the set changes nothing.
        let _ = self.poll.registry().deregister(client.stream_mut());
        client.mark_gone();
        if was_stalled {
            self.stalled_gone.push(lost);
        } else if !is_leaving {
            self.lost += 1;
            if self.reasons.len() < REASONS_MAX {
                self.reasons.push(lost.to_string());
            }
        }
    }

    /// Serves clients for `span`.
    pub(crate) fn run_for(&mut self, span: Duration) -> Result<(), LoadError> {
        let end = Instant::now() + span;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.turn(Some(left))?;
        }
        Ok(())
    }

    /// Returns how many clients were started.
    pub(crate) fn count(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter()
    }

    pub(crate) fn is_live(&self, place: usize) -> bool {
        self.clients[place].is_live()
    }

    /// Returns true once if the client in this place is gone.
    pub(crate) fn take_gone(&mut self, place: usize) -> bool {
        self.clients[place].take_gone()
    }

    /// Returns the number of the client in this place.
    pub(crate) fn number(&self, place: usize) -> usize {
        self.clients[place].number()
    }

    /// Closes one client by its protocol. It is gone when the server ends the connection, or at once if the protocol has no
    /// close.
    pub(crate) fn leave(&mut self, place: usize) -> Result<(), Lost> {
        self.clients[place].leave(&mut self.shared)
    }

    /// Ends one client's connection at once, without a close.
    pub(crate) fn vanish(&mut self, place: usize) -> Result<(), Lost> {
        self.clients[place].vanish()
    }

    /// Stops the client in this place from reading.
    pub(crate) fn stall(&mut self, place: usize) {
        self.clients[place].stall();
    }

    /// Lets stalled clients read until nothing more arrives. Returns for each the reason for which it is gone, or `None` if
    /// it is still connected.
    pub(crate) fn resume_stalled(&mut self) -> Result<Vec<Option<Lost>>, LoadError> {
        let places: Vec<usize> =
            (0..self.clients.len()).filter(|place| self.clients[*place].is_stalled()).collect();
        for place in &places {
            let client = &mut self.clients[*place];
            client.resume();
            let mut read = Ok(());
            // No event reports data that arrived while it was stalled, nor an end after it.
            while read.is_ok() && client.has_more() {
                read = client.readable(&mut self.buffer, &mut self.shared);
            }
            self.conclude(*place, read);
            self.return_if_needed(*place)?;
        }
        let mut last_step = (0, Instant::now());
        while last_step.1.elapsed() < RESUMED_QUIET {
            self.turn(Some(RESUMED_QUIET))?;
            let step = self.shared.received + self.stalled_gone.len() as u64;
            if step != last_step.0 {
                last_step = (step, Instant::now());
            }
        }
        let gone = std::mem::take(&mut self.stalled_gone);
        let connected = places.len() - gone.len();
        Ok(gone.into_iter().map(Some).chain(std::iter::repeat_with(|| None).take(connected)).collect())
    }

    /// Removes all clients from the epoll set, so that messages wake nobody: the sender runs the wake-up's callback, and the
    /// shards of a server would compete for the set's lock.
    pub(crate) fn unwatch(&mut self) -> Result<(), LoadError> {
        for client in self.clients.iter_mut().filter(|client| !client.is_gone()) {
            self.poll
                .registry()
                .deregister(client.stream_mut())
                .doing("take a socket out of the epoll set")?;
        }
        Ok(())
    }

    /// Adds all clients to the epoll set again, which then reports data that arrived meanwhile.
    pub(crate) fn watch(&mut self) -> Result<(), LoadError> {
        for (place, client) in self.clients.iter_mut().enumerate().filter(|(_, client)| !client.is_gone()) {
            register(&self.poll, client, place)?;
        }
        Ok(())
    }

    /// Reads from each connection, outside of the loop. Returns the times at which the kernel received the data. A
    /// connection that has ended is lost, and one without data has no time.
    pub(crate) fn take_stamped(&mut self) -> Vec<Duration> {
        let mut stamps = Vec::with_capacity(self.clients.len());
        for place in 0..self.clients.len() {
            let client = &mut self.clients[place];
            if client.is_gone() {
                continue;
            }
            match client.readable_stamped(&mut self.buffer, &mut self.shared) {
                Ok(stamp) => stamps.extend(stamp),
                Err(lost) => self.conclude(place, Err(lost)),
            }
        }
        stamps
    }

    /// Makes the kernel record when each connection receives data.
    pub(crate) fn stamp(&self) -> Result<(), LoadError> {
        let on = |client: &Client| setsockopt(client.stream(), ReceiveTimestampns, &true);
        self.clients.iter().try_for_each(on).doing("ask for receive timestamps")
    }

    /// Returns how many clients were lost, and the first reasons.
    pub(crate) fn losses(&self) -> (usize, &[String]) {
        (self.lost, &self.reasons)
    }

    /// Returns the faults of all connections that read, if nothing more arrives.
    pub(crate) fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        for client in self.clients.iter().filter(|client| !client.is_stalled()) {
            faults += client.checks.faults(&self.shared.published);
        }
        faults.corrupted = self.shared.corrupted;
        faults
    }

    /// Starts a non-blocking connect in the epoll set.
    fn begin(&mut self, place: usize, source: usize, number: usize) -> Result<Client, LoadError> {
        let stream = connect_to(&self.addresses, number, source)?;
        let checks = StreamChecks::new(self.streams.of_client(number));
        let mut client = Client::new(stream, number, checks);
        register(&self.poll, &mut client, place)?;
        Ok(client)
    }
}

fn register(poll: &Poll, client: &mut Client, place: usize) -> Result<(), LoadError> {
    poll.registry()
        .register(client.stream_mut(), Token(place), Interest::READABLE | Interest::WRITABLE)
        .doing("add a socket to the epoll set")
}

/// Serves a readiness event. The set is edge-triggered: a hang-up after the last bytes causes no further event, so it is
/// handled here.
fn serve(client: &mut Client, event: &Event, buffer: &mut [u8], shared: &mut Shared) -> Result<(), Lost> {
    if client.is_stalled() {
        return Ok(());
    }
    if event.is_writable() {
        client.writable(shared)?;
    }
    if event.is_readable() {
        client.readable(buffer, shared)?;
    }
    // The answer to a poll may be the last of its connection.
    if client.needs_socket() {
        return Ok(());
    }
    if event.is_read_closed() || event.is_error() { Err(Lost::Ended) } else { Ok(()) }
}

/// Starts to connect a client to its node.
fn connect_to(addresses: &[SocketAddrV4], number: usize, source: usize) -> Result<TcpStream, LoadError> {
    let server = addresses[node_of(number, addresses.len())];
    begin_connect(server, source).doing(format!("connect to {server}"))
}

/// Starts to connect. The kernel always chooses the port, and for the first source the address too.
fn begin_connect(server: SocketAddrV4, source: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if source > 0 && server.ip().is_loopback() {
        let address = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + source as u32);
        // Without this option the port would have to be free for all destinations.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((address, 0)).into())?;
    }
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Raw, Seats};

    #[test]
    fn a_client_that_is_lost_after_it_was_live_settles_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
        // Each is live as soon as it is connected, and lost as soon as it is accepted.
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let streams = Streams { audience: Audience::new("", Seats::All { topics: 1 }), lanes: 1 };
        let mut clients = Clients::new(vec![address], Box::new(Raw), streams).unwrap();
        clients.connect(20, 2).unwrap();
        while clients.losses().0 < 20 {
            clients.turn(Some(Duration::from_millis(10))).unwrap();
        }
        assert_eq!((clients.count(), clients.settled()), (20, 20));
        assert!(clients.require(20).is_err());
    }
}
