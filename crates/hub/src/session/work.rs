//! The work of a session: what waits for an answer, and the requests behind it.

use std::collections::VecDeque;
use std::sync::Arc;

use fanwire_protocol::request::Request;

use super::asking::{Asking, Place, Questions};
use super::connect::Connecting;
use super::prepare::Prepared;
use super::rate::Bucket;
use super::subscribe::Subscribing;
use crate::kept::Kept;

/// The state that only a busy session has; an idle one keeps nothing of it.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// The beginning of the connection, while it is being checked.
    pub(super) prepared: Option<Box<Prepared>>,
    pub(super) connecting: Option<Connecting>,
    /// Requests that came before the connect reply.
    pub(super) queued: VecDeque<Request>,
    pub(super) subscribing: Vec<Subscribing>,
    pub(super) asking: Option<Box<Questions>>,
    /// Questions that hooks were asked: the number of the last.
    pub(super) questions: u32,
    /// What hooks are sent of the client beside its requests. A session that has any is never without work.
    pub(super) kept: Option<Arc<Kept>>,
    /// Bytes of the requests that wait here.
    pub(super) waiting_bytes: usize,
    /// Set while the client has made many requests lately.
    pub(super) bucket: Option<Bucket>,
}

// Every idle connection of which something is kept has it.
const _: () = assert!(size_of::<Work>() <= 152);

impl Work {
    /// Lets requests wait for what is at the place.
    pub(super) fn wait(&mut self, place: Place, requests: impl IntoIterator<Item = Request>) {
        let waiting = match place {
            Place::Subscribing(place) => Some(&mut self.subscribing[place].waiting),
            Place::Asking(place) => self.asking.as_mut().map(|asking| &mut asking.0[place].waiting),
        };
        let Some(waiting) = waiting else { return };
        for request in requests {
            self.waiting_bytes += request.bytes();
            waiting.push_back(request);
        }
    }

    pub(super) fn asking(&self) -> &[Asking] {
        self.asking.as_ref().map_or(&[], |asking| &asking.0)
    }

    /// Takes requests out of those that wait.
    pub(super) fn release(&mut self, waiting: &VecDeque<Request>) {
        let bytes: usize = waiting.iter().map(Request::bytes).sum();
        self.waiting_bytes -= bytes;
    }

    pub(super) fn waiting(&self) -> usize {
        let asking = self.asking().iter().map(|asking| asking.waiting.len());
        self.queued.len()
            + self.subscribing.iter().map(|s| s.waiting.len()).sum::<usize>()
            + asking.sum::<usize>()
    }

    /// Frees the room of requests that have been answered, in a session that goes on to have work: it may keep something
    /// for as long as its client stays.
    pub(super) fn give_room_back(&mut self) {
        if self.subscribing.is_empty() && self.queued.is_empty() {
            (self.subscribing, self.queued) = (Vec::new(), VecDeque::new());
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.prepared.is_none()
            && self.connecting.is_none()
            && self.queued.is_empty()
            && self.subscribing.is_empty()
            && self.asking.is_none()
            && self.kept.is_none()
            && self.bucket.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_once_nothing_waits_in_it() {
        let mut work = Work {
            subscribing: Vec::with_capacity(4),
            queued: VecDeque::with_capacity(4),
            ..Work::default()
        };
        work.queued.push_back(Request { id: 1, ask: fanwire_protocol::request::Ask::Ping });
        work.give_room_back();
        assert_eq!(work.queued.len(), 1);
        work.queued.clear();
        work.give_room_back();
        assert_eq!((work.subscribing.capacity(), work.queued.capacity()), (0, 0));
    }
}
