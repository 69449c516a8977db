//! The routes of the client port: requests that open a connection, requests to the API, and the pages of `--dev`.

use hyper::body::Incoming;
use hyper::header::{HeaderValue, VARY};
use hyper::{Request, StatusCode};

use crate::accept::cross_site;
use crate::response::{is_below, text};
use crate::settings::Settings;
use crate::transport::{Gate, Routed, subscribe, websocket};
use crate::{api, dev};

pub(crate) async fn route(gate: &Gate, request: Request<Incoming>) -> Routed {
    let vary = vary(gate, &request);
    let mut routed = lead(gate, request).await;
    if let (Routed::Response(response), Some(vary)) = (&mut routed, vary) {
        response.headers_mut().append(VARY, vary);
    }
    routed
}

/// A transport, or the echo of protocol test suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    WebSocket,
    Echo,
    Sse,
}

/// The endpoints that open connections, with their paths.
fn endpoints(settings: &Settings) -> impl Iterator<Item = (&str, Endpoint)> {
    let endpoints = [
        (Some(&*settings.websocket.path), Endpoint::WebSocket),
        (settings.websocket.echo_path.as_deref(), Endpoint::Echo),
        (Some(&*settings.sse.path), Endpoint::Sse),
    ];
    endpoints.into_iter().filter_map(|(path, endpoint)| Some((path?, endpoint)))
}

fn endpoint(settings: &Settings, request: &Request<Incoming>) -> Option<Endpoint> {
    endpoints(settings).find(|(path, _)| *path == request.uri().path()).map(|(_, endpoint)| endpoint)
}

/// The headers that the answer depends on, so that no cache gives it to pages of other origins. The API adds its own.
fn vary(gate: &Gate, request: &Request<Incoming>) -> Option<HeaderValue> {
    let settings = &gate.node.settings;
    match settings.dev {
        _ if is_api_call(gate, request) => None,
        Some(_) => Some(cross_site::VARY_ON),
        // Each of them judges the origin.
        None => endpoint(settings, request).map(|_| HeaderValue::from_static("Origin")),
    }
}

async fn lead(gate: &Gate, request: Request<Incoming>) -> Routed {
    let settings = &gate.node.settings;
    if let Some(dev) = &settings.dev
        && let Err(cross_site) = dev::check(dev, &request)
    {
        return Routed::Response(cross_site.answer());
    }
    match endpoint(settings, &request) {
        Some(Endpoint::WebSocket) => return websocket::open(gate, request, false).into(),
        Some(Endpoint::Echo) => return websocket::open(gate, request, true).into(),
        Some(Endpoint::Sse) => return subscribe::open(gate, &request).into(),
        None => {}
    }
    if is_api_call(gate, &request) {
        return Routed::Response(api::serve(&gate.node, request).await);
    }
    if let Some(dev) = &settings.dev
        && let Some(response) = dev::serve(dev, &gate.node, &request)
    {
        return Routed::Response(response);
    }
    let transports = endpoints(settings).filter(|(_, endpoint)| *endpoint != Endpoint::Echo);
    let api = settings.api.on_client_port.then_some(&*settings.api.path);
    let paths: Vec<&str> = transports.map(|(path, _)| path).chain(api).collect();
    let body = format!("There is nothing here. This port serves {}.", paths.join(", "));
    Routed::Response(text(StatusCode::NOT_FOUND, body))
}

pub(crate) fn is_api_call(gate: &Gate, request: &Request<Incoming>) -> bool {
    let api = &gate.node.settings.api;
    api.on_client_port && is_below(request.uri().path(), &api.path)
}
