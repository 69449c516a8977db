//! The deadlines of one HTTP/2 connection, and the side that it waits for. As in HTTP/1, a peer has a time for its first
//! request, for the next one while it has none, and to take what it was sent.

use std::cell::Cell;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::FAREWELL_TIME;
use crate::accept::admission::{ConnectionGroup, HttpConnection, Reason, StreamWatch, Times};

/// The interval between two looks at a connection without a deadline.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(in crate::accept) struct Http2Watch {
    connection: Arc<HttpConnection>,
    times: Times,
    /// Requests that are not answered to the end, and clients.
    streams: Cell<usize>,
    clients: Cell<usize>,
    /// The time at which a connection without streams is too old, and what is then to be counted.
    idle_until: Cell<(Instant, Option<Reason>)>,
    /// The time since which the peer has taken nothing.
    blocked_since: Cell<Option<Instant>>,
    /// The peer is told that this is the end.
    is_ending: Cell<bool>,
    /// One read is left in this poll, so that frames which cost their sender little do not hold up others.
    may_read: Cell<bool>,
}

/// The consequence of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// The peer is to be told to go.
    Idle,
    /// It is dropped.
    Over,
}

impl Http2Watch {
    /// Watches a connection whose first request has a deadline.
    pub(in crate::accept) fn new(
        connection: Arc<HttpConnection>,
        times: Times,
        head_until: Instant,
    ) -> Rc<Self> {
        Rc::new(Self {
            connection,
            times,
            streams: Cell::new(0),
            clients: Cell::new(0),
            idle_until: Cell::new((head_until, Some(Reason::HeadTimeout))),
            blocked_since: Cell::new(None),
            is_ending: Cell::new(false),
            may_read: Cell::new(true),
        })
    }

    pub(super) fn write_time(&self) -> Duration {
        self.times.write
    }

    /// Notes a request.
    pub(super) fn begin_stream(&self) {
        self.streams.set(self.streams.get() + 1);
        self.connection.waits_for_peer(false);
    }

    /// Finds room for a request in its group; see [`HttpConnection::request`].
    pub(super) fn admit(
        &self,
        group: ConnectionGroup,
        client_of: impl FnOnce(IpAddr) -> IpAddr,
    ) -> Option<HttpConnection> {
        self.connection.request(group, client_of)
    }

    /// Notes that a stream has become a client.
    pub(super) fn begin_client(&self) {
        self.clients.set(self.clients.get() + 1);
        self.connection.carries_clients(true);
    }

    /// Notes the end of a stream.
    pub(super) fn end_stream(&self, was_client: bool) {
        self.streams.set(self.streams.get() - 1);
        if was_client {
            self.clients.set(self.clients.get() - 1);
            self.connection.carries_clients(self.clients.get() > 0);
        }
        if self.streams.get() == 0 {
            let idle = if self.is_ending.get() { FAREWELL_TIME } else { self.times.idle };
            self.idle_until.set((Instant::now() + idle, None));
            self.connection.renew();
            self.connection.waits_for_peer(true);
        }
    }

    /// Notes that the node leaves: a connection without streams has nothing to wait for.
    pub(super) fn leave(&self) {
        self.is_ending.set(true);
        let (until, _) = self.idle_until.get();
        self.idle_until.set((until.min(Instant::now() + FAREWELL_TIME), None));
    }

    pub(super) fn begin_poll(&self) {
        self.may_read.set(true);
    }

    fn deadline(&self) -> Option<(Instant, Option<Reason>)> {
        match self.blocked_since.get() {
            Some(since) => Some((since + self.times.write, Some(Reason::WriteTimeout))),
            None => (self.streams.get() == 0).then(|| self.idle_until.get()),
        }
    }

    /// Is ready once the peer's time is over, and counts that. Poll it after the connection.
    pub(super) fn poll_expired(&self, context: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<Expiry> {
        if self.streams.get() == 0 {
            self.connection.waits_for_peer(true);
        }
        loop {
            let now = Instant::now();
            let deadline = self.deadline();
            if let Some((until, reason)) = deadline
                && now >= until
            {
                let is_told = self.is_ending.replace(true);
                if let Some(reason) = reason {
                    self.connection.dropped(reason);
                }
                if is_told || self.blocked_since.get().is_some() {
                    return Poll::Ready(Expiry::Over);
                }
                self.idle_until.set((now + FAREWELL_TIME, None));
                return Poll::Ready(Expiry::Idle);
            }
            // A later deadline is looked at when the earlier one has passed: no timer is set for each request.
            let look = deadline.map_or(now + LOOK_INTERVAL, |(until, _)| until);
            if look < sleep.deadline() || sleep.is_elapsed() {
                sleep.as_mut().reset(look);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl StreamWatch for Rc<Http2Watch> {
    fn may_read(&self, context: &Context<'_>) -> bool {
        let may_read = self.may_read.replace(false);
        if !may_read {
            context.waker().wake_by_ref();
        }
        may_read
    }

    fn read(&self, _bytes: Option<&[u8]>) {}

    fn wrote(&self, _context: &Context<'_>, is_taken: bool) {
        let since = self.blocked_since.get();
        self.blocked_since.set(if is_taken { None } else { since.or_else(|| Some(Instant::now())) });
    }
}
