//! A shard's own listening socket, and the requests that come through it until a connection stays.
//!
//! Every shard listens on the same address (SO_REUSEPORT), so the kernel spreads connections and no shard hands
//! one to another.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::http::{self, Gate, Outcome, Stay};
use crate::shard::Adopted;

/// Longest request line and headers together.
const REQUEST_HEAD_BYTES_MAX: usize = 32 * 1024;

/// Listens with one of several sockets on the same address.
pub(crate) fn bind(address: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket = bound(address, true)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Listens with the only socket of an address.
pub(crate) fn bind_alone(address: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket = bound(address, false)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Whether nobody else has the address. Nothing listens meanwhile, so no client is turned away.
pub(crate) fn check_free(address: SocketAddr) -> io::Result<()> {
    bound(address, false).map(drop)
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepts until told to stop. At most `http_connections_max` are open; others wait in the kernel's queue.
pub(crate) async fn accept(listener: TcpListener, gate: Rc<Gate>, mut stop: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(gate.node.settings.admission.http_connections_max));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let gate = gate.clone();
                let permits = permits.clone();
                tokio::task::spawn_local(async move {
                    serve(stream, gate, &permits).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: what is being served has to end first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves requests until one asks for a connection that stays; then takes the socket back from hyper, with
/// whatever was read too far, and gives it to the shard.
async fn serve(stream: TcpStream, gate: Rc<Gate>, permits: &Semaphore) {
    // Without it small messages wait for the acknowledgement of earlier ones.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let stays = Rc::new(RefCell::new(None));
    // Backends keep their connections between calls: in half of the permits, or clients could not get in.
    let permits_free_min = gate.node.settings.admission.http_connections_max.div_ceil(2);
    let service = service_fn(|request: Request<Incoming>| {
        let (gate, stays) = (gate.clone(), stays.clone());
        Box::pin(async move {
            match http::route(&gate, request).await {
                Outcome::Response(mut response) => {
                    if permits.available_permits() < permits_free_min {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<Response<Full<Bytes>>, Infallible>(response)
                }
                Outcome::Stay(stay) => {
                    *stays.borrow_mut() = Some(stay);
                    // hyper is to write nothing more.
                    std::future::pending().await
                }
            }
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(gate.node.settings.admission.request_header_timeout)
        .max_header_size(REQUEST_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    std::future::poll_fn(|context| {
        // Errors are the peer's: a request that could not be read, or a connection cut.
        let served = connection.poll_without_shutdown(context).map(|_| ());
        if stays.borrow().is_some() { std::task::Poll::Ready(()) } else { served }
    })
    .await;
    let Some(Stay { head, purpose, arrival }) = stays.take() else { return };
    let parts = connection.into_parts();
    match parts.io.into_inner().into_std() {
        Ok(socket) => gate.adopt(Adopted { socket, head, early: parts.read_buf, purpose, arrival }),
        Err(error) => tracing::debug!(%error, "a socket could not be taken back"),
    }
}
