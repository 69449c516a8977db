//! The internal port: health, metrics and, if the settings say so, the API. It runs beside the shards, so it answers
//! while they are busy.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::accept::admission::{ConnectionGroup, FirstByte, HttpConnection, Watch, Watched, first_byte};
use crate::accept::tls::Tls;
use crate::accept::unreadable::{ErrorPages, REQUEST_HEAD_BYTES_MAX};
use crate::accept::{accept_all, requests};
use crate::api;
use crate::inbox::Inbox;
use crate::metrics;
use crate::node::Node;
use crate::peers::{Peers, RedisStatus};
use crate::response::{HttpResponse, is_below, is_last, respond, text};
use crate::tasks::Task;

/// Accepts for as long as it is polled. Dropping it ends its connections.
pub(crate) async fn listen(node: Node, listener: &TcpListener) {
    let mut connections = JoinSet::new();
    accept_all(
        listener,
        &node.internal_connections,
        || 0,
        |stream, peer| {
            while connections.try_join_next().is_some() {}
            let connection = Arc::new(node.internal_connections.enter(peer.ip()));
            let (served, watched) = (node.clone(), connection.clone());
            let task = connections.spawn(async move { serve_connection(&served, stream, watched).await });
            connection.is_served_by(task);
        },
    )
    .await;
}

async fn serve_connection(node: &Node, stream: TcpStream, connection: Arc<HttpConnection>) {
    let times = node.settings.internal_times();
    let deadline = Instant::now() + times.head;
    if first_byte(&stream, &connection, deadline).await == FirstByte::Came && connection.begin(deadline).await
    {
        // Boxed, so that a connection that sends nothing holds little memory.
        Box::pin(answer(node, stream, Watch::new(connection, times, deadline))).await;
    }
}

async fn answer(node: &Node, stream: TcpStream, watch: Watch) {
    let service = service_fn(async |request| {
        // Requests of other peers, such as for health, come between those that a peer sends at once.
        tokio::task::yield_now().await;
        let group = if is_api_call(node, &request) { ConnectionGroup::Api } else { ConnectionGroup::Request };
        let admitted = requests::admit(&watch, &request, group, std::future::ready(())).await;
        // Callers keep their connections until a draining node has ended.
        let is_last = is_last(&request);
        let mut answer = match admitted {
            Ok(()) => serve(node, request).await,
            Err(refusal) => refusal,
        };
        watch.answered(&mut answer, is_last);
        Ok::<_, Infallible>(answer)
    });
    let mut connection = pin!(
        requests::http1()
            .max_buf_size(REQUEST_HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(ErrorPages::new(Watched::new(stream, watch.clone()))), service)
    );
    let mut time = pin!(sleep_until(Instant::now()));
    let served = poll_fn(|context| {
        let served = connection.as_mut().poll(context);
        let is_over = watch.poll_expired(context, time.as_mut()).is_ready();
        if is_over { Poll::Ready(Ok(())) } else { served }
    });
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to the internal port broke off");
    }
}

fn is_api_call(node: &Node, request: &Request<Incoming>) -> bool {
    let api = &node.settings.api;
    api.on_internal_port && is_below(request.uri().path(), &api.path)
}

pub(crate) async fn serve(node: &Node, request: Request<Incoming>) -> HttpResponse {
    let api = &node.settings.api;
    if is_api_call(node, &request) {
        return api::serve(node, request).await;
    }
    let path = request.uri().path();
    let Some(route) = InternalRoute::at(path) else {
        let api = if api.on_internal_port { format!(", {}", api.path) } else { String::new() };
        return text(
            StatusCode::NOT_FOUND,
            format!("There is nothing here. This port serves /livez, /readyz, /metrics{api}."),
        );
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "This takes GET requests only.");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match route {
        // It checks nothing that the node depends on, since a restart would not repair that.
        InternalRoute::Alive => text(StatusCode::OK, "ok"),
        InternalRoute::Ready => readiness(&checks(node), is_verbose(request.uri().query())),
        InternalRoute::Metrics => respond(StatusCode::OK, metrics::CONTENT_TYPE, metrics_text(node).into()),
    }
}

fn metrics_text(node: &Node) -> String {
    node.metrics.encode(&metrics::Snapshot {
        is_draining: node.is_draining(),
        restarts: node.tasks.restarts(),
        http_connections: node.http_connections.iter().chain([&node.internal_connections]).cloned().collect(),
        redis: node.peers.as_ref().map(|peers| peers.redis().stats()),
        tls: node.tls.as_ref().map(Tls::stats),
        keys: node.tokens.key_stats(),
        messages_dropped: node.peers.as_ref().map_or(0, Peers::dropped),
        overruns: node.inboxes.all.iter().map(Inbox::overruns).sum(),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InternalRoute {
    Alive,
    Ready,
    Metrics,
}

impl InternalRoute {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/livez" => Some(Self::Alive),
            "/readyz" => Some(Self::Ready),
            "/metrics" => Some(Self::Metrics),
            _ => None,
        }
    }
}

/// A condition for sending clients to this node.
#[derive(Clone, Debug)]
struct HealthCheck {
    name: &'static str,
    passed: bool,
    /// Details.
    note: String,
}

impl HealthCheck {
    fn new(name: &'static str, passed: bool) -> Self {
        Self { name, passed, note: String::new() }
    }
}

fn checks(node: &Node) -> Vec<HealthCheck> {
    // Listeners are bound and an engine in memory is there before this port answers.
    let mut checks =
        vec![HealthCheck::new("not-draining", !node.is_draining()), tasks_check(node.tasks.unsteady())];
    if let Some(peers) = &node.peers {
        checks.push(cluster_check(peers.status(), peers.trouble()));
    }
    checks
}

/// Fails while a task that clients depend on has ended lately, since it may do so again.
fn tasks_check(unsteady: Option<Task>) -> HealthCheck {
    let (passed, note) = match unsteady {
        None => (true, ""),
        Some(Task::Accept) => (false, "accepting clients ended"),
        Some(Task::Internal) => (false, "the internal port ended"),
        // Clients do not depend on these.
        Some(Task::Summary) => (true, "the summary ended"),
        Some(Task::Certificate) => (true, "reading the certificate ended"),
        Some(Task::Keys) => (true, "fetching the keys of an identity provider ended"),
        Some(Task::Events) => (true, "the work on outboxes ended"),
    };
    HealthCheck { name: "tasks", passed, note: note.to_owned() }
}

/// Fails for a node that has never reached Redis, or that alone does not. If Redis is gone for all nodes, they stay
/// ready: taking every node out would only add a storm of clients.
///
/// `trouble` is a sentence about the fault in the work with Redis.
fn cluster_check(status: RedisStatus, trouble: Option<String>) -> HealthCheck {
    let (passed, note) = match status {
        RedisStatus::Joined => (true, ""),
        RedisStatus::Degraded => (true, "degraded: Redis does not answer"),
        RedisStatus::Connecting => (false, "not connected yet"),
        RedisStatus::Joining => (false, "connected, joining the cluster"),
        RedisStatus::Wedged => (false, "some connections of this node are missing"),
    };
    let notes = [note.to_owned()].into_iter().chain(trouble).filter(|note| !note.is_empty());
    HealthCheck { name: "redis", passed, note: notes.collect::<Vec<_>>().join("; ") }
}

fn readiness(checks: &[HealthCheck], verbose: bool) -> HttpResponse {
    let ready = checks.iter().all(|check| check.passed);
    let (status, verdict) =
        if ready { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let mut lines = Vec::new();
    for HealthCheck { name, passed, note } in checks.iter().filter(|check| verbose || !check.passed) {
        let verdict = if *passed { format!("[+] {name} ok") } else { format!("[-] {name} failed") };
        lines.push(if note.is_empty() { verdict } else { format!("{verdict} ({note})") });
    }
    lines.push(verdict.to_owned());
    text(status, lines.join("\n"))
}

fn is_verbose(query: Option<&str>) -> bool {
    form_urlencoded::parse(query.unwrap_or("").as_bytes()).any(|(name, _)| name == "verbose")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn readiness_names_what_failed_and_on_demand_what_did_not() {
        async fn check(passed: [bool; 2], verbose: bool, status: u16, body: &str) {
            let checks = [HealthCheck::new("one", passed[0]), HealthCheck::new("two", passed[1])];
            let answer = readiness(&checks, verbose);
            assert_eq!(answer.status(), status);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
        }

        check([true, true], false, 200, "ok\n").await;
        check([true, true], true, 200, "[+] one ok\n[+] two ok\nok\n").await;
        check([true, false], false, 503, "[-] two failed\nnot ready\n").await;
        check([true, false], true, 503, "[+] one ok\n[-] two failed\nnot ready\n").await;
    }

    #[tokio::test]
    async fn losing_redis_keeps_a_node_ready_and_losing_the_way_to_it_does_not() {
        async fn check(redis: RedisStatus, trouble: &str, status: u16, body: &str) {
            let trouble = (!trouble.is_empty()).then(|| trouble.to_owned());
            let answer = readiness(&[cluster_check(redis, trouble)], true);
            assert_eq!(answer.status(), status);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
        }

        check(RedisStatus::Joined, "", 200, "[+] redis ok\nok\n").await;
        check(RedisStatus::Joined, "something", 200, "[+] redis ok (something)\nok\n").await;
        check(RedisStatus::Degraded, "", 200, "[+] redis ok (degraded: Redis does not answer)\nok\n").await;
        let connecting = "[-] redis failed (not connected yet; no answer)\nnot ready\n";
        check(RedisStatus::Connecting, "no answer", 503, connecting).await;
        let joining = "[-] redis failed (connected, joining the cluster)\nnot ready\n";
        check(RedisStatus::Joining, "", 503, joining).await;
        let wedged = "[-] redis failed (some connections of this node are missing)\nnot ready\n";
        check(RedisStatus::Wedged, "", 503, wedged).await;
    }

    #[tokio::test]
    async fn a_task_that_ended_shows_in_readiness() {
        async fn check(unsteady: Option<Task>, status: u16, body: &str) {
            let answer = readiness(&[tasks_check(unsteady)], true);
            assert_eq!(answer.status(), status);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
        }

        check(None, 200, "[+] tasks ok\nok\n").await;
        check(Some(Task::Accept), 503, "[-] tasks failed (accepting clients ended)\nnot ready\n").await;
        check(Some(Task::Summary), 200, "[+] tasks ok (the summary ended)\nok\n").await;
    }

    #[test]
    fn details_are_asked_for_in_any_form() {
        assert!(is_verbose(Some("verbose")));
        assert!(is_verbose(Some("a=b&verbose=1")));
        assert!(!is_verbose(Some("a=verbose")));
        assert!(!is_verbose(None));
    }
}
