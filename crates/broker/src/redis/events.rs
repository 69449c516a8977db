//! The events of members, for the scripts that write them: the keys and arguments that these share, and the announcements
//! of outboxes. What is announced is written in the same round trip or a few seconds later, never before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fanwire_protocol::TopicName;
use redis::Pipeline;
use tokio::time::Instant;

use super::arguments::{limit_argument, milliseconds};
use super::clock::Clock;
use super::keys::Keys;
use super::nodes::BACKSTOP;
use super::slots;
use crate::outbox::OutboxOptions;
use crate::user_status::{StatusOptions, USER_TOPIC};

pub(super) struct EventWriter {
    options: OutboxOptions,
    status: Option<StatusOptions>,
    clock: Arc<Clock>,
    /// The outboxes that this node has announced lately, and when.
    announced: Mutex<HashMap<u16, Instant>>,
}

impl EventWriter {
    /// The time for which an announcement of this node holds.
    pub(super) const ANNOUNCED_FOR: Duration = Duration::from_secs(10);

    pub(super) fn new(options: OutboxOptions, status: Option<StatusOptions>, clock: Arc<Clock>) -> Self {
        Self { options, status, clock, announced: Mutex::default() }
    }

    pub(super) fn offline_delay(&self) -> Duration {
        self.options.offline_delay
    }

    /// The keys that scripts about events have in common.
    pub(super) fn keys(&self, keys: &Keys, topic: &TopicName) -> Vec<String> {
        let mut all = vec![keys.outbox(Keys::slot(topic)), keys.pending_vacancy(topic)];
        if self.status.is_some() && topic.as_str().starts_with(USER_TOPIC) {
            all.push(keys.last_seen(topic));
        }
        all
    }

    /// The arguments that scripts about events have in common.
    pub(super) fn arguments(&self, keys: &Keys, topic: &TopicName) -> [String; 5] {
        let OutboxOptions { length_max, retention, .. } = self.options;
        let retention = milliseconds(retention).to_string();
        let status = self.status.as_ref();
        let seen_ttl =
            status.map(|status| milliseconds(status.last_seen_ttl).to_string()).unwrap_or_default();
        [topic.as_str().to_owned(), limit_argument(length_max), retention, keys.channel(topic), seen_ttl]
    }

    /// Announces the topic's outbox unless this node has done so lately.
    pub(super) fn announce(&self, commands: &mut Pipeline, keys: &Keys, topic: &TopicName) {
        let (slot, now) = (Keys::slot(topic), Instant::now());
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        if announced.get(&slot).is_none_or(|then| now - *then >= Self::ANNOUNCED_FOR) {
            announced.insert(slot, now);
            self.announce_always(commands, keys, topic);
        }
    }

    /// Announces the topic's outbox, which may be of another application.
    pub(super) fn announce_always(&self, commands: &mut Pipeline, keys: &Keys, topic: &TopicName) {
        let now = self.clock.now().unwrap_or_default();
        commands.zadd(keys.outboxes(), slots::tag(Keys::slot(topic)), milliseconds(now));
        expire(commands, &keys.outboxes(), self.options.retention);
    }

    /// Announces that the topic may have a pending vacancy after the next command.
    pub(super) fn announce_vacancy(
        &self,
        commands: &mut Pipeline,
        keys: &Keys,
        topic: &TopicName,
        delay: Duration,
    ) {
        if delay.is_zero() {
            return;
        }
        let due = self.clock.now().unwrap_or_default() + delay;
        commands.zadd(keys.due_vacancies(), topic.as_str(), milliseconds(due));
        expire(commands, &keys.due_vacancies(), delay);
    }

    /// Forgets what was announced: the announcements may not have arrived.
    pub(super) fn forget_announced(&self) {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn expire(commands: &mut Pipeline, key: &str, at_least: Duration) {
    commands.cmd("PEXPIRE").arg(key).arg(milliseconds(at_least + BACKSTOP));
}
