//! The options of topics: the rules of their names, and the namespaces they belong to.
//!
//! Built once from the configuration and never changed; looking a topic up allocates nothing.

use std::time::Duration;

use fanwire_protocol::reason::RequestError;
use fanwire_protocol::{EventMask, TopicName};
use regex::Regex;
use rustc_hash::FxHashMap;

use crate::format::PublicationFormat;
use crate::hook_settings::NamespaceHooks;

/// The options of a namespace: what its topics allow and keep. Everything is off by default.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Empty for topics without a namespace.
    pub name: String,
    /// Keep who is subscribed.
    pub presence: bool,
    /// The events of subscribers that the application wants. Membership is kept for them even where nobody may read it.
    pub events: EventMask,
    /// Tell of clients that come and go.
    pub join_leave: bool,
    /// Send joins and leaves to every subscriber, not only to those that ask.
    pub force_push_join_leave: bool,
    /// The topic's stream; `None` when publications are not kept.
    pub history: Option<HistoryBounds>,
    pub force_positioning: bool,
    pub allow_positioning: bool,
    pub force_recovery: bool,
    pub allow_recovery: bool,
    pub recovery_mode: RecoveryMode,
    /// In cache mode, send the newest publication even to clients that do not ask.
    pub auto_cache_recover: bool,
    pub allow_subscribe_for_client: bool,
    pub allow_subscribe_for_anonymous: bool,
    pub allow_publish_for_client: bool,
    pub allow_publish_for_subscriber: bool,
    pub allow_publish_for_anonymous: bool,
    pub allow_presence_for_client: bool,
    pub allow_presence_for_subscriber: bool,
    pub allow_presence_for_anonymous: bool,
    pub allow_history_for_client: bool,
    pub allow_history_for_subscriber: bool,
    pub allow_history_for_anonymous: bool,
    /// Honour `#` in names: `dialog#12,43` is for users 12 and 43 only.
    pub allow_user_limited_topics: bool,
    /// The pattern that a name must match after the namespace. Without it, names are ASCII only.
    pub topic_regex: Option<Regex>,
    pub publication_format: PublicationFormat,
    /// For subscribers without a position in the stream: those are closed always.
    pub slow_policy: SlowPolicy,
    pub hooks: NamespaceHooks,
    /// Tell clients the time of each publication.
    pub show_time: bool,
    /// Clients may ask for the publications with certain tags alone.
    pub allow_tags_filter: bool,
    /// Leave clients out of what they publish themselves.
    pub no_echo: bool,
    /// Each topic has the status of a user. Nobody publishes in it.
    pub status: bool,
}

impl Namespace {
    /// Returns true if subscribers are members: listed in presence, or kept for their events.
    pub fn keeps_members(&self) -> bool {
        self.presence || !self.events.is_empty()
    }
}

/// The treatment of a topic's publications that wait for a client too slow to take them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// They wait; at the bound the client is closed, and may recover what it missed.
    #[default]
    Close,
    /// They wait; at the bound the oldest are dropped.
    DropOldest,
    /// Only the newest of each topic waits.
    KeepLatest,
}

impl SlowPolicy {
    pub const COUNT: usize = 3;
}

/// The bounds of the part of a topic's stream that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryBounds {
    /// Publications, at least 1.
    pub size: usize,
    /// The time for which the publications are kept after the last one.
    pub ttl: Duration,
    /// The time for which epoch and top offset are kept after the last use; at least `ttl`.
    pub meta_ttl: Duration,
}

/// The publications that recovery gives a client that comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Everything it missed, in order, or the word that this is impossible.
    #[default]
    Stream,
    /// The newest publication only.
    Cache,
}

/// The characters that give a topic's name its meaning. Each is one or more bytes of ASCII; none is empty.
#[derive(Clone, Debug)]
pub struct NameRules {
    /// Longest name, in bytes.
    pub length_max: usize,
    /// In front of a name: a subscription token is always required.
    pub private_prefix: String,
    /// Ends the namespace's name.
    pub namespace_boundary: String,
    /// Begins the list of users.
    pub user_boundary: String,
    /// Between users.
    pub user_separator: String,
}

impl Default for NameRules {
    fn default() -> Self {
        Self {
            length_max: 255,
            private_prefix: "$".into(),
            namespace_boundary: ":".into(),
            user_boundary: "#".into(),
            user_separator: ",".into(),
        }
    }
}

/// Begins the names of topics that nodes use among themselves.
const RESERVED_PREFIX: char = '!';

/// Every namespace of the node.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    pub rules: NameRules,
    /// Options of topics without a namespace.
    pub default: Namespace,
    named: FxHashMap<String, Namespace>,
}

/// The reasons for which a name has no options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the topic's name is empty")]
    Empty,
    #[error("the topic's name is longer than topics.length_max; use a shorter one")]
    TooLong,
    #[error("names that begin with ! are the cluster's own; use another")]
    Reserved,
    #[error("no namespace of this name is configured")]
    UnknownNamespace,
    #[error("the topic's name does not match its namespace's topic_regex, or is not ASCII; use another")]
    NotAllowed,
    #[error(
        "the user's name has a separator of [topics] in it, such as \",\" or \"#\", so it has no personal topic"
    )]
    NotPersonal,
}

impl From<NameError> for RequestError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::UnknownNamespace => Self::UnknownTopic,
            NameError::Empty
            | NameError::TooLong
            | NameError::Reserved
            | NameError::NotAllowed
            | NameError::NotPersonal => Self::BadRequest,
        }
    }
}

impl Namespaces {
    pub fn new(rules: NameRules, default: Namespace, named: impl IntoIterator<Item = Namespace>) -> Self {
        Self { rules, default, named: named.into_iter().map(|n| (n.name.clone(), n)).collect() }
    }

    /// The namespaces that have a name, in no order.
    pub fn named(&self) -> impl Iterator<Item = &Namespace> {
        self.named.values()
    }

    /// Makes a topic's name of a text, with the options of the topic.
    pub fn topic(&self, text: &str) -> Result<(TopicName, &Namespace), NameError> {
        let topic = TopicName::new(text).ok_or(NameError::Empty)?;
        let namespace = self.of(&topic)?;
        Ok((topic, namespace))
    }

    /// The options of a topic, or why it cannot exist.
    pub fn of(&self, topic: &TopicName) -> Result<&Namespace, NameError> {
        let topic = topic.as_str();
        if topic.len() > self.rules.length_max {
            return Err(NameError::TooLong);
        }
        if topic.starts_with(RESERVED_PREFIX) {
            return Err(NameError::Reserved);
        }
        let (name, rest) = self.split(topic);
        let namespace = match name {
            None => &self.default,
            Some(name) => self.named.get(name).ok_or(NameError::UnknownNamespace)?,
        };
        let allowed = match &namespace.topic_regex {
            Some(regex) => regex.is_match(rest),
            None => topic.is_ascii(),
        };
        if allowed { Ok(namespace) } else { Err(NameError::NotAllowed) }
    }

    /// Returns true if only a subscription token opens the topic.
    pub fn is_private(&self, topic: &TopicName) -> bool {
        topic.as_str().starts_with(&*self.rules.private_prefix)
    }

    /// Returns the users who may subscribe, when the name lists them.
    pub fn users_of<'t>(&'t self, topic: &'t TopicName) -> Option<impl Iterator<Item = &'t str>> {
        self.users_in(topic.as_str())
    }

    fn users_in<'t>(&'t self, topic: &'t str) -> Option<impl Iterator<Item = &'t str>> {
        let (_, users) = topic.rsplit_once(&*self.rules.user_boundary)?;
        Some(users.split(&*self.rules.user_separator))
    }

    /// Returns the text for the name of a user's own topic: `#42`, or `personal:#42` in a namespace. A separator in the
    /// user's name would make another topic of it: `#1,2` belongs to users 1 and 2, not to a user "1,2".
    pub fn personal_topic(&self, namespace: &str, user: &str) -> Result<String, NameError> {
        let NameRules { namespace_boundary, user_boundary, .. } = &self.rules;
        let topic = if namespace.is_empty() {
            format!("{user_boundary}{user}")
        } else {
            format!("{namespace}{namespace_boundary}{user_boundary}{user}")
        };
        let is_in_namespace = self.split(&topic).0.unwrap_or_default() == namespace;
        let is_of_user = self.users_in(&topic).is_some_and(|users| users.eq([user]));
        if is_in_namespace && is_of_user { Ok(topic) } else { Err(NameError::NotPersonal) }
    }

    /// The name of the topic's namespace, and what follows it.
    fn split<'t>(&self, topic: &'t str) -> (Option<&'t str>, &'t str) {
        let public = topic.strip_prefix(&*self.rules.private_prefix).unwrap_or(topic);
        match public.split_once(&*self.rules.namespace_boundary) {
            None => (None, public),
            Some((namespace, rest)) => (Some(namespace), rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces() -> Namespaces {
        let lower = Namespace {
            name: "lower".into(),
            topic_regex: Some(Regex::new("^[a-zä]+$").unwrap()),
            ..Namespace::default()
        };
        Namespaces::new(NameRules { length_max: 20, ..NameRules::default() }, Namespace::default(), [lower])
    }

    #[test]
    fn names_find_their_namespace_or_say_why_not() {
        let all = namespaces();
        let name = |text: &str| all.topic(text).map(|(_, namespace)| namespace.name.as_str());
        assert_eq!(name("news"), Ok(""));
        assert_eq!(name("lower:abc"), Ok("lower"));
        assert_eq!(name("$lower:abc"), Ok("lower"));
        assert_eq!(name("lower:ä"), Ok("lower"));
        assert_eq!(name(""), Err(NameError::Empty));
        assert_eq!(name("!control"), Err(NameError::Reserved));
        assert_eq!(name("lower:ABC"), Err(NameError::NotAllowed));
        assert_eq!(name("ä"), Err(NameError::NotAllowed));
        assert_eq!(name("other:abc"), Err(NameError::UnknownNamespace));
        assert_eq!(name("aaaaaaaaaaaaaaaaaaaaa"), Err(NameError::TooLong));
    }

    #[test]
    fn users_come_from_the_last_boundary() {
        let all = namespaces();
        let users = |name: &str| {
            all.users_of(&TopicName::new(name).unwrap())
                .map(|users| users.map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(users("dialog#12,43"), Some(vec!["12".into(), "43".into()]));
        assert_eq!(users("a#b#1"), Some(vec!["1".into()]));
        assert_eq!(users("dialog"), None);
    }

    #[test]
    fn personal_topics_belong_to_their_user_alone() {
        let all = namespaces();
        let topic = |namespace, user| all.personal_topic(namespace, user);
        assert_eq!(topic("", "42").as_deref(), Ok("#42"));
        assert_eq!(topic("me", "42").as_deref(), Ok("me:#42"));
        assert_eq!(topic("me", "a:b").as_deref(), Ok("me:#a:b"));
        for user in ["1,2", ",", "1#2", "#2", "a:b"] {
            assert_eq!(topic("", user), Err(NameError::NotPersonal), "{user}");
        }
        let rules = NameRules { user_boundary: "##".into(), user_separator: "--".into(), ..all.rules };
        let all = Namespaces { rules, ..namespaces() };
        for (user, topic) in [("1,2", Some("##1,2")), ("1#2", Some("##1#2")), ("#2", None), ("1--2", None)] {
            assert_eq!(all.personal_topic("", user).ok().as_deref(), topic, "{user}");
        }
    }
}
