//! An HTTP/1.1 client of one backend: a connection for each request under way, kept for the next ones.
//!
//! A request is sent once. Only one that was not written at all is sent again, on a new connection: a kept connection may
//! have been closed by the backend meanwhile. Redirects are not followed, and proxies of the environment are not used.

use std::error::Error;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::tls::BackendTls;
use super::url::BackendUrl;
use crate::body::{self, BodyError};

/// The head of a response.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The time that a connection has to be ready for the next request once the response to the last was read.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// The time in which a backend that does not like the gateway's certificate says so. With TLS 1.3 it does after the
/// handshake.
const VERDICT_TIMEOUT: Duration = Duration::from_millis(300);

/// The reason for which there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("no response: {}", with_causes(.0))]
    NoResponse(hyper::Error),
    #[error("the response breaks off")]
    Cut,
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
}

/// A response with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    connection: Connection,
}

/// Requests may be made side by side. Each has a connection of its own, so whoever makes them bounds their number.
pub(crate) struct Client {
    url: BackendUrl,
    tls: Option<BackendTls>,
    idle_timeout: Duration,
    /// Connections without a request, the one used last at the end. Locked to take or add one.
    idle: Mutex<Vec<(Connection, Instant)>>,
}

/// A connection and the task that drives it. Dropping it closes it at once, whatever is under way.
#[derive(Debug)]
struct Connection {
    requests: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    pub(crate) fn new(url: BackendUrl, tls: Option<BackendTls>, idle_timeout: Duration) -> Self {
        Self { url, tls, idle_timeout, idle: Mutex::default() }
    }

    /// Sends a request and reads the whole response. Dropping the future closes its connection.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<Answer, ClientError> {
        let (mut connection, mut is_new) = match self.take() {
            Some(connection) => (connection, false),
            None => (self.connect().await?, true),
        };
        let mut request = request;
        loop {
            match connection.requests.try_send_request(request).await {
                Ok(response) => {
                    let (head, mut body) = response.into_parts();
                    let body = body::read_whole(&mut body, bytes_max).await;
                    let body = body.map_err(|error| match error {
                        BodyError::TooLong(max) => ClientError::TooLarge(max),
                        BodyError::TooSlow(_) | BodyError::Broken => ClientError::Cut,
                    })?;
                    let status = head.status.as_u16();
                    return Ok(Answer { status, headers: head.headers, body, connection });
                }
                Err(mut failed) => match failed.take_message() {
                    Some(unwritten) if !is_new => request = unwritten,
                    _ => return Err(ClientError::NoResponse(failed.into_error())),
                },
            }
            (connection, is_new) = (self.connect().await?, true);
        }
    }

    /// Keeps the connection of an answer for the next request, if it can take one.
    pub(crate) async fn keep(&self, answer: Answer) {
        let mut connection = answer.connection;
        if self.idle_timeout > Duration::ZERO
            && let Ok(Ok(())) = timeout(READY_TIMEOUT, connection.requests.ready()).await
        {
            self.lock().push((connection, Instant::now()));
        }
    }

    /// Closes the connections that have had no request for the idle timeout, or that the backend has closed. Returns true
    /// if some are left.
    pub(crate) fn sweep(&self) -> bool {
        let mut idle = self.lock();
        idle.retain(|(connection, since)| {
            since.elapsed() < self.idle_timeout && !connection.requests.is_closed()
        });
        !idle.is_empty()
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.lock();
        while let Some((connection, since)) = idle.pop() {
            if since.elapsed() < self.idle_timeout && connection.requests.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let stream = dial(&self.url).await?;
        match &self.tls {
            None => drive(stream).await,
            Some(tls) => drive(shake_hands(tls, stream).await?).await,
        }
    }
}

/// Connects to a backend as a call does, and sends it nothing: looks its name up and, for `https`, shakes hands.
pub async fn reach(url: &BackendUrl, tls: Option<&BackendTls>, within: Duration) -> Result<(), ClientError> {
    let reached = timeout(within, async {
        let stream = dial(url).await?;
        match tls {
            None => Ok(None),
            Some(tls) => shake_hands(tls, stream).await.map(Some),
        }
    });
    let reached = reached.await.unwrap_or_else(|_| Err(ClientError::Connect(io::ErrorKind::TimedOut.into())));
    if let Some(mut stream) = reached?
        && let Ok(Err(error)) = timeout(VERDICT_TIMEOUT, stream.read_u8()).await
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        return Err(ClientError::Tls(error));
    }
    Ok(())
}

async fn dial(url: &BackendUrl) -> Result<TcpStream, ClientError> {
    let address = (url.host(), url.port());
    let stream = match TcpStream::connect(address).await {
        // Behind one name there may be several backends, one of which has just gone.
        Err(_) => TcpStream::connect(address).await,
        connected => connected,
    };
    let stream = stream.map_err(ClientError::Connect)?;
    stream.set_nodelay(true).map_err(ClientError::Connect)?;
    Ok(stream)
}

async fn shake_hands(tls: &BackendTls, stream: TcpStream) -> Result<TlsStream<TcpStream>, ClientError> {
    tls.connector.connect(tls.name.clone(), stream).await.map_err(ClientError::Tls)
}

/// Returns an error and what caused it, in one line: the last cause says the most, such as the alert of TLS.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

async fn drive<S>(stream: S) -> Result<Connection, ClientError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let handshake = Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream));
    let (requests, connection) = handshake.await.map_err(ClientError::NoResponse)?;
    let task = tokio::spawn(async move {
        // Whoever made the request is told of the failure.
        let _ = connection.await;
    });
    Ok(Connection { requests, task })
}
