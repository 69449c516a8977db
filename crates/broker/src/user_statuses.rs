//! The status of the users of all nodes, whichever engine has it.

use fanwire_protocol::EventMask;

use crate::contract::EngineError;
use crate::memory::MemoryStatus;
use crate::redis::Redis;
use crate::user_status::UserStatus;

/// The status of users. Cloning shares it. Its changes are publications in the users' status topics.
#[derive(Clone, Debug)]
pub enum UserStatuses {
    Memory(MemoryStatus),
    Redis(Redis),
}

impl UserStatuses {
    /// Returns the status of each user.
    pub async fn of(&self, users: &[Box<str>]) -> Result<Vec<UserStatus>, EngineError> {
        match self {
            Self::Memory(memory) => Ok(users.iter().map(|user| memory.of(user)).collect()),
            Self::Redis(redis) => redis.user_status(users).await,
        }
    }

    /// Keeps a user online for a while who has no connection. `events` are those of its connections, of which memory tells
    /// none.
    pub async fn heartbeat(&self, user: &str, events: EventMask) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.heartbeat(user);
                Ok(())
            }
            Self::Redis(redis) => redis.heartbeat(user, events).await,
        }
    }
}
