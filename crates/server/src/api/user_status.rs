//! `user_status`: who is online, and when the others were last seen.

use std::collections::BTreeMap;

use fanwire_broker::UserStatus;
use fanwire_protocol::json::{is_default, null_is_default};
use fanwire_protocol::reason::RequestError;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::reply::{ApiReply, result};
use crate::node::Node;

/// The most users in one request.
const USERS_MAX: usize = 1000;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiUserStatus {
    #[serde(deserialize_with = "null_is_default")]
    users: Vec<Box<str>>,
}

#[derive(Serialize)]
struct UserStatusResult {
    users: BTreeMap<Box<str>, ApiStatus>,
}

#[derive(Serialize)]
struct ApiStatus {
    online: bool,
    connections: usize,
    /// Milliseconds since 1970; left out if it is not known.
    #[serde(skip_serializing_if = "is_default")]
    last_seen: i64,
}

impl From<UserStatus> for ApiStatus {
    fn from(UserStatus { online, connections, last_seen, .. }: UserStatus) -> Self {
        Self { online, connections, last_seen }
    }
}

pub(super) async fn user_status(node: &Node, request: ApiUserStatus) -> ApiReply {
    let ApiUserStatus { users } = request;
    let Some(statuses) = &node.statuses else {
        let why = "user status is off: set status = true in a namespace of [[topics.namespaces]]";
        return Err(ApiError::because(RequestError::NotAvailable, why));
    };
    if users.is_empty() || users.iter().any(|user| user.is_empty()) {
        return Err(ApiError::bad_request("users is empty, or has an empty name in it; name at least one"));
    }
    if users.len() > USERS_MAX {
        return Err(ApiError::bad_request(format!("more than {USERS_MAX} users; ask in several requests")));
    }
    let status = statuses.of(&users).await.map_err(|_| ApiError::from(RequestError::Internal))?;
    let users = users.into_iter().zip(status.into_iter().map(ApiStatus::from)).collect();
    result(&UserStatusResult { users })
}
