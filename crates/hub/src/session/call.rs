//! Calls of a client to the application: methods, and messages that nobody answers.

use bytes::Bytes;
use fanwire_protocol::reason::{CloseReason, RequestError};
use fanwire_protocol::reply::Outcome;

use super::asking::Step;
use super::{Context, Session};
use crate::hook::HookEvent;

impl Session {
    pub(super) fn call(&mut self, context: &mut Context<'_>, id: u32, method: String, data: Bytes) {
        let built_in = context.settings.rpc_ping_method.as_deref();
        if built_in == Some(&*method) {
            return context.reply(id, Outcome::Called(Bytes::new()));
        }
        match context.settings.hooks.rpc.of(&method) {
            Ok(slot) => {
                let event = HookEvent::Call { method: method.into(), data };
                self.question(context, slot, event, Step::Call { id });
            }
            // Where there is a built-in method, others could be.
            Err(RequestError::NotAvailable) if built_in.is_some() => {
                context.refuse(id, RequestError::MethodNotFound);
            }
            Err(error) => context.refuse(id, error),
        }
    }

    pub(super) fn send(&mut self, context: &mut Context<'_>, method: Option<String>, data: Bytes) {
        let Some(slot) = context.settings.hooks.send else {
            return self.close(context, CloseReason::NotAvailable);
        };
        let event = HookEvent::Send { method: method.map(Into::into), data };
        self.question(context, slot, event, Step::Send);
    }
}
