//! The routes of the client port: requests that open a connection, requests to the API, and the pages of `--dev`.

use hyper::body::Incoming;
use hyper::header::{HeaderValue, VARY};
use hyper::{Request, StatusCode};

use crate::accept::cross_site;
use crate::response::{is_below, text};
use crate::transport::{Gate, Routed, sse, websocket};
use crate::{api, dev};

pub(crate) async fn route(gate: &Gate, request: Request<Incoming>) -> Routed {
    let vary = vary(gate, &request);
    let mut outcome = lead(gate, request).await;
    if let (Routed::Response(response), Some(vary)) = (&mut outcome, vary) {
        response.headers_mut().append(VARY, vary);
    }
    outcome
}

/// The headers that the answer depends on, so that no cache gives it to pages of other origins. The API says it itself.
fn vary(gate: &Gate, request: &Request<Incoming>) -> Option<HeaderValue> {
    let settings = &gate.node.settings;
    let path = request.uri().path();
    let judges_origins = path == settings.websocket.path
        || path == settings.sse.path
        || Some(path) == settings.websocket.echo_path.as_deref();
    match settings.dev {
        _ if is_api_call(gate, request) => None,
        Some(_) => Some(cross_site::VARY_ON),
        None => judges_origins.then(|| HeaderValue::from_static("Origin")),
    }
}

async fn lead(gate: &Gate, request: Request<Incoming>) -> Routed {
    let settings = &gate.node.settings;
    let path = request.uri().path();
    if let Some(dev) = &settings.dev
        && let Err(cross_site) = dev::check(dev, &request)
    {
        return Routed::Response(cross_site.answer());
    }
    if path == settings.websocket.path {
        return websocket::open(gate, request, false).into();
    }
    if Some(path) == settings.websocket.echo_path.as_deref() {
        return websocket::open(gate, request, true).into();
    }
    if path == settings.sse.path {
        return sse::open(gate, &request).await.into();
    }
    if is_api_call(gate, &request) {
        return Routed::Response(api::serve(&gate.node, request).await);
    }
    if let Some(dev) = &settings.dev
        && let Some(response) = dev::serve(dev, &gate.node, &request)
    {
        return Routed::Response(response);
    }
    let places = [&*settings.websocket.path, &*settings.sse.path];
    let api = settings.api.on_client_port.then_some(&*settings.api.path);
    let places: Vec<&str> = places.into_iter().chain(api).collect();
    let body = format!("There is nothing here. This port serves {}.", places.join(", "));
    Routed::Response(text(StatusCode::NOT_FOUND, body))
}

pub(crate) fn is_api_call(gate: &Gate, request: &Request<Incoming>) -> bool {
    let api = &gate.node.settings.api;
    api.on_client_port && is_below(request.uri().path(), &api.path)
}
