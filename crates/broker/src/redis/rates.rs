//! Token buckets that all nodes share: each is the moment at which it is full again, by Redis' clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::TopicName;
use redis::Value;

use super::keys::Keys;
use super::scripts::Scripts;
use super::server::link::Links;
use crate::contract::EngineError;

pub(super) struct RateTable {
    keys: Arc<Keys>,
    scripts: Arc<Scripts>,
    links: Links,
}

impl RateTable {
    pub(super) fn new(keys: Arc<Keys>, scripts: Arc<Scripts>, links: Links) -> Self {
        Self { keys, scripts, links }
    }

    /// Takes tokens from the buckets, each of which comes back after `token`, and returns the time until each bucket is
    /// full: at most `debt_max`.
    pub(super) async fn charge(
        &self,
        tokens: &[(TopicName, u32)],
        token: Duration,
        debt_max: Duration,
    ) -> Result<Vec<Duration>, EngineError> {
        let mut debts = vec![Duration::ZERO; tokens.len()];
        let debt_max = debt_max.as_micros().to_string();
        let mut by_link: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, (topic, _)) in tokens.iter().enumerate() {
            by_link.entry(self.links.index_of(topic)).or_default().push(index);
        }
        for (link, indexes) in by_link {
            let mut link = self.links.link(link)?;
            let mut commands = redis::pipe();
            for &index in &indexes {
                let (topic, taken) = &tokens[index];
                let charge = token.saturating_mul(*taken).as_micros().to_string();
                let arguments = [charge.as_bytes(), debt_max.as_bytes()];
                commands.add_command(self.scripts.charge.call(&[self.keys.rate(topic)], &arguments));
            }
            for (index, answer) in indexes.into_iter().zip(link.pipeline(&commands).await?) {
                let Value::Int(micros) = answer else { return Err(link.nonsense()) };
                debts[index] = Duration::from_micros(micros.try_into().unwrap_or_default());
            }
        }
        Ok(debts)
    }
}
