//! From a reply to the bytes of one message. What cannot be written leaves no trace.

use prost::Message as _;

use super::message::Reply;
use super::{Encoding, Unencodable};
use crate::json;

/// Appends a reply: in JSON the object alone, so that whoever joins several puts a line break between them; in
/// Protobuf the message after its length. Fails, only in JSON, when a payload in it is not JSON.
pub fn encode(encoding: Encoding, reply: &Reply, to: &mut Vec<u8>) -> Result<(), Unencodable> {
    match encoding {
        Encoding::Json => json::write(reply, to),
        Encoding::Protobuf => {
            let length = reply.encoded_len();
            to.reserve(length + prost::length_delimiter_len(length));
            reply.encode_length_delimited(to).expect("a vector has room for any message");
            Ok(())
        }
    }
}
