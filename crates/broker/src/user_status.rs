//! The status of users, by the connections that are members of their topics.

use std::time::Duration;

use fanwire_protocol::TopicName;

/// The settings of user status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusOptions {
    /// Begins the name of each status topic; the user follows.
    pub prefix: Box<str>,
    /// The time for which a heartbeat keeps a user online who has no connection.
    pub heartbeat_ttl: Duration,
    /// The time for which it is kept when a user was last seen.
    pub last_seen_ttl: Duration,
}

/// The status of a user on all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserStatus {
    /// It has a connection or a heartbeat, or has not been without for `offline_delay`.
    pub online: bool,
    pub connections: usize,
    /// The last time at which it is known to have been connected, in milliseconds since 1970; 0 if it is not known.
    pub last_seen: i64,
    /// The time of this answer, in milliseconds since 1970.
    pub time: i64,
}

/// Begins the name of a topic that has a user's connections for members.
pub(crate) const USER_TOPIC: &str = "!user:";

/// Returns the cluster's own topic that has a user's connections for members.
pub fn user_topic(user: &str) -> TopicName {
    TopicName::new(&format!("{USER_TOPIC}{user}")).expect("the name is not empty")
}

impl StatusOptions {
    /// Returns the user whose status the topic has; `None` for other topics.
    pub fn user_of<'t>(&self, topic: &'t str) -> Option<&'t str> {
        topic.strip_prefix(&*self.prefix).filter(|user| !user.is_empty())
    }
}
