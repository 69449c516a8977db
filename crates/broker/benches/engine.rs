//! The cost of the Redis engine, here and in Redis: `cargo xtask bench engine [-- SCENARIO...]`.
//!
//! Starts its own Redis. CPU times are reliable on a shared machine. Rates are not: they are a lower bound for this
//! machine. Values that are compared are measured in the same run.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a developers' program talks to its terminal")]

#[allow(dead_code, reason = "tests use it to the full")]
#[path = "../tests/redis_server/mod.rs"]
mod redis_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanwire_broker::{Engine, Event, HistoryOptions, Member, NewPublication, Peer, Redis};
use fanwire_protocol::{ClientId, ClientInfo, TopicName};
use redis_server::{RedisServer, wait_until_up};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::LocalSet;
use uuid::Uuid;

const PAYLOAD_BYTES: usize = 200;
const SCENARIOS: [&str; 4] = ["publish", "deliver", "presence", "presence-one"];

fn main() {
    // Cargo adds its own arguments.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for scenario in SCENARIOS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == scenario) {
            continue;
        }
        let server = RedisServer::start(&[]);
        runtime.block_on(LocalSet::new().run_until(async {
            match scenario {
                "publish" => publish(&server).await,
                "deliver" => deliver(&server).await,
                "presence" => presence(&server, 1000).await,
                _ => presence(&server, 1).await,
            }
        }));
    }
}

/// Into 100 topics with one call in flight each, as with owners.
async fn publish(server: &RedisServer) {
    const TOPICS: usize = 100;
    const ROUND: Duration = Duration::from_secs(3);
    const ROUNDS: usize = 3;
    let history =
        HistoryOptions { size: 100, ttl: Duration::from_secs(300), meta_ttl: Duration::from_secs(3600) };
    let ways = [
        ("PUBLISH, one by one", None, 1),
        ("with history, one by one", Some(history), 1),
        ("with history, groups of 10", Some(history), 10),
        ("with history, groups of 100", Some(history), 100),
    ];
    let redis = start(server, |_| ()).await;
    let topics = topics(TOPICS);
    let mut costs = vec![Vec::new(); ways.len()];
    // In turns, so that other load on the machine affects all alike.
    for _ in 0..ROUNDS {
        for ((_, history, group), costs) in ways.into_iter().zip(&mut costs) {
            let cost = Cost::begin(server);
            let until = Instant::now() + ROUND;
            let mut publishers = Vec::new();
            for topic in &topics {
                let (engine, topic) = (Engine::Redis(redis.clone()), topic.clone());
                publishers.push(tokio::task::spawn_local(async move {
                    let publish = NewPublication { data: payload(), history, ..NewPublication::default() };
                    let mut published = 0;
                    while Instant::now() < until {
                        let results = engine.publish_group(&topic, vec![publish.clone(); group]).await;
                        published += results.into_iter().filter(Result::is_ok).count();
                    }
                    published
                }));
            }
            let mut published = 0;
            for publisher in publishers {
                published += publisher.await.unwrap();
            }
            costs.push(cost.end(server, published));
        }
    }
    println!("\npublish: {PAYLOAD_BYTES} bytes into {TOPICS} topics, medians of {ROUNDS}\n");
    println!("{:<32} {:>12} {:>18} {:>18}", "", "a second", "Redis CPU each", "own CPU each");
    for ((name, ..), costs) in ways.into_iter().zip(costs) {
        println!("{name:<32} {}", median(costs));
    }
}

/// From 1,000 topics with another publisher, and a bounded number of publications in flight.
async fn deliver(server: &RedisServer) {
    const TOPICS: usize = 1000;
    const MESSAGES: usize = 1_000_000;
    const PIPELINE: usize = 100;
    const UNDER_WAY: usize = 20_000;
    let delivered = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&delivered);
    let redis = start(server, move |event| {
        if matches!(event, Event::Publication { .. }) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let topics = topics(TOPICS);
    let engine = Engine::Redis(redis.clone());
    for topic in &topics {
        engine.subscribe(topic).await.unwrap();
    }
    let frame = [b"\x01\n\x01\x01\0", payload().as_ref()].concat();
    let client = server.client();
    let progress = Arc::clone(&delivered);
    let began = (Instant::now(), thread_time());
    let publisher = std::thread::spawn(move || {
        let mut connection = client.get_connection().unwrap();
        for batch in 0..MESSAGES / PIPELINE {
            while batch * PIPELINE > progress.load(Ordering::Relaxed) + UNDER_WAY {
                std::thread::sleep(Duration::from_micros(200));
            }
            let mut publishes = redis::pipe();
            for number in 0..PIPELINE {
                let topic = (batch * PIPELINE + number) % TOPICS;
                publishes.publish(format!("fanwire:default:c:{{topic {topic}}}"), &frame).ignore();
            }
            publishes.exec(&mut connection).unwrap();
        }
    });
    while delivered.load(Ordering::Relaxed) < MESSAGES {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (elapsed, cpu) = (began.0.elapsed(), thread_time() - began.1);
    publisher.join().unwrap();
    let stats = redis.stats();
    assert_eq!((stats.messages, stats.reconnects), (MESSAGES as u64, 0));
    println!("\ndeliver: {MESSAGES} messages of {PAYLOAD_BYTES} bytes from {TOPICS} topics\n");
    println!("a second           {:>12.0}", MESSAGES as f64 / elapsed.as_secs_f64());
    println!("own CPU each       {}", microseconds(cpu, MESSAGES));
    println!("last round trip    {:>10.2} ms", stats.round_trip.unwrap().as_secs_f64() * 1e3);
}

/// 100,000 members in a number of topics.
async fn presence(server: &RedisServer, topic_count: usize) {
    const MEMBERS: usize = 100_000;
    const JOINING: usize = 200;
    const IDLE: Duration = Duration::from_secs(10);
    let redis = start(server, |_| ()).await;
    let topics: Arc<[TopicName]> = topics(topic_count).into();
    let idle = async || {
        let before = redis_time(server);
        tokio::time::sleep(IDLE).await;
        (redis_time(server) - before).as_secs_f64() / IDLE.as_secs_f64() * 1e3
    };
    let idle_before = idle().await;
    let memory = number(server, "INFO memory", "used_memory:");
    let cost = Cost::begin(server);
    let mut joins = Vec::new();
    for share in 0..JOINING {
        let (engine, topics) = (Engine::Redis(redis.clone()), Arc::clone(&topics));
        joins.push(tokio::task::spawn_local(async move {
            for member in (share..MEMBERS).step_by(JOINING) {
                let info = ClientInfo {
                    user: format!("user {member}").into(),
                    client: ClientId(Uuid::from_u128(member as u128)),
                    connection: Bytes::new(),
                    subscription: Bytes::new(),
                };
                engine
                    .add_presence(&topics[member % topic_count], vec![Member::new(Arc::new(info), false)])
                    .await
                    .unwrap();
            }
        }));
    }
    for join in joins {
        join.await.unwrap();
    }
    let cost = cost.end(server, MEMBERS);
    let memory = number(server, "INFO memory", "used_memory:") - memory;
    let idle_after = idle().await;
    let stats = Engine::Redis(redis).presence_stats(&topics[0]).await.unwrap();
    assert_eq!(stats.clients, MEMBERS / topic_count);
    let plural = if topic_count == 1 { "" } else { "s" };
    println!("\npresence: {MEMBERS} members in {topic_count} topic{plural}\n");
    println!("joins a second         {:>12.0}", cost.rate);
    println!("Redis CPU for a join   {}", microseconds(cost.redis, 1));
    println!("own CPU for a join     {}", microseconds(cost.own, 1));
    println!("Redis memory           {:>10.0} B each", memory / MEMBERS as f64);
    println!("Redis CPU while idle   {idle_after:>10.2} ms a second, {idle_before:.2} without members");
}

/// The cost of many equal calls.
#[derive(Clone, Copy)]
struct Cost {
    rate: f64,
    redis: Duration,
    own: Duration,
}

struct Running {
    since: Instant,
    redis: Duration,
    own: Duration,
}

impl Cost {
    fn begin(server: &RedisServer) -> Running {
        Running { redis: redis_time(server), own: thread_time(), since: Instant::now() }
    }
}

impl Running {
    fn end(self, server: &RedisServer, count: usize) -> Cost {
        let elapsed = self.since.elapsed();
        let each = |time: Duration| time.div_f64(count as f64);
        Cost {
            rate: count as f64 / elapsed.as_secs_f64(),
            own: each(thread_time() - self.own),
            redis: each(redis_time(server) - self.redis),
        }
    }
}

/// A row of the medians of each figure.
fn median(mut costs: Vec<Cost>) -> String {
    let middle = costs.len() / 2;
    costs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let rate = costs[middle].rate;
    costs.sort_by_key(|cost| cost.redis);
    let redis = costs[middle].redis;
    costs.sort_by_key(|cost| cost.own);
    format!("{rate:>12.0} {:>18} {:>18}", microseconds(redis, 1), microseconds(costs[middle].own, 1))
}

async fn start(server: &RedisServer, deliver: impl Fn(Event) + Send + Sync + 'static) -> Redis {
    let peer = Peer { id: Uuid::new_v4(), name: "bench".into() };
    let redis = Redis::start(server.settings(), peer, Arc::new(deliver)).unwrap();
    wait_until_up(&redis).await;
    redis
}

fn topics(count: usize) -> Vec<TopicName> {
    (0..count).map(|number| TopicName::new(&format!("topic {number}")).unwrap()).collect()
}

fn payload() -> Bytes {
    Bytes::from_static(&[b'x'; PAYLOAD_BYTES])
}

fn microseconds(time: Duration, count: usize) -> String {
    format!("{:>10.2} µs", time.as_secs_f64() * 1e6 / count as f64)
}

/// The CPU time of this thread, on which the engine runs.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The CPU time that Redis has used.
fn redis_time(server: &RedisServer) -> Duration {
    let of = |name| number(server, "INFO cpu", name);
    Duration::from_secs_f64(of("used_cpu_user:") + of("used_cpu_sys:"))
}

fn number(server: &RedisServer, question: &str, name: &str) -> f64 {
    let info: String = server.ask(question);
    info.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
}
