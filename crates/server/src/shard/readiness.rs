//! The shard's own readiness set: every socket is in it, and tokio watches the set as one descriptor. Streams of HTTP/2,
//! which have none, are beside it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll as Progress;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use tokio::io::Interest as TokioInterest;
use tokio::io::unix::AsyncFd;

use super::socket::{Socket, Source};
use crate::stream_pipe::{PipeEvent, PipeEvents};

pub(super) struct Readiness {
    set: AsyncFd<Poll>,
    events: Events,
    streams: Rc<PipeEvents>,
    sockets: usize,
}

/// The events of one socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) slot: u32,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer sends no more; no further event will say so.
    pub(super) read_closed: bool,
}

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

impl Readiness {
    pub(super) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        // SAFETY: `register` asks that the descriptor stays open and the same for as long as it is registered.
        // `Poll` owns its descriptor, never replaces it, and is owned by the `AsyncFd`, which deregisters before
        // it drops what it owns.
        #[expect(unsafe_code, reason = "the one argued block: see architecture.md, a shard's loop")]
        let set = unsafe { AsyncFd::register_with_interest(poll, TokioInterest::READABLE) }?;
        Ok(Self { set, events: Events::with_capacity(EVENTS), streams: Rc::default(), sockets: 0 })
    }

    /// Watches a socket for input and, since the set reports only changes, for room to write without more cost.
    pub(super) fn add(&mut self, socket: &mut Socket, slot: u32) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match socket.source() {
            Some(Source::Socket(socket)) => {
                self.set.get_ref().registry().register(socket, Token(slot as usize), interest)?;
                self.sockets += 1;
                Ok(())
            }
            Some(Source::Stream(stream)) => {
                stream.watch(slot, self.streams.clone());
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn remove(&mut self, socket: &mut Socket) {
        match socket.source() {
            // Closing the socket takes it out of the set in any case.
            Some(Source::Socket(socket)) => {
                drop(self.set.get_ref().registry().deregister(socket));
                self.sockets -= 1;
            }
            Some(Source::Stream(stream)) => stream.unwatch(),
            None => {}
        }
    }

    /// Returns the number of sockets that are watched, each of which is an open file.
    pub(super) fn sockets(&self) -> usize {
        self.sockets
    }

    /// Waits until some socket is ready; safe to cancel.
    pub(super) async fn wait(&self) {
        let mut readable = pin!(self.set.readable());
        let ready = poll_fn(|context| {
            if self.streams.poll(context).is_ready() {
                return Progress::Ready(Ok(()));
            }
            readable.as_mut().poll(context).map(|readable| readable.map(drop))
        });
        if let Err(error) = ready.await {
            // The runtime shuts down, and the shard with it.
            tracing::debug!(%error, "the readiness set is no longer watched");
            std::future::pending::<()>().await;
        }
    }

    /// Takes what happened, without waiting. The set is polled until it returns less than it could: only then
    /// is it certain that a further event will wake the shard again.
    pub(super) fn take(&mut self, ready: &mut Vec<Ready>) {
        ready.extend(self.streams.take().into_iter().map(Ready::from));
        loop {
            let events = &mut self.events;
            let polled = self.set.try_io_mut(TokioInterest::READABLE, |poll| {
                poll.poll(events, Some(Duration::ZERO))?;
                if events.iter().count() < EVENTS { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            let is_drained = match polled {
                Ok(()) => false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the readiness set cannot be polled");
                    true
                }
            };
            ready.extend(self.events.iter().map(|event| Ready {
                slot: event.token().0 as u32,
                readable: event.is_readable() || event.is_error(),
                writable: event.is_writable(),
                read_closed: event.is_read_closed() || event.is_error(),
            }));
            self.events.clear();
            if is_drained {
                return;
            }
        }
    }
}

impl From<PipeEvent> for Ready {
    fn from(event: PipeEvent) -> Self {
        let PipeEvent { slot, readable, writable, read_closed } = event;
        Self { slot, readable, writable, read_closed }
    }
}
