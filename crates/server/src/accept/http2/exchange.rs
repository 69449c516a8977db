//! The state of one stream: a request with its place among others, then its response, or the client that it opens.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::watch::Http2Watch;
use crate::accept::admission::{ClientNetwork, HttpConnection, Proxies, Reason, refusal};
use crate::response::HttpResponse;
use crate::route::group_of;
use crate::stream_pipe::{CarrierEnd, ShardPresence, pipe};
use crate::transport::{Adopted, Arrival, Gate, Line};

/// The time that a peer has to take the last bytes of a client that the shard has let go.
const LAST_BYTES_TIME: Duration = Duration::from_secs(5);

/// The state of one stream, until its response is taken or its client gone.
#[derive(Debug)]
pub(super) struct Exchange {
    connection: Rc<Http2Watch>,
    /// Its place among requests, until it is a client.
    request: RefCell<Option<Arc<HttpConnection>>>,
    task: RefCell<Option<AbortHandle>>,
    /// The shard that has its client.
    shard: RefCell<Option<ShardPresence>>,
    /// The time up to which the peer may take nothing of a whole response.
    until: Cell<Option<Instant>>,
}

impl Exchange {
    pub(super) fn new(connection: Rc<Http2Watch>) -> Self {
        connection.begin_stream();
        Self {
            connection,
            request: RefCell::default(),
            task: RefCell::default(),
            shard: RefCell::default(),
            until: Cell::default(),
        }
    }

    /// Names the task that is aborted when the request has to give way to another.
    pub(super) fn is_served_by(&self, task: AbortHandle) {
        self.task.replace(Some(task));
    }

    /// Takes its place among requests. Returns the network of its client, or the response that refuses it.
    pub(super) fn enter(
        &self,
        gate: &Gate,
        request: &mut Request<Incoming>,
    ) -> Result<ClientNetwork, Box<HttpResponse>> {
        let group = group_of(gate, request);
        let proxies = Proxies(&gate.node.settings.admission.trusted_proxies);
        let place = self.connection.admit(group, |from| proxies.client_of(from, request.headers()));
        let place = Arc::new(
            place.ok_or_else(|| Box::new(refusal(group, gate.node.http_connections[gate.shard].port)))?,
        );
        if let Some(task) = self.task.take() {
            place.is_served_by(task);
        }
        request.extensions_mut().insert(place.clone());
        let network = place.network();
        self.request.replace(Some(place));
        Ok(network)
    }

    /// The peer has taken some of a whole response, or is to begin.
    pub(super) fn moves_on(&self) {
        self.until.set(Some(Instant::now() + self.connection.write_time()));
        if let Some(request) = &*self.request.borrow() {
            request.waits_for_peer(true);
        }
    }

    /// Returns the time at which the stream is cut off, if there is one.
    pub(super) fn cut_off(&self, context: &Context<'_>) -> Option<Instant> {
        match &*self.shard.borrow() {
            Some(shard) => shard.left(context).map(|left| left + LAST_BYTES_TIME),
            None => self.until.get(),
        }
    }

    pub(super) fn was_cut_off(&self) {
        if let Some(request) = &*self.request.borrow() {
            request.dropped(Reason::WriteTimeout);
        }
    }

    /// Gives the stream to the shard.
    pub(super) fn open(&self, gate: &Gate, arrival: Arrival) -> CarrierEnd {
        let (shard, carrier) = pipe();
        self.request.take();
        self.shard.replace(Some(carrier.shard()));
        self.connection.begin_client();
        gate.adopt(Adopted { line: Line::Stream(shard), early: Default::default(), arrival });
        carrier
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.connection.end_stream(self.shard.get_mut().is_some());
    }
}
