//! `[server]` and `[internal]`: the two listeners, and how much may come in.

use std::net::{IpAddr, SocketAddr};

use fanwire_server::settings::Admission;

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
        /// Client connections on this node; more are answered 503. 0 sets no limit.
        connections_max: usize = 0,
        /// New client connections in a second on this node; more are answered 503. 0 sets no limit.
        connections_per_second_max: usize = 0,
        /// HTTP connections open at once on one shard, handshakes and kept connections of API callers included;
        /// further ones wait in the kernel. A handshake that succeeded is no longer one. While more than half are
        /// in use, API callers are asked to close theirs after each call.
        http_connections_max: usize = defaults::HTTP_CONNECTIONS_MAX,
        /// How long a client may take from its connection to the last header byte of its request, TLS handshake
        /// included.
        request_header_timeout: Period = defaults::REQUEST_HEADER_TIMEOUT,
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
    }
}

/// The host may have more shards than this in no sensible machine; it guards against a typing error.
const SHARDS_MAX: usize = 1024;

/// Each needs an open file, of which no process may have so many; the shard could not even count them.
const HTTP_CONNECTIONS_MAX: usize = 1 << 30;

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

    pub(super) fn admission(&self, checks: &mut Checks) -> Admission {
        checks.at_least_one("server.backlog", self.backlog as usize);
        if !(1..=HTTP_CONNECTIONS_MAX).contains(&self.http_connections_max) {
            checks.error("server.http_connections_max", format!("must be 1 to {HTTP_CONNECTIONS_MAX}"));
        }
        Admission {
            connections_max: self.connections_max,
            connections_per_second_max: self.connections_per_second_max,
            http_connections_max: self.http_connections_max,
            request_header_timeout: checks
                .longer_than_zero("server.request_header_timeout", self.request_header_timeout),
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
