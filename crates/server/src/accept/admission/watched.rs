//! The stream of an HTTP connection, of which a watch sees every read and write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A watch over a stream.
pub(crate) trait StreamWatch: Unpin {
    /// Returns false if nothing is to be read for now: the watch has the task woken.
    fn may_read(&self, context: &Context<'_>) -> bool;

    /// Notes the result of a read: `None` if nothing was there.
    fn read(&self, bytes: Option<&[u8]>);

    /// Notes the result of a write: the kernel took some, or nothing.
    fn wrote(&self, context: &Context<'_>, is_taken: bool);
}

/// A stream that reports the result of every read and write to its watch.
#[derive(Debug)]
pub(crate) struct Watched<S, W> {
    stream: S,
    watch: W,
}

impl<S, W: StreamWatch> Watched<S, W> {
    pub(crate) fn new(stream: S, watch: W) -> Self {
        Self { stream, watch }
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    fn wrote<T>(&self, context: &Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.watch.wrote(context, result.is_ready());
        result
    }
}

impl<S: AsyncRead + Unpin, W: StreamWatch> AsyncRead for Watched<S, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.watch.may_read(context) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch.read(result.is_ready().then(|| &buffer.filled()[before..]));
        result
    }
}

impl<S: AsyncWrite + Unpin, W: StreamWatch> AsyncWrite for Watched<S, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.wrote(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
