//! Nchan, in an nginx of its own: one worker, messages in memory, WebSocket subscribers, publications by POST.
//!
//! nginx is a master and a worker. The master ends the worker before itself; if it were killed, the worker would stay.

use std::fs;
use std::net::{SocketAddrV4, TcpStream};
use std::path::Path;
use std::rc::Rc;

use crate::dialect::{self, Audience, Dialect};
use crate::error::{Doing, LoadError};
use crate::publish::Publisher;
use crate::publish::http::HttpPublisher;
use crate::publish::post::{Burst, PostApi};
use crate::target::process::{ServerProcess, free_addresses};
use crate::target::{Part, Setup, Target, installed};

const PROGRAM: &str = "nginx";
const CONFIGURATION: &str = include_str!("../../peers/nchan.conf");
/// The path of the module in Debian's package `libnginx-mod-nchan`.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const SUBSCRIBE_PATH: &str = "/subscribe/";
/// Connections of publishers, and nginx' own files.
const CONNECTIONS_BESIDE_CLIENTS: usize = 512;
/// nginx closes idle clients when less than a sixteenth of its connections are free, so it gets an eighth more.
const SPARE_PART: usize = 8;

/// A running nginx; dropping it ends master and worker.
#[derive(Debug)]
pub(crate) struct Nchan {
    master: ServerProcess,
    address: SocketAddrV4,
}

impl Nchan {
    /// Returns when the worker accepts connections.
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self, LoadError> {
        let program = installed::program(PROGRAM)?;
        installed::file(Path::new(MODULE))?;
        let [address] = free_addresses()?;
        let master = ServerProcess::start(&program, setup.cores, |folder, command| {
            let file = folder.join("nginx.conf");
            fs::write(&file, configuration(address, setup.clients))
                .doing(format!("write {}", file.display()))?;
            command.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(&file);
            Ok(())
        })?;
        let mut nchan = Self { master, address };
        let pid = nchan.master.pid();
        nchan.master.wait_until(|| !children_of(pid).is_empty() && TcpStream::connect(address).is_ok())?;
        Ok(nchan)
    }
}

impl Target for Nchan {
    fn parts(&self) -> Vec<Part> {
        let master = self.master.pid();
        let pids = children_of(master).into_iter().chain([master]);
        pids.map(|pid| Part { name: "server", pid }).collect()
    }

    fn versions(&self) -> Vec<String> {
        let nginx = installed::program(PROGRAM).map(|program| installed::version(&program, "-v"));
        let nginx = nginx.iter().map(|told| told.trim_start_matches("nginx version: ").to_owned());
        // The module does not report its version, but its package has one.
        nginx.chain([installed::package_version("libnginx-mod-nchan")]).collect()
    }

    fn addresses(&self) -> Result<Vec<SocketAddrV4>, LoadError> {
        Ok(vec![self.address])
    }

    fn dialect(&self, audience: Rc<Audience>) -> Result<Box<dyn Dialect>, LoadError> {
        let host = self.address.to_string();
        Ok(Box::new(dialect::Nchan { host, path: SUBSCRIBE_PATH, audience }))
    }

    fn publisher(&self, _index: usize) -> Result<Option<Box<dyn Publisher>>, LoadError> {
        let api = PostApi { host: self.address.to_string(), burst: Burst::Pipelined };
        Ok(Some(Box::new(HttpPublisher::connect(self.address, api)?)))
    }

    fn explain(&self, error: LoadError) -> LoadError {
        self.master.explain(error)
    }
}

impl Drop for Nchan {
    fn drop(&mut self) {
        self.master.end();
    }
}

fn configuration(address: SocketAddrV4, clients: usize) -> String {
    let connections = clients + clients / SPARE_PART + CONNECTIONS_BESIDE_CLIENTS;
    CONFIGURATION
        .replace("{module}", MODULE)
        .replace("{address}", &address.to_string())
        .replace("{connections}", &connections.to_string())
}

/// Returns the worker, a child of the master's only thread.
fn children_of(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_filled_in() {
        let address = "127.0.0.1:8123".parse().unwrap();
        let text = configuration(address, 100);
        for line in ["listen 127.0.0.1:8123 ", "worker_connections 624;", "load_module /usr/lib/"] {
            assert!(text.contains(line), "{line}");
        }
    }
}
