//! Who may do what in a topic, by namespace and user. Tokens are looked at before; hooks will be.

use crate::{ClientSettings, Namespace, Namespaces};

/// Whoever asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Empty: anonymous.
    pub user: &'a str,
    /// It is subscribed to the topic, or about to be.
    pub subscribed: bool,
}

impl Asker<'_> {
    /// The rule that publish, presence and history share: `for_anonymous` grants nothing by itself, it only
    /// opens the other two to the anonymous user.
    fn has(self, for_client: bool, for_subscriber: bool, for_anonymous: bool) -> bool {
        (for_client || (for_subscriber && self.subscribed)) && (!self.user.is_empty() || for_anonymous)
    }
}

/// Whether a client may subscribe without a subscription token.
pub fn may_subscribe(
    settings: &ClientSettings,
    topics: &Namespaces,
    namespace: &Namespace,
    topic: &str,
    user: &str,
) -> bool {
    if topics.is_private(topic) {
        return false;
    }
    let listed = match topics.users_of(topic) {
        // A name that lists users is never open to everybody, whatever else the namespace allows.
        Some(mut users) => {
            namespace.allow_user_limited_topics && !user.is_empty() && users.any(|u| u == user)
        }
        None => {
            namespace.allow_subscribe_for_client
                && (!user.is_empty() || namespace.allow_subscribe_for_anonymous)
        }
    };
    listed || settings.insecure
}

pub fn may_publish(settings: &ClientSettings, namespace: &Namespace, asker: Asker<'_>) -> bool {
    settings.insecure
        || asker.has(
            namespace.allow_publish_for_client,
            namespace.allow_publish_for_subscriber,
            namespace.allow_publish_for_anonymous,
        )
}

pub fn may_read_presence(settings: &ClientSettings, namespace: &Namespace, asker: Asker<'_>) -> bool {
    settings.insecure
        || asker.has(
            namespace.allow_presence_for_client,
            namespace.allow_presence_for_subscriber,
            namespace.allow_presence_for_anonymous,
        )
}

pub fn may_read_history(settings: &ClientSettings, namespace: &Namespace, asker: Asker<'_>) -> bool {
    settings.insecure
        || asker.has(
            namespace.allow_history_for_client,
            namespace.allow_history_for_subscriber,
            namespace.allow_history_for_anonymous,
        )
}
