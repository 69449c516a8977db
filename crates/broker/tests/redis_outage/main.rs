//! Outages of Redis in use: no acknowledged publication is lost unnoticed, and no subscription stays deaf.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[path = "../redis_server/mod.rs"]
mod redis_server;

mod half_open;
#[allow(dead_code, reason = "other tests need the rest")]
mod proxy;
mod traffic;

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanwire_broker::{Engine, Event, LinkError, LinkState, Peer, Redis, RedisSettings};
use fanwire_protocol::TopicName;
use redis_server::{RedisServer, wait_until_up};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::LocalSet;
use tokio::time::sleep;
use traffic::{Traffic, eventually};
use uuid::Uuid;

const PERSISTENT: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// The loss that a topic of a node may report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Nothing,
    /// The data of all topics is gone.
    Everything,
}

#[tokio::test]
async fn a_stopped_server_goes_on() {
    check(&[], Expected::Nothing, async |server| {
        let process = process_id(server);
        signal("-STOP", process);
        sleep(Duration::from_secs(5)).await;
        signal("-CONT", process);
    })
    .await;
}

#[tokio::test]
async fn a_killed_server_that_kept_everything_comes_back() {
    check(&PERSISTENT, Expected::Nothing, async |server| {
        server.kill();
        sleep(Duration::from_secs(2)).await;
        server.resume();
    })
    .await;
}

#[tokio::test]
async fn a_killed_server_that_kept_nothing_comes_back() {
    check(&[], Expected::Everything, async |server| {
        server.kill();
        sleep(Duration::from_secs(2)).await;
        server.resume();
    })
    .await;
}

#[tokio::test]
async fn closed_subscriber_connections_come_back() {
    check(&[], Expected::Nothing, async |server| {
        for _ in 0..3 {
            assert_eq!(server.ask::<usize>("CLIENT KILL TYPE pubsub"), 2);
            sleep(Duration::from_millis(700)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_paused_server_goes_on() {
    check(&[], Expected::Nothing, async |server| {
        assert_eq!(server.ask::<String>("CLIENT PAUSE 3000 ALL"), "OK");
        sleep(Duration::from_secs(3)).await;
    })
    .await;
}

#[tokio::test]
async fn flushed_data_is_told() {
    check(&[], Expected::Everything, async |server| {
        assert_eq!(server.ask::<String>("FLUSHALL"), "OK");
    })
    .await;
}

/// Redis closes a connection that does not read its messages.
#[tokio::test]
async fn a_node_that_was_too_slow_is_told() {
    let server = RedisServer::start(&["--client-output-buffer-limit", "pubsub 1mb 1mb 1"]);
    let (arrived, gate) = (Arc::<AtomicUsize>::default(), Arc::new(Mutex::new(())));
    let interrupted = Arc::<AtomicUsize>::default();
    let redis = {
        let (arrived, gate, interrupted) =
            (Arc::clone(&arrived), Arc::clone(&gate), Arc::clone(&interrupted));
        let deliver = move |event| {
            drop(gate.lock().unwrap());
            match event {
                Event::Gap { .. } => interrupted.fetch_add(1, Ordering::Relaxed),
                _ => arrived.fetch_add(1, Ordering::Relaxed),
            };
        };
        start(&server.settings(), deliver)
    };
    wait_until_up(&redis).await;
    let topic = TopicName::new("t").unwrap();
    let engine = Engine::Redis(redis.clone());
    engine.subscribe(&topic).await.unwrap();

    const FLOOD: usize = 300;
    let client = server.client();
    let flood = std::thread::spawn(move || {
        let _closed = gate.lock().unwrap();
        let payload = format!("\u{1}\n\u{1}\u{1}\0{}", "x".repeat(100_000));
        let mut connection = client.get_connection().unwrap();
        for _ in 0..FLOOD {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg("fanwire:default:c:{t}").arg(&payload).exec(&mut connection).unwrap();
        }
    });
    eventually(|| interrupted.load(Ordering::Relaxed) > 0, || "nobody was told".to_owned()).await;
    flood.join().unwrap();
    assert!(arrived.load(Ordering::Relaxed) < FLOOD);
    wait_until_up(&redis).await;
    let before = arrived.load(Ordering::Relaxed);
    engine.publish(&topic, Default::default()).await.unwrap();
    eventually(|| arrived.load(Ordering::Relaxed) > before, || "the topic is deaf".to_owned()).await;
}

#[tokio::test]
async fn many_topics_are_joined_again_soon() {
    const TOPICS: usize = 50_000;
    let server = RedisServer::start(&[]);
    let interrupted = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&interrupted);
    let redis = start(&server.settings(), move |event| {
        assert!(matches!(event, Event::Gap { .. }), "{event:?}");
        count.fetch_add(1, Ordering::Relaxed);
    });
    wait_until_up(&redis).await;
    let subscribes = LocalSet::new();
    for number in 0..TOPICS {
        let engine = Engine::Redis(redis.clone());
        let topic = TopicName::new(&number.to_string()).unwrap();
        subscribes.spawn_local(async move { engine.subscribe(&topic).await.unwrap() });
    }
    subscribes.await;
    assert_eq!(redis.stats().topics, TOPICS);
    let (killed, worked) = (Instant::now(), thread_time());
    assert_eq!(server.ask::<usize>("CLIENT KILL TYPE pubsub"), 1);
    eventually(|| interrupted.load(Ordering::Relaxed) == TOPICS, || format!("{interrupted:?} told")).await;
    // The engine's CPU time, since tests run in parallel.
    let (took, worked) = (killed.elapsed(), thread_time() - worked);
    assert!(worked < Duration::from_millis(1500), "{worked:?} of {took:?}");
    assert_eq!(redis.stats().reconnects, 1);
}

#[tokio::test]
async fn joining_that_is_not_allowed_is_named_and_tried_without_haste() {
    let server = RedisServer::start(&[]);
    let _: String = server.ask("ACL SETUSER gateway on >secret ~* +@all resetchannels &other:*");
    let settings = RedisSettings {
        username: Some("gateway".into()),
        password: Some("secret".into()),
        ..server.settings()
    };
    let redis = start(&settings, |_| ());
    let mut state = redis.state();
    let refused = state.wait_for(|state| {
        matches!(state, LinkState::Partial(LinkError::NotPermitted(what))
            if what.starts_with("SUBSCRIBE of channel fanwire:default:c:{!probe:"))
    });
    tokio::time::timeout(Duration::from_secs(10), refused).await.unwrap().unwrap();
    let accepted = |server: &RedisServer| -> u64 {
        let info: String = server.ask("INFO stats");
        let count = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        count.unwrap().trim().parse().unwrap()
    };
    let before = accepted(&server);
    sleep(Duration::from_secs(3)).await;
    let attempts = accepted(&server) - before;
    assert!((2..15).contains(&attempts), "{attempts} attempts in three seconds");

    // It is used as soon as possible.
    let _: String = server.ask("ACL SETUSER gateway &fanwire:*");
    wait_until_up(&redis).await;
}

/// Traffic during an outage, which returns when Redis is back, and the check of the reported loss.
async fn check(arguments: &[&str], expected: Expected, outage: impl AsyncFnOnce(&mut RedisServer)) {
    let mut server = RedisServer::start(arguments);
    let settings = RedisSettings {
        answer_timeout: Duration::from_secs(1),
        probe_interval: Duration::from_millis(300),
        ..server.settings()
    };
    let test = async {
        let traffic = Traffic::start(&settings).await;
        outage(&mut server).await;
        let lost = traffic.check(&server).await;
        match expected {
            Expected::Nothing => assert_eq!(lost, 0),
            Expected::Everything => assert!(lost >= traffic::KEPT * 2, "only {lost} were told"),
        }
    };
    LocalSet::new().run_until(test).await;
}

fn start(settings: &RedisSettings, deliver: impl Fn(Event) + Send + Sync + 'static) -> Redis {
    let peer = Peer { id: Uuid::new_v4(), name: "test".into() };
    Redis::start(settings.clone(), peer, Arc::new(deliver)).unwrap()
}

/// The CPU time of this thread, on which the engine runs too.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn process_id(server: &RedisServer) -> u32 {
    let info: String = server.ask("INFO server");
    let process = info.lines().find_map(|line| line.strip_prefix("process_id:"));
    process.unwrap().trim().parse().unwrap()
}

fn signal(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}
