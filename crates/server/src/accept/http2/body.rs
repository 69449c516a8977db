//! The bodies of responses: whole, or what a client of the shard is sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::exchange::Exchange;
use crate::stream_pipe::CarrierEnd;

/// Bytes that are given to the stream at once.
const PIECE_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub(super) enum ResponseBody {
    Whole(Bytes, Rc<Exchange>),
    Stream(CarrierEnd),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Self::Whole(bytes, exchange) => {
                exchange.moves_on();
                let piece = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
                Poll::Ready(Some(piece).filter(|piece| !piece.is_empty()))
            }
            Self::Stream(stream) => stream.poll_output(context),
        };
        data.map(|data| data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes, _) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
