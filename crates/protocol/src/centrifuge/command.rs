//! The messages of a client, one struct for both encodings: prost reads the field numbers, serde the names.
//!
//! In JSON, payload fields (`data`, `info` and their like) are the application's own JSON values, kept byte for byte, or
//! Base64 in a field beside them; see [`crate::json::payload`]. `null` reads as absent.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::filter::FilterNode;
use crate::json;

/// A message of a client: an id of its own choice and one request. Without either it is a pong.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Command {
    #[prost(uint32, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub id: u32,
    #[prost(message, optional, tag = "4")]
    #[serde(deserialize_with = "json::object")]
    pub connect: Option<ConnectRequest>,
    #[prost(message, optional, tag = "5")]
    #[serde(deserialize_with = "json::object")]
    pub subscribe: Option<SubscribeRequest>,
    #[prost(message, optional, tag = "6")]
    #[serde(deserialize_with = "json::object")]
    pub unsubscribe: Option<UnsubscribeRequest>,
    #[prost(message, optional, tag = "7")]
    #[serde(deserialize_with = "json::object")]
    pub publish: Option<PublishRequest>,
    #[prost(message, optional, tag = "8")]
    #[serde(deserialize_with = "json::object")]
    pub presence: Option<PresenceRequest>,
    #[prost(message, optional, tag = "9")]
    #[serde(deserialize_with = "json::object")]
    pub presence_stats: Option<PresenceStatsRequest>,
    #[prost(message, optional, tag = "10")]
    #[serde(deserialize_with = "json::object")]
    pub history: Option<HistoryRequest>,
    #[prost(message, optional, tag = "11")]
    #[serde(deserialize_with = "json::object")]
    pub ping: Option<Empty>,
    #[prost(message, optional, tag = "12")]
    #[serde(deserialize_with = "json::object")]
    pub send: Option<SendRequest>,
    #[prost(message, optional, tag = "13")]
    #[serde(deserialize_with = "json::object")]
    pub rpc: Option<RpcRequest>,
    #[prost(message, optional, tag = "14")]
    #[serde(deserialize_with = "json::object")]
    pub refresh: Option<RefreshRequest>,
    #[prost(message, optional, tag = "15")]
    #[serde(deserialize_with = "json::object")]
    pub sub_refresh: Option<SubRefreshRequest>,
}

/// A message without fields.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
pub struct Empty {}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct ConnectRequest {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub token: String,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(deserialize_with = "json::payload::deserialize")]
    pub data: Bytes,
    #[prost(map = "string, message", tag = "3")]
    #[serde(deserialize_with = "json::objects")]
    pub subs: HashMap<String, SubscribeRequest>,
    #[prost(string, tag = "4")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub name: String,
    #[prost(string, tag = "5")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub version: String,
    #[prost(map = "string, string", tag = "6")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub headers: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct SubscribeRequest {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub channel: String,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub token: String,
    #[prost(bool, tag = "3")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub recover: bool,
    #[prost(string, tag = "6")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub epoch: String,
    #[prost(uint64, tag = "7")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub offset: u64,
    #[prost(bytes = "bytes", tag = "8")]
    #[serde(deserialize_with = "json::payload::deserialize")]
    pub data: Bytes,
    #[prost(bool, tag = "9")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub positioned: bool,
    #[prost(bool, tag = "10")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub recoverable: bool,
    #[prost(bool, tag = "11")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub join_leave: bool,
    #[prost(string, tag = "12")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub delta: String,
    #[prost(message, optional, boxed, tag = "13")]
    #[serde(deserialize_with = "json::object")]
    pub tf: Option<Box<FilterNode>>,
    /// Bit 2 asks for error 112 instead of an unrecovered result; other bits are ignored.
    #[prost(int64, tag = "14")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub flag: i64,
    /// 0 is a stream; the map family (1 to 3) and shared poll (4) are not served.
    #[prost(int32, tag = "15")]
    #[serde(rename = "type", deserialize_with = "json::null_is_default")]
    pub kind: i32,
}

impl SubscribeRequest {
    /// `flag` bit: answer error 112 when the position cannot be recovered.
    pub const FLAG_REJECT_UNRECOVERED: i64 = 2;
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct UnsubscribeRequest {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub channel: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct PublishRequest {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub channel: String,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(deserialize_with = "json::payload::deserialize")]
    pub data: Bytes,
    #[prost(int32, tag = "3")]
    #[serde(rename = "type", deserialize_with = "json::null_is_default")]
    pub kind: i32,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct PresenceRequest {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub channel: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct PresenceStatsRequest {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub channel: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct HistoryRequest {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub channel: String,
    /// 0: the position only; negative: as many as the server allows.
    #[prost(int32, tag = "7")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub limit: i32,
    #[prost(message, optional, tag = "8")]
    #[serde(deserialize_with = "json::object")]
    pub since: Option<StreamPositionMessage>,
    #[prost(bool, tag = "9")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub reverse: bool,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamPositionMessage {
    #[prost(uint64, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub offset: u64,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub epoch: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct SendRequest {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(deserialize_with = "json::payload::deserialize")]
    pub data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct RpcRequest {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(deserialize_with = "json::payload::deserialize")]
    pub data: Bytes,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub method: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct RefreshRequest {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub token: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct SubRefreshRequest {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub channel: String,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub token: String,
    /// 0 refreshes the token; tracking (1, 2) belongs to shared poll, which is not served.
    #[prost(int32, tag = "3")]
    #[serde(rename = "type", deserialize_with = "json::null_is_default")]
    pub kind: i32,
}
