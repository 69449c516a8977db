//! From a listening socket to a request that can be routed: listeners, admission, TLS, HTTP and its limits.

pub(crate) mod bind;
pub(crate) mod serve;
pub(crate) mod requests;
mod http2;
pub(crate) mod admission;
pub mod tls;
pub(crate) mod unreadable;
pub(crate) mod request_framing;
pub(crate) mod validity;
pub(crate) mod cross_site;
pub(crate) mod origin;

use std::net::SocketAddr;
use std::time::Duration;

use admission::HttpConnections;
use tokio::net::{TcpListener, TcpStream};

/// The pause after a connection that could not be accepted, most likely because no descriptors were left.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections for as long as it is polled, as far as there is room for them. `other_files` are open sockets
/// of the port that are no HTTP connections. Cancel-safe.
///
/// A node that shuts down has a loop of its own for the kernel's queue (`serve`): that one ends with the queue, and the
/// runtime does not tell an empty queue from one that it has not looked at yet.
pub(crate) async fn accept_all(
    listener: &TcpListener,
    connections: &HttpConnections,
    other_files: impl Fn() -> usize,
    mut open: impl FnMut(TcpStream, SocketAddr),
) {
    loop {
        connections.can_enter().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.has_waiting() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Without it small messages wait for the acknowledgement of earlier ones.
                if stream.set_nodelay(true).is_ok() {
                    open(stream, peer);
                }
                if connections.spare_files(other_files()) {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => {
                connections.accept_failed(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
