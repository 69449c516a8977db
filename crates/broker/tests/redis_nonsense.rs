//! The Redis engine with invalid servers: named errors, no panic, no rapid retries.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanwire_broker::{
    Engine, EngineError, HistoryOptions, LinkError, LinkState, Member, NewPublication, Peer, Published,
    Redis, RedisSettings,
};
use fanwire_protocol::reason::Left;
use fanwire_protocol::{ClientId, ClientInfo, TopicName};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use uuid::Uuid;

const HELLO: &str = "%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n";

#[tokio::test]
async fn a_server_of_another_protocol_is_named() {
    let server = Server::start(|_| "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned());
    let error = server.refused().await;
    assert!(matches!(error, LinkError::WrongVersion(_)), "{error:?}");
}

#[tokio::test]
async fn an_old_server_is_named() {
    let server = Server::start(|command| match command {
        "INFO server" => text("redis_version:6.0.16\r\n"),
        command => usual(command),
    });
    assert_eq!(server.refused().await, LinkError::WrongVersion("6.0.16".to_owned()));
}

#[tokio::test]
async fn a_replica_is_named() {
    let server = Server::start(|command| match command {
        "INFO replication" => text("role:slave\r\nmaster_replid:0123456789\r\n"),
        command => usual(command),
    });
    assert_eq!(server.refused().await, LinkError::NotPrimary);
}

#[tokio::test]
async fn a_server_that_says_nothing_about_itself_is_named() {
    let server = Server::start(|command| match command {
        "INFO replication" => "*-1\r\n".to_owned(),
        command => usual(command),
    });
    let error = server.refused().await;
    assert!(matches!(error, LinkError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_server_that_knows_scripts_by_other_names_is_named() {
    let server = Server::start(|command| match command {
        command if command.starts_with("SCRIPT") => text("0"),
        command => usual(command),
    });
    let error = server.refused().await;
    assert!(matches!(error, LinkError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn answers_that_make_no_sense_are_refused() {
    let nested = format!("{}:1\r\n", "*1\r\n".repeat(90));
    for answer in [
        "+OK\r\n",
        ":5\r\n",
        "*0\r\n",
        "_\r\n",
        "$3\r\nabc\r\n",
        "$28\r\nabcdefgh18446744073709551615\r\n",
        "*2\r\n:1\r\n$3\r\nabc\r\n",
        "%0\r\n",
        &nested,
    ] {
        let script_answer = answer.to_owned();
        let server = Server::start(move |command| {
            let is_asked = is_about_history(command) || command.starts_with("HGETALL");
            if is_asked { script_answer.clone() } else { usual(command) }
        });
        let redis = server.engine();
        wait_until_up(&redis).await;

        let (engine, topic, minute) = (Engine::Redis(redis.clone()), topic(), Duration::from_secs(60));
        let refused = Err(EngineError::Refused);
        assert_eq!(engine.publish(&topic, kept()).await, refused, "{answer:?}");
        assert_eq!(
            engine.publish(&topic, NewPublication { version: 1, ..kept() }).await,
            refused,
            "{answer:?}"
        );
        let group =
            vec![kept(), kept(), NewPublication { version: 1, ..kept() }, NewPublication::default(), kept()];
        let results = engine.publish_group(&topic, group).await;
        let live = Ok(Published { position: None, suppressed: false });
        assert_eq!(results, [refused, refused, refused, live, refused], "{answer:?}");
        let recovery = engine.recover(&topic, None, 0, minute).await;
        assert_eq!(recovery.map(|_| ()), Err(EngineError::Refused), "{answer:?}");
        if !["%0\r\n", "*0\r\n"].contains(&answer) {
            assert_eq!(engine.presence(&topic, usize::MAX).await, Err(EngineError::Refused), "{answer:?}");
        }
        assert_eq!(*redis.state().borrow(), LinkState::Up);
    }
}

/// An unreadable answer ends the connection, at once or after the timeout.
#[tokio::test]
async fn answers_that_cannot_be_read_end_their_connection() {
    let nested = format!("{}:1\r\n", "*1\r\n".repeat(5000));
    for answer in [
        &nested,
        "nonsense\r\n",
        "*9223372036854775807\r\n",
        "%9223372036854775807\r\n",
        "$9223372036854775807\r\nabc",
        "=-5\r\n",
    ] {
        let script_answer = answer.to_owned();
        let server =
            Server::start(
                move |command| {
                    if is_about_history(command) { script_answer.clone() } else { usual(command) }
                },
            );
        let settings = RedisSettings {
            answer_timeout: Duration::from_millis(500),
            probe_interval: Duration::from_millis(200),
            ..server.settings()
        };
        let redis = engine(settings);
        wait_until_up(&redis).await;
        let group = vec![kept(), NewPublication::default()];
        let results = Engine::Redis(redis.clone()).publish_group(&topic(), group).await;
        assert_eq!(results, [Err(EngineError::Unavailable); 2], "{answer:?}");
        let mut state = redis.state();
        let lost = state.wait_for(|state| *state != LinkState::Up);
        tokio::time::timeout(Duration::from_secs(5), lost).await.unwrap().unwrap();
        wait_until_up(&redis).await;
    }
}

/// Probes are answered but do not arrive.
#[tokio::test]
async fn a_server_that_delivers_nothing_is_named() {
    let server = Server::start(|command| match command.split(' ').next() {
        Some("PUBLISH") => ":0\r\n".to_owned(),
        _ => usual(command),
    });
    let redis = engine(RedisSettings { probe_interval: Duration::from_millis(50), ..server.settings() });
    let mut state = redis.state();
    let deaf = state.wait_for(|state| *state == LinkState::Partial(LinkError::Deaf));
    tokio::time::timeout(Duration::from_secs(5), deaf).await.unwrap().unwrap();
    let before = server.accepted.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let attempts = server.accepted.load(Ordering::Relaxed) - before;
    assert!((1..10).contains(&attempts), "{attempts} attempts");
    assert_eq!(state.borrow().clone(), LinkState::Partial(LinkError::Deaf));
}

#[tokio::test]
async fn a_server_that_refuses_probes_is_named() {
    let server = Server::start(|command| match command.split(' ').next() {
        Some("PUBLISH") => "-NOPERM no\r\n".to_owned(),
        _ => usual(command),
    });
    let redis = server.engine();
    let mut state = redis.state();
    let is_named = |state: &LinkState| {
        matches!(state, LinkState::Partial(LinkError::NotPermitted(what))
            if what.starts_with("PUBLISH to channel fanwire:default:c:{!probe:"))
    };
    let refused = state.wait_for(is_named);
    tokio::time::timeout(Duration::from_secs(5), refused).await.unwrap().unwrap();
    let before = server.accepted.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let attempts = server.accepted.load(Ordering::Relaxed) - before;
    assert!((1..20).contains(&attempts), "{attempts} attempts");
}

/// Other values on the subscription connection are harmless.
#[tokio::test]
async fn messages_that_make_no_sense_are_harmless() {
    let server = Server::start(|command| match command.split(' ').next() {
        Some("PUBLISH") => concat!(
            ">0\r\n",
            ">1\r\n+message\r\n",
            ">3\r\n$7\r\nmessage\r\n:1\r\n*0\r\n",
            ">3\r\n$7\r\nmessage\r\n$7\r\nfanwire\r\n$0\r\n\r\n",
            ">2\r\n$12\r\nsunsubscribe\r\n_\r\n",
        )
        .to_owned(),
        _ => usual(command),
    });
    let redis = engine(RedisSettings { probe_interval: Duration::from_millis(50), ..server.settings() });
    // Several connections have delivered nothing else.
    let deadline = Instant::now() + Duration::from_secs(10);
    while redis.stats().probes_missed < 5 {
        assert!(Instant::now() < deadline, "{:?}", redis.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(matches!(*redis.state().borrow(), LinkState::Partial(_)));
}

#[tokio::test]
async fn a_server_that_drops_what_is_in_use_is_warned_of_once() {
    for (policy, expected) in [("allkeys-lru", 1), ("volatile-ttl", 1), ("noeviction", 0)] {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let _guard = tracing::subscriber::set_default(Lines(Arc::clone(&lines)));
        let server = Server::start(move |command| match command {
            "INFO memory" => text(&format!("maxmemory:0\r\nmaxmemory_policy:{policy}\r\n")),
            command => usual(command),
        });
        wait_until_up(&server.engine()).await;
        let remedy = "set maxmemory-policy to noeviction";
        let warnings = lines.lock().unwrap().iter().filter(|line| line.contains(remedy)).count();
        assert_eq!(warnings, expected, "{policy}: {:?}", lines.lock().unwrap());
    }
}

#[tokio::test]
async fn a_refusal_names_keys_and_nothing_else_of_a_command() {
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let _guard = tracing::subscriber::set_default(Lines(Arc::clone(&lines)));
    let server = Server::start(|command| {
        if is_about_history(command) { "-WRONGTYPE no\r\n".to_owned() } else { usual(command) }
    });
    let redis = server.engine();
    wait_until_up(&redis).await;
    let secret = NewPublication { data: "secret".into(), ..kept() };
    assert_eq!(Engine::Redis(redis).publish(&topic(), secret).await, Err(EngineError::Foreign));
    let lines = lines.lock().unwrap();
    assert!(lines.iter().any(|line| line.contains("fanwire:default:s:{t}")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("secret")), "{lines:?}");
}

/// After a forgotten script only the commands that did not run are sent again.
#[tokio::test]
async fn what_ran_beside_a_forgotten_script_is_not_repeated() {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&seen);
    let server = Server::start(move |command| {
        let is_script = command.starts_with("EVALSHA");
        if is_script && command.contains("fanwire:prefixes") {
            text("")
        } else if is_script && command.contains("fanwire:cs:{!}") {
            format!("*5\r\n{}{}:0\r\n*0\r\n:1000\r\n", text("held"), text("1"))
        } else if is_script && command.contains(":p:{t}:") {
            let is_known = noted.lock().unwrap().iter().any(|command| command == "removal");
            noted.lock().unwrap().push("removal".to_owned());
            if is_known { ":1\r\n" } else { "-NOSCRIPT No matching script.\r\n" }.to_owned()
        } else if command.starts_with("SREM") {
            noted.lock().unwrap().push("SREM".to_owned());
            ":1\r\n".to_owned()
        } else {
            usual(command)
        }
    });
    let redis = server.engine();
    wait_until_up(&redis).await;
    let (engine, client) = (Engine::Redis(redis), ClientId(Uuid::new_v4()));
    let (connection, subscription) = Default::default();
    let info = ClientInfo { user: "u".into(), client, connection, subscription };
    engine.add_presence(&topic(), vec![Member::new(Arc::new(info), false)]).await.unwrap();
    engine.remove_presence(&topic(), client, &Left::Gone).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["removal", "SREM", "removal"]);
}

/// The answer of a valid server.
fn usual(command: &str) -> String {
    match command {
        "INFO server" => text("redis_version:7.0.0\r\n"),
        "INFO memory" => text("maxmemory_policy:noeviction\r\n"),
        "INFO replication" => text("role:master\r\nmaster_replid:0123456789\r\n"),
        command if command.starts_with("HELLO") => HELLO.to_owned(),
        command if command.starts_with("SCRIPT LOAD ") => {
            text(redis::Script::new(&command["SCRIPT LOAD ".len()..]).get_hash())
        }
        command if command.starts_with("PUBLISH") => ":1\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    }
}

/// Returns true for a script about a position.
fn is_about_history(command: &str) -> bool {
    command.starts_with("EVAL") && command.contains(":m:{")
}

fn topic() -> TopicName {
    TopicName::new("t").unwrap()
}

fn kept() -> NewPublication {
    let minute = Duration::from_secs(60);
    NewPublication {
        history: Some(HistoryOptions { size: 1, ttl: minute, meta_ttl: minute }),
        ..NewPublication::default()
    }
}

fn engine(settings: RedisSettings) -> Redis {
    Redis::start(settings, Peer { id: Uuid::new_v4(), name: "test".into() }, Arc::new(|_| ())).unwrap()
}

async fn wait_until_up(redis: &Redis) {
    let mut state = redis.state();
    let up = state.wait_for(|state| *state == LinkState::Up);
    assert!(tokio::time::timeout(Duration::from_secs(10), up).await.is_ok(), "{redis:?}");
}

fn text(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// Answers commands by a function, and delivers publications, so that probes arrive.
struct Server {
    port: u16,
    accepted: Arc<AtomicUsize>,
}

/// The receiver of publications. One connection joins all channels.
type Joined = Arc<Mutex<Option<TcpStream>>>;

impl Server {
    fn start(answer: impl Fn(&str) -> String + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::<AtomicUsize>::default();
        let (count, joined) = (Arc::clone(&accepted), Joined::default());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::Relaxed);
                let (stream, answer, joined) = (stream.unwrap(), answer.clone(), Arc::clone(&joined));
                // Ends when the engine closes the connection.
                std::thread::spawn(move || while_open(stream, answer, &joined));
            }
        });
        Self { port, accepted }
    }

    fn settings(&self) -> RedisSettings {
        RedisSettings { port: self.port, ..RedisSettings::default() }
    }

    fn engine(&self) -> Redis {
        engine(self.settings())
    }

    /// The error with which the engine refuses this server. It must not retry without a pause.
    async fn refused(&self) -> LinkError {
        let redis = self.engine();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let LinkState::Down(error) = redis.state().borrow().clone() else { panic!("the server is used") };
        let accepted = self.accepted.load(Ordering::Relaxed);
        assert!((3..40).contains(&accepted), "{accepted} attempts");
        let sent = Engine::Redis(redis).publish(&topic(), NewPublication::default()).await;
        assert_eq!(sent, Err(EngineError::Unavailable));
        error
    }
}

fn while_open(stream: TcpStream, answer: impl Fn(&str) -> String, joined: &Joined) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let count = number(&mut reader, '*')?;
        let mut words = Vec::new();
        for _ in 0..count {
            let length = number(&mut reader, '$')?;
            let mut word = vec![0; length + 2];
            reader.read_exact(&mut word).ok()?;
            words.push(String::from_utf8_lossy(&word[..length]).into_owned());
        }
        let answer = answer(&words.join(" "));
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["SUBSCRIBE", channels @ ..] => {
                *joined.lock().unwrap() = Some(writer.try_clone().ok()?);
                for channel in channels {
                    writer
                        .write_all(format!(">3\r\n{}{}:1\r\n", text("subscribe"), text(channel)).as_bytes())
                        .ok()?;
                }
                continue;
            }
            // Publications with another answer are not delivered.
            ["PUBLISH", channel, payload] if answer == ":1\r\n" => {
                if let Some(joined) = &mut *joined.lock().unwrap() {
                    let message = format!(">3\r\n{}{}{}", text("message"), text(channel), text(payload));
                    joined.write_all(message.as_bytes()).ok()?;
                }
            }
            _ => {}
        }
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

fn number(reader: &mut impl BufRead, sign: char) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}

/// Keeps log lines.
struct Lines(Arc<Mutex<Vec<String>>>);

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{value:?} "));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
