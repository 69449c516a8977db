//! The shard's own readiness set: every socket is in it, and tokio watches the set as one descriptor.

use std::io;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use tokio::io::Interest as TokioInterest;
use tokio::io::unix::AsyncFd;

pub(super) struct Readiness {
    set: AsyncFd<Poll>,
    events: Events,
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
        Ok(Self { set, events: Events::with_capacity(EVENTS) })
    }

    /// Watches a socket for input and, since the set reports only changes, for room to write without more cost.
    pub(super) fn add(&mut self, socket: &mut TcpStream, slot: u32) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.set.get_ref().registry().register(socket, Token(slot as usize), interest)
    }

    pub(super) fn remove(&mut self, socket: &mut TcpStream) {
        // Closing the socket takes it out of the set in any case.
        let _ = self.set.get_ref().registry().deregister(socket);
    }

    /// Waits until some socket is ready; safe to cancel.
    pub(super) async fn wait(&self) {
        if let Err(error) = self.set.readable().await {
            // The runtime shuts down, and the shard with it.
            tracing::debug!(%error, "the readiness set is no longer watched");
            std::future::pending::<()>().await;
        }
    }

    /// Takes what happened, without waiting. The set is polled until it returns less than it could: only then
    /// is it certain that a further event will wake the shard again.
    pub(super) fn take(&mut self, ready: &mut Vec<Ready>) {
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
