//! The polls of a client that has no connection of its own: which answer each gets, which of them waits, and how long the session
//! lasts between two.
//!
//! Answers that bring something are numbered, and a poll names the last that its client received. So one that is lost on its way
//! is given again, and one that is repeated on its way brings nothing twice.

use bytes::Bytes;

/// The polls of one client. `W` is the place where one waits.
#[derive(Debug)]
pub struct Polls<W> {
    /// The number of the last answer that brought something; 0 before the first.
    number: u32,
    /// That answer.
    kept: Kept,
    /// The last answer of the session, if it comes behind one that may not have arrived.
    last: Option<Bytes>,
    waiting: Option<WaitingPoll<W>>,
    /// The end of the session if no poll comes before.
    ends_at: u64,
}

/// The last answer that brought something, as long as no poll has said that it was received.
#[derive(Debug)]
enum Kept {
    /// There is none, or it was received.
    Nothing,
    Answer(Bytes),
    /// It is not kept, though it may not have been received.
    GivenUp,
}

#[derive(Debug)]
struct WaitingPoll<W> {
    place: W,
    /// The time at which it is answered in any case.
    until: u64,
}

/// The consequence of a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// All that was answered has arrived: what waits now is next.
    Next,
    /// The last answer has not arrived. This is it.
    Again(Bytes),
    /// The last answer has not arrived, and was not kept.
    Lost,
    /// The client speaks of an answer that it cannot have.
    Unknown,
}

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due<W> {
    Nothing,
    /// The poll that waits here is to be answered, with nothing if there is nothing.
    Answer(W),
    /// The client has not polled for too long.
    End,
}

const NEVER: u64 = u64::MAX;

impl<W: PartialEq> Polls<W> {
    /// `ends_at` is the end of the session if no poll comes before.
    pub fn new(ends_at: u64) -> Self {
        Self { number: 0, kept: Kept::Nothing, last: None, waiting: None, ends_at }
    }

    /// Takes a poll whose client has received the answer of this number last.
    pub fn ask(&mut self, number: u32, ends_at: u64) -> Asked {
        let asked = if number == self.number {
            self.kept = Kept::Nothing;
            match self.last.take() {
                Some(last) => {
                    self.answered(last.clone());
                    Asked::Again(last)
                }
                None => Asked::Next,
            }
        } else if number.checked_add(1) == Some(self.number) {
            match &self.kept {
                Kept::Answer(kept) => Asked::Again(kept.clone()),
                Kept::GivenUp => return Asked::Lost,
                Kept::Nothing => return Asked::Unknown,
            }
        } else {
            return Asked::Unknown;
        };
        self.ends_at = ends_at;
        asked
    }

    /// Lets a poll wait for something, until this time at most. Returns the place of an older one, which is to be answered with
    /// nothing.
    pub fn wait(&mut self, place: W, until: u64) -> Option<W> {
        self.waiting.replace(WaitingPoll { place, until }).map(|older| older.place)
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Takes the poll that waits, to answer it.
    pub fn take_waiting(&mut self, ends_at: u64) -> Option<W> {
        let waiting = self.waiting.take()?;
        self.ends_at = ends_at;
        Some(waiting.place)
    }

    /// The client that waited there has gone.
    pub fn leave(&mut self, place: &W, ends_at: u64) {
        if self.waiting.take_if(|waiting| waiting.place == *place).is_some() {
            self.ends_at = ends_at;
        }
    }

    /// Returns the number of the last answer that brought something.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns the number of the next answer, if it brings something.
    pub fn next_number(&self) -> u32 {
        self.number.wrapping_add(1)
    }

    /// Notes the next answer, which brings something.
    pub fn answered(&mut self, answer: Bytes) {
        self.number = self.next_number();
        self.kept = Kept::Answer(answer);
    }

    /// Notes the last answer of the session. It replaces none that may not have arrived.
    pub fn ended(&mut self, answer: Bytes) {
        match self.kept {
            Kept::Nothing => self.answered(answer),
            Kept::Answer(_) | Kept::GivenUp => self.last = Some(answer),
        }
    }

    /// Returns the bytes of the answers that are kept.
    pub fn kept_bytes(&self) -> usize {
        let kept = match &self.kept {
            Kept::Answer(kept) => kept.len(),
            Kept::Nothing | Kept::GivenUp => 0,
        };
        kept + self.last.as_ref().map_or(0, Bytes::len)
    }

    /// Gives up the answer that is kept. If it did not arrive, the session cannot go on.
    pub fn give_up(&mut self) {
        self.kept = Kept::GivenUp;
    }

    /// Returns the time at which something is due next; `u64::MAX` for never.
    pub fn deadline(&self) -> u64 {
        self.waiting.as_ref().map_or(self.ends_at, |waiting| waiting.until)
    }

    /// Takes what is due.
    pub fn due(&mut self, now: u64, ends_at: u64) -> Due<W> {
        if self.deadline() > now {
            return Due::Nothing;
        }
        match self.take_waiting(ends_at) {
            Some(place) => Due::Answer(place),
            None => {
                self.ends_at = NEVER;
                Due::End
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: u64 = 15;

    fn answer(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn an_answer_that_is_given_up_is_lost_unless_it_arrived() {
        let mut polls = Polls::<u8>::new(GRACE);
        for arrived in [true, false] {
            polls.answered(answer("long"));
            assert_eq!(polls.kept_bytes(), 4);
            polls.give_up();
            assert_eq!(polls.kept_bytes(), 0);
            assert_eq!(polls.ask(9, GRACE), Asked::Unknown);
            let (number, asked) = if arrived { (1, Asked::Next) } else { (1, Asked::Lost) };
            assert_eq!(polls.ask(number, GRACE), asked);
        }
    }

    #[test]
    fn the_last_answer_comes_behind_one_that_may_not_have_arrived() {
        let mut polls = Polls::<u8>::new(GRACE);
        polls.answered(answer("one"));
        polls.ended(answer("end"));
        assert_eq!(polls.kept_bytes(), 6);
        assert_eq!((polls.ask(0, GRACE), polls.number()), (Asked::Again(answer("one")), 1));
        for _ in 0..2 {
            assert_eq!((polls.ask(1, GRACE), polls.number()), (Asked::Again(answer("end")), 2));
        }
        assert_eq!(polls.ask(0, GRACE), Asked::Unknown);
        assert_eq!(polls.ask(2, GRACE), Asked::Next);
        let mut polls = Polls::<u8>::new(GRACE);
        polls.ended(answer("end"));
        assert_eq!((polls.ask(0, GRACE), polls.number()), (Asked::Again(answer("end")), 1));
        let mut polls = Polls::<u8>::new(GRACE);
        polls.answered(answer("long"));
        polls.give_up();
        polls.ended(answer("end"));
        assert_eq!(polls.ask(0, GRACE), Asked::Lost);
        assert_eq!(polls.ask(1, GRACE), Asked::Again(answer("end")));
    }

    #[test]
    fn an_answer_is_given_again_until_the_next_poll_says_that_it_arrived() {
        let mut polls = Polls::<u8>::new(GRACE);
        assert_eq!(polls.ask(0, GRACE), Asked::Next);
        polls.answered(answer("one"));
        assert_eq!((polls.number(), polls.next_number()), (1, 2));
        for _ in 0..2 {
            assert_eq!(polls.ask(0, GRACE), Asked::Again(answer("one")));
        }
        assert_eq!(polls.ask(1, GRACE), Asked::Next);
        assert_eq!(polls.ask(0, GRACE), Asked::Unknown, "it was confirmed, and is not kept");
        for unknown in [2, 3, u32::MAX] {
            assert_eq!(polls.ask(unknown, GRACE), Asked::Unknown, "{unknown}");
        }
        polls.answered(answer("two"));
        assert_eq!(polls.ask(0, GRACE), Asked::Unknown);
        assert_eq!(polls.ask(1, GRACE), Asked::Again(answer("two")));
    }

    #[test]
    fn one_poll_waits_and_an_older_one_is_answered() {
        let mut polls = Polls::new(GRACE);
        assert_eq!(polls.wait("a", 100), None);
        assert_eq!(polls.wait("b", 110), Some("a"));
        polls.leave(&"a", 50 + GRACE);
        assert!(polls.is_waiting());
        assert_eq!(polls.deadline(), 110);
        assert_eq!(polls.due(109, 0), Due::Nothing);
        assert_eq!(polls.due(110, 110 + GRACE), Due::Answer("b"));
        assert_eq!((polls.is_waiting(), polls.deadline()), (false, 110 + GRACE));
        assert_eq!(polls.take_waiting(0), None);
    }

    #[test]
    fn a_session_lasts_for_some_time_without_a_poll() {
        let mut polls = Polls::new(GRACE);
        assert_eq!(polls.due(GRACE - 1, 0), Due::Nothing);
        assert_eq!(polls.ask(7, 1000), Asked::Unknown);
        assert_eq!(polls.deadline(), GRACE, "what cannot be the client's does not keep its session");
        assert_eq!(polls.ask(0, 20), Asked::Next);
        assert_eq!(polls.wait("a", 100), None);
        assert_eq!(polls.due(20, 0), Due::Nothing, "while one waits the session lasts");
        polls.leave(&"a", 30 + GRACE);
        assert_eq!(polls.deadline(), 30 + GRACE);
        assert_eq!(polls.due(30 + GRACE, 0), Due::End);
        assert_eq!(polls.due(u64::MAX - 1, 0), Due::Nothing, "it ends once");
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Something comes for the client.
        Publish,
        /// A poll of the client. It may be answered, and the answer may get lost.
        Poll {
            is_lost: bool,
            waits: bool,
        },
        /// The poll before is repeated on its way.
        Repeat,
        /// The client that waits gives up.
        Leave,
        Tick,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Publish),
            4 => (any::<bool>(), any::<bool>()).prop_map(|(is_lost, waits)| Step::Poll { is_lost, waits }),
            1 => Just(Step::Repeat),
            1 => Just(Step::Leave),
            1 => Just(Step::Tick),
        ]
    }

    /// A session and its client.
    struct World {
        polls: Polls<bool>,
        published: u8,
        queue: Vec<u8>,
        received: Vec<u8>,
        has: u32,
        now: u64,
    }

    impl World {
        /// Answers a poll. The client takes the answer unless it is lost.
        fn answer(&mut self, is_lost: bool) {
            let queue = std::mem::take(&mut self.queue);
            if !queue.is_empty() {
                self.polls.answered(queue.clone().into());
            }
            if !is_lost {
                self.received.extend(queue);
                self.has = self.polls.number();
            }
        }

        fn poll(&mut self, is_lost: bool, waits: bool) {
            self.now += 1;
            match self.polls.ask(self.has, self.now + GRACE) {
                Asked::Again(_) if is_lost => {}
                Asked::Again(kept) => {
                    self.received.extend(&kept);
                    self.has += 1;
                }
                Asked::Next if self.queue.is_empty() && waits => {
                    // The older one gets nothing.
                    self.polls.wait(is_lost, self.now + GRACE);
                }
                Asked::Next => self.answer(is_lost),
                other => panic!("the client speaks of what it has: {other:?}"),
            }
        }
    }

    proptest! {
        /// Whatever gets lost or is repeated, the client gets all, once and in order.
        #[test]
        fn nothing_is_lost_or_doubled(steps in prop::collection::vec(step(), 0..200)) {
            let polls = Polls::new(GRACE);
            let mut world =
                World { polls, published: 0, queue: Vec::new(), received: Vec::new(), has: 0, now: 0 };
            for step in steps {
                match step {
                    Step::Publish => {
                        world.queue.push(world.published);
                        world.published += 1;
                        if let Some(is_lost) = world.polls.take_waiting(world.now + GRACE) {
                            world.answer(is_lost);
                        }
                    }
                    Step::Poll { is_lost, waits } => world.poll(is_lost, waits),
                    Step::Repeat => world.poll(true, false),
                    Step::Leave => {
                        world.polls.leave(&true, world.now + GRACE);
                        world.polls.leave(&false, world.now + GRACE);
                        prop_assert!(!world.polls.is_waiting());
                    }
                    Step::Tick => {
                        world.now += GRACE / 2;
                        if let Due::Answer(is_lost) = world.polls.due(world.now, world.now + GRACE) {
                            prop_assert!(world.queue.is_empty());
                            world.answer(is_lost);
                        }
                    }
                }
                prop_assert!(!world.polls.is_waiting() || world.queue.is_empty());
            }
            world.poll(false, false);
            world.poll(false, false);
            let all: Vec<u8> = (0..world.published).collect();
            prop_assert_eq!(world.received, all);
        }
    }
}
