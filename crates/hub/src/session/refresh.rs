//! New tokens for old: for the connection and for a subscription.

use fanwire_protocol::reason::{Close, CloseReason, Mistake, RequestError, Unserved};
use fanwire_protocol::reply::Outcome;
use fanwire_protocol::request::SubRefresh;

use super::connect::fingerprint;
use super::timing::{AlreadyOver, token_ttl};
use super::{Context, Session, named};
use crate::TokenError;

impl Session {
    pub(super) fn refresh(&mut self, context: &mut Context<'_>, id: u32, token: &str) {
        if token.is_empty() {
            return self.close(context, Close::mistake(Mistake::EmptyConnectionToken));
        }
        if context.settings.hooks.refresh.is_some() {
            return self.close(context, Close::mistake(Mistake::RefreshByServer));
        }
        let claims = match context.tokens.connection(token, context.now.unix()) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return self.close(context, CloseReason::Expired),
            Err(TokenError::Invalid(_)) => return self.close(context, CloseReason::InvalidToken),
            Err(TokenError::Unavailable) => return context.refuse(id, RequestError::Internal),
        };
        if *claims.user != *self.user() {
            return self.close(context, CloseReason::InvalidToken);
        }
        if let Err(unfit) = context.settings.info_format.check_info(&claims.info) {
            return self.close(context, Close::unfit_token(unfit.of("info")));
        }
        let ttl = match token_ttl(claims.expiry, context.settings, context.now) {
            Ok(ttl) => ttl,
            Err(AlreadyOver) => return context.refuse(id, RequestError::Expired),
        };
        if fingerprint(&claims.topics) != self.grants {
            // The client comes back and gets the new set of subscriptions.
            return self.close(context, CloseReason::InsufficientState);
        }
        if let Some(extras) = claims.extras
            && let Err(close) = self.keep_extras(context, *extras)
        {
            return self.close(context, close);
        }
        // A token that says nothing of the client leaves what an earlier one said.
        if !claims.info.is_empty() {
            self.set_connection_info(context, claims.info);
        }
        self.expire_after(context, ttl);
        context.reply(id, Outcome::Refreshed { ttl });
    }

    pub(super) fn sub_refresh(&mut self, context: &mut Context<'_>, id: u32, request: &SubRefresh) {
        let topic = match named(&request.topic) {
            Ok(topic) => topic,
            Err(why) => return self.close(context, why),
        };
        let Some(slot) = self.subscription(context, &topic).map(|subscription| subscription.topic) else {
            return context.refuse(id, RequestError::PermissionDenied);
        };
        if context.namespace(&topic).is_ok_and(|namespace| namespace.hooks.sub_refresh.is_some()) {
            return context.refuse(id, RequestError::NotAvailable);
        }
        if request.token.is_empty() {
            return context.refuse(id, Mistake::EmptySubscriptionToken);
        }
        if request.is_unserved {
            return context.refuse(id, Mistake::Unserved(Unserved::Kind));
        }
        let claims = match context.tokens.subscription(&request.token, context.now.unix()) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return context.refuse(id, RequestError::Expired),
            Err(TokenError::Invalid(_)) => return self.close(context, CloseReason::InvalidToken),
            Err(TokenError::Unavailable) => return context.refuse(id, RequestError::Internal),
        };
        if !self.is_for(&claims, &topic) {
            return self.close(context, CloseReason::InvalidToken);
        }
        let ttl = match token_ttl(claims.expiry, context.settings, context.now) {
            Ok(ttl) => ttl,
            Err(AlreadyOver) => return context.refuse(id, RequestError::Expired),
        };
        let close_at = Self::subscription_close_at(context, ttl, false);
        if let Some(subscription) = self.subscriptions.find_mut(slot) {
            subscription.close_at = close_at;
        }
        self.note_subscription_end();
        context.reply(id, Outcome::SubRefreshed { ttl });
    }
}
