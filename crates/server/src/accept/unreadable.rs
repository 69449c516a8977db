//! Answers to requests that cannot be read as HTTP. hyper answers them with a status and no body. This puts a sentence
//! into the answer that says what to change.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest request line and headers together, in bytes.
pub(crate) const REQUEST_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Headers of one request: hyper's own limit, up to which it needs no memory of the heap.
pub(super) const REQUEST_HEADERS_MAX: usize = 100;

/// A stream below hyper that puts sentences into hyper's own answers.
#[derive(Debug)]
pub(crate) struct ErrorPages<S> {
    stream: S,
    instead: Option<Instead>,
}

/// An answer that is being written in place of another.
#[derive(Debug)]
struct Instead {
    left: Bytes,
    /// Length of the other, which hyper thinks is written.
    replaced: usize,
}

impl<S> ErrorPages<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, instead: None }
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ErrorPages<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ErrorPages<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_none() {
            match own_answer(bytes) {
                None => return Pin::new(&mut this.stream).poll_write(context, bytes),
                Some((0, answer)) => {
                    this.instead = Some(Instead { left: answer.into(), replaced: bytes.len() });
                }
                Some((start, _)) => {
                    return Pin::new(&mut this.stream).poll_write(context, &bytes[..start]);
                }
            }
        }
        while let Some(Instead { left, replaced }) = &mut this.instead {
            if left.is_empty() {
                let replaced = *replaced;
                this.instead = None;
                return Poll::Ready(Ok(replaced));
            }
            match ready!(Pin::new(&mut this.stream).poll_write(context, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => left.advance(written),
            }
        }
        Poll::Ready(Ok(0))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(last) = slices.iter().rposition(|slice| !slice.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        let is_alone = slices[..last].iter().all(|slice| slice.is_empty());
        if is_alone {
            return self.poll_write(context, &slices[last]);
        }
        // hyper's answer comes last, and alone once what is before it is written.
        let count = if own_answer(&slices[last]).is_some() { last } else { slices.len() };
        Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..count])
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Finds an answer of hyper's own at the end of what it writes: where it begins, and the answer to write instead.
/// Every refusal of ours has a body, so none is taken for one.
fn own_answer(written: &[u8]) -> Option<(usize, String)> {
    const LENGTH_MAX: usize = 256;
    const END: &[u8] = b"\r\n\r\n";
    const BEGIN: &[u8] = b"HTTP/1.1 4";
    let tail = written.strip_suffix(END)?;
    let tail_start = tail.len().saturating_sub(LENGTH_MAX);
    let tail = &tail[tail_start..];
    let start = tail.windows(BEGIN.len()).rposition(|window| window == BEGIN)?;
    let head = std::str::from_utf8(&tail[start..]).ok()?;
    let (status_line, headers) = head.split_once("\r\n")?;
    if !headers.split("\r\n").any(|header| header == "content-length: 0") {
        return None;
    }
    let sentence = match status_line.get(9..12)? {
        "400" => "Bad Request: this cannot be read as a request of HTTP/1.1.\n".to_owned(),
        "431" => format!(
            "Request line and headers are longer than {REQUEST_HEAD_BYTES_MAX} bytes, or there are more than \
             {REQUEST_HEADERS_MAX} headers. Send less, such as fewer cookies.\n"
        ),
        _ => return None,
    };
    let length = format!("content-type: text/plain; charset=utf-8\r\ncontent-length: {}", sentence.len());
    let head = head.replace("content-length: 0", &length);
    Some((tail_start + start, format!("{head}\r\n\r\n{sentence}")))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const TOO_LARGE: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sun, 29 Nov 2026 09:06:56 GMT\r\n\r\n";
    const FOUND: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";

    /// Returns the bytes that arrive when hyper writes through a pipe that takes a few bytes at a time.
    async fn arrives(slices: &[&str], vectored: bool) -> String {
        let (near, mut far) = duplex(7);
        let all = slices.concat();
        let slices: Vec<Vec<u8>> = slices.iter().map(|slice| slice.as_bytes().to_vec()).collect();
        let write = async {
            let mut stream = ErrorPages::new(near);
            if vectored {
                let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
                let mut left = &mut slices.clone()[..];
                while !left.is_empty() {
                    let written = stream.write_vectored(left).await.unwrap();
                    IoSlice::advance_slices(&mut left, written);
                }
            } else {
                stream.write_all(all.as_bytes()).await.unwrap();
            }
            stream.shutdown().await.unwrap();
        };
        let mut arrived = String::new();
        let (_, read) = tokio::join!(write, far.read_to_string(&mut arrived));
        read.unwrap();
        arrived
    }

    #[tokio::test]
    async fn answers_of_hyper_get_a_sentence() {
        let sentence = "Request line and headers are longer than 32768 bytes, or there are more than 100 headers. Send less, such as fewer cookies.\n";
        let expected = TOO_LARGE.replace(
            "content-length: 0",
            &format!("content-type: text/plain; charset=utf-8\r\ncontent-length: {}", sentence.len()),
        ) + sentence;
        for vectored in [false, true] {
            assert_eq!(arrives(&[TOO_LARGE], vectored).await, expected);
            assert_eq!(arrives(&[FOUND, TOO_LARGE], vectored).await, format!("{FOUND}{expected}"));
        }
        let bad = arrives(&[&TOO_LARGE.replace("431", "400")], false).await;
        assert!(
            bad.ends_with("\r\n\r\nBad Request: this cannot be read as a request of HTTP/1.1.\n"),
            "{bad}"
        );
    }

    #[tokio::test]
    async fn everything_else_passes() {
        let of_ours = TOO_LARGE.replace("content-length: 0", "content-length: 4") + "body";
        let empty = TOO_LARGE.replace("431", "200");
        for text in [FOUND, &of_ours, &empty, "\r\n\r\n", ""] {
            for vectored in [false, true] {
                assert_eq!(arrives(&[FOUND, text], vectored).await, format!("{FOUND}{text}"));
            }
        }
    }
}
