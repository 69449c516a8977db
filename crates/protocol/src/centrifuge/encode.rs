//! From a reply to the bytes of one message.

use prost::Message as _;

use super::encoding::Encoding;
use super::reply_message::ReplyMessage;
use crate::json;

/// Appends a reply: in JSON the object alone, so that whoever joins several puts a line break between them; in
/// Protobuf the message after its length. Every reply has a form in both, whatever bytes its payloads are.
pub fn encode(encoding: Encoding, reply: &ReplyMessage, to: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => json::write(reply, to),
        Encoding::Protobuf => {
            let length = reply.encoded_len();
            to.reserve(length + prost::length_delimiter_len(length));
            reply.encode_length_delimited(to).expect("a vector has room for any message");
        }
    }
}
