//! Permits for client connections: limits on their number and on new ones in a second.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fanwire_hub::ClientSettings;
use fanwire_hub::session::{Now, Rates};

use crate::accept::admission::{ClientNetwork, Counts};
use crate::counters::{Counter, Counters};
use crate::settings::Settings;

/// Gives out permits. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Permits(Arc<PermitsShared>);

#[derive(Debug)]
struct PermitsShared {
    /// One for each shard.
    counters: Vec<Arc<Counters>>,
    /// On clients, with a socket or without.
    limit: Option<ConnectionLimit>,
    /// On sockets.
    open_files_max: Option<usize>,
    /// 0 for no limit.
    per_second_max: usize,
    started: Instant,
    /// Permits of connections that no shard counts yet.
    arriving: AtomicU64,
    /// The second for which new connections are being counted, and their number so far.
    admitted: Mutex<(u64, usize)>,
    /// The rates at which addresses connect.
    address_rates: Mutex<Rates>,
    client: ClientSettings,
    /// The clients of each network that poll.
    pollers: Mutex<Counts>,
}

/// The part of all clients that those of one network may be which poll.
const POLLERS_DIVISOR: usize = 4;

const OPEN_FILES: &str = "The limit of open files is reached.";

/// The limit on client connections, with the sentence for those that are refused.
#[derive(Clone, Copy, Debug)]
struct ConnectionLimit {
    max: usize,
    refusal: &'static str,
}

/// The permit of a connection, held until a shard counts the connection or it is given up.
#[derive(Debug)]
pub(crate) struct AdmissionPermit {
    permits: Permits,
    /// The client's.
    pub network: ClientNetwork,
}

impl Drop for AdmissionPermit {
    fn drop(&mut self) {
        self.permits.0.arriving.fetch_sub(1, AcqRel);
    }
}

/// The place of a client that polls, which needs no socket between two polls. It is held until its session has gone.
#[derive(Debug)]
pub(crate) struct PollerPlace {
    permits: Permits,
    network: ClientNetwork,
}

impl Drop for PollerPlace {
    fn drop(&mut self) {
        self.permits.pollers().remove(&self.network, 1);
    }
}

impl Permits {
    /// Without a limit in the settings, `open_files_max` connections are admitted.
    pub(crate) fn new(
        settings: &Settings,
        open_files_max: Option<usize>,
        counters: Vec<Arc<Counters>>,
    ) -> Self {
        let admission = &settings.admission;
        let limit = match admission.connections_max {
            0 => open_files_max.map(|max| ConnectionLimit { max, refusal: OPEN_FILES }),
            max => Some(ConnectionLimit { max, refusal: "server.connections_max is reached." }),
        };
        Self(Arc::new(PermitsShared {
            counters,
            limit,
            open_files_max,
            per_second_max: admission.connections_per_second_max,
            started: Instant::now(),
            arriving: AtomicU64::new(0),
            admitted: Mutex::default(),
            address_rates: Mutex::default(),
            client: settings.client.clone(),
            pollers: Mutex::default(),
        }))
    }

    /// Returns a permit for one more connection of this network, or the sentence that names the limit.
    pub(crate) fn admit(&self, network: ClientNetwork, now: Now) -> Result<AdmissionPermit, &'static str> {
        let shared = &*self.0;
        // A shard counts a connection before it drops the permit, so none is missed in between.
        let arriving = shared.arriving.fetch_add(1, AcqRel);
        let permit = AdmissionPermit { permits: self.clone(), network };
        self.has_file(arriving)?;
        if let Some(limit) = shared.limit
            && self.sum(|counters| &counters.client_lines) + arriving >= limit.max as u64
        {
            return Err(limit.refusal);
        }
        if shared.client.address_connects_per_second_max > 0
            && !self.address_rates().may_connect(&network.to_string(), &shared.client, now)
        {
            return Err("client.address_connects_per_second_max is reached by this address.");
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

    /// Returns the sentence that names the limit, if there is no room for one more poll that waits. Where its session is
    /// elsewhere, its client is counted there, and a stream of HTTP/2 is no file: as many of those wait as there may be
    /// clients.
    pub(crate) fn admit_waiting(&self, is_elsewhere: bool) -> Result<(), &'static str> {
        self.has_file(0)?;
        match self.0.limit {
            Some(limit)
                if is_elsewhere && self.sum(|counters| &counters.polls_elsewhere) >= limit.max as u64 =>
            {
                Err(limit.refusal)
            }
            _ => Ok(()),
        }
    }

    /// The rates at which addresses connect, as [`ClientNetwork`] shows them.
    pub(crate) fn address_rates(&self) -> MutexGuard<'_, Rates> {
        self.0.address_rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the sentence that names the limit, if no file is left for a socket beside those that are arriving.
    fn has_file(&self, arriving: u64) -> Result<(), &'static str> {
        match self.0.open_files_max {
            Some(max) if self.sockets() + arriving >= max as u64 => Err(OPEN_FILES),
            _ => Ok(()),
        }
    }

    /// Returns the place of one more client that polls, or the sentence that names the limit.
    pub(crate) fn admit_poller(&self, network: ClientNetwork) -> Result<PollerPlace, &'static str> {
        let mut pollers = self.pollers();
        let count = pollers.of(&network);
        if self.0.limit.is_some_and(|limit| count >= (limit.max / POLLERS_DIVISOR).max(1)) {
            return Err(
                "Clients of this address that poll are a quarter of server.connections_max, or of what the limit of \
                 open files allows. Clients behind a proxy have its address unless \
                 server.trusted_proxies names it.",
            );
        }
        pollers.add(network, 1);
        Ok(PollerPlace { permits: self.clone(), network })
    }

    fn pollers(&self) -> MutexGuard<'_, Counts> {
        self.0.pollers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sockets that shards own: client connections, those that are closing, and polls that wait.
    pub(crate) fn sockets(&self) -> u64 {
        self.sum(|counters| &counters.sockets)
    }

    fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.0.counters.iter().map(|counters| counter(counters).value()).sum()
    }

    /// Returns true if there is no client and none is about to be there.
    pub(crate) fn is_deserted(&self) -> bool {
        // In this order: a shard counts a connection before it drops the permit.
        let arriving = self.0.arriving.load(Acquire);
        arriving + self.sum(|counters| &counters.lines) == 0
    }
}
