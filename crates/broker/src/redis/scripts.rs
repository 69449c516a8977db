//! The Lua scripts, each composed of parts and called by its hash.

use redis::{Cmd, ToRedisArgs};

/// A script's code and hash.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) code: String,
    pub(super) hash: String,
}

/// All scripts, which every command connection loads.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) publish: Script,
    pub(super) publish_once: Script,
    pub(super) publish_live_once: Script,
    pub(super) recover: Script,
    pub(super) history: Script,
    pub(super) admit: Script,
    pub(super) members: Script,
    pub(super) remove: Script,
    pub(super) join: Script,
    pub(super) part: Script,
    pub(super) vacate: Script,
    pub(super) beat: Script,
    pub(super) status: Script,
    pub(super) forget: Script,
    pub(super) work: Script,
    pub(super) letters: Script,
    pub(super) reap: Script,
    pub(super) prefixes: Script,
    pub(super) heartbeat: Script,
    pub(super) peers: Script,
    pub(super) claim: Script,
    pub(super) charge: Script,
}

impl Script {
    /// Returns a call of the script, to which further arguments may be added.
    pub(super) fn call<K: ToRedisArgs>(&self, keys: &[K], arguments: &[&[u8]]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(keys.len()).arg(keys).arg(arguments);
        command
    }
}

impl Scripts {
    pub(super) fn new() -> Self {
        const TOPIC: &str = include_str!("scripts/topic.lua");
        const APPEND: &str = include_str!("scripts/append.lua");
        const TOUCH: &str = include_str!("scripts/touch.lua");
        const SCAN: &str = include_str!("scripts/scan.lua");
        const LEAVE: &str = include_str!("scripts/leave.lua");
        const CLOCK: &str = include_str!("scripts/clock.lua");
        const SEEN: &str = include_str!("scripts/seen.lua");
        const EVENT: &str = include_str!("scripts/event.lua");
        let script = |parts: &[&str]| {
            let code = parts.concat();
            Script { hash: redis::Script::new(&code).get_hash().to_owned(), code }
        };
        Self {
            publish: script(&[TOPIC, APPEND, include_str!("scripts/publish.lua")]),
            publish_once: script(&[TOPIC, APPEND, include_str!("scripts/publish_once.lua")]),
            publish_live_once: script(&[include_str!("scripts/publish_live_once.lua")]),
            recover: script(&[TOPIC, TOUCH, SCAN, include_str!("scripts/recover.lua")]),
            history: script(&[TOPIC, TOUCH, SCAN, include_str!("scripts/history.lua")]),
            admit: script(&[CLOCK, SEEN, EVENT, include_str!("scripts/admit.lua")]),
            members: script(&[include_str!("scripts/members.lua")]),
            remove: script(&[LEAVE, include_str!("scripts/remove.lua")]),
            join: script(&[CLOCK, SEEN, EVENT, include_str!("scripts/join.lua")]),
            part: script(&[CLOCK, SEEN, EVENT, LEAVE, include_str!("scripts/part.lua")]),
            vacate: script(&[CLOCK, SEEN, EVENT, include_str!("scripts/vacate.lua")]),
            beat: script(&[CLOCK, SEEN, EVENT, include_str!("scripts/beat.lua")]),
            status: script(&[CLOCK, SEEN, include_str!("scripts/status.lua")]),
            forget: script(&[include_str!("scripts/forget.lua")]),
            work: script(&[include_str!("scripts/work.lua")]),
            letters: script(&[include_str!("scripts/letters.lua")]),
            reap: script(&[CLOCK, SEEN, EVENT, LEAVE, include_str!("scripts/reap.lua")]),
            prefixes: script(&[CLOCK, include_str!("scripts/prefixes.lua")]),
            heartbeat: script(&[CLOCK, include_str!("scripts/heartbeat.lua")]),
            peers: script(&[CLOCK, include_str!("scripts/peers.lua")]),
            claim: script(&[CLOCK, include_str!("scripts/claim.lua")]),
            charge: script(&[include_str!("scripts/charge.lua")]),
        }
    }

    pub(super) fn all(&self) -> [&Script; 22] {
        [
            &self.publish,
            &self.publish_once,
            &self.publish_live_once,
            &self.recover,
            &self.history,
            &self.admit,
            &self.members,
            &self.remove,
            &self.join,
            &self.part,
            &self.vacate,
            &self.beat,
            &self.status,
            &self.forget,
            &self.work,
            &self.letters,
            &self.reap,
            &self.prefixes,
            &self.heartbeat,
            &self.peers,
            &self.claim,
            &self.charge,
        ]
    }
}
