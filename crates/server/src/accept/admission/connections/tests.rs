//! The groups of connections, and those that give way in them.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::*;

const LIMITS: GroupLimits =
    GroupLimits { silent: limit(3), requests: limit(2), posts: limit(1), api: limit(1) };

const fn limit(max: usize) -> GroupLimit {
    GroupLimit { max, patience: Duration::ZERO }
}

fn connections(limits: GroupLimits) -> Arc<HttpConnections> {
    HttpConnections::new(Port::Client, limits, Arc::new(OpenFiles::new(usize::MAX)))
}

/// A connection, and the task that has to end when it is taken away.
struct Guest {
    connection: HttpConnection,
    task: JoinHandle<()>,
}

impl Guest {
    fn enter(connections: &Arc<HttpConnections>, from: u8) -> Self {
        let connection = connections.enter(Ipv4Addr::new(192, 0, 2, from).into());
        let task = tokio::spawn(std::future::pending());
        connection.is_served_by(task.abort_handle());
        Self { connection, task }
    }

    async fn begun(connections: &Arc<HttpConnections>, from: u8) -> Self {
        let guest = Self::enter(connections, from);
        assert!(guest.connection.begin(soon()).await);
        guest
    }

    async fn is_there(&mut self) -> bool {
        tokio::task::yield_now().await;
        !self.task.is_finished()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn counts(connections: &HttpConnections) -> [usize; 3] {
    [ConnectionGroup::Silent, ConnectionGroup::Request, ConnectionGroup::Api]
        .map(|group| connections.count(group))
}

#[tokio::test]
async fn a_flood_of_silent_connections_pushes_itself_out() {
    let connections = connections(LIMITS);
    let mut honest = Guest::enter(&connections, 1);
    let mut flood: Vec<Guest> = (0..20).map(|_| Guest::enter(&connections, 66)).collect();
    assert_eq!(counts(&connections), [3, 0, 0]);
    assert!(honest.is_there().await);
    assert!(flood.pop().unwrap().is_there().await, "the newest is there");
    assert!(!flood.remove(0).is_there().await);
    assert_eq!(connections.dropped(Reason::Silent), 18);
    drop((honest, flood));
    assert_eq!(counts(&connections), [0; 3]);
}

#[tokio::test]
async fn who_is_waited_for_gives_way_and_who_is_worked_for_does_not() {
    let connections = connections(LIMITS);
    let (mut worked, mut waited) = (Guest::begun(&connections, 1).await, Guest::begun(&connections, 1).await);
    waited.connection.waits_for_peer(true);
    let newcomer = Guest::begun(&connections, 1).await;
    assert!(worked.is_there().await && !waited.is_there().await);
    assert_eq!(counts(&connections), [0, 2, 0]);
    assert_eq!(connections.dropped(Reason::Request), 1);
    drop(waited);
    assert_eq!(counts(&connections), [0, 2, 0]);
    drop((worked, newcomer));
    assert_eq!(counts(&connections), [0; 3]);
}

#[tokio::test]
async fn a_connection_waits_for_room_until_one_is_waited_for_or_leaves() {
    let connections = connections(LIMITS);
    let (one, other) = (Guest::begun(&connections, 1).await, Guest::begun(&connections, 1).await);
    let late = Guest::enter(&connections, 2);
    assert!(!late.connection.begin(Instant::now()).await);
    let begins = async || late.connection.begin(soon()).await;
    let (admitted, ()) = tokio::join!(begins(), async { one.connection.waits_for_peer(true) });
    assert!(admitted);
    let last = Guest::enter(&connections, 3);
    let (admitted, ()) = tokio::join!(last.connection.begin(soon()), async { drop(other) });
    assert!(admitted);
    assert_eq!(counts(&connections), [0, 2, 0]);
}

async fn storm(patience: Duration) -> (Arc<HttpConnections>, Vec<Guest>) {
    let connections = connections(GroupLimits { requests: GroupLimit { max: 4, patience }, ..LIMITS });
    let mut storm = Vec::new();
    for from in [1, 1, 2, 2] {
        let guest = Guest::begun(&connections, from).await;
        guest.connection.waits_for_peer(true);
        storm.push(guest);
    }
    (connections, storm)
}

#[tokio::test]
async fn a_storm_pushes_itself_out_only_after_a_while() {
    let (connections, _storm) = storm(Duration::from_secs(3600)).await;
    assert!(!Guest::enter(&connections, 2).connection.begin(Instant::now()).await);
    let (connections, mut storm) = storm(Duration::from_millis(50)).await;
    let late = Guest::enter(&connections, 2);
    // The next one to accept looks at the time.
    let (begun, ()) = tokio::join!(late.connection.begin(soon()), connections.can_enter());
    assert!(begun);
    assert!(!storm[0].is_there().await);
    drop(late);
}

#[tokio::test]
async fn a_source_with_more_than_its_part_gives_way_to_others_at_once() {
    let (connections, mut storm) = storm(Duration::from_secs(3600)).await;
    let other = Guest::begun(&connections, 3).await;
    assert!(!storm[0].is_there().await);
    drop(other);
}

#[tokio::test]
async fn no_more_are_accepted_while_too_many_have_just_come() {
    let silent = GroupLimit { max: 2, patience: Duration::from_millis(50) };
    let connections = connections(GroupLimits { silent, ..LIMITS });
    let mut guests: Vec<Guest> = (0..3).map(|_| Guest::enter(&connections, 1)).collect();
    assert_eq!(counts(&connections), [3, 0, 0]);
    connections.can_enter().await;
    assert!(!guests[0].is_there().await, "it was waited for long enough");
    let patient = GroupLimit { max: 2, patience: Duration::from_secs(3600) };
    let connections = self::connections(GroupLimits { silent: patient, ..LIMITS });
    let guests: Vec<Guest> = (0..3).map(|_| Guest::enter(&connections, 1)).collect();
    assert!(timeout(Duration::ZERO, connections.can_enter()).await.is_err());
    assert!(guests[1].connection.begin(soon()).await);
    connections.can_enter().await;
    assert_eq!(counts(&connections), [2, 1, 0]);
}

#[tokio::test]
async fn no_more_are_accepted_while_some_wait_for_room() {
    let connections = connections(LIMITS);
    let (one, _other) = (Guest::begun(&connections, 1).await, Guest::begun(&connections, 1).await);
    let waiting = Guest::enter(&connections, 2);
    let begins = async || waiting.connection.begin(soon()).await;
    let (admitted, can_enter) = tokio::join!(begins(), async {
        let is_late = timeout(Duration::ZERO, connections.can_enter()).await.is_err();
        drop(one);
        connections.can_enter().await;
        is_late
    });
    assert!(admitted && can_enter);
}

#[tokio::test]
async fn callers_of_the_api_have_room_of_their_own() {
    let connections = connections(LIMITS);
    let mut first = Guest::begun(&connections, 1).await;
    assert!(first.connection.work(ConnectionGroup::Api));
    assert_eq!(counts(&connections), [0, 0, 1]);
    let second = Guest::begun(&connections, 1).await;
    assert!(!second.connection.work(ConnectionGroup::Api), "the first is worked for");
    first.connection.renew();
    first.connection.waits_for_peer(true);
    assert!(second.connection.work(ConnectionGroup::Api));
    assert!(!first.is_there().await);
    assert_eq!((counts(&connections), connections.dropped(Reason::Api)), ([0, 0, 1], 1));
}

#[tokio::test]
async fn requests_on_which_the_node_waits_keep_nobody_from_connecting() {
    let connections = connections(LIMITS);
    // As many as there may be handshakes, and no peer is waited for.
    let first = Guest::begun(&connections, 1).await;
    assert!(first.connection.work(ConnectionGroup::Post));
    let second = Guest::begun(&connections, 1).await;
    assert!(!second.connection.work(ConnectionGroup::Post), "the first is worked for");
    assert_eq!((counts(&connections), connections.count(ConnectionGroup::Post)), ([0, 1, 0], 1));
    let third = Guest::begun(&connections, 2).await;
    assert_eq!(counts(&connections), [0, 2, 0]);
    drop((second, third));
    assert_eq!(connections.dropped(Reason::Post), 0);
}

async fn posting(connections: &Arc<HttpConnections>, from: u8) -> Option<Guest> {
    let guest = Guest::begun(connections, from).await;
    guest.connection.work(ConnectionGroup::Post).then_some(guest)
}

#[tokio::test]
async fn a_network_has_no_more_posts_than_are_left_for_others() {
    let connections = connections(GroupLimits { posts: limit(8), requests: limit(9), ..LIMITS });
    let mut crowd = Vec::new();
    while let Some(guest) = posting(&connections, 66).await {
        crowd.push(guest);
    }
    assert_eq!(crowd.len(), 5);
    let first = posting(&connections, 1).await.unwrap();
    let second = posting(&connections, 1).await.unwrap();
    assert!(posting(&connections, 1).await.is_none());
    let third = posting(&connections, 2).await.unwrap();
    assert!(posting(&connections, 3).await.is_none(), "the node works for all");
    // What others leave open keeps nobody out: it gives way.
    for guest in [&first, &second, &third] {
        guest.connection.waits_for_peer(true);
    }
    assert!(posting(&connections, 3).await.is_some());
    // The crowd's next one takes the place of one of its own.
    crowd[0].connection.waits_for_peer(true);
    crowd[1].connection.waits_for_peer(true);
    assert!(posting(&connections, 66).await.is_some());
    assert!(!crowd[0].is_there().await && crowd[1].is_there().await);
    drop((crowd, first, second, third));
    assert_eq!(connections.count(ConnectionGroup::Post), 0);
}

#[tokio::test]
async fn a_port_without_files_spares_some_for_newcomers() {
    const FILES: usize = 4;
    let limits = GroupLimits { silent: limit(10), requests: limit(10), posts: limit(10), api: limit(10) };
    let connections = HttpConnections::new(Port::Client, limits, Arc::new(OpenFiles::new(FILES)));
    let mut worked = Guest::begun(&connections, 1).await;
    let mut waited = Guest::begun(&connections, 1).await;
    waited.connection.waits_for_peer(true);
    assert!(!connections.spare_files(2));
    assert!(connections.spare_files(3));
    assert!(worked.is_there().await && !waited.is_there().await);
    drop(waited);
    let mut silent: Vec<Guest> = (0..2).map(|_| Guest::enter(&connections, 2)).collect();
    assert!(connections.spare_files(2));
    assert!(!silent[0].is_there().await && silent[1].is_there().await);
    assert_eq!(connections.dropped(Reason::Files), 2);
    drop((worked, silent));
    assert!(!connections.spare_files(FILES));
}

#[tokio::test]
async fn requests_on_one_connection_count_as_connections_and_one_with_clients_does_not() {
    let connections = connections(LIMITS);
    let mut carrier = Guest::begun(&connections, 1).await;
    let request = |group| carrier.connection.request(group, |from| from);
    let first = request(ConnectionGroup::Request).unwrap();
    assert_eq!((counts(&connections), request(ConnectionGroup::Request).is_none()), ([0, 2, 0], true));
    assert!(request(ConnectionGroup::Api).is_some(), "the API has room of its own");
    // One that waits for its peer gives way.
    let task = tokio::spawn(std::future::pending::<()>());
    first.is_served_by(task.abort_handle());
    first.waits_for_peer(true);
    let second = request(ConnectionGroup::Request).unwrap();
    tokio::task::yield_now().await;
    assert!(task.is_finished());
    drop(first);

    carrier.connection.carries_clients(true);
    carrier.connection.carries_clients(true);
    carrier.connection.waits_for_peer(true);
    let newcomer = Guest::begun(&connections, 2).await;
    assert_eq!(counts(&connections), [0, 2, 0]);
    assert!(carrier.is_there().await);
    carrier.connection.carries_clients(false);
    assert_eq!(counts(&connections), [0, 3, 0]);
    drop((carrier, second, newcomer));
    assert_eq!(counts(&connections), [0; 3]);
}
