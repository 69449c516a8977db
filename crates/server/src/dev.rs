//! What only `--dev` serves: the chat room and the tokens that its page connects with.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Request, StatusCode};
use jsonwebtoken::{EncodingKey, Header};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::accept::foreign::{self, Foreign, Hosts};
use crate::chat::{self, PageFile};
use crate::node::Node;
use crate::response::{HttpResponse, only_get, respond, text};
use crate::settings::DevSettings;

const TOKEN_PATH: &str = "/dev/token";

/// How long a token of the chat room is good, in seconds: short, so that refreshing it is seen to work.
const TOKEN_TTL: i64 = 3600;

/// Longest name and user id that a token is made for, in characters.
const NAME_LENGTH_MAX: usize = 64;

/// Passes what comes from this machine. WebSocket and streams judge their origins themselves, and a page is shown to
/// whoever follows a link to it.
pub(crate) fn check(request: &Request<Incoming>) -> Result<(), Foreign> {
    let (headers, uri) = (request.headers(), request.uri());
    match uri.path() {
        TOKEN_PATH => foreign::check(headers, uri, Hosts::Loopback),
        path if chat::file(path).is_some() => foreign::check_host(headers, uri, Hosts::Loopback),
        _ => foreign::check_host(headers, uri, Hosts::Loopback).and_then(|()| foreign::check_site(headers)),
    }
}

/// `None` if the path is not one of development's.
pub(crate) fn serve(dev: &DevSettings, node: &Node, request: &Request<Incoming>) -> Option<HttpResponse> {
    let path = request.uri().path();
    let file = chat::file(path);
    if file.is_none() && path != TOKEN_PATH {
        return None;
    }
    if let Err(refusal) = only_get(request) {
        return Some(*refusal);
    }
    Some(file.map_or_else(|| token(dev, node, request), page))
}

fn page(file: &PageFile) -> HttpResponse {
    let mut response = respond(StatusCode::OK, file.content_type, Bytes::from_static(file.body.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(chat::CONTENT_SECURITY_POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// `GET /dev/token?name=Ann&user=42` answers `{"token":"..."}`: what an application's own backend would make
/// after it has proved who the user is. Here everybody may be anybody.
fn token(dev: &DevSettings, node: &Node, request: &Request<Incoming>) -> HttpResponse {
    let query = request.uri().query().unwrap_or("");
    let parameter = |wanted: &str| {
        let value = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted);
        value.map(|(_, value)| value.chars().take(NAME_LENGTH_MAX).collect::<String>()).unwrap_or_default()
    };
    let expires = node.now().unix() + TOKEN_TTL;
    let claims = json!({"sub": parameter("user"), "exp": expires, "info": {"name": parameter("name")}});
    let key = EncodingKey::from_secret(dev.token_secret.expose_secret().as_bytes());
    match jsonwebtoken::encode(&Header::default(), &claims, &key) {
        Ok(token) => {
            let body = json!({"token": token}).to_string();
            let mut response = respond(StatusCode::OK, "application/json", body.into());
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "a token for the chat room could not be made");
            text(StatusCode::INTERNAL_SERVER_ERROR, "The token could not be made.")
        }
    }
}
