//! Requests that wait for the application's backend: what it is asked, what follows from each answer, and who waits.

mod calls;
mod chains;
mod connect;
mod publish;
mod refresh;
mod subscribe;

use std::time::Duration;

use fanwire_hub::Namespace;
use fanwire_hub::hook::{HookClaims, HookDenial, HookResult, Renewal, SubscribeGrant};
use fanwire_hub::hook_settings::HookSlot;
use fanwire_hub::{ConnectionClaims, Expiry, GrantOptions};
use fanwire_protocol::reason::{Close, Refused};

use super::harness::tokens::user;
use super::harness::{START, TestShard};

/// The longest that a hook takes.
const PATIENCE: Duration = Duration::from_secs(6);

const HOOK: HookSlot = HookSlot::new(3);

type Hooked = Result<HookResult, HookDenial>;

/// A shard with hooks for everything that clients ask.
fn hooked() -> TestShard {
    let mut default = Namespace::default();
    default.hooks.subscribe = Some(HOOK);
    default.hooks.publish = Some(HOOK);
    let mut shard = TestShard::new(default, []);
    let hooks = &mut shard.settings.hooks;
    hooks.patience = PATIENCE;
    hooks.connect = Some(HOOK);
    hooks.send = Some(HOOK);
    hooks.rpc.default = Some(HOOK);
    shard
}

fn claims(claims: ConnectionClaims) -> Hooked {
    let claims = HookClaims { claims, data: "".into(), meta: "".into() };
    Ok(HookResult::Connect(Some(claims.into())))
}

fn known(name: &str) -> Hooked {
    claims(user(name))
}

fn grant(options: GrantOptions, expiry: Expiry) -> Hooked {
    Ok(HookResult::Subscribe(SubscribeGrant { options, expiry }.into()))
}

fn granted() -> Hooked {
    grant(GrantOptions::default(), Expiry::Never)
}

fn unchanged() -> Hooked {
    Ok(HookResult::Publish(Box::default()))
}

fn until(seconds: i64) -> Hooked {
    Ok(HookResult::Refresh(Renewal::Until { expiry: ends(seconds), info: None, meta: None }))
}

fn ends(seconds: i64) -> Expiry {
    Expiry::At(START + seconds)
}

fn refused() -> Hooked {
    Err(HookDenial::Error(Refused::by_application(1000, "the room is full".to_owned(), false)))
}

fn sent_away() -> Hooked {
    Err(HookDenial::Close(Close::by_application(4001, "go".to_owned())))
}

fn failed() -> Hooked {
    Err(HookDenial::Failed)
}

/// The reply of this id with the error of [`refused`].
fn refusal(id: u32) -> String {
    format!(r#"{{"id":{id},"error":{{"code":1000,"message":"the room is full"}}}}"#)
}

/// The same where a hook did not answer, or made no sense.
fn failure(id: u32) -> String {
    format!(r#"{{"id":{id},"error":{{"code":100,"message":"internal server error","temporary":true}}}}"#)
}
