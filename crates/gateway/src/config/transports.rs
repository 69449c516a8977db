//! `[websocket]` and `[sse]`: how clients reach their session.

use fanwire_server::settings::{SseSettings, WebSocketSettings};

use super::checks::Checks;
use super::defaults;
use super::section::section;
use super::values::Size;

section! {
    /// The WebSocket transport: JSON, or Protobuf when a client asks for it.
    WebSocket {
        /// Where it answers.
        path: String = defaults::WEBSOCKET_PATH.into(),
        /// One whole message from a client; a larger one closes the connection with code 1009.
        message_bytes_max: Size = defaults::MESSAGE_BYTES_MAX,
        /// A route that sends every message back, for protocol test suites. Not set: there is none.
        echo_path: Option<String> = None,
    }
}

section! {
    /// Server-sent events, for a browser's own EventSource: `/subscribe?topic=news`.
    Sse {
        /// Where it answers.
        path: String = defaults::SSE_PATH.into(),
    }
}

impl WebSocket {
    pub(super) fn settings(&self, checks: &mut Checks) -> WebSocketSettings {
        WebSocketSettings {
            path: checks.path("websocket.path", &self.path),
            message_bytes_max: checks.at_least_one("websocket.message_bytes_max", self.message_bytes_max.0),
            echo_path: self.echo_path.as_ref().map(|path| checks.path("websocket.echo_path", path)),
        }
    }
}

impl Sse {
    pub(super) fn settings(&self, checks: &mut Checks) -> SseSettings {
        SseSettings { path: checks.path("sse.path", &self.path) }
    }
}
