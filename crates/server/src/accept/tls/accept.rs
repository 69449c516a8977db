//! From an accepted connection to the stream that requests are read from, and back to what a shard can own.

use std::io;
use std::time::Duration;

use rustls::{HandshakeKind, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{HTTP2, Tls};

/// The time that a peer has to take the end of its connection.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// The outcomes of handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsHandshake {
    Full,
    /// The client came back, and nothing had to be signed.
    Resumed,
    /// The client does not take what it was presented: a name or an issuer that it does not know, most likely.
    Refused,
    /// The peer did not speak TLS, or no version and cipher that the node speaks.
    Invalid,
    /// The client went away.
    Left,
    TimedOut,
}

impl TlsHandshake {
    /// With their labels, in the order in which shards count them.
    pub(crate) const ALL: [(Self, &str); 6] = [
        (Self::Full, "full"),
        (Self::Resumed, "resumed"),
        (Self::Refused, "refused"),
        (Self::Invalid, "invalid"),
        (Self::Left, "left"),
        (Self::TimedOut, "timeout"),
    ];
}

/// Makes a connection ready for requests, for as long as it is polled. Without a successful handshake, which any
/// client can cause, there is no stream.
pub(crate) async fn shake_hands(
    tls: &Tls,
    stream: TcpStream,
) -> (TlsHandshake, Option<TlsStream<TcpStream>>) {
    let acceptor = TlsAcceptor::from(tls.0.config.clone());
    match acceptor.accept(stream).await {
        Ok(stream) => match stream.get_ref().1.handshake_kind() {
            Some(HandshakeKind::Resumed) => (TlsHandshake::Resumed, Some(stream)),
            _ => (TlsHandshake::Full, Some(stream)),
        },
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            (failure(&error), None)
        }
    }
}

/// Returns true if the client chose HTTP/2.
pub(crate) fn has_agreed_on_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

fn failure(error: &io::Error) -> TlsHandshake {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(_)) => TlsHandshake::Refused,
        Some(_) => TlsHandshake::Invalid,
        None => TlsHandshake::Left,
    }
}

/// A stream of requests, encrypted or not.
pub(crate) trait ServerStream: AsyncRead + AsyncWrite + Unpin {
    /// Takes it apart, for use without tokio.
    fn into_parts(self) -> (TcpStream, Option<Box<ServerConnection>>);

    /// Ends what is not gone on with.
    async fn end(self);
}

impl ServerStream for TcpStream {
    fn into_parts(self) -> (TcpStream, Option<Box<ServerConnection>>) {
        (self, None)
    }

    async fn end(self) {}
}

impl ServerStream for TlsStream<TcpStream> {
    fn into_parts(self) -> (TcpStream, Option<Box<ServerConnection>>) {
        let (stream, tls) = self.into_inner();
        (stream, Some(Box::new(tls)))
    }

    /// Says that this is the end, without which a peer cannot tell it from a connection that was cut.
    async fn end(mut self) {
        // A peer that has gone needs no goodbye.
        let _ = timeout(FAREWELL_TIME, self.shutdown()).await;
    }
}
