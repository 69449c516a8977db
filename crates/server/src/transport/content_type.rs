//! The type of a request's body.

use hyper::header::{CONTENT_TYPE, HeaderMap};

pub(super) const JSON: &str = "application/json";
/// The type of bodies in Protobuf, and of data as it is.
pub(super) const BINARY: &str = "application/octet-stream";

/// Returns true if the body is of a media type, whatever its parameters.
pub(super) fn is(headers: &HeaderMap, media_type: &str) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    content_type.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(media_type)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn neither_case_nor_parameters_matter() {
        for (content_type, is_binary) in [
            ("application/octet-stream", true),
            ("Application/Octet-Stream", true),
            ("application/octet-stream; charset=x", true),
            (" application/octet-stream ;a=b;c", true),
            ("application/octet-streams", false),
            ("application/json", false),
            ("text/plain; application/octet-stream", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(is(&headers, BINARY), is_binary, "{content_type}");
        }
        assert!(!is(&HeaderMap::new(), BINARY));
    }
}
