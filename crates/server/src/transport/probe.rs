//! `GET /probe`: answers 200 while the node takes clients, so that a page learns that its network is back, and a balancer
//! in front of the port for clients that a node leaves. It costs no permit, token or session.

use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};

use crate::node::Node;
use crate::response::{HttpResponse, respond, text};

pub(crate) fn answer(node: &Node, request: &Request<Incoming>) -> HttpResponse {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "This takes GET and HEAD requests only.");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let mut response = if node.is_draining() {
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "This node is shutting down.");
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response
    } else {
        respond(StatusCode::OK, "application/json", "{}".into())
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
