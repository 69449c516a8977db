//! Dead letters: events that the application refused, in a stream of their own, and those that are to be posted again in
//! another.

use std::time::Duration;

use redis::Value;

use super::RedisOutbox;
use super::entry::{read_letter, time_of, write_letter};
use crate::contract::EngineError;
use crate::outbox::{Backlog, DeadLetter, LetterId, Letters, Refusal, StoredEvent};
use crate::redis::arguments::{limit_argument, milliseconds};
use crate::redis::server::link::CommandLink;

/// The most letters that one command moves or removes.
const ROUND_MAX: usize = 500;

impl RedisOutbox {
    /// Adds a dead letter. Beyond the greatest number the oldest are dropped.
    pub async fn bury(&self, event: &StoredEvent, refusal: Refusal) -> Result<(), EngineError> {
        self.links.any()?.pipeline(&self.burial(event, refusal)).await?;
        Ok(())
    }

    /// Returns the oldest dead letters but for those that are to be posted again.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, EngineError> {
        self.letters(&self.keys.dead_letters(), limit).await
    }

    /// Marks letters to be posted again, and returns their number.
    pub async fn retry(&self, which: &Letters) -> Result<u64, EngineError> {
        self.take(which, &self.keys.retried_letters()).await
    }

    /// Removes dead letters, and returns their number.
    pub async fn remove_dead_letters(&self, which: &Letters) -> Result<u64, EngineError> {
        self.take(which, "").await
    }

    /// Returns the oldest letters that are to be posted again.
    pub async fn retried(&self, limit: usize) -> Result<Vec<DeadLetter>, EngineError> {
        self.letters(&self.keys.retried_letters(), limit).await
    }

    /// Ends the retry of a letter. One that was refused again is a dead letter again.
    pub async fn settle(
        &self,
        letter: LetterId,
        refused: Option<(&StoredEvent, Refusal)>,
    ) -> Result<(), EngineError> {
        let mut commands = refused.map(|(event, refusal)| self.burial(event, refusal)).unwrap_or_default();
        commands.cmd("XDEL").arg(self.keys.retried_letters()).arg(letter.to_string());
        self.links.any()?.pipeline(&commands).await?;
        Ok(())
    }

    /// Drops letters that are too old, and counts those that are left.
    pub(super) async fn tidy_letters(
        &self,
        link: &mut CommandLink,
        now: Duration,
    ) -> Result<Backlog, EngineError> {
        let oldest = milliseconds(now.saturating_sub(self.options.dead_letters_ttl));
        let key = self.keys.dead_letters();
        let mut commands = redis::pipe();
        commands.cmd("XTRIM").arg(self.keys.retried_letters()).arg("MINID").arg(oldest);
        commands.cmd("XTRIM").arg(&key).arg("MINID").arg(oldest);
        commands.cmd("XLEN").arg(&key);
        commands.cmd("XRANGE").arg(&key).arg("-").arg("+").arg("COUNT").arg(1);
        match link.pipeline(&commands).await?.as_slice() {
            [_, _, Value::Int(length), first] => Ok(Backlog {
                dead_letters: *length as u64,
                oldest_dead_letter: time_of(first),
                ..Backlog::default()
            }),
            _ => Err(link.nonsense()),
        }
    }

    fn burial(&self, event: &StoredEvent, refusal: Refusal) -> redis::Pipeline {
        let key = self.keys.dead_letters();
        let mut add = redis::cmd("XADD");
        let length_max = limit_argument(self.options.dead_letters_max);
        add.arg(&key).arg("MAXLEN").arg("~").arg(length_max).arg("*");
        write_letter(&mut add, event, refusal);
        let mut commands = redis::pipe();
        commands.add_command(add);
        commands.cmd("PEXPIRE").arg(&key).arg(milliseconds(self.options.dead_letters_ttl));
        commands
    }

    async fn letters(&self, key: &str, limit: usize) -> Result<Vec<DeadLetter>, EngineError> {
        let mut link = self.links.any()?;
        let mut command = redis::cmd("XRANGE");
        command.arg(key).arg("-").arg("+").arg("COUNT").arg(limit);
        let Value::Array(entries) = link.command(&command).await? else { return Err(link.nonsense()) };
        // An unreadable entry is of another program.
        Ok(entries.iter().filter_map(read_letter).collect())
    }

    /// Takes dead letters out of their stream, to another one if there is one.
    async fn take(&self, which: &Letters, to: &str) -> Result<u64, EngineError> {
        let mut taken = 0;
        match which {
            Letters::These(ids) => {
                for ids in ids.chunks(ROUND_MAX) {
                    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                    taken += self.take_some(to, "0", &ids).await?;
                }
            }
            Letters::All => {
                let round_max = ROUND_MAX.to_string();
                // Letters that are refused again meanwhile are not taken for ever.
                for _ in 0..=self.options.dead_letters_max.div_ceil(ROUND_MAX) {
                    let some = self.take_some(to, &round_max, &[]).await?;
                    taken += some;
                    if some < ROUND_MAX as u64 {
                        break;
                    }
                }
            }
        }
        Ok(taken)
    }

    async fn take_some(&self, to: &str, oldest: &str, ids: &[String]) -> Result<u64, EngineError> {
        let from = self.keys.dead_letters();
        let ttl = milliseconds(self.options.dead_letters_ttl).to_string();
        // A script names all of its keys.
        let (target, moves) = if to.is_empty() { (&*from, "0") } else { (to, "1") };
        let mut arguments = vec![moves.as_bytes(), ttl.as_bytes(), oldest.as_bytes()];
        arguments.extend(ids.iter().map(String::as_bytes));
        let mut link = self.links.any()?;
        let keys = [from.as_bytes(), target.as_bytes()];
        match link.script(&self.scripts.letters, &keys, &arguments).await? {
            Value::Int(taken) => Ok(taken as u64),
            _ => Err(link.nonsense()),
        }
    }
}
