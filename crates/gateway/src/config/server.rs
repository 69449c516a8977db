//! `[server]` and `[internal]`: the two listeners, and the limits on their connections.

use std::net::{IpAddr, SocketAddr};

use fanwire_server::settings::{AdmissionSettings, IpNet};

use super::checks::Checks;
use super::defaults;
use super::section::section;
use super::tls::Tls;
use super::values::{Period, Shards, Size};

section! {
    /// The port for clients, and the limits on its connections.
    Server {
        /// The address to listen on. "127.0.0.1" accepts clients on this machine only, "::" accepts IPv6 as well.
        address: IpAddr = defaults::ADDRESS,
        /// The port for clients; 0 chooses a free one.
        port: u16 = defaults::PORT,
        /// This node's name in logs and in the API's `info`. Not set: the host name and the port, as in `web-1:8000`;
        /// with port 0 the host name alone.
        name: Option<String> = None,
        /// Threads that own connections: "auto" is one for each core, or a number.
        shards: Shards = Shards::Auto,
        /// Maximum number of connections that the kernel holds for each shard until it accepts them.
        backlog: u32 = defaults::BACKLOG,
        /// Maximum number of client connections on this node; additional ones receive 503. 0 allows as many as the
        /// limit of open files (ulimit -n) does, less a reserve for HTTP, health and the node itself.
        connections_max: usize = 0,
        /// Maximum number of new client connections per second on this node; additional ones receive 503. 0 sets no
        /// limit.
        connections_per_second_max: usize = 0,
        /// Proxies in front of this port that are trusted to name their clients: networks such as "10.0.0.0/8", or
        /// addresses. They may send a PROXY protocol header (version 1 or 2) at the start of a connection, and
        /// "X-Forwarded-For" in requests. From others the first is a bad request, and the second is ignored.
        trusted_proxies: Vec<String> = Vec::new(),
        /// Maximum number of connections of one shard, or of the internal port, that have sent nothing yet. At the
        /// limit the oldest connection of the address with the most of them is dropped (of the /64 for IPv6).
        silent_connections_max: usize = defaults::SILENT_CONNECTIONS_MAX,
        /// Maximum number of connections of one shard that are in a TLS handshake or a request, or kept open between
        /// requests. At the limit a connection that is waiting for its client is dropped, chosen as above. Open
        /// WebSockets and streams do not count, and clients that publish or send commands by requests and callers of the
        /// API have limits of their own, post_connections_max and api.connections_max. While more than half are in use,
        /// responses carry "connection: close".
        http_connections_max: usize = defaults::HTTP_CONNECTIONS_MAX,
        /// Maximum number of connections of one shard whose last request went to publish.path or emulation.path, or
        /// was a poll of another node's session. Such a request may have to wait for the shard or the node that has the topic
        /// or the session, and holds a body of up to body_bytes_max meanwhile. At the limit a connection that is waiting
        /// for its client is dropped, chosen as above; if none is, the request is answered with 503. One address, or
        /// /64 network for IPv6, has no more of them than are left for others, alone half: beyond that it gives way to
        /// itself.
        post_connections_max: usize = defaults::POST_CONNECTIONS_MAX,
        /// Maximum number of bytes that clients of one address (of one /64 for IPv6) may send to sessions of other nodes in a
        /// second, by requests, and be sent by those for polls; 256 bytes are added for each. The bytes of two seconds may come
        /// at once. Above it requests are answered with 503. A node sends another at most twice as much for polls of one
        /// address. 0 sets no limit. Behind a proxy that is not one of trusted_proxies all clients have its address.
        forwarded_bytes_per_second_max: Size = defaults::FORWARDED_BYTES_PER_SECOND_MAX,
        /// Time allowed from the first byte of a request to the end of its head. For the first request it starts with
        /// the connection and includes the TLS handshake.
        request_header_timeout: Period = defaults::REQUEST_HEADER_TIMEOUT,
        /// Time for which a connection is kept open between two requests. Responses announce it: "keep-alive:
        /// timeout=10". Callers of the API have their own, api.idle_timeout.
        idle_timeout: Period = defaults::IDLE_TIMEOUT,
        /// Time for which a connection is kept open while its client reads nothing of a response, on both ports.
        write_timeout: Period = defaults::WRITE_TIMEOUT,
        sections {
            /// TLS on the client port, 1.2 and 1.3. Off unless both files are set.
            tls: Tls,
        }
    }
}

section! {
    /// The port for health, metrics and the API. Not for the public.
    Internal {
        /// The address to listen on. In a container, "0.0.0.0" accepts connections from outside it.
        address: IpAddr = defaults::INTERNAL_ADDRESS,
        /// The port; 0 chooses a free one.
        port: u16 = defaults::INTERNAL_PORT,
        /// Maximum number of connections that ask for health and metrics, with the same effect as
        /// server.http_connections_max. They are kept open between requests for api.idle_timeout.
        connections_max: usize = defaults::INTERNAL_CONNECTIONS_MAX,
    }
}

/// Guards against a typing error: no sensible machine needs more shards.
const SHARDS_MAX: usize = 1024;

impl Server {
    pub(super) fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    pub(super) fn checked_name(&self, checks: &mut Checks) -> String {
        match &self.name {
            Some(name) if name.trim().is_empty() => {
                checks.error("server.name", "is empty; leave it out to use the host's name and the port");
                String::new()
            }
            Some(name) if name.chars().any(char::is_control) => {
                checks.error("server.name", "must not have control characters");
                String::new()
            }
            Some(name) => name.clone(),
            None => default_name(&rustix::system::uname().nodename().to_string_lossy(), self.port),
        }
    }

    pub(super) fn checked_shards(&self, checks: &mut Checks) -> usize {
        match self.shards {
            Shards::Auto => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            Shards::Count(count) => {
                if !(1..=SHARDS_MAX).contains(&count) {
                    checks.error("server.shards", format!("must be \"auto\" or 1 to {SHARDS_MAX}"));
                }
                count
            }
        }
    }

    pub(super) fn admission(&self, internal: &Internal, checks: &mut Checks) -> AdmissionSettings {
        checks.at_least_one("server.backlog", self.backlog as usize);
        for (key, number) in [
            ("server.silent_connections_max", self.silent_connections_max),
            ("server.http_connections_max", self.http_connections_max),
            ("server.post_connections_max", self.post_connections_max),
            ("internal.connections_max", internal.connections_max),
        ] {
            checks.connections(key, number);
        }
        AdmissionSettings {
            connections_max: self.connections_max,
            connections_per_second_max: self.connections_per_second_max,
            trusted_proxies: trusted_proxies(&self.trusted_proxies, checks),
            silent_connections_max: self.silent_connections_max,
            http_connections_max: self.http_connections_max,
            post_connections_max: self.post_connections_max,
            forwarded_bytes_per_second_max: self.forwarded_bytes_per_second_max.0,
            internal_connections_max: internal.connections_max,
            request_header_timeout: checks
                .longer_than_zero("server.request_header_timeout", self.request_header_timeout),
            idle_timeout: checks.longer_than_zero("server.idle_timeout", self.idle_timeout),
            write_timeout: checks.longer_than_zero("server.write_timeout", self.write_timeout),
            backlog: self.backlog,
        }
    }
}

/// Returns a name that differs between the nodes of a host. With port 0 the real port is known too late for the name.
fn default_name(host: &str, port: u16) -> String {
    if port == 0 { host.to_owned() } else { format!("{host}:{port}") }
}

impl Internal {
    /// Returns the internal port's socket address, which must differ from the clients'.
    pub(super) fn checked_socket(&self, server: &Server, checks: &mut Checks) -> SocketAddr {
        let overlap = self.address == server.address
            || self.address.is_unspecified()
            || server.address.is_unspecified();
        if self.port != 0 && self.port == server.port && overlap {
            checks.error("internal.port", format!("is server.port too ({}); each needs its own", self.port));
        }
        SocketAddr::new(self.address, self.port)
    }
}

fn trusted_proxies(texts: &[String], checks: &mut Checks) -> Vec<IpNet> {
    const KEY: &str = "server.trusted_proxies";
    let mut networks = Vec::new();
    for text in texts {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        match text.parse::<IpNet>().ok().or_else(address) {
            Some(network) if network.prefix_len() == 0 => {
                checks.error(KEY, format!("\"{text}\" trusts every client to name another; list your proxies"));
            }
            Some(network) => networks.push(network),
            None => checks.error(
                KEY,
                format!("\"{text}\" is neither a network nor an address; write it as in \"10.0.0.0/8\" or \"192.0.2.1\""),
            ),
        }
    }
    networks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_one_host_have_names_of_their_own() {
        assert_eq!(default_name("web-1", 8000), "web-1:8000");
        assert_eq!(default_name("web-1", 0), "web-1");
        let mut checks = Checks::default();
        let name = Server { port: 8001, ..Server::default() }.checked_name(&mut checks);
        assert!(name.ends_with(":8001"), "{name}");
    }
}
