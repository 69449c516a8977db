//! The built `fanwire` with a configuration of its own: one or more nodes, with the memory engine or a Redis of their own.
//!
//! Only this file contains keys of the configuration and paths of the server.

use std::fs;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::dialect::{Audience, Centrifuge, Dialect, Plain, Polling, PushFormat, Stream, Tokens, Uni};
use crate::error::{Doing, LoadError};
use crate::http::{call, write_api_call};
use crate::measure::process::Placement;
use crate::publish::Publisher;
use crate::publish::http::{CentrifugeApi, HttpPublisher};
use crate::subject::{Subject, SubjectWire};
use crate::target::hook::{HookBackend, HookCalls};
use crate::target::process::{ServerProcess, free_addresses};
use crate::target::redis::{Redis, Use};
use crate::target::{Part, Setup, Target, installed, node_of};

/// Secrets of a server that lives for one run on loopback.
const TOKEN_SECRET: &str = "a-secret-that-only-this-load-test-uses";
const API_KEY: &str = "an-api-key-that-only-this-load-test-uses";

/// The namespace of all measured topics: presence on, everything else at its default.
pub(crate) const NAMESPACE: &str = "load:";
/// The same without presence, to measure the cost of presence.
pub(crate) const NAMESPACE_WITHOUT_PRESENCE: &str = "plain:";

/// With history and recovery: publications bring positions, and clients of plain HTTP get cursors.
pub(crate) const NAMESPACE_WITH_HISTORY: &str = "kept:";

/// Maximum queue of one client: the server's default.
pub(crate) const QUEUE_BYTES_MAX: usize = 1024 * 1024;

const API_PATH: &str = "/api";

/// Time allowed for subscribing clients of plain HTTP, which cannot see when they are subscribed.
const PRESENCE_DEADLINE: Duration = Duration::from_secs(10);
const PRESENCE_RECHECK: Duration = Duration::from_millis(20);

/// Running nodes, and their Redis; dropping it kills them.
#[derive(Debug)]
pub(crate) struct Fanwire {
    subject: Subject,
    versions: Vec<String>,
    placement: Placement,
    nodes: Vec<Node>,
    redis: Option<Redis>,
    hook: Option<HookBackend>,
}

#[derive(Debug)]
struct Node {
    process: ServerProcess,
    address: SocketAddrV4,
}

impl Fanwire {
    /// Returns when every node is ready.
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self, LoadError> {
        let subject = setup.subject;
        let placement = subject.placement();
        let redis = match subject.redis {
            true => Some(Redis::start(&setup.settings.redis, placement, setup.cores)?),
            false => None,
        };
        let hook = if subject.hook { Some(HookBackend::start()?) } else { None };
        let beside = Beside {
            redis: redis.as_ref().map(Redis::address),
            hook: hook.as_ref().map(|backend| backend.address),
        };
        let nodes: Result<_, LoadError> =
            (0..subject.nodes).map(|_| Node::start(setup, placement, beside)).collect();
        let mut versions = vec![installed::version(&setup.settings.server_binary()?, "--version")];
        versions.extend(redis.iter().map(|_| Redis::version(&setup.settings.redis)));
        Ok(Self { subject: subject.clone(), versions, placement, nodes: nodes?, redis, hook })
    }

    fn first(&self) -> &Node {
        self.nodes.first().expect("a subject has at least one node")
    }

    fn tokens() -> Tokens {
        Tokens::of_secret(TOKEN_SECRET)
    }
}

/// What runs beside the nodes of a subject.
#[derive(Clone, Copy, Debug)]
struct Beside {
    redis: Option<SocketAddrV4>,
    hook: Option<SocketAddrV4>,
}

impl Node {
    fn start(setup: &Setup<'_>, placement: Placement, beside: Beside) -> Result<Self, LoadError> {
        let [address, internal] = free_addresses()?;
        let binary = setup.settings.server_binary()?;
        let process = ServerProcess::start_at(placement, &binary, setup.cores, |folder, command| {
            let config = folder.join("fanwire.toml");
            let text = configuration(setup.subject, address, internal, beside);
            fs::write(&config, text).doing(format!("write {}", config.display()))?;
            command.args(["serve", "--config"]).arg(&config);
            Ok(())
        })?;
        let mut node = Self { process, address };
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {internal}\r\n\r\n");
        node.process.wait_until(|| matches!(call(internal, request.as_bytes()), Ok((200, _))))?;
        Ok(node)
    }
}

impl Target for Fanwire {
    fn parts(&self) -> Vec<Part> {
        let nodes = self.nodes.iter().map(|node| Part { name: "server", pid: node.process.pid() });
        nodes.chain(self.redis.iter().map(|redis| Part { name: "redis", pid: redis.pid() })).collect()
    }

    fn versions(&self) -> Vec<String> {
        self.versions.clone()
    }

    fn placement(&self) -> Option<Placement> {
        Some(self.placement)
    }

    fn addresses(&self) -> Result<Vec<SocketAddrV4>, LoadError> {
        Ok(self.nodes.iter().map(|node| node.address).collect())
    }

    fn topic_prefix(&self) -> &str {
        NAMESPACE
    }

    fn dialect(&self, audience: Rc<Audience>) -> Result<Box<dyn Dialect>, LoadError> {
        let wire = self.subject.wire;
        let host = self.first().address.to_string();
        let path = endpoint(wire).path.to_owned();
        let tokens = Self::tokens();
        Ok(match wire {
            SubjectWire::Centrifuge(encoding) => {
                let Subject { deflate, filter, hook, .. } = self.subject;
                Box::new(Centrifuge { host, path, tokens, audience, encoding, deflate, filter, hook })
            }
            SubjectWire::Stream(encoding) => Box::new(Stream { host, path, tokens, audience, encoding }),
            SubjectWire::Uni(format) => Box::new(Uni { host, path, tokens, audience, format }),
            SubjectWire::Plain(format) => Box::new(Plain { host, path, tokens, audience, format }),
            SubjectWire::Poll => Box::new(Polling::new(host, path, tokens, audience)),
        })
    }

    fn publisher(&self, index: usize) -> Result<Option<Box<dyn Publisher>>, LoadError> {
        let address = self.nodes[node_of(index, self.nodes.len())].address;
        let api = CentrifugeApi {
            host: address.to_string(),
            path: API_PATH.to_owned(),
            key: API_KEY.to_owned(),
            filter: self.subject.filter,
        };
        Ok(Some(Box::new(HttpPublisher::connect(address, api)?)))
    }

    /// Waits until presence lists all clients of plain HTTP, whose streams begin before they are subscribed.
    fn settle(&mut self, audience: &Audience, clients: usize) -> Result<(), LoadError> {
        if !self.subject.wire.is_plain() {
            return Ok(());
        }
        let topics: std::collections::BTreeSet<usize> =
            (0..clients).flat_map(|client| audience.topics_of(client)).collect();
        let expected: usize = (0..clients).map(|client| audience.topics_of(client).count()).sum();
        let started = Instant::now();
        loop {
            let mut present = 0;
            for topic in &topics {
                present += self.present(&audience.topic_name(*topic))?.unwrap_or(0);
            }
            if present >= expected as u64 {
                return Ok(());
            }
            if started.elapsed() > PRESENCE_DEADLINE {
                let told = format!("counts {present} subscriptions of {expected} in its topics");
                return Err(self.explain(LoadError::Server(told)));
            }
            std::thread::sleep(PRESENCE_RECHECK);
        }
    }

    fn present(&self, topic: &str) -> Result<Option<u64>, LoadError> {
        let address = self.first().address;
        let mut request = Vec::new();
        let body = format!(r#"{{"channel":"{topic}"}}"#);
        let path = format!("{API_PATH}/presence_stats");
        write_api_call(&mut request, &address.to_string(), &path, API_KEY, body.as_bytes());
        let (status, body) = call(address, &request)?;
        let answer: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        match answer.and_then(|answer| answer["result"]["num_clients"].as_u64()) {
            Some(clients) => Ok(Some(clients)),
            None => {
                let body = String::from_utf8_lossy(&body);
                Err(LoadError::Api(format!("{status} to presence_stats: {body}")))
            }
        }
    }

    fn redis_use(&self) -> Result<Option<Use>, LoadError> {
        self.redis.as_ref().map(Redis::usage).transpose()
    }

    fn hook_calls(&self) -> Option<HookCalls> {
        self.hook.as_ref().map(HookBackend::calls)
    }

    fn explain(&self, error: LoadError) -> LoadError {
        self.first().process.explain(error)
    }
}

/// The address of a wire's clients.
struct Endpoint {
    /// The section of the configuration.
    section: &'static str,
    path: &'static str,
}

fn endpoint(wire: SubjectWire) -> Endpoint {
    let (section, path) = match wire {
        SubjectWire::Centrifuge(_) => ("websocket", "/connection/websocket"),
        SubjectWire::Stream(_) => ("http_stream", "/connection/http_stream"),
        SubjectWire::Uni(PushFormat::Events) => ("uni_sse", "/connection/uni_sse"),
        SubjectWire::Uni(PushFormat::Lines) => ("uni_http_stream", "/connection/uni_http_stream"),
        SubjectWire::Uni(PushFormat::WebSocket) => ("uni_websocket", "/connection/uni_websocket"),
        SubjectWire::Plain(_) | SubjectWire::Poll => ("subscribe", "/subscribe"),
    };
    Endpoint { section, path }
}

/// Returns the text of the configuration, with one shard by default, since the server has one core then.
fn configuration(
    subject: &Subject,
    address: SocketAddrV4,
    internal: SocketAddrV4,
    Beside { redis, hook }: Beside,
) -> String {
    let shards = subject.shards.unwrap_or(1);
    let engine = match redis {
        Some(redis) => {
            format!("[engine]\ntype = \"redis\"\n\n[engine.redis]\naddress = \"{redis}\"\n\n")
        }
        None => String::new(),
    };
    // The hook of messages gets cookies too, so that they are kept for as long as their client. No call waits so long
    // that it fails: the times are to be seen.
    let hook = match hook {
        Some(backend) => format!(
            "[[hooks]]\nname = \"backend\"\nurl = \"http://{backend}/\"\nhttp_headers = [\"Cookie\"]\ntimeout = \"20s\"\nwait_max = \"60s\"\n\n\
             [client.hooks]\nconnect = \"backend\"\nsend = \"backend\"\n\n"
        ),
        None => String::new(),
    };
    let deflate = if subject.deflate { "[websocket.deflate]\nenabled = true\n\n" } else { "" };
    let events = match subject.events {
        true => "events = [\"connected\", \"disconnected\", \"user_online\", \"user_offline\"]\n",
        false => "",
    };
    let Endpoint { section, path } = endpoint(subject.wire);
    // Pongs would be requests of their own, which these clients do not make.
    let pongs = if subject.wire.is_emulated() { "pong_timeout = \"0s\"\n" } else { "" };
    let namespace = |prefix: &str, options: &str| {
        let name = prefix.trim_end_matches(':');
        let filter = if subject.filter { "allow_tags_filter = true\n" } else { "" };
        format!(
            "[[topics.namespaces]]\nname = \"{name}\"\nallow_subscribe_for_client = true\n{filter}{options}\n"
        )
    };
    // All clients have places in its topics, so that all wires do the same work.
    let history = "presence = true\nhistory_size = 100\nhistory_ttl = \"10m\"\nforce_recovery = true\n";
    format!(
        r#"[server]
shards = {shards}
address = "{}"
port = {}

[internal]
address = "{}"
port = {}

[client]
allowed_origins = []
queue_bytes_max = {QUEUE_BYTES_MAX}
{pongs}{events}
[client.token]
hmac_secret = "{TOKEN_SECRET}"

[api]
keys = ["{API_KEY}"]

[{section}]
path = "{path}"

{engine}{hook}{deflate}{}{}{}"#,
        address.ip(),
        address.port(),
        internal.ip(),
        internal.port(),
        namespace(NAMESPACE, "presence = true\n"),
        namespace(NAMESPACE_WITHOUT_PRESENCE, ""),
        namespace(NAMESPACE_WITH_HISTORY, history),
    )
}
