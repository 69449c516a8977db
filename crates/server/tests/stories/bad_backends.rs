//! Backends that are bad, slow or gone: their own calls fail, and nothing else does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fanwire_hub::{NameRules, Namespace, Namespaces};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::common::{
    Answer, Application, Call, Client, Misconduct, RawSocket, TestGateway, eventually, open, settings,
};

/// A node with hooks for connect, methods, and topics of the namespace `room`.
async fn hooked(
    shards: usize,
    requests_max: usize,
    rule: impl Fn(&Call) -> Answer + Send + Sync + 'static,
) -> (TestGateway, Application) {
    let application = Application::start(rule).await;
    let mut settings = settings(shards);
    let mut room = Namespace { name: "room".into(), ..Namespace::default() };
    settings.client.hooks.connect = Some(application.hook(&mut settings, "connect"));
    settings.client.hooks.rpc.default = Some(application.hook(&mut settings, "rpc"));
    room.hooks.subscribe = Some(application.hook(&mut settings, "subscribe"));
    room.hooks.publish = Some(application.hook(&mut settings, "publish"));
    settings.namespaces = Namespaces::new(NameRules::default(), open(), [room]);
    for hook in &mut settings.hooks {
        hook.timeout = Duration::from_secs(2);
        hook.wait_max = Duration::from_secs(30);
        hook.requests_max = requests_max;
        hook.breaker = false;
    }
    settings.client.hooks.patience = Duration::from_secs(32);
    (TestGateway::start(settings).await, application)
}

/// A backend that allows everything, and takes this long.
fn after(delay: Duration) -> impl Fn(&Call) -> Answer {
    move |_| (delay, 200, json!({"result": {"user": "ann", "data": 1}}))
}

/// The code of an error, which has to be temporary.
fn temporary(error: &Value) -> u64 {
    assert_eq!(error["temporary"], json!(true), "{error}");
    error["code"].as_u64().unwrap()
}

fn misconducts() -> [(&'static str, Misconduct); 8] {
    let sends =
        |head: &str, body: &[u8]| Misconduct::Sends([head.as_bytes(), b"\r\n\r\n", body].concat().into());
    [
        ("status 500", sends("HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 2", b"{}")),
        ("nonsense", sends("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8", b"nonsense")),
        (
            "a redirect",
            sends("HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: /rpc\r\nContent-Length: 0", b""),
        ),
        ("half a body", sends("HTTP/1.1 200 OK\r\nContent-Length: 99", b"{\"result\"")),
        ("half a chunk", sends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b"63\r\n{\"result\"")),
        ("10 MB", sends("HTTP/1.1 200 OK", &vec![b' '; 10 << 20])),
        ("a close", Misconduct::Sends(Arc::new([]))),
        ("silence", Misconduct::Hangs),
    ]
}

#[tokio::test]
async fn a_bad_backend_fails_its_own_calls_and_is_used_again_once_it_is_well() {
    for shards in [1, 3] {
        let (gateway, backend) = hooked(shards, 16, after(Duration::ZERO)).await;
        let mut ann = gateway.client().await;
        let mut bystander = gateway.client().await;
        bystander.subscribe("free").await;
        for (what, misconduct) in misconducts() {
            backend.misbehave(Some(misconduct));
            let calls = backend.calls().len();
            ann.command("subscribe", json!({"channel": "room:a"})).await;
            ann.command("publish", json!({"channel": "room:a", "data": 1})).await;
            ann.command("rpc", json!({"method": "m", "data": {}})).await;
            // Topics without a hook go on meanwhile.
            bystander.publish("free", json!(what)).await;
            assert_eq!(bystander.publication().await.1["data"], json!(what));
            for _ in 0..3 {
                // Topics and calls go side by side, so the order of these replies is open.
                let reply = ann.next().await;
                assert_eq!(temporary(&reply["error"]), 100, "{what}: {reply}");
            }
            let mut late = Client::over(RawSocket::open(gateway.address).await).await;
            let refused = late.request("connect", json!({})).await.unwrap_err();
            assert_eq!(temporary(&refused), 100, "{what}");
            assert_eq!(backend.calls().len(), calls + 4, "{what}: each is sent once");

            backend.misbehave(None);
            let called = ann.request("rpc", json!({"method": "m", "data": {}})).await;
            assert_eq!(called, Ok(json!({"data": 1})), "after {what}");
            ann.publish("room:a", json!(1)).await;
            gateway.client().await;
        }
        gateway.shutdown().await;
    }
}

#[tokio::test]
async fn nobody_is_called_for_who_has_gone() {
    let (gateway, backend) = hooked(1, 1, after(Duration::ZERO)).await;
    backend.misbehave(Some(Misconduct::Hangs));
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut client = Client::over(RawSocket::open(gateway.address).await).await;
        client.command("connect", json!({})).await;
        waiting.push(client);
    }
    eventually("four wait behind one", async || {
        backend.calls().len() == 1 && gateway.metric("fanwire_hook_calls_waiting").await == 4.0
    })
    .await;
    drop(waiting);
    gateway.deserted().await;
    eventually("nothing waits", async || gateway.metric("fanwire_hook_calls_waiting").await == 0.0).await;
    backend.misbehave(None);
    gateway.client().await;
    assert_eq!(backend.calls().len(), 2);
    gateway.shutdown().await;
}

#[tokio::test]
async fn a_crowd_connects_within_the_bound_on_requests() {
    const CROWD: usize = 400;
    let (gateway, backend) = hooked(3, 16, after(Duration::from_millis(20))).await;
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        crowd.spawn(Client::connect(gateway.address, json!({})));
    }
    let crowd = crowd.join_all().await;
    assert_eq!((crowd.len(), backend.calls().len()), (CROWD, CROWD));
    assert_eq!(backend.under_way_max(), 16);
    gateway.shutdown().await;
}

/// Clients that call without a pause between an answer and the next call.
struct Callers {
    tasks: JoinSet<()>,
    are_done: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
}

impl Callers {
    async fn start(gateway: &TestGateway, count: usize) -> Self {
        let mut callers = Self {
            tasks: JoinSet::new(),
            are_done: Arc::default(),
            answered: Arc::default(),
            failed: Arc::default(),
        };
        for _ in 0..count {
            let mut client = gateway.client().await;
            let are_done = callers.are_done.clone();
            let (answered, failed) = (callers.answered.clone(), callers.failed.clone());
            callers.tasks.spawn(async move {
                while !are_done.load(SeqCst) {
                    match client.request("rpc", json!({"method": "m", "data": {}})).await {
                        Ok(result) => {
                            assert_eq!(result, json!({"data": 1}));
                            answered.fetch_add(1, SeqCst);
                        }
                        Err(error) => {
                            assert_eq!(temporary(&error), 100, "{error}");
                            failed.fetch_add(1, SeqCst);
                        }
                    }
                }
            });
        }
        callers
    }

    /// Waits until so many more have been counted.
    async fn more(&self, what: &str, counter: &AtomicUsize, more: usize) {
        let before = counter.load(SeqCst);
        eventually(what, async || counter.load(SeqCst) >= before + more).await;
    }

    async fn stop(mut self) {
        self.are_done.store(true, SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

/// A client of the same shard that needs no backend: the times from its publications to their arrival.
async fn paces(bystander: &mut Client) -> (Duration, Duration) {
    const ROUNDS: usize = 200;
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let began = Instant::now();
        bystander.publish("free", json!(round)).await;
        assert_eq!(bystander.publication().await.1["data"], json!(round));
        times.push(began.elapsed());
    }
    times.sort_unstable();
    (times[ROUNDS / 2], times[ROUNDS * 99 / 100])
}

/// The figures are printed: `cargo test -p fanwire-server --test stories -- bystanders --nocapture`.
#[tokio::test]
async fn bystanders_go_on_beside_a_backend_that_is_bad_slow_or_gone() {
    const CALLERS: usize = 32;
    let is_slow = Arc::new(AtomicBool::new(false));
    let delay = is_slow.clone();
    let rule = move |_: &Call| {
        let delay = Duration::from_millis(if delay.load(SeqCst) { 100 } else { 0 });
        (delay, 200, json!({"result": {"user": "ann", "data": 1}}))
    };
    let (gateway, mut backend) = hooked(1, 16, rule).await;
    let mut bystander = gateway.client().await;
    bystander.subscribe("free").await;
    let callers = Callers::start(&gateway, CALLERS).await;
    let tell = |what: &str, (p50, p99): (Duration, Duration)| {
        println!("{what:>12}: p50 {:.2} ms, p99 {:.2} ms", p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3);
        // A shard that waited for a backend would wait for the timeout of a call.
        assert!(p99 < Duration::from_secs(2), "{what}");
    };
    callers.more("calls are answered", &callers.answered, CALLERS).await;
    tell("well", paces(&mut bystander).await);

    for (what, misconduct) in misconducts() {
        let hangs = matches!(misconduct, Misconduct::Hangs);
        backend.misbehave(Some(misconduct));
        if hangs {
            eventually("as many calls hang as may", async || backend.under_way() == 16).await;
        } else {
            callers.more(what, &callers.failed, CALLERS).await;
        }
        tell(what, paces(&mut bystander).await);
        if hangs {
            callers.more(what, &callers.failed, CALLERS).await;
        }
        backend.misbehave(None);
        callers.more("calls are answered again", &callers.answered, CALLERS).await;
    }

    is_slow.store(true, SeqCst);
    eventually("as many calls are under way as may", async || backend.under_way() == 16).await;
    tell("slow", paces(&mut bystander).await);
    let failed = callers.failed.load(SeqCst);
    callers.more("slow calls are answered", &callers.answered, CALLERS).await;
    assert_eq!(callers.failed.load(SeqCst), failed);
    is_slow.store(false, SeqCst);

    backend.kill().await;
    callers.more("nobody listens", &callers.failed, CALLERS).await;
    tell("killed", paces(&mut bystander).await);
    backend.revive().await;
    callers.more("the backend is used again", &callers.answered, CALLERS).await;
    callers.stop().await;
    gateway.shutdown().await;
}
