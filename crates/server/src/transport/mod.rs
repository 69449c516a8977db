//! A file for each transport: it checks the request that opens a connection and says how the shard is to speak on it.

pub(crate) mod websocket;
pub(crate) mod emulation;
pub(crate) mod stream;
pub(crate) mod subscribe;
pub(crate) mod publish;
pub(crate) mod heartbeat;
pub(crate) mod probe;
mod token;
mod request_refusal;
pub(crate) mod uni;

mod content_type;
mod limited_body;
pub(crate) mod no_answer;
pub(crate) mod poll;
pub(crate) mod poll_end;
mod stream_head;
pub(crate) mod stream_poll;

use std::collections::VecDeque;
use std::net::TcpStream;
use std::rc::Rc;

use bytes::Bytes;
use fanwire_hub::kept::{Kept, TooLong};
use fanwire_hub::reorder::Reorder;
use fanwire_protocol::TopicName;
use fanwire_protocol::cursor::Parsed;
use fanwire_protocol::reason::{Close, Refused};
use fanwire_protocol::request;
use fanwire_protocol::websocket::Deflate;
use fanwire_protocol::wire::TransportMode;
use hyper::body::Incoming;
use hyper::header::{COOKIE, HeaderMap};
use hyper::{Request, StatusCode};
use rustls::ServerConnection;
use tokio::sync::mpsc;
use uuid::Uuid;

use self::poll::{Poll, Polled};
use crate::accept::admission::ClientNetwork;
use crate::accept::origin::AllowedOrigins;
use crate::body;
use crate::node::Node;
use crate::permit::{AdmissionPermit, PollerPlace};
use crate::request_budget::RequestBudget;
use crate::response::{HttpResponse, later, text};
use crate::stream_pipe::ShardEnd;

/// The things that requests on a shard's listener need.
#[derive(Debug)]
pub(crate) struct Gate {
    pub node: Node,
    pub origins: AllowedOrigins,
    pub shard: usize,
    /// The budget of requests, which leaves the shard time for its clients.
    pub budget: Rc<RequestBudget>,
    pub adopted: mpsc::UnboundedSender<Adopted>,
}

impl Gate {
    /// Gives a socket to the shard.
    pub(crate) fn adopt(&self, adopted: Adopted) {
        // A shard that has ended takes no sockets, and this one closes.
        let _ = self.adopted.send(adopted);
    }

    /// Returns a permit for one more client of this network, or the response that refuses it.
    pub(crate) fn admit(&self, network: ClientNetwork) -> Result<AdmissionPermit, Box<HttpResponse>> {
        // Also while the node shuts down: a refused EventSource does not come back by itself.
        self.node.permits.admit(network, self.node.now()).map_err(|limit| self.reject(limit))
    }

    /// Returns the place of one more client of this network that polls, or the response that refuses it.
    pub(crate) fn admit_poller(&self, network: ClientNetwork) -> Result<PollerPlace, Box<HttpResponse>> {
        self.node.permits.admit_poller(network).map_err(|limit| self.reject(limit))
    }

    /// Returns the response that refuses a poll which is to wait for a session of this node, if there is no room for it.
    pub(crate) fn admit_waiting(&self, node: Uuid) -> Result<(), Box<HttpResponse>> {
        self.node.permits.admit_waiting(node != self.node.id).map_err(|limit| self.reject(limit))
    }

    /// Returns the headers of a request that hooks are sent, or the response that refuses too many of them.
    pub(crate) fn kept_headers(&self, headers: &HeaderMap) -> Result<KeptHeaders, Box<HttpResponse>> {
        let value = |name: &str| {
            let separator = if name == COOKIE.as_str() { "; " } else { ", " };
            let values =
                headers.get_all(name).iter().filter_map(|value| str::from_utf8(value.as_bytes()).ok());
            values.map(str::to_owned).reduce(|all, value| all + separator + &value)
        };
        let kept = Kept::new(&self.node.settings.client.hooks.kept, value).map_err(|TooLong| {
            let why = "The headers that hooks are sent are longer than client.hooks.kept_bytes_max. Send fewer cookies.";
            Box::new(text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why))
        })?;
        Ok((!kept.is_empty()).then(|| Box::new(kept)))
    }

    /// The same of a request whose body is yet to be read.
    pub(crate) fn kept_before_body(
        &self,
        request: Request<Incoming>,
    ) -> Result<(KeptHeaders, Request<Incoming>), Box<HttpResponse>> {
        match self.kept_headers(request.headers()) {
            Ok(kept) => Ok((kept, request)),
            Err(refusal) => Err(Box::new(body::unread(request.into_body(), *refusal))),
        }
    }

    fn reject(&self, limit: &'static str) -> Box<HttpResponse> {
        self.node.counters[self.shard].connections_rejected.add(1);
        Box::new(later(limit))
    }
}

/// The headers of a request that hooks are sent, if it has any.
pub(crate) type KeptHeaders = Option<Box<Kept>>;

/// A request that was routed: answered, or about to become a connection of the shard.
pub(crate) enum Routed {
    Response(HttpResponse),
    Arrival(Arrival),
}

/// The things that become of a socket on a shard.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A connection that stays.
    Opening(Box<Opening>),
    /// A poll that waits.
    Poll(Poll),
}

/// A connection that a request opens.
#[derive(Debug)]
pub(crate) struct Opening {
    pub mode: TransportMode,
    /// The requests that the HTTP request comes to, as a client of another wire would send them. Their ids count from 1.
    pub first: VecDeque<request::Request>,
    pub head: Head,
    /// For a wire that needs one.
    pub state: Option<WireState>,
    /// The agreement on compression.
    pub deflate: Option<Deflate>,
    pub permit: AdmissionPermit,
    /// The headers of the request that hooks are sent.
    pub kept: KeptHeaders,
}

/// The state that a connection keeps for its wire.
#[derive(Debug)]
pub(crate) enum WireState {
    /// The client's commands come by other requests, see [`emulation`].
    Emulated(Reorder),
    /// Messages of the client are published to this topic, if there is one.
    Bare { publish: Option<TopicName> },
    /// The client has no connection that stays, and polls.
    Polled(Polled),
}

/// The response to the request that opens a connection. The shard sends it.
#[derive(Debug)]
pub(crate) enum Head {
    Now(Bytes),
    /// Once all first requests are answered.
    ByAnswers(Box<Responses>),
}

/// The two responses between which the answers to the first requests decide.
#[derive(Debug)]
pub(crate) struct Responses {
    pub accepted: Bytes,
    /// Makes the other, which ends the connection.
    pub refused: fn(&Self, &OpeningRefusal<'_>) -> RefusalResponse,
    /// Lines for its head.
    pub headers: Bytes,
    /// The topics of the first requests, that of id 2 first.
    pub topics: Vec<String>,
    /// The cursor from which the client goes on.
    pub resume: Option<Parsed>,
}

/// The response that ends a connection instead of opening it, and what it says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefusalResponse {
    pub bytes: Bytes,
    pub status: StatusCode,
    pub code: u32,
    pub reason: String,
}

/// The id of the first request that subscribes; the one before it connects.
pub(crate) const FIRST_SUBSCRIBE: u32 = 2;

impl Responses {
    /// Returns the topic that the request of this id is about.
    pub(crate) fn topic(&self, id: u32) -> Option<&str> {
        Some(self.topics.get(id.checked_sub(FIRST_SUBSCRIBE)? as usize)?)
    }
}

/// The reason for which a connection does not open.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OpeningRefusal<'a> {
    /// A reply to the first request of this id.
    Reply(u32, &'a Refused),
    /// The session closed; the id is that of the first request which it was given last, or 0.
    Close(u32, &'a Close),
    /// No topic was asked for, and the token brings none.
    NoTopic,
    /// The client would have a position in more topics than a cursor holds.
    TooManyPositions,
}

impl From<Result<Opening, Box<HttpResponse>>> for Routed {
    fn from(result: Result<Opening, Box<HttpResponse>>) -> Self {
        match result {
            Ok(opening) => Self::Arrival(Arrival::Opening(Box::new(opening))),
            Err(response) => Self::Response(*response),
        }
    }
}

/// A socket, or a stream of HTTP/2, whose HTTP request was its last as such, handed to the shard.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub line: Line,
    /// The bytes that the peer sent after its request.
    pub early: Bytes,
    pub arrival: Arrival,
}

/// The way in which the bytes of a connection come and go.
#[derive(Debug)]
pub(crate) enum Line {
    /// With the TLS session, if the socket is encrypted.
    Socket(TcpStream, Option<Box<ServerConnection>>),
    /// One of many streams on a connection.
    Stream(ShardEnd),
}
