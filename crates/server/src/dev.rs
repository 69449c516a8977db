//! Development: a page, and the tokens that it connects with.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Request, StatusCode};
use jsonwebtoken::{EncodingKey, Header};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::accept::cross_site::{self, CrossSite, Hosts};
use crate::node::Node;
use crate::response::{HttpResponse, only_get, respond, text};
use crate::settings::{DevSettings, StaticFile};

const TOKEN_PATH: &str = "/dev/token";

/// Lifetime of the page's tokens, in seconds: short, so that refreshing them is seen to work.
const TOKEN_TTL: i64 = 3600;

/// Maximum length of the name and the user id in a token, in characters.
const NAME_LENGTH_MAX: usize = 64;

/// Refuses requests that are not from this machine. WebSocket and streams check origins themselves, and a link to the
/// page may be anywhere.
pub(crate) fn check(dev: &DevSettings, request: &Request<Incoming>) -> Result<(), CrossSite> {
    let (headers, uri) = (request.headers(), request.uri());
    match uri.path() {
        TOKEN_PATH => cross_site::check(headers, uri, Hosts::Loopback),
        path if dev.pages.file(path).is_some() => cross_site::check_host(headers, uri, Hosts::Loopback),
        _ => cross_site::check_host(headers, uri, Hosts::Loopback)
            .and_then(|()| cross_site::check_site(headers)),
    }
}

/// Serves the page and its tokens. Returns `None` for other paths.
pub(crate) fn serve(dev: &DevSettings, node: &Node, request: &Request<Incoming>) -> Option<HttpResponse> {
    let path = request.uri().path();
    let file = dev.pages.file(path);
    if file.is_none() && path != TOKEN_PATH {
        return None;
    }
    if let Err(refusal) = only_get(request) {
        return Some(*refusal);
    }
    Some(file.map_or_else(|| token(dev, node, request), |file| page(dev, file)))
}

fn page(dev: &DevSettings, file: &StaticFile) -> HttpResponse {
    let mut response = respond(StatusCode::OK, file.content_type, Bytes::from_static(file.body.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(dev.pages.security_policy));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Answers `GET /dev/token?name=Ann&user=42` with `{"token":"..."}`. An application's backend makes such a token after it
/// has authenticated the user; here everybody can be any user.
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
            tracing::error!(%error, "cannot make a token for the page");
            text(StatusCode::INTERNAL_SERVER_ERROR, "The token could not be made.")
        }
    }
}
