//! The encoding of everything that is published or stored. Parsing does not panic on any bytes.
//!
//! A *body* is the publisher's part: version 1, a kind, fields, and data up to the end.
//!
//! ```text
//! 01 kind (field length bytes)* 00 data          length: LEB128
//! ```
//!
//! A reader skips unknown fields, which leaves room for more, such as a trace context. Streams and presence store
//! bodies. A *frame* is sent through a channel. It is a body after version 1 and a stamp by Redis, which is empty if
//! the body is not stored.
//!
//! ```text
//! 01 [epoch (8) lineage (8) offset [' ' offset before a jump]] '\n' body
//! ```

use std::sync::Arc;

use bytes::{Buf, Bytes};
use fanwire_protocol::{ClientId, ClientInfo, Epoch, Publication, Tags};
use uuid::Uuid;

use crate::contract::{Member, NewPublication};

/// The lineage of a primary: the first characters of its replication id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lineage([u8; 8]);

/// A parsed frame.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EventFrame {
    /// `None` if the body is not stored.
    pub(super) stamp: Option<Stamp>,
    pub(super) content: FrameContent,
}

/// A frame's position in its topic's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) epoch: Epoch,
    pub(super) lineage: Lineage,
    pub(super) offset: u64,
    /// The last offset before a jump of offsets.
    pub(super) jumped_from: Option<u64>,
}

/// A parsed body.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FrameContent {
    Publication(Publication),
    Join(Arc<ClientInfo>),
    Leave(Arc<ClientInfo>),
    /// A present client.
    Member(Arc<ClientInfo>),
}

/// An error of parsing a frame or a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EventFrameError {
    #[error("version {0} is unknown")]
    UnknownVersion(u8),
    #[error("kind {0} is unknown")]
    UnknownKind(u8),
    #[error("the frame is truncated")]
    CutShort,
    #[error("the stamp is malformed")]
    MalformedStamp,
    #[error("a field is malformed")]
    MalformedField,
    #[error("the client is missing")]
    NoClient,
}

const VERSION: u8 = 1;

mod kind {
    pub(super) const PUBLICATION: u8 = 1;
    pub(super) const JOIN: u8 = 2;
    pub(super) const LEAVE: u8 = 3;
    /// A present client whose leave is not announced.
    pub(super) const MEMBER: u8 = 5;
    /// A present client whose leave is announced. `scripts/leave.lua` converts it to a leave.
    pub(super) const ANNOUNCED_MEMBER: u8 = 6;
}

mod field {
    pub(super) const END: u8 = 0;
    /// The id of the client that published, joined, left or is present: 16 bytes.
    pub(super) const CLIENT: u8 = 1;
    /// The client's user. With it the body has a client info.
    pub(super) const USER: u8 = 2;
    pub(super) const CONNECTION: u8 = 3;
    pub(super) const SUBSCRIPTION: u8 = 4;
    /// A tag's name, prefixed by its length, and its value. Repeated.
    pub(super) const TAG: u8 = 5;
    /// The events that a member's coming and going writes, one byte; see `fanwire_protocol::EventMask`.
    pub(super) const EVENTS: u8 = 6;
    /// The time of a publication in milliseconds since 1970: 6 bytes, the highest first.
    pub(super) const TIME: u8 = 7;
    /// The id of the client that does not get a publication: 16 bytes.
    pub(super) const EXCLUDE: u8 = 8;
}

/// The longest stamp: epoch, lineage and two offsets.
const STAMP_BYTES_MAX: usize = 16 + 20 + 1 + 20;

impl Lineage {
    /// Reads a replication id.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let letters = *text.first_chunk()?;
        letters.iter().all(u8::is_ascii_alphanumeric).then_some(Self(letters))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Encodes a publication's body, for a script to stamp. `time` is in milliseconds since 1970; 0 if it is unknown.
pub(super) fn publication_body(publish: &NewPublication, time: i64) -> Vec<u8> {
    let mut body = Vec::with_capacity(publish.data.len() + 128);
    put_publication(&mut body, publish, time);
    body
}

/// Encodes a member's body.
pub(super) fn member_body(member: &Member) -> Vec<u8> {
    let kind = if member.announce_leave { kind::ANNOUNCED_MEMBER } else { kind::MEMBER };
    let mut body = Vec::with_capacity(128);
    body.extend([VERSION, kind]);
    put_info(&mut body, &member.info);
    if !member.events.is_empty() {
        put_field(&mut body, field::EVENTS, &[&[member.events.bits()]]);
    }
    body.push(field::END);
    body
}

/// Encodes the frame of a publication that is not stored.
pub(super) fn publication_frame(publish: &NewPublication, time: i64) -> Vec<u8> {
    let mut frame = Vec::with_capacity(publish.data.len() + 128);
    frame.extend([VERSION, b'\n']);
    put_publication(&mut frame, publish, time);
    frame
}

pub(super) fn join_frame(info: &ClientInfo) -> Vec<u8> {
    let mut frame = vec![VERSION, b'\n'];
    put_client(&mut frame, kind::JOIN, info);
    frame
}

pub(super) fn leave_frame(info: &ClientInfo) -> Vec<u8> {
    let mut frame = vec![VERSION, b'\n'];
    put_client(&mut frame, kind::LEAVE, info);
    frame
}

impl EventFrame {
    /// Parses a frame. Its data shares the memory of `bytes`.
    pub(super) fn parse(mut bytes: Bytes) -> Result<Self, EventFrameError> {
        check_version(&mut bytes)?;
        let end = bytes.iter().take(STAMP_BYTES_MAX + 1).position(|byte| *byte == b'\n');
        let stamp = bytes.split_to(end.ok_or(EventFrameError::MalformedStamp)?);
        bytes.advance(1);
        let stamp = if stamp.is_empty() { None } else { Some(Stamp::parse(&stamp)?) };
        let content = FrameContent::parse(bytes, stamp.map_or(0, |stamp| stamp.offset))?;
        Ok(Self { stamp, content })
    }
}

impl FrameContent {
    /// Parses a body; a publication gets `offset`. Its data shares the memory of `bytes`.
    pub(super) fn parse(mut bytes: Bytes, offset: u64) -> Result<Self, EventFrameError> {
        check_version(&mut bytes)?;
        let kind = bytes.try_get_u8().map_err(|_| EventFrameError::CutShort)?;
        let fields = FrameFields::parse(&mut bytes)?;
        match kind {
            kind::PUBLICATION => {
                let FrameFields { info, tags, time, exclude } = fields;
                let tags = (!tags.is_empty()).then(|| Arc::new(tags));
                Ok(Self::Publication(Publication { data: bytes, info, tags, offset, time, exclude }))
            }
            kind::JOIN => fields.info.map(Self::Join).ok_or(EventFrameError::NoClient),
            kind::LEAVE => fields.info.map(Self::Leave).ok_or(EventFrameError::NoClient),
            kind::MEMBER | kind::ANNOUNCED_MEMBER => {
                fields.info.map(Self::Member).ok_or(EventFrameError::NoClient)
            }
            unknown => Err(EventFrameError::UnknownKind(unknown)),
        }
    }
}

impl Stamp {
    fn parse(text: &[u8]) -> Result<Self, EventFrameError> {
        let parse = || {
            let (epoch, rest) = text.split_at_checked(Epoch::LENGTH)?;
            let (lineage, rest) = rest.split_at_checked(8)?;
            let (offset, jumped_from) = match rest.iter().position(|byte| *byte == b' ') {
                Some(space) => (&rest[..space], Some(parse_offset(&rest[space + 1..])?)),
                None => (rest, None),
            };
            // Offset 0 means that there is no stamp.
            let offset = parse_offset(offset).filter(|offset| *offset > 0)?;
            Some(Self { epoch: Epoch::parse(epoch)?, lineage: Lineage::parse(lineage)?, offset, jumped_from })
        };
        parse().ok_or(EventFrameError::MalformedStamp)
    }
}

/// Parses a decimal number that consists of digits alone.
pub(super) fn parse_offset(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[derive(Default)]
struct FrameFields {
    info: Option<Arc<ClientInfo>>,
    tags: Tags,
    time: i64,
    exclude: Option<ClientId>,
}

impl FrameFields {
    fn parse(bytes: &mut Bytes) -> Result<Self, EventFrameError> {
        let mut client = None;
        let mut user = None;
        let (mut connection, mut subscription) = (Bytes::new(), Bytes::new());
        let mut tags = Tags::new();
        let (mut time, mut exclude) = (0, None);
        loop {
            let field = bytes.try_get_u8().map_err(|_| EventFrameError::CutShort)?;
            if field == field::END {
                break;
            }
            let length = take_length(bytes)?;
            if length > bytes.len() {
                return Err(EventFrameError::CutShort);
            }
            let mut value = bytes.split_to(length);
            match field {
                field::CLIENT => client = Some(take_client(&value)?),
                field::USER => user = Some(Box::from(take_text(&value)?)),
                field::CONNECTION => connection = value,
                field::SUBSCRIPTION => subscription = value,
                field::TAG => {
                    let length = take_length(&mut value)?;
                    if length > value.len() {
                        return Err(EventFrameError::MalformedField);
                    }
                    let name = value.split_to(length);
                    tags.insert(take_text(&name)?.to_owned(), take_text(&value)?.to_owned());
                }
                field::TIME => time = take_time(&value)?,
                field::EXCLUDE => exclude = Some(take_client(&value)?),
                _ => {}
            }
        }
        let info = match (client, user) {
            (Some(client), Some(user)) => {
                Some(Arc::new(ClientInfo { user, client, connection, subscription }))
            }
            (None, Some(_)) => return Err(EventFrameError::NoClient),
            (_, None) => None,
        };
        Ok(Self { info, tags, time, exclude })
    }
}

fn check_version(bytes: &mut Bytes) -> Result<(), EventFrameError> {
    match bytes.try_get_u8() {
        Ok(VERSION) => Ok(()),
        Ok(unknown) => Err(EventFrameError::UnknownVersion(unknown)),
        Err(_) => Err(EventFrameError::CutShort),
    }
}

fn take_length(bytes: &mut Bytes) -> Result<usize, EventFrameError> {
    let mut length = 0_u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = bytes.try_get_u8().map_err(|_| EventFrameError::CutShort)?;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return usize::try_from(length).map_err(|_| EventFrameError::MalformedField);
        }
    }
    Err(EventFrameError::MalformedField)
}

fn take_text(bytes: &[u8]) -> Result<&str, EventFrameError> {
    std::str::from_utf8(bytes).map_err(|_| EventFrameError::MalformedField)
}

fn take_client(bytes: &[u8]) -> Result<ClientId, EventFrameError> {
    Uuid::from_slice(bytes).map(ClientId).map_err(|_| EventFrameError::MalformedField)
}

fn take_time(bytes: &[u8]) -> Result<i64, EventFrameError> {
    let &[a, b, c, d, e, f] = bytes else { return Err(EventFrameError::MalformedField) };
    Ok(i64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

fn put_publication(into: &mut Vec<u8>, publish: &NewPublication, time: i64) {
    into.extend([VERSION, kind::PUBLICATION]);
    if let Some(info) = &publish.info {
        put_info(into, info);
    }
    for (name, value) in publish.tags.as_deref().into_iter().flatten() {
        let mut length = Vec::with_capacity(2);
        put_length(&mut length, name.len());
        put_field(into, field::TAG, &[&length, name.as_bytes(), value.as_bytes()]);
    }
    if time > 0 {
        let [_, _, time @ ..] = time.to_be_bytes();
        put_field(into, field::TIME, &[&time]);
    }
    if let Some(client) = publish.exclude {
        put_field(into, field::EXCLUDE, &[client.0.as_bytes()]);
    }
    into.push(field::END);
    into.extend_from_slice(&publish.data);
}

fn put_client(into: &mut Vec<u8>, kind: u8, info: &ClientInfo) {
    into.extend([VERSION, kind]);
    put_info(into, info);
    into.push(field::END);
}

fn put_info(into: &mut Vec<u8>, info: &ClientInfo) {
    put_field(into, field::CLIENT, &[info.client.0.as_bytes()]);
    put_field(into, field::USER, &[info.user.as_bytes()]);
    if !info.connection.is_empty() {
        put_field(into, field::CONNECTION, &[&info.connection]);
    }
    if !info.subscription.is_empty() {
        put_field(into, field::SUBSCRIPTION, &[&info.subscription]);
    }
}

fn put_field(into: &mut Vec<u8>, field: u8, parts: &[&[u8]]) {
    into.push(field);
    put_length(into, parts.iter().map(|part| part.len()).sum());
    for part in parts {
        into.extend_from_slice(part);
    }
}

fn put_length(into: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        into.push(length as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn client_info() -> impl Strategy<Value = ClientInfo> {
        (".*", any::<u128>(), vec(any::<u8>(), 0..200), vec(any::<u8>(), 0..200)).prop_map(
            |(user, client, connection, subscription)| ClientInfo {
                user: user.into(),
                client: ClientId(Uuid::from_u128(client)),
                connection: connection.into(),
                subscription: subscription.into(),
            },
        )
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let info = ClientInfo {
            user: "u".into(),
            client: ClientId(Uuid::from_u128(0x0102)),
            connection: Bytes::new(),
            subscription: Bytes::from_static(b"{}"),
        };
        let tags = Tags::from([("a".to_owned(), "bc".to_owned())]);
        let publish = NewPublication {
            data: "data".into(),
            info: Some(info.into()),
            tags: Some(tags.into()),
            exclude: Some(ClientId(Uuid::from_u128(0x0304))),
            ..NewPublication::default()
        };
        let frame = publication_frame(&publish, 0x0506);
        let expected = [
            b"\x01\n\x01\x01".as_slice(),
            b"\x01\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02",
            b"\x02\x01u",
            b"\x04\x02{}",
            b"\x05\x04\x01abc",
            b"\x07\x06\0\0\0\0\x05\x06",
            b"\x08\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\x04",
            b"\0data",
        ];
        assert_eq!(frame, expected.concat());
    }

    #[test]
    fn a_stamp_says_where_and_after_which_jump() {
        let body = publication_body(&NewPublication { data: "d".into(), ..NewPublication::default() }, 0);
        let frame = [b"\x01abcdefgh01234567".as_slice(), b"1048582 5\n", &body].concat();
        let stamp = EventFrame::parse(frame.into()).unwrap().stamp.unwrap();
        assert_eq!((stamp.epoch.as_str(), stamp.lineage), ("abcdefgh", Lineage(*b"01234567")));
        assert_eq!((stamp.offset, stamp.jumped_from), (1_048_582, Some(5)));
    }

    #[test]
    fn what_is_unknown_is_an_error_and_unknown_fields_are_not() {
        let parse =
            |bytes: &'static [u8]| EventFrame::parse(Bytes::from_static(bytes)).map(|frame| frame.content);
        assert_eq!(parse(b""), Err(EventFrameError::CutShort));
        assert_eq!(parse(b"\x02\n\x01\x04\0"), Err(EventFrameError::UnknownVersion(2)));
        assert_eq!(parse(b"\x01\n\x07\x04\0"), Err(EventFrameError::UnknownVersion(7)));
        assert_eq!(parse(b"\x01\n\x01\x63\0"), Err(EventFrameError::UnknownKind(0x63)));
        assert_eq!(parse(b"\x01abc\n\x01\x04\0"), Err(EventFrameError::MalformedStamp));
        assert_eq!(parse(b"\x01abcdefgh01234567+5\n\x01\x04\0"), Err(EventFrameError::MalformedStamp));
        assert_eq!(parse(b"\x01abcdefgh012345670\n\x01\x04\0"), Err(EventFrameError::MalformedStamp));
        assert_eq!(parse(b"\x01\n\x01\x02\0"), Err(EventFrameError::NoClient));
        assert_eq!(parse(b"\x01\n\x01\x04\x01\xff\xff\xff\xff\x0f"), Err(EventFrameError::CutShort));
        assert_eq!(parse(b"\x01\n\x01\x04\x63\x03abc\0"), Err(EventFrameError::UnknownKind(4)));
        let empty = Publication { data: Bytes::new(), ..Publication::default() };
        assert_eq!(parse(b"\x01\n\x01\x01\x63\x03abc\0"), Ok(FrameContent::Publication(empty)));
    }

    #[test]
    fn nodes_that_do_not_know_a_field_skip_it_and_their_bodies_lack_it() {
        let exclude = Some(ClientId(Uuid::from_u128(1)));
        let publish = NewPublication { data: "d".into(), exclude, ..NewPublication::default() };
        let new = publication_body(&publish, 5);
        let parse = |body: &[u8]| FrameContent::parse(Bytes::copy_from_slice(body), 3).unwrap();
        let known = Publication { data: "d".into(), offset: 3, ..Publication::default() };
        let all = Publication { time: 5, exclude, ..known.clone() };
        assert_eq!(parse(&new), FrameContent::Publication(all));
        // To a node from before these fields their numbers are unknown, as 0x67 and 0x68 are to this one.
        let old: Vec<u8> =
            new.iter().map(|byte| if matches!(byte, 7 | 8) { byte | 0x60 } else { *byte }).collect();
        assert_eq!(parse(&old), FrameContent::Publication(known.clone()));
        assert_eq!(parse(b"\x01\x01\0d"), FrameContent::Publication(known));
        for malformed in [b"\x01\x01\x07\x05\0\0\0\0\x05\0".as_slice(), b"\x01\x01\x08\x01\0\0"] {
            let parsed = FrameContent::parse(Bytes::from_static(malformed), 3);
            assert_eq!(parsed, Err(EventFrameError::MalformedField));
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            data: Vec<u8>,
            info in proptest::option::of(client_info()),
            tags in btree_map(".*", ".*", 0..4),
            time in 0..1_i64 << 48,
            exclude: Option<u128>,
        ) {
            let exclude = exclude.map(|id| ClientId(Uuid::from_u128(id)));
            let (data, info) = (Bytes::from(data), info.map(Arc::new));
            let tags = (!tags.is_empty()).then(|| Arc::new(tags));
            let (of_info, of_tags) = (info.clone(), tags.clone());
            let publish =
                NewPublication { data: data.clone(), info: of_info, tags: of_tags, exclude, ..NewPublication::default() };
            let frame = publication_frame(&publish, time);
            let parsed = EventFrame::parse(frame.into()).unwrap();
            let expected = Publication { data, info, tags, time, exclude, offset: 0 };
            prop_assert_eq!(parsed, EventFrame { stamp: None, content: FrameContent::Publication(expected) });
        }

        #[test]
        fn clients_are_read_as_written(info in client_info()) {
            let parse = |frame: Vec<u8>| EventFrame::parse(frame.into()).unwrap().content;
            prop_assert_eq!(parse(join_frame(&info)), FrameContent::Join(Arc::new(info.clone())));
            prop_assert_eq!(parse(leave_frame(&info)), FrameContent::Leave(Arc::new(info.clone())));
            let info = Arc::new(info);
            for announce_leave in [false, true] {
                let body = member_body(&Member::new(Arc::clone(&info), announce_leave));
                let member = FrameContent::parse(body.clone().into(), 0).unwrap();
                prop_assert_eq!(member, FrameContent::Member(Arc::clone(&info)));
                // As scripts make a leave.
                let leave = [b"\x01\n\x01\x03", &body[2..]].concat();
                prop_assert_eq!(&leave, &leave_frame(&info));
                prop_assert_eq!(body[1], if announce_leave { 6 } else { 5 });
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = EventFrame::parse(bytes.clone().into());
            let _ = EventFrame::parse([b"\x01\n\x01\x01".as_slice(), &bytes].concat().into());
            let _ = EventFrame::parse([b"\x01abcdefgh01234567".as_slice(), &bytes].concat().into());
        }

        #[test]
        fn a_cut_frame_is_an_error_or_loses_data_alone(info in client_info(), cut in 0..100_usize) {
            let publish = NewPublication { info: Some(info.into()), ..NewPublication::default() };
            let whole = publication_frame(&publish, 7);
            let cut = cut.min(whole.len() - 1);
            prop_assert!(EventFrame::parse(whole[..cut].to_vec().into()).is_err());
        }
    }
}
