//! Permissions in a topic, by namespace and user. A subscription that a token grants does not need them.

use fanwire_protocol::TopicName;

use crate::hook_settings::HookSlot;
use crate::{ClientSettings, Namespace, Namespaces};

/// A client that asks for something in a topic.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Empty: anonymous.
    user: &'a str,
    /// It is subscribed to the topic, or about to be.
    subscribed: bool,
    /// The topic's name does not shut it out: a private topic is open to its subscribers alone, and one that lists its
    /// users to those as well.
    admitted: bool,
}

impl<'a> Asker<'a> {
    pub fn new(
        namespaces: &Namespaces,
        namespace: &Namespace,
        topic: &TopicName,
        user: &'a str,
        subscribed: bool,
    ) -> Self {
        let is_open =
            || !namespaces.is_private(topic) && lists(namespaces, namespace, topic, user).unwrap_or(true);
        let admitted = subscribed || is_open();
        Self { user, subscribed, admitted }
    }

    pub fn subscriber(user: &'a str) -> Self {
        Self { user, subscribed: true, admitted: true }
    }

    /// The rule that publish, presence and history share: `for_client` grants nothing in a topic whose name shuts the
    /// client out, and `for_anonymous` only opens the other two to the anonymous user.
    fn has(self, for_client: bool, for_subscriber: bool, for_anonymous: bool) -> bool {
        self.admitted
            && (for_client || (for_subscriber && self.subscribed))
            && (!self.user.is_empty() || for_anonymous)
    }
}

/// Returns whether a topic whose name lists users lists this one; `None` for names without a list.
fn lists(namespaces: &Namespaces, namespace: &Namespace, topic: &TopicName, user: &str) -> Option<bool> {
    let mut users = namespaces.users_of(topic)?;
    Some(namespace.allow_user_limited_topics && !user.is_empty() && users.any(|u| u == user))
}

/// Returns the hook that decides who may subscribe to the topic without a token. It decides on no private topic, and on none
/// whose name lists its users.
pub fn subscribe_hook(namespaces: &Namespaces, namespace: &Namespace, topic: &TopicName) -> Option<HookSlot> {
    let decides = || !namespaces.is_private(topic) && namespaces.users_of(topic).is_none();
    namespace.hooks.subscribe.filter(|_| decides())
}

/// Returns whether a client may subscribe without a subscription token, and without a hook.
pub fn may_subscribe(
    settings: &ClientSettings,
    namespaces: &Namespaces,
    namespace: &Namespace,
    topic: &TopicName,
    user: &str,
) -> bool {
    if namespaces.is_private(topic) || subscribe_hook(namespaces, namespace, topic).is_some() {
        return false;
    }
    // A name that lists users is never open to everybody, whatever else the namespace allows.
    let is_open =
        namespace.allow_subscribe_for_client && (!user.is_empty() || namespace.allow_subscribe_for_anonymous);
    lists(namespaces, namespace, topic, user).unwrap_or(is_open) || settings.insecure
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
