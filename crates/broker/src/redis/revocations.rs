//! What is no longer trusted, in one hash: each name with the time until which that holds, in seconds since 1970, or 0
//! for ever. The node asks for all of it when it joins, and is told of changes by other nodes.

use std::sync::Arc;

use redis::{Cmd, Value, cmd};

use super::keys::Keys;
use super::server::link::Links;
use crate::contract::EngineError;

/// Names in one command.
const GROUP: usize = 1000;

pub(super) struct RevocationTable {
    keys: Arc<Keys>,
    links: Links,
}

impl RevocationTable {
    pub(super) fn new(keys: Arc<Keys>, links: Links) -> Self {
        Self { keys, links }
    }

    pub(super) async fn put(&self, name: &str, until: i64) -> Result<(), EngineError> {
        self.run(cmd("HSET").arg(self.keys.revocations()).arg(name).arg(until)).await.map(drop)
    }

    pub(super) async fn remove(&self, names: &[Box<str>]) -> Result<(), EngineError> {
        for group in names.chunks(GROUP) {
            let names: Vec<&str> = group.iter().map(|name| &**name).collect();
            self.run(cmd("HDEL").arg(self.keys.revocations()).arg(names)).await?;
        }
        Ok(())
    }

    pub(super) async fn all(&self) -> Result<Vec<(Box<str>, i64)>, EngineError> {
        let answer = self.run(cmd("HGETALL").arg(self.keys.revocations())).await?;
        let pairs: Vec<(&Value, &Value)> = match &answer {
            Value::Map(pairs) => pairs.iter().map(|(name, until)| (name, until)).collect(),
            Value::Array(values) => values.chunks_exact(2).map(|pair| (&pair[0], &pair[1])).collect(),
            _ => return Err(self.links.any()?.nonsense()),
        };
        // What cannot be read was not written by a node.
        Ok(pairs
            .into_iter()
            .filter_map(|(name, until)| Some((text(name)?.into(), text(until)?.parse().ok()?)))
            .collect())
    }

    async fn run(&self, command: &Cmd) -> Result<Value, EngineError> {
        self.links.any()?.command(command).await
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}
