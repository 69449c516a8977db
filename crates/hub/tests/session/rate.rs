//! The rate of a client's commands: exactly as many as the bucket has, and each refusal is an answer in its place.

use std::time::Duration;

use super::harness::{Outcome, TestShard};

const ASK: &str = r#""rpc":{"method":"ping"}"#;
const REFUSED: Outcome = Outcome::Error(111);

fn shard(per_second: u32, burst: u32) -> TestShard {
    let mut shard = TestShard::default();
    shard.settings.rpc_ping_method = Some("ping".into());
    shard.settings.ping_interval = None;
    (shard.settings.commands_per_second_max, shard.settings.commands_burst_max) = (per_second, burst);
    shard
}

fn done(shard: &mut TestShard, client: u32, asked: usize) -> usize {
    (0..asked).filter(|_| shard.outcome(client, ASK) != REFUSED).count()
}

#[test]
fn a_client_may_give_a_burst_and_then_as_many_as_time_brings() {
    for burst in [4, 2000] {
        let mut shard = shard(10, burst);
        let client = shard.connect("42");
        assert_eq!(done(&mut shard, client, burst as usize + 50), burst as usize);
        shard.wait(Duration::from_millis(99));
        assert_eq!(done(&mut shard, client, 5), 0);
        shard.wait(Duration::from_millis(1));
        assert_eq!(done(&mut shard, client, 5), 1);
        shard.wait(Duration::from_millis(350));
        assert_eq!(done(&mut shard, client, 5), 3);
        shard.wait(Duration::from_secs(3600));
        assert_eq!(done(&mut shard, client, burst as usize + 50), burst as usize);
    }
}

#[test]
fn one_client_costs_another_nothing() {
    let mut shard = shard(1, 4);
    let (greedy, other) = (shard.connect("42"), shard.connect("43"));
    assert_eq!(done(&mut shard, greedy, 10), 4);
    assert_eq!(done(&mut shard, other, 4), 4);
}

#[test]
fn without_a_limit_nothing_is_refused() {
    let mut shard = shard(0, 4);
    let client = shard.connect("42");
    assert_eq!(done(&mut shard, client, 5000), 5000);
}

#[test]
fn a_command_that_waits_behind_a_subscribe_is_refused_in_its_place() {
    let mut shard = shard(1, 2);
    let client = shard.connect("42");
    let frame = r#"{"id":2,"subscribe":{"channel":"news"}}{"id":3,"presence":{"channel":"news"}}{"id":4,"presence":{"channel":"news"}}"#;
    assert_eq!(shard.say(client, frame).len(), 1, "the topic's owner is asked, and the others wait");
    let lines = shard.started(client, "news", Default::default());
    assert!(lines[0].contains(r#""id":2,"subscribe""#), "{lines:?}");
    assert!(lines[2].contains(r#""id":4,"error":{"code":111"#), "{lines:?}");
}

#[test]
fn a_topic_can_be_left_at_any_rate() {
    let mut shard = shard(1, 1);
    let client = shard.connect("42");
    assert_eq!(done(&mut shard, client, 2), 1);
    let refused_if_counted = r#""unsubscribe":{"channel":"news"}"#;
    assert_ne!(shard.outcome(client, refused_if_counted), REFUSED);
}

#[test]
fn clients_of_one_user_share_its_rate_where_one_is_set() {
    let mut shard = shard(0, 4);
    shard.settings.user_commands_per_second_max = 10;
    let (one, two, other) = (shard.connect("42"), shard.connect("42"), shard.connect("43"));
    assert_eq!(done(&mut shard, one, 3), 3);
    assert_eq!(done(&mut shard, two, 3), 1);
    assert_eq!(done(&mut shard, other, 5), 4);
    // A sweep forgets only those who may give a whole burst again.
    shard.wait(Duration::from_millis(100));
    shard.user_rates.sweep(shard.now);
    assert_eq!(done(&mut shard, two, 3), 1);
    shard.wait(Duration::from_secs(1));
    shard.user_rates.sweep(shard.now);
    assert_eq!(done(&mut shard, one, 5), 4);
}
