//! The body of a request that carries a client's commands beside the stream with its replies.

use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Deserializer};

use super::encoding::Encoding;
use crate::json::{Object, null_is_default};
use crate::request::Malformed;

/// Commands of a session, with the names of the session and of its node as its connect result has them.
#[derive(Clone, PartialEq, Deserialize, prost::Message)]
#[serde(default)]
pub struct EmulationRequest {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_is_default")]
    pub node: String,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "null_is_default")]
    pub session: String,
    /// In JSON a text, in which the commands stand as in a frame.
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(deserialize_with = "text")]
    pub data: Bytes,
}

impl EmulationRequest {
    /// Reads a body, of which no field may be missing.
    pub fn decode_body(encoding: Encoding, body: &Bytes) -> Result<Self, Malformed> {
        let request = match encoding {
            Encoding::Json => from_json(body)?,
            // Its text names our fields and never repeats what came.
            Encoding::Protobuf => {
                Self::decode(body.clone()).map_err(|error| Malformed::because(error.to_string()))?
            }
        };
        let fields =
            [(request.node.len(), "node"), (request.session.len(), "session"), (request.data.len(), "data")];
        match fields.into_iter().find(|(bytes, _)| *bytes == 0) {
            Some((_, field)) => Err(Malformed::because(format!("the field \"{field}\" is missing"))),
            None => Ok(request),
        }
    }
}

fn from_json(body: &[u8]) -> Result<EmulationRequest, Malformed> {
    serde_json::from_slice(body).map(|Object(request)| request).map_err(|error| {
        let what = if error.is_data() { "no object, or a field of a wrong type" } else { "not JSON" };
        Malformed::because(format!("{what} at line {} column {}", error.line(), error.column()))
    })
}

fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    Ok(null_is_default::<D, String>(from)?.into())
}
