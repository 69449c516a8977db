//! The names of all keys and channels.
//!
//! Nodes belong to the prefix, topics to an application under it. All keys of a topic have the topic as hash tag, so
//! that a cluster stores them on one server, and all keys about nodes have the tag `!`. A tag ends at the first
//! closing brace, so braces in names are percent-encoded.

use std::borrow::Cow;
use std::fmt;

use fanwire_protocol::TopicName;
use uuid::Uuid;

use super::slots;
use crate::user_status::USER_TOPIC;

/// The identity of a node in the cluster, to which members and leases belong. It ends when the node is fenced; the node
/// then takes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Incarnation(Uuid);

impl Incarnation {
    pub(super) fn random() -> Self {
        Self(Uuid::new_v4())
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        Uuid::try_parse_ascii(text).ok().map(Self)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

#[derive(Debug)]
pub(super) struct Keys {
    /// The prefix, followed by a colon.
    prefix: String,
    /// Prefix and application, each followed by a colon.
    base: String,
    /// The beginning of every channel, up to the topic.
    channel: String,
    database: i64,
    /// Begins the names of status topics, if there are any.
    status: Option<Box<str>>,
}

impl Keys {
    /// Sorted set: the prefixes of live clusters, by the end of their last lease. The same key for all prefixes.
    pub(super) const PREFIXES: &str = "fanwire:prefixes";

    pub(super) fn new(prefix: &str, application: &str, database: i64) -> Self {
        Self::under(format!("{}:", encode(prefix)), application, database)
    }

    /// Returns the keys of an application under the same prefix.
    pub(super) fn of_application(&self, application: &str) -> Self {
        Self::under(self.prefix.clone(), application, self.database)
    }

    /// Adds status topics, whose names begin like that.
    pub(super) fn with_status(self, prefix: Option<Box<str>>) -> Self {
        Self { status: prefix, ..self }
    }

    /// The channel of the topic's events. Redis separates keys by database but not channels, so their names contain the
    /// database. A status topic has the channel of its user's topic, whose scripts publish in it.
    pub(super) fn channel(&self, topic: &TopicName) -> String {
        let topic = topic.as_str();
        match self.status.as_deref().and_then(|prefix| topic.strip_prefix(prefix)) {
            Some(user) => format!("{}{USER_TOPIC}{}}}", self.channel, encode(user)),
            None => format!("{}{}}}", self.channel, encode(topic)),
        }
    }

    /// String: epoch, lineage and top of the topic; see `scripts/topic.lua`.
    pub(super) fn meta(&self, topic: &TopicName) -> String {
        self.of_topic("m", topic)
    }

    /// Stream: the topic's publications; see `scripts/append.lua`.
    pub(super) fn stream(&self, topic: &TopicName) -> String {
        self.of_topic("s", topic)
    }

    /// String: the result of the first publish with that idempotency key.
    pub(super) fn idempotency(&self, topic: &TopicName, key: &str) -> String {
        format!("{}:{key}", self.of_topic("i", topic))
    }

    /// Hash: the node's members of the topic, client id to body.
    pub(super) fn members(&self, topic: &TopicName, incarnation: Incarnation) -> String {
        format!("{}:{incarnation}", self.of_topic("p", topic))
    }

    /// Hash: the nodes with members in the topic, to their numbers of clients and users.
    pub(super) fn member_counts(&self, topic: &TopicName) -> String {
        self.of_topic("pn", topic)
    }

    /// String: when the topic is vacant unless a client joins before, and the events of its members; see
    /// `scripts/event.lua`.
    pub(super) fn pending_vacancy(&self, topic: &TopicName) -> String {
        self.of_topic("pv", topic)
    }

    /// String: when the user of the topic was last seen; see `scripts/seen.lua`.
    pub(super) fn last_seen(&self, topic: &TopicName) -> String {
        self.of_topic("ls", topic)
    }

    /// Stream: the events of the slot's topics.
    pub(super) fn outbox(&self, slot: u16) -> String {
        format!("{}ev:{{{}}}", self.base, slots::tag(slot))
    }

    /// String: the number of events that the outbox dropped because they were too many; see `scripts/event.lua`.
    pub(super) fn dropped_events(&self, slot: u16) -> String {
        format!("{}evn:{{{}}}", self.base, slots::tag(slot))
    }

    /// Sorted set: the tags of outboxes that may have events, by the time of the last announcement.
    pub(super) fn outboxes(&self) -> String {
        format!("{}evl:{{!}}", self.base)
    }

    /// Sorted set: the topics that may have a pending vacancy, by the time when it is due.
    pub(super) fn due_vacancies(&self) -> String {
        format!("{}evd:{{!}}", self.base)
    }

    /// String: the node that works on outboxes.
    pub(super) fn outbox_worker(&self) -> String {
        format!("{}evw:{{!}}", self.base)
    }

    /// Stream: events that the application refused.
    pub(super) fn dead_letters(&self) -> String {
        format!("{}evx:{{!}}", self.base)
    }

    /// Stream: dead letters that are to be posted again.
    pub(super) fn retried_letters(&self) -> String {
        format!("{}evr:{{!}}", self.base)
    }

    /// The hash slot of the topic's keys.
    pub(super) fn slot(topic: &TopicName) -> u16 {
        slots::slot_of(&encode(topic.as_str()))
    }

    /// Set: the topics with members of the node.
    pub(super) fn member_topics(&self, incarnation: Incarnation) -> String {
        format!("{}px:{incarnation}", self.base)
    }

    /// Sorted set: the nodes, by the end of their lease.
    pub(super) fn nodes(&self) -> String {
        format!("{}n:{{!}}", self.prefix)
    }

    /// Hash: the nodes, to their id, name and application.
    pub(super) fn node_details(&self) -> String {
        format!("{}nd:{{!}}", self.prefix)
    }

    /// String: exists while the node's lease lasts.
    pub(super) fn lease(&self, incarnation: Incarnation) -> String {
        format!("{}n:{{!}}:{incarnation}", self.prefix)
    }

    /// String: exists once the node was fenced.
    pub(super) fn tombstone(&self, incarnation: Incarnation) -> String {
        format!("{}t:{{!}}:{incarnation}", self.prefix)
    }

    /// String: exists while another node removes the dead node's members.
    pub(super) fn reaping(&self, incarnation: Incarnation) -> String {
        format!("{}l:{{!}}:{incarnation}", self.prefix)
    }

    /// String: the settings that must be equal on all nodes.
    pub(super) fn cluster_settings(&self) -> String {
        format!("{}cs:{{!}}", self.prefix)
    }

    /// Hash: blocked users and revoked tokens of the application, to the time until which they are.
    pub(super) fn revocations(&self) -> String {
        format!("{}rv:{{!}}", self.base)
    }

    /// Returns the topic's name if the channel belongs to this prefix, application and database.
    pub(super) fn topic_of<'a>(&self, channel: &'a [u8]) -> Option<Cow<'a, str>> {
        let name = channel.strip_prefix(self.channel.as_bytes())?.strip_suffix(b"}")?;
        let name = decode(std::str::from_utf8(name).ok()?)?;
        if let Some(prefix) = &self.status
            && let Some(user) = name.strip_prefix(USER_TOPIC)
        {
            return Some(format!("{prefix}{user}").into());
        }
        Some(name)
    }

    fn under(prefix: String, application: &str, database: i64) -> Self {
        let base = format!("{prefix}{}:", encode(application));
        let kind = if database == 0 { "c".to_owned() } else { format!("c{database}") };
        let channel = format!("{base}{kind}:{{");
        Self { prefix, base, channel, database, status: None }
    }

    /// String: the bucket of one whose requests all nodes count together; see `scripts/charge.lua`.
    pub(super) fn rate(&self, topic: &TopicName) -> String {
        self.of_topic("rl", topic)
    }

    fn of_topic(&self, kind: &str, topic: &TopicName) -> String {
        format!("{}{kind}:{{{}}}", self.base, encode(topic.as_str()))
    }
}

fn encode(name: &str) -> Cow<'_, str> {
    if !name.contains(['{', '}', '%']) {
        return name.into();
    }
    name.replace('%', "%25").replace('{', "%7B").replace('}', "%7D").into()
}

/// Returns `None` for names that [`encode`] does not produce.
fn decode(name: &str) -> Option<Cow<'_, str>> {
    let mut parts = name.split('%');
    let first = parts.next().unwrap_or_default();
    if first.len() == name.len() {
        return Some(name.into());
    }
    let mut decoded = first.to_owned();
    for part in parts {
        let (character, rest) = if let Some(rest) = part.strip_prefix("25") {
            ('%', rest)
        } else if let Some(rest) = part.strip_prefix("7B") {
            ('{', rest)
        } else {
            ('}', part.strip_prefix("7D")?)
        };
        decoded.push(character);
        decoded.push_str(rest);
    }
    Some(decoded.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_as_documented() {
        let keys = Keys::new("fanwire", "default", 0);
        let topic = TopicName::new("news:{a}100%").unwrap();
        assert_eq!(keys.channel(&topic), "fanwire:default:c:{news:%7Ba%7D100%25}");
        let other = Keys::new("fanwire", "default", 15);
        assert_eq!(other.channel(&topic), "fanwire:default:c15:{news:%7Ba%7D100%25}");
        assert_eq!(other.of_application("a").channel(&topic), "fanwire:a:c15:{news:%7Ba%7D100%25}");
        assert_eq!(other.meta(&topic), keys.meta(&topic));
        assert_eq!(keys.idempotency(&topic, "k}"), "fanwire:default:i:{news:%7Ba%7D100%25}:k}");
        assert_eq!(keys.pending_vacancy(&topic), "fanwire:default:pv:{news:%7Ba%7D100%25}");
        assert_eq!(keys.last_seen(&topic), "fanwire:default:ls:{news:%7Ba%7D100%25}");
        let of_events = [
            keys.outboxes(),
            keys.due_vacancies(),
            keys.outbox_worker(),
            keys.dead_letters(),
            keys.retried_letters(),
        ];
        assert_eq!(
            of_events,
            ["evl", "evd", "evw", "evx", "evr"].map(|kind| format!("fanwire:default:{kind}:{{!}}"))
        );
        assert_eq!(keys.outbox(12_182), format!("fanwire:default:ev:{{{}}}", slots::tag(12_182)));
        assert_eq!(keys.dropped_events(12_182), keys.outbox(12_182).replace("ev:{", "evn:{"));
        assert_eq!(Keys::slot(&TopicName::new("foo").unwrap()), 12_182);
        let incarnation = Incarnation(Uuid::from_u128(7));
        let node = "00000000000000000000000000000007";
        assert_eq!(keys.member_topics(incarnation), format!("fanwire:default:px:{node}"));
        assert_eq!(keys.of_application("a").member_topics(incarnation), format!("fanwire:a:px:{node}"));
        assert_eq!(keys.lease(incarnation), format!("fanwire:n:{{!}}:{node}"));
        assert_eq!(keys.tombstone(incarnation), format!("fanwire:t:{{!}}:{node}"));
        assert_eq!(keys.reaping(incarnation), format!("fanwire:l:{{!}}:{node}"));
        let of_all = [keys.nodes(), keys.node_details(), keys.cluster_settings()];
        assert_eq!(of_all, ["fanwire:n:{!}", "fanwire:nd:{!}", "fanwire:cs:{!}"]);
        assert_eq!(Incarnation::parse(incarnation.to_string().as_bytes()), Some(incarnation));
        assert_eq!(Incarnation::parse(b"7"), None);
    }

    #[test]
    fn a_status_topic_has_the_channel_of_its_user() {
        let keys = Keys::new("fanwire", "default", 0).with_status(Some("status:".into()));
        let [status, user] = ["status:{4}2", "!user:{4}2"].map(|name| TopicName::new(name).unwrap());
        assert_eq!(keys.channel(&status), "fanwire:default:c:{!user:%7B4%7D2}");
        assert_eq!(keys.channel(&user), keys.channel(&status));
        assert_eq!(keys.topic_of(keys.channel(&user).as_bytes()).as_deref(), Some("status:{4}2"));
        let other = TopicName::new("statuses").unwrap();
        assert_eq!(keys.topic_of(keys.channel(&other).as_bytes()).as_deref(), Some("statuses"));
        let without = Keys::new("fanwire", "default", 0);
        assert_eq!(without.topic_of(keys.channel(&user).as_bytes()).as_deref(), Some("!user:{4}2"));
    }

    #[test]
    fn foreign_channels_belong_to_no_topic() {
        let keys = Keys::new("fanwire", "default", 0);
        for channel in ["", "fanwire:default:c:{a", "other:default:c:{a}", "fanwire:default:c:{a%zz}"] {
            assert_eq!(keys.topic_of(channel.as_bytes()), None, "{channel}");
        }
        assert_eq!(keys.topic_of(b"fanwire:default:c:{\xff}"), None);
    }

    proptest! {
        #[test]
        fn a_channel_leads_back_to_its_topic(name in ".+", database in 0..20_i64) {
            let keys = Keys::new("{prefix}", "a%b", database);
            let topic = TopicName::new(&name).unwrap();
            let channel = keys.channel(&topic);
            let back = keys.topic_of(channel.as_bytes());
            prop_assert_eq!(back.as_deref(), Some(name.as_str()));
            prop_assert_eq!(channel.matches(['{', '}']).count(), 2);
            let elsewhere = Keys::new("{prefix}", "a%b", database + 1);
            prop_assert_eq!(elsewhere.topic_of(channel.as_bytes()), None);
        }

        #[test]
        fn no_channel_panics(channel: Vec<u8>, tail: Vec<u8>) {
            let keys = Keys::new("f", "d", 0);
            keys.topic_of(&channel);
            keys.topic_of(&[b"f:d:c:{".as_slice(), &tail, b"}"].concat());
        }
    }
}
