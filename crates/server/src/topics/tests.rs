//! A subscription that waits for its stream goes on with the event, not with a clock.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fanwire_hub::{ClientSettings, NameRules, Namespaces};
use fanwire_protocol::{Epoch, Publication};
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::*;
use crate::settings::{
    AdmissionSettings, ApiSettings, MemoryEngineSettings, Origins, PollSettings, ProbeSettings,
    PublishSettings, ShutdownSettings, StreamSettings, Subprotocols, SubscribeSettings, TokenSettings,
    UniWebSocketSettings, WebSocketSettings,
};

const TIME: Duration = Duration::from_secs(60);

fn settings() -> Settings {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let history = HistoryBounds { size: 10, ttl: TIME, meta_ttl: TIME };
    let namespace = Namespace { history: Some(history), ..Namespace::default() };
    Settings {
        files_max: None,
        name: "test".into(),
        client_address: address,
        tls: None,
        internal_address: address,
        shards: 1,
        client: ClientSettings::default(),
        hooks: Vec::new(),
        webhook: None,
        namespaces: Namespaces::new(NameRules::default(), namespace, []),
        origins: Origins::default(),
        connection_tokens: TokenSettings::default(),
        subscription_tokens: None,
        admission: AdmissionSettings {
            connections_max: 0,
            connections_per_second_max: 0,
            trusted_proxies: Vec::new(),
            silent_connections_max: 1,
            http_connections_max: 1,
            post_connections_max: 1,
            forwarded_bytes_per_second_max: 0,
            internal_connections_max: 1,
            request_header_timeout: TIME,
            idle_timeout: TIME,
            write_timeout: TIME,
            backlog: 1,
        },
        websocket: WebSocketSettings {
            path: "/ws".into(),
            message_bytes_max: 1024,
            echo_path: None,
            deflate: None,
        },
        subscribe: SubscribeSettings {
            path: Some("/sse".into()),
            token_cookie: None,
            subprotocols: Subprotocols::All,
            heartbeats: Vec::new(),
            polls: PollSettings { wait_max: TIME, grace: TIME, jsonp: false },
        },
        publish: PublishSettings { path: None, body_bytes_max: 1 },
        http_stream: StreamSettings::default(),
        sse: StreamSettings::default(),
        emulation: StreamSettings::default(),
        probe: ProbeSettings { path: Some("/probe".into()) },
        uni_websocket: UniWebSocketSettings::default(),
        uni_http_stream: StreamSettings::default(),
        uni_sse: StreamSettings::default(),
        api: ApiSettings {
            path: "/api".into(),
            on_client_port: false,
            on_internal_port: false,
            keys: Vec::new(),
            insecure: false,
            connections_max: 1,
            idle_timeout: TIME,
            body_bytes_max: 1024,
            commands_max: 1,
            topics_max: 1,
            answer_bytes_max: 1024,
            transport_errors: false,
        },
        engine: EngineSettings::Memory(MemoryEngineSettings {
            history_bytes_max: 1024,
            idempotency_ttl: TIME,
            outbox: None,
        }),
        status: None,
        shutdown: ShutdownSettings { propagation: TIME, window: TIME, timeout: TIME },
        dev: None,
    }
}

fn publication(topic: &TopicName, epoch: Epoch, offset: u64) -> Event {
    let publication = Publication { data: "{}".into(), offset, ..Publication::default() };
    Event::Publication { topic: topic.clone(), publication: publication.into(), epoch: Some(epoch) }
}

/// An owner of topics whose streams were delivered up to offset 1.
fn topics<const N: usize>(epoch: Epoch, names: [&str; N]) -> (Rc<Topics>, [TopicName; N]) {
    let (inboxes, _receivers) = Inboxes::new(1);
    let topics = Topics::new(0, Arc::new(settings()), None, None, None, inboxes, Arc::default());
    let names = names.map(|name| TopicName::new(name).unwrap());
    for name in &names {
        let mut topic = Topic { keeps: true, ..Topic::default() };
        topic.follow.begin(Position { epoch, offset: 1 });
        topics.topics.borrow_mut().insert(name.clone(), topic);
    }
    (topics, names)
}

fn epoch() -> Epoch {
    Epoch::parse(b"epoch000").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_subscription_goes_on_at_the_instant_of_the_event_that_it_waits_for() {
    let test = async {
        let (topics, [name]) = topics(epoch(), ["a"]);
        let began = Instant::now();
        let (waits, waits_for) = (topics.clone(), name.clone());
        let waiting =
            spawn_local(async move { waits.wait_while(&waits_for, |position| position.offset < 3).await });
        for offset in 2..=3 {
            yield_now().await;
            assert!(!waiting.is_finished());
            topics.event(publication(&name, epoch(), offset));
        }
        waiting.await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_waits_is_not_woken_by_other_topics() {
    let test = async {
        let (topics, [name, other]) = topics(epoch(), ["a", "b"]);
        let looks = Rc::<Cell<usize>>::default();
        let (waits, waits_for, counts) = (topics.clone(), name.clone(), looks.clone());
        let is_behind = move |position: Position| {
            counts.set(counts.get() + 1);
            position.offset < 2
        };
        let waiting = spawn_local(async move { waits.wait_while(&waits_for, is_behind).await });
        yield_now().await;
        let before = looks.get();
        for offset in 2..=100 {
            topics.event(publication(&other, epoch(), offset));
            yield_now().await;
        }
        assert_eq!(looks.get(), before);
        topics.event(publication(&name, epoch(), 2));
        waiting.await.unwrap();
        assert!(topics.advances.borrow().is_empty(), "nobody waits any longer");
    };
    LocalSet::new().run_until(test).await;
}
