//! Publishing. One publication is a group of one, and a group is one round trip to Redis unless it is very large.
//!
//! A group has the effect of its publications one by one, in order. Consecutive publications with equal history options
//! are stored by one call of a script, which costs Redis a third of single calls. Each script's first call in a round
//! trip of several commands contains its code, since a call that fails and is repeated would run after later ones.

use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::{Position, TopicName};
use redis::{Arg, Cmd, Value};

use super::arguments::{fresh_epoch, limit_argument, milliseconds};
use super::clock::Clock;
use super::frame;
use super::keys::Keys;
use super::reply;
use super::scripts::{Script, Scripts};
use super::server::link::{CommandLink, Links};
use super::settings::RedisSettings;
use crate::contract::{EngineError, HistoryOptions, NewPublication, Published};

pub(super) struct Publisher {
    keys: Arc<Keys>,
    settings: Arc<RedisSettings>,
    scripts: Arc<Scripts>,
    links: Links,
    clock: Arc<Clock>,
}

/// The values that all publications of a group share.
struct PublishGroup<'a> {
    publisher: &'a Publisher,
    topic: &'a TopicName,
    /// Now, in milliseconds since 1970.
    time: i64,
    meta: String,
    stream: String,
    channel: String,
}

/// One command that publishes the next publications of a group.
struct PublishStep<'a> {
    command: Cmd,
    /// The script that the command calls by its hash.
    script: Option<&'a Script>,
    publications: usize,
    /// The bytes of the bodies.
    bytes: usize,
    answer: StepReply,
}

/// The kind of answer of a step's command.
#[derive(Clone, Copy)]
enum StepReply {
    /// The position of the first publication; the others follow.
    Position,
    Suppressible,
    /// The number of receiving connections.
    Receivers,
}

impl Publisher {
    /// The most publications in one call of a script, which blocks Redis for about a millisecond.
    const RUN_MAX: usize = 256;
    /// The bytes at which a call of a script gets no further publication.
    const RUN_BYTES_MAX: usize = 1 << 20;
    /// The most commands in one round trip.
    const ROUND_MAX: usize = 256;
    /// The bytes at which a round trip gets no further command.
    const ROUND_BYTES_MAX: usize = 4 << 20;

    pub(super) fn new(
        keys: Arc<Keys>,
        settings: Arc<RedisSettings>,
        scripts: Arc<Scripts>,
        links: Links,
        clock: Arc<Clock>,
    ) -> Self {
        Self { keys, settings, scripts, links, clock }
    }

    /// Publishes a frame without history.
    pub(super) async fn send(&self, topic: &TopicName, frame: Vec<u8>) -> Result<(), EngineError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.keys.channel(topic)).arg(frame);
        self.links.of_topic(topic)?.command(&command).await?;
        Ok(())
    }

    pub(super) async fn publish(
        &self,
        topic: &TopicName,
        publish: NewPublication,
    ) -> Result<Published, EngineError> {
        let mut results = self.publish_group(topic, &[publish]).await;
        results.pop().expect("there are as many results as publications")
    }

    /// Returns one result for each publication. After a loss of the link all further ones fail.
    pub(super) async fn publish_group(
        &self,
        topic: &TopicName,
        publications: &[NewPublication],
    ) -> Vec<Result<Published, EngineError>> {
        let (meta, stream) = (self.keys.meta(topic), self.keys.stream(topic));
        let (channel, time) = (self.keys.channel(topic), self.clock.millis());
        let group = PublishGroup { publisher: self, topic, time, meta, stream, channel };
        let mut results = Vec::with_capacity(publications.len());
        while let Some(rest) = publications.get(results.len()..)
            && !rest.is_empty()
        {
            if let Err(error) = group.publish_round(rest, &mut results).await {
                results.resize(publications.len(), Err(error));
            }
        }
        results
    }
}

impl PublishGroup<'_> {
    /// Publishes as many of `rest` as fit in one round trip, at least one, and adds their results.
    async fn publish_round(
        &self,
        rest: &[NewPublication],
        results: &mut Vec<Result<Published, EngineError>>,
    ) -> Result<(), EngineError> {
        let mut link = self.publisher.links.of_topic(self.topic)?;
        let mut steps: Vec<PublishStep<'_>> = Vec::new();
        let (mut taken, mut bytes) = (0, 0);
        while taken < rest.len() && steps.len() < Publisher::ROUND_MAX && bytes < Publisher::ROUND_BYTES_MAX {
            let step = self.step(&link, &rest[taken..]);
            taken += step.publications;
            bytes += step.bytes;
            steps.push(step);
        }
        bring_code(&mut steps);
        let mut commands = redis::pipe();
        let mut expected = Vec::with_capacity(steps.len());
        for PublishStep { command, answer, publications, .. } in steps {
            expected.push((answer, publications));
            commands.add_command(command);
        }
        let answers = link.run(&commands).await?;
        for ((answer, command), (expected, publications)) in
            answers.into_iter().zip(commands.cmd_iter()).zip(expected)
        {
            let answer = link.accept(answer, command);
            let first = answer.and_then(|answer| published(&link, expected, publications, &answer));
            results.extend((0..publications as u64).map(|number| first.map(|first| first.nth(number))));
        }
        Ok(())
    }

    /// Returns the first step of the remaining publications.
    fn step(&self, link: &CommandLink, rest: &[NewPublication]) -> PublishStep<'_> {
        let publish = &rest[0];
        match (publish.history, &publish.idempotency_key) {
            (Some(options), None) if publish.version == 0 => self.keep(link, rest, options),
            (Some(options), key) => self.keep_once(link, publish, options, key.as_deref()),
            (None, Some(key)) => self.send_once(publish, key),
            (None, None) => self.send(publish),
        }
    }

    /// A step of the next publications with equal history options.
    fn keep(&self, link: &CommandLink, rest: &[NewPublication], options: HistoryOptions) -> PublishStep<'_> {
        let is_alike = |publish: &&NewPublication| {
            publish.history == Some(options) && publish.idempotency_key.is_none() && publish.version == 0
        };
        let script = &self.publisher.scripts.publish;
        let mut command = script.call(&[&self.meta, &self.stream], &[]);
        self.put_options(&mut command, link, options);
        let (mut publications, mut bytes) = (0, 0);
        for publish in rest.iter().take_while(is_alike).take(Publisher::RUN_MAX) {
            let body = frame::publication_body(publish, self.time);
            if publications > 0 && bytes + body.len() > Publisher::RUN_BYTES_MAX {
                break;
            }
            publications += 1;
            bytes += body.len();
            command.arg(body);
        }
        PublishStep { command, script: Some(script), publications, bytes, answer: StepReply::Position }
    }

    fn keep_once(
        &self,
        link: &CommandLink,
        publish: &NewPublication,
        options: HistoryOptions,
        key: Option<&str>,
    ) -> PublishStep<'_> {
        let Publisher { keys, scripts, settings, .. } = self.publisher;
        let key = key.map(|key| keys.idempotency(self.topic, key));
        let mut script_keys = vec![self.meta.as_str(), &self.stream];
        script_keys.extend(key.as_deref());
        let script = &scripts.publish_once;
        let mut command = script.call(&script_keys, &[]);
        self.put_options(&mut command, link, options);
        let body = frame::publication_body(publish, self.time);
        let bytes = body.len();
        let version = if publish.version == 0 { String::new() } else { publish.version.to_string() };
        command.arg(body).arg(version).arg(&*publish.version_epoch);
        command.arg(milliseconds(settings.idempotency_ttl));
        PublishStep { command, script: Some(script), publications: 1, bytes, answer: StepReply::Suppressible }
    }

    fn send(&self, publish: &NewPublication) -> PublishStep<'_> {
        let frame = frame::publication_frame(publish, self.time);
        let bytes = frame.len();
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.channel).arg(frame);
        PublishStep { command, script: None, publications: 1, bytes, answer: StepReply::Receivers }
    }

    fn send_once(&self, publish: &NewPublication, key: &str) -> PublishStep<'_> {
        let Publisher { keys, scripts, settings, .. } = self.publisher;
        let frame = frame::publication_frame(publish, self.time);
        let bytes = frame.len();
        let script = &scripts.publish_live_once;
        let mut command = script.call(&[keys.idempotency(self.topic, key)], &[]);
        command.arg(&self.channel).arg(frame).arg(milliseconds(settings.idempotency_ttl));
        PublishStep { command, script: Some(script), publications: 1, bytes, answer: StepReply::Suppressible }
    }

    /// The arguments of `append.lua`, up to the bodies.
    fn put_options(&self, command: &mut Cmd, link: &CommandLink, options: HistoryOptions) {
        let ttl = milliseconds(options.ttl);
        command
            .arg(&self.channel)
            .arg(limit_argument(options.size))
            // Later publications of the bucket need the full TTL too.
            .arg(milliseconds(options.ttl.saturating_add(options.ttl / TTL_BUCKETS)))
            .arg(milliseconds(options.meta_ttl))
            .arg(fresh_epoch().as_str())
            .arg(link.lineage().as_bytes())
            .arg(ttl_bucket(ttl, self.publisher.clock.now()));
    }
}

impl Published {
    /// The result of a later publication of the same step.
    fn nth(self, number: u64) -> Self {
        let following = |position: Position| Position { offset: position.offset + number, ..position };
        Self { position: self.position.map(following), ..self }
    }
}

/// Adds the code to each script's first call if there are several steps. A server that has forgotten its scripts would
/// otherwise refuse that call and run later ones first.
fn bring_code(steps: &mut [PublishStep<'_>]) {
    if steps.len() < 2 {
        return;
    }
    let mut brought: Vec<&str> = Vec::new();
    for step in steps {
        let Some(script) = step.script.filter(|script| !brought.contains(&script.hash.as_str())) else {
            continue;
        };
        brought.push(&script.hash);
        let mut command = redis::cmd("EVAL");
        command.arg(&script.code);
        for argument in step.command.args_iter().skip(2) {
            if let Arg::Simple(argument) = argument {
                command.arg(argument);
            }
        }
        step.command = command;
    }
}

/// Returns the result of a step's first publication.
fn published(
    link: &CommandLink,
    expected: StepReply,
    publications: usize,
    answer: &Value,
) -> Result<Published, EngineError> {
    let has_room = |first: &Position| first.offset.checked_add(publications as u64).is_some();
    let published = match (expected, answer) {
        (StepReply::Position, answer) => {
            reply::position(answer).filter(has_room).map(|position| (false, Some(position)))
        }
        (StepReply::Suppressible, answer) => reply::suppressible(answer),
        (StepReply::Receivers, Value::Int(_)) => Some((false, None)),
        (StepReply::Receivers, _) => None,
    };
    let (suppressed, position) = published.ok_or_else(|| link.nonsense())?;
    Ok(Published { position, suppressed })
}

/// The number of times in a TTL that publishing sets a stream's expiry.
const TTL_BUCKETS: u32 = 8;

/// Returns eight characters that change [`TTL_BUCKETS`] times in a TTL, at the same moments on all nodes.
fn ttl_bucket(ttl: u64, now: Option<Duration>) -> String {
    // Each is different until the time is known.
    let Some(now) = now else { return fresh_epoch().as_str().to_owned() };
    let bucket = now.as_millis() * u128::from(TTL_BUCKETS) / u128::from(ttl.max(1));
    format!("{:08x}", bucket as u32)
}
