//! An external server of the Centrifuge protocol, known by the options of the command line only.

use std::net::SocketAddrV4;
use std::rc::Rc;

use crate::dialect::{Audience, Centrifuge, Dialect, Tokens};
use crate::error::LoadError;
use crate::measure::process::Placement;
use crate::publish::Publisher;
use crate::publish::http::{CentrifugeApi, HttpPublisher};
use crate::settings::ExternalSettings;
use crate::subject::Subject;
use crate::target::{Part, Setup, Target};
use crate::url::Url;

/// The addresses and the wire of the server.
#[derive(Debug)]
pub(crate) struct External {
    subject: Subject,
    settings: ExternalSettings,
    clients: Url,
    api: Url,
    topic_prefix: String,
}

impl External {
    pub(crate) fn of(setup: &Setup<'_>) -> Result<Self, LoadError> {
        let settings = setup.settings.external.clone();
        let (Some(clients), Some(api)) = (settings.centrifuge.clone(), settings.api.clone()) else {
            let what = "the subject centrifuge needs --centrifuge ws://HOST:PORT/PATH and --api http://HOST:PORT/PATH";
            return Err(LoadError::Unsupported(what.to_owned()));
        };
        let topic_prefix =
            if settings.namespace.is_empty() { String::new() } else { format!("{}:", settings.namespace) };
        Ok(Self { subject: setup.subject.clone(), settings, clients, api, topic_prefix })
    }
}

impl Target for External {
    fn parts(&self) -> Vec<Part> {
        self.settings.pid.iter().map(|pid| Part { name: "server", pid: *pid }).collect()
    }

    fn versions(&self) -> Vec<String> {
        Vec::new()
    }

    fn placement(&self) -> Option<Placement> {
        None
    }

    fn addresses(&self) -> Result<Vec<SocketAddrV4>, LoadError> {
        Ok(vec![self.clients.address()?])
    }

    fn topic_prefix(&self) -> &str {
        &self.topic_prefix
    }

    fn dialect(&self, audience: Rc<Audience>) -> Result<Box<dyn Dialect>, LoadError> {
        Ok(Box::new(Centrifuge {
            host: self.clients.host.clone(),
            path: self.clients.path.clone(),
            tokens: Tokens::of_secret(&self.settings.token_secret),
            audience,
            encoding: self.subject.wire.encoding(),
            deflate: self.subject.deflate,
            filter: false,
            hook: false,
        }))
    }

    fn publisher(&self, _index: usize) -> Result<Option<Box<dyn Publisher>>, LoadError> {
        let api = CentrifugeApi {
            host: self.api.host.clone(),
            path: self.api.path.clone(),
            key: self.settings.api_key.clone(),
            filter: false,
        };
        Ok(Some(Box::new(HttpPublisher::connect(self.api.address()?, api)?)))
    }
}
