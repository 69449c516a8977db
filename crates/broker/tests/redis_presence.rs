//! Presence of several nodes that share a Redis: nodes that die, are paused, leave or must not join, and what of it
//! subscribers are told.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[allow(dead_code, reason = "other tests need the rest")]
mod redis_server;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanwire_broker::{
    Engine, EngineError, Event, Incompatible, LinkState, Member, Peer, PresenceStats, Publish, Redis,
    RedisSettings,
};
use fanwire_protocol::{ClientId, ClientInfo, TopicName};
use redis_server::{RedisServer, wait_until_up};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use uuid::Uuid;

const LEASE: Duration = Duration::from_millis(600);
/// How long after the end of a lease the members may take to leave.
const CLEANING: Duration = Duration::from_secs(1);

/// An engine with the joins and leaves that it delivered.
struct Node {
    redis: Redis,
    engine: Engine,
    delivered: Arc<Mutex<Vec<Event>>>,
}

impl Node {
    fn start(name: &str, settings: RedisSettings) -> Self {
        let delivered = Arc::<Mutex<Vec<Event>>>::default();
        let sink = Arc::clone(&delivered);
        let deliver = Arc::new(move |event| sink.lock().unwrap().push(event));
        let redis = Redis::start(settings, peer(name), deliver).unwrap();
        Self { engine: Engine::Redis(redis.clone()), redis, delivered }
    }

    /// One that has joined.
    async fn up(name: &str, settings: RedisSettings) -> Self {
        let node = Self::start(name, settings);
        wait_until_up(&node.redis).await;
        node.redis.peers().await.unwrap();
        node
    }

    async fn join(&self, topic: &TopicName, users: &[&str]) {
        for user in users {
            self.engine.add_presence(topic, announced(user)).await.unwrap();
        }
    }

    /// Who is present, by user.
    async fn present(&self, topic: &TopicName) -> Vec<String> {
        let present = self.engine.presence(topic, usize::MAX).await.unwrap();
        let mut present: Vec<_> = present.iter().map(|info| info.user.to_string()).collect();
        present.sort();
        present
    }

    async fn wait_for_present(&self, topic: &TopicName, expected: &[&str], within: Duration) {
        let asked = Instant::now();
        loop {
            // Redis may be away.
            let present = self.engine.presence(topic, usize::MAX).await.ok();
            let users = present.map(|present| {
                let mut users: Vec<_> = present.iter().map(|info| info.user.to_string()).collect();
                users.sort();
                users
            });
            if users.as_deref().is_some_and(|users| users == expected) {
                return;
            }
            assert!(asked.elapsed() < within, "{users:?} instead of {expected:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Who left, by user, in any order.
    fn left(&self) -> Vec<String> {
        let left = |event: &Event| match event {
            Event::Leave { info, .. } => Some(info.user.to_string()),
            _ => None,
        };
        let mut left: Vec<_> = self.delivered.lock().unwrap().iter().filter_map(left).collect();
        left.sort();
        left
    }

    async fn wait_for_left(&self, expected: &[&str], within: Duration) {
        eventually(
            within,
            || self.left() == expected,
            || format!("{:?} left, not {expected:?}", self.left()),
        )
        .await;
    }

    async fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.redis.peers().await.unwrap().iter().map(|peer| peer.name.to_string()).collect();
        names.sort();
        names
    }

    /// Waits until everything that was published so far has arrived.
    async fn settle(&self) {
        let barrier = topic("the last of all events");
        self.engine.subscribe(&barrier).await.unwrap();
        self.engine.publish(&barrier, Publish::default()).await.unwrap();
        let is_barrier =
            |event: &Event| matches!(event, Event::Publication { topic, .. } if *topic == barrier);
        let arrived = || self.delivered.lock().unwrap().iter().any(is_barrier);
        eventually(Duration::from_secs(10), arrived, || "the barrier does not arrive".to_owned()).await;
        self.delivered.lock().unwrap().retain(|event| !is_barrier(event));
    }

    async fn wait_until_refused(&self) -> Incompatible {
        let mut state = self.redis.state();
        let refused = state.wait_for(|state| matches!(state, LinkState::Refused(_)));
        let refused = tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap().unwrap().clone();
        let LinkState::Refused(reason) = refused else { unreachable!("awaited above") };
        reason
    }
}

/// A node on a thread of its own, which can be stopped as a whole for a while.
struct Pausable {
    node: Node,
    pause: mpsc::UnboundedSender<Duration>,
}

impl Pausable {
    async fn up(name: &'static str, settings: RedisSettings) -> Self {
        let (pause, mut pauses) = mpsc::unbounded_channel::<Duration>();
        let (started, start) = tokio::sync::oneshot::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let node = Node::up(name, settings).await;
                started.send((node.redis, node.delivered)).ok().unwrap();
                // Everything of the node runs on this thread, so nothing of it runs meanwhile.
                while let Some(pause) = pauses.recv().await {
                    thread::sleep(pause);
                }
            });
        });
        let (redis, delivered) = start.await.unwrap();
        Self { node: Node { engine: Engine::Redis(redis.clone()), redis, delivered }, pause }
    }

    fn pause(&self, pause: Duration) {
        self.pause.send(pause).unwrap();
    }
}

#[tokio::test]
async fn the_members_of_a_dead_node_leave_once() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let c = Node::up("c", settings(&server)).await;
    let topic = topic("t");
    for node in [&a, &b] {
        node.engine.subscribe(&topic).await.unwrap();
    }
    a.join(&topic, &["stays"]).await;
    c.join(&topic, &["u", "v"]).await;
    c.engine.add_presence(&topic, quiet("quiet")).await.unwrap();
    assert_eq!(b.present(&topic).await, ["quiet", "stays", "u", "v"]);
    assert_eq!(b.names().await, ["a", "b", "c"]);

    drop(c);
    let died = Instant::now();
    a.wait_for_present(&topic, &["stays"], LEASE + Duration::from_millis(100)).await;
    for node in [&a, &b] {
        node.wait_for_left(&["u", "v"], (LEASE + CLEANING).saturating_sub(died.elapsed())).await;
    }
    assert_eq!(b.names().await, ["a", "b"]);
    let stats = b.engine.presence_stats(&topic).await.unwrap();
    assert_eq!(stats, PresenceStats { clients: 1, users: 1 });
    // Nothing of it is left, so nothing more can be said.
    let of_kind = |kind: &str| keys(&server).iter().filter(|key| key.contains(kind)).count();
    let is_forgotten = || {
        let nodes: usize = server.ask("ZCARD fanwire:n:{!}");
        nodes == 2 && of_kind(":p:{t}:") == 1 && of_kind(":px:") == 1 && of_kind(":l:{!}:") == 0
    };
    eventually(CLEANING, is_forgotten, || format!("{:?}", keys(&server))).await;
    tokio::time::sleep(LEASE * 2).await;
    for node in [&a, &b] {
        node.settle().await;
        assert_eq!(node.left(), ["u", "v"]);
    }
}

#[tokio::test]
async fn what_no_node_wrote_hides_no_dead_node() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.join(&topic, &["u"]).await;
    for number in 0..40 {
        let _: i64 = server.ask(&format!("ZADD fanwire:n:{{!}} {number} stranger{number}"));
    }
    drop(b);
    a.wait_for_left(&["u"], LEASE * 3 + CLEANING).await;
    let is_alone = || server.ask::<usize>("ZCARD fanwire:n:{!}") == 1;
    eventually(LEASE * 3, is_alone, || server.ask::<Vec<String>>("ZRANGE fanwire:n:{!} 0 -1").join(" "))
        .await;
}

#[tokio::test]
async fn a_dead_node_of_another_application_is_cleaned_up_after() {
    let server = RedisServer::start(&[]);
    let a = Node::up("a", settings(&server)).await;
    let of_other = RedisSettings { application: "other".into(), ..settings(&server) };
    let (b, c) = (Node::up("b", of_other.clone()).await, Node::up("c", of_other).await);
    let topic = topic("t");
    for node in [&a, &c] {
        node.engine.subscribe(&topic).await.unwrap();
    }
    a.join(&topic, &["stays"]).await;
    b.join(&topic, &["u"]).await;
    assert_eq!(c.names().await, ["b", "c"]);
    drop(b);
    c.wait_for_left(&["u"], LEASE + CLEANING).await;
    let is_forgotten = || {
        let of_other = keys(&server).iter().filter(|key| key.starts_with("fanwire:other:")).count();
        of_other == 0 && server.ask::<usize>("ZCARD fanwire:n:{!}") == 2
    };
    eventually(CLEANING, is_forgotten, || format!("{:?}", keys(&server))).await;
    a.settle().await;
    assert_eq!(a.left(), [""; 0]);
    assert_eq!(a.present(&topic).await, ["stays"]);
}

#[tokio::test]
async fn two_that_clean_at_once_say_each_leave_once() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let c = Node::up("c", settings(&server)).await;
    let topics: Vec<_> = (0..40).map(|number| topic(&number.to_string())).collect();
    let mut expected = join_many(&c, &topics, 50).await;
    expected.sort();
    for topic in &topics {
        a.engine.subscribe(topic).await.unwrap();
    }
    drop(c);
    // Nobody respects that another is at it.
    let is_over = Arc::new(AtomicBool::new(false));
    let saboteur = {
        let (is_over, client) = (Arc::clone(&is_over), server.client());
        thread::spawn(move || {
            let mut connection = client.get_connection().unwrap();
            while !is_over.load(Ordering::Relaxed) {
                let locks: Vec<String> =
                    redis::cmd("KEYS").arg("fanwire:l:*").query(&mut connection).unwrap();
                for lock in locks {
                    redis::cmd("DEL").arg(lock).query::<()>(&mut connection).unwrap();
                }
            }
        })
    };
    let arrived = || a.left().len() >= expected.len();
    eventually(Duration::from_secs(10), arrived, || format!("{} left", a.left().len())).await;
    is_over.store(true, Ordering::Relaxed);
    saboteur.join().unwrap();
    tokio::time::sleep(LEASE).await;
    a.settle().await;
    assert_eq!(a.left(), expected);
    drop(b);
}

#[tokio::test]
async fn ten_thousand_members_leave_in_time() {
    let server = RedisServer::start(&[]);
    let lease = Duration::from_secs(2);
    let settings = RedisSettings { lease, ..settings(&server) };
    let (a, b) = (Node::up("a", settings.clone()).await, Node::up("b", settings).await);
    // One topic of many, and many of few.
    let (large, small) = (vec![topic("large")], (0..2000).map(|number| topic(&number.to_string())));
    let small: Vec<_> = small.collect();
    let mut expected: HashSet<_> = join_many(&b, &large, 6000).await.into_iter().collect();
    expected.extend(join_many(&b, &small, 2).await);
    assert_eq!(expected.len(), 10_000);
    for topic in large.iter().chain(&small) {
        a.engine.subscribe(topic).await.unwrap();
    }
    assert_eq!(a.engine.presence_stats(&large[0]).await.unwrap().clients, 6000);

    drop(b);
    let died = Instant::now();
    let count = || a.delivered.lock().unwrap().len();
    eventually(lease + CLEANING, || count() >= expected.len(), || format!("{} left", count())).await;
    println!("10,000 members left {:?} after their node's death", died.elapsed());
    a.settle().await;
    assert_eq!(a.left().len(), expected.len());
    assert_eq!(a.left().into_iter().collect::<HashSet<_>>(), expected);
}

#[tokio::test]
async fn a_paused_node_finds_its_members_gone_and_goes_on_as_another() {
    let server = RedisServer::start(&[]);
    let a = Node::up("a", settings(&server)).await;
    let b = Pausable::up("b", settings(&server)).await;
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.node.join(&topic, &["u", "v"]).await;
    let mut fenced = b.node.redis.fenced();
    assert_eq!(*fenced.borrow_and_update(), 0);
    let before = b.node.redis.peers().await.unwrap();

    b.pause(LEASE * 3);
    a.wait_for_left(&["u", "v"], LEASE + CLEANING).await;
    assert_eq!(a.names().await, ["a"]);
    // What it is asked to write while it is paused comes too late.
    let late = b.node.engine.add_presence(&topic, announced("late")).await;
    assert_eq!(late, Err(EngineError::Unavailable));
    tokio::time::timeout(Duration::from_secs(10), fenced.changed()).await.unwrap().unwrap();
    assert_eq!(*fenced.borrow_and_update(), 1);
    assert_eq!(a.present(&topic).await, [""; 0]);

    // The clients are closed then, and others come.
    for user in ["u", "v", "late"] {
        b.node.engine.remove_presence(&topic, client(user)).await.unwrap();
    }
    b.node.join(&topic, &["w"]).await;
    assert_eq!(a.present(&topic).await, ["w"]);
    // It is the same node, for who asks.
    let mut after = b.node.redis.peers().await.unwrap();
    let by_id = |peers: &mut Vec<Peer>| peers.sort_by_key(|peer| peer.id);
    let mut before = before;
    by_id(&mut before);
    by_id(&mut after);
    assert_eq!(before, after);

    tokio::time::sleep(LEASE * 2).await;
    a.settle().await;
    assert!(["u,v", "late,u,v"].contains(&a.left().join(",").as_str()), "{:?}", a.left());
    assert_eq!(a.present(&topic).await, ["w"]);
    assert_eq!(*fenced.borrow_and_update(), 1);
    // Under the old name nothing is left but the note that it is dead.
    let members = keys(&server).into_iter().filter(|key| key.contains(":p:{t}:")).count();
    assert_eq!(members, 1, "{:?}", keys(&server));
}

#[tokio::test]
async fn who_leaves_says_so_at_once() {
    let server = RedisServer::start(&[]);
    let settings = RedisSettings { lease: Duration::from_secs(30), ..settings(&server) };
    let (a, b) = (Node::up("a", settings.clone()).await, Node::up("b", settings).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.join(&topic, &["u", "v", "w"]).await;
    b.engine.add_presence(&topic, quiet("quiet")).await.unwrap();
    b.engine.remove_presence(&topic, client("u")).await.unwrap();
    a.wait_for_left(&["u"], Duration::from_secs(5)).await;

    b.redis.leave().await.unwrap();
    assert_eq!(a.present(&topic).await, [""; 0]);
    assert_eq!(a.names().await, ["a"]);
    a.wait_for_left(&["u", "v", "w"], Duration::from_secs(5)).await;
    // What comes after that is in vain, and does no harm.
    b.redis.leave().await.unwrap();
    b.engine.remove_presence(&topic, client("v")).await.unwrap();
    assert_eq!(b.engine.add_presence(&topic, announced("x")).await, Err(EngineError::Unavailable));
    assert_eq!(b.redis.peers().await, Err(EngineError::Unavailable));
    a.settle().await;
    assert_eq!(a.left(), ["u", "v", "w"]);
    assert_eq!(a.names().await, ["a"]);
}

#[tokio::test]
async fn who_leaves_is_not_taken_for_dead() {
    let server = RedisServer::start(&[]);
    // So that a heartbeat is under way most of the time.
    let settings = RedisSettings { lease: Duration::from_millis(30), ..settings(&server) };
    for _ in 0..50 {
        let node = Node::start("a", settings.clone());
        wait_until_up(&node.redis).await;
        node.redis.leave().await.unwrap();
        assert_eq!(*node.redis.fenced().borrow(), 0);
        let nodes: usize = server.ask("ZCARD fanwire:n:{!}");
        assert_eq!(nodes, 0);
    }
}

#[tokio::test]
async fn a_topic_of_very_many_is_written_anew() {
    let server = RedisServer::start(&[]);
    let node = Node::up("a", settings(&server)).await;
    let topics = [topic("large"), topic("small")];
    join_many(&node, &topics[..1], 7000).await;
    join_many(&node, &topics[1..], 3).await;
    for _ in 0..2 {
        let _: String = server.ask("FLUSHALL");
        for (topic, expected) in topics.iter().zip([7000, 3]) {
            let asked = Instant::now();
            while node.engine.presence(topic, usize::MAX).await.unwrap().len() != expected {
                assert!(asked.elapsed() < Duration::from_secs(10), "{topic} is not as it was");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let stats = PresenceStats { clients: expected, users: expected };
            let asked = Instant::now();
            while node.engine.presence_stats(topic).await.unwrap() != stats {
                assert!(asked.elapsed() < Duration::from_secs(10), "{topic} is not counted as it was");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        for key in keys(&server) {
            assert!(ttl(&server, &key) > 0, "{key}");
        }
    }
}

#[tokio::test]
async fn members_whose_keys_were_deleted_expire_too() {
    let server = RedisServer::start(&[]);
    let settings = RedisSettings { lease: Duration::from_secs(60), ..settings(&server) };
    let node = Node::up("a", settings).await;
    let topic = topic("t");
    node.join(&topic, &["u", "v"]).await;
    let delete = || {
        for key in keys(&server).iter().filter(|key| key.contains("{t}")) {
            let _: i64 = server.ask(&format!("DEL {key}"));
        }
    };
    let check = |count| {
        let of_topic: Vec<_> = keys(&server).into_iter().filter(|key| key.contains("{t}")).collect();
        assert_eq!(of_topic.len(), count, "{of_topic:?}");
        for key in of_topic {
            assert!(ttl(&server, &key) > 0, "{key}");
        }
    };
    delete();
    node.join(&topic, &["w"]).await;
    check(2);
    delete();
    // One is left here, so the counts are written.
    node.engine.remove_presence(&topic, client("u")).await.unwrap();
    check(1);
}

#[tokio::test]
async fn flushed_members_are_back_with_the_next_beat() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    a.join(&topic, &["u"]).await;
    b.join(&topic, &["v"]).await;
    for _ in 0..3 {
        let _: String = server.ask("FLUSHALL");
        a.wait_for_present(&topic, &["u", "v"], LEASE / 3 + Duration::from_millis(300)).await;
    }
    assert_eq!(a.names().await, ["a", "b"]);
    tokio::time::sleep(LEASE * 2).await;
    a.settle().await;
    assert_eq!(a.left(), [""; 0]);
    assert_eq!((*a.redis.fenced().borrow(), *b.redis.fenced().borrow()), (0, 0));
}

#[tokio::test]
async fn nobody_is_taken_for_dead_because_redis_was_away() {
    for persistence in ["no", "yes"] {
        let mut server = RedisServer::start(&["--appendonly", persistence, "--appendfsync", "always"]);
        let nodes = [Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await];
        let topic = topic("t");
        nodes[0].engine.subscribe(&topic).await.unwrap();
        nodes[0].join(&topic, &["u"]).await;
        nodes[1].join(&topic, &["v"]).await;

        server.kill();
        tokio::time::sleep(LEASE * 2).await;
        server.resume();
        nodes[0].wait_for_present(&topic, &["u", "v"], Duration::from_secs(5)).await;
        tokio::time::sleep(LEASE * 2).await;
        wait_until_up(&nodes[0].redis).await;
        nodes[0].settle().await;
        assert_eq!(nodes[0].left(), [""; 0]);
        assert!(nodes.iter().all(|node| *node.redis.fenced().borrow() == 0));
        assert_eq!(nodes[0].present(&topic).await, ["u", "v"]);
    }
}

#[tokio::test]
async fn who_does_not_come_back_after_an_outage_is_dead() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    // Longer than what a connection may take to come back: who has no subscription hears no leave.
    let lease = Duration::from_secs(2);
    let settings = RedisSettings { lease, ..settings(&server) };
    let (a, b) = (Node::up("a", settings.clone()).await, Node::up("b", settings).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.join(&topic, &["v"]).await;
    server.kill();
    drop(b);
    tokio::time::sleep(lease + LEASE).await;
    server.resume();
    wait_until_up(&a.redis).await;
    a.wait_for_left(&["v"], lease + CLEANING).await;
}

#[tokio::test]
async fn a_leave_that_redis_did_not_hear_is_said_later() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let settings = RedisSettings { lease: Duration::from_secs(5), ..settings(&server) };
    let (a, b) = (Node::up("a", settings.clone()).await, Node::up("b", settings).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.join(&topic, &["u", "v", "w"]).await;
    server.kill();
    eventually(
        Duration::from_secs(5),
        || *b.redis.state().borrow() != LinkState::Up,
        || "still up".to_owned(),
    )
    .await;
    for user in ["u", "v"] {
        let removed = b.engine.remove_presence(&topic, client(user)).await;
        assert_eq!(removed, Err(EngineError::Unavailable));
    }
    // One of them comes back: for others it has never been away.
    let added = b.engine.add_presence(&topic, announced("v")).await;
    assert_eq!(added, Err(EngineError::Unavailable));
    server.resume();
    a.wait_for_present(&topic, &["v", "w"], Duration::from_secs(10)).await;
    wait_until_up(&a.redis).await;
    a.settle().await;
    // The subscription may come back later than the leave was said; it is never said twice.
    assert!([vec![], vec!["u".to_owned()]].contains(&a.left()), "{:?}", a.left());
    b.engine.remove_presence(&topic, client("w")).await.unwrap();
    a.settle().await;
    assert!(a.left().ends_with(&["w".to_owned()]), "{:?}", a.left());
}

#[tokio::test]
async fn a_full_redis_keeps_leases_and_lets_members_leave() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.join(&topic, &["u", "v"]).await;
    let _: String = server.ask("CONFIG SET maxmemory 1");
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!(a.present(&topic).await, ["u", "v"]);
    assert_eq!(b.engine.add_presence(&topic, announced("w")).await, Err(EngineError::Full));
    // Who may come is decided by what this node knows.
    assert!(b.engine.admit(&self::topic("!user:u"), info("1"), 1).await.unwrap());
    assert!(!b.engine.admit(&self::topic("!user:u"), info("2"), 1).await.unwrap());
    b.engine.remove_presence(&topic, client("u")).await.unwrap();
    a.wait_for_left(&["u"], Duration::from_secs(5)).await;
    let _: String = server.ask("CONFIG SET maxmemory 0");
    // Those that found no place are there in the end.
    a.wait_for_present(&self::topic("!user:u"), &["1"], LEASE + CLEANING).await;
    a.wait_for_present(&topic, &["v", "w"], LEASE + CLEANING).await;
    assert_eq!((*a.redis.fenced().borrow(), *b.redis.fenced().borrow()), (0, 0));
}

#[tokio::test]
async fn a_node_with_another_lease_does_not_join() {
    let server = RedisServer::start(&[]);
    let a = Node::up("a", settings(&server)).await;
    let other = RedisSettings { lease: Duration::from_secs(15), ..settings(&server) };
    let b = Node::start("b", other.clone());
    let reason = b.wait_until_refused().await;
    assert_eq!(
        reason.to_string(),
        "engine.redis.lease is 15s here and 600ms on the nodes of this cluster; give all nodes the same"
    );
    // It is final.
    let topic = topic("t");
    let unavailable = EngineError::Unavailable;
    assert_eq!(b.engine.add_presence(&topic, announced("u")).await, Err(unavailable));
    assert_eq!(b.engine.admit(&topic, info("u"), 5).await, Err(unavailable));
    assert_eq!(b.engine.presence(&topic, usize::MAX).await, Err(unavailable));
    assert_eq!(b.engine.subscribe(&topic).await, Err(unavailable));
    assert_eq!(b.engine.publish(&topic, Publish::default()).await, Err(unavailable));
    assert_eq!(b.redis.peers().await, Err(unavailable));
    b.redis.leave().await.unwrap();
    // The connections of `a`, and the one that asks.
    let connections = || server.ask::<String>("CLIENT LIST").lines().count();
    eventually(Duration::from_secs(5), || connections() == 5, || format!("{} connections", connections()))
        .await;
    assert!(matches!(*b.redis.state().borrow(), LinkState::Refused(_)));
    // Members are never refused.
    tokio::time::sleep(LEASE).await;
    assert_eq!(a.names().await, ["a"]);

    // Once the others are gone it may be different.
    a.redis.leave().await.unwrap();
    assert_eq!(Node::up("b", other).await.names().await, ["b"]);
}

#[tokio::test]
async fn another_prefix_is_refused_unless_it_is_meant() {
    let server = RedisServer::start(&[]);
    let with = |prefix: &str| RedisSettings { prefix: prefix.into(), ..settings(&server) };
    let a = Node::up("a", with("a")).await;
    let reason = Node::start("b", with("b")).wait_until_refused().await;
    assert_eq!(
        reason.to_string(),
        "this Redis already serves a cluster with prefix \"a\"; this node has \"b\". Set engine.redis.prefix to the \
         same on all nodes, or engine.redis.allow_other_prefixes if two clusters share this Redis"
    );
    // Another application is no other cluster, and who finds its own cluster is no stranger.
    let other = RedisSettings { application: "other".into(), ..with("a") };
    let other = Node::up("other", other).await;
    assert_eq!(other.names().await, ["other"]);
    let b = Node::up("b", RedisSettings { allow_other_prefixes: true, ..with("b") }).await;
    let (a2, b2) = (Node::up("a2", with("a")).await, Node::up("b2", with("b")).await);
    assert_eq!(a.names().await, ["a", "a2"]);
    assert_eq!(b.names().await, ["b", "b2"]);

    // Once all have left, it may be any.
    for node in [a, a2, other, b, b2] {
        node.redis.leave().await.unwrap();
    }
    assert_eq!(Node::up("c", with("c")).await.names().await, ["c"]);
}

#[tokio::test]
async fn all_nodes_together_admit_no_more_than_allowed() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let topic = topic("!user:u");
    let admitted = Arc::new(Mutex::new(Vec::new()));
    let at_once = LocalSet::new();
    for number in 0..60 {
        let engine = Engine::Redis(if number % 2 == 0 { a.redis.clone() } else { b.redis.clone() });
        let (topic, admitted) = (topic.clone(), Arc::clone(&admitted));
        at_once.spawn_local(async move {
            let user = number.to_string();
            if engine.admit(&topic, info(&user), 10).await.unwrap() {
                admitted.lock().unwrap().push(user);
            }
        });
    }
    at_once.await;
    let mut admitted = admitted.lock().unwrap().clone();
    admitted.sort();
    assert_eq!(admitted.len(), 10);
    // Those who found no place leave nothing behind.
    let c = Node::up("c", settings(&server)).await;
    assert!(!c.engine.admit(&topic, info("new"), 10).await.unwrap());
    let listed = keys(&server).into_iter().filter(|key| key.contains(":px:")).count();
    assert!(listed <= 2, "{:?}", keys(&server));
    drop(c);
    assert_eq!(a.present(&topic).await, admitted);

    // Who is there already is not counted twice.
    let again = &admitted[0];
    let is_of_a = again.parse::<u32>().unwrap().is_multiple_of(2);
    let (node, other) = if is_of_a { (a, b) } else { (b, a) };
    assert!(node.engine.admit(&topic, info(again), 10).await.unwrap());
    assert!(!node.engine.admit(&topic, info("new"), 10).await.unwrap());
    node.engine.remove_presence(&topic, client(again)).await.unwrap();
    // One that has just joined is counted by those who have not heard of it.
    let c = Node::up("c", settings(&server)).await;
    assert!(c.engine.admit(&topic, info("new"), 10).await.unwrap());
    for node in [&node, &other] {
        assert!(!node.engine.admit(&topic, info("more"), 10).await.unwrap());
    }

    // What a dead node's client took is free again.
    drop(c);
    let died = Instant::now();
    while !other.engine.admit(&topic, info("more"), 10).await.unwrap() {
        assert!(died.elapsed() < LEASE + CLEANING, "nothing is free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(other.present(&topic).await.len(), 10);
    assert!(!node.engine.admit(&topic, info("another"), 10).await.unwrap());
}

#[tokio::test]
async fn without_redis_a_node_admits_as_many_as_its_own() {
    let mut server = RedisServer::start(&[]);
    let a = Node::up("a", settings(&server)).await;
    let topic = topic("!user:u");
    assert!(a.engine.admit(&topic, info("1"), 2).await.unwrap());
    server.kill();
    eventually(
        Duration::from_secs(5),
        || *a.redis.state().borrow() != LinkState::Up,
        || "still up".to_owned(),
    )
    .await;
    assert!(a.engine.admit(&topic, info("2"), 2).await.unwrap());
    assert!(!a.engine.admit(&topic, info("3"), 2).await.unwrap());
    server.resume();
    a.wait_for_present(&topic, &["1", "2"], Duration::from_secs(10)).await;
}

#[tokio::test]
async fn members_that_stay_cost_redis_nothing() {
    let server = RedisServer::start(&[]);
    let node = Node::up("a", settings(&server)).await;
    let topics: Vec<_> = (0..100).map(|number| topic(&number.to_string())).collect();
    join_many(&node, &topics, 20).await;
    tokio::time::sleep(LEASE).await;
    let _: String = server.ask("CONFIG RESETSTAT");
    tokio::time::sleep(LEASE * 3).await;
    let commands = commands(&server);
    println!("2000 members cost {commands} commands in {:?}", LEASE * 3);
    // About ten heartbeats, of less than twenty commands each, and some probes.
    assert!(commands < 300, "{commands} commands");
}

#[tokio::test]
async fn nothing_remains_but_what_expires() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let topics: Vec<_> = (0..50).map(|number| topic(&number.to_string())).collect();
    let joined = join_many(&a, &topics, 4).await;
    join_many(&b, &topics, 3).await;
    assert!(a.engine.admit(&topic("!user:u"), info("u"), 1).await.unwrap());
    for key in keys(&server) {
        assert!(ttl(&server, &key) > 0, "{key}");
    }
    for (number, user) in joined.iter().enumerate() {
        a.engine.remove_presence(&topics[number / 4], client(user)).await.unwrap();
    }
    a.engine.remove_presence(&topic("!user:u"), client("u")).await.unwrap();
    for node in [a, b] {
        node.redis.leave().await.unwrap();
    }
    let mut left = keys(&server);
    left.sort();
    for key in &left {
        assert!(ttl(&server, key) > 0, "{key}");
    }
    // The notes that two nodes are gone, and for one lease the settings.
    let kinds: Vec<_> = left.iter().map(|key| key.split(":{!}").next().unwrap()).collect();
    assert!(kinds.iter().filter(|kind| **kind == "fanwire:t").count() == 2, "{left:?}");
    assert!(left.len() <= 3, "{left:?}");
}

/// As many clients in each topic, all at once; returns their users, topic by topic.
async fn join_many(node: &Node, topics: &[TopicName], clients: usize) -> Vec<String> {
    let at_once = LocalSet::new();
    let mut users = Vec::new();
    for topic in topics {
        let in_topic: Vec<_> = (0..clients).map(|number| format!("{topic}/{number}")).collect();
        users.extend(in_topic.iter().cloned());
        let (engine, topic) = (Engine::Redis(node.redis.clone()), topic.clone());
        at_once.spawn_local(async move {
            for user in in_topic {
                engine.add_presence(&topic, announced(&user)).await.unwrap();
            }
        });
    }
    at_once.await;
    users
}

fn settings(server: &RedisServer) -> RedisSettings {
    // Connections come back well within a lease.
    let retry_max = Duration::from_millis(200);
    RedisSettings { lease: LEASE, retry_max, ..server.settings() }
}

fn peer(name: &str) -> Peer {
    Peer { id: Uuid::new_v4(), name: name.into() }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

/// The client of a user who has one.
fn client(user: &str) -> ClientId {
    let mut id = [0; 16];
    id[..user.len()].copy_from_slice(user.as_bytes());
    ClientId(Uuid::from_bytes(id))
}

fn info(user: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        user: user.into(),
        client: client(user),
        connection: Bytes::new(),
        subscription: Bytes::new(),
    })
}

/// One member, whose leave nobody is told of.
fn quiet(user: &str) -> Vec<Member> {
    vec![Member::new(info(user), false)]
}

/// One member, whose leave is announced.
fn announced(user: &str) -> Vec<Member> {
    vec![Member::new(info(user), true)]
}

fn keys(server: &RedisServer) -> Vec<String> {
    server.ask("KEYS *")
}

/// Negative for a key that does not expire.
fn ttl(server: &RedisServer, key: &str) -> i64 {
    server.ask(&format!("PTTL {key}"))
}

/// How many commands Redis has run, those inside scripts too.
fn commands(server: &RedisServer) -> u64 {
    let info: String = server.ask("INFO commandstats");
    let calls =
        info.lines().filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok());
    calls.sum()
}

async fn eventually(within: Duration, holds: impl Fn() -> bool, complaint: impl Fn() -> String) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "{}", complaint());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
