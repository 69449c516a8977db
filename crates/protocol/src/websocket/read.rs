//! The reader: a stream of bytes from one client, in pieces of any size, to its messages.
//!
//! Between two messages it holds nothing. A frame that is complete in the bytes at hand is unmasked and handed over
//! where it lies; only what is incomplete is copied, and only as much of it as has arrived. A compressed message is
//! inflated once it is whole, by an inflater that all connections of a thread share.

use std::mem;
use std::ops::ControlFlow;

use super::deflate::{InflateError, Inflater};
use super::mask::mask;
use super::utf8::{NotUtf8, TextInPieces};
use super::write::DEFLATED;
use super::{CONTROL_BYTES_MAX, Opcode};

/// One message, its fragments joined and its text known to be UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The code and the reason, if the peer gave any.
    Close(Option<(u16, &'a str)>),
}

impl Message<'_> {
    /// Returns the length of its payload; inflated, if it was compressed.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Ping(bytes) | Self::Pong(bytes) => bytes.len(),
            Self::Close(None) => 0,
            Self::Close(Some((_, reason))) => size_of::<u16>() + reason.len(),
        }
    }
}

/// The bounds of what a peer may make the reader hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest text or binary message, all its fragments together. A compressed one has to keep it twice: as it
    /// comes, and inflated.
    pub message_bytes_max: usize,
}

/// The reasons for which a message is the last that a call hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The connection is not read any further.
    End,
    /// The bytes behind it are read later.
    Pause,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message_bytes_max: 64 * 1024 }
    }
}

/// A breach of the protocol by a peer. The connection is to be closed with `close_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    #[error("frame is not masked")]
    NotMasked,
    #[error("reserved bit is set")]
    ReservedBit,
    #[error("reserved opcode")]
    ReservedOpcode,
    #[error("control frame is fragmented")]
    ControlFragmented,
    #[error("control frame is longer than 125 bytes")]
    ControlTooLong,
    #[error("frame length is not in its shortest form")]
    LengthNotMinimal,
    #[error("frame length has its highest bit set")]
    LengthTooLarge,
    #[error("continuation without a message")]
    NothingToContinue,
    #[error("new message inside a fragmented one")]
    MessageUnfinished,
    #[error("close frame with half a code")]
    ClosePayload,
    #[error("close code is not valid")]
    CloseCode,
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("message too big")]
    TooBig,
    #[error("message is not deflate data")]
    NotDeflate,
}

impl Violation {
    /// RFC 6455 section 7.4.1.
    pub fn close_code(self) -> u16 {
        match self {
            Self::NotUtf8 | Self::NotDeflate => 1007,
            Self::TooBig => 1009,
            _ => 1002,
        }
    }
}

impl From<NotUtf8> for Violation {
    fn from(_: NotUtf8) -> Self {
        Self::NotUtf8
    }
}

impl From<InflateError> for Violation {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::NotDeflate => Self::NotDeflate,
            InflateError::TooBig => Self::TooBig,
        }
    }
}

/// The state of one connection between two reads: nothing, unless a frame or a message is incomplete.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Option<Box<Partial>>,
}

// A shard holds one reader for every idle connection.
const _: () = assert!(size_of::<Reader>() == size_of::<usize>());

impl Reader {
    /// Takes `bytes`, which continue where the bytes of the last call ended, and calls `on` with every message that
    /// they complete. `bytes` are unmasked in place. With an inflater, which is to be given always or never, messages
    /// may be compressed.
    ///
    /// Returns how many bytes at the end were not taken, and are as they came: none, unless `on` paused. When `on` ends,
    /// or a rule is violated, nothing of the stream is kept and the rest of `bytes` is dropped: the connection must
    /// not be read any further.
    pub fn read(
        &mut self,
        bytes: &mut [u8],
        limits: Limits,
        inflater: Option<&mut Inflater>,
        on: &mut dyn FnMut(Message<'_>) -> ControlFlow<Stop>,
    ) -> Result<usize, Violation> {
        let outcome = self.read_frames(bytes, limits, inflater, on);
        if !matches!(outcome, Ok(ControlFlow::Continue(()) | ControlFlow::Break((Stop::Pause, _)))) {
            self.partial = None;
        }
        Ok(match outcome? {
            ControlFlow::Break((Stop::Pause, rest)) => rest,
            ControlFlow::Break((Stop::End, _)) | ControlFlow::Continue(()) => 0,
        })
    }

    fn read_frames(
        &mut self,
        mut bytes: &mut [u8],
        limits: Limits,
        mut inflater: Option<&mut Inflater>,
        on: &mut dyn FnMut(Message<'_>) -> ControlFlow<Stop>,
    ) -> Result<ControlFlow<(Stop, usize)>, Violation> {
        while !bytes.is_empty() {
            let mut frame = match self.partial.as_mut().and_then(|partial| partial.frame.take()) {
                Some(frame) => frame,
                None => match self.read_header(&mut bytes)? {
                    Some(frame) => {
                        self.admit(&frame, limits, inflater.is_some())?;
                        frame
                    }
                    None => break,
                },
            };

            let available = frame.missing.min(bytes.len() as u64) as usize;
            let (piece, rest) = bytes.split_at_mut(available);
            bytes = rest;
            frame.unmask(piece);
            if frame.missing > 0 {
                self.keep(frame, piece)?;
            } else if let ControlFlow::Break(stop) =
                self.finish(frame, piece, limits, inflater.as_deref_mut(), on)?
            {
                return Ok(ControlFlow::Break((stop, bytes.len())));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Takes a header off the front of `bytes`, which are not empty. `None` when all of them were too few for it.
    fn read_header(&mut self, bytes: &mut &mut [u8]) -> Result<Option<Frame>, Violation> {
        let Some(partial) = self.partial.as_mut().filter(|partial| !partial.header.is_empty()) else {
            let Some((frame, length)) = Frame::parse(bytes)? else {
                let partial = self.partial.get_or_insert_default();
                partial.header.extend(bytes);
                return Ok(None);
            };
            *bytes = &mut mem::take(bytes)[length..];
            return Ok(Some(frame));
        };
        // A header that was cut is rare and at most 14 bytes long, so it may as well be tried anew with each byte.
        for index in 0..bytes.len() {
            partial.header.extend(&bytes[index..=index]);
            if let Some((frame, _)) = Frame::parse(partial.header.as_bytes())? {
                partial.header = HeaderInPieces::default();
                *bytes = &mut mem::take(bytes)[index + 1..];
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Judges a frame by its header and by what came before it.
    fn admit(&self, frame: &Frame, limits: Limits, may_be_deflated: bool) -> Result<(), Violation> {
        // Only the first frame of a message says that it is compressed (RFC 7692 section 6.1).
        let may_say_deflated = may_be_deflated && matches!(frame.opcode, Opcode::Text | Opcode::Binary);
        if frame.is_deflated && !may_say_deflated {
            return Err(Violation::ReservedBit);
        }
        if frame.opcode.is_control() {
            return Ok(());
        }
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        let assembled = match (frame.opcode, message) {
            (Opcode::Continuation, Some(message)) => message.len(),
            (Opcode::Continuation, None) => return Err(Violation::NothingToContinue),
            (_, Some(_)) => return Err(Violation::MessageUnfinished),
            (_, None) => 0,
        };
        let room = limits.message_bytes_max.saturating_sub(assembled);
        if frame.missing > room as u64 { Err(Violation::TooBig) } else { Ok(()) }
    }

    /// Holds on to a frame of which more has to come.
    fn keep(&mut self, frame: Frame, piece: &[u8]) -> Result<(), Violation> {
        let partial = self.partial.get_or_insert_default();
        if frame.opcode.is_control() {
            partial.control.extend_from_slice(piece);
        } else if !piece.is_empty() {
            partial.message.get_or_insert_with(|| MessageInPieces::new(&frame)).push(piece)?;
        }
        partial.frame = Some(frame);
        Ok(())
    }

    /// Handles the last or only piece of a frame, and lets go of everything when nothing remains incomplete.
    fn finish(
        &mut self,
        frame: Frame,
        piece: &[u8],
        limits: Limits,
        inflater: Option<&mut Inflater>,
        on: &mut dyn FnMut(Message<'_>) -> ControlFlow<Stop>,
    ) -> Result<ControlFlow<Stop>, Violation> {
        let flow = if frame.opcode.is_control() {
            let mut held =
                self.partial.as_mut().map(|partial| mem::take(&mut partial.control)).unwrap_or_default();
            if held.is_empty() {
                on(control_message(frame.opcode, piece)?)
            } else {
                held.extend_from_slice(piece);
                on(control_message(frame.opcode, &held)?)
            }
        } else {
            match self.partial.as_mut().and_then(|partial| partial.message.take()) {
                None if frame.is_final && frame.is_deflated => {
                    on(inflated_message(frame.opcode, piece, limits, inflater)?)
                }
                None if frame.is_final => on(data_message(frame.opcode, piece)?),
                held => {
                    let mut message = held.unwrap_or_else(|| MessageInPieces::new(&frame));
                    message.push(piece)?;
                    if frame.is_final {
                        on(message.finish(limits, inflater)?)
                    } else {
                        self.partial.get_or_insert_default().message = Some(message);
                        ControlFlow::Continue(())
                    }
                }
            }
        };
        // At the end of a frame there is neither a cut header nor half a control frame.
        self.partial.take_if(|partial| partial.message.is_none());
        Ok(flow)
    }
}

/// The incomplete part of the stream.
#[derive(Debug, Default)]
struct Partial {
    header: HeaderInPieces,
    /// The frame whose payload is arriving.
    frame: Option<Frame>,
    /// The bytes that have come of that frame, when it is a control frame: at most 125.
    control: Vec<u8>,
    /// The message to which that frame, or the next, belongs.
    message: Option<MessageInPieces>,
}

/// A frame as its header announced it.
#[derive(Debug)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    /// It begins a compressed message.
    is_deflated: bool,
    /// Payload bytes yet to come.
    missing: u64,
    /// The masking key, turned so that its first byte belongs to the next payload byte.
    key: [u8; 4],
}

impl Frame {
    /// The longest header: two bytes, a 64-bit length, the masking key.
    const HEADER_BYTES_MAX: usize = 14;

    /// Reads a header and tells its length; `None` when there are too few bytes. RFC 6455 section 5.2.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        if first & 0b0011_0000 != 0 {
            return Err(Violation::ReservedBit);
        }
        let opcode = Opcode::from_bits(first & 0b1111).ok_or(Violation::ReservedOpcode)?;
        let is_final = first & 0b1000_0000 != 0;
        if second & 0b1000_0000 == 0 {
            return Err(Violation::NotMasked);
        }
        let short = second & 0b0111_1111;
        if opcode.is_control() {
            if !is_final {
                return Err(Violation::ControlFragmented);
            }
            if usize::from(short) > CONTROL_BYTES_MAX {
                return Err(Violation::ControlTooLong);
            }
        }

        let (missing, rest) = match short {
            126 => {
                let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*length), rest)
            }
            _ => (u64::from(short), rest),
        };
        if missing >> 63 != 0 {
            return Err(Violation::LengthTooLarge);
        }
        if (short == 126 && missing < 126) || (short == 127 && missing <= 0xFFFF) {
            return Err(Violation::LengthNotMinimal);
        }
        let Some((key, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let is_deflated = first & DEFLATED != 0;
        Ok(Some((Self { opcode, is_final, is_deflated, missing, key: *key }, bytes.len() - rest.len())))
    }

    /// Unmasks the next piece of the payload (RFC 6455 section 5.3).
    fn unmask(&mut self, piece: &mut [u8]) {
        mask(piece, self.key);
        self.key.rotate_left(piece.len() % 4);
        self.missing -= piece.len() as u64;
    }
}

/// The first bytes of a header that has not fully arrived.
#[derive(Debug, Default)]
struct HeaderInPieces {
    bytes: [u8; Frame::HEADER_BYTES_MAX],
    length: usize,
}

impl HeaderInPieces {
    fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The caller parses after every byte or before the first, so there is always room.
    fn extend(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}

/// The payload so far of a message in several frames, or of a frame in several pieces.
#[derive(Debug)]
enum MessageInPieces {
    Text(TextInPieces),
    Binary(Vec<u8>),
    /// Kept as it came: what it becomes is made when it is whole.
    Deflated(Opcode, Vec<u8>),
}

impl MessageInPieces {
    /// A message is of the kind its first frame says.
    fn new(first: &Frame) -> Self {
        match first.opcode {
            opcode if first.is_deflated => Self::Deflated(opcode, Vec::new()),
            Opcode::Text => Self::Text(TextInPieces::default()),
            _ => Self::Binary(Vec::new()),
        }
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), NotUtf8> {
        match self {
            Self::Text(text) => text.push(piece),
            Self::Binary(bytes) | Self::Deflated(_, bytes) => {
                bytes.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    fn finish<'m>(
        &'m self,
        limits: Limits,
        inflater: Option<&'m mut Inflater>,
    ) -> Result<Message<'m>, Violation> {
        Ok(match self {
            Self::Text(text) => Message::Text(text.finish()?),
            Self::Binary(bytes) => Message::Binary(bytes),
            Self::Deflated(opcode, bytes) => inflated_message(*opcode, bytes, limits, inflater)?,
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Deflated(_, bytes) => bytes.len(),
        }
    }
}

fn data_message(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Message::Text(std::str::from_utf8(payload).map_err(|_| NotUtf8)?),
        _ => Message::Binary(payload),
    })
}

fn inflated_message<'m>(
    opcode: Opcode,
    payload: &[u8],
    limits: Limits,
    inflater: Option<&'m mut Inflater>,
) -> Result<Message<'m>, Violation> {
    let inflater = inflater.ok_or(Violation::ReservedBit)?;
    data_message(opcode, inflater.inflate(payload, limits.message_bytes_max)?)
}

fn control_message(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, Violation> {
    match opcode {
        Opcode::Ping => return Ok(Message::Ping(payload)),
        Opcode::Pong => return Ok(Message::Pong(payload)),
        _ => {}
    }
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(Message::Close(None)) } else { Err(Violation::ClosePayload) };
    };
    let code = u16::from_be_bytes(*code);
    if !is_close_code(code) {
        return Err(Violation::CloseCode);
    }
    Ok(Message::Close(Some((code, std::str::from_utf8(reason).map_err(|_| NotUtf8)?))))
}

/// The codes that may stand in a close frame: those registered for it (IANA, RFC 6455 section 11.7), and those left to
/// libraries and applications.
fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
