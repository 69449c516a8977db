//! Random calls to the memory engine, compared step by step with a simple reference.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_broker::{
    Engine, EngineError, Event, HistoryOptions, HistoryQuery, MemorySettings, NewPublication, Published,
    Since, Usage,
};
use fanwire_protocol::{Epoch, Position, Publication, TopicName};
use proptest::collection::vec;
use proptest::prelude::*;

const TOPICS: usize = 3;
const META_TTL: u64 = 12;
const IDEMPOTENCY_TTL: u64 = 6;

/// All times are half seconds, so that some fall between the engine's whole seconds.
#[derive(Clone, Debug)]
enum Step {
    Subscribe { topic: usize },
    Unsubscribe { topic: usize },
    PublishLive { topic: usize, key: Option<u8> },
    Publish { topic: usize, size: usize, ttl: u64, key: Option<u8>, version: u64, version_epoch: u8 },
    Recover { topic: usize, offset: u64, epoch: Named, limit: usize },
    History { topic: usize, since: Option<(u64, Named)>, limit: usize, reverse: bool },
    RemoveHistory { topic: usize },
    Pass { time: u64 },
    Sweep,
}

/// The epoch that a reader sends.
#[derive(Clone, Copy, Debug)]
enum Named {
    Empty,
    Current,
    Former,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let topic = || 0..TOPICS;
    let key = || prop_oneof![3 => Just(None), 1 => (0..3_u8).prop_map(Some)];
    // Mostly without a version, or most publications would be suppressed.
    let version = || prop_oneof![3 => Just(0), 1 => 1..5_u64];
    let named = || prop_oneof![1 => Just(Named::Empty), 3 => Just(Named::Current), 1 => Just(Named::Former)];
    let step = prop_oneof![
        1 => topic().prop_map(|topic| Step::Subscribe { topic }),
        1 => topic().prop_map(|topic| Step::Unsubscribe { topic }),
        1 => (topic(), key()).prop_map(|(topic, key)| Step::PublishLive { topic, key }),
        8 => (topic(), 1..5_usize, 1..8_u64, key(), version(), 0..2_u8).prop_map(
            |(topic, size, ttl, key, version, version_epoch)| {
                Step::Publish { topic, size, ttl, key, version, version_epoch }
            }
        ),
        4 => (topic(), 0..12_u64, named(), 0..6_usize)
            .prop_map(|(topic, offset, epoch, limit)| Step::Recover { topic, offset, epoch, limit }),
        4 => (topic(), proptest::option::of((0..12_u64, named())), 0..6_usize, any::<bool>())
            .prop_map(|(topic, since, limit, reverse)| Step::History { topic, since, limit, reverse }),
        1 => topic().prop_map(|topic| Step::RemoveHistory { topic }),
        3 => (0..8_u64).prop_map(|time| Step::Pass { time }),
        1 => Just(Step::Pass { time: 2 * META_TTL }),
        2 => Just(Step::Sweep),
    ];
    vec(step, 1..120)
}

/// One topic of the reference: a list with expiry times.
#[derive(Default)]
struct Topic {
    subscribed: bool,
    /// Known from the engine's first answer.
    epoch: Option<Epoch>,
    former: Option<Epoch>,
    top: u64,
    kept: Vec<(u64, Bytes)>,
    history_expires: u64,
    expires: u64,
    version: (u64, u8),
    keys: Vec<(u8, u64, Option<Position>)>,
}

impl Topic {
    /// Removes expired data, and keeps the rest alive.
    fn ask(&mut self, now: u64) {
        if self.expires <= now {
            self.former = self.epoch.take().or(self.former);
            self.top = 0;
            self.kept.clear();
            self.version = (0, 0);
        }
        if self.history_expires <= now {
            self.kept.clear();
        }
        self.expires = now + META_TTL;
    }

    /// Compares a position with the reference; a new epoch must not have been used before.
    fn check_position(&mut self, position: Position, epochs: &mut HashSet<Epoch>) {
        match self.epoch {
            Some(epoch) => assert_eq!(position.epoch, epoch),
            None => assert!(epochs.insert(position.epoch)),
        }
        self.epoch = Some(position.epoch);
        assert_eq!(position.offset, self.top);
    }

    fn name(&self, named: Named) -> String {
        match named {
            Named::Empty => String::new(),
            Named::Current => self.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
            Named::Former => self.former.map_or("_".to_owned(), |epoch| epoch.to_string()),
        }
    }

    fn matches(&self, epoch: &str) -> bool {
        epoch.is_empty() || self.epoch.is_some_and(|current| current.as_str() == epoch)
    }

    fn first_result(&mut self, now: u64, key: Option<u8>) -> Option<Option<Position>> {
        self.keys.retain(|(_, expires, _)| *expires > now);
        self.keys.iter().find(|(known, ..)| Some(*known) == key).map(|(.., position)| *position)
    }

    fn remember(&mut self, now: u64, key: Option<u8>, position: Option<Position>) {
        self.keys.extend(key.map(|key| (key, now + IDEMPOTENCY_TTL, position)));
    }
}

/// The engine and the reference, side by side.
struct Run {
    engine: Engine,
    delivered: Rc<RefCell<Vec<(usize, u64, Bytes)>>>,
    expected: Vec<(usize, u64, Bytes)>,
    topics: [Topic; TOPICS],
    epochs: HashSet<Epoch>,
    now: u64,
    published: u64,
}

impl Run {
    fn new() -> Self {
        let delivered = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&delivered);
        let settings =
            MemorySettings { idempotency_ttl: half_seconds(IDEMPOTENCY_TTL), ..MemorySettings::default() };
        let deliver = move |event| {
            let Event::Publication { topic, publication, epoch } = event else { return };
            assert_eq!(epoch.is_some(), publication.offset > 0);
            let topic = topic.as_str().parse().unwrap();
            sink.borrow_mut().push((topic, publication.offset, publication.data.clone()));
        };
        Self {
            engine: Engine::memory(settings, Box::new(deliver)),
            delivered,
            expected: Vec::new(),
            topics: Default::default(),
            epochs: HashSet::new(),
            now: 0,
            published: 0,
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Subscribe { topic } => {
                self.engine.subscribe(&name(topic)).await.unwrap();
                self.topics[topic].subscribed = true;
            }
            Step::Unsubscribe { topic } => {
                self.engine.unsubscribe(&name(topic)).await.unwrap();
                self.topics[topic].subscribed = false;
            }
            Step::PublishLive { topic, key } => {
                let publish = self.publication(key);
                self.publish(topic, key, publish, None).await;
            }
            Step::Publish { topic, size, ttl, key, version, version_epoch } => {
                let history =
                    HistoryOptions { size, ttl: half_seconds(ttl), meta_ttl: half_seconds(META_TTL) };
                let publish = NewPublication {
                    history: Some(history),
                    version,
                    version_epoch: version_epoch.to_string().into(),
                    ..self.publication(key)
                };
                self.publish(topic, key, publish, Some((size, ttl, version, version_epoch))).await;
            }
            Step::Recover { topic, offset, epoch, limit } => self.recover(topic, offset, epoch, limit).await,
            Step::History { topic, since, limit, reverse } => {
                self.history(topic, since, limit, reverse).await;
            }
            Step::RemoveHistory { topic } => {
                self.engine.remove_history(&name(topic)).await.unwrap();
                self.topics[topic].kept.clear();
            }
            Step::Pass { time } => {
                tokio::time::advance(half_seconds(time)).await;
                self.now += time;
            }
            Step::Sweep => self.engine.sweep(),
        }
        assert_eq!(self.delivered.take(), std::mem::take(&mut self.expected));
    }

    fn publication(&mut self, key: Option<u8>) -> NewPublication {
        self.published += 1;
        let idempotency_key = key.map(|key| key.to_string().into());
        NewPublication {
            data: self.published.to_string().into(),
            idempotency_key,
            ..NewPublication::default()
        }
    }

    /// `kept` holds size, ttl, version and version epoch.
    async fn publish(
        &mut self,
        index: usize,
        key: Option<u8>,
        publish: NewPublication,
        kept: Option<(usize, u64, u64, u8)>,
    ) {
        let data = publish.data.clone();
        let published = self.engine.publish(&name(index), publish).await.unwrap();
        let (topic, now) = (&mut self.topics[index], self.now);
        if let Some(position) = topic.first_result(now, key) {
            assert_eq!(published, Published { position, suppressed: true });
            return;
        }
        if let Some((size, ttl, version, version_epoch)) = kept {
            topic.ask(now);
            if version > 0 && version_epoch == topic.version.1 && version <= topic.version.0 {
                assert!(published.suppressed);
                topic.check_position(published.position.unwrap(), &mut self.epochs);
                return;
            }
            if version > 0 {
                topic.version = (version, version_epoch);
            }
            topic.top += 1;
            topic.kept.push((topic.top, data.clone()));
            topic.kept.drain(..topic.kept.len().saturating_sub(size));
            topic.history_expires = now + ttl;
            topic.check_position(published.position.unwrap(), &mut self.epochs);
        } else {
            assert_eq!(published.position, None);
        }
        assert!(!published.suppressed);
        topic.remember(now, key, published.position);
        if topic.subscribed {
            self.expected.push((index, published.position.map_or(0, |position| position.offset), data));
        }
    }

    async fn recover(&mut self, index: usize, offset: u64, named: Named, limit: usize) {
        let topic = &mut self.topics[index];
        topic.ask(self.now);
        let epoch = topic.name(named);
        let since = Since { offset, epoch: &epoch };
        let meta_ttl = half_seconds(META_TTL);
        let recovery = self.engine.recover(&name(index), Some(since), limit, meta_ttl).await.unwrap();
        topic.check_position(recovery.top, &mut self.epochs);

        let missed: Vec<_> = topic.kept.iter().filter(|(kept, _)| *kept > offset).cloned().collect();
        let whole = missed.iter().map(|(kept, _)| *kept).eq(offset + 1..=topic.top);
        let complete = topic.matches(&epoch) && offset <= topic.top && whole && missed.len() <= limit;
        assert_eq!(recovery.complete, complete);
        assert_eq!(listed(&recovery.publications), if complete { missed } else { Vec::new() });
    }

    async fn history(&mut self, index: usize, since: Option<(u64, Named)>, limit: usize, reverse: bool) {
        let topic = &mut self.topics[index];
        topic.ask(self.now);
        let since = since.map(|(offset, named)| (offset, topic.name(named)));
        let query = HistoryQuery {
            limit: limit.into(),
            since: since.as_ref().map(|(offset, epoch)| Since { offset: *offset, epoch }),
            reverse,
        };
        let answer = self.engine.history(&name(index), query, half_seconds(META_TTL)).await;
        if since.as_ref().is_some_and(|(_, epoch)| !topic.matches(epoch)) {
            assert_eq!(answer, Err(EngineError::UnrecoverablePosition));
            return;
        }
        let answer = answer.unwrap();
        topic.check_position(answer.top, &mut self.epochs);
        let mut page = topic.kept.clone();
        if reverse {
            page.reverse();
        }
        if let Some((offset, _)) = since {
            page.retain(|(kept, _)| if reverse { *kept < offset } else { *kept > offset });
        }
        page.truncate(limit);
        assert_eq!(listed(&answer.publications), page);
    }

    /// Nothing is left after everything has expired.
    async fn end(&mut self) {
        for topic in 0..TOPICS {
            self.step(Step::Unsubscribe { topic }).await;
        }
        self.step(Step::Pass { time: 2 * META_TTL }).await;
        self.step(Step::Sweep).await;
        let usage = self.engine.usage();
        assert_eq!(usage, Usage::default());
    }
}

fn half_seconds(count: u64) -> Duration {
    Duration::from_millis(500 * count)
}

fn name(topic: usize) -> TopicName {
    TopicName::new(&topic.to_string()).unwrap()
}

fn listed(publications: &[Arc<Publication>]) -> Vec<(u64, Bytes)> {
    publications.iter().map(|publication| (publication.offset, publication.data.clone())).collect()
}

proptest! {
    #[test]
    fn the_engine_does_what_the_reference_does(steps in steps()) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new();
            for step in steps {
                run.step(step).await;
            }
            run.end().await;
        });
    }
}
