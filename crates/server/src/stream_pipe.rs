//! The bytes of one HTTP/2 stream between the shard that has the client and the connection that carries the stream. Both
//! are in one thread. To the shard it is a socket: what it holds is bounded, and readiness tells of its changes.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::Instant;

/// Bytes for the peer that the connection has not taken; what goes beyond waits in the client's queue, where it counts.
/// As long as the longest DATA frame.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the peer that the shard has not taken.
const INPUT_BYTES_MAX: usize = 16 * 1024;

/// Returns the two ends of a pipe.
pub(crate) fn pipe() -> (ShardEnd, CarrierEnd) {
    let pipe = Rc::<RefCell<Pipe>>::default();
    (ShardEnd(pipe.clone()), CarrierEnd(pipe))
}

#[derive(Debug, Default)]
struct Pipe {
    output: Vec<u8>,
    output_is_over: bool,
    /// The shard has more than there was room for.
    has_refused: bool,
    input: Vec<u8>,
    input_is_over: bool,
    /// The connection dropped its end.
    carrier_is_gone: bool,
    /// The shard dropped its end then.
    shard_left: Option<Instant>,
    /// The place that the shard knows the stream by.
    watched: Option<(u32, Rc<PipeEvents>)>,
    /// Those who wait for output, for room in the input, and for the shard to leave.
    wakers: [Option<Waker>; 3],
}

#[derive(Clone, Copy)]
enum Wait {
    Output,
    Room,
    Leave,
}

impl Pipe {
    fn wait<T>(&mut self, wait: Wait, context: &Context<'_>) -> Poll<T> {
        let waker = &mut self.wakers[wait as usize];
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    fn wake(&mut self, wait: Wait) {
        if let Some(waker) = self.wakers[wait as usize].take() {
            waker.wake();
        }
    }

    fn tell(&self, readable: bool, writable: bool) {
        if let Some((slot, events)) = &self.watched {
            events.tell(PipeEvent { slot: *slot, readable, writable, read_closed: self.carrier_is_gone });
        }
    }
}

/// A change of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PipeEvent {
    pub slot: u32,
    pub readable: bool,
    pub writable: bool,
    /// The peer sends no more.
    pub read_closed: bool,
}

/// The changes of a shard's streams that it has not looked at.
#[derive(Debug, Default)]
pub(crate) struct PipeEvents {
    list: RefCell<Vec<PipeEvent>>,
    waker: RefCell<Option<Waker>>,
}

impl PipeEvents {
    fn tell(&self, event: PipeEvent) {
        self.list.borrow_mut().push(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn take(&self) -> Vec<PipeEvent> {
        self.list.take()
    }

    /// Is ready while there are changes.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if !self.list.borrow().is_empty() {
            return Poll::Ready(());
        }
        self.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}

/// The shard's end.
#[derive(Debug)]
pub(crate) struct ShardEnd(Rc<RefCell<Pipe>>);

/// The result of a read from a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PipeInput {
    Bytes(usize),
    Over,
}

impl ShardEnd {
    /// Tells of changes under this slot from here on.
    pub(crate) fn watch(&self, slot: u32, events: Rc<PipeEvents>) {
        let mut pipe = self.0.borrow_mut();
        pipe.watched = Some((slot, events));
        if pipe.carrier_is_gone || pipe.input_is_over || !pipe.input.is_empty() {
            pipe.tell(true, false);
        }
    }

    pub(crate) fn unwatch(&self) {
        self.0.borrow_mut().watched = None;
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> PipeInput {
        let mut pipe = self.0.borrow_mut();
        let count = pipe.input.len().min(buffer.len());
        if count == 0 && (pipe.input_is_over || pipe.carrier_is_gone) {
            return PipeInput::Over;
        }
        buffer[..count].copy_from_slice(&pipe.input[..count]);
        if count == pipe.input.len() {
            // An idle stream holds no buffer.
            pipe.input = Vec::new();
        } else {
            pipe.input.drain(..count);
        }
        pipe.wake(Wait::Room);
        PipeInput::Bytes(count)
    }

    /// Takes as many bytes as there is room for. If that is none, the stream tells when there is some.
    pub(crate) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        if pipe.carrier_is_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut room = OUTPUT_BYTES_MAX.saturating_sub(pipe.output.len());
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        let taken = room.min(wanted);
        pipe.output.reserve_exact(taken);
        for slice in slices {
            let part = &slice[..slice.len().min(room)];
            pipe.output.extend_from_slice(part);
            room -= part.len();
        }
        if taken > 0 {
            pipe.wake(Wait::Output);
        } else {
            pipe.has_refused = true;
        }
        Ok(taken)
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&self) {
        let mut pipe = self.0.borrow_mut();
        pipe.output_is_over = true;
        pipe.wake(Wait::Output);
    }
}

impl Drop for ShardEnd {
    fn drop(&mut self) {
        let mut pipe = self.0.borrow_mut();
        pipe.output_is_over = true;
        pipe.shard_left = Some(Instant::now());
        (pipe.watched, pipe.input) = (None, Vec::new());
        for wait in [Wait::Output, Wait::Room, Wait::Leave] {
            pipe.wake(wait);
        }
    }
}

/// The connection's end.
#[derive(Debug)]
pub(crate) struct CarrierEnd(Rc<RefCell<Pipe>>);

impl CarrierEnd {
    /// Returns what the shard has written, or `None` at its end.
    pub(crate) fn poll_output(&self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut pipe = self.0.borrow_mut();
        if pipe.output.is_empty() {
            return if pipe.output_is_over { Poll::Ready(None) } else { pipe.wait(Wait::Output, context) };
        }
        let output = std::mem::take(&mut pipe.output);
        if std::mem::take(&mut pipe.has_refused) {
            pipe.tell(false, true);
        }
        Poll::Ready(Some(output.into()))
    }

    /// Returns the head of the response, which the shard writes before anything else, or `None` if there will be none.
    pub(crate) fn poll_head(&self, context: &Context<'_>) -> Poll<Option<Vec<u8>>> {
        const END: &[u8] = b"\r\n\r\n";
        let mut pipe = self.0.borrow_mut();
        match memchr::memmem::find(&pipe.output, END) {
            Some(at) => {
                let behind = pipe.output.split_off(at + END.len());
                let head = std::mem::replace(&mut pipe.output, behind);
                Poll::Ready(Some(head))
            }
            None if pipe.output_is_over || pipe.output.len() >= OUTPUT_BYTES_MAX => Poll::Ready(None),
            None => pipe.wait(Wait::Output, context),
        }
    }

    /// Returns the number of bytes that the shard takes, or `None` once it takes no more.
    pub(crate) fn poll_room(&self, context: &Context<'_>) -> Poll<Option<usize>> {
        let mut pipe = self.0.borrow_mut();
        if pipe.shard_left.is_some() {
            return Poll::Ready(None);
        }
        match INPUT_BYTES_MAX.saturating_sub(pipe.input.len()) {
            0 => pipe.wait(Wait::Room, context),
            room => Poll::Ready(Some(room)),
        }
    }

    /// Gives the shard bytes of the peer, for which there has to be room.
    pub(crate) fn give(&self, bytes: &[u8]) {
        let mut pipe = self.0.borrow_mut();
        let was_empty = pipe.input.is_empty();
        pipe.input.extend_from_slice(bytes);
        if was_empty {
            pipe.tell(true, false);
        }
    }

    /// Says that the peer sends no more.
    pub(crate) fn end_input(&self) {
        let mut pipe = self.0.borrow_mut();
        pipe.input_is_over = true;
        pipe.tell(true, false);
    }

    pub(crate) fn shard(&self) -> ShardPresence {
        ShardPresence(self.0.clone())
    }
}

impl Drop for CarrierEnd {
    fn drop(&mut self) {
        let mut pipe = self.0.borrow_mut();
        pipe.carrier_is_gone = true;
        pipe.output = Vec::new();
        pipe.tell(true, true);
    }
}

/// Tells whether the shard still has its end.
#[derive(Debug)]
pub(crate) struct ShardPresence(Rc<RefCell<Pipe>>);

impl ShardPresence {
    /// Returns the time at which the shard left, or `None` and wakes the task once it does.
    pub(crate) fn left(&self, context: &Context<'_>) -> Option<Instant> {
        let mut pipe = self.0.borrow_mut();
        if pipe.shard_left.is_none() {
            let _: Poll<()> = pipe.wait(Wait::Leave, context);
        }
        pipe.shard_left
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    struct Test {
        wakes: Arc<Wakes>,
        waker: Waker,
        events: Rc<PipeEvents>,
    }

    impl Test {
        fn new(shard: &ShardEnd) -> Self {
            let wakes = Arc::<Wakes>::default();
            let events = Rc::<PipeEvents>::default();
            shard.watch(7, events.clone());
            Self { waker: wakes.clone().into(), wakes, events }
        }

        fn context(&self) -> Context<'_> {
            Context::from_waker(&self.waker)
        }

        fn told(&self) -> Vec<(bool, bool, bool)> {
            let events = self.events.take().into_iter();
            events.map(|event| (event.readable, event.writable, event.read_closed)).collect()
        }
    }

    fn write(shard: &ShardEnd, bytes: &[u8]) -> io::Result<usize> {
        shard.write(&[IoSlice::new(bytes)])
    }

    #[test]
    fn output_is_bounded_and_room_is_told_once_it_was_missed() {
        let (shard, carrier) = pipe();
        let test = Test::new(&shard);
        assert!(carrier.poll_output(&test.context()).is_pending());
        assert_eq!(write(&shard, &[1; OUTPUT_BYTES_MAX + 1]).unwrap(), OUTPUT_BYTES_MAX);
        assert_eq!(test.wakes.0.load(Relaxed), 1);
        let Poll::Ready(Some(output)) = carrier.poll_output(&test.context()) else { panic!("nothing came") };
        assert_eq!((output.len(), test.told().len()), (OUTPUT_BYTES_MAX, 0), "nothing was refused");
        write(&shard, &[2; OUTPUT_BYTES_MAX]).unwrap();
        assert_eq!(write(&shard, &[3]).unwrap(), 0);
        assert!(carrier.poll_output(&test.context()).is_ready());
        assert_eq!(test.told(), [(false, true, false)]);
        shard.finish();
        assert_eq!(carrier.poll_output(&test.context()), Poll::Ready(None));
        drop(carrier);
        assert_eq!(test.told(), [(true, true, true)]);
        assert!(write(&shard, &[4]).is_err());
        assert_eq!(shard.read(&mut [0; 1]), PipeInput::Over);
    }

    #[test]
    fn input_is_bounded_and_told() {
        let (shard, carrier) = pipe();
        let test = Test::new(&shard);
        assert_eq!(carrier.poll_room(&test.context()), Poll::Ready(Some(INPUT_BYTES_MAX)));
        carrier.give(&[1; INPUT_BYTES_MAX]);
        assert_eq!(test.told(), [(true, false, false)]);
        assert!(carrier.poll_room(&test.context()).is_pending());
        let mut buffer = [0; 100];
        assert_eq!(shard.read(&mut buffer), PipeInput::Bytes(100));
        assert_eq!(test.wakes.0.load(Relaxed), 1);
        assert_eq!(carrier.poll_room(&test.context()), Poll::Ready(Some(100)));
        carrier.end_input();
        let mut rest = vec![0; INPUT_BYTES_MAX];
        assert_eq!(shard.read(&mut rest), PipeInput::Bytes(INPUT_BYTES_MAX - 100));
        assert_eq!(shard.read(&mut rest), PipeInput::Over);
        drop(shard);
        assert_eq!(carrier.poll_room(&test.context()), Poll::Ready(None));
    }

    #[test]
    fn the_head_comes_first_and_what_is_left_goes_out() {
        let (shard, carrier) = pipe();
        let test = Test::new(&shard);
        let presence = carrier.shard();
        write(&shard, b"HTTP/1.1 200 OK\r\n").unwrap();
        assert!(carrier.poll_head(&test.context()).is_pending());
        write(&shard, b"\r\nbody").unwrap();
        let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        assert_eq!(carrier.poll_head(&test.context()), Poll::Ready(Some(head)));
        assert_eq!(presence.left(&test.context()), None);
        drop(shard);
        assert!(presence.left(&test.context()).is_some());
        assert_eq!(carrier.poll_output(&test.context()), Poll::Ready(Some("body".into())));
        assert_eq!(carrier.poll_output(&test.context()), Poll::Ready(None));
        assert_eq!(carrier.poll_head(&test.context()), Poll::Ready(None));
    }
}
