//! The Redis engine against servers that are not what they should be: named errors, no panic, no haste.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanwire_broker::{
    Engine, EngineError, HistoryOptions, LinkError, LinkState, Peer, Publish, Redis, RedisSettings,
};
use fanwire_protocol::TopicName;
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
    for answer in
        ["+OK\r\n", ":5\r\n", "*0\r\n", "_\r\n", "$3\r\nabc\r\n", "*2\r\n:1\r\n$3\r\nabc\r\n", "%0\r\n"]
    {
        let server = Server::start(move |command| match command.split(' ').next() {
            Some("EVALSHA" | "HGETALL") => answer.to_owned(),
            _ => usual(command),
        });
        let redis = server.engine();
        let mut state = redis.state();
        let up = state.wait_for(|state| *state == LinkState::Up);
        tokio::time::timeout(Duration::from_secs(10), up).await.unwrap().unwrap();

        let engine = Engine::Redis(redis.clone());
        let topic = TopicName::new("t").unwrap();
        let minute = Duration::from_secs(60);
        let history = Some(HistoryOptions { size: 1, ttl: minute, meta_ttl: minute });
        let kept = Publish { history, ..Publish::default() };
        let refused = Err(EngineError::Refused);
        assert_eq!(engine.publish(&topic, kept.clone()).await, refused, "{answer:?}");
        assert_eq!(engine.publish(&topic, Publish { version: 1, ..kept }).await, refused, "{answer:?}");
        let recovery = engine.recover(&topic, None, 0, minute).await;
        assert_eq!(recovery.map(|_| ()), Err(EngineError::Refused), "{answer:?}");
        if !["%0\r\n", "*0\r\n"].contains(&answer) {
            assert_eq!(engine.presence(&topic).await, Err(EngineError::Refused), "{answer:?}");
        }
        assert_eq!(*redis.state().borrow(), LinkState::Up);
    }
}

/// What a good server answers.
fn usual(command: &str) -> String {
    match command {
        "INFO server" => text("redis_version:7.0.0\r\n"),
        "INFO replication" => text("role:master\r\nmaster_replid:0123456789\r\n"),
        command if command.starts_with("HELLO") => HELLO.to_owned(),
        command if command.starts_with("SCRIPT LOAD ") => {
            text(redis::Script::new(&command["SCRIPT LOAD ".len()..]).get_hash())
        }
        _ => "+OK\r\n".to_owned(),
    }
}

fn text(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// Answers commands by a script.
struct Server {
    port: u16,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    fn start(answer: impl Fn(&str) -> String + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&accepted);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::Relaxed);
                let (stream, answer) = (stream.unwrap(), answer.clone());
                // Ends when the engine closes the connection, whichever side notices.
                std::thread::spawn(move || while_open(stream, answer));
            }
        });
        Self { port, accepted }
    }

    fn engine(&self) -> Redis {
        let settings = RedisSettings { port: self.port, ..RedisSettings::default() };
        Redis::start(settings, Peer { id: Uuid::new_v4(), name: "test".into() }, Arc::new(|_| ())).unwrap()
    }

    /// Why the engine does not use this server. It must not try again and again without a pause.
    async fn refused(&self) -> LinkError {
        let redis = self.engine();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let LinkState::Down(error) = redis.state().borrow().clone() else { panic!("the server is used") };
        let accepted = self.accepted.load(Ordering::Relaxed);
        assert!((3..40).contains(&accepted), "{accepted} attempts");
        let sent = Engine::Redis(redis).publish(&TopicName::new("t").unwrap(), Publish::default()).await;
        assert_eq!(sent, Err(EngineError::Unavailable));
        error
    }
}

fn while_open(stream: TcpStream, answer: impl Fn(&str) -> String) -> Option<()> {
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
        writer.write_all(answer(&words.join(" ")).as_bytes()).ok()?;
    }
}

fn number(reader: &mut impl BufRead, sign: char) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}
