//! A request's body: read whole, within limits, or not at all.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use tokio::time::timeout;

use crate::response::HttpResponse;

/// From the head of a request to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The time for which, and the bytes up to which, a refused body is still read. Closing a connection while the peer
/// sends would destroy the answer before the peer reads it.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
const DISCARD_BYTES_MAX: usize = 64 << 20;

/// The reasons for which a body is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is longer than this many bytes.
    TooLong(usize),
    /// It took longer than this.
    TooSlow(Duration),
    /// The connection ended before it, or it cannot be told where it ends.
    Broken,
}

/// Reads a body. Never holds more than `bytes_max` and what the connection had read at once.
pub(crate) async fn read<B>(body: &mut B, bytes_max: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    timeout(BODY_TIMEOUT, read_whole(body, bytes_max)).await.unwrap_or(Err(BodyError::TooSlow(BODY_TIMEOUT)))
}

/// The same for as long as it takes.
pub(crate) async fn read_whole<B>(body: &mut B, bytes_max: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(BodyError::TooLong(bytes_max));
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Broken)?;
        // Trailers say nothing to us.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > bytes_max - bytes.len() {
            return Err(BodyError::TooLong(bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    // Nothing beyond its length is held where the body is kept.
    Ok(bytes.into_boxed_slice().into())
}

/// Answers a request whose body was not read to its end, and closes its connection.
pub(crate) fn unread(body: Incoming, mut response: HttpResponse) -> HttpResponse {
    if !body.is_end_stream() {
        // A client that still sends has to be able to read the response.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        discard(body);
    }
    response
}

/// Reads on and forgets, beside the answer. Ends by itself, at the latest after its time.
fn discard<B>(mut body: B)
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    tokio::spawn(timeout(DISCARD_TIMEOUT, async move {
        let mut left = DISCARD_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use http_body_util::Full;
    use hyper::body::{Frame, SizeHint};

    /// A body in pieces, which may announce a length and may break off.
    #[derive(Default)]
    struct Pieces {
        pieces: VecDeque<Result<Bytes, &'static str>>,
        announced: Option<u64>,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(self.pieces.pop_front().map(|piece| piece.map(Frame::data)))
        }

        fn size_hint(&self) -> SizeHint {
            self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
        }
    }

    fn pieces(pieces: &[&'static str]) -> Pieces {
        let pieces = pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
        Pieces { pieces, ..Pieces::default() }
    }

    #[tokio::test]
    async fn bodies_are_read_up_to_the_limit() {
        assert_eq!(read(&mut Full::new(Bytes::from("12345")), 5).await, Ok("12345".into()));
        assert_eq!(read(&mut Full::new(Bytes::from("123456")), 5).await, Err(BodyError::TooLong(5)));
        assert_eq!(read(&mut pieces(&["123", "", "45"]), 5).await, Ok("12345".into()));
        assert_eq!(read(&mut pieces(&[]), 5).await, Ok(Bytes::new()));
        let mut long = pieces(&["123", "456", "789"]);
        assert_eq!(read(&mut long, 5).await, Err(BodyError::TooLong(5)));
        assert_eq!(long.pieces.len(), 1, "nothing is read beyond the limit");
    }

    #[tokio::test]
    async fn a_body_holds_no_more_than_its_length() {
        let body = read(&mut pieces(&["1234567", "1", "2"]), 100).await.unwrap();
        assert_eq!(Vec::from(body).capacity(), 9);
    }

    #[tokio::test]
    async fn a_length_above_the_limit_is_refused_unread() {
        let mut announced = Pieces { announced: Some(6), ..pieces(&["123456"]) };
        assert_eq!(read(&mut announced, 5).await, Err(BodyError::TooLong(5)));
        assert_eq!(announced.pieces.len(), 1);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused() {
        let mut broken = pieces(&["1"]);
        broken.pieces.push_back(Err("reset"));
        assert!(matches!(read(&mut broken, 5).await, Err(BodyError::Broken)));
    }
}
