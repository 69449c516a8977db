//! Rules about one user's connections, wherever on the node they are.

use fanwire_hub::PersonalTopic;
use serde_json::json;

use crate::common::{Client, RawSocket, TestGateway, eventually, settings, token};

/// Connects and says whether that went well; if not, with which code.
async fn try_connect(gateway: &TestGateway, user: &str) -> Result<Client, u16> {
    let mut client = Client::over(RawSocket::open(gateway.address).await).await;
    client.command("connect", json!({"token": token(&json!({"sub": user}))})).await;
    let frame = client.socket.frame().await.unwrap();
    if frame.opcode == crate::common::CLOSE { Err(frame.close().0) } else { Ok(client) }
}

#[tokio::test]
async fn a_user_has_so_many_connections_and_no_more() {
    for shards in [1, 3] {
        let mut settings = settings(shards);
        settings.client.user_connections_max = 3;
        let gateway = TestGateway::start(settings);
        let all = (0..10).map(|_| try_connect(&gateway, "ann"));
        let mut inside = Vec::new();
        let mut refused = 0;
        for connect in all {
            match connect.await {
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
async fn a_newer_connection_closes_the_older_ones() {
    for shards in [1, 3] {
        let mut settings = settings(shards);
        settings.client.personal_topic = Some(PersonalTopic { single_connection: true, ..PersonalTopic::default() });
        let gateway = TestGateway::start(settings);
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
