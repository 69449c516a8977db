//! Several nodes are one: what happens on one of them is seen, and can be ordered, through any other.

use std::collections::BTreeSet;

use fanwire_hub::{NameRules, Namespaces, PersonalTopic};
use fanwire_protocol::TopicName;
use fanwire_server::Settings;
use serde_json::{Value, json};

use crate::common::{Backend, Client, TestGateway, eventually, identity, settings};
use crate::users::{try_connect, try_connect_from};

const NODES: usize = 3;

/// Nodes of one cluster, all ready.
pub(crate) async fn cluster(change: impl Fn(&mut Settings)) -> Vec<TestGateway> {
    let shared = settings(2);
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let mut settings = shared.clone();
        settings.name = format!("node-{number}");
        change(&mut settings);
        nodes.push(TestGateway::start(settings).await);
    }
    nodes
}

async fn clients(nodes: &[TestGateway]) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in nodes {
        clients.push(node.client().await);
    }
    clients
}

async fn backends(nodes: &[TestGateway]) -> Vec<Backend> {
    let mut backends = Vec::new();
    for node in nodes {
        backends.push(node.backend().await);
    }
    backends
}

/// Clients of one user, one on each node.
async fn same_user(nodes: &[TestGateway], user: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in nodes {
        clients.push(node.client_with(&json!({"sub": user})).await);
    }
    clients
}

#[tokio::test]
async fn what_any_node_publishes_all_clients_see_once_and_in_one_order() {
    const PUBLICATIONS: usize = 100;
    let nodes = cluster(|_| ()).await;
    for topic in ["plain", "history:one"] {
        let mut clients = clients(&nodes).await;
        for client in &mut clients {
            client.subscribe(topic).await;
        }
        let mut publishers = Vec::new();
        for (number, mut backend) in backends(&nodes).await.into_iter().enumerate() {
            publishers.push(tokio::spawn(async move {
                for count in 0..PUBLICATIONS {
                    backend.call("publish", json!({"channel": topic, "data": [number, count]})).await;
                }
            }));
        }
        let mut orders = Vec::new();
        for client in &mut clients {
            let mut order = Vec::new();
            for _ in 0..NODES * PUBLICATIONS {
                order.push(client.publication().await.1["data"].take());
            }
            client.nothing_more().await;
            orders.push(order);
        }
        for publisher in publishers {
            publisher.await.unwrap();
        }
        assert!(orders.iter().all(|order| *order == orders[0]), "{topic}");
        let different: BTreeSet<String> = orders[0].iter().map(Value::to_string).collect();
        assert_eq!(different.len(), NODES * PUBLICATIONS, "{topic}");
    }
}

#[tokio::test]
async fn without_echo_the_publisher_s_tabs_on_all_nodes_get_it_and_its_own_socket_does_not() {
    let nodes = cluster(crate::echo::without_echo).await;
    let mut tabs = same_user(&nodes, "ann").await;
    tabs.extend(same_user(&nodes, "ann").await);
    for tab in &mut tabs {
        tab.subscribe("quiet:a").await;
    }
    for publisher in 0..tabs.len() {
        tabs[publisher].publish("quiet:a", json!(publisher)).await;
        for (number, tab) in tabs.iter_mut().enumerate().filter(|(number, _)| *number != publisher) {
            let publication = tab.publication().await.1;
            assert_eq!(
                (&publication["data"], &publication["info"]["user"]),
                (&json!(publisher), &json!("ann")),
                "{number}"
            );
        }
    }
    // An id of any node is excluded on any node.
    let excluded = tabs[2].id().to_owned();
    let mut backend = nodes[0].backend().await;
    backend.call("publish", json!({"channel": "quiet:a", "data": "rest", "exclude": excluded})).await;
    for (number, tab) in tabs.iter_mut().enumerate() {
        if number != 2 {
            assert_eq!(tab.publication().await.1["data"], "rest");
        }
        tab.nothing_more().await;
    }
}

#[tokio::test]
async fn a_publisher_may_ask_how_many_subscribers_it_reaches_on_all_nodes() {
    let mut nodes = cluster(|settings| settings.shards = 3).await;
    let mut clients = clients(&nodes).await;
    clients.extend(self::clients(&nodes).await);
    let mut backend = nodes[1].backend().await;
    let publish = |topic: &str| json!({"channel": topic, "data": 1, "subscribers": true});
    assert_eq!(backend.call("publish", publish("plain")).await, json!({"subscribers": 0}));
    for (number, client) in clients.iter_mut().enumerate() {
        client.subscribe("plain").await;
        let reached = backend.call("publish", publish("plain")).await;
        assert_eq!(reached, json!({"subscribers": number + 1}));
        // Others have no answer with more in it than they asked for.
        assert_eq!(backend.call("publish", json!({"channel": "plain", "data": 1})).await, json!({}));
    }
    clients[0].subscribe("history:a").await;
    let excluded = clients[0].id();
    let to_others = |topic| json!({"channel": topic, "data": 1, "subscribers": true, "exclude": excluded});
    assert_eq!(backend.call("publish", to_others("plain")).await, json!({"subscribers": 5}));
    let kept = backend.call("publish", to_others("history:a")).await;
    assert_eq!((&kept["offset"], &kept["subscribers"]), (&json!(1), &json!(0)));

    let channels = ["plain", "nowhere:x", "history:a", "none"];
    let request = json!({"channels": channels, "data": 1, "subscribers": true, "idempotency_key": "once"});
    let reached = async |backend: &mut Backend| {
        let responses = backend.call("broadcast", request.clone()).await["responses"].take();
        let reached = |response: &Value| response["result"]["subscribers"].clone();
        responses.as_array().unwrap().iter().map(reached).collect::<Vec<_>>()
    };
    assert_eq!(reached(&mut backend).await, [json!(6), Value::Null, json!(1), json!(0)]);
    // What was published already reaches nobody.
    assert_eq!(reached(&mut backend).await, [json!(0), Value::Null, json!(0), json!(0)]);

    // A node that has died is named for as long as it counts as alive, and its clients are not guessed.
    drop(nodes.pop());
    let reached = backend.call("publish", publish("plain")).await;
    assert_eq!(reached, json!({"subscribers": 4, "missing": ["node-2"]}));
}

#[tokio::test]
async fn presence_is_one_and_true_at_every_reply() {
    let nodes = cluster(|_| ()).await;
    let mut backends = backends(&nodes).await;
    let mut clients = clients(&nodes).await;
    for (index, client) in clients.iter_mut().enumerate() {
        client.subscribe("room:1").await;
        for backend in &mut backends {
            let stats = backend.call("presence_stats", json!({"channel": "room:1"})).await;
            assert_eq!(stats["num_clients"], index + 1);
            let presence = backend.call("presence", json!({"channel": "room:1"})).await;
            assert_eq!(presence["presence"].as_object().unwrap().len(), index + 1);
            assert!(presence["presence"].get(client.id()).is_some());
        }
    }
    // The first has seen everybody come, itself included.
    let mut joined = BTreeSet::new();
    for _ in 0..NODES {
        joined.insert(identity(&clients[0].push().await, "join").to_owned());
    }
    assert_eq!(joined.len(), NODES);
    let last = clients.pop().unwrap();
    let gone = last.id().to_owned();
    drop(last);
    assert_eq!(identity(&clients[0].push().await, "leave"), gone);
    for backend in &mut backends {
        assert_eq!(
            backend.call("presence_stats", json!({"channel": "room:1"})).await["num_clients"],
            NODES - 1
        );
    }
    clients[1].unsubscribe("room:1").await;
    assert_eq!(identity(&clients[0].push().await, "leave"), clients[1].id());
    for backend in &mut backends {
        assert_eq!(backend.call("presence_stats", json!({"channel": "room:1"})).await["num_clients"], 1);
    }
}

#[tokio::test]
async fn any_node_tells_of_all_nodes_and_topics() {
    let nodes = cluster(|_| ()).await;
    let mut clients = clients(&nodes).await;
    for (index, client) in clients.iter_mut().enumerate() {
        client.subscribe("shared").await;
        client.subscribe(&format!("own-{index}")).await;
    }
    let mut answers = Vec::new();
    for mut backend in backends(&nodes).await {
        let channels = backend.call("channels", json!({})).await;
        let own = json!({"num_clients": 1});
        let expected = json!({"shared": {"num_clients": 3}, "own-0": own, "own-1": own, "own-2": own});
        assert_eq!(channels["channels"], expected);
        let info = backend.call("info", json!({})).await;
        let nodes = info["nodes"].as_array().unwrap().clone();
        let names: Vec<_> = nodes.iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["node-0", "node-1", "node-2"]);
        assert!(nodes.iter().all(|node| node["num_clients"] == 1 && node["num_channels"] == 2), "{info}");
        answers.push(channels);
    }
}

#[tokio::test]
async fn an_order_finds_its_clients_wherever_they_are() {
    let nodes = cluster(|_| ()).await;
    let mut backends = backends(&nodes).await;
    let mut clients = same_user(&nodes, "42").await;
    let mut others = same_user(&nodes, "7").await;

    backends[0].call("subscribe", json!({"user": "42", "channel": "news"})).await;
    // When the call is answered it has been done everywhere.
    let channels = backends[1].call("channels", json!({"pattern": "news"})).await;
    assert_eq!(channels["channels"]["news"]["num_clients"], NODES);
    for client in &mut clients {
        assert!(client.push().await.get("subscribe").is_some());
    }

    let one = clients[2].id().to_owned();
    backends[0].call("unsubscribe", json!({"user": "42", "client": one, "channel": "news"})).await;
    let channels = backends[0].call("channels", json!({"pattern": "news"})).await;
    assert_eq!(channels["channels"]["news"]["num_clients"], NODES - 1);
    assert_eq!(clients[2].push().await["unsubscribe"]["code"], 2000);

    let expire_at = 4_000_000_000_i64;
    backends[1].call("refresh", json!({"user": "42", "expire_at": expire_at})).await;
    for client in &mut clients {
        assert_eq!(client.push().await["refresh"]["expires"], true);
    }

    backends[2].call("disconnect", json!({"user": "42", "whitelist": [one]})).await;
    for client in &mut clients[..2] {
        assert_eq!(client.closed().await.0, 3503);
    }
    backends[0].call("disconnect", json!({"client": one, "user": "42"})).await;
    assert_eq!(clients[2].closed().await.0, 3503);
    for other in &mut others {
        other.nothing_more().await;
    }
}

#[tokio::test]
async fn a_bad_order_is_refused_and_goes_nowhere() {
    let nodes = cluster(|_| ()).await;
    let mut backend = nodes[0].backend().await;
    for (method, parameters, code) in [
        ("disconnect", json!({}), 107),
        ("subscribe", json!({"user": "42", "channel": "nothing:1"}), 102),
        ("disconnect", json!({"user": "42", "disconnect": {"code": 1}}), 107),
        ("unsubscribe", json!({"user": "42", "channel": "!control"}), 107),
        ("publish", json!({"channel": "!control", "data": {}}), 107),
    ] {
        assert_eq!(backend.error(method, parameters.clone()).await, code, "{method} {parameters}");
    }
}

#[tokio::test]
async fn a_user_has_so_many_connections_on_all_nodes_together() {
    let nodes = cluster(|settings| settings.client.user_connections_max = 2).await;
    let first = try_connect(&nodes[0], "ann").await.unwrap();
    let _second = try_connect(&nodes[1], "ann").await.unwrap();
    for node in &nodes {
        assert_eq!(try_connect(node, "ann").await.err(), Some(3504));
    }
    assert!(try_connect(&nodes[2], "bob").await.is_ok());
    drop(first);
    let mut third = None;
    eventually("her place is free again", async || {
        third = try_connect(&nodes[2], "ann").await.ok();
        third.is_some()
    })
    .await;
    assert_eq!(try_connect(&nodes[0], "ann").await.err(), Some(3504));
}

#[tokio::test]
async fn an_address_has_so_many_connections_on_all_nodes_together() {
    let nodes = cluster(|settings| {
        settings.admission.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        settings.client.address_connections_max = 2;
    })
    .await;
    let first = try_connect_from(&nodes[0], "2001:db8:0:1::1", "ann").await.unwrap();
    let _second = try_connect_from(&nodes[1], "2001:db8:0:1::2", "").await.unwrap();
    for node in &nodes {
        for user in ["", "bob"] {
            assert_eq!(try_connect_from(node, "2001:db8:0:1::3", user).await.err(), Some(3504));
        }
    }
    assert!(try_connect_from(&nodes[2], "2001:db8:0:2::1", "").await.is_ok());
    drop(first);
    let mut third = None;
    eventually("its place is free again", async || {
        third = try_connect_from(&nodes[2], "2001:db8:0:1::4", "").await.ok();
        third.is_some()
    })
    .await;
    assert_eq!(try_connect_from(&nodes[0], "2001:db8:0:1::5", "").await.err(), Some(3504));
}

#[tokio::test]
async fn the_rate_of_a_user_is_one_on_all_nodes() {
    const BURST: usize = 1000;
    let nodes = cluster(|settings| {
        (settings.client.user_commands_per_second_max, settings.client.commands_burst_max) =
            (8, BURST as u32);
        (settings.client.commands_per_second_max, settings.client.cluster_rates) = (0, true);
    })
    .await;
    let mut ann = same_user(&nodes, "ann").await;
    let mut elsewhere = ann.pop().unwrap();
    let stats = || ("presence_stats", json!({"channel": "room:1"}));
    // All that a user may at once, and a token or two that come back meanwhile.
    let ids = ann[0].commands((0..BURST).map(|_| stats())).await;
    for id in ids {
        ann[0].reply(id).await.unwrap();
    }
    let mut served = 0;
    eventually("the other node knows", async || {
        let answer = elsewhere.request(stats().0, stats().1).await;
        served += usize::from(answer.is_ok());
        answer.is_err_and(|error| error["code"] == 111)
    })
    .await;
    assert!(served < BURST / 2, "{served} were served there");
    let mut bob = nodes[2].client_with(&json!({"sub": "bob"})).await;
    bob.request(stats().0, stats().1).await.unwrap();
}

#[tokio::test]
async fn a_newer_connection_closes_older_ones_on_other_nodes() {
    let nodes = cluster(|settings| {
        settings.client.personal_topic =
            Some(PersonalTopic { single_connection: true, ..PersonalTopic::default() });
    })
    .await;
    let ann = json!({"sub": "ann"});
    let mut current = nodes[0].client_with(&ann).await;
    for number in 1..6 {
        let newer = nodes[number % NODES].client_with(&ann).await;
        let mut older = std::mem::replace(&mut current, newer);
        assert_eq!(older.closed().await.0, 3504);
    }
    current.nothing_more().await;
}

#[tokio::test]
async fn who_wants_to_be_the_only_one_is_not_refused_for_those_whom_it_replaces() {
    let nodes = cluster(|settings| {
        settings.client.user_connections_max = 1;
        settings.client.personal_topic =
            Some(PersonalTopic { single_connection: true, ..PersonalTopic::default() });
    })
    .await;
    let mut current = try_connect(&nodes[0], "ann").await.unwrap();
    for number in 1..4 {
        let newer = try_connect(&nodes[number % NODES], "ann").await.unwrap();
        let mut older = std::mem::replace(&mut current, newer);
        assert_eq!(older.closed().await.0, 3504);
    }
}

#[tokio::test]
async fn a_subscribe_that_is_refused_is_no_leave() {
    let nodes = cluster(|settings| {
        let topic = |name| TopicName::new(name).unwrap();
        let mut both = settings.namespaces.of(&topic("room:1")).unwrap().clone();
        both.history = settings.namespaces.of(&topic("history:1")).unwrap().history;
        both.force_recovery = true;
        both.name = "both".into();
        settings.namespaces =
            Namespaces::new(NameRules::default(), settings.namespaces.default.clone(), [both]);
    })
    .await;
    let mut watcher = nodes[0].client().await;
    watcher.subscribe("both:1").await;
    assert_eq!(identity(&watcher.push().await, "join"), watcher.id());
    let mut guest = nodes[1].client().await;
    // Error 112 is asked for where not everything can be recovered.
    let lost = json!({"channel": "both:1", "recover": true, "offset": 7, "epoch": "other", "flag": 2});
    assert_eq!(guest.request("subscribe", lost).await.unwrap_err()["code"], 112);
    guest.subscribe("both:1").await;
    assert_eq!(identity(&watcher.push().await, "join"), guest.id());
    assert_eq!(watcher.present("both:1").await, 2);
}

#[tokio::test]
async fn an_order_too_long_for_the_others_is_done_nowhere() {
    let nodes = cluster(|_| ()).await;
    let mut backend = nodes[0].backend().await;
    let mut clients = same_user(&nodes, "42").await;
    let many: Vec<String> = (0..2000).map(|_| clients[0].id().to_owned()).collect();
    assert_eq!(backend.error("disconnect", json!({"user": "42", "whitelist": many})).await, 107);
    for client in &mut clients {
        client.nothing_more().await;
    }
}

#[tokio::test]
async fn many_come_to_one_room_at_once() {
    const CLIENTS: usize = 150;
    let nodes = cluster(|_| ()).await;
    let mut arriving = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let address = nodes[number % NODES].address;
        arriving.spawn(async move {
            let mut client = Client::connect(address, json!({})).await;
            client.subscribe("room:1").await;
            client
        });
    }
    let clients = arriving.join_all().await;
    let mut backend = nodes[1].backend().await;
    let stats = backend.call("presence_stats", json!({"channel": "room:1"})).await;
    assert_eq!(stats["num_clients"], CLIENTS);
    drop(clients);
    eventually("all have left", async || {
        backend.call("presence_stats", json!({"channel": "room:1"})).await["num_clients"] == 0
    })
    .await;
}

#[tokio::test]
async fn what_was_missed_is_recovered_on_another_node() {
    let nodes = cluster(|_| ()).await;
    let mut backends = backends(&nodes).await;
    let mut before = nodes[0].client().await;
    let position = before.subscribe("history:one").await;
    backends[1].call("publish", json!({"channel": "history:one", "data": 1})).await;
    before.publication().await;
    drop(before);
    for number in 2..=5 {
        let to = number % NODES;
        backends[to].call("publish", json!({"channel": "history:one", "data": number})).await;
    }
    let mut after = nodes[2].client().await;
    let request = json!({"channel": "history:one", "recover": true, "offset": 1, "epoch": position["epoch"]});
    let recovered = after.request("subscribe", request).await.unwrap();
    assert_eq!(recovered["recovered"], true);
    let data: Vec<_> =
        recovered["publications"].as_array().unwrap().iter().map(|p| p["data"].clone()).collect();
    assert_eq!(data, [2, 3, 4, 5].map(|number| json!(number)));
}
