//! The connections for commands. A task keeps each of them open as long as the engine lives.
//!
//! Most carry commands about topics: the topic's hash selects the connection, so that the calls of one publisher for a
//! topic stay in order. One carries the node's heartbeats, which must not wait. A command runs on the connection whose
//! lineage it carries. Commands of a missing connection fail at once. No command is repeated after its connection was
//! lost, since it may have run.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use fanwire_protocol::TopicName;
use redis::aio::MultiplexedConnection;
use redis::{Arg, Cmd, Pipeline, RedisError, ServerError, Value};
use rustc_hash::FxBuildHasher;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::connection::{Backoff, Connector, LinkError, OpenedLink, identify, lost_error, refused};
use super::health::Health;
use crate::contract::EngineError;
use crate::redis::frame::Lineage;
use crate::redis::log_limit::LogRateLimit;
use crate::redis::scripts::{Script, Scripts};
use crate::redis::settings::RedisSettings;
use crate::redis::stats::{CallKind, RedisCounters};

/// Some command connections, for calls of one kind. Cloning shares them.
#[derive(Clone, Debug)]
pub(in crate::redis) struct Links {
    links: Arc<[watch::Receiver<Option<CommandLink>>]>,
    kind: CallKind,
}

/// A command connection in use. Cloning shares it.
#[derive(Clone)]
pub(in crate::redis) struct CommandLink {
    /// The kind of its calls, for counting.
    kind: CallKind,
    connection: MultiplexedConnection,
    lineage: Lineage,
    scripts: Arc<Scripts>,
    /// Ends the connection because the server is no longer the same primary.
    suspect: Arc<Notify>,
    refusals: Arc<LogRateLimit>,
    counters: Arc<RedisCounters>,
}

/// Keeps one command connection open.
pub(in crate::redis) struct Keeper {
    index: usize,
    connector: Arc<Connector>,
    health: Arc<Health>,
    scripts: Arc<Scripts>,
    settings: Arc<RedisSettings>,
    ready: watch::Sender<Option<CommandLink>>,
    refusals: Arc<LogRateLimit>,
    counters: Arc<RedisCounters>,
}

impl Links {
    /// Creates the links, and a keeper to run for each. [`Health`] knows them by `indexes`.
    pub(in crate::redis) fn new(
        indexes: Range<usize>,
        connector: &Arc<Connector>,
        health: &Arc<Health>,
        scripts: &Arc<Scripts>,
        settings: &Arc<RedisSettings>,
        counters: &Arc<RedisCounters>,
    ) -> (Self, Vec<Keeper>) {
        let refusals = Arc::new(LogRateLimit::default());
        let (mut links, mut keepers) = (Vec::new(), Vec::new());
        for index in indexes {
            let (ready, link) = watch::channel(None);
            links.push(link);
            keepers.push(Keeper {
                index,
                connector: Arc::clone(connector),
                health: Arc::clone(health),
                scripts: Arc::clone(scripts),
                settings: Arc::clone(settings),
                ready,
                refusals: Arc::clone(&refusals),
                counters: Arc::clone(counters),
            });
        }
        (Self { links: links.into(), kind: CallKind::Other }, keepers)
    }

    /// Returns the same connections for calls of another kind.
    pub(in crate::redis) fn of_kind(&self, kind: CallKind) -> Self {
        Self { kind, ..self.clone() }
    }

    /// Returns the connection of the topic.
    pub(in crate::redis) fn of_topic(&self, topic: &TopicName) -> Result<CommandLink, EngineError> {
        self.link(self.index_of(topic))
    }

    /// Groups topics by their links.
    pub(in crate::redis) fn by_link(&self, topics: Vec<TopicName>) -> HashMap<usize, Vec<TopicName>> {
        let mut by_link: HashMap<usize, Vec<TopicName>> = HashMap::new();
        for topic in topics {
            by_link.entry(self.index_of(&topic)).or_default().push(topic);
        }
        by_link
    }

    pub(in crate::redis) fn index_of(&self, topic: &TopicName) -> usize {
        // This hash stores nothing: crafted names can only load one link more than others.
        let hash = FxBuildHasher.hash_one(topic.as_str());
        (hash >> 32) as usize % self.links.len()
    }

    pub(in crate::redis) fn link(&self, index: usize) -> Result<CommandLink, EngineError> {
        let ready = self.links[index].borrow().clone().ok_or(EngineError::Unavailable)?;
        Ok(CommandLink { kind: self.kind, ..ready })
    }

    /// Returns any open connection.
    pub(in crate::redis) fn any(&self) -> Result<CommandLink, EngineError> {
        (0..self.links.len()).find_map(|index| self.link(index).ok()).ok_or(EngineError::Unavailable)
    }

    /// Watches the first connection, as a sign of all.
    pub(in crate::redis) fn watch_first(&self) -> watch::Receiver<Option<CommandLink>> {
        self.links[0].clone()
    }
}

impl CommandLink {
    pub(in crate::redis) fn lineage(&self) -> Lineage {
        self.lineage
    }

    pub(in crate::redis) async fn command(&mut self, command: &Cmd) -> Result<Value, EngineError> {
        let asked = Instant::now();
        let answer = self.connection.send_packed_command(command).await;
        let answer = answer.map_err(|error| failure(&error)).and_then(|value| self.accept(value, command));
        self.counters.call(self.kind, asked.elapsed(), answer.is_ok());
        answer
    }

    /// Runs a script.
    pub(in crate::redis) async fn script(
        &mut self,
        script: &Script,
        keys: &[&[u8]],
        arguments: &[&[u8]],
    ) -> Result<Value, EngineError> {
        let mut commands = redis::pipe();
        commands.add_command(script.call(keys, arguments));
        self.pipeline(&commands).await?.pop().ok_or_else(|| self.nonsense())
    }

    /// Runs several commands in one round trip; the first refusal is the result.
    pub(in crate::redis) async fn pipeline(
        &mut self,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, EngineError> {
        let answers = self.run(commands).await?;
        self.accept_all(answers, commands)
    }

    /// Runs several commands in one round trip. Returns the answer to each, for [`CommandLink::accept`].
    ///
    /// Commands whose script the server has forgotten have not run. This loads the scripts and sends only these
    /// commands a second time.
    pub(in crate::redis) async fn run(&mut self, commands: &Pipeline) -> Result<Vec<Value>, EngineError> {
        let asked = Instant::now();
        let answers = self.send_and_load(commands).await;
        let is_ok = answers.as_ref().is_ok_and(|answers| !answers.iter().any(is_refusal));
        self.counters.call(self.kind, asked.elapsed(), is_ok);
        answers
    }

    async fn send_and_load(&mut self, commands: &Pipeline) -> Result<Vec<Value>, EngineError> {
        let mut answers = self.send(commands).await?;
        if !answers.iter().any(is_unknown_script) {
            return Ok(answers);
        }
        load(&mut self.connection, &self.scripts).await.map_err(|_| EngineError::Unavailable)?;
        let mut again = redis::pipe();
        for (command, _) in commands.cmd_iter().zip(&answers).filter(|(_, answer)| is_unknown_script(answer))
        {
            again.add_command(command.clone());
        }
        let second = self.send(&again).await?;
        for (answer, second) in answers.iter_mut().filter(|answer| is_unknown_script(answer)).zip(second) {
            *answer = second;
        }
        Ok(answers)
    }

    async fn send(&mut self, commands: &Pipeline) -> Result<Vec<Value>, EngineError> {
        let answers = self.connection.send_packed_commands(commands, 0, commands.len()).await;
        answers.map_err(|error| failure(&error))
    }

    /// Returns the value unless the command was refused.
    pub(in crate::redis) fn accept(&self, answer: Value, command: &Cmd) -> Result<Value, EngineError> {
        match answer {
            Value::ServerError(error) => Err(self.refusal(&error, command)),
            value => Ok(value),
        }
    }

    /// Returns the answers to all commands, or the first refusal.
    pub(in crate::redis) fn accept_all(
        &self,
        answers: Vec<Value>,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, EngineError> {
        let answers = answers.into_iter().zip(commands.cmd_iter());
        answers.map(|(answer, command)| self.accept(answer, command)).collect()
    }

    /// Logs an invalid answer, which may come from a server that is not Redis, and returns its error.
    pub(in crate::redis) fn nonsense(&self) -> EngineError {
        if self.refusals.is_due() {
            tracing::warn!("invalid answer from Redis");
        }
        EngineError::Refused
    }

    fn refusal(&self, error: &ServerError, command: &Cmd) -> EngineError {
        let details = error.details().unwrap_or_default();
        // Before Redis 7 only the text of an error inside a script tells its kind.
        let code = match error.code() {
            "ERR" if details.contains("WRONGTYPE") => "WRONGTYPE",
            "ERR" if details.contains("OOM command") => "OOM",
            code => code,
        };
        let refusal = match code {
            "WRONGTYPE" | "FOREIGN" => EngineError::Foreign,
            "OOM" => EngineError::Full,
            "READONLY" => {
                self.suspect.notify_one();
                EngineError::Unavailable
            }
            "LOADING" | "MASTERDOWN" | "NOREPLICAS" | "MISCONF" | "BUSY" => EngineError::Unavailable,
            _ => EngineError::Refused,
        };
        let (name, keys) = (name_of(command), keys_of(command));
        if is_not_permitted(error) {
            let keys = keys.join(", ");
            self.counters.not_permitted(format!(
                "Redis does not permit {name} of {keys} to engine.redis.username: {details}"
            ));
        }
        if self.refusals.is_due() {
            tracing::warn!(command = name, code, details, ?keys, "Redis refused a command");
        }
        refusal
    }
}

impl std::fmt::Debug for CommandLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandLink").field("lineage", &self.lineage).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Connects, and reconnects after each loss, forever.
    pub(in crate::redis) async fn run(self) {
        let mut backoff = Backoff::new(&self.settings);
        loop {
            let error = match self.connect().await {
                Ok(opened) => {
                    let since = Instant::now();
                    let error = self.hold(opened).await;
                    backoff.held(since.elapsed());
                    error
                }
                Err(error) => error,
            };
            self.ready.send_replace(None);
            self.health.down(self.index, error);
            backoff.pause().await;
        }
    }

    async fn connect(&self) -> Result<OpenedLink, LinkError> {
        let mut opened = self.connector.open(|_| ()).await?;
        load(&mut opened.connection, &self.scripts).await?;
        Ok(opened)
    }

    /// Makes the connection available until it is lost.
    async fn hold(&self, opened: OpenedLink) -> LinkError {
        let OpenedLink { mut connection, lineage, lost } = opened;
        let suspect = Arc::new(Notify::new());
        self.ready.send_replace(Some(CommandLink {
            kind: CallKind::Other,
            connection: connection.clone(),
            lineage,
            scripts: Arc::clone(&self.scripts),
            suspect: Arc::clone(&suspect),
            refusals: Arc::clone(&self.refusals),
            counters: Arc::clone(&self.counters),
        }));
        self.health.up(self.index);
        let mut probe =
            interval_at(Instant::now() + self.settings.probe_interval, self.settings.probe_interval);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = lost.notified() => return LinkError::Closed,
                () = suspect.notified() => return LinkError::NotPrimary,
                _ = probe.tick() => match identify(&mut connection).await {
                    Ok(same) if same == lineage => {}
                    Ok(_) => return LinkError::NotPrimary,
                    Err(error) => return error,
                }
            }
        }
    }
}

impl Drop for Keeper {
    /// Makes the connection unavailable.
    fn drop(&mut self) {
        self.ready.send_replace(None);
    }
}

/// Returns true if a script did not run because the server does not know it.
fn is_unknown_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// Returns true if the server refused for lack of rights.
pub(in crate::redis) fn is_not_permitted(error: &ServerError) -> bool {
    let details = error.details().unwrap_or_default();
    // Inside a script it is an ordinary error.
    error.code() == "NOPERM" || details.contains("ACL failure") || details.contains("can't run this command")
}

fn is_refusal(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(_))
}

/// Returns the name of the command.
fn name_of(command: &Cmd) -> String {
    match command.args_iter().next() {
        Some(Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => String::new(),
    }
}

/// Returns the keys or the channel of the command, and no other argument.
fn keys_of(command: &Cmd) -> Vec<String> {
    let mut words = command.args_iter().filter_map(|word| match word {
        Arg::Simple(word) => Some(String::from_utf8_lossy(word).into_owned()),
        _ => None,
    });
    match words.next().as_deref() {
        Some("EVAL" | "EVALSHA") => {
            let count = words.nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
            words.take(count).collect()
        }
        _ => words.take(1).collect(),
    }
}

/// The error of a missing or unreadable answer. An unreadable answer also ends the connection.
fn failure(error: &RedisError) -> EngineError {
    tracing::debug!(%error, "no answer to a command");
    EngineError::Unavailable
}

/// Loads all scripts. The client library can load scripts too, but panics if the server returns another hash.
async fn load(connection: &mut MultiplexedConnection, scripts: &Scripts) -> Result<(), LinkError> {
    let mut commands = redis::pipe();
    for script in scripts.all() {
        commands.cmd("SCRIPT").arg("LOAD").arg(&script.code);
    }
    let answers = connection.send_packed_commands(&commands, 0, commands.len()).await;
    for (answer, script) in answers.map_err(|error| lost_error(&error))?.iter().zip(scripts.all()) {
        match answer {
            Value::BulkString(hash) if hash == script.hash.as_bytes() => {}
            Value::ServerError(error) => return Err(refused("SCRIPT LOAD", error.code())),
            _ => return Err(LinkError::Refused("SCRIPT LOAD returned another hash".to_owned())),
        }
    }
    Ok(())
}
