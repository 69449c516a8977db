//! Reads from Redis are bounded in bytes, independent of the stored data.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[allow(dead_code, reason = "other tests need the rest")]
mod redis_server;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_broker::{
    Engine, EngineError, HistoryOptions, Member, NewPublication, Peer, PresenceStats, ReadLimit, Redis, Since,
};
use fanwire_protocol::reason::Left;
use fanwire_protocol::{ClientId, ClientInfo, TopicName};
use redis_server::{RedisServer, wait_until_up};
use uuid::Uuid;

/// Commands, probes, and protocol overhead.
const SLACK: u64 = 64 << 10;

#[tokio::test]
async fn members_that_take_too_much_are_not_read() {
    const MEMBER_BYTES: usize = 50_000;
    let server = RedisServer::start(&[]);
    let (a, b) = (up(&server).await, up(&server).await);
    let topic = topic("t");
    // The same users on both nodes, 10 MB in all.
    for (node, first) in [(&a, 0), (&b, 100)] {
        let members =
            (first..first + 100).map(|number| member(number, &(number % 100).to_string(), MEMBER_BYTES));
        node.add_presence(&topic, members.collect()).await.unwrap();
    }

    for bytes_max in [32 << 10, 1 << 20] {
        let before = sent_bytes(&server);
        assert_eq!(a.presence(&topic, bytes_max).await, Err(EngineError::TooLong));
        let read = sent_bytes(&server) - before;
        assert!(read < bytes_max as u64 + SLACK, "{read} bytes were read for {bytes_max}");
    }

    let before = sent_bytes(&server);
    let stats = a.presence_stats(&topic).await.unwrap();
    let read = sent_bytes(&server) - before;
    assert!(read < (2 << 20) + SLACK, "{read} bytes were read to count users");
    // The users are not compared.
    assert_eq!(stats, PresenceStats { clients: 200, users: 200 });

    assert_eq!(a.presence(&topic, usize::MAX).await.unwrap().len(), 200);
}

/// Many pages of a hash that Redis enlarges meanwhile.
#[tokio::test]
async fn all_that_stay_are_listed_once_while_others_come_and_go() {
    const STAY: u128 = 2000;
    const OTHERS: u128 = 200;
    let server = RedisServer::start(&[]);
    let (a, b) = (up(&server).await, up(&server).await);
    let topic = topic("t");
    let members = |numbers: std::ops::Range<u128>| -> Vec<Member> {
        numbers.map(|number| member(number, &(number % 100).to_string(), 800)).collect()
    };
    a.add_presence(&topic, members(0..STAY / 2)).await.unwrap();
    b.add_presence(&topic, members(STAY / 2..STAY)).await.unwrap();
    assert_eq!(a.presence_stats(&topic).await.unwrap(), PresenceStats { clients: STAY as usize, users: 100 });

    let change = async {
        b.add_presence(&topic, members(STAY..STAY + OTHERS)).await.unwrap();
        for number in STAY..STAY + OTHERS {
            b.remove_presence(&topic, client(number), &Left::Gone).await.unwrap();
        }
    };
    let mut change = std::pin::pin!(change);
    let mut is_changing = true;
    while is_changing {
        let list = a.presence(&topic, usize::MAX);
        let mut list = std::pin::pin!(list);
        let present = loop {
            tokio::select! {
                present = &mut list => break present.unwrap(),
                () = &mut change, if is_changing => is_changing = false,
            }
        };
        let clients: HashSet<_> = present.iter().map(|info| info.client).collect();
        assert_eq!(clients.len(), present.len(), "a member is listed twice");
        assert!((0..STAY).all(|number| clients.contains(&client(number))), "a member is missing");
    }
}

#[tokio::test]
async fn a_part_of_what_was_missed_is_read_alone() {
    const PART: ReadLimit = ReadLimit { publications: usize::MAX, bytes: 256 << 10 };
    let server = RedisServer::start(&[]);
    let (node, topic, hour) = (up(&server).await, topic("t"), Duration::from_secs(3600));
    let history = Some(HistoryOptions { size: 100, ttl: hour, meta_ttl: hour });
    for _ in 0..100 {
        let publish =
            NewPublication { data: vec![b'x'; 100_000].into(), history, ..NewPublication::default() };
        node.publish(&topic, publish).await.unwrap();
    }
    let mut offset = 0;
    while offset < 100 {
        let before = sent_bytes(&server);
        let part = node.recover_part(&topic, Since { offset, epoch: "" }, PART, hour).await.unwrap();
        let read = sent_bytes(&server) - before;
        assert!(read < PART.bytes as u64 + SLACK, "{read} bytes were read");
        assert_eq!(part.publications.first().unwrap().offset, offset + 1);
        offset = part.publications.last().unwrap().offset;
        assert_eq!(part.complete, offset == 100);
    }
}

async fn up(server: &RedisServer) -> Engine {
    let peer = Peer { id: Uuid::new_v4(), name: "node".into() };
    let redis = Redis::start(server.settings(), peer, Arc::new(|_| ())).unwrap();
    wait_until_up(&redis).await;
    redis.peers().await.unwrap();
    Engine::Redis(redis)
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn client(number: u128) -> ClientId {
    ClientId(Uuid::from_u128(number))
}

fn member(number: u128, user: &str, bytes: usize) -> Member {
    let connection = Bytes::from(vec![b'x'; bytes]);
    let info =
        ClientInfo { user: user.into(), client: client(number), connection, subscription: Bytes::new() };
    Member::new(info.into(), false)
}

/// The bytes that Redis has sent since its start.
fn sent_bytes(server: &RedisServer) -> u64 {
    let info: String = server.ask("INFO stats");
    let line = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.unwrap().parse().unwrap()
}
