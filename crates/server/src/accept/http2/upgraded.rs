//! The bytes of a WebSocket, both ways.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream_pipe::CarrierEnd;

/// Bytes read at once.
const READ_BYTES: usize = 4096;

/// Carries bytes until both sides have ended, or one is gone.
pub(super) async fn carry(upgrade: OnUpgrade, carrier: CarrierEnd) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut carried = Carried {
        stream: TokioIo::new(upgraded),
        carrier,
        output: Bytes::new(),
        out: Side::Open,
        input: Side::Open,
    };
    poll_fn(|context| carried.poll(context)).await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Open,
    /// Its end is not told to the other side yet.
    Ending,
    Over,
}

#[derive(Debug)]
struct Carried {
    stream: TokioIo<Upgraded>,
    carrier: CarrierEnd,
    /// Bytes that the stream did not take.
    output: Bytes,
    out: Side,
    input: Side,
}

/// A side is gone, and with it the client.
#[derive(Debug)]
struct Gone;

impl Carried {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.write(context).is_err() || self.read(context).is_err() {
            return Poll::Ready(());
        }
        if self.out == Side::Over && self.input == Side::Over { Poll::Ready(()) } else { Poll::Pending }
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<(), Gone> {
        while self.out == Side::Open {
            if self.output.is_empty() {
                match self.carrier.poll_output(context) {
                    Poll::Ready(Some(output)) => self.output = output,
                    Poll::Ready(None) => self.out = Side::Ending,
                    Poll::Pending => return Ok(()),
                }
                continue;
            }
            match Pin::new(&mut self.stream).poll_write(context, &self.output) {
                Poll::Ready(Ok(written)) if written > 0 => self.output.advance(written),
                Poll::Ready(_) => return Err(Gone),
                Poll::Pending => return Ok(()),
            }
        }
        if self.out == Side::Ending
            && let Poll::Ready(ended) = Pin::new(&mut self.stream).poll_shutdown(context)
        {
            ended.map_err(|_| Gone)?;
            self.out = Side::Over;
        }
        Ok(())
    }

    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Gone> {
        while self.input == Side::Open {
            let room = match self.carrier.poll_room(context) {
                Poll::Ready(Some(room)) => room,
                Poll::Ready(None) => {
                    self.input = Side::Over;
                    break;
                }
                Poll::Pending => break,
            };
            let mut bytes = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes[..room.min(READ_BYTES)]);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    self.carrier.end_input();
                    self.input = Side::Over;
                }
                Poll::Ready(Ok(())) => self.carrier.give(buffer.filled()),
                Poll::Ready(Err(_)) => return Err(Gone),
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}
