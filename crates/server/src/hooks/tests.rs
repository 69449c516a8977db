//! Hooks against backends in this process.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanwire_hub::effect::ConnectionKey;
use fanwire_hub::hook::HookEvent;
use fanwire_hub::hook_settings::HookSlot;
use fanwire_protocol::ClientId;
use fanwire_protocol::wire::Wire;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use super::*;
use crate::backend::BackendUrl;
use crate::inbox::InboxReceiver;
use crate::settings::{BackendTlsSettings, IdentityFiles};

/// What a backend does once it has read a request.
#[derive(Clone, Debug)]
enum Act {
    /// Answers, and keeps the connection.
    Answer(u16, String),
    /// Answers late.
    Late(Duration),
    /// Sends these bytes and closes.
    Send(Vec<u8>),
    /// Answers well, and closes without a word of it.
    AnswerThenClose,
    /// Says nothing at all.
    Hang,
}

#[derive(Default)]
struct Seen {
    /// Each request, and when it came.
    requests: Mutex<Vec<(String, Instant)>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    under_way: AtomicUsize,
    under_way_max: AtomicUsize,
}

struct Backend {
    port: u16,
    seen: Arc<Seen>,
    /// What it does next, and from then on.
    act: Arc<Mutex<Act>>,
}

impl Backend {
    async fn new(act: Act, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, act) = (Arc::<Seen>::default(), Arc::new(Mutex::new(act)));
        let backend = Self { port, seen: seen.clone(), act: act.clone() };
        let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, act, acceptor) = (seen.clone(), act.clone(), acceptor.clone());
                seen.connections.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    seen.open.fetch_add(1, SeqCst);
                    let _ = match acceptor {
                        None => serve(stream, &seen, &act).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => serve(stream, &seen, &act).await,
                            Err(error) => Err(error),
                        },
                    };
                    seen.open.fetch_sub(1, SeqCst);
                });
            }
        });
        backend
    }

    fn act(&self, act: Act) {
        *self.act.lock().unwrap() = act;
    }

    fn requests(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Seen,
    act: &Mutex<Act>,
) -> io::Result<()> {
    let mut read = Vec::new();
    loop {
        let request = loop {
            if let Some(length) = request_length(&read) {
                break String::from_utf8_lossy(&read.drain(..length).collect::<Vec<_>>()).into_owned();
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        seen.requests.lock().unwrap().push((request, Instant::now()));
        let under_way = seen.under_way.fetch_add(1, SeqCst) + 1;
        seen.under_way_max.fetch_max(under_way, SeqCst);
        let act = act.lock().unwrap().clone();
        let ok = || response(200, r#"{"result":{}}"#);
        let (bytes, closes) = match act {
            Act::Answer(status, body) => (response(status, &body), false),
            Act::Late(delay) => {
                sleep(delay).await;
                (ok(), false)
            }
            Act::Send(bytes) => (bytes, true),
            Act::AnswerThenClose => (ok(), true),
            Act::Hang => {
                // Until the client goes.
                let gone = stream.read_buf(&mut read).await;
                seen.under_way.fetch_sub(1, SeqCst);
                return gone.map(drop);
            }
        };
        let written = stream.write_all(&bytes).await;
        seen.under_way.fetch_sub(1, SeqCst);
        written?;
        if closes {
            stream.shutdown().await?;
            // Until the client has seen it and closes as well.
            while stream.read_buf(&mut read).await? > 0 {
                read.clear();
            }
            return Ok(());
        }
    }
}

/// Returns the length of a whole request.
fn request_length(read: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(read);
    let head = text.find("\r\n\r\n")? + 4;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "))?.trim();
    let whole = head + length.parse::<usize>().ok()?;
    (read.len() >= whole).then_some(whole)
}

fn response(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub(super) fn settings(url: &str) -> HookSettings {
    HookSettings {
        name: "chat".into(),
        url: BackendUrl::parse(url).unwrap(),
        tls: BackendTlsSettings::default(),
        timeout: Duration::from_secs(5),
        requests_max: 4,
        waiting_max: 1000,
        wait_max: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(4),
        answer_bytes_max: 1 << 16,
        http_headers: Vec::new(),
        emulated_headers: Vec::new(),
        cookies: Vec::new(),
        static_headers: Vec::new(),
        binary_encoding: false,
        include_connection_meta: false,
        signature_secrets: Vec::new(),
        breaker: false,
        status_meanings: Vec::new(),
    }
}

pub(super) fn question(number: u32, event: HookEvent) -> HookQuestion {
    HookQuestion {
        number,
        slot: HookSlot::new(0),
        client: ClientId(Uuid::from_u128(0x9336_a229_2400_4ebc_8c50_0a64_3d22_e8a0)),
        user: "56".into(),
        wire: Some(Wire::CentrifugeJson),
        event,
        kept: None,
    }
}

fn call() -> HookEvent {
    HookEvent::Call { method: "get".into(), data: Bytes::new() }
}

/// One hook, and the inbox of the shard that asks.
struct World {
    hooks: Hooks,
    inbox: InboxReceiver,
    tickets: Vec<HookTicket>,
    metrics: HookMetrics,
    _thread: BackendThread,
}

impl World {
    fn new(settings: HookSettings) -> Result<Self, HookError> {
        let (inboxes, mut receivers) = Inboxes::new(1);
        let (metrics, thread) = (HookMetrics::default(), BackendThread::start().unwrap());
        let hooks = Hooks::of(vec![settings], Arc::default(), inboxes, &metrics, Some(&thread))?;
        Ok(Self { hooks, inbox: receivers.remove(0), tickets: Vec::new(), metrics, _thread: thread })
    }

    fn ask(&mut self, number: u32) {
        let from = Address { shard: 0, connection: ConnectionKey { slot: 0, generation: 0 } };
        self.tickets.push(self.hooks.send(from, question(number, call()).into()));
    }

    async fn answer(&mut self) -> HookAnswer {
        let message = timeout(Duration::from_secs(20), self.inbox.receive()).await;
        match message.expect("an answer comes") {
            Some(ShardMessage::Answer(_, Answer::Hooked(answer))) => *answer,
            other => panic!("{other:?} is no answer"),
        }
    }

    /// Asks once. Returns "ok", or what the client is told.
    async fn outcome(&mut self) -> String {
        self.ask(7);
        let answer = self.answer().await;
        assert_eq!(answer.number, 7);
        match answer.outcome {
            Ok(_) => "ok".to_owned(),
            Err(HookDenial::Failed) => "failed".to_owned(),
            Err(other) => format!("{other:?}"),
        }
    }
}

async fn world(act: Act, change: impl FnOnce(&mut HookSettings)) -> (World, Backend) {
    let backend = Backend::new(act, None).await;
    let mut settings = settings(&format!("http://127.0.0.1:{}/hook", backend.port));
    change(&mut settings);
    (World::new(settings).unwrap(), backend)
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("not so: {what}");
}

fn ok() -> Act {
    Act::Answer(200, r#"{"result":{"data":1}}"#.into())
}

#[tokio::test]
async fn whatever_a_backend_does_the_client_is_answered_and_the_next_call_is_well() {
    let (mut world, backend) = world(ok(), |settings| {
        settings.timeout = Duration::from_secs(2);
        settings.answer_bytes_max = 1000;
    })
    .await;
    let large = "x".repeat(10 << 20);
    let raw = |head: &str, body: &str| Act::Send([head, "\r\n\r\n", body].concat().into());
    let answer = |status, body: &str| Act::Answer(status, body.into());
    let acts = [
        ("status 500", answer(500, r#"{"result":{}}"#)),
        ("status 404", answer(404, "")),
        ("status 201", answer(201, r#"{"result":{}}"#)),
        ("a redirect", raw("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0", "")),
        ("no JSON", answer(200, "nonsense")),
        ("no body", answer(200, "")),
        ("a wrong type", answer(200, r#"{"result":7}"#)),
        ("10 MB", answer(200, &large)),
        ("a body without end", raw("HTTP/1.1 200 OK", &large)),
        ("half a body", raw("HTTP/1.1 200 OK\r\ncontent-length: 100", "{\"result\"")),
        ("no HTTP", raw("nonsense", "")),
        ("a head without end", raw(&format!("HTTP/1.1 200 OK\r\nx: {large}"), "")),
        ("a close", Act::Send(Vec::new())),
        ("silence", Act::Hang),
    ];
    let count = acts.len();
    for (what, act) in acts {
        backend.act(act);
        assert_eq!(world.outcome().await, "failed", "{what}");
        let requests = backend.requests();
        backend.act(ok());
        assert_eq!(world.outcome().await, "ok", "after {what}");
        assert_eq!(backend.requests(), requests + 1, "after {what}");
    }
    assert_eq!(backend.requests(), 2 * count, "redirects are not followed, and nothing is sent twice");
    // What was not read to its end is closed.
    eventually("one connection is left", || backend.seen.open.load(SeqCst) <= 1).await;
}

#[tokio::test]
async fn a_backend_that_is_not_there_fails_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut world = World::new(settings(&format!("http://127.0.0.1:{port}/"))).unwrap();
    assert_eq!(world.outcome().await, "failed");
}

#[tokio::test]
async fn connections_are_kept_and_one_that_was_closed_is_replaced() {
    let (mut world, backend) = world(ok(), |_| {}).await;
    for _ in 0..10 {
        assert_eq!(world.outcome().await, "ok");
    }
    assert_eq!(backend.seen.connections.load(SeqCst), 1);
    backend.act(Act::AnswerThenClose);
    for _ in 0..10 {
        assert_eq!(world.outcome().await, "ok");
        // A request that is on its way while the backend closes fails, and may not be sent again.
        eventually("both sides have closed it", || backend.seen.open.load(SeqCst) == 0).await;
    }
    assert_eq!((backend.requests(), backend.seen.connections.load(SeqCst)), (20, 10));
}

#[tokio::test]
async fn unused_connections_are_closed() {
    let (mut world, backend) =
        world(ok(), |settings| settings.idle_timeout = Duration::from_millis(50)).await;
    assert_eq!(world.outcome().await, "ok");
    eventually("it is closed", || backend.seen.open.load(SeqCst) == 0).await;
    assert_eq!(world.outcome().await, "ok");
    assert_eq!(backend.seen.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_may_be() {
    let (mut world, backend) = world(Act::Late(Duration::from_millis(20)), |_| {}).await;
    for number in 0..50 {
        world.ask(number);
    }
    let mut numbers = Vec::new();
    for _ in 0..50 {
        let answer = world.answer().await;
        assert!(answer.outcome.is_ok());
        numbers.push(answer.number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    assert_eq!(backend.seen.under_way_max.load(SeqCst), 4);
    assert!(backend.seen.connections.load(SeqCst) <= 8);
}

#[tokio::test]
async fn what_waits_is_bounded_in_number_and_time() {
    let (mut world, backend) = world(Act::Hang, |settings| {
        settings.requests_max = 1;
        settings.waiting_max = 3;
        settings.wait_max = Duration::from_millis(300);
    })
    .await;
    world.ask(0);
    eventually("one is under way", || backend.requests() == 1).await;
    for number in 1..6 {
        world.ask(number);
    }
    // Those beyond the bound fail at once, and a client that goes is not called for.
    assert_eq!([world.answer().await.number, world.answer().await.number], [4, 5]);
    drop(world.tickets.remove(2));
    assert_eq!([world.answer().await.number, world.answer().await.number], [1, 3]);
    let families = world.metrics.collect();
    let calls = families.iter().find(|family| family.name() == "fanwire_hook_calls_total").unwrap();
    let results = calls.get_metric().iter().map(|metric| {
        let result = metric.get_label().iter().find(|label| label.name() == "result").unwrap();
        (result.value().to_owned(), metric.get_counter().get_value())
    });
    let mut results: Vec<_> = results.collect();
    results.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(results, [("full".to_owned(), 2.0), ("late".to_owned(), 2.0)]);
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn a_backend_that_fails_is_not_called_for_a_while_and_then_tried_again() {
    let (mut world, backend) =
        world(Act::Answer(500, String::new()), |settings| settings.breaker = true).await;
    for _ in 0..20 {
        assert_eq!(world.outcome().await, "failed");
    }
    // The backend is well again at once, and is asked once the pause is over.
    backend.act(ok());
    let mut refused = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.outcome().await == "failed" {
        assert!(Instant::now() < deadline, "it is not tried again");
        refused += 1;
        sleep(Duration::from_millis(5)).await;
    }
    let times: Vec<_> = backend.seen.requests.lock().unwrap().iter().map(|(_, time)| *time).collect();
    assert_eq!(times.len(), 21, "{refused} calls were answered without the backend");
    assert!(times[20] - times[19] >= Duration::from_millis(800), "{times:?}");
    assert!(refused > 0);
    for requests in 22..40 {
        assert_eq!((world.outcome().await.as_str(), backend.requests()), ("ok", requests));
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Returns a certificate and its key, in PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Makes a backend that asks for certificates of this authority, if it `asks`.
    fn server(&self, name: &str, asks: bool) -> ServerConfig {
        let (certificate, key) = self.issue(name);
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            config.with_no_client_auth()
        };
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
        config.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
    }
}

struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("fanwire-hooks-{}", Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str, content: &str) -> std::path::PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn backends_are_called_by_tls_if_their_certificate_is_good() {
    let folder = Folder::new();
    let (authority, other) = (Authority::new(), Authority::new());
    let ca_file = folder.file("ca.pem", &authority.0.pem());
    let other_file = folder.file("other.pem", &other.0.pem());
    let (certificate, key) = authority.issue("gateway");
    let identity = IdentityFiles {
        certificate_file: folder.file("tls.crt", &certificate),
        key_file: folder.file("tls.key", &key),
    };
    for (name, asks, ca_file, identity, server_name, outcome) in [
        ("localhost", false, &ca_file, None, None, "ok"),
        ("localhost", true, &ca_file, Some(&identity), None, "ok"),
        ("backend", false, &ca_file, None, Some("backend"), "ok"),
        // An authority that is not trusted, another name, no certificate where one is asked for.
        ("localhost", false, &other_file, None, None, "failed"),
        ("backend", false, &ca_file, None, None, "failed"),
        ("localhost", true, &ca_file, None, None, "failed"),
    ] {
        let backend = Backend::new(ok(), Some(authority.server(name, asks))).await;
        let mut settings = settings(&format!("https://localhost:{}/", backend.port));
        settings.tls = BackendTlsSettings {
            ca_file: Some(ca_file.clone()),
            identity: identity.cloned(),
            server_name: server_name.map(str::to_owned),
        };
        let mut world = World::new(settings).unwrap();
        assert_eq!(world.outcome().await, outcome, "{name} {asks}");
        assert_eq!(backend.requests(), usize::from(outcome == "ok"));
    }
}

#[test]
fn files_that_cannot_be_used_are_told_with_their_setting() {
    let folder = Folder::new();
    let authority = Authority::new();
    let ca_file = Some(folder.file("ca.pem", &authority.0.pem()));
    let [(certificate, key), (_, other_key)] = [authority.issue("a"), authority.issue("a")];
    let identity = |certificate: &str, key: &str| {
        let file = |content: &str| folder.file(&Uuid::new_v4().to_string(), content);
        Some(IdentityFiles { certificate_file: file(certificate), key_file: file(key) })
    };
    let name = |name: &str| Some(name.to_owned());
    let tls = BackendTlsSettings::default;
    for (tls, expected) in [
        (
            BackendTlsSettings { ca_file: Some("/no/such".into()), ..tls() },
            "ca_file: /no/such: cannot be read",
        ),
        (BackendTlsSettings { ca_file: Some(folder.file("empty", "")), ..tls() }, "ca_file: "),
        (BackendTlsSettings { server_name: name("a b"), ..tls() }, "server_name: is no name of a server"),
        (
            BackendTlsSettings { ca_file: ca_file.clone(), identity: identity("", &key), ..tls() },
            "certificate_file: ",
        ),
        (
            BackendTlsSettings { ca_file: ca_file.clone(), identity: identity(&certificate, ""), ..tls() },
            "key_file: ",
        ),
        (
            BackendTlsSettings { ca_file, identity: identity(&certificate, &other_key), ..tls() },
            "key_file: is not the key of the certificate",
        ),
    ] {
        let error = BackendTls::new(&tls, "localhost").unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error} is not {expected}");
    }
}
