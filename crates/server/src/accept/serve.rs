//! The HTTP connections of a shard's own listening socket, until a request of theirs opens a connection of the shard.
//!
//! Every shard listens on the same address (SO_REUSEPORT), so the kernel spreads connections over the shards.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::accept::admission::{
    FirstByte, HttpConnection, HttpConnections, Proxies, Reason, Times, Watch, Watched, first_byte,
};
use crate::accept::http2::{self, Http2Watch};
use crate::accept::tls::{self, ServerStream, Tls, TlsHandshake};
use crate::accept::unreadable::ErrorPages;
use crate::accept::{accept_all, requests};
use crate::drain::DrainPhase;
use crate::request_budget::OnePerPoll;
use crate::response::is_last;
use crate::route::{group_of, route};
use crate::tasks::Task;
use crate::transport::{Adopted, Gate, Line, Routed};

/// The time for which a node that shuts down still accepts connections from the kernel's queue.
const QUEUE_PATIENCE: Duration = Duration::from_secs(1);

/// Accepts until the node leaves, and returns when all requests that have begun are answered.
pub(crate) async fn accept(listener: TcpListener, gate: Rc<Gate>, mut phase: watch::Receiver<DrainPhase>) {
    let acceptor = Rc::new(Acceptor::new(gate, phase.clone()));
    tokio::select! {
        never = acceptor.gate.node.tasks.keep(Task::Accept, || acceptor.accept_all(&listener)) => match never {},
        // Without a sender the node ends at once.
        _ = phase.wait_for(|phase| *phase >= DrainPhase::Leaving) => {}
    }
    if timeout(QUEUE_PATIENCE, acceptor.accept_waiting(listener)).await.is_err() {
        tracing::debug!("a listener was closed while connections waited for it");
    }
    tokio::select! {
        () = acceptor.all_answered() => {}
        () = acceptor.connections.keep_room() => {}
    }
}

/// The state that the connections of one listener share.
struct Acceptor {
    gate: Rc<Gate>,
    phase: watch::Receiver<DrainPhase>,
    connections: Arc<HttpConnections>,
    times: Times,
    /// The number of connections that wait for an answer.
    answering: watch::Sender<usize>,
}

/// Makes a node that leaves wait for this connection.
struct Answering(Rc<Acceptor>);

impl Answering {
    fn new(acceptor: &Rc<Acceptor>) -> Self {
        acceptor.answering.send_modify(|count| *count += 1);
        Self(acceptor.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.send_modify(|count| *count -= 1);
    }
}

impl Acceptor {
    fn new(gate: Rc<Gate>, phase: watch::Receiver<DrainPhase>) -> Self {
        let connections = gate.node.http_connections[gate.shard].clone();
        let times = gate.node.settings.times();
        Self { gate, phase, connections, times, answering: watch::Sender::new(0) }
    }

    /// Cancel-safe.
    async fn accept_all(self: &Rc<Self>, listener: &TcpListener) {
        let sockets = || self.gate.node.permits.sockets() as usize;
        accept_all(listener, &self.connections, sockets, |stream, peer| self.open(stream, peer, None)).await;
    }

    /// Accepts the connections in the kernel's queue, which closing the listener would reset.
    async fn accept_waiting(self: &Rc<Self>, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        loop {
            self.connections.can_enter().await;
            match listener.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true)?;
                    if stream.set_nodelay(true).is_err() {
                        continue;
                    }
                    // Its request has not been read, and the node must not end before it is.
                    let has_begun = matches!(stream.peek(&mut [0]), Ok(1..));
                    let answering = has_begun.then(|| Answering::new(self));
                    self.open(TcpStream::from_std(stream)?, peer, answering);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => return Ok(()),
            }
            // Earlier connections go on meanwhile.
            tokio::task::yield_now().await;
        }
    }

    fn open(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, answering: Option<Answering>) {
        let acceptor = self.clone();
        let connection = Arc::new(self.connections.enter(peer.ip()));
        let watched = connection.clone();
        let task =
            tokio::task::spawn_local(
                async move { acceptor.serve(stream, peer.ip(), watched, answering).await },
            );
        connection.is_served_by(task.abort_handle());
    }

    /// Waits for all answers, also to requests that begin meanwhile. Connections that are idle end by themselves once
    /// the node leaves.
    async fn all_answered(&self) {
        // The sender is never dropped before.
        let _ = self.answering.subscribe().wait_for(|count| *count == 0).await;
    }

    async fn serve(
        self: &Rc<Self>,
        mut stream: TcpStream,
        peer: IpAddr,
        connection: Arc<HttpConnection>,
        answering: Option<Answering>,
    ) {
        let deadline = Instant::now() + self.times.head;
        let mut first = first_byte(&stream, &connection, deadline).await;
        if first == FirstByte::Came && self.proxies().trust(peer) {
            // Boxed, as it is large.
            first = Box::pin(self.skip_proxy_header(&mut stream, peer, &connection, deadline)).await;
        }
        match first {
            FirstByte::Came if connection.begin(deadline).await => {
                // Boxed, so that a connection that sends nothing holds little memory.
                let served =
                    self.gate.budget.paced(self.serve_begun(stream, connection.clone(), deadline, answering));
                let mut served = Box::pin(served);
                poll_fn(|context| {
                    // The connection waits for its turn now, not for its peer.
                    connection.waits_for_peer(false);
                    served.as_mut().poll(context)
                })
                .await;
            }
            FirstByte::Came => {}
            FirstByte::Left => self.count_handshake(TlsHandshake::Left),
            FirstByte::TimedOut => self.count_handshake(TlsHandshake::TimedOut),
        }
    }

    /// Takes the header that a trusted proxy may send first, and waits for the client's own first byte.
    async fn skip_proxy_header(
        &self,
        stream: &mut TcpStream,
        peer: IpAddr,
        connection: &HttpConnection,
        deadline: Instant,
    ) -> FirstByte {
        match timeout_at(deadline, self.proxies().sent_ahead(stream, peer)).await {
            Ok(Ok(from)) => {
                connection.comes_from(from);
                first_byte(stream, connection, deadline).await
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, %peer, "a PROXY header could not be read");
                FirstByte::Left
            }
            Err(_) => {
                connection.dropped(Reason::HeadTimeout);
                FirstByte::TimedOut
            }
        }
    }

    fn proxies(&self) -> Proxies<'_> {
        Proxies(&self.gate.node.settings.admission.trusted_proxies)
    }

    /// Serves a connection that has sent a byte.
    async fn serve_begun(
        self: &Rc<Self>,
        stream: TcpStream,
        connection: Arc<HttpConnection>,
        deadline: Instant,
        answering: Option<Answering>,
    ) {
        match &self.gate.node.tls {
            None => {
                self.serve_requests(stream, Watch::new(connection, self.times, deadline), answering).await
            }
            // Boxed, as it is several times as large: plain connections would fragment the heap.
            Some(tls) => Box::pin(self.answer_encrypted(tls, stream, connection, deadline, answering)).await,
        }
    }

    /// The handshake and the first request's head share one deadline. A client that has begun a handshake waits for an
    /// answer, as if its request had arrived.
    async fn answer_encrypted(
        self: &Rc<Self>,
        tls: &Tls,
        stream: TcpStream,
        connection: Arc<HttpConnection>,
        deadline: Instant,
        answering: Option<Answering>,
    ) {
        let answering = answering.unwrap_or_else(|| Answering::new(self));
        let mut shaking = pin!(tls::shake_hands(tls, stream));
        let watched = poll_fn(|context| {
            let shaken = shaking.as_mut().poll(context);
            if shaken.is_pending() {
                connection.waits_for_peer(true);
            }
            shaken
        });
        let (outcome, stream) = match timeout_at(deadline, watched).await {
            Ok(shaken) => shaken,
            Err(_) => {
                connection.dropped(Reason::HeadTimeout);
                (TlsHandshake::TimedOut, None)
            }
        };
        self.count_handshake(outcome);
        let Some(stream) = stream else { return };
        if tls::has_agreed_on_http2(&stream) {
            let watch = Http2Watch::new(connection, self.times, deadline);
            Box::pin(http2::serve(&self.gate, watch, self.phase.clone(), stream)).await;
        } else {
            self.serve_requests(stream, Watch::new(connection, self.times, deadline), Some(answering)).await;
        }
    }

    fn count_handshake(&self, outcome: TlsHandshake) {
        if self.gate.node.tls.is_some() {
            self.gate.node.counters[self.gate.shard].handshakes[outcome as usize].add(1);
        }
    }

    /// Answers requests until one opens a connection of the shard. Then it takes the socket back from hyper, with
    /// the bytes that were read after the request, and gives it to the shard.
    async fn serve_requests(
        self: &Rc<Self>,
        stream: impl ServerStream,
        watch: Watch,
        answering: Option<Answering>,
    ) {
        let gate = &self.gate;
        let opened = Rc::new(RefCell::new(None));
        let answering = RefCell::new(answering);
        let is_asked = Cell::new(false);
        let one_per_poll = OnePerPoll::default();
        let proxies = self.proxies();
        let service = service_fn(|request: Request<Incoming>| {
            is_asked.set(true);
            answering.borrow_mut().get_or_insert_with(|| Answering::new(self));
            let (gate, opened, one_per_poll, watch) = (gate.clone(), opened.clone(), &one_per_poll, &watch);
            Box::pin(async move {
                let group = group_of(&gate, &request);
                let turn = async {
                    one_per_poll.pass().await;
                    watch.asks_for(|from| proxies.client_of(from, request.headers()));
                };
                let admitted = requests::admit(watch, &request, group, turn).await;
                let is_last = is_last(&request) || gate.node.is_draining();
                match route(&gate, request, admitted.map(|()| watch.network())).await {
                    Routed::Response(mut response) => {
                        watch.answered(&mut response, is_last);
                        Ok::<Response<Full<Bytes>>, Infallible>(response)
                    }
                    Routed::Arrival(arrival) => {
                        *opened.borrow_mut() = Some(arrival);
                        // hyper is to write nothing more.
                        std::future::pending().await
                    }
                }
            })
        });
        let mut connection = requests::http1()
            .serve_connection(TokioIo::new(ErrorPages::new(Watched::new(stream, watch.clone()))), service);
        let mut time = pin!(sleep_until(Instant::now()));
        let mut phase = self.phase.clone();
        let mut leaving = pin!(phase.wait_for(|phase| *phase >= DrainPhase::Leaving));
        let mut is_leaving = false;
        poll_fn(|context| {
            if !is_leaving && leaving.as_mut().poll(context).is_ready() {
                is_leaving = true;
                // A connection without a request so far gets one answer.
                if is_asked.get() {
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
            one_per_poll.begin();
            // Errors are the peer's: an unreadable request or a broken connection.
            let served = connection.poll_without_shutdown(context).map(|_| ());
            let is_over = opened.borrow().is_some() || watch.poll_expired(context, time.as_mut()).is_ready();
            if is_over { Poll::Ready(()) } else { served }
        })
        .await;
        let parts = connection.into_parts();
        let stream = parts.io.into_inner().into_inner().into_inner();
        let Some(arrival) = opened.take() else { return stream.end().await };
        let (socket, tls) = stream.into_parts();
        match socket.into_std() {
            Ok(socket) => {
                let line = Line::Socket(socket, tls);
                gate.adopt(Adopted { line, early: parts.read_buf, arrival });
            }
            Err(error) => tracing::debug!(%error, "a socket could not be taken back"),
        }
    }
}
