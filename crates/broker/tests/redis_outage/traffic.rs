//! Traffic through two nodes that continues while Redis is lost, and a checker of the received events.
//!
//! Each topic has one publisher, which publishes the numbers from 1 and notes those that were acknowledged. Each node
//! follows each topic as an owner would, and recovers after a gap.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanwire_broker::{Engine, Event, HistoryOptions, NewPublication, Peer, Redis, RedisSettings, Since};
use fanwire_protocol::{Position, Publication, TopicName};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinHandle, spawn_local};
use uuid::Uuid;

use crate::redis_server::{RedisServer, wait_until_up};

const META_TTL: Duration = Duration::from_secs(600);
const HISTORY: HistoryOptions =
    HistoryOptions { size: 1_000_000, ttl: Duration::from_secs(600), meta_ttl: META_TTL };
pub(crate) const KEPT: usize = 8;
const LIVE: usize = 4;

pub(crate) struct Traffic {
    pub(crate) nodes: [Node; 2],
    topics: Vec<TopicName>,
    has_ended: Rc<Cell<bool>>,
    /// They return the acknowledged numbers, and the first unused number.
    publishers: Vec<JoinHandle<(Vec<u32>, u32)>>,
}

pub(crate) struct Node {
    pub(crate) redis: Redis,
    engine: Engine,
    followed: Rc<RefCell<HashMap<TopicName, Followed>>>,
}

/// The events of a topic that a node has received.
#[derive(Default)]
struct Followed {
    /// Of topics with history.
    position: Option<Position>,
    numbers: Vec<u32>,
    /// The number of unrecoverable gaps.
    lost: usize,
}

impl Traffic {
    /// Must be called in a `LocalSet`.
    pub(crate) async fn start(settings: &RedisSettings) -> Self {
        let topics: Vec<_> =
            (0..KEPT + LIVE).map(|number| TopicName::new(&format!("t{number}")).unwrap()).collect();
        let nodes = [Node::start(settings, &topics).await, Node::start(settings, &topics).await];
        let has_ended = Rc::new(Cell::new(false));
        let publisher = |(index, topic): (usize, &TopicName)| {
            let engine = Engine::Redis(nodes[index % 2].redis.clone());
            spawn_local(publish(engine, topic.clone(), history(index), Rc::clone(&has_ended)))
        };
        let publishers = topics.iter().enumerate().map(publisher).collect();
        let traffic = Self { nodes, topics, has_ended, publishers };
        traffic.flow().await;
        traffic
    }

    /// Waits until every node has received something new of every topic.
    async fn flow(&self) {
        let received = || -> Vec<usize> {
            let of_topic = |node: &Node, topic| node.followed.borrow()[topic].numbers.len();
            self.nodes.iter().flat_map(|node| self.topics.iter().map(|topic| of_topic(node, topic))).collect()
        };
        let before = received();
        let flows = || received().iter().zip(&before).all(|(now, before)| now > before);
        eventually(flows, || format!("{:?} after {before:?}", received())).await;
    }

    /// Ends the traffic after an outage, checks the received events, and returns the number of unrecoverable gaps of
    /// all topics and nodes.
    pub(crate) async fn check(self, server: &RedisServer) -> usize {
        for node in &self.nodes {
            wait_until_up(&node.redis).await;
        }
        // No topic may stay deaf.
        self.flow().await;
        self.has_ended.set(true);
        let mut ended = Vec::new();
        for publisher in self.publishers {
            ended.push(publisher.await.unwrap());
        }
        // Publications during a loss have to be recovered without a later publication.
        assert_eq!(server.ask::<usize>("CLIENT KILL TYPE pubsub"), self.nodes.len());
        let mut last_numbers = HashMap::new();
        let mut acknowledged = HashMap::new();
        for ((index, topic), (numbers, last)) in self.topics.iter().enumerate().zip(ended) {
            let published = self.nodes[0].engine.publish(topic, number(last, history(index))).await;
            assert!(published.is_ok(), "{published:?}");
            last_numbers.insert(topic.clone(), last);
            acknowledged.insert(topic.clone(), numbers);
        }
        let mut lost = 0;
        for node in &self.nodes {
            let have_all = || {
                let followed = node.followed.borrow();
                followed.iter().all(|(topic, followed)| {
                    followed.position.is_none() || followed.numbers.last() == last_numbers.get(topic)
                })
            };
            eventually(have_all, || "the last publication of some topic has not arrived".to_owned()).await;
            for (topic, Followed { position, numbers, lost: topic_lost }) in &*node.followed.borrow() {
                assert!(
                    numbers.is_sorted_by(|a, b| a < b),
                    "{topic}: a duplicate or another order: {numbers:?}"
                );
                lost += topic_lost;
                if position.is_some() && *topic_lost == 0 {
                    let missing: Vec<_> = acknowledged[topic]
                        .iter()
                        .filter(|number| numbers.binary_search(number).is_err())
                        .collect();
                    assert!(missing.is_empty(), "{topic}: {missing:?} are missing, and nobody was told");
                }
            }
        }
        lost
    }
}

impl Node {
    async fn start(settings: &RedisSettings, topics: &[TopicName]) -> Self {
        let (sender, events) = unbounded_channel();
        let peer = Peer { id: Uuid::new_v4(), name: "test".into() };
        let deliver = Arc::new(move |event| {
            // The follower has ended with the test.
            let _ = sender.send(event);
        });
        let redis = Redis::start(settings.clone(), peer, deliver).unwrap();
        wait_until_up(&redis).await;
        let engine = Engine::Redis(redis.clone());
        let followed = Rc::<RefCell<HashMap<TopicName, Followed>>>::default();
        for (index, topic) in topics.iter().enumerate() {
            engine.subscribe(topic).await.unwrap();
            let top = engine.recover(topic, None, 0, META_TTL).await.unwrap().top;
            let position = history(index).map(|_| top);
            followed.borrow_mut().insert(topic.clone(), Followed { position, ..Followed::default() });
        }
        spawn_local(follow(Engine::Redis(redis.clone()), events, Rc::clone(&followed)));
        Self { redis, engine, followed }
    }
}

impl Followed {
    fn take(&mut self, publication: &Publication) {
        self.numbers.push(std::str::from_utf8(&publication.data).unwrap().parse().unwrap());
        if let Some(position) = &mut self.position {
            position.offset = publication.offset;
        }
    }
}

async fn follow(
    engine: Engine,
    mut events: UnboundedReceiver<Event>,
    topics: Rc<RefCell<HashMap<TopicName, Followed>>>,
) {
    while let Some(event) = events.recv().await {
        let topic = event.topic().clone();
        let position = topics.borrow()[&topic].position;
        match (event, position) {
            (Event::Publication { publication, epoch, .. }, Some(position)) => {
                let is_known = epoch == Some(position.epoch) && publication.offset <= position.offset;
                if epoch == Some(position.epoch) && publication.offset == position.offset + 1 {
                    topics.borrow_mut().get_mut(&topic).unwrap().take(&publication);
                } else if !is_known {
                    catch_up(&engine, &topic, position, &topics).await;
                }
            }
            (Event::Publication { publication, .. }, None) => {
                topics.borrow_mut().get_mut(&topic).unwrap().take(&publication);
            }
            (Event::Gap { .. }, Some(position)) => {
                catch_up(&engine, &topic, position, &topics).await;
            }
            _ => {}
        }
    }
}

async fn catch_up(
    engine: &Engine,
    topic: &TopicName,
    position: Position,
    topics: &RefCell<HashMap<TopicName, Followed>>,
) {
    let since = Since { offset: position.offset, epoch: position.epoch.as_str() };
    loop {
        let Ok(recovery) = engine.recover(topic, Some(since), 1_000_000, META_TTL).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut topics = topics.borrow_mut();
        let followed = topics.get_mut(topic).unwrap();
        for publication in &recovery.publications {
            followed.take(publication);
        }
        if !recovery.complete {
            followed.lost += 1;
        }
        followed.position = Some(recovery.top);
        return;
    }
}

/// Publishes groups of one to three.
async fn publish(
    engine: Engine,
    topic: TopicName,
    history: Option<HistoryOptions>,
    has_ended: Rc<Cell<bool>>,
) -> (Vec<u32>, u32) {
    let (mut acknowledged, mut next) = (Vec::new(), 1);
    while !has_ended.get() {
        let numbers = next..next + 1 + next % 3;
        next = numbers.end;
        let group = numbers.clone().map(|value| number(value, history)).collect();
        let results = engine.publish_group(&topic, group).await;
        acknowledged
            .extend(numbers.zip(results).filter(|(_, result)| result.is_ok()).map(|(number, _)| number));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    (acknowledged, next)
}

fn number(number: u32, history: Option<HistoryOptions>) -> NewPublication {
    NewPublication { data: number.to_string().into(), history, ..NewPublication::default() }
}

fn history(index: usize) -> Option<HistoryOptions> {
    (index < KEPT).then_some(HISTORY)
}

pub(crate) async fn eventually(holds: impl Fn() -> bool, complaint: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{}", complaint());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
