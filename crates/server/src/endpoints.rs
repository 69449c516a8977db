//! The endpoints of the client port: one list, which the routes, the check of the configuration and the text of `--dev`
//! share. A new endpoint has its row here and its arm in `route.rs`.

use crate::settings::Settings;

/// A transport, or another address for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    WebSocket,
    /// The echo of protocol test suites.
    Echo,
    Subscribe,
    Publish,
    Heartbeat,
    HttpStream,
    Sse,
    Emulation,
    Probe,
    UniWebSocket,
    UniHttpStream,
    UniSse,
}

/// An endpoint that is served.
#[derive(Clone, Copy, Debug)]
pub struct ServedEndpoint<'s> {
    pub endpoint: Endpoint,
    /// The setting that holds the path.
    pub setting: &'static str,
    pub path: &'s str,
}

impl Settings {
    /// The endpoints that are served.
    pub fn endpoints(&self) -> impl Iterator<Item = ServedEndpoint<'_>> {
        let heartbeat_path = self.status.as_ref().and_then(|status| status.heartbeat_path.as_ref());
        let rows = [
            (Endpoint::WebSocket, "websocket.path", Some(&self.websocket.path)),
            (Endpoint::Echo, "websocket.echo_path", self.websocket.echo_path.as_ref()),
            (Endpoint::Subscribe, "subscribe.path", self.subscribe.path.as_ref()),
            (Endpoint::Publish, "publish.path", self.publish.path.as_ref()),
            (Endpoint::Heartbeat, "status.heartbeat_path", heartbeat_path),
            (Endpoint::HttpStream, "http_stream.path", self.http_stream.path.as_ref()),
            (Endpoint::Sse, "sse.path", self.sse.path.as_ref()),
            (Endpoint::Emulation, "emulation.path", self.emulation.path.as_ref()),
            (Endpoint::Probe, "probe.path", self.probe.path.as_ref()),
            (Endpoint::UniWebSocket, "uni_websocket.path", self.uni_websocket.path.as_ref()),
            (Endpoint::UniHttpStream, "uni_http_stream.path", self.uni_http_stream.path.as_ref()),
            (Endpoint::UniSse, "uni_sse.path", self.uni_sse.path.as_ref()),
        ];
        rows.into_iter().filter_map(|(endpoint, setting, path)| {
            let path = path?;
            Some(ServedEndpoint { endpoint, setting, path })
        })
    }
}

impl Endpoint {
    /// Returns the address to show to a developer, if a person can try the endpoint: its title, scheme and query.
    pub fn example(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::WebSocket => Some(("WebSocket", "ws", "")),
            Self::Subscribe => Some(("EventSource", "http", "?topic=chat:lobby")),
            Self::Echo
            | Self::HttpStream
            | Self::Sse
            | Self::Emulation
            | Self::Probe
            | Self::Publish
            | Self::Heartbeat
            | Self::UniHttpStream
            | Self::UniSse
            | Self::UniWebSocket => None,
        }
    }
}
