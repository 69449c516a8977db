//! Rules about one user's connections, wherever on the node they are.

use fanwire_hub::PersonalTopic;
use serde_json::json;

use crate::common::{Client, RawSocket, TestGateway, eventually, settings, token};

/// Connects and says whether that went well; if not, with which code.
pub(crate) async fn try_connect(gateway: &TestGateway, user: &str) -> Result<Client, u16> {
    try_connect_over(RawSocket::open(gateway.address).await, user).await
}

/// The same for a client of this address, which a proxy tells.
pub(crate) async fn try_connect_from(
    gateway: &TestGateway,
    address: &str,
    user: &str,
) -> Result<Client, u16> {
    let version = if address.contains(':') { ("6", "2001:db8::") } else { ("4", "198.51.100.1") };
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(format!("PROXY TCP{} {address} {} 50000 443\r\n", version.0, version.1)).await;
    try_connect_over(socket, user).await
}

async fn try_connect_over(socket: RawSocket, user: &str) -> Result<Client, u16> {
    let mut client = Client::over(socket).await;
    client.command("connect", json!({"token": token(&json!({"sub": user}))})).await;
    let frame = client.socket.frame().await.unwrap();
    if frame.opcode == crate::common::CLOSE { Err(frame.close().0) } else { Ok(client) }
}

#[tokio::test]
async fn a_user_has_so_many_connections_and_no_more() {
    for shards in [1, 3] {
        let mut settings = settings(shards);
        settings.client.user_connections_max = 3;
        let gateway = TestGateway::start(settings).await;
        let mut inside = Vec::new();
        let mut refused = 0;
        for _ in 0..10 {
            match try_connect(&gateway, "ann").await {
                Ok(client) => inside.push(client),
                Err(code) => {
                    assert_eq!(code, 3504);
                    refused += 1;
                }
            }
        }
        assert_eq!((inside.len(), refused), (3, 7));
        // Others, and those without a name, are not counted with her.
        assert!(try_connect(&gateway, "bob").await.is_ok());
        assert!(try_connect(&gateway, "").await.is_ok());
        drop(inside.pop());
        eventually("her place is free again", async || try_connect(&gateway, "ann").await.is_ok()).await;
    }
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    for shards in [1, 3] {
        let mut settings = settings(shards);
        settings.admission.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        settings.client.address_connections_max = 3;
        settings.client.user_connections_max = 2;
        let gateway = TestGateway::start(settings).await;
        let mut inside = Vec::new();
        let mut refused = 0;
        for number in 0..10 {
            // Named or not, all of one subscriber line.
            let address = format!("2001:db8:0:1::{number}");
            let user = ["", "ann", "bob"][number % 3];
            match try_connect_from(&gateway, &address, user).await {
                Ok(client) => inside.push(client),
                Err(code) => {
                    assert_eq!(code, 3504);
                    refused += 1;
                }
            }
        }
        assert_eq!((inside.len(), refused), (3, 7));
        assert!(try_connect_from(&gateway, "2001:db8:0:2::1", "").await.is_ok());
        // Who is refused as a user gives the place of its address back.
        let _anns = try_connect_from(&gateway, "192.0.2.1", "ann").await.unwrap();
        for _ in 0..5 {
            assert_eq!(try_connect_from(&gateway, "192.0.2.2", "ann").await.err(), Some(3504));
        }
        assert!(try_connect_from(&gateway, "192.0.2.2", "").await.is_ok());
        drop(inside.pop());
        eventually("a place is free again", async || {
            try_connect_from(&gateway, "2001:db8:0:1::", "").await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn an_address_connects_at_its_rate() {
    let mut settings = settings(2);
    settings.admission.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    settings.client.address_connects_per_second_max = 2;
    let gateway = TestGateway::start(settings).await;
    let open = async |address: &str| {
        let mut socket = RawSocket::open(gateway.address).await;
        socket.send(format!("PROXY TCP6 {address} 2001:db8:: 50000 443\r\n")).await;
        socket.send(crate::common::WEBSOCKET_HANDSHAKE).await;
        socket.response().await
    };
    let mut refused = None;
    eventually("one is refused", async || {
        let response = open("2001:db8:0:1::1").await;
        refused = Some(response).filter(|response| response.status != 101);
        refused.is_some()
    })
    .await;
    let refused = refused.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("client.address_connects_per_second_max"), "{refused:?}");
    assert_eq!(open("2001:db8:0:2::1").await.status, 101);
    eventually("it may come back", async || open("2001:db8:0:1::1").await.status == 101).await;
}

#[tokio::test]
async fn a_newer_connection_closes_the_older_ones() {
    for shards in [1, 3] {
        let mut settings = settings(shards);
        settings.client.personal_topic =
            Some(PersonalTopic { single_connection: true, ..PersonalTopic::default() });
        let gateway = TestGateway::start(settings).await;
        let ann = json!({"sub": "ann"});
        let mut bob = gateway.client_with(&json!({"sub": "bob"})).await;
        let mut current = gateway.client_with(&ann).await;
        for _ in 0..5 {
            let newer = gateway.client_with(&ann).await;
            let mut older = std::mem::replace(&mut current, newer);
            assert_eq!(older.closed().await.0, 3504);
        }
        current.nothing_more().await;
        bob.nothing_more().await;
    }
}

#[tokio::test]
async fn an_order_of_the_api_reaches_all_of_a_user_and_nobody_else() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut anns = Vec::new();
        for _ in 0..9 {
            anns.push(gateway.client_with(&json!({"sub": "ann"})).await);
        }
        let mut bob = gateway.client_with(&json!({"sub": "bob"})).await;
        let mut backend = gateway.backend().await;

        backend.call("subscribe", json!({"user": "ann", "channel": "room:news"})).await;
        assert_eq!(bob.present("room:news").await, 9);
        backend.call("publish", json!({"channel": "room:news", "data": 1})).await;
        for ann in &mut anns {
            assert!(ann.push().await.get("subscribe").is_some());
            while ann.push().await.get("pub").is_none() {}
        }
        backend.call("unsubscribe", json!({"user": "ann", "channel": "room:news"})).await;
        assert_eq!(bob.present("room:news").await, 0);

        let only = anns.pop().unwrap();
        backend.call("disconnect", json!({"user": "ann", "client": only.id()})).await;
        for client in [&mut anns[0], &mut bob] {
            client.request("unsubscribe", json!({"channel": "none"})).await.unwrap();
        }
        let mut only = only;
        assert_eq!(only.closed().await, (3503, "force disconnect".into()));
        backend
            .call("disconnect", json!({"user": "ann", "disconnect": {"code": 4001, "reason": "bye"}}))
            .await;
        for ann in &mut anns {
            assert_eq!(ann.closed().await, (4001, "bye".into()));
        }
        bob.nothing_more().await;
    }
}
