//! The body of a request to an endpoint: read within the endpoint's limit, or refused with the setting to change.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};

use crate::accept::admission::HttpConnection;
use crate::body::{self, BodyError};
use crate::response::{HttpResponse, bad_request, text};

/// Reads the body of a request, of at most as many bytes as the setting says.
pub(super) async fn read(
    mut request: Request<Incoming>,
    setting: &str,
    bytes_max: usize,
) -> Result<Bytes, Box<HttpResponse>> {
    // A request of HTTP/2 has its own place among those that may have to give way.
    let place = request.extensions().get::<Arc<HttpConnection>>().cloned();
    let waits_for_peer = |waits| place.iter().for_each(|place| place.waits_for_peer(waits));
    waits_for_peer(true);
    let read = body::read(request.body_mut(), bytes_max).await;
    waits_for_peer(false);
    let error = match read {
        Ok(body) => return Ok(body),
        Err(error) => error,
    };
    let response = match error {
        BodyError::TooLong(bytes_max) => text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body is longer than {bytes_max} bytes, the limit that {setting} sets."),
        ),
        BodyError::TooSlow(timeout) => text(
            StatusCode::REQUEST_TIMEOUT,
            format!("The body did not arrive within {} seconds.", timeout.as_secs()),
        ),
        BodyError::Broken => *bad_request("the body ended too early"),
    };
    Err(Box::new(body::unread(request.into_body(), response)))
}
