//! Many commands in one request, and many requests at once.

use serde_json::{Value, json};

use crate::calls::{ask, post, request, start};
use crate::common::RawSocket;

#[tokio::test]
async fn batches_are_answered_in_order() {
    for shards in [1, 3] {
        let gateway = start(shards).await;
        for parallel in [false, true] {
            let commands = json!([
                {"publish": {"channel": "nowhere:a", "data": 1}},
                {"disconnect": {"user": "nobody"}},
                {"presence": {"channel": "room:a"}},
                {"no_such_method": {}},
                null,
            ]);
            let body = json!({"commands": commands, "parallel": parallel}).to_string();
            let response = post(&gateway, "batch", body).await;
            let expected = concat!(
                r#"{"replies":[{"error":{"code":102,"message":"unknown channel"}},{"disconnect":{}},"#,
                r#"{"presence":{"presence":{}}},{"error":{"code":104,"message":"not found"}},"#,
                r#"{"error":{"code":107,"message":"bad request: command 5 is null"}}]}"#
            );
            assert_eq!((response.status, &*response.body), (200, expected));
        }
        // One after the other, each sees what those before it did.
        let publish = |number: u32| json!({"publish": {"channel": "history:b", "data": number}});
        let history = json!({"history": {"channel": "history:b", "limit": -1}});
        let commands = json!({"commands": [publish(1), publish(2), publish(3), history]});
        let response = post(&gateway, "batch", commands.to_string()).await;
        let replies: Value = serde_json::from_str(&response.body).unwrap();
        let publications = replies["replies"][3]["history"]["publications"].as_array().unwrap();
        let data: Vec<_> = publications.iter().map(|publication| publication["data"].clone()).collect();
        assert_eq!(data, [1, 2, 3]);
    }
}

#[tokio::test]
async fn pipelines_are_answered_line_by_line() {
    let gateway = start(2).await;
    let body = concat!(
        "{\"id\":1,\"method\":\"publish\",\"params\":{\"channel\":\"a\",\"data\":1}}\n",
        "{\"method\":\"PRESENCE_STATS\",\"params\":{\"channel\":\"room:a\"}}",
        "{\"id\":3,\"method\":7,\"params\":{\"channel\":\"a\"}} \r\n",
        "{\"id\":4,\"method\":33,\"params\":{}}\n",
        "{\"id\":5,\"method\":\"history\",\"params\":{\"channel\":1}}\n",
    );
    let expected = [
        r#"{"id":1,"result":{}}"#,
        r#"{"result":{"num_clients":0,"num_users":0}}"#,
        r#"{"id":3,"error":{"code":108,"message":"not available"}}"#,
        r#"{"id":4,"error":{"code":104,"message":"not found"}}"#,
        r#"{"id":5,"error":{"code":107,"message":"bad request: the field \"channel\" has a wrong type: expected a string"}}"#,
    ];
    for path in ["/api", "/api/"] {
        // Errors stay in their lines, whatever the request asks for.
        for headers in ["", "X-Centrifugo-Error-Mode: transport\r\n"] {
            let response = ask(gateway.address, "POST", path, headers, body).await;
            assert_eq!((response.status, response.body), (200, expected.join("\n")));
        }
    }
    for body in ["", " \n", "hello", "[]", r#"{"method":"no_such_method"}"#, r#"{"method":"info"}{"#] {
        assert_eq!(post(&gateway, "", body).await.status, 400, "{body}");
    }
}

#[tokio::test]
async fn many_publishers_keep_one_order_in_a_topic() {
    const PUBLISHERS: usize = 8;
    const EACH: u64 = 50;
    let gateway = start(3).await;
    let mut client = gateway.client().await;
    client.subscribe("history:a").await;
    let publishing = (0..PUBLISHERS).map(|publisher| {
        let address = gateway.address;
        tokio::spawn(async move {
            let mut socket = RawSocket::open(address).await;
            for number in 0..EACH {
                let body = json!({"channel": "history:a", "data": [publisher, number]}).to_string();
                let response = request(&mut socket, "POST", "/api/publish", "", body.as_bytes()).await;
                assert_eq!(response.status, 200, "{response:?}");
            }
        })
    });
    let publishing: Vec<_> = publishing.collect();
    let mut next = [0; PUBLISHERS];
    for offset in 1..=PUBLISHERS as u64 * EACH {
        let (_, publication) = client.publication().await;
        assert_eq!(publication["offset"], offset);
        let publisher = publication["data"][0].as_u64().unwrap() as usize;
        assert_eq!(publication["data"][1], next[publisher]);
        next[publisher] += 1;
    }
    for publisher in publishing {
        publisher.await.unwrap();
    }
}
