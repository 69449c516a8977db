//! `[server]` and `[internal]`: the two listeners, and how much may come in.

use std::net::{IpAddr, SocketAddr};

use fanwire_server::settings::{AdmissionSettings, IpNet};

use super::checks::Checks;
use super::defaults;
use super::section::section;
use super::tls::Tls;
use super::values::{Period, Shards};

section! {
    /// Where clients connect, and how many may.
    Server {
        /// The address to listen on. "127.0.0.1" takes clients of this machine only, "::" takes IPv6 as well.
        address: IpAddr = defaults::ADDRESS,
        /// The port for clients; 0 takes any free one.
        port: u16 = defaults::PORT,
        /// This node's name in logs and in the API's `info`. Not set: the host's name and the port, as in
        /// `web-1:8000`; with port 0 the host's name alone.
        name: Option<String> = None,
        /// Threads that own connections: "auto" is one for each core, or a number.
        shards: Shards = Shards::Auto,
        /// Connections that the kernel holds ready for each shard until it accepts them.
        backlog: u32 = defaults::BACKLOG,
        /// Client connections on this node; more are answered 503. 0 allows as many as the limit of open files
        /// (ulimit -n) does, with some kept back for HTTP, health and the node itself.
        connections_max: usize = 0,
        /// New client connections in a second on this node; more are answered 503. 0 sets no limit.
        connections_per_second_max: usize = 0,
        /// Proxies before this port that are trusted to name their clients: networks such as "10.0.0.0/8", or
        /// addresses. They may send a header of the PROXY protocol ahead of a connection (version 1 or 2), and
        /// "X-Forwarded-For" in requests. From others the first is a bad request, and the second is ignored.
        trusted_proxies: Vec<String> = Vec::new(),
        /// Connections of one shard, or of the internal port, that have sent nothing yet. At the limit the oldest
        /// connection of the address with the most of them is dropped (of the /64 for IPv6).
        silent_connections_max: usize = defaults::SILENT_CONNECTIONS_MAX,
        /// Connections of one shard that are in a TLS handshake or a request, or kept between requests. At the limit
        /// a connection that waits for its client is dropped, chosen as above. An open WebSocket or stream does not
        /// count, and callers of the API have their own limit, api.connections_max. While more than half are in use,
        /// answers say "connection: close".
        http_connections_max: usize = defaults::HTTP_CONNECTIONS_MAX,
        /// How long a client may take from the first byte of a request to the end of its head. For the first request
        /// it counts from the connection on, TLS handshake included.
        request_header_timeout: Period = defaults::REQUEST_HEADER_TIMEOUT,
        /// How long a connection is kept between two requests. Answers announce it: "keep-alive: timeout=10".
        /// Callers of the API have their own, api.idle_timeout.
        idle_timeout: Period = defaults::IDLE_TIMEOUT,
        /// How long a connection is kept while its client reads nothing of an answer, on both ports.
        write_timeout: Period = defaults::WRITE_TIMEOUT,
        sections {
            /// TLS on the client port, 1.2 and 1.3. Off unless both files are set.
            tls: Tls,
        }
    }
}

section! {
    /// Where health, metrics and the API answer. Not for the public.
    Internal {
        /// The address to listen on. In a container, "0.0.0.0" lets its neighbours in.
        address: IpAddr = defaults::INTERNAL_ADDRESS,
        /// The port; 0 takes any free one.
        port: u16 = defaults::INTERNAL_PORT,
        /// Connections that ask for health and metrics, with the same effect as server.http_connections_max. They are
        /// kept between requests for api.idle_timeout.
        connections_max: usize = defaults::INTERNAL_CONNECTIONS_MAX,
    }
}

/// The host may have more shards than this in no sensible machine; it guards against a typing error.
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
            internal_connections_max: internal.connections_max,
            request_header_timeout: checks
                .longer_than_zero("server.request_header_timeout", self.request_header_timeout),
            idle_timeout: checks.longer_than_zero("server.idle_timeout", self.idle_timeout),
            write_timeout: checks.longer_than_zero("server.write_timeout", self.write_timeout),
            backlog: self.backlog,
        }
    }
}

/// Tells nodes apart that share a host. Which port 0 becomes is not known before it is too late for a name.
fn default_name(host: &str, port: u16) -> String {
    if port == 0 { host.to_owned() } else { format!("{host}:{port}") }
}

impl Internal {
    /// Where the internal port listens, which cannot be where clients connect.
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
                checks.error(KEY, format!("\"{text}\" trusts every client to name another; name your proxies"));
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
