//! A client that publishes without a session: a token says who it is, and the rules are those of sessions.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::reason::{Close, CloseReason, Refused, RequestError};
use fanwire_protocol::{ClientId, ClientInfo, TopicName};

use super::asking::Draft;
use super::connect::claims;
use super::hooked::hooked_publication;
use super::publish::{check_data, check_permission};
use super::timing::{AlreadyOver, token_ttl};
use super::{Now, Refusal, Verify, named};
use crate::hook::{HookDenial, HookQuestion, HookResult, PublishOptions};
use crate::hook_settings::HookSlot;
use crate::kept::{Kept, META_TOO_LONG, TooLong};
use crate::{ClientSettings, ConnectionClaims, Namespaces};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPublisher {
    user: Box<str>,
    info: Bytes,
    /// Sent to hooks; empty: none.
    meta: Bytes,
}

/// The refusal of a client without a session, as a session would have said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    Reply(Refused),
    Close(Close),
    /// The answer of a hook cannot be used. The words are for the operator, and the client may try again.
    UnfitAnswer(String),
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Error(error) => Self::Reply(error.into()),
            Refusal::Mistake(mistake) => Self::Reply(mistake.into()),
            Refusal::Refused(refused) => Self::Reply(refused),
            Refusal::UnfitAnswer(why) => Self::UnfitAnswer(why.into()),
            Refusal::Unfit(unfit) => Self::Close(Close::unfit_token(unfit)),
            Refusal::Close(close) => Self::Close(close),
        }
    }
}

impl RequestPublisher {
    /// Returns the client that a connection token names; an empty token is none.
    pub fn new(
        settings: &ClientSettings,
        namespaces: &Namespaces,
        tokens: &dyn Verify,
        now: Now,
        token: &str,
    ) -> Result<Self, Denial> {
        let claims = claims(settings, tokens, now, token)?;
        if tokens.is_blocked(&claims.user, now.unix()) {
            return Err(Refusal::from(CloseReason::PermissionDenied).into());
        }
        let over = |AlreadyOver| Refusal::from(RequestError::Expired);
        token_ttl(claims.expiry, settings, now).map_err(over)?;
        claims.check(settings.info_format, namespaces).map_err(Refusal::from)?;
        let ConnectionClaims { user, info, extras, .. } = claims;
        Ok(Self { user, info, meta: extras.unwrap_or_default().meta })
    }

    /// Empty: anonymous.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Checks everything about a publication but its data, and returns its topic, with the hook that is to decide on it in
    /// place of permissions. The client is subscribed to nothing.
    pub fn check(
        &self,
        settings: &ClientSettings,
        namespaces: &Namespaces,
        topic: &str,
    ) -> Result<(TopicName, Option<HookSlot>), Denial> {
        let topic = named(topic).map_err(Refusal::from)?;
        let namespace = namespaces.of(&topic).map_err(Refusal::from)?;
        if namespace.status {
            return Err(Refusal::from(RequestError::NotAvailable).into());
        }
        if namespace.hooks.publish.is_none() {
            check_permission(settings, namespaces, namespace, &self.user, &topic, false)?;
        }
        Ok((topic, namespace.hooks.publish))
    }

    /// Checks the data of a publication in a topic that passed.
    pub fn check_data(namespaces: &Namespaces, topic: &TopicName, data: &[u8]) -> Result<(), Denial> {
        Ok(check_data(namespaces.of(topic).map_err(Refusal::from)?, data)?)
    }

    /// Returns the question to the hook of a publication, which is sent what was kept of the request and of the token.
    pub fn question(
        &self,
        settings: &ClientSettings,
        slot: HookSlot,
        client: ClientId,
        draft: &Draft,
        kept: Kept,
    ) -> Result<HookQuestion, Denial> {
        let kept = kept.with_meta(&settings.hooks.kept, self.meta.clone());
        let kept = kept.map_err(|TooLong| Denial::Close(Close::unfit_token(META_TOO_LONG)))?;
        let kept = (!kept.is_empty()).then(|| Arc::new(kept));
        let user = self.user.clone();
        Ok(HookQuestion { number: 0, slot, client, user, wire: None, event: draft.event(), kept })
    }

    /// Returns the publication as its hook wants it.
    pub fn hooked(
        namespaces: &Namespaces,
        draft: Draft,
        outcome: Result<HookResult, HookDenial>,
    ) -> Result<(Draft, PublishOptions), Denial> {
        hooked_publication(namespaces, draft, outcome).map_err(|refusal| match refusal.fault_of_hook() {
            Ok(fault) => Denial::UnfitAnswer(fault),
            Err(refusal) => refusal.into(),
        })
    }

    /// Returns the client as others see it.
    pub fn into_info(self, client: ClientId) -> ClientInfo {
        ClientInfo { user: self.user, client, connection: self.info, subscription: Bytes::new() }
    }
}
