//! Cursors: the places of a client in the streams of its topics, as one text that it sends back to go on from there.
//!
//! A cursor holds all that it takes, so any node reads it. It is not signed: topics and permissions come with the
//! request, and a place that was never told recovers nothing that the client could not ask for.
//!
//! ```text
//! version (1 byte), application (4, FNV-1a of its name), and for each topic:
//! FNV-1a of its name (8, little endian), epoch as a number in base 62 (6, little endian), offset (LEB128)
//! ```
//!
//! in Base64 of the alphabet for addresses, without padding. Every cursor has one form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Epoch, Position};

/// The version of the form above.
const VERSION: u8 = 1;

/// The application whose topics these are.
const APPLICATION: [u8; 4] = fnv_32(b"default").to_le_bytes();

const HASH_BYTES: usize = 8;
const EPOCH_BYTES: usize = 6;
const OFFSET_BYTES_MAX: usize = 10;
const PLACE_BYTES_MAX: usize = HASH_BYTES + EPOCH_BYTES + OFFSET_BYTES_MAX;
const HEADER_BYTES: usize = 1 + APPLICATION.len();
const BYTES_MAX: usize = HEADER_BYTES + Cursor::TOPICS_MAX * PLACE_BYTES_MAX;

const _: () = assert!(base64_bytes(BYTES_MAX) <= Cursor::TEXT_BYTES_MAX);

/// The places of a client in the streams of its topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Each with the hash of its topic's name.
    places: Vec<(u64, Position)>,
}

/// The place of a topic in a cursor, of which no topic was added since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(usize);

/// A text that is a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Cursor(Cursor),
    /// One whose places cannot be read, such as one of another version of the server.
    OtherVersion,
}

/// The reason why a text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    #[error("cursor: longer than {} bytes", Cursor::TEXT_BYTES_MAX)]
    TooLong,
    #[error("cursor: send one as an answer of this server had it")]
    Malformed,
    #[error("cursor: of another application")]
    OtherApplication,
}

impl Cursor {
    /// Topics of which it holds the places.
    pub const TOPICS_MAX: usize = 16;

    /// The longest text that is looked at.
    pub const TEXT_BYTES_MAX: usize = 520;

    /// The longest text of the place in one topic.
    pub const ONE_BYTES_MAX: usize = base64_bytes(HEADER_BYTES + PLACE_BYTES_MAX);

    /// Notes the place in a topic's stream. Once it holds as many as may be, further topics are left out.
    pub fn set(&mut self, topic: &str, at: Position) {
        let hash = fnv_64(topic.as_bytes());
        if let Some((_, place)) = self.places.iter_mut().find(|(known, _)| *known == hash) {
            *place = at;
        } else if self.places.len() < Self::TOPICS_MAX {
            self.places.push((hash, at));
        }
    }

    /// Moves on in a topic's stream, if the cursor has a place there.
    pub fn advance(&mut self, topic: &str, at: Position) {
        if let Some(place) = self.place(topic) {
            self.advance_at(place, at);
        }
    }

    /// Returns the place of a topic, if the cursor has it: who moves on there often looks for it once.
    pub fn place(&self, topic: &str) -> Option<Place> {
        let hash = fnv_64(topic.as_bytes());
        self.places.iter().position(|(known, _)| *known == hash).map(Place)
    }

    /// Moves on at a place of this cursor.
    pub fn advance_at(&mut self, place: Place, at: Position) {
        if let Some((_, known)) = self.places.get_mut(place.0) {
            *known = at;
        }
    }

    /// Returns true if it holds the place of one topic alone.
    pub fn is_of_one(&self) -> bool {
        self.places.len() == 1
    }

    /// Returns the place in a topic's stream, if the cursor has it.
    pub fn position(&self, topic: &str) -> Option<Position> {
        let Place(place) = self.place(topic)?;
        self.places.get(place).map(|(_, position)| *position)
    }

    /// Appends the text of the cursor.
    pub fn write(&self, to: &mut Vec<u8>) {
        let mut bytes = Bytes::new();
        for (hash, at) in &self.places {
            bytes.add(*hash, *at);
        }
        bytes.write(to);
    }

    /// Returns the text of the cursor.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        self.write(&mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    /// Appends the text of the cursor that holds one topic's place.
    pub fn write_one(topic: &str, at: Position, to: &mut Vec<u8>) {
        let mut bytes = Bytes::new();
        bytes.add(fnv_64(topic.as_bytes()), at);
        bytes.write(to);
    }

    /// Reads a text. Every cursor is written as the text that it was read from.
    pub fn parse(text: &str) -> Result<Parsed, CursorError> {
        if text.len() > Self::TEXT_BYTES_MAX {
            return Err(CursorError::TooLong);
        }
        let mut bytes = [0; Self::TEXT_BYTES_MAX.div_ceil(4) * 3];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| CursorError::Malformed)?;
        let (version, rest) = bytes[..length].split_first().ok_or(CursorError::Malformed)?;
        if *version != VERSION {
            return Ok(Parsed::OtherVersion);
        }
        let (application, places) = rest.split_first_chunk().ok_or(CursorError::Malformed)?;
        if *application != APPLICATION {
            return Err(CursorError::OtherApplication);
        }
        Ok(Parsed::Cursor(Self { places: read_places(places).ok_or(CursorError::Malformed)? }))
    }
}

fn read_places(mut bytes: &[u8]) -> Option<Vec<(u64, Position)>> {
    let mut places = Vec::new();
    while !bytes.is_empty() {
        let (hash, rest) = bytes.split_first_chunk()?;
        let hash = u64::from_le_bytes(*hash);
        let (epoch, rest) = rest.split_first_chunk::<EPOCH_BYTES>()?;
        let mut number = [0; 8];
        number[..EPOCH_BYTES].copy_from_slice(epoch);
        let epoch = Epoch::from_number(u64::from_le_bytes(number))?;
        let (offset, rest) = read_offset(rest)?;
        if places.len() == Cursor::TOPICS_MAX || places.iter().any(|(known, _)| *known == hash) {
            return None;
        }
        places.push((hash, Position { epoch, offset }));
        bytes = rest;
    }
    Some(places)
}

/// Reads an offset in its shortest form.
fn read_offset(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut offset = 0;
    for (index, byte) in bytes.iter().take(OFFSET_BYTES_MAX).enumerate() {
        let (bits, shift) = (u64::from(byte & 0x7F), 7 * index as u32);
        let shifted = bits << shift;
        if shifted >> shift != bits {
            return None;
        }
        offset |= shifted;
        if byte & 0x80 == 0 {
            let is_shortest = *byte != 0 || index == 0;
            return is_shortest.then_some((offset, &bytes[index + 1..]));
        }
    }
    None
}

/// The bytes of a cursor, before they are made a text.
struct Bytes {
    bytes: [u8; BYTES_MAX],
    length: usize,
}

impl Bytes {
    fn new() -> Self {
        let mut new = Self { bytes: [0; BYTES_MAX], length: 0 };
        new.append(&[VERSION]);
        new.append(&APPLICATION);
        new
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn add(&mut self, hash: u64, at: Position) {
        self.append(&hash.to_le_bytes());
        self.append(&at.epoch.number().to_le_bytes()[..EPOCH_BYTES]);
        let mut offset = at.offset;
        while offset > 0x7F {
            self.append(&[offset as u8 | 0x80]);
            offset >>= 7;
        }
        self.append(&[offset as u8]);
    }

    fn write(&self, to: &mut Vec<u8>) {
        let start = to.len();
        to.resize(start + base64_bytes(self.length), 0);
        let written = URL_SAFE_NO_PAD.encode_slice(&self.bytes[..self.length], &mut to[start..]);
        debug_assert_eq!(written, Ok(to.len() - start));
    }
}

/// The length of so many bytes in Base64 without padding.
const fn base64_bytes(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

const fn fnv_32(text: &[u8]) -> u32 {
    let (mut hash, mut at) = (0x811C_9DC5_u32, 0);
    while at < text.len() {
        hash = (hash ^ text[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

fn fnv_64(text: &[u8]) -> u64 {
    let hashed = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    text.iter().fold(0xCBF2_9CE4_8422_2325, hashed)
}
