//! Publications with the cursor at which they leave a client. It stands in front, so what follows is the same for everybody:
//!
//! ```text
//! id: CURSOR                                     an event
//! data: {"topic":"news","data":1,"offset":7}
//!
//! {"cursor":"CURSOR","topic":"news","data":1,"offset":7}         a line, or the payload of a frame
//! ```
//!
//! The answer to a poll has one cursor for all that is in it.

use bytes::Bytes;

use super::body::Body;
use super::envelope::{self, Envelope};
use super::{Encoded, Wire};
use crate::TopicName;
use crate::cursor::Cursor;
use crate::plain::event;
use crate::reply::Push;
use crate::websocket::{self, Opcode};

/// About the bytes before a publication whose cursor holds a few topics.
const BEFORE_BYTES_EXPECTED: usize = 128;

impl Wire {
    /// Returns true if each of its messages brings a cursor, by which clients go on where they left off.
    pub fn has_cursor(self) -> bool {
        self.parts().0 == Body::Event && self != Self::Poll
    }

    /// Returns true if its clients are told cursors, with each message or with each answer.
    pub fn tells_cursors(self) -> bool {
        self.parts().0 == Body::Event
    }

    /// Appends the first message to a client that keeps a cursor: its topics, each with whether it goes on where the client
    /// left off, and the cursor of the beginning. Clients that get nothing but data are told only where something may be
    /// missing.
    pub fn begin<'a>(
        self,
        topics: impl Iterator<Item = (&'a TopicName, Option<bool>)> + Clone,
        cursor: &Cursor,
        to: &mut Vec<u8>,
    ) {
        match self {
            Self::Events => event::subscribed(topics, &cursor.text(), to),
            Self::Lines => event::subscribed_line(topics, &cursor.text(), to),
            Self::BareJson => to.extend_from_slice(&websocket::framed(Opcode::Text, |to| {
                event::beginning(topics, Some(&cursor.text()), to);
            })),
            Self::Poll => event::subscribed_answer(topics, to),
            Self::Bare if topics.clone().any(|(_, recovered)| recovered == Some(false)) => {
                to.extend_from_slice(&websocket::framed(Opcode::Text, |to| {
                    event::beginning(topics, None, to)
                }));
            }
            _ => {}
        }
    }

    /// Encodes a publication with the cursor of its topic alone. `kin` is what it is on another such wire.
    pub(super) fn encode_with_cursor(self, push: &Push, kin: Option<&Encoded>) -> Encoded {
        let (body, envelope) = self.parts();
        if envelope == Envelope::Frame {
            return envelope::framed(body.opcode(), |to| self.append_with_cursor(push, kin, to));
        }
        let mut bytes = Vec::with_capacity(Cursor::ONE_BYTES_MAX + Body::bytes_expected(push));
        let begin = self.append_with_cursor(push, kin, &mut bytes);
        Encoded::end(bytes, begin, envelope.after())
    }

    /// Appends a publication up to the end of its body. Returns the bytes before the body, which begins behind the opening brace.
    fn append_with_cursor(self, push: &Push, kin: Option<&Encoded>, to: &mut Vec<u8>) -> usize {
        let Push::Publication { topic, publication, shows_time, .. } = push else { return 0 };
        let start = to.len();
        let brace = match push.position() {
            Some(at) => self.open(to, |to| Cursor::write_one(topic.as_str(), at, to)),
            None => self.open_without_cursor(to),
        };
        let begin = to.len();
        match kin {
            Some(kin) => {
                to.push(brace);
                to.extend_from_slice(&kin.body());
            }
            None => {
                event::publication(topic, publication, *shows_time, to);
                to[begin] = brace;
            }
        }
        begin + 1 - start
    }

    /// Returns a publication with another cursor than that of its topic alone, in two pieces. The second is shared.
    pub fn with_cursor(self, shared: &Encoded, cursor: &Cursor) -> [Bytes; 2] {
        let rest = shared.body_and_after();
        let fill = |to: &mut Vec<u8>| {
            let brace = self.open(to, |to| cursor.write(to));
            to.push(brace);
        };
        let before = match self.parts() {
            (body, Envelope::Frame) => websocket::framed_before(body.opcode(), rest.len(), fill),
            _ => {
                let mut before = Vec::with_capacity(BEFORE_BYTES_EXPECTED);
                fill(&mut before);
                before.into()
            }
        };
        [before, rest]
    }

    /// Appends what stands before the fields of a publication, with the cursor that `write` appends. Returns what stands in
    /// place of their opening brace.
    fn open(self, to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> u8 {
        match self.parts().1 {
            Envelope::Line | Envelope::Frame => {
                to.extend_from_slice(br#"{"cursor":""#);
                write(to);
                to.push(b'"');
                return b',';
            }
            Envelope::Item => {}
            _ => {
                to.extend_from_slice(b"id: ");
                write(to);
                to.push(b'\n');
            }
        }
        self.open_without_cursor(to)
    }

    fn open_without_cursor(self, to: &mut Vec<u8>) -> u8 {
        to.extend_from_slice(self.parts().1.before());
        b'{'
    }
}
