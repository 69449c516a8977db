//! The time of each publication, told to clients where their namespace shows it.

use std::time::SystemTime;

use fanwire_hub::{NameRules, Namespace, Namespaces};
use fanwire_server::Settings;
use serde_json::{Value, json};

use crate::common::{RawSocket, TestGateway, open, settings};

/// Two namespaces with history, of which one shows the time, and one without that shows it.
fn timed() -> Settings {
    let settings = settings(2);
    let hidden = settings.namespaces.named().find(|namespace| namespace.name == "history").unwrap().clone();
    let kept = Namespace { name: "kept".into(), show_time: true, ..hidden.clone() };
    let live = Namespace { name: "live".into(), show_time: true, ..open() };
    let namespaces = Namespaces::new(NameRules::default(), open(), [hidden, kept, live]);
    Settings { namespaces, ..settings }
}

fn unix_millis() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

#[tokio::test]
async fn it_is_the_same_live_and_kept() {
    let gateway = TestGateway::start(timed()).await;
    let mut backend = gateway.backend().await;
    for (topic, is_shown) in [("kept:a", true), ("history:a", false), ("live:a", true)] {
        let mut client = gateway.client().await;
        client.subscribe(topic).await;
        let mut stream = RawSocket::open(gateway.address).await;
        stream.send(format!("GET /subscribe?topic={topic}&as=ndjson HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        stream.until("\"subscribed\"").await;
        stream.until("\n").await;

        let begun = unix_millis();
        backend.call("publish", json!({"channel": topic, "data": 1})).await;
        let time = client.publication().await.1["time"].take();
        assert_eq!(time.is_i64(), is_shown, "{topic} {time}");
        if is_shown {
            // Redis' clock is this machine's.
            let time = time.as_i64().unwrap();
            assert!((begun - 1000..=unix_millis() + 1000).contains(&time), "{begun} {time}");
        }
        let line: Value = serde_json::from_str(&stream.until("\n").await).unwrap();
        assert_eq!((&line["data"], &line["time"]), (&json!(1), &time), "{line}");

        if topic != "live:a" {
            let since = json!({"channel": topic, "recover": true});
            let recovered = gateway.client().await.request("subscribe", since).await.unwrap();
            assert_eq!(recovered["publications"][0]["time"], time, "{recovered}");
            let page = json!({"channel": topic, "limit": 1});
            let told = client.request("history", page.clone()).await.unwrap();
            assert_eq!(told["publications"][0]["time"], time, "{told}");
            let told = backend.call("history", page).await;
            assert_eq!(told["publications"][0]["time"], time, "{told}");
        }
    }
}
