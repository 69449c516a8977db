//! The events of members of several nodes: those of nodes that die or are cut off, and what is lost on the way.

use std::time::Duration;

use fanwire_broker::{
    EngineError, EventId, LetterId, Letters, Member, OutboxOptions, RedisSettings, Refusal, StoredEvent,
};
use fanwire_protocol::reason::Left;
use fanwire_protocol::{EventMask, TopicName};

use crate::node::{
    LEASE, Node, REAPING, announced, client, eventually, info, join_many, keys, quiet, settings, topic, ttl,
};
use crate::proxy::{Direction, Proxy};
use crate::redis_server::RedisServer;

const ALL: EventMask = EventMask::from_bits(15);

#[tokio::test]
async fn the_members_of_a_dead_node_have_their_events_once() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", with_events(&server)).await, Node::up("b", with_events(&server)).await);
    let c = Node::up("c", with_events(&server)).await;
    let (both, alone) = (topic("both"), topic("!user:u"));
    join(&c, &both, "u").await;
    join(&c, &both, "v").await;
    join(&a, &both, "w").await;
    join(&c, &alone, "u").await;
    drop(c);
    let offline = |event: &StoredEvent| event.kind.as_str() == "user_offline";
    wait_for(&a, LEASE + REAPING, |events| events.iter().any(offline)).await;
    wait_for(&a, REAPING, |events| events.len() == 10).await;
    let events = stored(&a).await;
    let of_user = told(&events, |event| event.topic.is_none());
    assert_eq!(of_user, ["user_online u", "connected u", "disconnected u 1 node died", "user_offline u"]);
    let mut of_topic = told(&events, |event| event.topic.is_some());
    of_topic[4..].sort();
    let expected = ["topic_occupied", "subscribed u", "subscribed v", "subscribed w"];
    assert_eq!(of_topic[..4], expected);
    assert_eq!(of_topic[4..], ["unsubscribed u 1 node died", "unsubscribed v 1 node died"]);
    tokio::time::sleep(LEASE).await;
    assert_eq!(stored(&b).await, events);
    for key in keys(&server) {
        assert!(ttl(&server, &key) > 0, "{key}");
    }
}

#[tokio::test]
async fn who_is_back_before_the_dead_node_is_reaped_was_never_away() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", with_events(&server)).await, Node::up("b", with_events(&server)).await);
    let user = topic("!user:u");
    join(&b, &user, "u").await;
    drop(b);
    let again = Member::new(info("u2"), false).with_events(ALL);
    a.engine.add_presence(&user, vec![again]).await.unwrap();
    wait_for(&a, LEASE + REAPING, |events| events.len() == 4).await;
    let expected = ["user_online u", "connected u", "connected u2", "disconnected u 1 node died"];
    assert_eq!(told(&stored(&a).await, |_| true), expected);
    a.engine.remove_presence(&user, client("u2"), &Left::Gone).await.unwrap();
    let events = told(&stored(&a).await, |_| true);
    assert_eq!(events[4..], ["disconnected u2 3000 connection closed", "user_offline u"]);
}

#[tokio::test]
async fn a_user_on_two_nodes_is_online_once() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", undisturbed(&server)).await, Node::up("b", undisturbed(&server)).await);
    let user = topic("!user:u");
    for round in 0..2 {
        join(&a, &user, "1").await;
        join(&b, &user, "2").await;
        a.engine.remove_presence(&user, client("1"), &Left::Gone).await.unwrap();
        assert_eq!(of_kind(&stored(&a).await, "user_offline"), round);
        b.engine.remove_presence(&user, client("2"), &Left::Gone).await.unwrap();
    }
    let events = stored(&a).await;
    assert_eq!((of_kind(&events, "user_online"), of_kind(&events, "user_offline")), (2, 2));
    // A node that leaves takes its members with it.
    join(&b, &user, "2").await;
    b.redis.leave().await.unwrap();
    let events = told(&stored(&a).await, |_| true);
    assert_eq!(events[events.len() - 2..], ["disconnected 2 1 node died", "user_offline u"]);
}

#[tokio::test]
async fn what_arrives_after_the_reaper_changes_nothing() {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::start(server.port);
    let b = Node::up("b", with_events(&server)).await;
    let a = Node::up("a", RedisSettings { port: proxy.port, ..with_events(&server) }).await;
    let (user, other) = (topic("!user:u"), topic("!user:v"));
    join(&a, &user, "1").await;
    let (links, _) = proxy.open_links();
    links.iter().for_each(|link| link.stall(Direction::ToServer));
    // Sent while the lease is held.
    let member = |name| vec![Member::new(info(name), false).with_events(ALL)];
    let late = async {
        tokio::join!(
            a.engine.add_presence(&user, member("2")),
            a.engine.add_presence(&other, member("3")),
            a.engine.remove_presence(&user, client("1"), &Left::Unsubscribed),
        )
    };
    let reaped = async {
        wait_for(&b, LEASE + REAPING, |events| of_kind(events, "user_offline") == 1).await;
        links.iter().for_each(|link| link.resume(Direction::ToServer));
    };
    let (late, ()) = tokio::join!(late, reaped);
    let unavailable = Err(EngineError::Unavailable);
    assert_eq!((late.0, late.1), (unavailable, unavailable));
    let expected = ["user_online u", "connected 1", "disconnected 1 1 node died", "user_offline u"];
    assert_eq!(told(&stored(&b).await, |_| true), expected);
    let mut fenced = a.redis.fenced();
    tokio::time::timeout(Duration::from_secs(10), fenced.wait_for(|times| *times == 1))
        .await
        .unwrap()
        .unwrap();
    // What was refused is taken back, which must not add it.
    let [taken_back] = <[Member; 1]>::try_from(member("2")).unwrap();
    a.engine.replace_presence(&user, taken_back).await.unwrap();
    a.engine.remove_presence(&user, client("2"), &Left::Refused).await.unwrap();
    // As another incarnation it writes again.
    join(&a, &user, "4").await;
    let events = told(&stored(&b).await, |_| true);
    assert_eq!(events[4..], ["user_online u", "connected 4"]);
}

#[tokio::test]
async fn lost_answers_and_lost_requests_end_in_the_right_events() {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::start(server.port);
    let settings = RedisSettings {
        port: proxy.port,
        lease: Duration::from_secs(4),
        answer_timeout: Duration::from_millis(500),
        probe_interval: Duration::from_millis(200),
        ..with_events(&server)
    };
    let a = Node::up("a", settings).await;
    let b = Node::up("b", RedisSettings { lease: Duration::from_secs(4), ..with_events(&server) }).await;
    for (direction, reason) in
        [(Direction::ToClient, "3000 connection closed"), (Direction::ToServer, "3 not known")]
    {
        let name = format!("{direction:?}");
        let topic = topic(&name);
        join(&a, &topic, "1").await;
        let break_links = || {
            let (links, _) = proxy.open_links();
            links.iter().for_each(|link| link.stall(direction));
        };
        break_links();
        let member = Member::new(info("2"), false).with_events(ALL);
        assert!(a.engine.add_presence(&topic, vec![member]).await.is_err());
        let of_topic = |event: &StoredEvent| event.topic.as_ref() == Some(&topic);
        let wait = async |expected: &[&str]| {
            let complaint = || format!("{expected:?}");
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while told(&stored(&b).await, of_topic) != expected {
                assert!(std::time::Instant::now() < deadline, "{}", complaint());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        wait(&["topic_occupied", "subscribed 1", "subscribed 2"]).await;
        let up = async || {
            while a.engine.presence(&topic, usize::MAX).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        up().await;
        break_links();
        assert!(a.engine.remove_presence(&topic, client("1"), &Left::Gone).await.is_err());
        let left = format!("unsubscribed 1 {reason}");
        wait(&["topic_occupied", "subscribed 1", "subscribed 2", &left]).await;
        up().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        wait(&["topic_occupied", "subscribed 1", "subscribed 2", &left]).await;
    }
}

#[tokio::test]
async fn an_outage_repeats_no_event() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let settings = RedisSettings { lease: Duration::from_secs(5), ..with_events(&server) };
    let a = Node::up("a", settings).await;
    let topic = topic("t");
    for user in ["u", "v"] {
        join(&a, &topic, user).await;
    }
    server.kill();
    let lost = || !matches!(*a.redis.state().borrow(), fanwire_broker::LinkState::Up);
    eventually(Duration::from_secs(5), lost, || "still up".to_owned()).await;
    assert!(a.engine.remove_presence(&topic, client("u"), &Left::Gone).await.is_err());
    assert!(a.engine.remove_presence(&topic, client("v"), &Left::Gone).await.is_err());
    let member = Member::new(info("v"), false).with_events(ALL);
    assert!(a.engine.add_presence(&topic, vec![member]).await.is_err());
    server.resume();
    crate::redis_server::wait_until_up(&a.redis).await;
    wait_for(&a, Duration::from_secs(10), |events| events.len() == 4).await;
    let expected = ["topic_occupied", "subscribed u", "subscribed v", "unsubscribed u 3 not known"];
    assert_eq!(told(&stored(&a).await, |_| true), expected);
}

#[tokio::test]
async fn outboxes_are_forgotten_only_when_they_have_been_empty_for_long() {
    let server = RedisServer::start(&[]);
    let a = Node::up("a", undisturbed(&server)).await;
    let (t, u) = (topic("t"), topic("u"));
    join(&a, &t, "1").await;
    join(&a, &u, "1").await;
    let outbox = a.redis.outbox().unwrap();
    let engine_outbox = a.engine.outbox().unwrap();
    assert_eq!(engine_outbox.slots().await.unwrap().len(), 2);
    let tags = || server.ask::<Vec<String>>("ZRANGE fanwire:default:evl:{!} 0 -1");
    let first = tags().remove(0);
    let announce = |time: u64| server.ask::<i64>(&format!("ZADD fanwire:default:evl:{{!}} {time} {first}"));
    // One with events stays, however old.
    announce(1);
    outbox.tidy().await.unwrap();
    assert_eq!(engine_outbox.slots().await.unwrap().len(), 2);
    announce(9_999_999_999_999);
    for event in stored(&a).await {
        engine_outbox.remove(&[event.id]).await.unwrap();
    }
    // An empty one stays while its announcement is young.
    outbox.tidy().await.unwrap();
    assert_eq!(engine_outbox.slots().await.unwrap().len(), 2);
    announce(1);
    outbox.tidy().await.unwrap();
    assert!(tags().len() == 1 && !tags().contains(&first));
}

#[tokio::test]
async fn what_is_written_between_a_read_and_the_removal_stays() {
    const CLIENTS: usize = 400;
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", undisturbed(&server)).await, Node::up("b", undisturbed(&server)).await);
    let outbox = b.redis.outbox().unwrap();
    let (one, other) = (topic("one"), topic("other"));
    join(&a, &one, "first").await;
    let read = outbox.read(&outbox.slots().await.unwrap(), 100).await.unwrap();
    join(&a, &one, "second").await;
    outbox.remove(&[read[1].id]).await.unwrap();
    assert_eq!(told(&stored(&b).await, |_| true), ["subscribed second"]);

    // The same as a race: two topics are written while their outboxes are emptied.
    let written = async {
        for number in 0..CLIENTS {
            join(&a, if number % 2 == 0 { &one } else { &other }, &number.to_string()).await;
        }
    };
    let taken = async {
        let mut taken: Vec<StoredEvent> = Vec::new();
        while taken.len() < CLIENTS + 2 {
            let events = outbox.read(&outbox.slots().await.unwrap(), 3).await.unwrap();
            let of_slots = events.chunk_by(|one, next| one.id.slot == next.id.slot);
            let last: Vec<EventId> = of_slots.map(|events| events[events.len() - 1].id).collect();
            outbox.remove(&last).await.unwrap();
            taken.extend(events);
        }
        taken
    };
    let (taken, ()) = tokio::join!(taken, written);
    assert_eq!(stored(&b).await, []);
    for (topic, odd) in [(&one, 0), (&other, 1)] {
        let of_topic: Vec<_> = taken.iter().filter(|event| event.topic.as_ref() == Some(topic)).collect();
        assert!(of_topic.is_sorted_by_key(|event| event.id));
        let numbers = of_topic.iter().filter_map(|event| event.user.as_ref()?.parse().ok());
        let expected: Vec<usize> = (0..CLIENTS).filter(|number| number % 2 == odd).collect();
        assert_eq!(numbers.collect::<Vec<usize>>(), expected);
    }
}

#[tokio::test]
async fn events_that_nobody_takes_are_dropped_and_counted() {
    const LENGTH_MAX: usize = 150;
    let server = RedisServer::start(&[]);
    let options = OutboxOptions { length_max: LENGTH_MAX, ..OutboxOptions::default() };
    let settings = RedisSettings { outbox: Some(options), ..undisturbed(&server) };
    let a = Node::up("a", settings).await;
    let topic = topic("t");
    let outbox = a.redis.outbox().unwrap();
    let began =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    for number in 0..500 {
        join(&a, &topic, &number.to_string()).await;
    }
    let backlog = outbox.tidy().await.unwrap();
    let left = stored(&a).await;
    assert!((LENGTH_MAX..LENGTH_MAX + 101).contains(&left.len()), "{}", left.len());
    assert_eq!((backlog.events as usize, backlog.dropped as usize), (left.len(), 501 - left.len()));
    assert_eq!(backlog.oldest, Some(left[0].id.millis));
    assert!(left[0].id.millis >= began - 1000);
    assert_eq!(left.last().unwrap().user.as_deref(), Some("499"));
    assert_eq!(outbox.tidy().await.unwrap().dropped, 0);
    for key in keys(&server) {
        assert!(ttl(&server, &key) > 0, "{key}");
    }
}

#[tokio::test]
async fn dead_letters_are_kept_until_they_are_retried_or_removed() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", undisturbed(&server)).await, Node::up("b", undisturbed(&server)).await);
    let topic = topic("t");
    for user in ["1", "2", "ü\"3"] {
        join(&a, &topic, user).await;
    }
    a.engine.remove_presence(&topic, client("1"), &Left::Gone).await.unwrap();
    let events = stored(&a).await;
    let (outbox, other) = (a.redis.outbox().unwrap(), b.redis.outbox().unwrap());
    let refusal = Refusal { status: 400, attempts: 3 };
    for event in &events {
        outbox.bury(event, refusal).await.unwrap();
    }
    let letters = other.dead_letters(100).await.unwrap();
    let buried: Vec<_> = letters.iter().map(|letter| (letter.event.clone(), letter.refusal)).collect();
    assert_eq!(buried, events.iter().map(|event| (event.clone(), refusal)).collect::<Vec<_>>());
    assert!(letters.is_sorted_by_key(|letter| letter.id));
    assert_eq!(other.dead_letters(2).await.unwrap(), letters[..2]);
    let backlog = outbox.tidy().await.unwrap();
    assert_eq!((backlog.dead_letters, backlog.oldest_dead_letter), (5, Some(letters[0].id.millis)));

    // Unknown letters are nobody's.
    let unknown = LetterId { millis: 1, sequence: 1 };
    let these = |ids: &[LetterId]| Letters::These(ids.to_vec());
    assert_eq!(other.retry(&these(&[letters[1].id, unknown])).await, Ok(1));
    assert_eq!(other.retry(&these(&[letters[1].id])).await, Ok(0));
    assert_eq!(other.remove_dead_letters(&these(&[letters[0].id, unknown])).await, Ok(1));
    assert_eq!(outbox.dead_letters(100).await.unwrap(), letters[2..]);
    let retried = outbox.retried(10).await.unwrap();
    assert_eq!(retried.len(), 1);
    assert_eq!((&retried[0].event, retried[0].refusal), (&letters[1].event, refusal));
    // It is refused again, and then taken.
    let again = Refusal { status: 500, attempts: 4 };
    outbox.settle(retried[0].id, Some((&retried[0].event, again))).await.unwrap();
    assert_eq!(outbox.retried(10).await, Ok(Vec::new()));
    let last = outbox.dead_letters(100).await.unwrap().pop().unwrap();
    assert_eq!((&last.event, last.refusal), (&letters[1].event, again));
    assert_eq!(outbox.retry(&Letters::All).await, Ok(4));
    assert_eq!(outbox.dead_letters(100).await, Ok(Vec::new()));
    for letter in outbox.retried(100).await.unwrap() {
        outbox.settle(letter.id, None).await.unwrap();
    }
    assert_eq!(outbox.retried(100).await, Ok(Vec::new()));
    outbox.bury(&events[0], refusal).await.unwrap();
    for key in keys(&server) {
        assert!(ttl(&server, &key) > 0, "{key}");
    }
    assert_eq!(outbox.remove_dead_letters(&Letters::All).await, Ok(1));
    assert_eq!(outbox.tidy().await.unwrap().dead_letters, 0);
}

#[tokio::test]
async fn dead_letters_are_bounded_in_number_and_time() {
    let server = RedisServer::start(&[]);
    let options = OutboxOptions {
        dead_letters_max: 100,
        dead_letters_ttl: Duration::from_secs(60),
        ..OutboxOptions::default()
    };
    let settings = RedisSettings { outbox: Some(options), ..undisturbed(&server) };
    let a = Node::up("a", settings).await;
    join(&a, &topic("t"), "1").await;
    let event = stored(&a).await.remove(0);
    let outbox = a.redis.outbox().unwrap();
    for attempts in 1..=500 {
        outbox.bury(&event, Refusal { status: 400, attempts }).await.unwrap();
    }
    let letters = outbox.dead_letters(1000).await.unwrap();
    assert!((100..=200).contains(&letters.len()), "{}", letters.len());
    assert_eq!(letters.last().unwrap().refusal.attempts, 500);
    let _: i64 = server.ask("DEL fanwire:default:evx:{!}");
    let _: String = server.ask("XADD fanwire:default:evx:{!} 1000-0 another program's");
    let _: String = server.ask("XADD fanwire:default:evr:{!} 1000-0 another program's");
    assert_eq!(outbox.dead_letters(1000).await, Ok(Vec::new()));
    assert_eq!(outbox.tidy().await.unwrap().dead_letters, 0);
    assert_eq!(server.ask::<i64>("XLEN fanwire:default:evr:{!}"), 0);
}

#[tokio::test]
async fn one_node_works_on_outboxes_until_it_stops() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", undisturbed(&server)).await, Node::up("b", undisturbed(&server)).await);
    let (first, second) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    let claim = async |node: &Node, worker| {
        node.redis.outbox().unwrap().claim(worker, Duration::from_millis(500)).await.unwrap()
    };
    assert!(claim(&a, first).await);
    assert!(!claim(&b, second).await);
    assert!(claim(&a, first).await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(claim(&b, second).await);
    assert!(!claim(&a, first).await);
}

#[tokio::test]
async fn vacancies_are_said_by_any_node_when_they_are_due() {
    let server = RedisServer::start(&[]);
    let outbox = OutboxOptions { offline_delay: LEASE * 3, ..OutboxOptions::default() };
    let settings = RedisSettings { outbox: Some(outbox), ..settings(&server) };
    let (a, b) = (Node::up("a", settings.clone()).await, Node::up("b", settings).await);
    let (stays, leaves, dies) = (topic("!user:stays"), topic("!user:leaves"), topic("!user:dies"));
    for user in [&stays, &leaves, &dies] {
        join(&b, user, user.as_str().strip_prefix("!user:").unwrap()).await;
    }
    let left = std::time::Instant::now();
    for user in ["stays", "leaves"] {
        let topic = topic(&format!("!user:{user}"));
        b.engine.remove_presence(&topic, client(user), &Left::Gone).await.unwrap();
    }
    drop(b);
    join(&a, &stays, "stays").await;
    let due: usize = server.ask("ZCARD fanwire:default:evd:{!}");
    assert_eq!(due, 2);
    loop {
        a.engine.outbox().unwrap().say_due().await.unwrap();
        let offline = of_kind(&stored(&a).await, "user_offline");
        // The dead node's member has been gone since the beginning of its last lease.
        if offline == 2 {
            break;
        }
        assert!(left.elapsed() < LEASE * 4 + REAPING, "{offline} users are offline");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(left.elapsed() >= LEASE * 3, "{:?}", left.elapsed());
    let events = stored(&a).await;
    let mut offline = told(&events, |event| event.kind.as_str() == "user_offline");
    offline.sort();
    assert_eq!(offline, ["user_offline dies", "user_offline leaves"]);
    let due: usize = server.ask("ZCARD fanwire:default:evd:{!}");
    assert_eq!(due, 0);
}

#[tokio::test]
async fn who_left_a_live_node_after_the_death_of_another_is_offline_after_the_delay() {
    let server = RedisServer::start(&[]);
    let delay = LEASE * 2;
    let outbox = OutboxOptions { offline_delay: delay, ..OutboxOptions::default() };
    let settings = RedisSettings { outbox: Some(outbox), ..settings(&server) };
    let (a, b) = (Node::up("a", settings.clone()).await, Node::up("b", settings).await);
    let user = topic("!user:u");
    join(&b, &user, "1").await;
    join(&a, &user, "2").await;
    drop(b);
    // Whether or not the dead node is reaped by then.
    tokio::time::sleep(LEASE / 2).await;
    a.engine.remove_presence(&user, client("2"), &Left::Gone).await.unwrap();
    let deadline = std::time::Instant::now() + LEASE + REAPING + delay;
    while of_kind(&stored(&a).await, "user_offline") == 0 {
        assert!(std::time::Instant::now() < deadline, "{:?}", told(&stored(&a).await, |_| true));
        a.engine.outbox().unwrap().say_due().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let events = stored(&a).await;
    assert_eq!(of_kind(&events, "disconnected"), 2);
    let gone = |event: &&StoredEvent| event.reason.as_ref().is_some_and(|(code, _)| *code == 3000);
    let left = events.iter().find(gone).unwrap().time;
    let offline = events.last().unwrap();
    assert_eq!(offline.kind.as_str(), "user_offline");
    assert!(
        offline.time >= left + delay.as_millis() as i64,
        "{} ms after the last left",
        offline.time - left
    );
}

#[tokio::test]
async fn a_vacancy_is_announced_although_a_join_has_failed() {
    let server = RedisServer::start(&[]);
    let outbox = OutboxOptions { offline_delay: LEASE, ..OutboxOptions::default() };
    let lease = Duration::from_secs(20);
    let a = Node::up("a", RedisSettings { outbox: Some(outbox), lease, ..settings(&server) }).await;
    let user = topic("!user:u");
    join(&a, &user, "1").await;
    let _: String = server.ask("CONFIG SET maxmemory 1");
    let member = Member::new(info("2"), false).with_events(ALL);
    assert_eq!(a.engine.add_presence(&user, vec![member]).await, Err(EngineError::Full));
    let _: String = server.ask("CONFIG SET maxmemory 0");
    a.engine.remove_presence(&user, client("1"), &Left::Gone).await.unwrap();
    // The node may die before it has another try.
    let (due, pending): (usize, usize) =
        (server.ask("ZCARD fanwire:default:evd:{!}"), server.ask("EXISTS fanwire:default:pv:{!user:u}"));
    assert_eq!((due, pending), (1, 1));
}

#[tokio::test]
async fn topics_without_events_run_the_same_commands() {
    let mut counts = Vec::new();
    for outbox in [None, Some(OutboxOptions::default())] {
        let server = RedisServer::start(&[]);
        let settings = RedisSettings { lease: Duration::from_secs(60), outbox, ..server.settings() };
        let node = Node::up("a", settings).await;
        let _: String = server.ask("CONFIG RESETSTAT");
        let topics: Vec<_> = (0..10).map(|number| topic(&number.to_string())).collect();
        let users = join_many(&node, &topics, 5).await;
        node.engine.add_presence(&topics[0], announced("a")).await.unwrap();
        node.engine.add_presence(&topics[0], quiet("b")).await.unwrap();
        assert!(node.engine.admit(&topic("!user:u"), info("u"), 2).await.unwrap());
        assert!(!node.engine.admit(&topic("!user:u"), info("v"), 1).await.unwrap());
        for (number, user) in users.iter().enumerate() {
            node.engine.remove_presence(&topics[number / 5], client(user), &Left::Gone).await.unwrap();
        }
        for user in ["a", "b"] {
            node.engine.remove_presence(&topics[0], client(user), &Left::Gone).await.unwrap();
        }
        let stats: String = server.ask("INFO commandstats");
        // Probes and heartbeats go by the clock.
        let calls = stats.lines().filter(|line| {
            ["ping", "publish", "info", "zcount", "zrangebyscore", "script", "subscribe", "config", "role"]
                .iter()
                .all(|kind| !line.starts_with(&format!("cmdstat_{kind}")))
        });
        let calls = calls.filter_map(|line| Some(line.split(',').next()?.to_owned()));
        let calls: Vec<_> = calls.filter(|line| line.starts_with("cmdstat_")).collect();
        assert!(calls.iter().any(|line| line.starts_with("cmdstat_hset")), "{stats}");
        assert!(keys(&server).iter().all(|key| !key.contains(":ev")), "{:?}", keys(&server));
        counts.push(calls);
    }
    counts.iter_mut().for_each(|calls| calls.sort());
    assert_eq!(counts[0], counts[1]);
}

fn with_events(server: &RedisServer) -> RedisSettings {
    let outbox = OutboxOptions { offline_delay: Duration::ZERO, ..OutboxOptions::default() };
    RedisSettings { outbox: Some(outbox), ..settings(server) }
}

/// With a lease that a busy machine does not miss.
fn undisturbed(server: &RedisServer) -> RedisSettings {
    RedisSettings { lease: Duration::from_secs(20), ..with_events(server) }
}

async fn join(node: &Node, topic: &TopicName, user: &str) {
    let member = Member::new(info(user), false).with_events(ALL);
    node.engine.add_presence(topic, vec![member]).await.unwrap();
}

async fn stored(node: &Node) -> Vec<StoredEvent> {
    let outbox = node.engine.outbox().unwrap();
    outbox.read(&outbox.slots().await.unwrap(), 10_000).await.unwrap()
}

async fn wait_for(node: &Node, within: Duration, holds: impl Fn(&[StoredEvent]) -> bool) {
    let deadline = std::time::Instant::now() + within;
    loop {
        let events = stored(node).await;
        if holds(&events) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{:?}", told(&events, |_| true));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn of_kind(events: &[StoredEvent], kind: &str) -> usize {
    events.iter().filter(|event| event.kind.as_str() == kind).count()
}

fn told(events: &[StoredEvent], is_meant: impl Fn(&StoredEvent) -> bool) -> Vec<String> {
    let tell = |event: &StoredEvent| {
        let user = event.user.as_ref().map(|user| format!(" {user}")).unwrap_or_default();
        let reason = event.reason.as_ref().map(|(code, text)| format!(" {code} {text}")).unwrap_or_default();
        format!("{}{user}{reason}", event.kind.as_str())
    };
    events.iter().filter(|event| is_meant(event)).map(tell).collect()
}
