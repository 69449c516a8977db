use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::admission::{GroupLimit, GroupLimits, HttpConnection, OpenFiles, Port};
use super::*;

/// Room for one request, which gives way after a while.
fn connections() -> Arc<HttpConnections> {
    let group = |max, patience| GroupLimit { max, patience };
    let others = group(10, Duration::from_secs(3600));
    let limits = GroupLimits {
        silent: others,
        requests: group(1, Duration::from_millis(50)),
        posts: others,
        api: others,
    };
    HttpConnections::new(Port::Client, limits, Arc::new(OpenFiles::new(usize::MAX)))
}

fn enter(connections: &Arc<HttpConnections>) -> HttpConnection {
    connections.enter([127, 0, 0, 1].into())
}

#[tokio::test]
async fn who_waits_for_room_gets_it_though_nobody_comes_after() {
    let connections = connections();
    let first = enter(&connections);
    assert!(first.begin(Instant::now()).await);
    first.waits_for_peer(true);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let late = enter(&connections);
    tokio::select! {
        () = accept_all(&listener, &connections, || 0, |_, _| {}) => {}
        begun = late.begin(Instant::now() + Duration::from_secs(10)) => assert!(begun),
    }
}

#[tokio::test]
async fn who_waited_for_room_when_the_last_was_accepted_gets_it() {
    let connections = connections();
    let first = enter(&connections);
    assert!(first.begin(Instant::now()).await);
    first.waits_for_peer(true);
    let late = enter(&connections);
    let gives_up_then_keeps_room = async {
        connections.has_waiting().await;
        connections.keep_room().await;
    };
    tokio::select! {
        () = gives_up_then_keeps_room => {}
        begun = late.begin(Instant::now() + Duration::from_secs(10)) => assert!(begun),
    }
}
