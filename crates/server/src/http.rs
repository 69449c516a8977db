//! The client port's routes: which request becomes a connection that stays, and which is answered.

use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::sync::mpsc;

use crate::accept::foreign;
use crate::accept::origin::{AllowedOrigins, Origin};
use crate::node::{Arrival, Node};
use crate::shard::{Adopted, Purpose};
use crate::transport::{sse, websocket};
use crate::turns::Turns;
use crate::{api, dev};

/// A whole response.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What requests on a shard's listener need.
#[derive(Debug)]
pub(crate) struct Gate {
    pub node: Node,
    pub origins: AllowedOrigins,
    pub shard: usize,
    /// What requests wait for, so that they leave the shard time for its clients.
    pub turns: Rc<Turns>,
    pub adopted: mpsc::UnboundedSender<Adopted>,
}

impl Gate {
    /// Gives a socket to the shard.
    pub(crate) fn adopt(&self, adopted: Adopted) {
        // A shard that is gone takes no more sockets, and the socket closes.
        let _ = self.adopted.send(adopted);
    }

    /// Gives a place to one more client, or the answer that sends it away.
    pub(crate) fn admit(&self) -> Result<Arrival, Box<Answer>> {
        // Also while the node goes down: an EventSource that is refused does not come back by itself.
        self.node.admit().map_err(|limit| {
            self.node.counters[self.shard].connections_rejected.add(1);
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, limit);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            Box::new(response)
        })
    }
}

pub(crate) enum Outcome {
    Response(Answer),
    Stay(Stay),
}

/// A request that asked for a connection that stays.
#[derive(Debug)]
pub(crate) struct Stay {
    pub head: Bytes,
    pub purpose: Purpose,
    pub arrival: Arrival,
}

impl From<Result<Stay, Box<Answer>>> for Outcome {
    fn from(result: Result<Stay, Box<Answer>>) -> Self {
        match result {
            Ok(stay) => Self::Stay(stay),
            Err(response) => Self::Response(*response),
        }
    }
}

pub(crate) async fn route(gate: &Gate, request: Request<Incoming>) -> Outcome {
    let vary = vary(gate, &request);
    let mut outcome = lead(gate, request).await;
    if let (Outcome::Response(response), Some(vary)) = (&mut outcome, vary) {
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
        Some(_) => Some(foreign::VARY_ON),
        None => judges_origins.then(|| HeaderValue::from_static("Origin")),
    }
}

async fn lead(gate: &Gate, request: Request<Incoming>) -> Outcome {
    let settings = &gate.node.settings;
    let path = request.uri().path();
    if settings.dev.is_some()
        && let Err(foreign) = dev::check(&request)
    {
        return Outcome::Response(foreign.answer());
    }
    if path == settings.websocket.path {
        return websocket(gate, request, false).into();
    }
    if Some(path) == settings.websocket.echo_path.as_deref() {
        return websocket(gate, request, true).into();
    }
    if path == settings.sse.path {
        return sse::listen(gate, &request).await.into();
    }
    if is_api_call(gate, &request) {
        return Outcome::Response(api::serve(&gate.node, request).await);
    }
    if let Some(dev) = &settings.dev
        && let Some(response) = dev::serve(dev, &gate.node, &request)
    {
        return Outcome::Response(response);
    }
    let places = [&*settings.websocket.path, &*settings.sse.path];
    let api = settings.api.on_client_port.then_some(&*settings.api.path);
    let places: Vec<&str> = places.into_iter().chain(api).collect();
    let body = format!("There is nothing here. This port serves {}.", places.join(", "));
    Outcome::Response(text(StatusCode::NOT_FOUND, body))
}

pub(crate) fn is_api_call(gate: &Gate, request: &Request<Incoming>) -> bool {
    let api = &gate.node.settings.api;
    api.on_client_port && is_below(request.uri().path(), &api.path)
}

fn websocket(gate: &Gate, mut request: Request<Incoming>, echo: bool) -> Result<Stay, Box<Answer>> {
    only_get(&request)?;
    let (manner, subprotocol) = websocket::manner(&request);
    let compression = gate.node.settings.websocket.deflate.and_then(|_| websocket::compression(&request));
    let head = websocket::accept(&mut request, subprotocol, compression.as_ref()).map_err(|error| {
        let mut response = text(error.status(), error.to_string());
        for (name, value) in error.headers() {
            response.headers_mut().insert(name, value);
        }
        Box::new(response)
    })?;
    if gate.origins.judge(request.headers()) == Origin::Refused {
        return Err(Box::new(refused_origin()));
    }
    let arrival = gate.admit()?;
    let deflate = compression.map(|agreement| agreement.deflate);
    let purpose = if echo { Purpose::Echo(deflate) } else { Purpose::Client(manner, deflate) };
    Ok(Stay { head, purpose, arrival })
}

pub(crate) fn only_get(request: &Request<Incoming>) -> Result<(), Box<Answer>> {
    if request.method() == Method::GET {
        return Ok(());
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "This takes GET requests only.");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    Err(Box::new(response))
}

pub(crate) fn refused_origin() -> Answer {
    text(StatusCode::FORBIDDEN, "Pages of this origin may not connect: it is not in client.allowed_origins.")
}

pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    let mut body = body.into();
    body.push('\n');
    respond(status, "text/plain; charset=utf-8", body.into())
}

pub(crate) fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Returns true if the client wants the connection closed after this request.
pub(crate) fn is_last(request: &Request<Incoming>) -> bool {
    let connection = request.headers().get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut words = connection.flat_map(|value| value.split(',').map(str::trim));
    match request.version() {
        Version::HTTP_11 => words.any(|word| word.eq_ignore_ascii_case("close")),
        _ => !words.any(|word| word.eq_ignore_ascii_case("keep-alive")),
    }
}

pub(crate) fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
