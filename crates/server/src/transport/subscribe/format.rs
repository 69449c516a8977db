//! The formats of a stream, and the response that begins it.

use bytes::Bytes;
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::wire::Wire;
use hyper::header::{ACCEPT, HeaderMap};

use super::refusal::StreamRefusal;
use crate::transport::stream_head::retry;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Server-Sent Events.
    Events,
    /// Lines of JSON.
    Lines,
    /// Answers to polls.
    Poll,
}

impl Format {
    /// Returns the format that a request asks for by `?as=`, or else by its headers; a poll is what every client can do.
    pub(super) fn of(wanted: Option<&str>, headers: &HeaderMap) -> Result<Self, StreamRefusal> {
        match wanted {
            Some("sse") => Ok(Self::Events),
            Some("ndjson") => Ok(Self::Lines),
            Some("poll") => Ok(Self::Poll),
            Some(_) => Err(StreamRefusal::new(RequestError::BadRequest, "as: say sse, ndjson or poll")),
            None if accepts(headers, "text/event-stream") => Ok(Self::Events),
            None if accepts(headers, "application/x-ndjson") => Ok(Self::Lines),
            None => Ok(Self::Poll),
        }
    }

    pub(super) fn wire(self) -> Wire {
        match self {
            Self::Events => Wire::Events,
            Self::Lines => Wire::Lines,
            Self::Poll => Wire::Poll,
        }
    }

    /// Returns the head, with these lines in it, and for an `EventSource` the time after which it is to come back. The stream
    /// ends with the connection, so it needs neither length nor chunks, and proxies are asked not to buffer it.
    pub(super) fn accepted(self, headers: &[u8]) -> Bytes {
        let content_type = match self {
            Self::Events => "text/event-stream; charset=utf-8",
            Self::Lines => "application/x-ndjson",
            // Each answer has a head of its own.
            Self::Poll => return Bytes::new(),
        };
        let mut accepted = format!(
            "HTTP/1.1 200 OK\r\n\
             content-type: {content_type}\r\n\
             cache-control: private, no-cache, no-store, must-revalidate, max-age=0\r\n\
             x-accel-buffering: no\r\n\
             connection: close\r\n"
        )
        .into_bytes();
        accepted.extend_from_slice(headers);
        accepted.extend_from_slice(b"\r\n");
        if self == Self::Events {
            retry(&mut accepted);
        }
        accepted.into()
    }
}

/// Returns true if the headers name a media type as one that the client takes.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let ranges = values.flat_map(|value| value.split(','));
    ranges.into_iter().any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|named| named.eq_ignore_ascii_case(media_type));
        is_named && !parts.any(is_none)
    })
}

/// Returns true if a parameter gives its media type no weight, which is to say that the client does not take it.
fn is_none(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    weight.and_then(|weight| weight.parse::<f32>().ok()) == Some(0.0)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn the_address_decides_then_the_header() {
        let of = |wanted, accept: &'static str| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            Format::of(wanted, &headers).map_err(|refusal| refusal.body())
        };
        assert_eq!(of(None, "*/*"), Ok(Format::Poll));
        assert_eq!(of(None, "application/json"), Ok(Format::Poll));
        assert_eq!(of(None, "text/event-stream"), Ok(Format::Events));
        assert_eq!(of(None, "application/x-ndjson"), Ok(Format::Lines));
        assert_eq!(of(None, "text/html, Application/X-NDJSON;q=0.9"), Ok(Format::Lines));
        assert_eq!(of(None, "application/x-ndjson, text/event-stream"), Ok(Format::Events));
        assert_eq!(of(None, "text/event-stream;q=0"), Ok(Format::Poll));
        assert_eq!(of(None, "text/event-stream; q=0.0, application/x-ndjson;v=1;q=0.1"), Ok(Format::Lines));
        assert_eq!(of(Some("ndjson"), "text/event-stream"), Ok(Format::Lines));
        assert_eq!(of(Some("sse"), "application/x-ndjson"), Ok(Format::Events));
        assert_eq!(of(Some("poll"), "text/event-stream"), Ok(Format::Poll));
        let refused = r#"{"error":{"code":107,"message":"as: say sse, ndjson or poll"}}"#;
        for wanted in ["", "SSE", "rss"] {
            assert_eq!(of(Some(wanted), "text/event-stream"), Err(refused.to_owned()));
        }
    }
}
