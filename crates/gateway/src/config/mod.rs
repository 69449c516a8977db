//! The configuration: a raw `Config` that mirrors the file, read in layers, then checked settings, built once.
//!
//! One run finds all problems of all layers and says where they are; no text printed from here holds a value that may
//! be secret.

mod section;

mod api;
mod backend;
mod client;
mod engine;
mod hooks;
mod events;
mod log;
mod origins;
mod redis;
mod server;
mod status;
mod tls;
mod token;
mod topics;
mod transports;

mod address;
mod checks;
mod defaults;
mod dev;
mod environment;
mod layer;
mod load;
mod reference;
mod risks;
mod values;

use fanwire_server::Settings;

use api::Api;
use checks::Checks;
use client::Client;
use engine::{Engine, Shutdown};
use events::Events;
use hooks::{Hook, HookNames, Rpc};
use section::{Item, Section, section};
use server::{Internal, Server};
use status::Status;
use topics::Topics;
use transports::{
    Emulation, HttpStream, Probe, Publish, Sse, Subscribe, UniHttpStream, UniSse, UniWebSocket, WebSocket,
};

pub(crate) use load::{Flag, Loaded, Sources, judge, load, read_file};
pub(crate) use log::{Log, LogFormat};
pub(crate) use reference::{reference, write_file};
pub(crate) use values::{Period, Size};

section! {
    /// The whole file.
    Config {
        sections {
            /// The port for clients, and the limits on its connections.
            server: Server,
            /// The port for health, metrics and the API. Not for the public.
            internal: Internal,
            /// The log, on standard output.
            log: Log,
            /// The engine carries publications, and keeps history and presence.
            engine: Engine,
            /// The times of a shutdown, on SIGTERM and SIGINT. Together they must be shorter than the service manager
            /// waits before it kills the process: 30 s in Kubernetes by default.
            shutdown: Shutdown,
            /// Access of clients, and the limits of each one.
            client: Client,
            /// The WebSocket transport: JSON, or Protobuf when a client asks for it.
            websocket: WebSocket,
            /// Topics for clients without a library, such as a browser's own EventSource: `/subscribe?topic=news`.
            subscribe: Subscribe,
            /// Publishing by clients without a connection that stays: `POST /publish?topic=news`.
            publish: Publish,
            /// An address that answers 200 while the node takes clients: for pages that watch their network, and for
            /// balancers that see the port for clients alone.
            probe: Probe,
            /// HTTP streams, for libraries of the Centrifuge protocol where WebSockets do not get through: replies and
            /// publications come by one response, and commands go to `[emulation]`.
            http_stream: HttpStream,
            /// The same as server-sent events, for libraries that use a browser's EventSource. A browser's own EventSource,
            /// without a library, is for `[subscribe]`.
            sse: Sse,
            /// Requests with the commands of clients of `[http_stream]` and `[sse]`. Served while one of these is.
            emulation: Emulation,
            /// One-way WebSockets: clients that connect, and from then on only listen. Limits are those of [websocket].
            uni_websocket: UniWebSocket,
            /// One-way HTTP streams: one JSON message a line.
            uni_http_stream: UniHttpStream,
            /// One-way server-sent events, for a browser's own EventSource and the Centrifuge protocol's connect request.
            uni_sse: UniSse,
            /// A backend that is asked about what clients do, by HTTP POST with JSON, as Centrifugo's proxy does. Repeat for
            /// each backend. [client.hooks], [rpc] and namespaces name the one that is asked.
            hooks: Vec<Hook>,
            /// Methods that clients call (RPC), for a backend. Off unless a hook is named.
            rpc: Rpc,
            /// The HTTP API for backends: publish, broadcast, presence, history and the rest.
            api: Api,
            /// Names of topics, and defaults for all of them.
            topics: Topics,
            /// Events for the application, of those kinds that client.events and the namespaces' events name.
            events: Events,
            /// User status: who is online, and when the others were last seen. On while a namespace has status = true.
            status: Status,
        }
    }
}

/// Keys that belong to another section of the same type and have no meaning here.
const WITHOUT_MEANING: [&str; 3] = ["topics.default.name", "topics.default.status", "client.token.enabled"];

/// Returns every section and key in the order of the reference page.
pub(crate) fn outline() -> Vec<Item> {
    let mut items = Vec::new();
    Config::default().outline("", &[], &mut items);
    items.retain(|item| !WITHOUT_MEANING.contains(&&*item.path()));
    items
}

impl Config {
    /// Returns the settings that a node starts with. They can be used only if `checks` has no error.
    fn settings(&self, checks: &mut Checks) -> Settings {
        self.log.check(checks);
        let (connection_tokens, subscription_tokens) = self.client.tokens(checks);
        let personal = &self.client.personal_topic;
        if personal.enabled
            && !personal.namespace.is_empty()
            && !self.topics.has_namespace(&personal.namespace)
        {
            checks.error(
                "client.personal_topic.namespace",
                format!("\"{}\" is not the name of a namespace in [[topics.namespaces]]", personal.namespace),
            );
        }
        let mut hooks = HookNames::new(&self.hooks);
        let namespaces = self.topics.settings(&mut hooks, checks);
        let rpc = self.rpc.settings(&mut hooks, checks);
        let client_hooks = self.client.hooks.settings(rpc, &mut hooks, checks);
        let mut settings = Settings {
            // Known when the node starts.
            files_max: None,
            name: self.server.checked_name(checks),
            client_address: self.server.socket(),
            tls: self.server.tls.settings(checks),
            internal_address: self.internal.checked_socket(&self.server, checks),
            shards: self.server.checked_shards(checks),
            client: self.client.settings(self.topics.publication_format.into(), client_hooks, checks),
            hooks: hooks.settings(checks),
            namespaces,
            origins: self.client.origins(checks),
            connection_tokens,
            subscription_tokens,
            admission: self.server.admission(&self.internal, checks),
            websocket: self.websocket.settings(checks),
            subscribe: self.subscribe.settings(checks),
            publish: self.publish.settings(checks),
            probe: self.probe.settings(checks),
            http_stream: self.http_stream.settings(checks),
            sse: self.sse.settings(checks),
            emulation: self.emulation.settings(self.http_stream.enabled || self.sse.enabled, checks),
            uni_websocket: self.uni_websocket.settings(checks),
            uni_http_stream: self.uni_http_stream.settings(checks),
            uni_sse: self.uni_sse.settings(checks),
            api: self.api.settings(checks),
            engine: self.engine.settings(checks),
            status: None,
            // Known once it is known which events are wanted.
            webhook: None,
            shutdown: self.shutdown.settings(checks),
            dev: None,
        };
        let namespaces = &settings.namespaces;
        let wants_any = !settings.client.events.is_empty()
            || namespaces.named().chain([&namespaces.default]).any(|namespace| !namespace.events.is_empty());
        settings.webhook = self.events.apply(wants_any, &mut settings.engine, checks);
        settings.status =
            self.status.settings(&settings.namespaces, &self.events, &mut settings.engine, checks);
        checks.endpoints(&settings);
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_sound_and_agree_with_the_hub() {
        let mut checks = Checks::default();
        let settings = Config::default().settings(&mut checks);
        assert!(checks.errors.is_empty() && checks.warnings.is_empty(), "{checks:?}");
        assert_eq!(format!("{:?}", settings.client), format!("{:?}", fanwire_hub::ClientSettings::default()));
        assert_eq!(
            format!("{:?}", settings.namespaces.rules),
            format!("{:?}", fanwire_hub::NameRules::default())
        );
    }

    #[test]
    fn every_key_is_described_once() {
        let items = outline();
        for (index, item) in items.iter().enumerate() {
            let about = match item {
                Item::Section { about, .. } | Item::Key { about, .. } => about,
            };
            assert!(about.iter().any(|line| !line.trim().is_empty()), "{} has no description", item.path());
            assert!(
                !items[..index].iter().any(|earlier| earlier.path() == item.path()),
                "{} twice",
                item.path()
            );
        }
    }
}
