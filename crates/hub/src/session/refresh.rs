//! New tokens for old: for the connection and for a subscription.

use fanwire_protocol::centrifuge::{ExpiryResult, ReplyMessage, SubRefreshRequest, SubRefreshResult};
use fanwire_protocol::{Disconnect, ErrorCode};

use super::connect::fingerprint;
use super::refusal::{no_channel, unfit_token};
use super::timing::{AlreadyOver, token_ttl};
use super::{Context, Refusal, Session};
use crate::TokenError;

impl Session {
    pub(super) fn refresh(&mut self, context: &mut Context<'_>, id: u32, token: &str) {
        if token.is_empty() {
            let why = "token is empty; send a new connection token";
            return self.close(context, Disconnect::bad_request(why));
        }
        let claims = match context.tokens.connection(token, context.now.unix()) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return self.close(context, Disconnect::EXPIRED),
            Err(TokenError::Invalid(_)) => return self.close(context, Disconnect::INVALID_TOKEN),
            Err(TokenError::Unavailable) => return context.refuse(id, ErrorCode::INTERNAL),
        };
        if *claims.user != *self.user() {
            return self.close(context, Disconnect::INVALID_TOKEN);
        }
        if let Err(unfit) = context.settings.info_format.check_info(&claims.info) {
            return self.close(context, unfit_token(unfit.of("info")));
        }
        let ttl = match token_ttl(claims.expiry, context) {
            Ok(ttl) => ttl,
            Err(AlreadyOver) => return context.refuse(id, ErrorCode::EXPIRED),
        };
        if fingerprint(&claims.topics) != self.grants {
            // The client comes back and gets the new set of subscriptions.
            return self.close(context, Disconnect::INSUFFICIENT_STATE);
        }
        // A token that says nothing of the client leaves what an earlier one said.
        if !claims.info.is_empty() {
            self.set_connection_info(context, claims.info);
        }
        self.expire_after(context, ttl);
        let result = ExpiryResult { expires: ttl.is_some(), ttl: ttl.unwrap_or(0) };
        context.reply(ReplyMessage { id, refresh: Some(result), ..ReplyMessage::default() });
    }

    pub(super) fn sub_refresh(&mut self, context: &mut Context<'_>, id: u32, request: &SubRefreshRequest) {
        if request.channel.is_empty() {
            return self.close(context, no_channel());
        }
        let topic = context.registry.find(&request.channel);
        let Some(topic) = topic.filter(|&topic| self.subscriptions.find(topic).is_some()) else {
            return context.refuse(id, ErrorCode::PERMISSION_DENIED);
        };
        if request.token.is_empty() {
            let why = "token is empty; send a new subscription token";
            return self.refuse(context, id, Refusal::bad_request(why));
        }
        if request.kind != 0 {
            return self.refuse(context, id, Refusal::bad_request("type is not 0; leave it out"));
        }
        let claims = match context.tokens.subscription(&request.token, context.now.unix()) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return context.refuse(id, ErrorCode::EXPIRED),
            Err(TokenError::Invalid(_)) => return self.close(context, Disconnect::INVALID_TOKEN),
            Err(TokenError::Unavailable) => return context.refuse(id, ErrorCode::INTERNAL),
        };
        if !self.is_for(&claims, &request.channel) {
            return self.close(context, Disconnect::INVALID_TOKEN);
        }
        let ttl = match token_ttl(claims.expiry, context) {
            Ok(ttl) => ttl,
            Err(AlreadyOver) => return context.refuse(id, ErrorCode::EXPIRED),
        };
        let close_at = Self::subscription_close_at(context, ttl);
        if let Some(subscription) = self.subscriptions.find_mut(topic) {
            subscription.close_at = close_at;
        }
        self.note_subscription_end();
        let result = SubRefreshResult { expires: ttl.is_some(), ttl: ttl.unwrap_or(0) };
        context.reply(ReplyMessage { id, sub_refresh: Some(result), ..ReplyMessage::default() });
    }
}
