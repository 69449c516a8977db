//! The status of users on a node without Redis: bounded in bytes, and lost when the process ends.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::{Publication, StatusMessage, TopicName};
use tokio::time::Instant;

use super::deadline;
use crate::user_status::{StatusOptions, USER_TOPIC, UserStatus};
use crate::wall_clock;

/// The status of the users of a node's memory engines. Cloning shares it.
#[derive(Clone)]
pub struct MemoryStatus(Arc<Shared>);

/// Gets each change of a user's status, for the user's status topic.
pub type TellStatus = Box<dyn Fn(TopicName, Publication) + Send + Sync>;

/// What status in memory needs beside its options.
#[derive(Clone, Copy, Debug)]
pub struct MemoryStatusBounds {
    /// The time for which a user without connections is not yet said to be offline.
    pub offline_delay: Duration,
    /// The most bytes, about; users who have been offline for longest are forgotten.
    pub bytes_max: usize,
}

struct Shared {
    /// Taken for each connection that comes or goes.
    table: Mutex<UserTable>,
}

struct UserTable {
    options: StatusOptions,
    bounds: MemoryStatusBounds,
    tell: TellStatus,
    users: HashMap<Arc<str>, KnownUser>,
    /// Users who are offline if none of their connections comes before.
    due: BTreeSet<(Instant, Arc<str>)>,
    /// Users who are offline, by the time at which they were seen.
    offline: BTreeSet<(i64, Arc<str>)>,
    bytes: usize,
}

#[derive(Default)]
struct KnownUser {
    connections: usize,
    /// Milliseconds since 1970.
    seen: i64,
    beat_until: Option<Instant>,
    /// It is offline then.
    due: Option<Instant>,
}

impl MemoryStatus {
    pub fn new(options: StatusOptions, bounds: MemoryStatusBounds, tell: TellStatus) -> Self {
        let (users, due, offline) = Default::default();
        let table = UserTable { options, bounds, tell, users, due, offline, bytes: 0 };
        Self(Arc::new(Shared { table: Mutex::new(table) }))
    }

    /// Returns the status of a user.
    pub fn of(&self, user: &str) -> UserStatus {
        self.table().of(user)
    }

    /// Keeps a user online for a while who has no connection.
    pub fn heartbeat(&self, user: &str) {
        self.table().beat(user);
    }

    /// A member of the topic was added.
    pub(super) fn joined(&self, topic: &TopicName) {
        if let Some(user) = topic.as_str().strip_prefix(USER_TOPIC) {
            self.table().joined(user);
        }
    }

    /// A member of the topic was removed.
    pub(super) fn left(&self, topic: &TopicName) {
        if let Some(user) = topic.as_str().strip_prefix(USER_TOPIC) {
            self.table().left(user);
        }
    }

    /// Says who is offline where that is due, and forgets users who have not been seen for long.
    pub(super) fn sweep(&self) {
        self.table().sweep(Instant::now(), wall_clock::now());
    }

    fn table(&self) -> MutexGuard<'_, UserTable> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UserTable {
    fn of(&self, name: &str) -> UserStatus {
        let time = wall_clock::millis(wall_clock::now());
        let Some(user) = self.users.get(name) else { return UserStatus { time, ..UserStatus::default() } };
        let last_seen = if user.connections > 0 { time } else { user.seen };
        UserStatus { online: user.is_online(), connections: user.connections, last_seen, time }
    }

    fn joined(&mut self, name: &str) {
        self.change(name, |user, _| {
            user.connections += 1;
            user.due = None;
        });
    }

    fn left(&mut self, name: &str) {
        let due = deadline(Instant::now(), self.bounds.offline_delay);
        self.change(name, |user, now| {
            user.connections = user.connections.saturating_sub(1);
            if user.connections == 0 {
                user.seen = now;
                user.due = user.beat_until.max(Some(due));
            }
        });
    }

    fn beat(&mut self, name: &str) {
        let until = deadline(Instant::now(), self.options.heartbeat_ttl);
        self.change(name, |user, now| {
            (user.seen, user.beat_until) = (now, Some(until));
            if user.connections == 0 {
                user.due = user.due.max(Some(until));
            }
        });
    }

    fn sweep(&mut self, now: Instant, time: Duration) {
        while let Some((_, name)) = self.due.first().filter(|(due, _)| *due <= now) {
            let name = name.clone();
            self.change(&name, |user, _| user.due = None);
        }
        let oldest = wall_clock::millis(time.saturating_sub(self.options.last_seen_ttl));
        while self.offline.first().is_some_and(|(seen, _)| *seen < oldest) {
            self.forget_oldest();
        }
        self.users.give_back();
    }

    /// Changes a user, and tells its status if that is another than before.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut KnownUser, i64)) {
        let now = wall_clock::millis(wall_clock::now());
        let (name, mut user) = self.users.remove_entry(name).unwrap_or_else(|| {
            self.bytes += bytes(name);
            (name.into(), KnownUser::default())
        });
        let was_online = user.is_online();
        if let Some(due) = user.due {
            self.due.remove(&(due, name.clone()));
        } else if !was_online {
            self.offline.remove(&(user.seen, name.clone()));
        }
        change(&mut user, now);
        if user.due.is_some_and(|due| due <= Instant::now()) {
            user.due = None;
        }
        let online = user.is_online();
        if let Some(due) = user.due {
            self.due.insert((due, name.clone()));
        } else if !online {
            self.offline.insert((user.seen, name.clone()));
        }
        if online != was_online {
            let last_seen = if online { now } else { user.seen };
            self.tell(&name, online, last_seen, now);
        }
        self.users.insert(name, user);
        while self.bytes > self.bounds.bytes_max && self.forget_oldest() {}
    }

    fn tell(&self, user: &str, online: bool, last_seen: i64, time: i64) {
        let Some(topic) = TopicName::new(&format!("{}{user}", self.options.prefix)) else { return };
        let data = StatusMessage { user: user.into(), online, last_seen }.to_json();
        (self.tell)(topic, Publication { data, time, ..Publication::default() });
    }

    /// Forgets the user who has been offline for longest. Returns false if there is none.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, name)) = self.offline.pop_first() else { return false };
        self.bytes -= bytes(&name);
        self.users.remove(&name);
        true
    }
}

impl KnownUser {
    fn is_online(&self) -> bool {
        self.connections > 0 || self.due.is_some()
    }
}

impl fmt::Debug for MemoryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStatus").finish_non_exhaustive()
    }
}

fn bytes(user: &str) -> usize {
    /// The entries in two tables, and allocator overhead.
    const OVERHEAD: usize = 192;

    OVERHEAD + user.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(5);
    const BEAT: Duration = Duration::from_secs(60);
    const KEPT: Duration = Duration::from_secs(3600);

    type Told = Arc<Mutex<Vec<(String, bool)>>>;

    fn status(users_max: usize) -> (MemoryStatus, Told) {
        let options = StatusOptions { prefix: "status:".into(), heartbeat_ttl: BEAT, last_seen_ttl: KEPT };
        let bounds = MemoryStatusBounds { offline_delay: DELAY, bytes_max: users_max * bytes("u") };
        let told = Told::default();
        let sink = told.clone();
        let tell = move |topic: TopicName, publication: Publication| {
            let message = StatusMessage::parse(&publication.data).unwrap();
            assert_eq!(topic.as_str(), format!("status:{}", message.user));
            sink.lock().unwrap().push((message.user.into(), message.online));
        };
        (MemoryStatus::new(options, bounds, Box::new(tell)), told)
    }

    fn topic(user: &str) -> TopicName {
        TopicName::new(&format!("!user:{user}")).unwrap()
    }

    fn pass(status: &MemoryStatus, time: Duration) {
        status.table().sweep(Instant::now() + time, wall_clock::now() + time);
    }

    fn told(told: &Told) -> Vec<bool> {
        told.lock().unwrap().iter().map(|(_, online)| *online).collect()
    }

    #[test]
    fn the_first_connection_and_the_last_are_told() {
        let (status, all) = status(10);
        for _ in 0..2 {
            status.joined(&topic("u"));
        }
        status.joined(&TopicName::new("!anonymous:n:0").unwrap());
        assert_eq!((status.of("u").online, status.of("u").connections), (true, 2));
        status.left(&topic("u"));
        status.left(&topic("u"));
        let pending = status.of("u");
        assert!(pending.online && pending.connections == 0 && pending.last_seen > 0);
        status.joined(&topic("u"));
        status.left(&topic("u"));
        pass(&status, DELAY - Duration::from_secs(1));
        assert_eq!(told(&all), [true]);
        pass(&status, DELAY + Duration::from_secs(1));
        assert_eq!(told(&all), [true, false]);
        assert!(!status.of("u").online && status.of("u").last_seen >= pending.last_seen);
        assert_eq!(UserStatus { time: 0, ..status.of("v") }, UserStatus::default());
    }

    #[test]
    fn a_heartbeat_keeps_a_user_online() {
        let (status, all) = status(10);
        status.heartbeat("u");
        status.joined(&topic("u"));
        status.left(&topic("u"));
        pass(&status, BEAT - Duration::from_secs(1));
        assert_eq!((told(&all), status.of("u").connections), (vec![true], 0));
        pass(&status, BEAT + Duration::from_secs(1));
        assert_eq!(told(&all), [true, false]);
    }

    #[test]
    fn the_oldest_are_forgotten_at_the_bound_and_all_in_time() {
        let (status, _) = status(2);
        for user in ["a", "b", "c"] {
            status.joined(&topic(user));
            status.left(&topic(user));
            // Users of one millisecond are equally old.
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(status.table().users.len(), 3, "who is not offline yet is not forgotten");
        pass(&status, DELAY + Duration::from_secs(1));
        status.joined(&topic("d"));
        assert_eq!((status.of("a").last_seen, status.of("b").last_seen), (0, 0));
        assert!(status.of("c").last_seen > 0 && status.of("d").online);
        pass(&status, KEPT + Duration::from_secs(1));
        assert_eq!((status.of("c").last_seen, status.table().users.len()), (0, 1));
        assert_eq!(status.table().bytes, bytes("d"));
    }
}
