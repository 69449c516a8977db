//! `GET /probe`: answers 200 while the node takes clients, so that a page learns that its network is back, and a balancer
//! in front of the port for clients that a node leaves. It costs no permit, token or session.

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::{Request, StatusCode};

use crate::node::Node;
use crate::response::{HttpResponse, later, only, respond};

pub(crate) fn answer(node: &Node, request: &Request<Incoming>) -> HttpResponse {
    if let Err(refusal) = only(request, "GET, HEAD") {
        return *refusal;
    }
    let mut response = if node.is_draining() {
        later("This node is shutting down.")
    } else {
        respond(StatusCode::OK, "application/json", "{}".into())
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
