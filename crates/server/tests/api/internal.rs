//! The internal port: health and metrics.

use std::time::Duration;

use crate::calls::{api_settings, ask, post, start};
use crate::common::{TestGateway, within};

#[tokio::test]
async fn the_internal_port_tells_of_health() {
    let gateway = start(1).await;
    let get = async |path: &str| ask(gateway.internal_address, "GET", path, "", "").await;
    assert_eq!(get("/livez").await.body, "ok\n");
    assert_eq!(get("/readyz").await.body, "ok\n");
    assert_eq!(get("/readyz?verbose").await.body, "[+] not-draining ok\n[+] tasks ok\nok\n");
    let nothing = get("/nothing").await;
    assert_eq!(nothing.status, 404);
    assert!(nothing.body.contains("/livez, /readyz, /metrics, /api"), "{nothing:?}");
    for path in ["/livez", "/readyz", "/metrics"] {
        let refused = ask(gateway.internal_address, "POST", path, "", "").await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")), "{path}");
        assert_eq!(ask(gateway.address, "GET", path, "", "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn calls_are_counted_by_method_and_result() {
    let gateway = start(2).await;
    for body in [r#"{"channel":"a","data":1}"#, r#"{"channel":"nowhere:a","data":1}"#, "no JSON"] {
        post(&gateway, "publish", body).await;
    }
    post(&gateway, "batch", r#"{"commands":[{"info":{}},{"info":{}}]}"#).await;
    post(&gateway, "no_such_method", "{}").await;
    ask(gateway.address, "GET", "/api", "", "").await;
    let metrics = ask(gateway.internal_address, "GET", "/metrics", "", "").await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for (method, result, count) in [
        ("publish", "ok", 1),
        ("publish", "102", 1),
        ("publish", "400", 1),
        ("batch", "ok", 1),
        ("info", "ok", 2),
        ("other", "404", 1),
        ("pipeline", "405", 1),
        ("history", "ok", 0),
    ] {
        let sample = format!(r#"fanwire_api_requests_total{{method="{method}",result="{result}"}} {count}"#);
        assert!(metrics.body.lines().any(|line| line == sample), "{sample}\n{}", metrics.body);
    }
}

#[tokio::test]
async fn a_node_that_goes_down_is_not_ready() {
    let mut settings = api_settings(1);
    settings.shutdown.timeout = Duration::from_millis(500);
    let gateway = TestGateway::start(settings).await;
    let internal = gateway.internal_address;
    // It does not follow the close, so the node waits for it.
    let client = gateway.client().await;
    let shutdown = tokio::spawn(gateway.shutdown());
    let unready = async || ask(internal, "GET", "/readyz", "", "").await;
    within("not ready", async {
        loop {
            let response = unready().await;
            if response.status == 503 {
                assert_eq!(response.body, "[-] not-draining failed\nnot ready\n");
                break;
            }
        }
    })
    .await;
    assert_eq!(ask(internal, "GET", "/livez", "", "").await.status, 200);
    drop(client);
    within("the end", shutdown).await.unwrap();
}
