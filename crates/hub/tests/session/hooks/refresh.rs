//! Credentials that a hook prolongs: of connections and of subscriptions.

use fanwire_hub::effect::{Completion, SubscriptionStart};
use fanwire_hub::session::{Control, ServerSubscribe};

use super::super::harness::{Outcome, topic};
use super::*;

/// A client whose token ends after a minute, and a hook that prolongs it.
fn expiring() -> (TestShard, u32) {
    let mut shard = hooked();
    shard.settings.hooks.refresh = Some(HOOK);
    shard.settings.ping_interval = None;
    let client = shard.open();
    let lines = shard.say(client, r#"{"id":1,"connect":{"token":"42 for a minute"}}"#);
    assert_eq!(lines, ["register 42"]);
    // The client is not told, since it has nothing to do.
    let open = r#"open {"id":1,"connect":{"client":"client-1","version":"test"}}"#;
    assert_eq!(shard.registered(client, Ok(())), [open]);
    (shard, client)
}

/// The seconds until the next thing is due.
fn due(shard: &TestShard, client: u32) -> u64 {
    match shard.session(client).deadline() {
        u64::MAX => u64::MAX,
        deadline => (deadline - shard.now.millis) / 1000,
    }
}

fn renewed(expiry: Expiry, info: Option<&'static str>, meta: Option<&'static str>) -> Hooked {
    let (info, meta) = (info.map(Into::into), meta.map(Into::into));
    Ok(HookResult::Refresh(Renewal::Until { expiry, info, meta }))
}

#[test]
fn the_hook_of_a_connection_is_asked_at_its_end() {
    let closed = |why: &str| vec!["unregister 42".to_owned(), format!("close {why}")];
    let expired = || closed("3005 connection expired");
    let unfit = |why: &str| vec![format!("unfit {why}")];
    let no_json = "info is not JSON in UTF-8; send JSON, or set publication_format to \"not_empty\"";
    let no_room = "meta is longer than client.hooks.kept_bytes_max leaves room for";
    let table: [(Hooked, Vec<String>, u64); 11] = [
        (until(120), vec![], 60),
        (renewed(Expiry::Never, None, None), vec![], u64::MAX),
        (Ok(HookResult::Refresh(Renewal::Expired)), expired(), u64::MAX),
        (until(60), expired(), u64::MAX),
        (failed(), vec![], 60),
        (refused(), vec![], 60),
        (unchanged(), vec![], 60),
        (sent_away(), closed("4001 go"), u64::MAX),
        (renewed(ends(120), Some("{"), None), unfit(no_json), 60),
        (renewed(ends(120), None, Some("{\"key\":1}")), unfit(no_room), 60),
        (renewed(ends(120), None, Some("{}")), vec![], 60),
    ];
    for (answer, expected, next) in table {
        let (mut shard, client) = expiring();
        shard.settings.hooks.kept.has_meta = true;
        shard.settings.hooks.kept.bytes_max = 5;
        assert_eq!(due(&shard, client), 60);
        assert_eq!(shard.next(client), ["hook 1: refresh by 42"]);
        assert_eq!(shard.now.unix(), START + 60);
        let of = format!("{answer:?}");
        assert_eq!(shard.hooked(client, 1, answer), expected, "{of}");
        if shard.session(client).is_open() {
            assert_eq!(due(&shard, client), next, "{of}");
            if next != u64::MAX {
                assert!(shard.next(client)[0].ends_with(": refresh by 42"), "{of}");
            }
        }
    }
}

#[test]
fn without_an_answer_a_connection_ends() {
    let (mut shard, client) = expiring();
    shard.next(client);
    assert_eq!(due(&shard, client), 6 + 25);
    assert_eq!(shard.next(client), ["unregister 42", "close 3005 connection expired"]);
    assert_eq!(shard.hooked(client, 1, until(120)), [""; 0]);
}

#[test]
fn requests_go_on_while_the_hook_is_asked() {
    let (mut shard, client) = expiring();
    shard.next(client);
    shard.check(client, r#"{"id":2,"rpc":{"method":"m"}}"#, &["hook 2: rpc m by 42"]);
    assert_eq!(shard.hooked(client, 1, renewed(ends(120), Some("7"), None)), [""; 0]);
    let publish = r#"{"id":3,"publish":{"channel":"news","data":1}}"#;
    shard.check(client, publish, &["hook 3: publish news 1 by 42"]);
    assert_eq!(shard.hooked(client, 3, unchanged()), ["news: publish #3 1 by 42 7"]);
}

#[test]
fn a_client_leaves_it_to_the_server() {
    let (mut shard, client) = expiring();
    let why = "close 3501 bad request: the server prolongs connections by itself; send no refresh";
    let refresh = r#"{"id":2,"refresh":{"token":"42"}}"#;
    shard.check(client, refresh, &["unregister 42", why]);

    let (mut shard, client) = expiring();
    let refresh = Control::Refresh { expiry: ends(30), info: None };
    assert_eq!(shard.control(client, &refresh), [r#"{"push":{"refresh":{}}}"#]);
    assert_eq!(due(&shard, client), 30);
}

const ENDED: &str =
    r#"{"push":{"channel":"news","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#;

/// A client with a subscription that ends after a minute, and a hook that prolongs it.
fn subscribed() -> (TestShard, u32) {
    let mut shard = hooked();
    shard.topics.default.hooks.sub_refresh = Some(HOOK);
    shard.topics.default.presence = true;
    shard.settings.ping_interval = None;
    let client = shard.connect("42");
    let lines = shard.say(client, r#"{"id":2,"subscribe":{"channel":"news","token":"news for a minute"}}"#);
    assert_eq!(lines, ["news: subscribe 42 +presence"]);
    let started = shard.started(client, "news", SubscriptionStart::default());
    assert_eq!(started, [r#"{"id":2,"subscribe":{}}"#]);
    (shard, client)
}

#[test]
fn the_hook_of_a_subscription_is_asked_at_its_end() {
    let ended = || vec!["news: unsubscribe 42 +presence".to_owned(), ENDED.to_owned()];
    let closed = ["news: unsubscribe 42 +presence", "unregister 42", "close 4001 go"];
    let unfit = "unfit info is not JSON in UTF-8; send JSON, or set publication_format to \"not_empty\"";
    let table: [(Hooked, Vec<String>, u64); 10] = [
        (until(120), vec![], 60),
        (renewed(Expiry::Never, None, None), vec![], u64::MAX),
        (renewed(ends(120), Some("7"), None), vec!["news: update_presence of 42 here 7".into()], 60),
        (Ok(HookResult::Refresh(Renewal::Expired)), ended(), u64::MAX),
        (until(60), ended(), u64::MAX),
        (failed(), vec![], 60),
        (refused(), vec![], 60),
        (unchanged(), vec![], 60),
        (sent_away(), closed.map(str::to_owned).to_vec(), u64::MAX),
        (renewed(ends(120), Some("{"), None), vec![unfit.into()], 60),
    ];
    for (answer, expected, next) in table {
        let (mut shard, client) = subscribed();
        assert_eq!(due(&shard, client), 60);
        assert_eq!(shard.next(client), ["hook 1: sub_refresh news by 42"]);
        let of = format!("{answer:?}");
        assert_eq!(shard.hooked(client, 1, answer), expected, "{of}");
        if shard.session(client).is_open() {
            assert_eq!(due(&shard, client), next, "{of}");
        }
    }
}

#[test]
fn without_an_answer_a_subscription_ends() {
    let (mut shard, client) = subscribed();
    shard.next(client);
    assert_eq!(due(&shard, client), 6 + 25);
    assert_eq!(shard.next(client), ["news: unsubscribe 42 +presence", ENDED]);
    assert_eq!(shard.hooked(client, 1, until(120)), [""; 0]);
}

#[test]
fn a_late_answer_is_not_for_the_next_subscription() {
    let (mut shard, client) = subscribed();
    shard.next(client);
    shard.say(client, r#"{"id":3,"unsubscribe":{"channel":"news"}}"#);
    shard.say(client, r#"{"id":4,"subscribe":{"channel":"news","token":"news for two minutes"}}"#);
    shard.started(client, "news", SubscriptionStart::default());
    assert_eq!(shard.hooked(client, 1, Ok(HookResult::Refresh(Renewal::Expired))), [""; 0]);
    assert_eq!(shard.session(client).subscriptions_count(), 1);
    assert_eq!(due(&shard, client), 60);
}

#[test]
fn a_client_leaves_its_subscription_to_the_server() {
    let (mut shard, client) = subscribed();
    let refresh = r#""sub_refresh":{"channel":"news","token":"news for two minutes"}"#;
    assert_eq!(shard.outcome(client, refresh), Outcome::Error(108));
}

#[test]
fn a_subscription_of_the_server_ends_with_its_connection() {
    let mut shard = hooked();
    shard.topics.default.hooks.sub_refresh = Some(HOOK);
    shard.settings.ping_interval = None;
    let client = shard.connect("42");
    let subscribe = ServerSubscribe {
        topic: topic("news"),
        options: GrantOptions::default(),
        expiry: ends(60),
        recover_since: None,
    };
    let nothing = Completion(std::sync::Arc::new(|_| {}));
    shard.control_with(client, &Control::Subscribe(subscribe.into()), nothing);
    shard.started(client, "news", SubscriptionStart::default());
    assert_eq!(shard.next(client), ["hook 1: sub_refresh news by 42"]);
    assert_eq!(
        shard.hooked(client, 1, Ok(HookResult::Refresh(Renewal::Expired))),
        ["news: unsubscribe 42", "unregister 42", "close 3006 subscription expired"]
    );
}

/// Many that end together are asked about in turn, and none ends for that.
#[test]
fn many_subscriptions_are_asked_about_in_turn() {
    let (mut shard, client) = subscribed();
    let names: Vec<String> = (0..40).map(|number| format!("topic {number}")).collect();
    for name in &names {
        shard.say(client, &format!(r#"{{"id":3,"subscribe":{{"channel":"{name}"}}}}"#));
        shard.hooked(client, 1, grant(GrantOptions::default(), ends(60)));
        shard.started(client, name, SubscriptionStart::default());
    }
    let mut asked = 0;
    while asked < 41 {
        let lines = shard.next(client);
        assert!(lines.len() <= 16 && lines.iter().all(|line| line.contains("sub_refresh")), "{lines:?}");
        asked += lines.len();
        for line in lines {
            let number = line.split([' ', ':']).nth(1).and_then(|number| number.parse().ok());
            shard.hooked(client, number.expect("it has a number"), until(6000));
        }
    }
    assert_eq!(shard.session(client).subscriptions_count(), 41);
}
