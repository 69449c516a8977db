//! An application's backend, which decides on what clients do: it notes each call of a hook and answers by a rule.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanwire_hub::hook_settings::HookSlot;
use fanwire_server::Settings;
use fanwire_server::settings::{BackendTlsSettings, BackendUrl, HookSettings};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A call of a hook.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The event, by the last part of the address.
    pub(crate) event: String,
    /// All lines before the body, in lower case but for their values.
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Call {
    /// A header's value; its name is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The time that an answer takes, its status, and its body.
pub(crate) type Answer = (Duration, u16, Value);

/// The ways of a backend that is not well.
#[derive(Clone, Debug)]
pub(crate) enum Misconduct {
    /// It sends these bytes and closes.
    Sends(Arc<[u8]>),
    /// It says nothing.
    Hangs,
}

type Rule = Box<dyn Fn(&Call) -> Answer + Send + Sync>;

pub(crate) struct Application {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    rule: Arc<Rule>,
    running: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    calls: Vec<Call>,
    under_way: usize,
    under_way_max: usize,
    /// Instead of what the rule says.
    misconduct: Option<Misconduct>,
}

impl Application {
    pub(crate) async fn start(rule: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, rule) = (Arc::<Mutex<Seen>>::default(), Arc::new(Box::new(rule) as Rule));
        let running = run(listener, seen.clone(), rule.clone());
        Self { port, seen, rule, running }
    }

    /// Ends it with all its connections: nobody listens at its port.
    pub(crate) async fn kill(&mut self) {
        self.running.abort();
        let _ = (&mut self.running).await;
        self.seen.lock().unwrap().under_way = 0;
    }

    /// Starts it again after it was killed.
    pub(crate) async fn revive(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.running = run(listener, self.seen.clone(), self.rule.clone());
    }

    /// From now on it is not well; `None`: it is well again.
    pub(crate) fn misbehave(&self, misconduct: Option<Misconduct>) {
        self.seen.lock().unwrap().misconduct = misconduct;
    }

    /// The calls so far, in the order in which they came.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.seen.lock().unwrap().calls.clone()
    }

    /// The calls under way now.
    pub(crate) fn under_way(&self) -> usize {
        self.seen.lock().unwrap().under_way
    }

    /// The most calls that were under way at the same time.
    pub(crate) fn under_way_max(&self) -> usize {
        self.seen.lock().unwrap().under_way_max
    }

    /// The same of one event.
    pub(crate) fn calls_of(&self, event: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.event == event).collect()
    }

    /// Adds the hook of an event to the settings.
    pub(crate) fn hook(&self, settings: &mut Settings, event: &str) -> HookSlot {
        let place = settings.hooks.len() as u16;
        let (timeout, wait_max) = (Duration::from_secs(5), Duration::from_secs(5));
        let kept = &settings.client.hooks.kept;
        let names = |names: &[Box<str>]| names.iter().map(|name| name.parse().unwrap()).collect();
        settings.hooks.push(HookSettings {
            name: event.to_owned(),
            url: BackendUrl::parse(&format!("http://127.0.0.1:{}/{event}", self.port)).unwrap(),
            tls: BackendTlsSettings::default(),
            timeout,
            requests_max: 128,
            waiting_max: 20_000,
            wait_max,
            idle_timeout: Duration::from_secs(4),
            answer_bytes_max: 256 << 10,
            http_headers: names(&kept.headers),
            emulated_headers: names(&kept.emulated),
            cookies: Vec::new(),
            static_headers: Vec::new(),
            binary_encoding: false,
            include_connection_meta: kept.has_meta,
            signature_secrets: Vec::new(),
            breaker: true,
            status_meanings: Vec::new(),
        });
        settings.client.hooks.patience = timeout + wait_max;
        HookSlot::new(place)
    }
}

fn run(listener: TcpListener, seen: Arc<Mutex<Seen>>, rule: Arc<Rule>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (seen, rule) = (seen.clone(), rule.clone());
            connections.spawn(async move {
                // The node may close first.
                let _ = serve(stream, &seen, &rule).await;
            });
            while connections.try_join_next().is_some() {}
        }
    })
}

async fn serve(mut stream: TcpStream, seen: &Mutex<Seen>, rule: &Rule) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let call = loop {
            if let Some(call) = take_call(&mut read) {
                break call;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let (delay, status, body) = rule(&call);
        let misconduct = {
            let mut seen = seen.lock().unwrap();
            seen.calls.push(call);
            seen.under_way += 1;
            seen.under_way_max = seen.under_way_max.max(seen.under_way);
            seen.misconduct.clone()
        };
        match &misconduct {
            None => tokio::time::sleep(delay).await,
            Some(Misconduct::Sends(_)) => {}
            // Until the node gives up.
            Some(Misconduct::Hangs) => drop(stream.read_buf(&mut read).await),
        }
        seen.lock().unwrap().under_way -= 1;
        match misconduct {
            None => {}
            Some(Misconduct::Sends(bytes)) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Some(Misconduct::Hangs) => return Ok(()),
        }
        let body = body.to_string();
        let response = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(response.as_bytes()).await?;
    }
}

/// Takes a whole request.
fn take_call(read: &mut Vec<u8>) -> Option<Call> {
    let head_bytes = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(read[..head_bytes].to_vec()).unwrap();
    let event = head.split([' ', '/']).nth(2).unwrap().to_owned();
    let mut call = Call { event, head, body: Value::Null };
    let length: usize = call.header("content-length").unwrap().parse().unwrap();
    if read.len() < head_bytes + length {
        return None;
    }
    call.body = serde_json::from_slice(&read[head_bytes..head_bytes + length]).unwrap();
    read.drain(..head_bytes + length);
    Some(call)
}
