//! The upgrade to a WebSocket (RFC 6455 section 4.2): checks the request, with an answer for each mistake, and agrees on
//! the form of the protocol and on compression.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fanwire_protocol::websocket::{Agreement, Deflate};
use fanwire_protocol::wire::{Pings, TransportMode, Wire};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, VARY,
};
use hyper::{Request, StatusCode, Version};

use super::{Gate, Head, Opening};
use crate::accept::admission::ClientNetwork;
use crate::response::{HttpResponse, only_get, text, write_header};

/// The reasons for which a request cannot be upgraded to a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum UpgradeError {
    #[error(
        "This is a WebSocket endpoint: the request needs the headers 'Connection: Upgrade' and 'Upgrade: websocket'."
    )]
    NotAnUpgrade,
    #[error("WebSocket needs HTTP/1.1.")]
    OldHttp,
    #[error("Only WebSocket version 13 is spoken here (RFC 6455).")]
    Version,
    #[error("The header Sec-WebSocket-Key is missing.")]
    NoKey,
    #[error("The header Sec-WebSocket-Key is there more than once.")]
    ManyKeys,
    #[error("The header Sec-WebSocket-Key must be 16 bytes in Base64.")]
    BadKey,
}

impl UpgradeError {
    fn status(self) -> StatusCode {
        match self {
            Self::NotAnUpgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::OldHttp => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::NoKey | Self::ManyKeys | Self::BadKey => StatusCode::BAD_REQUEST,
        }
    }

    /// The headers that tell a client what to change.
    fn headers(self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::NotAnUpgrade => vec![
                (CONNECTION, HeaderValue::from_static("Upgrade")),
                (UPGRADE, HeaderValue::from_static("websocket")),
            ],
            Self::Version => vec![(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))],
            Self::OldHttp | Self::NoKey | Self::ManyKeys | Self::BadKey => Vec::new(),
        }
    }
}

/// A form of the protocol that the client asked for by name, which the response has to repeat.
const PROTOBUF: &str = "centrifuge-protobuf";
const JSON: &str = "centrifuge-json";

/// Answers the request to open a WebSocket.
pub(crate) fn open(
    gate: &Gate,
    network: ClientNetwork,
    request: Request<Incoming>,
    echo: bool,
) -> Result<Opening, Box<HttpResponse>> {
    let (mut mode, subprotocol) = mode(&request);
    if echo {
        mode = TransportMode { wire: Wire::Echo, pings: Pings::Frames };
    }
    upgrade(gate, network, request, mode, subprotocol)
}

/// Opens a WebSocket on which the client speaks first.
pub(super) fn upgrade(
    gate: &Gate,
    network: ClientNetwork,
    mut request: Request<Incoming>,
    mode: TransportMode,
    subprotocol: Option<&str>,
) -> Result<Opening, Box<HttpResponse>> {
    only_get(&request)?;
    let Handshake { head, deflate } = handshake(gate, &mut request, subprotocol)?;
    let kept = gate.kept_headers(request.headers())?;
    let permit = gate.admit(network)?;
    Ok(Opening { mode, first: VecDeque::new(), head: Head::Now(head), state: None, deflate, permit, kept })
}

/// A handshake that is good.
#[derive(Debug)]
pub(super) struct Handshake {
    /// The head of the response that completes it.
    pub(super) head: Bytes,
    /// The agreement on compression.
    pub(super) deflate: Option<Deflate>,
}

/// Checks a handshake, and agrees on compression. `subprotocol` is confirmed.
pub(super) fn handshake(
    gate: &Gate,
    request: &mut Request<Incoming>,
    subprotocol: Option<&str>,
) -> Result<Handshake, Box<HttpResponse>> {
    let agreed = gate.node.settings.websocket.deflate.and_then(|_| compression(request));
    let head = accept(request, subprotocol, agreed.as_ref()).map_err(|error| {
        let mut response = text(error.status(), error.to_string());
        for (name, value) in error.headers() {
            response.headers_mut().insert(name, value);
        }
        Box::new(response)
    })?;
    Ok(Handshake { head, deflate: agreed.map(|agreement| agreement.deflate) })
}

/// Checks a handshake and makes the head of its response, which repeats what was agreed on.
fn accept<B>(
    request: &mut Request<B>,
    subprotocol: Option<&str>,
    compression: Option<&Agreement>,
) -> Result<Bytes, UpgradeError> {
    check(request)?;
    let (response, _upgraded) =
        fastwebsockets::upgrade::upgrade(&mut *request).map_err(|_| UpgradeError::BadKey)?;
    let mut head = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in response.headers() {
        write_header(&mut head, name, value);
    }
    // A page of another origin may be refused.
    write_header(&mut head, &VARY, "Origin");
    if let Some(subprotocol) = subprotocol {
        write_header(&mut head, &SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    if let Some(compression) = compression {
        write_header(&mut head, &SEC_WEBSOCKET_EXTENSIONS, &compression.response);
    }
    head.extend_from_slice(b"\r\n");
    Ok(head.into())
}

fn check<B>(request: &Request<B>) -> Result<(), UpgradeError> {
    let headers = request.headers();
    if request.version() < Version::HTTP_11 {
        return Err(UpgradeError::OldHttp);
    }
    if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, "websocket") {
        return Err(UpgradeError::NotAnUpgrade);
    }
    let versions: Vec<_> = headers.get_all(SEC_WEBSOCKET_VERSION).iter().collect();
    if versions != ["13"] {
        return Err(UpgradeError::Version);
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().ok_or(UpgradeError::NoKey)?;
    if keys.next().is_some() {
        return Err(UpgradeError::ManyKeys);
    }
    match BASE64_STANDARD.decode(key.as_bytes()) {
        Ok(nonce) if nonce.len() == 16 => Ok(()),
        _ => Err(UpgradeError::BadKey),
    }
}

/// Returns the agreement on compression, if the client offers one that the node accepts.
fn compression<B>(request: &Request<B>) -> Option<Agreement> {
    let headers = request.headers().get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
    Deflate::negotiate(headers.filter_map(|header| header.to_str().ok()))
}

/// Returns the mode that the client asks for, and the sub-protocol to confirm. Some clients send an empty header, which
/// counts as none.
fn mode<B>(request: &Request<B>) -> (TransportMode, Option<&'static str>) {
    let headers = request.headers();
    let query = request.uri().query().unwrap_or("");
    let asks = |name: &str, value: &str| {
        form_urlencoded::parse(query.as_bytes()).any(|(n, v)| n == name && v == value)
    };
    let (wire, subprotocol) = if has_token(headers, &SEC_WEBSOCKET_PROTOCOL, PROTOBUF) {
        (Wire::CentrifugeProtobuf, Some(PROTOBUF))
    } else if has_token(headers, &SEC_WEBSOCKET_PROTOCOL, JSON) {
        (Wire::CentrifugeJson, Some(JSON))
    } else if asks("format", "protobuf") || asks("cf_protocol", "protobuf") {
        (Wire::CentrifugeProtobuf, None)
    } else {
        (Wire::CentrifugeJson, None)
    };
    let pings = if asks("cf_ws_frame_ping_pong", "true") { Pings::Frames } else { Pings::Messages };
    (TransportMode { wire, pings }, subprotocol)
}

/// Returns true if a comma-separated header holds a word, in any case.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    words(headers, name).any(|word| word.eq_ignore_ascii_case(token))
}

/// Returns the words of a comma-separated header.
pub(super) fn words<'r>(
    headers: &'r HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'r str> + use<'r> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn request(headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    fn with(name: &'static str, value: Option<&'static str>) -> Vec<(&'static str, &'static str)> {
        let others = GOOD.into_iter().filter(|(n, _)| *n != name);
        others.chain(value.map(|value| (name, value))).collect()
    }

    #[test]
    fn the_rfc_s_example_is_accepted() {
        let head = accept(&mut request(&GOOD), Some(JSON), None).unwrap();
        let head = String::from_utf8(head.into()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        assert!(head.contains("sec-websocket-protocol: centrifuge-json\r\n"), "{head}");
        assert!(!head.contains("extensions"), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn compression_is_agreed_on_when_it_is_offered() {
        assert_eq!(compression(&request(&GOOD)), None);
        let mut offers = GOOD.to_vec();
        offers.push(("sec-websocket-extensions", "x-other"));
        assert_eq!(compression(&request(&offers)), None);
        offers.push(("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"));
        let agreement = compression(&request(&offers)).unwrap();
        let head = accept(&mut request(&offers), None, Some(&agreement)).unwrap();
        let head = String::from_utf8(head.into()).unwrap();
        let header = "sec-websocket-extensions: permessage-deflate; server_no_context_takeover; \
                      client_no_context_takeover\r\n";
        assert!(head.contains(header), "{head}");
    }

    #[test]
    fn every_mistake_has_its_answer() {
        let mut doubled = GOOD.to_vec();
        doubled.push(GOOD[3]);
        let cases = [
            (with("connection", Some("close")), UpgradeError::NotAnUpgrade, 426),
            (with("upgrade", None), UpgradeError::NotAnUpgrade, 426),
            (with("sec-websocket-version", Some("8")), UpgradeError::Version, 426),
            (with("sec-websocket-version", None), UpgradeError::Version, 426),
            (with("sec-websocket-key", None), UpgradeError::NoKey, 400),
            (with("sec-websocket-key", Some("c2hvcnQ=")), UpgradeError::BadKey, 400),
            (with("sec-websocket-key", Some("!")), UpgradeError::BadKey, 400),
            (doubled, UpgradeError::ManyKeys, 400),
        ];
        for (headers, error, status) in cases {
            assert_eq!(accept(&mut request(&headers), None, None), Err(error), "{headers:?}");
            assert_eq!(error.status(), status);
        }
    }

    #[test]
    fn the_form_is_chosen_by_name_then_by_query() {
        let form = |uri: &str, protocols: &[(&'static str, &'static str)]| {
            let mut request = request(protocols);
            *request.uri_mut() = uri.parse().unwrap();
            let (mode, subprotocol) = mode(&request);
            (mode.wire, subprotocol)
        };
        let named = |name| [("sec-websocket-protocol", name)];
        assert_eq!(form("/", &named("x, centrifuge-protobuf")), (Wire::CentrifugeProtobuf, Some(PROTOBUF)));
        assert_eq!(form("/", &named("centrifuge-json")), (Wire::CentrifugeJson, Some(JSON)));
        assert_eq!(form("/", &named("")), (Wire::CentrifugeJson, None));
        assert_eq!(form("/?format=protobuf", &[]), (Wire::CentrifugeProtobuf, None));
        assert_eq!(form("/?cf_protocol=protobuf&x=1", &[]), (Wire::CentrifugeProtobuf, None));
        assert_eq!(form("/?cf_protocol_version=v2", &[]), (Wire::CentrifugeJson, None));
    }
}
