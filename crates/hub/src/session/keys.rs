//! Requests whose token names a key that is being fetched: they are served once the keys are there, and wait no second time.

use fanwire_protocol::request::{Ask, Request};

use super::asking::{Asking, Step};
use super::{Context, Phase, Session, named};
use crate::effect::Effect;
use crate::{KeyFetch, TokenKind};

impl Context<'_> {
    /// Returns the keys that a request has to wait for.
    pub(super) fn keys_for(&self, ask: &Ask) -> Option<KeyFetch> {
        let (kind, token) = match ask {
            Ask::Connect(connect) => (TokenKind::Connection, &connect.token),
            Ask::Refresh { token } => (TokenKind::Connection, token),
            Ask::Subscribe(subscribe) => (TokenKind::Subscription, &subscribe.token),
            Ask::SubRefresh(refresh) => (TokenKind::Subscription, &refresh.token),
            _ => return None,
        };
        if token.is_empty() { None } else { self.tokens.awaits_keys(kind, token) }
    }
}

impl Session {
    /// Serves a request with a token, once it can be verified.
    pub(super) fn serve_by_token(&mut self, context: &mut Context<'_>, request: Request) {
        match context.keys_for(&request.ask) {
            Some(keys) => self.wait_for_keys(context, keys, request),
            None => self.serve_with_keys(context, request),
        }
    }

    /// Serves a request with a token, which can be verified or not.
    fn serve_with_keys(&mut self, context: &mut Context<'_>, request: Request) {
        let Request { id, ask } = request;
        match ask {
            Ask::Subscribe(subscribe) => self.subscribe(context, id, subscribe),
            Ask::Refresh { token } => self.refresh(context, id, &token),
            Ask::SubRefresh(refresh) => self.sub_refresh(context, id, &refresh),
            // The others have no token.
            _ => {}
        }
    }

    /// Lets a request wait for keys.
    #[cold]
    #[inline(never)]
    pub(super) fn wait_for_keys(&mut self, context: &mut Context<'_>, keys: KeyFetch, request: Request) {
        let topic = request.topic().and_then(|topic| named(topic).ok());
        let number = self.begin_asking(None, Step::Retry { topic, request: request.into() });
        context.effects.push(Effect::AwaitKeys { number, keys });
    }

    /// Serves a request that waited for keys. Where they could not be had, its token cannot be verified.
    #[cold]
    pub(super) fn keys_fetched(&mut self, context: &mut Context<'_>, number: u32) {
        let Some(Asking { step: Step::Retry { request, .. }, waiting, .. }) = self.take_asking(number) else {
            return;
        };
        match (self.phase, *request) {
            (Phase::Fresh, request) => self.prepare_with_keys(context, request),
            (Phase::Connecting, Request { id, ask: Ask::Connect(connect) }) => {
                self.connect_with_keys(context, id, connect);
            }
            (_, request) => self.serve_with_keys(context, request),
        }
        self.serve_waiting(context, waiting);
        self.rest();
    }
}
