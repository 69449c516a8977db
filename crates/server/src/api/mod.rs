//! The HTTP API for backends: `POST /api/METHOD`, several commands at once, and the older `POST /api`.
//!
//! A request passes route, key, body, commands and answer, in this order. A refusal before the commands is an HTTP
//! status with a sentence; a command that fails has an error in its reply. The "channel" of this API is a topic.

mod auth;
mod error;
mod reach;
mod refusal;
mod reply;
mod revocation;
mod method;
mod decode;

mod batch;
mod command;
mod cluster_command;
mod legacy;
mod parallel;
mod answer_budget;

mod clients;
mod dead_letters;
mod history;
mod overview;
mod presence;
mod publish;
mod user_status;

use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, VARY};
use hyper::http::request::Parts;
use hyper::{Method as HttpMethod, Request, StatusCode};

use crate::accept::cross_site::{self, Hosts};
use crate::body;
use crate::node::Node;
use crate::response::{HttpResponse, respond};
use answer_budget::AnswerBudget;
use command::ApiCommand;
use method::Method;
use refusal::HttpRefusal;
use reply::ApiEnvelope;

pub(crate) use cluster_command::run_here;
pub(crate) use error::ApiError;
pub(crate) use method::LABELS as METHOD_LABELS;

/// Answers a request at or below `api.path`, on whichever port it came.
pub(crate) async fn serve(node: &Node, request: Request<Incoming>) -> HttpResponse {
    let started = Instant::now();
    let (head, mut body) = request.into_parts();
    let path = head.uri.path().strip_prefix(&*node.settings.api.path).unwrap_or_default();
    let route = ApiRoute::of(path);
    let mut answer = match answer(node, &head, route.as_ref(), &mut body).await {
        Ok(answer) => answer,
        Err(refusal) => {
            let label = route.map_or(method::OTHER, |route| route.label());
            node.metrics.api_request(label, Some(refusal.status().as_u16().into()), started.elapsed());
            body::unread(body, refusal.into_response())
        }
    };
    if node.settings.api.insecure {
        answer.headers_mut().insert(VARY, cross_site::VARY_ON);
    }
    answer
}

/// The routes below `api.path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ApiRoute {
    Method(Method),
    Batch,
    Pipeline,
}

impl ApiRoute {
    /// `path` is the part behind `api.path`. Returns `None` for an unknown method.
    fn of(path: &str) -> Option<Self> {
        match path {
            "" | "/" => Some(Self::Pipeline),
            "/batch" => Some(Self::Batch),
            _ => Method::named(path.strip_prefix('/')?).map(Self::Method),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Method(method) => method.name(),
            Self::Batch => method::BATCH,
            Self::Pipeline => method::PIPELINE,
        }
    }
}

async fn answer(
    node: &Node,
    head: &Parts,
    route: Option<&ApiRoute>,
    body: &mut Incoming,
) -> Result<HttpResponse, HttpRefusal> {
    let settings = &node.settings.api;
    if head.uri.path().contains("//") {
        return Err(HttpRefusal::EmptyPart);
    }
    if settings.insecure {
        let hosts = if node.settings.dev.is_some() { Hosts::Loopback } else { Hosts::Private };
        cross_site::check(&head.headers, &head.uri, hosts).map_err(HttpRefusal::CrossSite)?;
    }
    if head.method != HttpMethod::POST {
        return Err(HttpRefusal::OnlyPost);
    }
    auth::check(settings, &head.headers, head.uri.query())?;
    let route = route.ok_or(HttpRefusal::UnknownMethod)?;
    let body = body::read(body, settings.body_bytes_max).await?;
    let text = decode::text(&body)?;
    let budget = AnswerBudget::new(settings.answer_bytes_max);
    let statuses = settings.transport_errors || asks_for_statuses(&head.headers);
    match route {
        ApiRoute::Method(method) => {
            let command = ApiCommand::decode(*method, text).map_err(HttpRefusal::malformed)?;
            Ok(match command.run(node, &budget).await {
                Err(error) if statuses => json(error.status(), &error),
                reply => json(StatusCode::OK, &ApiEnvelope::from(&reply)),
            })
        }
        ApiRoute::Batch => Ok(match batch::run(node, &budget, text).await? {
            Ok(replies) => json(StatusCode::OK, &replies),
            Err(error) if statuses => json(error.status(), &error),
            reply => json(StatusCode::OK, &ApiEnvelope::from(&reply)),
        }),
        ApiRoute::Pipeline => Ok(json_bytes(StatusCode::OK, legacy::run(node, &budget, text).await?.into())),
    }
}

/// Errors as HTTP statuses, for callers whose tools look at nothing else.
fn asks_for_statuses(headers: &HeaderMap) -> bool {
    headers
        .get("x-centrifugo-error-mode")
        .is_some_and(|mode| mode.as_bytes().eq_ignore_ascii_case(b"transport"))
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> HttpResponse {
    let body = serde_json::to_vec(body).expect("results are JSON already, and errors are text and numbers");
    json_bytes(status, body.into())
}

fn json_bytes(status: StatusCode, body: Bytes) -> HttpResponse {
    respond(status, "application/json", body)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[test]
    fn paths_name_methods() {
        let route = ApiRoute::of;
        assert_eq!(route(""), Some(ApiRoute::Pipeline));
        assert_eq!(route("/"), Some(ApiRoute::Pipeline));
        assert_eq!(route("/publish"), Some(ApiRoute::Method(Method::Publish)));
        assert_eq!(route("/presence_stats"), Some(ApiRoute::Method(Method::PresenceStats)));
        assert_eq!(route("/map_publish"), Some(ApiRoute::Method(Method::NotServed)));
        assert_eq!(route("/batch"), Some(ApiRoute::Batch));
        assert_eq!(route("/PUBLISH"), None);
        assert_eq!(route("/publish/"), None);
        assert_eq!(route("//publish"), None);
        assert_eq!(route("//"), None);
        assert_eq!(route("/no_such_method"), None);
    }

    #[test]
    fn statuses_instead_of_bodies_are_asked_for_by_header() {
        let asks = |value: &'static str| {
            asks_for_statuses(&HeaderMap::from_iter([(
                "x-centrifugo-error-mode".parse().unwrap(),
                HeaderValue::from_static(value),
            )]))
        };
        assert!(asks("transport"));
        assert!(asks("Transport"));
        assert!(!asks("body"));
        assert!(!asks_for_statuses(&HeaderMap::new()));
    }

    proptest! {
        /// Whatever comes is read or refused.
        #[test]
        fn random_bodies_never_panic(body: Vec<u8>) {
            read_as_everything(&body);
        }

        #[test]
        fn bodies_like_real_ones_never_panic(words in vec(select(WORDS.to_vec()), 0..40)) {
            read_as_everything(words.concat().as_bytes());
        }
    }

    const WORDS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        " ",
        "\n",
        "null",
        "true",
        "0",
        "-1",
        "1.5",
        "1e999",
        "18446744073709551616",
        "\"\"",
        "\"publish\"",
        "\"history\"",
        "\"method\"",
        "\"params\"",
        "\"id\"",
        "\"commands\"",
        "\"channel\"",
        "\"channels\"",
        "\"data\"",
        "\"b64data\"",
        "\"since\"",
        "\"user\"",
        "\"disconnect\"",
        "\"code\"",
        "\"override\"",
        "{\"method\":\"publish\",\"params\":",
        "{\"commands\":[",
        "\"\\ud800\"",
        "\u{e4}",
    ];

    fn read_as_everything(body: &[u8]) {
        let Ok(text) = decode::text(body) else { return };
        for method in Method::served() {
            let _ = ApiCommand::decode(method, text);
        }
        let _ = batch::decode(text, 3);
        let _ = legacy::decode(text, 3);
    }
}
