//! Controlling clients: `subscribe`, `unsubscribe`, `disconnect`, `refresh`. It is no error if the client or user is not
//! connected.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_hub::session::{Control, ServerSubscribe};
use fanwire_hub::{Expiry, GrantOptions, Overrides};
use fanwire_protocol::ClientId;
use fanwire_protocol::centrifuge::Empty;
use fanwire_protocol::json::fields::nested;
use fanwire_protocol::json::null_is_default;
use fanwire_protocol::reason::{Close, CloseReason, RequestError, Unsubscribed};
use fanwire_protocol::request::StreamPosition;
use serde::Deserialize;

use super::decode::{self, payload};
use super::error::ApiError;
use super::history::ApiPosition;
use crate::node::{Audience, Node};
use crate::overrides::OverrideOptions;
use crate::session_key::SessionKey;

/// Codes that an API call may close a connection with.
const DISCONNECT_CODES: std::ops::RangeInclusive<u16> = 3000..=4999;

/// The clients that a request is for: fields of the same object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Whom {
    #[serde(deserialize_with = "null_is_default")]
    user: Box<str>,
    #[serde(deserialize_with = "null_is_default")]
    client: String,
    #[serde(deserialize_with = "null_is_default")]
    session: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiSubscribe {
    #[serde(alias = "topic", deserialize_with = "null_is_default")]
    channel: String,
    /// Seconds since 1970; 0 is never.
    #[serde(deserialize_with = "null_is_default")]
    expire_at: i64,
    #[serde(deserialize_with = "decode::info")]
    info: Bytes,
    #[serde(deserialize_with = "null_is_default")]
    b64info: String,
    #[serde(deserialize_with = "decode::info")]
    data: Bytes,
    #[serde(deserialize_with = "null_is_default")]
    b64data: String,
    #[serde(deserialize_with = "nested")]
    recover_since: Option<ApiPosition>,
    #[serde(rename = "override", deserialize_with = "nested")]
    overrides: Option<OverrideOptions>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiUnsubscribe {
    #[serde(alias = "topic", deserialize_with = "null_is_default")]
    channel: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiDisconnect {
    /// Clients of the user that stay.
    #[serde(deserialize_with = "null_is_default")]
    whitelist: Vec<String>,
    #[serde(deserialize_with = "nested")]
    disconnect: Option<DisconnectWith>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DisconnectWith {
    #[serde(deserialize_with = "null_is_default")]
    code: u32,
    #[serde(deserialize_with = "null_is_default")]
    reason: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiRefresh {
    #[serde(deserialize_with = "null_is_default")]
    expired: bool,
    #[serde(deserialize_with = "null_is_default")]
    expire_at: i64,
    #[serde(deserialize_with = "decode::info")]
    info: Bytes,
}

impl ApiSubscribe {
    pub(super) async fn run(self, node: &Node, whom: Whom) -> Result<Empty, ApiError> {
        let (topic, namespace) = node.topic(&self.channel)?;
        let expiry = expiry(self.expire_at);
        if matches!(expiry, Expiry::At(unix) if unix <= node.now().unix()) {
            return Err(RequestError::Expired.into());
        }
        let options = GrantOptions {
            info: payload(self.info, &self.b64info, "b64info")?,
            data: payload(self.data, &self.b64data, "b64data")?,
            overrides: self.overrides.map(Overrides::from).unwrap_or_default(),
        };
        options.check(namespace.publication_format, ["info or b64info", "data or b64data"])?;
        let recover_since = self.recover_since.map(StreamPosition::from);
        let subscribe = Arc::new(ServerSubscribe { topic, options, expiry, recover_since });
        order(node, whom, Vec::new(), Control::Subscribe(subscribe)).await
    }
}

impl ApiUnsubscribe {
    pub(super) async fn run(self, node: &Node, whom: Whom) -> Result<Empty, ApiError> {
        let (topic, _) = node.topic(&self.channel)?;
        order(node, whom, Vec::new(), Control::Unsubscribe { topic, reason: Unsubscribed::ByServer }).await
    }
}

impl ApiDisconnect {
    pub(super) async fn run(self, node: &Node, whom: Whom) -> Result<Empty, ApiError> {
        let close = self.disconnect.map_or(Ok(CloseReason::ForceDisconnect.into()), Close::try_from)?;
        // What is no client's id is the id of no client.
        let except = self.whitelist.iter().filter_map(|client| ClientId::parse(client)).collect();
        order(node, whom, except, Control::Disconnect(close)).await
    }
}

impl ApiRefresh {
    pub(super) async fn run(self, node: &Node, whom: Whom) -> Result<Empty, ApiError> {
        let control = if self.expired {
            Control::Disconnect(CloseReason::Expired.into())
        } else {
            let info = (!self.info.is_empty()).then_some(self.info);
            Control::Refresh { expiry: expiry(self.expire_at), info }
        };
        order(node, whom, Vec::new(), control).await
    }
}

async fn order(node: &Node, whom: Whom, except: Vec<ClientId>, control: Control) -> Result<Empty, ApiError> {
    if let Some(audience) = whom.audience(except)? {
        node.control(audience, control).await?;
    }
    Ok(Empty {})
}

impl Whom {
    /// Returns `None` if no client can be meant: a text is no client's id, or no session's key.
    fn audience(self, except: Vec<ClientId>) -> Result<Option<Audience>, ApiError> {
        let Self { user, client, session } = self;
        if user.is_empty() && client.is_empty() && session.is_empty() {
            return Err(ApiError::bad_request("user, client and session are empty; send one of them"));
        }
        let (id, key) = (ClientId::parse(&client), SessionKey::parse(&session));
        if (id.is_none() && !client.is_empty()) || (key.is_none() && !session.is_empty()) {
            return Ok(None);
        }
        Ok(Some(Audience { user: (!user.is_empty()).then_some(user), client: id, session: key, except }))
    }
}

fn expiry(expire_at: i64) -> Expiry {
    if expire_at == 0 { Expiry::Never } else { Expiry::At(expire_at) }
}

impl TryFrom<DisconnectWith> for Close {
    type Error = ApiError;

    fn try_from(DisconnectWith { code, reason }: DisconnectWith) -> Result<Self, ApiError> {
        let code = u16::try_from(code).ok().filter(|code| DISCONNECT_CODES.contains(code));
        let code = code.ok_or_else(|| {
            let (first, last) = (DISCONNECT_CODES.start(), DISCONNECT_CODES.end());
            ApiError::bad_request(format!("disconnect.code has to be {first} to {last}"))
        })?;
        Ok(Self::by_application(code, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanwire_protocol::centrifuge::codes;
    use fanwire_protocol::json::fields::object;

    const ID: &str = "0b8c4c5e-3a43-4e8e-9d5f-6a3f0a7c1d22";

    #[test]
    fn somebody_has_to_be_meant() {
        let audience = |user: &str, client: &str, session: &str| {
            let whom = Whom { user: user.into(), client: client.into(), session: session.into() };
            whom.audience(Vec::new()).map(|audience| audience.map(|a| (a.user, a.client)))
        };
        let id = ClientId::parse(ID);
        assert_eq!(audience("", "", "").unwrap_err().code(), 107);
        assert_eq!(audience("42", "", ""), Ok(Some((Some("42".into()), None))));
        assert_eq!(audience("42", ID, ""), Ok(Some((Some("42".into()), id))));
        assert_eq!(audience("", ID, ""), Ok(Some((None, id))));
        assert_eq!(audience("42", "no id", ""), Ok(None));
        assert_eq!(audience("", "", "s"), Ok(None));
        assert_eq!(audience("42", ID, "s"), Ok(None));
        let session = "A".repeat(80);
        assert_eq!(audience("", "", &session), Ok(Some((None, None))));
        assert_eq!(audience("42", ID, &session), Ok(Some((Some("42".into()), id))));
        assert_eq!(audience("42", "no id", &session), Ok(None));
    }

    #[test]
    fn requests_name_whom_they_are_for() {
        let text = r#"{"user":"42","client":null,"channel":"a","info":{"b": 1},"data":null}"#;
        let (whom, request): (Whom, ApiSubscribe) = (object(text).unwrap(), object(text).unwrap());
        assert_eq!((&*whom.user, &*whom.client, &*request.channel), ("42", "", "a"));
        assert_eq!((&*request.info, &*request.data), (&b"{\"b\": 1}"[..], &b""[..]));
    }

    #[test]
    fn codes_and_reasons_of_disconnects_are_checked() {
        let disconnect = |code, reason: &str| {
            Close::try_from(DisconnectWith { code, reason: reason.into() })
                .map(|close| (codes::close(&close).0, codes::close(&close).1.into_owned()))
                .map_err(|error| error.code())
        };
        assert_eq!(disconnect(4000, "bye"), Ok((4000, "bye".into())));
        assert_eq!(disconnect(3000, ""), Ok((3000, String::new())));
        for code in [0, 1000, 2999, 5000, 65536 + 4000, u32::MAX] {
            assert_eq!(disconnect(code, "bye"), Err(107));
        }
        assert_eq!(disconnect(4999, &"x".repeat(200)), Ok((4999, "x".repeat(123))));
        assert_eq!(disconnect(4999, &"ä".repeat(100)), Ok((4999, "ä".repeat(61))));
        assert_eq!(disconnect(4999, &"€".repeat(41)), Ok((4999, "€".repeat(41))));
    }

    #[test]
    fn zero_is_never() {
        assert_eq!(expiry(0), Expiry::Never);
        assert_eq!(expiry(7), Expiry::At(7));
    }
}
