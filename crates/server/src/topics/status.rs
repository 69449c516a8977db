//! The topics of the status namespace: each tells whether a user is online, and when it was last seen.
//!
//! What changes a user's connections publishes each change in the topic. The first subscriber on the node
//! makes the owner ask for the present status; later ones get what was told last. After a gap it is asked again, and told
//! only if it is another.

use std::rc::Rc;
use std::sync::Arc;

use fanwire_broker::{EngineError, UserStatus};
use fanwire_hub::effect::SubscriptionStart;
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::{Publication, StatusMessage, TopicName};

use super::Topics;
use super::jobs::error;

impl Topics {
    /// Returns the user whose status the topic has.
    pub(super) fn watched_user<'t>(&self, name: &'t TopicName) -> Result<&'t str, RequestError> {
        let status = self.settings.status.as_ref();
        status.and_then(|status| status.options.user_of(name.as_str())).ok_or(RequestError::BadRequest)
    }

    /// Makes sure that the status is known.
    pub(super) async fn learn_status(self: &Rc<Self>, name: &TopicName) -> Result<(), RequestError> {
        let is_known = {
            let topics = self.topics.borrow();
            topics.get(name).is_some_and(|topic| topic.newest.is_some() && !topic.is_stale)
        };
        if is_known { Ok(()) } else { self.ask_for_status(name).await.map_err(error) }
    }

    /// Returns the start of a subscription to a status topic: what was told last.
    pub(super) fn status_start(&self, name: &TopicName) -> SubscriptionStart {
        let newest = self.topics.borrow().get(name).and_then(|topic| topic.newest.clone());
        SubscriptionStart { recovered: newest.map(|newest| vec![newest]), ..SubscriptionStart::default() }
    }

    /// Asks again after a gap.
    pub(super) async fn repair_status(self: &Rc<Self>, name: &TopicName) {
        if let Err(error) = self.ask_for_status(name).await {
            tracing::debug!(%error, topic = %name, "the status of a user could not be asked for");
            self.postpone_repair(name);
        }
    }

    /// Takes a change that an engine told.
    pub(super) fn take_status(self: &Rc<Self>, name: &TopicName, told: Arc<Publication>) {
        {
            let mut topics = self.topics.borrow_mut();
            let Some(topic) = topics.get_mut(name) else { return };
            if topic.newest.as_ref().is_some_and(|newest| told.time < newest.time) {
                // It may be older than the answer that is known, or the clock was set back.
                topic.is_stale = true;
            }
        }
        if self.is_stale(name) { self.enqueue_repair(name) } else { self.tell_status(name, told) }
    }

    /// Asks for the status, and tells it if it is another than before.
    async fn ask_for_status(self: &Rc<Self>, name: &TopicName) -> Result<(), EngineError> {
        let Ok(user) = self.watched_user(name) else { return Ok(()) };
        let before = self.topics.borrow_mut().get_mut(name).map(|topic| {
            topic.is_stale = false;
            topic.newest.clone()
        });
        let before = before.flatten();
        let answer = match &self.statuses {
            Some(statuses) => statuses.of(&[user.into()]).await,
            None => return Ok(()),
        };
        let status = answer.inspect_err(|_| self.mark_stale(name))?.into_iter().next().unwrap_or_default();
        let newest = self.topics.borrow().get(name).and_then(|topic| topic.newest.clone());
        // What was told meanwhile may be newer than the answer.
        let is_overtaken = newest.as_ref().is_some_and(|newest| {
            newest.time >= status.time && !before.is_some_and(|before| Arc::ptr_eq(&before, newest))
        });
        if !is_overtaken {
            self.tell_status(name, Arc::new(publication(user, status)));
        }
        Ok(())
    }

    /// Tells subscribers a status, unless it is the one that was told last.
    fn tell_status(&self, name: &TopicName, status: Arc<Publication>) {
        let is_news = {
            let mut topics = self.topics.borrow_mut();
            let Some(topic) = topics.get_mut(name) else { return };
            let before = topic.newest.replace(status.clone());
            let [before, now] = [before.as_ref(), Some(&status)]
                .map(|status| status.and_then(|status| StatusMessage::parse(&status.data)));
            now.is_some_and(|now| !before.is_some_and(|before| before.says(&now)))
        };
        if is_news {
            self.send_publication(name.clone(), status, None);
        }
    }

    pub(super) fn mark_stale(&self, name: &TopicName) {
        if let Some(topic) = self.topics.borrow_mut().get_mut(name) {
            topic.is_stale = true;
        }
    }

    fn is_stale(&self, name: &TopicName) -> bool {
        self.topics.borrow().get(name).is_some_and(|topic| topic.is_stale)
    }
}

fn publication(user: &str, UserStatus { online, last_seen, time, .. }: UserStatus) -> Publication {
    let data = StatusMessage { user: user.into(), online, last_seen }.to_json();
    Publication { data, time, ..Publication::default() }
}
