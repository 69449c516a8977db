//! Who and what is no longer trusted: `block_user`, `unblock_user` and `revoke_token`. It is written to the engine first,
//! so that a node which comes later knows it, and then told to every node.

use fanwire_hub::session::Control;
use fanwire_protocol::centrifuge::Empty;
use fanwire_protocol::json::null_is_default;
use fanwire_protocol::reason::{CloseReason, RequestError};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use crate::auth::{REVOKED_BYTES_MAX, Revoked, TokenName};
use crate::node::{Audience, Node};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiBlockUser {
    #[serde(deserialize_with = "null_is_default")]
    user: Box<str>,
    /// Seconds since 1970; 0 is never.
    #[serde(deserialize_with = "null_is_default")]
    expire_at: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiUnblockUser {
    #[serde(deserialize_with = "null_is_default")]
    user: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiRevokeToken {
    /// The token's claim `jti`.
    #[serde(deserialize_with = "null_is_default")]
    jti: Box<str>,
    /// The token itself, in place of that.
    #[serde(deserialize_with = "null_is_default")]
    token: Box<str>,
    /// Seconds since 1970; 0 is never.
    #[serde(deserialize_with = "null_is_default")]
    expire_at: i64,
}

/// A change that the engine keeps.
pub(super) struct Kept {
    name: String,
    /// `None` removes it.
    until: Option<i64>,
}

impl Kept {
    /// Writes it to the engine that nodes share.
    pub(super) async fn write(self, node: &Node) -> Result<(), ApiError> {
        let Some(peers) = &node.peers else { return Ok(()) };
        let written = match self.until {
            Some(until) => peers.redis().put_revocation(&self.name, until).await,
            None => peers.redis().remove_revocations(&[self.name.into()]).await,
        };
        written.map_err(|_| RequestError::Internal.into())
    }
}

impl ApiBlockUser {
    pub(super) fn kept(&self, node: &Node) -> Result<Kept, ApiError> {
        named("user", &self.user)?;
        in_time(self.expire_at, node)?;
        Ok(Kept { name: Revoked::User(&self.user).to_string(), until: Some(self.expire_at) })
    }

    pub(super) async fn run(self, node: &Node) -> Result<Empty, ApiError> {
        put(node, Revoked::User(&self.user), self.expire_at)?;
        // Whoever connects meanwhile looks the user up once more after this.
        let audience = Audience { user: Some(self.user), ..Audience::default() };
        node.control(audience, Control::Disconnect(CloseReason::PermissionDenied.into())).await?;
        Ok(Empty {})
    }
}

impl ApiUnblockUser {
    pub(super) fn kept(&self) -> Result<Kept, ApiError> {
        named("user", &self.user)?;
        Ok(Kept { name: Revoked::User(&self.user).to_string(), until: None })
    }

    pub(super) fn run(&self, node: &Node) -> Result<Empty, ApiError> {
        node.tokens.revocations().remove(Revoked::User(&self.user));
        Ok(Empty {})
    }
}

/// The result of `revoke_token`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct RevokeResult {
    /// `None` if connections of the token stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_closed: Option<u64>,
}

impl RevokeResult {
    /// Merges the results of all nodes.
    pub(super) fn merged(all: Vec<Self>) -> Self {
        Self { connections_closed: all.into_iter().map(|one| one.connections_closed).sum() }
    }
}

impl ApiRevokeToken {
    fn name(&self) -> Result<TokenName, ApiError> {
        match (&*self.jti, &*self.token) {
            ("", "") => Err(ApiError::bad_request("jti is empty, and so is token; send one of them")),
            (_, "") => Ok(TokenName::Id(self.jti.clone())),
            ("", token) => TokenName::of(token)
                .ok_or_else(|| ApiError::bad_request("token is no JSON Web Token of at most 16 KiB")),
            _ => Err(ApiError::bad_request("jti and token are both given; send one of them")),
        }
    }

    pub(super) fn kept(&self, node: &Node) -> Result<Kept, ApiError> {
        let name = self.name()?;
        in_time(self.expire_at, node)?;
        Ok(Kept { name: name.revoked().to_string(), until: Some(self.expire_at) })
    }

    pub(super) async fn run(self, node: &Node) -> Result<RevokeResult, ApiError> {
        let name = self.name()?;
        put(node, name.revoked(), self.expire_at)?;
        if !node.tokens.closes_revoked() {
            return Ok(RevokeResult::default());
        }
        let closed = node.close_revoked(node.tokens.revocations().print(name.revoked())).await;
        Ok(RevokeResult { connections_closed: Some(closed as u64) })
    }
}

fn named(field: &str, name: &str) -> Result<(), ApiError> {
    if name.is_empty() { Err(ApiError::bad_request(format!("{field} is empty"))) } else { Ok(()) }
}

fn in_time(expire_at: i64, node: &Node) -> Result<(), ApiError> {
    if expire_at != 0 && expire_at <= node.now().unix() {
        return Err(ApiError::bad_request(
            "expire_at is over; it is a time in seconds since 1970, or 0 for ever",
        ));
    }
    Ok(())
}

fn put(node: &Node, what: Revoked<'_>, until: i64) -> Result<(), ApiError> {
    node.tokens.revocations().put(what, until, node.now().unix()).map_err(|_| {
        ApiError::because(
            RequestError::LimitExceeded,
            format!(
                "{} MiB of blocked users and revoked tokens are kept; give them an expire_at",
                REVOKED_BYTES_MAX >> 20
            ),
        )
    })
}
