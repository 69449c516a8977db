//! The baseline: a process that only sends prepared frames to sockets, by one non-blocking `send` each.
//!
//! It sends the same bytes at the same rate as the server beside it, so a ratio to it shows what the server adds. A burst is
//! one concatenated send, the lowest possible cost of a burst. With shards, each is a thread that sends to its part of the
//! sockets.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

use clap::Args;
use fanwire_protocol::websocket::{Opcode, write_frame};
use socket2::{Domain, Protocol, Socket, Type};

use crate::dialect::{Audience, Dialect, Raw};
use crate::error::{Doing, LoadError};
use crate::load::Load;
use crate::measure::pace::Pace;
use crate::measure::payload::{self, Numbers};
use crate::measure::process::{Placement, monotonic_nanoseconds};
use crate::publish::Publisher;
use crate::target::{Part, Setup, Target};

/// More than the handshakes in flight.
const BACKLOG: i32 = 4096;

/// The command with which this program starts itself as the baseline.
pub(crate) const ROLE: &str = "raw-server";

/// The baseline's only topic, and the envelope of its messages.
const TOPIC: &str = "load:topic-0";
const STREAM: u32 = 0;

/// Options of the baseline.
#[derive(Args, Clone, Debug)]
pub(crate) struct RawArguments {
    #[arg(long)]
    clients: usize,
    #[arg(long)]
    shards: usize,
    #[command(flatten)]
    load: Load,
}

/// The parent's side of a running baseline process; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct RawServer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddrV4,
    placement: Placement,
}

impl RawServer {
    /// Starts this program again as the baseline.
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self, LoadError> {
        let Some(load) = setup.load else {
            return Err(LoadError::Unsupported("raw takes part only where one topic is sent to".to_owned()));
        };
        let program = std::env::current_exe().doing("find this program's file")?;
        let mut command = Command::new(program);
        let shards = setup.subject.shards.unwrap_or(1);
        command.args([ROLE.to_owned(), format!("--clients={}", setup.clients), format!("--shards={shards}")]);
        command.args(load.to_arguments()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let placement = setup.subject.placement();
        let mut child = setup.cores.spawn(placement, &mut command)?;
        let orders = child.stdin.take().expect("the child's input was asked to be a pipe");
        let mut answers =
            BufReader::new(child.stdout.take().expect("the child's output was asked to be a pipe"));
        let port = answer(&mut answers)?;
        let port =
            port.parse().map_err(|_| LoadError::Unreadable(format!("the baseline's port {port:?}")))?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        Ok(Self { child, orders, answers, address, placement })
    }
}

impl Target for RawServer {
    fn parts(&self) -> Vec<Part> {
        vec![Part { name: "server", pid: self.child.id() }]
    }

    fn versions(&self) -> Vec<String> {
        vec![format!("fanwire-loadtest {}", env!("CARGO_PKG_VERSION"))]
    }

    fn placement(&self) -> Option<Placement> {
        Some(self.placement)
    }

    fn addresses(&self) -> Result<Vec<SocketAddrV4>, LoadError> {
        Ok(vec![self.address])
    }

    fn dialect(&self, _audience: Rc<Audience>) -> Result<Box<dyn Dialect>, LoadError> {
        Ok(Box::new(Raw))
    }

    fn publisher(&self, _index: usize) -> Result<Option<Box<dyn Publisher>>, LoadError> {
        Ok(None)
    }

    /// Returns when the baseline has accepted all connections, so that accepting is not measured.
    fn settle(&mut self, _audience: &Audience, _clients: usize) -> Result<(), LoadError> {
        answer(&mut self.answers).map(drop)
    }

    /// Starts the load, or repeats it.
    fn begin(&mut self) -> Result<(), LoadError> {
        writeln!(self.orders, "begin").doing("tell the baseline to begin")
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        // Both fail only if the process is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's side: prints its port, accepts, and reports that; sends the load at each order. The sockets stay open until
/// the parent ends.
pub(crate) fn serve(RawArguments { clients, shards, load }: &RawArguments) -> Result<(), LoadError> {
    let listener = listen().doing("listen")?;
    tell(listener.local_addr().doing("listen")?.port())?;
    let mut sockets = Vec::with_capacity(*clients);
    while sockets.len() < *clients {
        let (socket, _) = listener.accept().doing("accept")?;
        socket.set_nodelay(true).and_then(|()| socket.set_nonblocking(true)).doing("prepare a socket")?;
        sockets.push(socket);
    }
    tell("accepted")?;

    let mut parts = sockets.chunks_mut(clients.div_ceil(*shards).max(1));
    let own = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        let mut senders =
            Senders { own, others: parts.map(|part| OtherSender::start(scope, part)).collect() };
        (0..).zip(io::stdin().lines()).try_for_each(|(number, order)| {
            order.doing("read an order")?;
            send_all(load, number * load.messages(), &mut senders)
        })
    })
}

fn send_all(load: &Load, sent_before: u64, senders: &mut Senders<'_>) -> Result<(), LoadError> {
    let mut pace = Pace::start(load.rate, load.bursts());
    let mut burst = Vec::new();
    let mut message = Vec::new();
    while let Some(wait) = pace.wait() {
        thread::sleep(wait);
        let due = pace.due();
        let first = sent_before + load.first_sequence(pace.advance());
        burst.clear();
        for sequence in first..first + u64::from(load.burst) {
            message.clear();
            write!(message, r#"{{"push":{{"channel":"{TOPIC}","pub":{{"data":"#)
                .expect("a vector takes all that is written");
            let numbers = Numbers { stream: STREAM, sequence, sent_at: monotonic_nanoseconds(), due };
            payload::write(&mut message, &numbers, load.payload);
            message.extend_from_slice(b"}}}");
            write_frame(Opcode::Text, &message, &mut burst);
        }
        senders.send(&burst)?;
    }
    Ok(())
}

/// The sending threads, each with its part of the sockets.
struct Senders<'a> {
    own: &'a mut [TcpStream],
    others: Vec<OtherSender>,
}

impl Senders<'_> {
    /// Returns when all have sent.
    fn send(&mut self, burst: &[u8]) -> Result<(), LoadError> {
        for other in &self.others {
            // Its answer will report the failure.
            let _ = other.bursts.send(burst.to_vec());
        }
        send_to_each(burst, self.own)?;
        let gone = || LoadError::Server("lost a thread of the baseline".to_owned());
        self.others.iter().try_for_each(|other| other.answers.recv().map_err(|_| gone())?)
    }
}

/// A thread that waits for bursts. It runs as long as the process: the CPU time of an ended thread cannot be read.
struct OtherSender {
    bursts: mpsc::Sender<Vec<u8>>,
    answers: mpsc::Receiver<Result<(), LoadError>>,
}

impl OtherSender {
    fn start<'scope>(scope: &'scope thread::Scope<'scope, '_>, sockets: &'scope mut [TcpStream]) -> Self {
        let (bursts, to_send) = mpsc::channel::<Vec<u8>>();
        let (sent, answers) = mpsc::channel();
        scope.spawn(move || {
            for burst in to_send {
                if sent.send(send_to_each(&burst, sockets)).is_err() {
                    break;
                }
            }
        });
        Self { bursts, answers }
    }
}

fn send_to_each(burst: &[u8], sockets: &mut [TcpStream]) -> Result<(), LoadError> {
    for socket in sockets {
        let sent = socket.write(burst).doing("send the baseline's message")?;
        if sent < burst.len() {
            let told = "could not send a whole burst: the clients are too slow";
            return Err(LoadError::Server(told.to_owned()));
        }
    }
    Ok(())
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn tell(what: impl std::fmt::Display) -> Result<(), LoadError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}").and_then(|()| out.flush()).doing("answer the parent")
}

fn answer(answers: &mut BufReader<ChildStdout>) -> Result<String, LoadError> {
    let mut line = String::new();
    match answers.read_line(&mut line).doing("read the baseline's answer")? {
        0 => Err(LoadError::Server("of the baseline ended before the run".to_owned())),
        _ => Ok(line.trim_end().to_owned()),
    }
}
