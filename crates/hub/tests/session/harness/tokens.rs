//! A table of tokens in place of signatures. Each is named after what it says.

use std::collections::HashMap;

use bytes::Bytes;
use fanwire_hub::session::Verify;
use fanwire_hub::{
    ConnectionClaims, Expiry, GrantOptions, KeyFetch, SubscriptionClaims, TokenError, TokenKind, TopicGrant,
};

use super::START;

pub(crate) struct Tokens {
    connection: HashMap<String, Result<ConnectionClaims, TokenError>>,
    subscription: HashMap<String, Result<SubscriptionClaims, TokenError>>,
    /// Tokens whose keys are being fetched.
    pub(crate) awaited: HashMap<String, KeyFetch>,
}

impl Tokens {
    pub(crate) fn add_connection(&mut self, token: &str, claims: ConnectionClaims) {
        self.connection.insert(token.into(), Ok(claims));
    }

    pub(crate) fn add_subscription(&mut self, token: &str, claims: SubscriptionClaims) {
        self.subscription.insert(token.into(), Ok(claims));
    }
}

/// The claims of a plain connection token of a user.
pub(crate) fn user(user: &str) -> ConnectionClaims {
    ConnectionClaims {
        user: user.into(),
        expiry: Expiry::Never,
        info: Bytes::new(),
        topics: Vec::new(),
        extras: None,
    }
}

/// A server-side subscription without options.
pub(crate) fn grant(topic: &str) -> TopicGrant {
    TopicGrant { topic: topic.into(), options: GrantOptions::default() }
}

/// The claims of a plain subscription token of user 42.
pub(crate) fn to(topic: &str) -> SubscriptionClaims {
    SubscriptionClaims {
        user: "42".into(),
        topic: topic.into(),
        client: "".into(),
        expiry: Expiry::Never,
        options: GrantOptions::default(),
    }
}

impl Default for Tokens {
    fn default() -> Self {
        let ends = |seconds| Expiry::At(START + seconds);
        let refused = [
            ("expired", TokenError::Expired),
            ("invalid", TokenError::Invalid("signature")),
            ("unavailable", TokenError::Unavailable),
        ];
        let connection = [
            ("42", user("42")),
            ("43", user("43")),
            ("nobody", user("")),
            ("42 with info", ConnectionClaims { info: r#"{"name":"Ada"}"#.into(), ..user("42") }),
            ("42 for a minute", ConnectionClaims { expiry: ends(60), ..user("42") }),
            ("42 for two minutes", ConnectionClaims { expiry: ends(120), ..user("42") }),
            ("42 for two years", ConnectionClaims { expiry: ends(2 * 365 * 24 * 3600), ..user("42") }),
            ("42 is over", ConnectionClaims { expiry: ends(0), ..user("42") }),
        ];
        let own = |number| super::lines::client_id(number).into();
        let subscription = [
            ("news", to("news")),
            ("$news", to("$news")),
            ("other", to("other")),
            ("news for 43", SubscriptionClaims { user: "43".into(), ..to("news") }),
            ("news for nobody", SubscriptionClaims { user: "".into(), ..to("news") }),
            ("news for client-1", SubscriptionClaims { client: own(1), ..to("news") }),
            ("news for client-2", SubscriptionClaims { client: own(2), ..to("news") }),
            ("news for a minute", SubscriptionClaims { expiry: ends(60), ..to("news") }),
            ("news for two minutes", SubscriptionClaims { expiry: ends(120), ..to("news") }),
            ("news is over", SubscriptionClaims { expiry: ends(0), ..to("news") }),
        ];
        let errors = || refused.map(|(token, error)| (token.to_owned(), error));
        let mut tokens = Self {
            connection: errors().into_iter().map(|(token, error)| (token, Err(error))).collect(),
            subscription: errors().into_iter().map(|(token, error)| (token, Err(error))).collect(),
            awaited: HashMap::new(),
        };
        connection.into_iter().for_each(|(token, claims)| tokens.add_connection(token, claims));
        subscription.into_iter().for_each(|(token, claims)| tokens.add_subscription(token, claims));
        tokens
    }
}

impl Verify for Tokens {
    fn connection(&self, token: &str, _unix: i64) -> Result<ConnectionClaims, TokenError> {
        self.connection.get(token).cloned().unwrap_or(Err(TokenError::Invalid("not in the table")))
    }

    fn subscription(&self, token: &str, _unix: i64) -> Result<SubscriptionClaims, TokenError> {
        self.subscription.get(token).cloned().unwrap_or(Err(TokenError::Invalid("not in the table")))
    }

    fn awaits_keys(&self, _: TokenKind, token: &str) -> Option<KeyFetch> {
        self.awaited.get(token).copied()
    }

    fn is_blocked(&self, _: &str, _: i64) -> bool {
        false
    }
}
