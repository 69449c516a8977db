//! Letters: what nodes tell each other of clients' calls to sessions of another node, in Protobuf behind a byte that no
//! answer in JSON begins with.

use std::fmt;

use bytes::Bytes;
use fanwire_hub::effect::ConnectionKey;
use prost::{Message as _, Oneof};
use uuid::Uuid;

use crate::accept::admission::ClientNetwork;
use crate::message::{Address, PollAnswer, PollAsk, SessionAnswer, SessionAsk, Via};
use crate::session_key::{SECRET_BYTES, SessionKey};

/// The first byte of a letter.
pub(super) const MARK: u8 = 1;

/// A letter to one node.
#[derive(Debug)]
pub(crate) enum Letter {
    Call {
        from: Caller,
        key: SessionKey,
        ask: SessionAsk,
    },
    Answer {
        to: ReplyTo,
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

/// The way of a call, and the place on the node that asks where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub via: Via,
    pub reply_to: ReplyTo,
}

/// The place on a node where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyTo {
    /// The node's number for the call.
    Number(u64),
    /// A poll that waits there.
    Poll(Address),
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
    #[prost(oneof = "LetterContent", tags = "4, 5, 6, 7, 9, 10, 12, 13")]
    content: Option<LetterContent>,
    /// In place of a number.
    #[prost(message, optional, tag = "11")]
    poll: Option<WrittenAddress>,
    /// The address of the client's network.
    #[prost(bytes = "bytes", tag = "14")]
    network: Bytes,
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
    #[prost(message, tag = "9")]
    Poll(WrittenPoll),
    #[prost(bool, tag = "10")]
    Left(bool),
    #[prost(bool, tag = "13")]
    End(bool),
    #[prost(message, tag = "12")]
    PollAnswer(WrittenAnswer),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct WrittenAddress {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint32, tag = "2")]
    slot: u32,
    #[prost(uint32, tag = "3")]
    generation: u32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct WrittenPoll {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(uint32, tag = "2")]
    wait_millis: u32,
    #[prost(fixed64, tag = "3")]
    topics: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WrittenAnswer {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
    #[prost(bool, tag = "3")]
    has_news: bool,
}

/// The answers without content by their numbers.
static ANSWERS: [SessionAnswer; 8] = [
    SessionAnswer::Taken,
    SessionAnswer::Gone,
    SessionAnswer::Full,
    SessionAnswer::Busy,
    SessionAnswer::OtherTopics,
    SessionAnswer::Nothing,
    SessionAnswer::Overtaken,
    SessionAnswer::TooOften,
];

impl Letter {
    pub(super) fn encode(self) -> Bytes {
        let (reply_to, letter) = match self {
            Self::Call { from: Caller { via: Via { node, network }, reply_to }, key, ask } => {
                let mut first_id = None;
                let content = match ask {
                    SessionAsk::Commands { first, data } => {
                        first_id = first;
                        LetterContent::Commands(data)
                    }
                    SessionAsk::Poll(PollAsk { number, wait_millis, topics }) => {
                        LetterContent::Poll(WrittenPoll { number, wait_millis, topics })
                    }
                    SessionAsk::Left => LetterContent::Left(true),
                    SessionAsk::End => LetterContent::End(true),
                };
                let written = LetterMessage {
                    from: Bytes::copy_from_slice(node.as_bytes()),
                    session: Bytes::copy_from_slice(&key.to_bytes()),
                    first: first_id.unwrap_or(0),
                    content: Some(content),
                    network: network.map(ClientNetwork::to_bytes).unwrap_or_default(),
                    ..LetterMessage::default()
                };
                (reply_to, written)
            }
            Self::Answer { to, answer } => {
                let content = match answer {
                    // The cursor is for polls that open a session, which is never on another node.
                    SessionAnswer::Poll(PollAnswer { number, body, has_news, cursor: _ }) => {
                        Some(LetterContent::PollAnswer(WrittenAnswer { number, body, has_news }))
                    }
                    answer => {
                        let place = ANSWERS.iter().position(|known| *known == answer);
                        place.map(|place| LetterContent::Answer(place as u32))
                    }
                };
                (to, LetterMessage { content, ..LetterMessage::default() })
            }
            Self::AskSecret { from, number } => {
                let from = Bytes::copy_from_slice(from.as_bytes());
                let content = Some(LetterContent::AskSecret(true));
                (ReplyTo::Number(number), LetterMessage { from, content, ..LetterMessage::default() })
            }
            Self::Secret { number, secret: Secret(secret) } => {
                let content = Some(LetterContent::Secret(Bytes::copy_from_slice(&secret)));
                (ReplyTo::Number(number), LetterMessage { content, ..LetterMessage::default() })
            }
        };
        let written = match reply_to {
            ReplyTo::Number(number) => LetterMessage { number, ..letter },
            ReplyTo::Poll(Address { shard, connection: ConnectionKey { slot, generation } }) => {
                let poll = WrittenAddress { shard: shard.into(), slot, generation };
                LetterMessage { poll: Some(poll), ..letter }
            }
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
        let LetterMessage { from, number, session, first, content, poll, network } =
            LetterMessage::decode(bytes.slice(1..)).map_err(|_| Illegible)?;
        let reply_to = match poll {
            None => ReplyTo::Number(number),
            Some(WrittenAddress { shard, slot, generation }) => ReplyTo::Poll(Address {
                shard: u16::try_from(shard).map_err(|_| Illegible)?,
                connection: ConnectionKey { slot, generation },
            }),
        };
        let ask = match content.ok_or(Illegible)? {
            LetterContent::Commands(data) => {
                SessionAsk::Commands { first: (first > 0).then_some(first), data }
            }
            LetterContent::Poll(WrittenPoll { number, wait_millis, topics }) => {
                SessionAsk::Poll(PollAsk { number, wait_millis, topics })
            }
            LetterContent::Left(_) => SessionAsk::Left,
            LetterContent::End(_) => SessionAsk::End,
            LetterContent::Answer(answer) => {
                let answer = usize::try_from(answer).ok().and_then(|place| ANSWERS.get(place));
                return Ok(Self::Answer { to: reply_to, answer: answer.ok_or(Illegible)?.clone() });
            }
            LetterContent::PollAnswer(WrittenAnswer { number, body, has_news }) => {
                let answer = SessionAnswer::Poll(PollAnswer { number, body, has_news, cursor: None });
                return Ok(Self::Answer { to: reply_to, answer });
            }
            LetterContent::AskSecret(_) => {
                return Ok(Self::AskSecret { from: Uuid::from_slice(&from).map_err(|_| Illegible)?, number });
            }
            LetterContent::Secret(secret) => {
                let secret = <[u8; SECRET_BYTES]>::try_from(&secret[..]).map_err(|_| Illegible)?;
                return Ok(Self::Secret { number, secret: Secret(secret) });
            }
        };
        let node = Uuid::from_slice(&from).map_err(|_| Illegible)?;
        let network = match network.is_empty() {
            true => None,
            false => Some(ClientNetwork::from_bytes(&network).ok_or(Illegible)?),
        };
        Ok(Self::Call {
            from: Caller { via: Via { node, network }, reply_to },
            key: SessionKey::from_bytes(&session).ok_or(Illegible)?,
            ask,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use fanwire_protocol::ClientId;
    use proptest::prelude::*;

    use super::*;
    use crate::session_key::SessionSigner;

    fn poll() -> ReplyTo {
        ReplyTo::Poll(Address { shard: 9, connection: ConnectionKey { slot: 10, generation: 11 } })
    }

    #[test]
    fn letters_are_read_as_they_were_written() {
        let (node, client) = (Uuid::from_u128(1), ClientId(Uuid::from_u128(2)));
        let connection = ConnectionKey { slot: 3, generation: 4 };
        let sent = SessionSigner::new().sign(node, 5, connection, client);
        let ask = PollAsk { number: 3, wait_millis: 15_000, topics: u64::MAX };
        let node = Uuid::from_u128(6);
        let network = |address: &str| Some(ClientNetwork::from(address.parse::<IpAddr>().unwrap()));
        let networks = [None, network("192.0.2.1"), network("2001:db8::1")];
        for ((reply_to, ask), network) in [
            (ReplyTo::Number(7), SessionAsk::Commands { first: None, data: Bytes::from_static(b"{}") }),
            (ReplyTo::Number(7), SessionAsk::Commands { first: Some(9), data: Bytes::from_static(b"{}") }),
            (ReplyTo::Number(8), SessionAsk::Poll(ask)),
            (poll(), SessionAsk::Poll(ask)),
            (poll(), SessionAsk::Poll(PollAsk { number: 0, wait_millis: 0, topics: 0 })),
            (poll(), SessionAsk::Left),
            (ReplyTo::Number(9), SessionAsk::End),
        ]
        .into_iter()
        .zip(networks.into_iter().cycle())
        {
            let expected = format!("{ask:?}");
            let caller = Caller { via: Via { node, network }, reply_to };
            match Letter::decode(&Letter::Call { from: caller, key: sent, ask }.encode()) {
                Ok(Letter::Call { from, key, ask }) => {
                    assert_eq!((from, key), (caller, sent));
                    assert_eq!(format!("{ask:?}"), expected);
                }
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
        let body = Bytes::from_static(b"{}");
        let answers = [PollAnswer::default(), PollAnswer { number: 7, body, has_news: true, cursor: None }];
        for sent in ANSWERS.iter().cloned().chain(answers.map(SessionAnswer::Poll)) {
            for reply_to in [ReplyTo::Number(u64::MAX), poll()] {
                match Letter::decode(&Letter::Answer { to: reply_to, answer: sent.clone() }.encode()) {
                    Ok(Letter::Answer { to, answer }) => assert_eq!((to, &answer), (reply_to, &sent)),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_is_no_letter_is_none() {
        for bytes in
            [&b""[..], b"{}", b"\x01", b"\x02\x28\x00", b"\x01\x28\x08", b"\x01\x22\x01x", b"\x01\x3a\x01x"]
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
