//! What clients that poll leave behind: sessions that nobody polls any more, and answers that did not arrive.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ON_REDIS;
use crate::common::{Emulated, RawSocket, TestGateway, eventually, post, settings, token};
use crate::poll::{Bystanders, Poller, answer, data, with_grace};

/// Clients that poll a topic, with so many messages of so many bytes that wait for each; `more` goes on in their query.
async fn pollers_behind(
    gateway: &TestGateway,
    topic: &str,
    more: &str,
    clients: usize,
    messages: usize,
    bytes: usize,
) -> Vec<Poller> {
    let mut opened = Vec::new();
    for _ in 0..clients {
        let poller = Poller::new(&format!("topic={topic}{more}"));
        let first = poller.send(gateway.address, 1).await;
        opened.push((poller, first));
    }
    let mut pollers = Vec::new();
    for (mut poller, mut first) in opened {
        poller.take(&mut first).await;
        pollers.push(poller);
    }
    let delivered = async || gateway.metric_of("fanwire_messages_delivered_total", "protocol=\"poll\"").await;
    let before = delivered().await;
    let mut publisher = gateway.client().await;
    for _ in 0..messages {
        publisher.publish(topic, json!("x".repeat(bytes))).await;
    }
    eventually("all reached the sessions", async || {
        delivered().await >= before + (clients * messages) as f64
    })
    .await;
    pollers
}

/// Nobody can poll a session that nobody was told of.
#[tokio::test]
async fn a_client_that_leaves_before_its_first_answer_leaves_no_session() {
    let gateway = TestGateway::start(with_grace(2, Duration::from_secs(3600))).await;
    let mut watcher = gateway.client().await;
    let waiting = Poller::new("topic=room:a").send(gateway.address, 60).await;
    eventually("it is a member", async || watcher.present("room:a").await == 1).await;
    drop(waiting);
    eventually("it is no member any more", async || watcher.present("room:a").await == 0).await;
    assert_eq!(gateway.metric_of("fanwire_connections", "protocol=\"poll\"").await, 0.0);
}

/// All of a shard's answers that have not arrived take 32 MiB at most, and short ones more.
#[tokio::test]
async fn long_answers_that_do_not_arrive_are_given_up_and_come_from_the_cursor() {
    const CLIENTS: usize = 100;
    const MESSAGES: usize = 10;
    // No session ends however long the others take.
    let gateway = TestGateway::start(with_grace(1, Duration::from_secs(3600))).await;
    let mut pollers = pollers_behind(&gateway, "history:a", "", CLIENTS, MESSAGES, 50_000).await;
    for poller in &pollers {
        let answer = answer(&poller.send(gateway.address, 5).await.response().await);
        assert_eq!(data(&answer).len(), MESSAGES);
    }
    assert!(gateway.metric("fanwire_send_queue_bytes").await <= 34e6);
    let mut recovered = 0;
    for poller in &mut pollers {
        let answer = poller.poll(gateway.address, 5).await;
        assert_eq!(data(&answer).len(), MESSAGES);
        recovered += usize::from(answer["subscribed"] == json!([{"topic": "history:a", "recovered": true}]));
    }
    assert!((30..CLIENTS).contains(&recovered), "{recovered}");
}

/// Clients of one address that take nothing of long answers hold a quarter of the room for answers, and one answer more. Nobody
/// loses anything.
#[tokio::test]
async fn answers_that_are_not_taken_leave_room_for_others() {
    const SLOW: usize = 12;
    const BYTES: usize = 8_000_000;
    let mut settings = settings(1);
    settings.client.answer_bytes_max = 1 << 20;
    settings.client.recovery_bytes_max = 4 << 20;
    settings.api.body_bytes_max = BYTES + 1000;
    settings.admission.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let gateway = TestGateway::start(settings).await;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let poller = Poller::new("topic=plain");
        let first = poller.send(gateway.address, 1).await;
        slow.push((poller, first));
    }
    let mut honest = Poller::new("topic=other");
    honest.poll(gateway.address, 1).await;
    for (poller, socket) in &mut slow {
        poller.take(socket).await;
        *socket = RawSocket::open_small(gateway.address, 16 << 10).await;
        let from = "Host: test\r\nX-Forwarded-For: 192.0.2.1\r\n";
        socket.send(poller.request(60).replace("Host: test\r\n", from)).await;
    }
    let mut waiting = honest.send(gateway.address, 60).await;
    eventually("all wait", async || gateway.sockets() == SLOW + 1).await;
    let mut backend = gateway.backend().await;
    backend.call("publish", json!({"channel": "plain", "data": "x".repeat(BYTES)})).await;
    backend.call("publish", json!({"channel": "other", "data": "y".repeat(50_000)})).await;
    assert_eq!(data(&honest.take(&mut waiting).await).len(), 1);
    let held = gateway.metric("fanwire_answer_bytes").await;
    assert!(held <= 6.3e6 + BYTES as f64, "{held}");
    // Those that hold room may have been cut off by now. The others found none.
    let refused = gateway.metric_of("fanwire_session_calls_total", "result=\"busy\"").await;
    assert!(refused >= 1.0, "{refused}");
    let (mut pollers, sockets): (Vec<_>, Vec<_>) = slow.into_iter().unzip();
    drop(sockets);
    eventually("they have gone", async || gateway.metric("fanwire_answer_bytes").await == 0.0).await;
    for poller in &mut pollers {
        assert_eq!(data(&poller.poll(gateway.address, 5).await).len(), 1);
    }
}

/// Clients of one address get answers of 50 MB together, then shorter ones that fill what is left, and none says that they have
/// come.
pub(crate) async fn leave_long_answers(gateway: &TestGateway) {
    for (topic, clients, messages, bytes) in [("left", 100, 10, 50_000), ("rest", 40, 1, 20_000)] {
        for poller in pollers_behind(gateway, topic, "", clients, messages, bytes).await {
            let answer = answer(&poller.send(gateway.address, 5).await.response().await);
            assert_eq!(data(&answer).len(), messages);
        }
    }
}

#[tokio::test]
async fn long_answers_that_one_address_does_not_take_leave_room_for_those_of_others() {
    let mut settings = with_grace(1, Duration::from_secs(60));
    settings.admission.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let gateway = TestGateway::start(settings).await;
    let mut publisher = gateway.client().await;
    let mut poller = Poller::new("topic=plain");
    let opening = poller.request(1).replacen("\r\n", "\r\nX-Forwarded-For: 192.0.2.1\r\n", 1);
    let mut opened = RawSocket::open(gateway.address).await;
    opened.send(opening).await;
    poller.take(&mut opened).await;
    leave_long_answers(&gateway).await;
    publisher.publish("plain", json!("x".repeat(50_000))).await;
    for _ in 0..2 {
        // It is the same again.
        let answer = answer(&poller.send(gateway.address, 5).await.response().await);
        assert_eq!((data(&answer).len(), &answer["subscribed"]), (1, &Value::Null), "{answer}");
    }
}

/// The ends of sessions count too: beyond the bound they come without what waited.
#[tokio::test]
async fn long_ends_of_sessions_come_without_what_waited() {
    const CLIENTS: usize = 100;
    const MESSAGES: usize = 10;
    let gateway = TestGateway::start(settings(1)).await;
    let mut backend = gateway.backend().await;
    let ann = format!("&token={}", token(&json!({"sub": "ann"})));
    let mut pollers = pollers_behind(&gateway, "history:a", &ann, CLIENTS, MESSAGES, 50_000).await;
    backend.call("disconnect", json!({"user": "ann", "disconnect": {"code": 4500, "reason": "no"}})).await;
    eventually("all have ended", async || {
        gateway.metric_of("fanwire_connections", "protocol=\"poll\"").await == 0.0
    })
    .await;
    let kept = gateway.metric("fanwire_send_queue_bytes").await;
    assert!(kept <= 34e6, "{kept}");
    let mut whole = 0;
    for poller in &mut pollers {
        let cursor = poller.cursor.clone();
        let end = poller.poll(gateway.address, 5).await;
        assert_eq!(end["disconnect"]["code"], 4500, "{end}");
        if data(&end).len() == MESSAGES {
            whole += 1;
        } else {
            // Nothing is lost: its cursor is where it was.
            assert_eq!((data(&end).len(), &poller.cursor), (0, &cursor), "{end}");
        }
    }
    assert!((30..CLIENTS).contains(&whole), "{whole}");
}

/// Each of the crowd has an answer that it does not read, and all of them an address with those who read theirs.
#[tokio::test]
async fn clients_that_do_not_read_their_answers_cost_only_themselves() {
    const CROWD: usize = 20;
    let gateway = TestGateway::start(with_grace(1, Duration::from_secs(5))).await;
    let mut others = Bystanders::of(&gateway, "history:a").await;
    let mut first = Vec::new();
    for _ in 0..CROWD {
        let poller = Poller::new("topic=history:a");
        let opening = poller.send(gateway.address, 1).await;
        first.push((poller, opening));
    }
    let mut crowd = Vec::new();
    for (mut poller, mut opening) in first {
        poller.take(&mut opening).await;
        let mut socket = RawSocket::open_small(gateway.address, 2048).await;
        socket.send(poller.request(60)).await;
        crowd.push(socket);
    }
    eventually("all of them wait", async || {
        gateway.metric_of("fanwire_session_calls_total", "result=\"waits\"").await >= CROWD as f64
    })
    .await;
    for number in 0..20 {
        others.get(&gateway, json!([number, "x".repeat(50_000)])).await;
    }
    // They are cut off, and nobody polls their sessions.
    eventually("no session is left", async || {
        gateway.metric_of("fanwire_connections", "protocol=\"poll\"").await == 0.0
            && gateway.metric("fanwire_send_queue_bytes").await == 0.0
    })
    .await;
    drop(crowd);
}

/// It polls by the Centrifuge protocol, and has no connection whose end would tell.
#[tokio::test]
async fn a_client_that_vanishes_between_two_polls_is_a_member_for_no_longer_than_its_grace() {
    const GRACE: Duration = Duration::from_secs(2);
    const COMMANDS: &str = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"room:a\"}}";
    let gateway = TestGateway::start(with_grace(2, GRACE)).await;
    let mut watcher = gateway.client().await;
    watcher.subscribe("room:a").await;
    assert!(watcher.push().await["join"].is_object());
    let began = Instant::now();
    let connect = post("/connection/http_stream?wait=10", COMMANDS);
    let connected = RawSocket::ask(gateway.address, &connect).await;
    assert_eq!(connected.status, 200, "{connected:?}");
    assert!(watcher.push().await["join"].is_object());
    assert!(watcher.push().await["leave"].is_object());
    assert!(began.elapsed() >= GRACE, "{:?}", began.elapsed());
    assert_eq!(watcher.present("room:a").await, 1);
    let session = connected.header("fanwire-session").unwrap();
    let late = post(&format!("/connection/http_stream?wait=1&session={session}"), "");
    assert_eq!(RawSocket::ask(gateway.address, &late).await.status, 404);
    eventually("no session is left", async || {
        gateway.metric_of("fanwire_connections", "protocol=\"poll\"").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn sessions_that_are_left_give_their_memory_back() {
    if ON_REDIS {
        return;
    }
    let gateway = TestGateway::start(with_grace(2, Duration::from_millis(300))).await;
    let mut watcher = gateway.client().await;
    for _ in 0..100 {
        drop(Poller::new("topic=room:crowd").send(gateway.address, 60).await);
    }
    eventually("no session is left", async || {
        gateway.metric_of("fanwire_connections", "protocol=\"poll\"").await == 0.0
            && watcher.present("room:crowd").await == 0
    })
    .await;
    drop(watcher);
    gateway.deserted().await;
}

#[tokio::test]
async fn what_a_closed_poller_had_wait_is_given_back() {
    /// Almost all that may wait on a shard.
    const ALMOST_ALL: usize = (8 << 20) - 1024;
    let mut settings = settings(1);
    settings.http_stream.body_bytes_max = 9 << 20;
    let gateway = TestGateway::start(settings).await;
    let ask = async |parameters: &str, body: &str| {
        RawSocket::ask(gateway.address, &post(&format!("/connection/http_stream?{parameters}"), body)).await
    };
    let command = |id: u32, bytes: usize| {
        let mut command = json!({"id": id, "presence_stats": {"channel": "room:1"}}).to_string();
        command.push_str(&" ".repeat(bytes));
        command
    };
    let connected = ask("wait=1", "{\"id\":1,\"connect\":{}}").await;
    let mut session = connected.header("fanwire-session").unwrap().to_owned();
    let mut id = 1;
    // The first may have been given up before the second came.
    loop {
        id += 2;
        let ahead = ask(&format!("wait=0&session={session}"), &command(id, ALMOST_ALL)).await;
        if ahead.status == 429 {
            // The second of before still waited.
            break;
        }
        assert_eq!(ahead.status, 200, "{ahead:?}");
        session = ahead.header("fanwire-session").unwrap().to_owned();
        id += 2;
        let second = ask(&format!("wait=0&session={session}"), &command(id, 70_000)).await;
        if second.status == 429 {
            assert!(second.body.contains("Connect again, and send commands in order"), "{second:?}");
            break;
        }
        assert_eq!(second.status, 200, "{second:?}");
        session = second.header("fanwire-session").unwrap().to_owned();
    }
    // Another has room for more than the little that is always there.
    let mut client = Emulated::connect(gateway.address).await;
    client.command("presence_stats", json!({"channel": "room:1"}));
    let (id, ahead) = client.command("presence_stats", json!({"channel": "room:1"}));
    assert_eq!(client.send(gateway.address, &(ahead + &" ".repeat(20_000))).await, 204);
    client.reply(id).await.unwrap();
}
