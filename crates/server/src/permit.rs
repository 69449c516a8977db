//! Permits for client connections: limits on their number and on new ones in a second.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::counters::Counters;
use crate::settings::AdmissionSettings;

/// Gives out permits. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Permits(Arc<PermitsShared>);

#[derive(Debug)]
struct PermitsShared {
    /// One for each shard.
    counters: Vec<Arc<Counters>>,
    limit: Option<ConnectionLimit>,
    /// 0 for no limit.
    per_second_max: usize,
    started: Instant,
    /// Permits of connections that no shard counts yet.
    arriving: AtomicU64,
    /// The second for which new connections are being counted, and their number so far.
    admitted: Mutex<(u64, usize)>,
}

/// The limit on client connections, with the sentence for those that are refused.
#[derive(Clone, Copy, Debug)]
struct ConnectionLimit {
    max: usize,
    refusal: &'static str,
}

/// The permit of a connection, held until a shard counts the connection or it is given up.
#[derive(Debug)]
pub(crate) struct AdmissionPermit(Permits);

impl Drop for AdmissionPermit {
    fn drop(&mut self) {
        self.0.0.arriving.fetch_sub(1, AcqRel);
    }
}

impl Permits {
    /// Without a limit in the settings, `open_files_max` connections are admitted.
    pub(crate) fn new(
        settings: &AdmissionSettings,
        open_files_max: Option<usize>,
        counters: Vec<Arc<Counters>>,
    ) -> Self {
        let limit = match settings.connections_max {
            0 => open_files_max
                .map(|max| ConnectionLimit { max, refusal: "The limit of open files is reached." }),
            max => Some(ConnectionLimit { max, refusal: "server.connections_max is reached." }),
        };
        Self(Arc::new(PermitsShared {
            counters,
            limit,
            per_second_max: settings.connections_per_second_max,
            started: Instant::now(),
            arriving: AtomicU64::new(0),
            admitted: Mutex::default(),
        }))
    }

    /// Returns a permit for one more connection, or the sentence that names the limit.
    pub(crate) fn admit(&self) -> Result<AdmissionPermit, &'static str> {
        let shared = &*self.0;
        // A shard counts a connection before it drops the permit, so none is missed in between.
        let arriving = shared.arriving.fetch_add(1, AcqRel);
        let permit = AdmissionPermit(self.clone());
        if let Some(limit) = shared.limit
            && self.sockets() + arriving >= limit.max as u64
        {
            return Err(limit.refusal);
        }
        if shared.per_second_max > 0 {
            let second = shared.started.elapsed().as_secs();
            let mut admitted = shared.admitted.lock().unwrap_or_else(PoisonError::into_inner);
            if admitted.0 != second {
                *admitted = (second, 0);
            }
            if admitted.1 >= shared.per_second_max {
                return Err("server.connections_per_second_max is reached.");
            }
            admitted.1 += 1;
        }
        Ok(permit)
    }

    /// Sockets that shards own: client connections, those that are closing, and echo connections.
    pub(crate) fn sockets(&self) -> u64 {
        self.0.counters.iter().map(|counters| counters.sockets.value()).sum()
    }

    /// Returns true if there is no client and none is about to be there.
    pub(crate) fn is_deserted(&self) -> bool {
        // In this order: a shard counts a connection before it drops the permit.
        let arriving = self.0.arriving.load(Acquire);
        arriving + self.sockets() == 0
    }
}
