//! From a client's frame to its commands, one at a time and in order.
//!
//! A frame is read only as far as the caller asks, so a frame of many commands costs no more than the caller allows;
//! after the first malformed one nothing more comes.

use std::fmt;

use prost::Message as _;
use serde_json::StreamDeserializer;
use serde_json::de::SliceRead;

use super::command::*;
use super::encoding::Encoding;
use crate::json;
use crate::request::Malformed;

/// The commands in one frame.
///
/// JSON: objects with a line break, or any white space, between them. Protobuf: messages, each after its length as
/// a varint. A frame without a command is malformed.
pub fn commands(encoding: Encoding, frame: &[u8]) -> Commands<'_> {
    let refused = match encoding {
        Encoding::Json if json::is_too_deep(frame) => Some("JSON nested too deep"),
        Encoding::Json if frame.trim_ascii().is_empty() => Some("no command"),
        Encoding::Protobuf if frame.is_empty() => Some("no command"),
        Encoding::Json | Encoding::Protobuf => None,
    };
    match refused {
        Some(why) => Commands { frame, begin: 0, rest: Rest::Refused(Malformed::because(why)) },
        None => Commands::over(encoding, frame, 0),
    }
}

/// Goes on with a frame of which another iterator has taken so many bytes; see [`Commands::taken`]. What was found
/// good of the frame as a whole is not looked at again, so it costs nothing to stop after each command.
pub fn commands_from(encoding: Encoding, frame: &[u8], taken: usize) -> Commands<'_> {
    if taken == 0 { commands(encoding, frame) } else { Commands::over(encoding, frame, taken) }
}

/// Iterates over the commands of a frame; see [`commands`].
pub struct Commands<'a> {
    frame: &'a [u8],
    /// The offset in the frame at which `rest` begins.
    begin: usize,
    rest: Rest<'a>,
}

enum Rest<'a> {
    Json(StreamDeserializer<'a, SliceRead<'a>, Command>),
    Protobuf(&'a [u8]),
    /// The reason is yet to be told.
    Refused(Malformed),
    Nothing,
}

impl<'a> Commands<'a> {
    fn over(encoding: Encoding, frame: &'a [u8], begin: usize) -> Self {
        let rest = frame.get(begin..).unwrap_or_default();
        let rest = match encoding {
            Encoding::Json => Rest::Json(serde_json::Deserializer::from_slice(rest).into_iter()),
            Encoding::Protobuf => Rest::Protobuf(rest),
        };
        Self { frame, begin, rest }
    }

    /// Returns the bytes of the frame that the commands so far took, with the white space behind them: none before
    /// the first, all when no other follows.
    pub fn taken(&self) -> usize {
        match &self.rest {
            Rest::Json(commands) => match self.begin + commands.byte_offset() {
                0 => 0,
                end => self.frame.len() - self.frame[end..].trim_ascii_start().len(),
            },
            Rest::Protobuf(rest) => self.frame.len() - rest.len(),
            Rest::Refused(_) => 0,
            Rest::Nothing => self.frame.len(),
        }
    }
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let command = match &mut self.rest {
            Rest::Json(commands) => {
                match self.frame[self.begin + commands.byte_offset()..].trim_ascii_start().first() {
                    // The derived code would take an array as a command's fields in order.
                    Some(b'{') => {
                        commands.next()?.map_err(|error| not_json(&self.frame[..self.begin], &error))
                    }
                    Some(_) => Err(Malformed::because("not a JSON object")),
                    None => return None,
                }
            }
            Rest::Protobuf([]) => return None,
            Rest::Protobuf(rest) => next_protobuf(rest),
            Rest::Refused(malformed) => Err(malformed.clone()),
            Rest::Nothing => return None,
        };
        if command.is_err() {
            self.rest = Rest::Nothing;
        }
        Some(command)
    }
}

impl fmt::Debug for Commands<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands").finish_non_exhaustive()
    }
}

fn next_protobuf(rest: &mut &[u8]) -> Result<Command, Malformed> {
    let length = prost::decode_length_delimiter(&mut *rest)
        .map_err(|_| Malformed::because("length is not a varint"))?;
    let Some((message, after)) = rest.split_at_checked(length) else {
        return Err(Malformed::because("length reaches beyond the frame"));
    };
    *rest = after;
    // Its text names our fields and never repeats what came.
    Command::decode(message).map_err(|error| Malformed::because(error.to_string()))
}

/// Reads a connect request that stands alone, as clients that only listen send it. No bytes are a request without fields.
pub fn connect_request(message: &[u8]) -> Result<ConnectRequest, Malformed> {
    if json::is_too_deep(message) {
        return Err(Malformed::because("JSON nested too deep"));
    }
    match message.trim_ascii_start().first() {
        // The derived code would take an array as the fields in order.
        Some(b'{') => serde_json::from_slice(message).map_err(|error| not_json(b"", &error)),
        Some(_) => Err(Malformed::because("not a JSON object")),
        None => Ok(ConnectRequest::default()),
    }
}

/// The error counts from the end of `before`, and clients count from the begin of their frame.
fn not_json(before: &[u8], error: &serde_json::Error) -> Malformed {
    let what = if error.is_data() { "field of a wrong type" } else { "not JSON" };
    let line = error.line() + before.iter().filter(|byte| **byte == b'\n').count();
    let column = match error.line() {
        1 => error.column() + before.iter().rev().take_while(|byte| **byte != b'\n').count(),
        _ => error.column(),
    };
    Malformed::because(format!("{what} at line {line} column {column}"))
}
