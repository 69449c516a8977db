//! HTTP/2 (RFC 9113) on connections that agreed on it in their TLS handshake: many requests at once, each of which is
//! answered, or opens a client of the shard, as one of HTTP/1.1 would. WebSockets come by RFC 8441.
//!
//! hyper reads and writes the connection in one task, and each stream has another; all are paced as requests are. The
//! client of a stream is a connection of the shard, to which a bounded pipe stands for the socket: shards, sessions and
//! fan-out know nothing of HTTP/2.

mod answer;
mod body;
mod exchange;
mod stream;
mod translate;
mod upgraded;
mod watch;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch as channel;
use tokio::time::{Instant, sleep_until};

use self::exchange::Exchange;
use self::stream::StreamTasks;
use self::watch::Expiry;
pub(super) use self::watch::Http2Watch;
use super::admission::Watched;
use super::unreadable::REQUEST_HEAD_BYTES_MAX;
use crate::drain::DrainPhase;
use crate::transport::Gate;

/// Streams of one connection at a time: more wait at the client.
const STREAMS_MAX: u32 = 128;

/// Bytes of one request's body, and of all those of a connection, that the node has not taken.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// Bytes that wait within a stream for the peer to take them.
const SEND_BYTES_MAX: usize = 16 * 1024;

/// Requests that a peer may have taken back before the node has looked at them: more end the connection.
const RESETS_MAX: usize = 64;

/// The time that a peer has to take the end of an idle connection.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// The interval of pings where clients get none.
const PING_INTERVAL: Duration = Duration::from_secs(25);
const PONG_TIMEOUT: Duration = Duration::from_secs(8);

/// Serves a connection until it ends.
pub(super) async fn serve(
    gate: &Rc<Gate>,
    watch: Rc<Http2Watch>,
    mut phase: channel::Receiver<DrainPhase>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) {
    let tasks = StreamTasks::new(gate.budget.clone());
    let service = {
        let (gate, tasks, watch) = (gate.clone(), tasks.clone(), watch.clone());
        service_fn(move |request| {
            let exchange = Rc::new(Exchange::new(watch.clone()));
            // hyper hands over the stream of this request next.
            tasks.expect(exchange.clone());
            // Boxed, since the stream's task keeps its size for as long as it sends, and this is large.
            Box::pin(answer::answer(gate.clone(), tasks.clone(), exchange, request))
        })
    };
    let client = &gate.node.settings.client;
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        // A peer that vanishes without a word is noticed as soon as a client on a connection of its own.
        .keep_alive_interval(client.ping_interval.unwrap_or(PING_INTERVAL))
        .keep_alive_timeout(client.pong_timeout.unwrap_or(PONG_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_header_list_size(REQUEST_HEAD_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .enable_connect_protocol();
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(Watched::new(stream, watch.clone())), service));
    let mut time = pin!(sleep_until(Instant::now()));
    let mut leaving = pin!(phase.wait_for(|phase| *phase >= DrainPhase::Leaving));
    let mut is_leaving = false;
    poll_fn(|context| {
        if !is_leaving && leaving.as_mut().poll(context).is_ready() {
            is_leaving = true;
            watch.leave();
            connection.as_mut().graceful_shutdown();
        }
        watch.begin_poll();
        if let Poll::Ready(result) = connection.as_mut().poll(context) {
            if let Err(error) = result {
                // The peer's, most likely.
                tracing::debug!(%error, "an HTTP/2 connection ended");
            }
            return Poll::Ready(());
        }
        loop {
            match watch.poll_expired(context, time.as_mut()) {
                Poll::Ready(Expiry::Idle) => {
                    connection.as_mut().graceful_shutdown();
                    // It is to be polled again.
                    context.waker().wake_by_ref();
                }
                Poll::Ready(Expiry::Over) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
