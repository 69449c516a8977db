//! From a request to its response, or to the client that it opens.

use std::future::poll_fn;
use std::rc::Rc;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::stream::StreamTasks;
use super::translate::{Head, as_http1};
use super::upgraded::carry;
use crate::accept::validity::{self, Invalid};
use crate::response::HttpResponse;
use crate::route::route;
use crate::stream_pipe::CarrierEnd;
use crate::transport::{Gate, Routed};

/// The shard has given up the client before it had a response: it closes, say. The stream is reset.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("there is no response")]
pub(super) struct NoResponse;

/// Answers a request as one of HTTP/1.1 is answered.
pub(super) async fn answer(
    gate: Rc<Gate>,
    tasks: StreamTasks,
    exchange: Rc<Exchange>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, NoResponse> {
    let is_head = request.method() == Method::HEAD;
    let translated = as_http1(&mut request);
    let admitted = exchange.enter(&gate, &mut request);
    let (upgrade, valid) = match translated {
        Ok(upgrade) => (upgrade, validity::check(&request, true)),
        Err(invalid) => (None, Err(invalid)),
    };
    let admitted = admitted.and_then(|network| match valid {
        Ok(()) => Ok(network),
        Err(invalid) => Err(Box::new(invalid.answer())),
    });
    match route(&gate, request, admitted.map_err(|refusal| *refusal)).await {
        // hyper would take it for an upgrade.
        Routed::Response(response) if upgrade.is_some() && response.status().is_success() => {
            whole(Invalid::Connect.answer(), is_head, exchange).await
        }
        Routed::Response(response) => whole(response, is_head, exchange).await,
        Routed::Arrival(arrival) => {
            let carrier = exchange.open(&gate, arrival);
            opened(carrier, upgrade, tasks, exchange).await
        }
    }
}

async fn whole(
    response: HttpResponse,
    is_head: bool,
    exchange: Rc<Exchange>,
) -> Result<Response<ResponseBody>, NoResponse> {
    let (mut head, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    let mut bytes = body.to_bytes();
    if is_head {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        bytes.clear();
    }
    exchange.moves_on();
    Ok(Response::from_parts(head, ResponseBody::Whole(bytes, exchange)))
}

/// Waits for the response of the shard, and has what follows it carried.
async fn opened(
    carrier: CarrierEnd,
    upgrade: Option<OnUpgrade>,
    tasks: StreamTasks,
    exchange: Rc<Exchange>,
) -> Result<Response<ResponseBody>, NoResponse> {
    let head = poll_fn(|context| carrier.poll_head(context)).await.ok_or(NoResponse)?;
    let Head { response, is_upgraded } = Head::read(&head).ok_or(NoResponse)?;
    let (head, ()) = response.into_parts();
    match upgrade {
        Some(_) if head.status.is_success() && !is_upgraded => {
            whole(Invalid::Connect.answer(), false, exchange).await
        }
        Some(upgrade) if is_upgraded => {
            let carried = exchange.clone();
            tasks.start(async move { carry(upgrade, carrier).await }, carried);
            // hyper starts a task that writes what is carried.
            tasks.expect(exchange.clone());
            Ok(Response::from_parts(head, ResponseBody::Whole(Default::default(), exchange)))
        }
        _ => Ok(Response::from_parts(head, ResponseBody::Stream(carrier))),
    }
}
