//! Payloads that are not JSON: topics that ask for JSON refuse them, and in topics that take any bytes JSON clients stay
//! connected and get all of them in order.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanwire_hub::{HistoryBounds, NameRules, Namespace, Namespaces, PublicationFormat};
use fanwire_server::Settings;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::common::{Client, RawSocket, TEXT, TestGateway, frame, identity, open, settings, token};

pub(crate) const ROOM: &str = "any:room";

/// Topics that take any bytes, as those of an older version do.
pub(crate) fn any(shards: usize) -> Settings {
    let open = Namespace {
        name: "any".into(),
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        history: Some(HistoryBounds {
            size: 100,
            ttl: Duration::from_secs(60),
            meta_ttl: Duration::from_secs(60),
        }),
        force_recovery: true,
        publication_format: PublicationFormat::NotEmpty,
        ..open()
    };
    let mut settings = settings(shards);
    settings.client.info_format = PublicationFormat::NotEmpty;
    settings.namespaces = Namespaces::new(NameRules::default(), Namespace::default(), [open]);
    settings
}

fn deep(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

fn in_base64(bytes: impl AsRef<[u8]>) -> Value {
    STANDARD.encode(bytes).into()
}

#[tokio::test]
async fn json_clients_get_publications_that_are_no_json_in_their_place() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(any(shards)).await;
        let mut watcher = gateway.client().await;
        let subscribed = watcher.subscribe(ROOM).await;
        watcher.push().await;
        let counted = gateway.metric("fanwire_payloads_in_base64_total").await;

        let strange: [&[u8]; 4] = [b"\xff\x00", b"{", b"1\n2", deep(200).leak().as_bytes()];
        for data in strange {
            crate::bursts::publish_protobuf(&gateway, ROOM, data.to_vec()).await;
        }
        let mut publisher = gateway.client().await;
        publisher.publish(ROOM, json!({"a": 1})).await;

        let check = |publications: &[Value]| {
            assert_eq!(publications.len(), 5);
            for (place, (publication, data)) in publications.iter().zip(strange).enumerate() {
                assert_eq!(publication["offset"], place + 1);
                assert_eq!((&publication["data"], &publication["b64data"]), (&Value::Null, &in_base64(data)));
            }
            assert_eq!(publications[4]["data"], json!({"a": 1}));
            assert_eq!(publications[4].get("b64data"), None);
        };
        let mut live = Vec::new();
        for _ in strange.iter().chain([&&b""[..]]) {
            live.push(watcher.publication().await.1);
        }
        check(&live);
        let asked = json!({"channel": ROOM, "limit": 10});
        let history = watcher.request("history", asked.clone()).await.unwrap();
        check(history["publications"].as_array().unwrap());

        let mut late = gateway.client().await;
        let recover = json!({"channel": ROOM, "recover": true, "offset": 0, "epoch": subscribed["epoch"]});
        let recovered = late.request("subscribe", recover).await.unwrap();
        assert_eq!(recovered["recovered"], true);
        check(recovered["publications"].as_array().unwrap());

        let read = gateway.backend().await.call("history", asked).await;
        check(read["publications"].as_array().unwrap());
        assert!(gateway.metric("fanwire_payloads_in_base64_total").await >= counted + 12.0);
    }
}

#[tokio::test]
async fn json_clients_see_members_whose_info_is_no_json() {
    let gateway = TestGateway::start(any(1)).await;
    let mut watcher = gateway.client().await;
    watcher.subscribe(ROOM).await;
    watcher.push().await;
    let deep = deep(5500);
    for (claim, json, bytes) in [
        ("info", deep.clone(), deep.as_bytes()),
        ("b64info", in_base64(b"\xff\x00").to_string(), b"\xff\x00"),
    ] {
        let claims = BTreeMap::from([("sub", "\"42\"".to_owned()), (claim, json)]);
        let claims: BTreeMap<_, _> =
            claims.into_iter().map(|(name, json)| (name, RawValue::from_string(json).unwrap())).collect();
        let mut member = Client::connect(gateway.address, json!({"token": token(&claims)})).await;
        member.subscribe(ROOM).await;
        let join = watcher.push().await;
        assert_eq!(identity(&join, "join"), member.id());
        let info = &join["join"]["info"];
        assert_eq!((&info["conn_info"], &info["b64conn_info"]), (&Value::Null, &in_base64(bytes)));
        let present = watcher.request("presence", json!({"channel": ROOM})).await.unwrap();
        assert_eq!(present["presence"][member.id()]["b64conn_info"], in_base64(bytes));
        member.unsubscribe(ROOM).await;
        assert_eq!(identity(&watcher.push().await, "leave"), member.id());
    }
    watcher.nothing_more().await;
}

#[tokio::test]
async fn what_is_not_json_does_not_come_into_topics_that_ask_for_it() {
    const ROOM: &str = "history:room";
    let gateway = TestGateway::start(settings(1)).await;
    let mut watcher = gateway.client().await;
    watcher.subscribe(ROOM).await;
    let deep = deep(5500);

    for (data, why) in [(&b"\xff\x00"[..], "data is not JSON"), (deep.as_bytes(), "data nests deeper")] {
        let refused =
            crate::bursts::try_to_publish_protobuf(&gateway, ROOM, data.to_vec()).await.error.unwrap();
        assert!(refused.code == 107 && refused.message.contains(why), "{refused:?}");
        assert!(refused.message.contains("publication_format"), "{refused:?}");
        let from_api = json!({"channel": ROOM, "b64data": in_base64(data)});
        assert_eq!(gateway.backend().await.error("publish", from_api).await, 107);
    }
    let info: Box<RawValue> = RawValue::from_string(deep).unwrap();
    let sub = || serde_json::value::to_raw_value("42").unwrap();
    let deep_info = token(&BTreeMap::from([("sub", sub()), ("info", info)]));
    for (token, why) in [
        (deep_info, "invalid token: info nests deeper than 128 levels"),
        (token(&json!({"sub": "42", "b64info": "/w=="})), "invalid token: info is not JSON"),
        (
            token(&json!({"sub": "42", "subs": {ROOM: {"b64info": "/w=="}}})),
            "invalid token: info in subs is not JSON",
        ),
    ] {
        let mut member = RawSocket::websocket(gateway.address).await;
        member.send(frame(TEXT, json!({"id": 1, "connect": {"token": token}}).to_string())).await;
        let (code, reason) = member.closed().await;
        assert_eq!(code, 3500);
        assert!(reason.starts_with(why) && reason.contains("publication_format"), "{reason}");
    }
    let mut member = gateway.client_with(&json!({"sub": "42"})).await;
    let unfit = token(&json!({"sub": "42", "channel": ROOM, "b64info": "/w=="}));
    let refused = member.request("subscribe", json!({"channel": ROOM, "token": unfit})).await.unwrap_err();
    assert_eq!(refused["code"], 107);
    assert!(refused["message"].as_str().unwrap().contains("info is not JSON"), "{refused}");

    watcher.nothing_more().await;
    let history = watcher.request("history", json!({"channel": ROOM, "limit": 10})).await.unwrap();
    assert_eq!(history["publications"], json!([]));
}
