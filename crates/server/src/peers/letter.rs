//! Letters: what nodes tell each other of clients' calls to sessions of another node, in Protobuf behind a byte that no
//! answer in JSON begins with.

use std::fmt;

use bytes::Bytes;
use prost::{Message as _, Oneof};
use uuid::Uuid;

use crate::message::{SessionAnswer, SessionAsk};
use crate::session_key::{SECRET_BYTES, SessionKey};

/// The first byte of a letter.
pub(super) const MARK: u8 = 1;

/// A letter to one node.
#[derive(Debug)]
pub(crate) enum Letter {
    Call {
        /// The node that asks, and its number for the call.
        from: Uuid,
        number: u64,
        key: SessionKey,
        ask: SessionAsk,
    },
    Answer {
        /// The asking node's number.
        number: u64,
        answer: SessionAnswer,
    },
    /// Asks a node for the secret that it signs keys of sessions with.
    AskSecret {
        /// The node that asks, and its number for the question.
        from: Uuid,
        number: u64,
    },
    Secret {
        /// The asking node's number.
        number: u64,
        secret: Secret,
    },
}

/// A node's secret, which no log has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret(pub [u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A letter of a version that this node does not know, or none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a letter of another node cannot be decoded")]
pub(crate) struct Illegible;

/// A letter as it is written. Numbers of fields are never used again for something else.
#[derive(Clone, PartialEq, prost::Message)]
struct LetterMessage {
    #[prost(bytes = "bytes", tag = "1")]
    from: Bytes,
    #[prost(uint64, tag = "2")]
    number: u64,
    #[prost(bytes = "bytes", tag = "3")]
    session: Bytes,
    /// The first id in the commands; 0 for none.
    #[prost(uint32, tag = "8")]
    first: u32,
    #[prost(oneof = "LetterContent", tags = "4, 5, 6, 7")]
    content: Option<LetterContent>,
}

#[derive(Clone, PartialEq, Oneof)]
enum LetterContent {
    #[prost(bytes = "bytes", tag = "4")]
    Commands(Bytes),
    #[prost(uint32, tag = "5")]
    Answer(u32),
    #[prost(bool, tag = "6")]
    AskSecret(bool),
    #[prost(bytes = "bytes", tag = "7")]
    Secret(Bytes),
}

/// The answers by their numbers.
const ANSWERS: [SessionAnswer; 4] =
    [SessionAnswer::Taken, SessionAnswer::Gone, SessionAnswer::Full, SessionAnswer::Busy];

impl Letter {
    pub(super) fn encode(self) -> Bytes {
        let written = match self {
            Self::Call { from, number, key, ask: SessionAsk::Commands { first, data } } => LetterMessage {
                from: Bytes::copy_from_slice(from.as_bytes()),
                number,
                session: Bytes::copy_from_slice(&key.to_bytes()),
                first: first.unwrap_or(0),
                content: Some(LetterContent::Commands(data)),
            },
            Self::Answer { number, answer } => LetterMessage {
                number,
                content: ANSWERS
                    .iter()
                    .position(|known| *known == answer)
                    .map(|place| LetterContent::Answer(place as u32)),
                ..LetterMessage::default()
            },
            Self::AskSecret { from, number } => LetterMessage {
                from: Bytes::copy_from_slice(from.as_bytes()),
                number,
                content: Some(LetterContent::AskSecret(true)),
                ..LetterMessage::default()
            },
            Self::Secret { number, secret: Secret(secret) } => LetterMessage {
                number,
                content: Some(LetterContent::Secret(Bytes::copy_from_slice(&secret))),
                ..LetterMessage::default()
            },
        };
        let mut bytes = Vec::with_capacity(1 + written.encoded_len());
        bytes.push(MARK);
        written.encode_raw(&mut bytes);
        bytes.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, Illegible> {
        if bytes.first() != Some(&MARK) {
            return Err(Illegible);
        }
        let LetterMessage { from, number, session, first, content } =
            LetterMessage::decode(bytes.slice(1..)).map_err(|_| Illegible)?;
        match content {
            Some(LetterContent::Commands(data)) => Ok(Self::Call {
                from: Uuid::from_slice(&from).map_err(|_| Illegible)?,
                number,
                key: SessionKey::from_bytes(&session).ok_or(Illegible)?,
                ask: SessionAsk::Commands { first: (first > 0).then_some(first), data },
            }),
            Some(LetterContent::Answer(answer)) => {
                let answer = usize::try_from(answer).ok().and_then(|place| ANSWERS.get(place));
                Ok(Self::Answer { number, answer: *answer.ok_or(Illegible)? })
            }
            Some(LetterContent::AskSecret(_)) => {
                Ok(Self::AskSecret { from: Uuid::from_slice(&from).map_err(|_| Illegible)?, number })
            }
            Some(LetterContent::Secret(secret)) => {
                let secret = <[u8; SECRET_BYTES]>::try_from(&secret[..]).map_err(|_| Illegible)?;
                Ok(Self::Secret { number, secret: Secret(secret) })
            }
            None => Err(Illegible),
        }
    }
}

#[cfg(test)]
mod tests {
    use fanwire_hub::effect::ConnectionKey;
    use fanwire_protocol::ClientId;
    use proptest::prelude::*;

    use super::*;
    use crate::session_key::SessionSigner;

    #[test]
    fn letters_are_read_as_they_were_written() {
        let (node, client) = (Uuid::from_u128(1), ClientId(Uuid::from_u128(2)));
        let connection = ConnectionKey { slot: 3, generation: 4 };
        let sent = SessionSigner::new().sign(node, 5, connection, client);
        for first in [None, Some(9)] {
            let data = Bytes::from_static(b"{}");
            let ask = SessionAsk::Commands { first, data };
            let call = Letter::Call { from: Uuid::from_u128(6), number: 7, key: sent, ask };
            match Letter::decode(&call.encode()).unwrap() {
                Letter::Call { from, number, key, ask: SessionAsk::Commands { first: read, data } } => {
                    assert_eq!((from, number, key), (Uuid::from_u128(6), 7, sent));
                    assert_eq!((read, &*data), (first, &b"{}"[..]));
                }
                other => panic!("{other:?}"),
            }
        }
        for sent in ANSWERS {
            let letter = Letter::Answer { number: u64::MAX, answer: sent };
            match Letter::decode(&letter.encode()).unwrap() {
                Letter::Answer { number, answer } => assert_eq!((number, answer), (u64::MAX, sent)),
                other => panic!("{other:?}"),
            }
        }
        let (from, sent) = (Uuid::from_u128(6), Secret([9; SECRET_BYTES]));
        match Letter::decode(&Letter::AskSecret { from, number: 7 }.encode()).unwrap() {
            Letter::AskSecret { from: read, number } => assert_eq!((read, number), (from, 7)),
            other => panic!("{other:?}"),
        }
        match Letter::decode(&Letter::Secret { number: 8, secret: sent }.encode()).unwrap() {
            Letter::Secret { number, secret } => {
                assert_eq!((number, secret), (8, sent));
                assert_eq!(format!("{secret:?}"), "Secret");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_letter_is_none() {
        for bytes in
            [&b""[..], b"{}", b"\x01", b"\x02\x28\x00", b"\x01\x28\x04", b"\x01\x22\x01x", b"\x01\x3a\x01x"]
        {
            assert_eq!(Letter::decode(&Bytes::from_static(bytes)).unwrap_err(), Illegible, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let marked = [&[MARK][..], &bytes].concat();
            let _ = Letter::decode(&marked.into());
        }
    }
}
