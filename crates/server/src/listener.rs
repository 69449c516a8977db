//! A shard's own listening socket, and the requests that come through it until a connection stays.
//!
//! Every shard listens on the same address (SO_REUSEPORT), so the kernel spreads connections and no shard hands
//! one to another.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::drain::Phase;
use crate::http::{self, Gate, Outcome, Stay};
use crate::shard::Adopted;
use crate::tls::{self, Handshake, Stream, Tls};
use crate::turns::OnePerPoll;

/// Longest request line and headers together.
const REQUEST_HEAD_BYTES_MAX: usize = 32 * 1024;

/// How long to wait when a connection cannot be accepted, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a node that goes down still accepts what waits in the kernel's queue.
const QUEUE_PATIENCE: Duration = Duration::from_secs(1);

/// Accepts until the node leaves, and ends when whoever has begun to ask for something is answered.
pub(crate) async fn accept(listener: TcpListener, gate: Rc<Gate>, mut phase: watch::Receiver<Phase>) {
    let door = Rc::new(Door::new(gate, phase.clone()));
    tokio::select! {
        () = door.accept_all(&listener) => {}
        // Without a sender the node ends at once.
        _ = phase.wait_for(|phase| *phase >= Phase::Leaving) => {}
    }
    if timeout(QUEUE_PATIENCE, door.accept_waiting(listener)).await.is_err() {
        tracing::debug!("a listener was closed while connections waited for it");
    }
    door.all_answered().await;
}

/// What the connections of one listener share until they stay or end.
struct Door {
    gate: Rc<Gate>,
    phase: watch::Receiver<Phase>,
    /// One for each connection; others wait in the kernel's queue.
    permits: Arc<Semaphore>,
    /// Connections of which somebody waits for an answer.
    answering: watch::Sender<usize>,
    connections_max: usize,
}

/// A node that leaves waits for this connection.
struct Answering(Rc<Door>);

impl Answering {
    fn new(door: &Rc<Door>) -> Self {
        door.answering.send_modify(|count| *count += 1);
        Self(door.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.send_modify(|count| *count -= 1);
    }
}

impl Door {
    fn new(gate: Rc<Gate>, phase: watch::Receiver<Phase>) -> Self {
        let connections_max = gate.node.settings.admission.http_connections_max;
        let permits = Arc::new(Semaphore::new(connections_max));
        Self { gate, phase, permits, answering: watch::Sender::new(0), connections_max }
    }

    /// Cancel-safe.
    async fn accept_all(self: &Rc<Self>, listener: &TcpListener) {
        // The semaphore is never closed.
        while let Ok(permit) = self.permits.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => self.open(stream, permit, None),
                Err(error) => {
                    // Out of descriptors, most likely: what is being served has to end first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Accepts what waits in the kernel's queue, which closing the listener would reset.
    async fn accept_waiting(self: &Rc<Self>, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        while let Ok(permit) = self.permits.clone().acquire_owned().await {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    // Nobody has read what it asks, and the node must not be gone before somebody does.
                    let has_begun = matches!(stream.peek(&mut [0]), Ok(1..));
                    let answering = has_begun.then(|| Answering::new(self));
                    self.open(TcpStream::from_std(stream)?, permit, answering);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn open(self: &Rc<Self>, stream: TcpStream, permit: OwnedSemaphorePermit, answering: Option<Answering>) {
        let door = self.clone();
        tokio::task::spawn_local(async move {
            door.gate.turns.paced(door.serve(stream, answering)).await;
            drop(permit);
        });
    }

    /// Waits for what was begun, and for what begins meanwhile; what is kept open between requests ends by itself once
    /// the node leaves.
    async fn all_answered(&self) {
        // The sender is never dropped before.
        let _ = self.answering.subscribe().wait_for(|count| *count == 0).await;
    }

    async fn serve(self: &Rc<Self>, stream: TcpStream, answering: Option<Answering>) {
        // Without it small messages wait for the acknowledgement of earlier ones.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        match &self.gate.node.tls {
            // hyper's own timer is enough.
            None => self.answer(stream, answering, std::future::pending()).await,
            // Apart, as it is several times as large: plain connections would leave a heap of holes behind.
            Some(tls) => Box::pin(self.answer_encrypted(tls, stream, answering)).await,
        }
    }

    /// The handshake and the head of the first request have one time for both. Who has begun a handshake waits for an
    /// answer, as if the request had come already.
    async fn answer_encrypted(self: &Rc<Self>, tls: &Tls, stream: TcpStream, answering: Option<Answering>) {
        let mut time_is_up = pin!(sleep(self.gate.node.settings.admission.request_header_timeout));
        let handshake = async {
            // Whoever reads will find the error too.
            let _ = stream.peek(&mut [0]).await;
            let answering = answering.unwrap_or_else(|| Answering::new(self));
            let (outcome, stream) = tls::shake_hands(tls, stream).await;
            (outcome, stream.map(|stream| (stream, answering)))
        };
        let (outcome, shaken) = tokio::select! {
            biased;
            shaken = handshake => shaken,
            () = time_is_up.as_mut() => (Handshake::TimedOut, None),
        };
        self.gate.node.counters[self.gate.shard].handshakes[outcome as usize].add(1);
        if let Some((stream, answering)) = shaken {
            self.answer(stream, Some(answering), time_is_up).await;
        }
    }

    /// Answers requests until one asks for a connection that stays; then takes the socket back from hyper, with
    /// whatever was read too far, and gives it to the shard. If there is no request when the time is up, there will
    /// be none.
    async fn answer(
        self: &Rc<Self>,
        stream: impl Stream,
        answering: Option<Answering>,
        time_is_up: impl Future<Output = ()>,
    ) {
        let gate = &self.gate;
        let stays = Rc::new(RefCell::new(None));
        let answering = RefCell::new(answering);
        let is_asked = Cell::new(false);
        let one_per_poll = OnePerPoll::default();
        let service = service_fn(|request: Request<Incoming>| {
            is_asked.set(true);
            answering.borrow_mut().get_or_insert_with(|| Answering::new(self));
            let (gate, stays, one_per_poll) = (gate.clone(), stays.clone(), &one_per_poll);
            Box::pin(async move {
                one_per_poll.pass().await;
                match http::route(&gate, request).await {
                    Outcome::Response(mut response) => {
                        if self.wants_to_close() {
                            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                        }
                        Ok::<Response<Full<Bytes>>, Infallible>(response)
                    }
                    Outcome::Stay(stay) => {
                        *stays.borrow_mut() = Some(stay);
                        // hyper is to write nothing more.
                        std::future::pending().await
                    }
                }
            })
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Who sends no more after a request still reads its answer.
            .half_close(true)
            .header_read_timeout(gate.node.settings.admission.request_header_timeout)
            .max_header_size(REQUEST_HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut time_is_up = pin!(time_is_up);
        let mut phase = self.phase.clone();
        let mut leaving = pin!(phase.wait_for(|phase| *phase >= Phase::Leaving));
        let mut is_leaving = false;
        std::future::poll_fn(|context| {
            if !is_leaving && leaving.as_mut().poll(context).is_ready() {
                is_leaving = true;
                // One that has not been served yet still is, once.
                if is_asked.get() {
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
            one_per_poll.begin();
            // Errors are the peer's: a request that could not be read, or a connection cut.
            let served = connection.poll_without_shutdown(context).map(|_| ());
            let is_over =
                stays.borrow().is_some() || !is_asked.get() && time_is_up.as_mut().poll(context).is_ready();
            if is_over { Poll::Ready(()) } else { served }
        })
        .await;
        let parts = connection.into_parts();
        let stream = parts.io.into_inner();
        let Some(Stay { head, purpose, arrival }) = stays.take() else { return stream.end().await };
        let (socket, session) = stream.into_parts();
        match socket.into_std() {
            Ok(socket) => {
                gate.adopt(Adopted { socket, session, head, early: parts.read_buf, purpose, arrival })
            }
            Err(error) => tracing::debug!(%error, "a socket could not be taken back"),
        }
    }

    /// Callers keep their connections between calls: in half of the permits, or clients could not get in, and not
    /// with a node that goes down.
    fn wants_to_close(&self) -> bool {
        let permits_free_min = self.connections_max.div_ceil(2);
        self.gate.node.is_draining() || self.permits.available_permits() < permits_free_min
    }
}
