//! The hooks of the settings: which of them is asked about what.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::time::Duration;

use fanwire_protocol::reason::RequestError;

use crate::kept::KeptRules;

/// A hook of the settings, by its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HookSlot(NonZeroU16);

impl HookSlot {
    /// There are fewer than 65,535.
    pub const fn new(place: u16) -> Self {
        Self(NonZeroU16::MIN.saturating_add(place))
    }

    pub fn place(self) -> usize {
        usize::from(self.0.get() - 1)
    }
}

/// The hooks that topics of a namespace have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceHooks {
    /// Decides who may subscribe without a token.
    pub subscribe: Option<HookSlot>,
    /// Decides on each publication of a client, in place of `allow_publish_for_client` and its like.
    pub publish: Option<HookSlot>,
    /// Prolongs subscriptions that expire, in place of their clients.
    pub sub_refresh: Option<HookSlot>,
}

/// The hooks that clients have.
#[derive(Clone, Debug, Default)]
pub struct ClientHooks {
    /// Says who a client without a token is.
    pub connect: Option<HookSlot>,
    /// Prolongs connections that expire, in place of their clients.
    pub refresh: Option<HookSlot>,
    /// Gets the messages that clients send without a topic.
    pub send: Option<HookSlot>,
    pub rpc: RpcHooks,
    /// The longest time that the answer of any hook may take.
    pub patience: Duration,
    pub kept: KeptRules,
}

/// The hooks that answer methods, by the namespace in the method's name.
#[derive(Clone, Debug, Default)]
pub struct RpcHooks {
    /// For methods without a namespace.
    pub default: Option<HookSlot>,
    /// Ends the name of the namespace; empty: methods have none.
    pub namespace_boundary: String,
    pub namespaces: HashMap<String, Option<HookSlot>>,
}

impl RpcHooks {
    /// Returns the hook that answers a method.
    pub fn of(&self, method: &str) -> Result<HookSlot, RequestError> {
        if self.default.is_none() && self.namespaces.is_empty() {
            return Err(RequestError::NotAvailable);
        }
        let boundary = Some(&*self.namespace_boundary).filter(|boundary| !boundary.is_empty());
        let hook = match boundary.and_then(|boundary| method.split_once(boundary)) {
            Some((namespace, _)) => *self.namespaces.get(namespace).ok_or(RequestError::MethodNotFound)?,
            None => self.default,
        };
        hook.ok_or(RequestError::NotAvailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_find_their_hook_or_say_why_not() {
        let [default, users] = [0, 1].map(HookSlot::new);
        assert_eq!((default.place(), users.place(), size_of::<Option<HookSlot>>()), (0, 1, 2));
        let namespaces = HashMap::from([("users".to_owned(), Some(users)), ("off".to_owned(), None)]);
        let mut hooks = RpcHooks { default: Some(default), namespace_boundary: ":".to_owned(), namespaces };
        for (method, hook) in [
            ("get", Ok(default)),
            ("users:get", Ok(users)),
            ("users:get:one", Ok(users)),
            ("off:get", Err(RequestError::NotAvailable)),
            ("other:get", Err(RequestError::MethodNotFound)),
            (":get", Err(RequestError::MethodNotFound)),
            ("", Ok(default)),
        ] {
            assert_eq!(hooks.of(method), hook, "{method:?}");
        }
        hooks.default = None;
        assert_eq!(hooks.of("get"), Err(RequestError::NotAvailable));
        hooks.namespace_boundary = String::new();
        assert_eq!(hooks.of("users:get"), Err(RequestError::NotAvailable));
        assert_eq!(RpcHooks::default().of("users:get"), Err(RequestError::NotAvailable));
    }
}
