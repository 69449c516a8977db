//! The steps that both ports take with a request before it is routed.

use std::future::Future;

use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;

use super::admission::{ConnectionGroup, Watch};
use super::unreadable::REQUEST_HEAD_BYTES_MAX;
use super::validity::{self, Invalid};
use crate::response::HttpResponse;

/// The settings of hyper that both ports share.
pub(crate) fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // A client that has ended its side still reads the answer.
    builder.half_close(true).max_header_size(REQUEST_HEAD_BYTES_MAX);
    builder
}

/// Admits a request to its group once the answers before it are taken and its `turn` has come. Returns the response to
/// a request that is not valid, or for which its group has no room.
pub(crate) async fn admit(
    watch: &Watch,
    request: &Request<Incoming>,
    group: ConnectionGroup,
    turn: impl Future<Output = ()>,
) -> Result<(), HttpResponse> {
    let validity = validity::check(request, watch.begun());
    watch.written().await;
    turn.await;
    if !watch.asked(group, !request.body().is_end_stream()) {
        return Err(watch.refusal(group));
    }
    validity.map_err(Invalid::answer)
}
