//! The methods' names and numbers.

/// The methods of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Publish,
    Broadcast,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Refresh,
    Presence,
    PresenceStats,
    History,
    HistoryRemove,
    Channels,
    Info,
    BlockUser,
    UnblockUser,
    RevokeToken,
    UserStatus,
    DeadLetters,
    DeadLettersRetry,
    DeadLettersRemove,
    Rpc,
    /// A method of the protocol that is answered with error 104.
    NotServed,
}

/// Labels of what is no single method.
pub(super) const BATCH: &str = "batch";
pub(super) const PIPELINE: &str = "pipeline";
pub(super) const OTHER: &str = "other";

/// Every label that metrics of the API have.
pub(crate) const LABELS: [&str; SERVED.len() + 3] = {
    let mut labels = [OTHER; SERVED.len() + 3];
    let mut place = 0;
    while place < SERVED.len() {
        labels[place] = SERVED[place].1;
        place += 1;
    }
    labels[place] = BATCH;
    labels[place + 1] = PIPELINE;
    labels
};

/// With the number that the older endpoint knows, if it does. A command of a batch that names several is the first of them.
const SERVED: [(Method, &str, Option<i64>); 20] = [
    (Method::Publish, "publish", Some(0)),
    (Method::Broadcast, "broadcast", Some(1)),
    (Method::Subscribe, "subscribe", Some(11)),
    (Method::Unsubscribe, "unsubscribe", Some(2)),
    (Method::Disconnect, "disconnect", Some(3)),
    (Method::Presence, "presence", Some(4)),
    (Method::PresenceStats, "presence_stats", Some(5)),
    (Method::History, "history", Some(6)),
    (Method::HistoryRemove, "history_remove", Some(7)),
    (Method::Channels, "channels", Some(8)),
    (Method::Info, "info", Some(9)),
    (Method::Rpc, "rpc", Some(10)),
    (Method::Refresh, "refresh", Some(12)),
    (Method::BlockUser, "block_user", None),
    (Method::UnblockUser, "unblock_user", None),
    (Method::RevokeToken, "revoke_token", None),
    (Method::UserStatus, "user_status", None),
    (Method::DeadLetters, "dead_letters", None),
    (Method::DeadLettersRetry, "dead_letters_retry", None),
    (Method::DeadLettersRemove, "dead_letters_remove", None),
];

const NOT_SERVED: [&str; 7] = [
    "map_publish",
    "map_remove",
    "map_read_state",
    "map_read_stream",
    "map_stats",
    "map_clear",
    "shared_poll_publish",
];

impl Method {
    pub(super) fn served() -> impl Iterator<Item = Self> {
        SERVED.iter().map(|(method, ..)| *method)
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        let served = SERVED.iter().find(|(_, own, _)| *own == name).map(|(method, ..)| *method);
        served.or_else(|| NOT_SERVED.contains(&name).then_some(Self::NotServed))
    }

    pub(super) fn numbered(number: i64) -> Self {
        SERVED.iter().find(|(.., own)| *own == Some(number)).map_or(Self::NotServed, |(method, ..)| *method)
    }

    pub(super) fn name(self) -> &'static str {
        SERVED.iter().find(|(method, ..)| *method == self).map_or(OTHER, |(_, name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_go_back_and_forth() {
        for (method, name, number) in SERVED {
            assert_eq!(Method::named(name), Some(method));
            assert!(number.is_none_or(|number| Method::numbered(number) == method));
            assert_eq!(method.name(), name);
        }
        assert_eq!(Method::served().count(), 20);
        assert_eq!(Method::named("shared_poll_publish"), Some(Method::NotServed));
        assert_eq!(Method::NotServed.name(), "other");
        for number in [-1, 13, 33, 39, i64::MAX] {
            assert_eq!(Method::numbered(number), Method::NotServed);
        }
        assert_eq!(Method::named("batch"), None);
        assert_eq!(Method::named(""), None);
    }

    #[test]
    fn labels_are_one_each() {
        let mut labels = LABELS.to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), LABELS.len());
        for label in ["publish", "refresh", "batch", "pipeline", "other"] {
            assert!(labels.contains(&label), "{label}");
        }
    }
}
