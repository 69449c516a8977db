//! The deadlines of one HTTP connection, and the side that each step waits for.
//!
//! All bytes pass through a [`super::Watched`] stream. A read that finds nothing waits for the peer's request, and a write that the
//! kernel does not take waits for the peer to read.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::header::{CONNECTION, HeaderName, HeaderValue};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, timeout_at};

use super::{ClientNetwork, ConnectionGroup, HttpConnection, Port, Reason, StreamWatch};
use crate::accept::request_framing::RequestFraming;
use crate::response::{HttpResponse, later};

/// The time that a peer has for each step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// From the first byte of a request to the end of its head; for the first request, from accept.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// The same after a call of the API.
    pub idle_api: Duration,
    /// Until the peer takes some of its answer.
    pub write: Duration,
}

/// The first event of a fresh connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstByte {
    Came,
    /// The peer left.
    Left,
    TimedOut,
}

/// Waits until a peer has sent something.
pub(crate) async fn first_byte(
    stream: &TcpStream,
    connection: &HttpConnection,
    deadline: Instant,
) -> FirstByte {
    match timeout_at(deadline, stream.peek(&mut [0])).await {
        Ok(Ok(1..)) => FirstByte::Came,
        Ok(_) => FirstByte::Left,
        Err(_) => {
            connection.dropped(Reason::HeadTimeout);
            FirstByte::TimedOut
        }
    }
}

/// The response to a request that was not admitted to its group.
pub(crate) fn refusal(group: ConnectionGroup, port: Port) -> HttpResponse {
    let setting = group.reason().setting(port);
    let why = match group {
        ConnectionGroup::Post => "is reached, or this address has as many as are left for others",
        _ => "is reached",
    };
    later(format!("{setting} {why}."))
}

/// A handle on the watch over one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<Mutex<WatchState>>);

#[derive(Debug)]
struct WatchState {
    connection: Arc<HttpConnection>,
    times: Times,
    phase: HttpPhase,
    group: ConnectionGroup,
    /// The time since which the peer has taken nothing.
    blocked_since: Option<Instant>,
    /// A request waits until the peer has taken the answers before it.
    is_held: bool,
    /// The last read found nothing.
    is_drained: bool,
    framing: RequestFraming,
    /// Requests that were begun.
    requests: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpPhase {
    /// A request head is being read.
    Head { until: Instant },
    /// A request is being answered.
    Work,
    /// The next request is awaited.
    Idle { until: Instant },
}

impl Watch {
    /// Watches a connection whose first request head has a deadline.
    pub(crate) fn new(connection: Arc<HttpConnection>, times: Times, head_until: Instant) -> Self {
        let phase = HttpPhase::Head { until: head_until };
        let state = WatchState {
            connection,
            times,
            phase,
            group: ConnectionGroup::Request,
            blocked_since: None,
            is_held: false,
            is_drained: false,
            framing: RequestFraming::default(),
            requests: 0,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Notes that a request has come. Returns false if its head had both `Content-Length` and `Transfer-Encoding`.
    pub(crate) fn begun(&self) -> bool {
        let mut state = self.state();
        state.requests += 1;
        state.framing.ambiguous() != Some(state.requests)
    }

    /// Notes the client of a request; see [`HttpConnection::asks_for`].
    pub(crate) fn asks_for(&self, of: impl FnOnce(IpAddr) -> IpAddr) {
        self.state().connection.asks_for(of);
    }

    /// Returns the client that the connection counts for.
    pub(crate) fn network(&self) -> ClientNetwork {
        self.state().connection.network()
    }

    /// Notes that a whole request head is there, and with `has_body` that a body follows. Returns false if its group has
    /// too many requests in progress.
    pub(crate) fn asked(&self, group: ConnectionGroup, has_body: bool) -> bool {
        let mut state = self.state();
        state.phase = HttpPhase::Work;
        if !state.connection.work(group) {
            return false;
        }
        state.group = group;
        if has_body && state.is_drained {
            // hyper has looked for the body before, and does not look again until something comes.
            state.connection.waits_for_peer(true);
        }
        true
    }

    /// The response to a request that was not admitted.
    pub(crate) fn refusal(&self, group: ConnectionGroup) -> HttpResponse {
        refusal(group, self.state().connection.connections().port)
    }

    /// Notes that a request is answered, and tells the peer how long the connection is kept.
    pub(crate) fn answered(&self, response: &mut HttpResponse, wants_to_close: bool) {
        const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
        let mut state = self.state();
        let idle = if state.group == ConnectionGroup::Api { state.times.idle_api } else { state.times.idle };
        state.phase = HttpPhase::Idle { until: Instant::now() + idle };
        state.connection.renew();
        if wants_to_close || state.connection.connections().is_half_full(state.group) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if !response.headers().contains_key(CONNECTION) {
            let timeout = format!("timeout={}", idle.as_secs());
            response.headers_mut().extend(HeaderValue::try_from(timeout).map(|value| (KEEP_ALIVE, value)));
        }
    }

    /// Waits until the peer has taken the earlier answers, which are all in memory.
    pub(crate) async fn written(&self) {
        std::future::poll_fn(|_| {
            let mut state = self.state();
            state.is_held = state.blocked_since.is_some();
            // The task is woken when the socket takes more, and then everything in it is polled.
            if state.is_held { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Is ready once the peer's time is over, and counts that. Poll it after the connection.
    pub(crate) fn poll_expired(&self, context: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<()> {
        let Some((deadline, reason)) = self.state().deadline() else { return Poll::Pending };
        // A later deadline is looked at when the earlier one has passed: no timer is set for each request.
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                if let Some(reason) = reason {
                    self.state().connection.dropped(reason);
                }
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamWatch for Watch {
    fn may_read(&self, _context: &Context<'_>) -> bool {
        // A request read behind an answer that the peer does not take would become another such answer.
        let mut state = self.state();
        state.is_held |= state.blocked_since.is_some();
        state.blocked_since.is_none()
    }

    fn read(&self, bytes: Option<&[u8]>) {
        let mut state = self.state();
        state.is_drained = bytes.is_none();
        match bytes {
            None => state.connection.waits_for_peer(true),
            Some(bytes) => {
                state.framing.read(bytes);
                if !bytes.is_empty()
                    && let HttpPhase::Idle { .. } = state.phase
                {
                    state.phase = HttpPhase::Head { until: Instant::now() + state.times.head };
                    state.connection.renew();
                }
                state.connection.waits_for_peer(false);
            }
        }
    }

    fn wrote(&self, context: &Context<'_>, is_taken: bool) {
        let mut state = self.state();
        if !is_taken {
            state.blocked_since.get_or_insert_with(Instant::now);
            state.connection.waits_for_peer(true);
        } else if state.blocked_since.take().is_some() {
            state.connection.waits_for_peer(false);
            if std::mem::take(&mut state.is_held) {
                context.waker().wake_by_ref();
            }
        }
    }
}

impl WatchState {
    /// The end of the peer's time, and the reason to count.
    fn deadline(&self) -> Option<(Instant, Option<Reason>)> {
        let blocked = self.blocked_since.map(|since| (since + self.times.write, Some(Reason::WriteTimeout)));
        let phase = match self.phase {
            // A peer that does not read is not waited for to send.
            _ if blocked.is_some() => None,
            HttpPhase::Head { until } => Some((until, Some(Reason::HeadTimeout))),
            HttpPhase::Idle { until } => Some((until, None)),
            HttpPhase::Work => None,
        };
        blocked.or(phase)
    }
}
