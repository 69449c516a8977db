//! The routes of the client port: endpoints of clients, calls of the API, and the pages of `--dev`.
//!
//! Pages of allowed origins can read every answer but the API's, also a refusal and a 404.

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::{Request, StatusCode};

use crate::accept::admission::{ClientNetwork, ConnectionGroup};
use crate::accept::origin::Origin;
use crate::endpoints::Endpoint;
use crate::response::{HttpResponse, is_below, refused_origin, text};
use crate::transport::poll::PollQuery;
use crate::transport::{
    Gate, Routed, emulation, heartbeat, poll_end, probe, publish, stream, stream_poll, subscribe, uni,
    websocket,
};
use crate::{api, body, cors, dev};

/// Answers a request or opens its connection. `admitted` is the network of its client, which what it asks for is counted by,
/// or the refusal of an earlier check.
pub(crate) async fn route(
    gate: &Gate,
    request: Request<Incoming>,
    admitted: Result<ClientNetwork, HttpResponse>,
) -> Routed {
    let dev = gate.node.settings.dev.as_ref();
    let cross_site = dev.and_then(|dev| dev::check(dev, &request).err());
    let admitted = match cross_site {
        Some(cross_site) => admitted.and(Err(cross_site.answer())),
        None => admitted,
    };
    if is_api_call(gate, &request) {
        return Routed::Response(match admitted {
            Ok(_) => api::serve(&gate.node, request).await,
            Err(refusal) => body::unread(request.into_body(), refusal),
        });
    }
    let origin = if cross_site.is_some() { Origin::Refused } else { gate.origins.judge(request.headers()) };
    let shared = cors::headers(&origin, dev.is_some());
    let mut routed = match admitted {
        Ok(network) => lead(gate, network, request).await,
        Err(refusal) => Routed::Response(body::unread(request.into_body(), refusal)),
    };
    if let Routed::Response(response) = &mut routed {
        cors::share(response, shared);
        // It may depend on a token, a cookie, or what the node has to do just now.
        let is_refusal = response.status().is_client_error() || response.status().is_server_error();
        if is_refusal && !response.headers().contains_key(CACHE_CONTROL) {
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
    routed
}

async fn lead(gate: &Gate, network: ClientNetwork, request: Request<Incoming>) -> Routed {
    let settings = &gate.node.settings;
    let origin = gate.origins.judge(request.headers());
    if cors::is_preflight(&request) {
        return Routed::Response(cors::preflight(&request, &origin));
    }
    let path = request.uri().path();
    if let Some(served) = settings.endpoints().find(|served| served.path == path) {
        if origin == Origin::Refused {
            return Routed::Response(body::unread(request.into_body(), refused_origin()));
        }
        return match served.endpoint {
            Endpoint::WebSocket => websocket::open(gate, network, request, false).into(),
            Endpoint::Echo => websocket::open(gate, network, request, true).into(),
            Endpoint::Subscribe | Endpoint::HttpStream => {
                let query = PollQuery::of(&request);
                if query.is_end {
                    Routed::Response(poll_end::serve(gate, network, request, query).await)
                } else if served.endpoint == Endpoint::Subscribe {
                    subscribe::open(gate, network, request).await
                } else if stream_poll::is_asked_for(&query) {
                    stream_poll::serve(gate, network, request, query).await
                } else {
                    stream::http_stream(gate, network, request).await.into()
                }
            }
            Endpoint::Publish => Routed::Response(publish::publish(gate, network, request).await),
            Endpoint::Heartbeat => Routed::Response(heartbeat::beat(gate, network, request).await),
            Endpoint::Sse => stream::sse(gate, network, request).await.into(),
            Endpoint::Emulation => Routed::Response(emulation::serve(gate, network, request).await),
            Endpoint::Probe => Routed::Response(probe::answer(&gate.node, &request)),
            Endpoint::UniWebSocket => uni::websocket(gate, network, request).into(),
            Endpoint::UniHttpStream => uni::http_stream(gate, network, request).await.into(),
            Endpoint::UniSse => uni::sse(gate, network, request).await.into(),
        };
    }
    if let Some(dev) = &settings.dev
        && let Some(response) = dev::serve(dev, &gate.node, &request)
    {
        return Routed::Response(response);
    }
    let endpoints = settings.endpoints().filter(|served| served.endpoint != Endpoint::Echo);
    let api = settings.api.on_client_port.then_some(&*settings.api.path);
    let paths: Vec<&str> = endpoints.map(|served| served.path).chain(api).collect();
    let sentence = format!("There is nothing here. This port serves {}.", paths.join(", "));
    Routed::Response(body::unread(request.into_body(), text(StatusCode::NOT_FOUND, sentence)))
}

/// Returns the group of connections that a request counts in.
pub(crate) fn group_of(gate: &Gate, request: &Request<Incoming>) -> ConnectionGroup {
    if is_api_call(gate, request) {
        return ConnectionGroup::Api;
    }
    let path = request.uri().path();
    let served = gate.node.settings.endpoints().find(|served| served.path == path);
    match served.map(|served| served.endpoint) {
        Some(Endpoint::Publish | Endpoint::Heartbeat | Endpoint::Emulation) => ConnectionGroup::Post,
        // It waits for another node. When a topic has thousands of pollers, all come back at once, so those whose session is
        // here are answered like any request.
        Some(Endpoint::Subscribe | Endpoint::HttpStream)
            if PollQuery::of(request).key().is_some_and(|key| key.node != gate.node.id) =>
        {
            ConnectionGroup::Post
        }
        _ => ConnectionGroup::Request,
    }
}

fn is_api_call(gate: &Gate, request: &Request<Incoming>) -> bool {
    let api = &gate.node.settings.api;
    api.on_client_port && is_below(request.uri().path(), &api.path)
}
