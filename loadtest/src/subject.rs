//! Subjects as text: a server and its options, as in `fanwire+redis+protobuf`.
//!
//! The text is the subject's name in the report, and parses to the same subject.

use std::fmt;
use std::str::FromStr;

use fanwire_protocol::centrifuge::Encoding;

use crate::dialect::PushFormat;
use crate::measure::process::Placement;

/// A server and its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) server: Server,
    pub(crate) wire: SubjectWire,
    /// permessage-deflate, offered by every client.
    pub(crate) deflate: bool,
    /// Every client has a filter, which takes every other publication.
    pub(crate) filter: bool,
    /// Clients have a cookie in place of a token: the server asks a backend who they are, and keeps it.
    pub(crate) hook: bool,
    /// The events of clients and users are written to Redis.
    pub(crate) events: bool,
    /// The Redis engine, with a Redis of its own.
    pub(crate) redis: bool,
    /// `None`: one, or the scenario's number.
    pub(crate) shards: Option<usize>,
    pub(crate) nodes: usize,
}

/// The servers that this tool knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// A bare loop of `send` calls: the limit of the machine.
    Raw,
    Fanwire,
    /// An external server of the Centrifuge protocol.
    Centrifuge,
    Nchan,
    Nats,
    Ws,
    SocketIo,
}

/// The wire of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubjectWire {
    /// The Centrifuge protocol over WebSocket.
    Centrifuge(Encoding),
    /// The Centrifuge protocol without WebSocket: lines of JSON, and messages in Protobuf.
    Stream(Encoding),
    /// The pushes of the Centrifuge protocol, for clients that only listen.
    Uni(PushFormat),
    /// Plain HTTP: streams, a WebSocket without a protocol on it, and long polls.
    Plain(PushFormat),
    Poll,
}

/// The options of each wire, in the order of a subject's name. The first is the wire without any.
const WIRES: &[(&[&str], SubjectWire)] = &[
    (&[], SubjectWire::Centrifuge(Encoding::Json)),
    (&["protobuf"], SubjectWire::Centrifuge(Encoding::Protobuf)),
    (&["http_stream"], SubjectWire::Stream(Encoding::Json)),
    (&["http_stream", "protobuf"], SubjectWire::Stream(Encoding::Protobuf)),
    (&["uni_sse"], SubjectWire::Uni(PushFormat::Events)),
    (&["uni_http_stream"], SubjectWire::Uni(PushFormat::Lines)),
    (&["uni_websocket"], SubjectWire::Uni(PushFormat::WebSocket)),
    (&["sse"], SubjectWire::Plain(PushFormat::Events)),
    (&["ndjson"], SubjectWire::Plain(PushFormat::Lines)),
    (&["bare"], SubjectWire::Plain(PushFormat::WebSocket)),
    (&["poll"], SubjectWire::Poll),
];

impl SubjectWire {
    fn options(self) -> &'static [&'static str] {
        WIRES.iter().find(|(_, wire)| *wire == self).expect("every wire has its options").0
    }

    /// Returns the wire with one option more, in whatever order they come.
    fn with(self, option: &str) -> Option<Self> {
        let wanted: Vec<&str> = self.options().iter().copied().chain([option]).collect();
        let is_wanted = |options: &[&str]| {
            options.len() == wanted.len() && options.iter().all(|option| wanted.contains(option))
        };
        WIRES.iter().find(|(options, _)| is_wanted(options)).map(|(_, wire)| *wire)
    }

    fn is_option(name: &str) -> bool {
        WIRES.iter().any(|(options, _)| options.contains(&name))
    }

    /// Returns true if the topics are in the query of `GET /subscribe`.
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, Self::Plain(_) | Self::Poll)
    }

    /// Returns true if replies come by a response, and commands go by other requests.
    pub(crate) fn is_emulated(self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// Returns the encoding; all but the Centrifuge protocol in Protobuf is JSON.
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Self::Centrifuge(encoding) | Self::Stream(encoding) => encoding,
            Self::Uni(_) | Self::Plain(_) | Self::Poll => Encoding::Json,
        }
    }

    /// Returns the wire of the Centrifuge protocol over WebSocket that has the same encoding.
    pub(crate) fn over_websocket(self) -> Self {
        Self::Centrifuge(self.encoding())
    }
}

const SERVERS: [(&str, Server); 7] = [
    ("raw", Server::Raw),
    ("fanwire", Server::Fanwire),
    ("centrifuge", Server::Centrifuge),
    ("nchan", Server::Nchan),
    ("nats", Server::Nats),
    ("ws", Server::Ws),
    ("socketio", Server::SocketIo),
];

/// More threads or nodes than this make no sense on one machine.
const SHARDS_MAX: usize = 256;
const NODES_MAX: usize = 16;

impl Subject {
    /// Returns the server without options.
    pub(crate) fn plain(server: Server) -> Self {
        let wire = SubjectWire::Centrifuge(Encoding::Json);
        Self {
            server,
            wire,
            deflate: false,
            filter: false,
            hook: false,
            events: false,
            redis: false,
            shards: None,
            nodes: 1,
        }
    }

    /// Returns true if a client can connect without a topic. It cannot if the request names the topics.
    pub(crate) fn connects_without_topics(&self) -> bool {
        !self.wire.is_plain() && !matches!(self.server, Server::Raw | Server::Nchan)
    }

    /// Returns true if the subject uses all cores: one with a number of shards does.
    pub(crate) fn placement(&self) -> Placement {
        if self.shards.is_some() { Placement::AllCores } else { Placement::ServerCore }
    }

    fn turn_on(&mut self, feature: &str) -> Result<(), String> {
        let (name, value) =
            feature.split_once('=').map_or((feature, None), |(name, value)| (name, Some(value)));
        let number = |max: usize| {
            let number =
                value.and_then(|value| value.parse().ok()).filter(|number| (1..=max).contains(number));
            number.ok_or_else(|| format!("+{name} needs a number from 1 to {max}, as in +{name}=2"))
        };
        let ours = self.server == Server::Fanwire;
        match name {
            "redis" if ours && value.is_none() => self.redis = true,
            "filter" if ours && value.is_none() => self.filter = true,
            "hook" if ours && value.is_none() => self.hook = true,
            "events" if ours && value.is_none() => self.events = true,
            "shards" if ours || self.server == Server::Raw => self.shards = Some(number(SHARDS_MAX)?),
            "nodes" if ours => self.nodes = number(NODES_MAX)?,
            "protobuf" | "deflate" if !matches!(self.server, Server::Fanwire | Server::Centrifuge) => {
                return Err(format!("+{name} is of servers that speak the Centrifuge protocol"));
            }
            "deflate" if value.is_none() => self.deflate = true,
            "shards" => return Err("+shards is of fanwire and raw".to_owned()),
            "redis" | "nodes" | "filter" | "hook" | "events" if !ours => {
                return Err(format!("+{name} is of fanwire only"));
            }
            _ if SubjectWire::is_option(name) && name != "protobuf" && !ours => {
                return Err(format!("+{name} is of fanwire only"));
            }
            _ if SubjectWire::is_option(name) && value.is_none() => {
                let other = || format!("+{name} does not go with +{}", self.wire.options().join("+"));
                self.wire = self.wire.with(name).ok_or_else(other)?;
            }
            _ => return Err(format!("+{feature} cannot be turned on here")),
        }
        Ok(())
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split('+');
        let name = words.next().unwrap_or_default();
        let (_, server) = SERVERS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
            let known: Vec<&str> = SERVERS.iter().map(|(name, _)| *name).collect();
            format!("{name:?} is none of {}", known.join(", "))
        })?;
        let mut subject = Self::plain(*server);
        for feature in words {
            subject.turn_on(feature)?;
        }
        if subject.nodes > 1 && !subject.redis {
            return Err("+nodes needs +redis: nodes meet in Redis".to_owned());
        }
        if subject.events && !subject.redis {
            return Err("+events needs +redis: events are kept there".to_owned());
        }
        let options = [("deflate", subject.deflate), ("filter", subject.filter), ("hook", subject.hook)];
        if let Some((option, _)) = options.into_iter().find(|(_, is_on)| *is_on)
            && !matches!(subject.wire, SubjectWire::Centrifuge(_))
        {
            let options = subject.wire.options().join("+");
            return Err(format!("+{option} is of the Centrifuge protocol over WebSocket, not of +{options}"));
        }
        Ok(subject)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) =
            SERVERS.iter().find(|(_, server)| *server == self.server).expect("every server has a name");
        formatter.write_str(name)?;
        for option in self.wire.options() {
            write!(formatter, "+{option}")?;
        }
        if self.deflate {
            formatter.write_str("+deflate")?;
        }
        if self.filter {
            formatter.write_str("+filter")?;
        }
        if self.hook {
            formatter.write_str("+hook")?;
        }
        if self.events {
            formatter.write_str("+events")?;
        }
        if self.redis {
            formatter.write_str("+redis")?;
        }
        if let Some(shards) = self.shards {
            write!(formatter, "+shards={shards}")?;
        }
        if self.nodes > 1 {
            write!(formatter, "+nodes={}", self.nodes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_reads_back_from_its_name() {
        for text in [
            "raw",
            "raw+shards=2",
            "fanwire",
            "fanwire+redis",
            "fanwire+sse+shards=2",
            "fanwire+http_stream",
            "fanwire+http_stream+protobuf+redis",
            "fanwire+uni_sse",
            "fanwire+uni_http_stream",
            "fanwire+uni_websocket",
            "fanwire+ndjson",
            "fanwire+bare",
            "fanwire+poll+redis",
            "fanwire+protobuf+deflate+redis+nodes=3",
            "fanwire+filter",
            "fanwire+protobuf+filter+redis",
            "fanwire+events+redis",
            "fanwire+hook",
            "fanwire+protobuf+hook+redis",
            "centrifuge+protobuf",
            "socketio",
        ] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for (text, name) in [
            ("fanwire+redis+sse", "fanwire+sse+redis"),
            ("fanwire+protobuf+http_stream", "fanwire+http_stream+protobuf"),
        ] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "raw+redis",
            "fanwire+",
            "fanwire+shards",
            "fanwire+shards=0",
            "fanwire+nodes=2",
            "fanwire+events",
            "centrifuge+events+redis",
            "fanwire+sse+protobuf",
            "fanwire+sse+deflate",
            "fanwire+sse+filter",
            "centrifuge+filter",
            "fanwire+sse+hook",
            "centrifuge+hook",
            "fanwire+sse+ndjson",
            "fanwire+ndjson+protobuf",
            "fanwire+bare+deflate",
            "fanwire+http_stream+http_stream",
            "fanwire+http_stream=1",
            "centrifuge+http_stream",
            "fanwire+redis=1",
            "ws+deflate",
            "ws+shards=2",
            "centrifuge+redis",
        ] {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
    }
}
