//! TLS handshakes: who needs a whole one, who is turned away, how long they may take, and a node that goes meanwhile.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::version::TLS13;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::encrypted::{BOTH, Encrypted};
use crate::common::{Authority, RawSocket, WEBSOCKET_HANDSHAKE, eventually, settings, within};

#[tokio::test]
async fn who_comes_back_needs_no_whole_handshake() {
    for versions in BOTH {
        let node = Encrypted::start_with(settings(1), versions).await;
        // The ticket of TLS 1.3 comes with what the node sends first.
        drop(node.client().await);
        assert_eq!(node.handshakes("full").await, 1.0);
        drop(node.client().await);
        assert_eq!((node.handshakes("full").await, node.handshakes("resumed").await), (1.0, 1.0));
    }
}

#[tokio::test]
async fn whoever_speaks_no_tls_is_turned_away() {
    let node = Encrypted::start(settings(1)).await;
    let stranger = RawSocket::open(node.gateway.address).await;
    let mut stream = stranger.into_stream();
    stream.write_all(WEBSOCKET_HANDSHAKE.as_bytes()).await.unwrap();
    // An alert, which begins with its type, and the end.
    let answer = read_to_end(&mut stream).await;
    assert_eq!(answer.first(), Some(&0x15), "{answer:?}");
    eventually("it is counted", async || node.handshakes("invalid").await == 1.0).await;

    // One that does not know who issued the certificate goes by itself.
    let doubtful = Authority::new().trust(&[&TLS13]);
    let stream = RawSocket::open(node.gateway.address).await.into_stream();
    doubtful.shake_hands(stream).await.unwrap_err();
    eventually("it is counted", async || node.handshakes("refused").await == 1.0).await;

    drop(RawSocket::open(node.gateway.address).await);
    eventually("it is counted", async || node.handshakes("left").await == 1.0).await;
    node.client().await.publish("a", json!("still served")).await;
}

#[tokio::test]
async fn a_handshake_has_no_more_time_than_a_request() {
    let mut settings = settings(1);
    // One who stalls must not keep others out for longer.
    settings.admission.http_connections_max = 1;
    settings.admission.request_header_timeout = Duration::from_millis(500);
    let node = Encrypted::start(settings).await;
    // The first bytes of a client's hello say that more will come.
    for sent in [&[][..], &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]] {
        let mut stream = RawSocket::open(node.gateway.address).await.into_stream();
        stream.write_all(sent).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, b"");
    }
    eventually("both are counted", async || node.handshakes("timeout").await == 2.0).await;
    node.client().await.publish("a", json!("still served")).await;
}

#[tokio::test]
async fn a_slow_handshake_takes_time_from_the_first_request_alone() {
    const TIME: Duration = Duration::from_secs(6);
    const HANDSHAKE: Duration = Duration::from_secs(4);
    const REQUEST: &str = "GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut settings = settings(1);
    settings.admission.request_header_timeout = TIME;
    let node = Encrypted::start(settings).await;
    let late = async || {
        let socket = RawSocket::open(node.gateway.address).await;
        tokio::time::sleep(HANDSHAKE).await;
        socket.encrypted(&node.trust).await
    };
    let asks_in_time = async {
        let mut socket = late().await;
        socket.send(REQUEST).await;
        assert_eq!(socket.response().await.status, 404);
        // Less than there is for a head, more than the handshake has left.
        tokio::time::sleep(HANDSHAKE).await;
        socket.send(REQUEST).await;
        assert_eq!(socket.response().await.status, 404);
    };
    let asks_nothing = async {
        let began = Instant::now();
        late().await.ended().await;
        assert!(began.elapsed() < HANDSHAKE + TIME, "{:?}", began.elapsed());
    };
    tokio::join!(asks_in_time, asks_nothing);
}

/// A way to a node on which its answers wait until they are let through.
struct Slow {
    address: SocketAddr,
    /// The node has answered something.
    answered: oneshot::Receiver<()>,
    let_through: oneshot::Sender<()>,
}

impl Slow {
    async fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut node = TcpStream::connect(node).await.unwrap();
        let (has_answered, answered) = oneshot::channel();
        let (let_through, through) = oneshot::channel();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            // A client's hello is small enough to come at once.
            let mut hello = vec![0; 4096];
            let length = client.read(&mut hello).await.unwrap();
            node.write_all(&hello[..length]).await.unwrap();
            node.readable().await.unwrap();
            has_answered.send(()).unwrap();
            through.await.unwrap();
            // How it ends is for the client to tell.
            let _ = copy_bidirectional(&mut client, &mut node).await;
        });
        Self { address, answered, let_through }
    }
}

#[tokio::test]
async fn a_node_that_goes_down_waits_for_handshakes() {
    /// Far more than a node needs to go when nobody is there.
    const LONG: Duration = Duration::from_millis(500);
    for versions in BOTH {
        let Encrypted { gateway, trust, _files } = Encrypted::start_with(settings(1), versions).await;
        let (address, trust) = (gateway.address, Arc::new(trust));
        let come = |way: SocketAddr| {
            let trust = trust.clone();
            tokio::spawn(async move {
                let mut socket = RawSocket::open(way).await.encrypted(&trust).await;
                socket.upgrade(WEBSOCKET_HANDSHAKE).await;
                assert_eq!(socket.closed().await, (3001, "shutdown".into()));
                socket.ended().await;
            })
        };
        // All three are connected before the node begins to go, and one has said something.
        let [first, second] = [Slow::to(address).await, Slow::to(address).await];
        let silent = RawSocket::open(address).await;
        let early = come(first.address);
        within("the first handshake", first.answered).await.unwrap();
        let mut going = tokio::spawn(gateway.shutdown());
        timeout(LONG, &mut going).await.unwrap_err();
        let late = come(second.address);
        within("the second handshake", second.answered).await.unwrap();
        first.let_through.send(()).unwrap();
        early.await.unwrap();
        timeout(LONG, &mut going).await.unwrap_err();
        second.let_through.send(()).unwrap();
        late.await.unwrap();
        let began = Instant::now();
        within("the node goes", going).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(silent);
    }
}

async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    within("reading to the end", stream.read_to_end(&mut read)).await.unwrap();
    read
}
