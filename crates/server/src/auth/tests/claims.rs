//! The claims of tokens, good and bad.

use fanwire_hub::{ClaimExtras, GrantOptions, Overrides, TopicGrant};
use regex::Regex;

use super::*;
use crate::settings::Expected;

#[test]
fn connection_claims() {
    let ann = || ConnectionClaims { user: "ann".into(), ..nobody() };
    let with_info = |info: &[u8]| ConnectionClaims { info: info.to_vec().into(), ..nobody() };
    let until = |expiry| ConnectionClaims { expiry, ..nobody() };
    let with_meta = |meta: &'static str| ConnectionClaims {
        extras: Some(ClaimExtras { meta: meta.into(), print: None }.into()),
        ..nobody()
    };
    let invalid = TokenError::Invalid;
    let table: [(&str, Result<ConnectionClaims, TokenError>); 75] = [
        // sub
        ("{}", Ok(nobody())),
        (r#"{"sub":""}"#, Ok(nobody())),
        (r#"{"sub":"ann"}"#, Ok(ann())),
        (r#"{"sub":"\u0061n\u006e"}"#, Ok(ann())),
        (r#"{"sub":7}"#, Err(invalid("its claim `sub` is not a string"))),
        (r#"{"sub":null}"#, Err(invalid("its claim `sub` is not a string"))),
        (r#"{"sub":true}"#, Err(invalid("its claim `sub` is not a string"))),
        (r#"{"sub":["ann"]}"#, Err(invalid("its claim `sub` is not a string"))),
        (r#"{"sub":{"id":"ann"}}"#, Err(invalid("its claim `sub` is not a string"))),
        // exp, without leeway
        (r#"{"exp":1700000001}"#, Ok(until(Expiry::At(NOW + 1)))),
        (r#"{"exp":1700000000}"#, Err(TokenError::Expired)),
        (r#"{"exp":1699999999}"#, Err(TokenError::Expired)),
        (r#"{"exp":0}"#, Err(TokenError::Expired)),
        (r#"{"exp":-5}"#, Err(TokenError::Expired)),
        (r#"{"exp":null}"#, Ok(nobody())),
        (r#"{"exp":1.8e9}"#, Ok(until(Expiry::At(1_800_000_000)))),
        (r#"{"exp":1700000001.5}"#, Ok(until(Expiry::At(NOW + 1)))),
        (r#"{"exp":1700000000.5}"#, Err(TokenError::Expired)),
        (r#"{"exp":1e300}"#, Ok(until(Expiry::At(i64::MAX)))),
        (r#"{"exp":-1e300}"#, Err(TokenError::Expired)),
        (r#"{"exp":1e999}"#, Err(invalid("its claim `exp` is not a number"))),
        (r#"{"exp":"1800000000"}"#, Err(invalid("its claim `exp` is not a number"))),
        (r#"{"exp":[1800000000]}"#, Err(invalid("its claim `exp` is not a number"))),
        // nbf, without leeway
        (r#"{"nbf":1699999999}"#, Ok(nobody())),
        (r#"{"nbf":1700000000}"#, Ok(nobody())),
        (r#"{"nbf":1700000001}"#, Err(TokenError::Expired)),
        (r#"{"nbf":1700000000.5}"#, Err(TokenError::Expired)),
        (r#"{"nbf":1.6e9}"#, Ok(nobody())),
        (r#"{"nbf":null}"#, Ok(nobody())),
        (r#"{"nbf":"0"}"#, Err(invalid("its claim `nbf` is not a number"))),
        // expire_at
        (r#"{"expire_at":1700000009}"#, Ok(until(Expiry::At(NOW + 9)))),
        (r#"{"expire_at":1700000009,"exp":1700000001}"#, Ok(until(Expiry::At(NOW + 9)))),
        (r#"{"expire_at":1700000001,"exp":1700000009}"#, Ok(until(Expiry::At(NOW + 1)))),
        (r#"{"expire_at":1700000009,"exp":1700000000}"#, Err(TokenError::Expired)),
        (r#"{"expire_at":0,"exp":1700000009}"#, Ok(until(Expiry::Never))),
        (r#"{"expire_at":0.0,"exp":1700000009}"#, Ok(until(Expiry::Never))),
        (r#"{"expire_at":0}"#, Ok(until(Expiry::Never))),
        (r#"{"expire_at":0,"exp":1700000000}"#, Err(TokenError::Expired)),
        (r#"{"expire_at":null,"exp":1700000009}"#, Ok(until(Expiry::At(NOW + 9)))),
        (r#"{"expire_at":5}"#, Ok(until(Expiry::At(5)))),
        (r#"{"expire_at":0.5}"#, Ok(until(Expiry::At(0)))),
        (r#"{"expire_at":1.8e9}"#, Ok(until(Expiry::At(1_800_000_000)))),
        (r#"{"expire_at":"0"}"#, Err(invalid("its claim `expire_at` is not a number"))),
        // info and b64info
        (r#"{"info":{"name" :  "Ann",  "n":1.0}}"#, Ok(with_info(br#"{"name" :  "Ann",  "n":1.0}"#))),
        (r#"{"info": "\u0041" }"#, Ok(with_info(br#""\u0041""#))),
        (r#"{"info":{"b":1,"a":2,"b":3}}"#, Ok(with_info(br#"{"b":1,"a":2,"b":3}"#))),
        (r#"{"info":0}"#, Ok(with_info(b"0"))),
        (r#"{"info":null}"#, Ok(nobody())),
        (r#"{"b64info":"AP8="}"#, Ok(with_info(&[0, 255]))),
        (r#"{"b64info":"AP8=","info":{}}"#, Ok(with_info(&[0, 255]))),
        (r#"{"b64info":"A\nP8=\r\n"}"#, Ok(with_info(&[0, 255]))),
        (r#"{"b64info":"","info":{}}"#, Ok(with_info(b"{}"))),
        (r#"{"b64info":null,"info":{}}"#, Ok(with_info(b"{}"))),
        (r#"{"b64info":"!"}"#, Err(invalid("its claim `b64info` is not a base64 string"))),
        (r#"{"b64info":7}"#, Err(invalid("its claim `b64info` is not a base64 string"))),
        // meta
        (r#"{"meta":{"key" :  "value"}}"#, Ok(with_meta(r#"{"key" :  "value"}"#))),
        (r#"{"meta":null}"#, Ok(nobody())),
        (r#"{"meta":"text"}"#, Ok(nobody())),
        // channel
        (r#"{"channel":"a"}"#, Err(invalid("it has the claim `channel`, so it is a subscription token"))),
        (
            r#"{"channel":"a","exp":1}"#,
            Err(invalid("it has the claim `channel`, so it is a subscription token")),
        ),
        (r#"{"channel":7}"#, Err(invalid("its claim `channel` is not a string"))),
        (r#"{"channel":""}"#, Ok(nobody())),
        // wrong channels and subs
        (r#"{"channels":"a"}"#, Err(invalid("its claim `channels` is not an array of strings"))),
        (r#"{"channels":[1]}"#, Err(invalid("its claim `channels` is not an array of strings"))),
        (r#"{"subs":["a"]}"#, Err(invalid("its claim `subs` is not an object of topics with options"))),
        (r#"{"subs":{"a":[]}}"#, Err(invalid("its claim `subs` is not an object of topics with options"))),
        (
            r#"{"subs":{"a":{"override":{"presence":true}}}}"#,
            Err(invalid("its claim `subs` is not an object of topics with options")),
        ),
        (
            r#"{"subs":{"a":{"b64info":"!"}}}"#,
            Err(invalid("in its claim `subs`, a `b64info` is not a base64 string")),
        ),
        (
            r#"{"subs":{"a":{"b64data":"!"}}}"#,
            Err(invalid("in its claim `subs`, a `b64data` is not a base64 string")),
        ),
        // all else is ignored
        (r#"{"iat":"x","jti":7,"meta":[],"caps":1,"labels":2,"aud":3,"iss":4,"sub":"ann"}"#, Ok(ann())),
        (r#"{"client":7,"data":7,"b64data":7,"override":7,"sub":"ann"}"#, Ok(ann())),
        // no object of claims
        ("[]", Err(invalid("its claims are not one JSON object with each claim once"))),
        ("", Err(invalid("its claims are not one JSON object with each claim once"))),
        (r#"{"sub":"ann"} x"#, Err(invalid("its claims are not one JSON object with each claim once"))),
        (
            r#"{"sub":"ann","sub":"bob"}"#,
            Err(invalid("its claims are not one JSON object with each claim once")),
        ),
    ];
    for (claims, outcome) in table {
        check_connection(&with_hmac(), &signed(claims), outcome);
    }
}

#[test]
fn claims_that_are_not_utf8_are_invalid() {
    for claim in ["sub", "info", "not_read"] {
        let payload = [b"{\"", claim.as_bytes(), b"\":\"\xff\"}"].concat();
        let message = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(payload));
        let why = TokenError::Invalid("its claims are not UTF-8");
        check_connection(&with_hmac(), &sign(SECRET, message), Err(why));
    }
}

#[test]
fn server_side_topics() {
    let plain = |topic: &str| TopicGrant { topic: topic.into(), options: GrantOptions::default() };
    let with_info = |topic: &str, info: &'static str| TopicGrant {
        topic: topic.into(),
        options: GrantOptions { info: info.into(), ..GrantOptions::default() },
    };
    let everything = TopicGrant {
        topic: "a".into(),
        options: GrantOptions {
            info: r#"{"i": 1}"#.into(),
            data: vec![0, 255].into(),
            overrides: Overrides {
                presence: Some(true),
                join_leave: Some(false),
                force_push_join_leave: Some(true),
                force_positioning: Some(false),
                force_recovery: Some(true),
            },
        },
    };
    let table: [(&str, Vec<TopicGrant>); 11] = [
        (r#"{"channels":null,"subs":null}"#, vec![]),
        (r#"{"channels":[],"subs":{}}"#, vec![]),
        (r#"{"channels":["b","a","c"]}"#, vec![plain("b"), plain("a"), plain("c")]),
        (r#"{"channels":["a","b","a","\u0061"]}"#, vec![plain("a"), plain("b")]),
        (r#"{"subs":{"z":{},"m":null,"a":{}}}"#, vec![plain("z"), plain("m"), plain("a")]),
        (
            r#"{"subs":{"a":{"info":2},"c":{}},"channels":["b","a"]}"#,
            vec![plain("b"), with_info("a", "2"), plain("c")],
        ),
        (r#"{"subs":{"a":{"info":1},"b":{},"a":{"info":2}}}"#, vec![with_info("a", "2"), plain("b")]),
        (r#"{"subs":{"a":{"info":1,"b64info":"e30="}}}"#, vec![with_info("a", "{}")]),
        (r#"{"subs":{"a":{"info":null,"data":null,"override":null,"later":1}}}"#, vec![plain("a")]),
        (
            r#"{"subs":{"a":{"info":{"i": 1},"data":7,"b64data":"AP8=","override":{
                "presence":{"value":true},"join_leave":{"value":false},"force_push_join_leave":{"value":true},
                "force_positioning":{},"force_recovery":{"value":true},"later":{"value":true}}}}}"#,
            vec![everything],
        ),
        (r#"{"subs":{"a":{"override":{"presence":null}}}}"#, vec![plain("a")]),
    ];
    for (claims, topics) in table {
        check_connection(&with_hmac(), &signed(claims), Ok(ConnectionClaims { topics, ..nobody() }));
    }
}

#[test]
fn subscription_claims() {
    let plain = || SubscriptionClaims {
        user: "".into(),
        topic: "a".into(),
        client: "".into(),
        expiry: Expiry::Never,
        options: GrantOptions::default(),
    };
    let with_options = |options| SubscriptionClaims { options, ..plain() };
    let until = |expiry| SubscriptionClaims { expiry, ..plain() };
    let invalid = TokenError::Invalid;
    let no_topic = || Err(invalid("it lacks the claim `channel`, so it is no subscription token"));
    let table: [(&str, Result<SubscriptionClaims, TokenError>); 31] = [
        ("{}", no_topic()),
        (r#"{"channel":""}"#, no_topic()),
        (r#"{"channel":null}"#, no_topic()),
        (r#"{"sub":"ann","channels":["a"],"exp":1}"#, no_topic()),
        (r#"{"channel":["a"]}"#, Err(invalid("its claim `channel` is not a string"))),
        (r#"{"channel":"a"}"#, Ok(plain())),
        (r#"{"channel":"a","sub":"ann"}"#, Ok(SubscriptionClaims { user: "ann".into(), ..plain() })),
        (r#"{"channel":"a","sub":7}"#, Err(invalid("its claim `sub` is not a string"))),
        (r#"{"channel":"a","client":"c1"}"#, Ok(SubscriptionClaims { client: "c1".into(), ..plain() })),
        (r#"{"channel":"a","client":null}"#, Ok(plain())),
        (r#"{"channel":"a","client":7}"#, Err(invalid("its claim `client` is not a string"))),
        (r#"{"channel":"a","exp":1700000000}"#, Err(TokenError::Expired)),
        (r#"{"channel":"a","nbf":1700000001}"#, Err(TokenError::Expired)),
        (r#"{"channel":"a","nbf":1700000000}"#, Ok(plain())),
        (r#"{"channel":"a","exp":1700000001}"#, Ok(until(Expiry::At(NOW + 1)))),
        (r#"{"channel":"a","exp":1700000001,"expire_at":0}"#, Ok(until(Expiry::Never))),
        (r#"{"channel":"a","exp":1700000001,"expire_at":1700000009}"#, Ok(until(Expiry::At(NOW + 9)))),
        (r#"{"channel":"a","expire_at":1700000009}"#, Ok(until(Expiry::At(NOW + 9)))),
        (
            r#"{"channel":"a","info":{"x" : 1}}"#,
            Ok(with_options(GrantOptions { info: r#"{"x" : 1}"#.into(), ..GrantOptions::default() })),
        ),
        (
            r#"{"channel":"a","info":1,"b64info":"AP8="}"#,
            Ok(with_options(GrantOptions { info: vec![0, 255].into(), ..GrantOptions::default() })),
        ),
        (
            r#"{"channel":"a","data":[ 1 ]}"#,
            Ok(with_options(GrantOptions { data: "[ 1 ]".into(), ..GrantOptions::default() })),
        ),
        (
            r#"{"channel":"a","data":1,"b64data":"AP8="}"#,
            Ok(with_options(GrantOptions { data: vec![0, 255].into(), ..GrantOptions::default() })),
        ),
        (r#"{"channel":"a","info":null,"data":null,"override":null}"#, Ok(plain())),
        (r#"{"channel":"a","b64info":"!"}"#, Err(invalid("its claim `b64info` is not a base64 string"))),
        (r#"{"channel":"a","b64data":"!"}"#, Err(invalid("its claim `b64data` is not a base64 string"))),
        (
            r#"{"channel":"a","override":{"presence":{"value":false},"force_recovery":{"value":true}}}"#,
            Ok(with_options(GrantOptions {
                overrides: Overrides {
                    presence: Some(false),
                    force_recovery: Some(true),
                    ..Overrides::default()
                },
                ..GrantOptions::default()
            })),
        ),
        (
            r#"{"channel":"a","override":[]}"#,
            Err(invalid("its claim `override` is not an object of options with values")),
        ),
        (
            r#"{"channel":"a","override":{"presence":{"value":1}}}"#,
            Err(invalid("its claim `override` is not an object of options with values")),
        ),
        (
            r#"{"channel":"a","override":{"presence":[true]}}"#,
            Err(invalid("its claim `override` is not an object of options with values")),
        ),
        (r#"{"channel":"a","channels":7,"subs":7,"meta":7}"#, Ok(plain())),
        ("[]", Err(invalid("its claims are not one JSON object with each claim once"))),
    ];
    for (claims, outcome) in table {
        check_subscription(&with_hmac(), &signed(claims), outcome);
    }
}

#[test]
fn audience_and_issuer() {
    let exactly = |text: &str| Some(Expected::Exactly(text.into()));
    let matching = |pattern: &str| Some(Expected::Matching(Regex::new(pattern).unwrap()));
    let audience = |audience| TokenSettings { audience, ..with_hmac() };
    let issuer = |issuer| TokenSettings { issuer, ..with_hmac() };
    let wrong_audience = || Err(TokenError::Invalid("its audience (`aud`) is not the expected one"));
    let wrong_issuer = || Err(TokenError::Invalid("its issuer (`iss`) is not the expected one"));
    let no_audience =
        || Err(TokenError::Invalid("its claim `aud` is neither a string nor an array of strings"));
    let no_issuer = || Err(TokenError::Invalid("its claim `iss` is not a string"));
    let table: [(TokenSettings, &str, Result<ConnectionClaims, TokenError>); 23] = [
        (audience(exactly("us")), r#"{"aud":"us"}"#, Ok(nobody())),
        (audience(exactly("us")), r#"{"aud":["them","us"]}"#, Ok(nobody())),
        (audience(exactly("us")), r#"{"aud":"them"}"#, wrong_audience()),
        (audience(exactly("us")), r#"{"aud":"use"}"#, wrong_audience()),
        (audience(exactly("us")), r#"{"aud":["them"]}"#, wrong_audience()),
        (audience(exactly("us")), r#"{"aud":[]}"#, wrong_audience()),
        (audience(exactly("us")), "{}", wrong_audience()),
        (audience(exactly("us")), r#"{"aud":null}"#, wrong_audience()),
        (audience(exactly("us")), r#"{"aud":7}"#, no_audience()),
        (audience(exactly("us")), r#"{"aud":["us",7]}"#, no_audience()),
        (audience(matching("^us-[0-9]+$")), r#"{"aud":"us-12"}"#, Ok(nobody())),
        (audience(matching("^us-[0-9]+$")), r#"{"aud":["x","us-12"]}"#, Ok(nobody())),
        (audience(matching("^us-[0-9]+$")), r#"{"aud":"us-x"}"#, wrong_audience()),
        (audience(matching("")), "{}", wrong_audience()),
        (issuer(exactly("me")), r#"{"iss":"me"}"#, Ok(nobody())),
        (issuer(exactly("me")), r#"{"iss":"he"}"#, wrong_issuer()),
        (issuer(exactly("me")), "{}", wrong_issuer()),
        (issuer(exactly("me")), r#"{"iss":["me"]}"#, no_issuer()),
        (issuer(matching("^https://.+[.]example$")), r#"{"iss":"https://a.example"}"#, Ok(nobody())),
        (issuer(matching("^https://.+[.]example$")), r#"{"iss":"http://a.example"}"#, wrong_issuer()),
        (issuer(matching("")), "{}", wrong_issuer()),
        (issuer(exactly("me")), r#"{"iss":"he","exp":1}"#, wrong_issuer()),
        (issuer(exactly("me")), r#"{"iss":"me","exp":1}"#, Err(TokenError::Expired)),
    ];
    for (settings, claims, outcome) in table {
        check_connection(&settings, &signed(claims), outcome.clone());
        // The same rules hold for the other kind.
        let claims = claims.replacen('{', r#"{"channel":"a","#, 1).replace(",}", "}");
        let verified = Tokens::new(&settings, None).unwrap().verify_subscription(&signed(&claims), NOW);
        assert_eq!(verified.map(|_| ()), outcome.map(|_| ()), "{claims}");
    }
}

#[test]
fn the_user_may_have_a_claim_of_its_own() {
    let settings = TokenSettings { user_claim: Some("uid".into()), ..with_hmac() };
    let refused =
        TokenError::Invalid("its claim for the user (`user_claim`) is neither a string nor a whole number");
    let table: [(&str, Result<&str, TokenError>); 11] = [
        (r#"{"uid":"ann","sub":"bob"}"#, Ok("ann")),
        (r#"{"u\u0069d":"\u0061nn"}"#, Ok("ann")),
        (r#"{"uid":42,"sub":["whatever"]}"#, Ok("42")),
        (r#"{"uid":-42}"#, Ok("-42")),
        (r#"{"uid":""}"#, Ok("")),
        (r#"{"sub":"bob"}"#, Ok("")),
        (r#"{"uid":1.5}"#, Err(refused)),
        (r#"{"uid":null,"sub":"bob"}"#, Err(refused)),
        (r#"{"uid":true}"#, Err(refused)),
        (r#"{"uid":["ann"]}"#, Err(refused)),
        (r#"{"uid":{}}"#, Err(refused)),
    ];
    for (claims, user) in table {
        let outcome = user.map(|user| ConnectionClaims { user: user.into(), ..nobody() });
        check_connection(&settings, &signed(claims), outcome);
    }
}

#[test]
fn subscription_tokens_may_have_keys_and_rules_of_their_own() {
    let connection = signed(r#"{"sub":"ann"}"#);
    let subscription = signed_with("other", r#"{"uid":"ann","channel":"a"}"#);
    let own = TokenSettings {
        hmac_secret: Some("other".into()),
        user_claim: Some("uid".into()),
        ..TokenSettings::default()
    };
    let tokens = Tokens::new(&with_hmac(), Some(&own)).unwrap();
    assert_eq!(tokens.verify_connection(&connection, NOW).map(|claims| claims.user), Ok("ann".into()));
    assert_eq!(tokens.verify_subscription(&subscription, NOW).map(|claims| claims.user), Ok("ann".into()));
    let refused = TokenError::Invalid("its signature is not by a configured key");
    assert_eq!(tokens.verify_connection(&subscription, NOW), Err(refused));
    assert_eq!(tokens.verify_subscription(&signed(r#"{"channel":"a"}"#), NOW), Err(refused));

    let without_keys = Tokens::new(&with_hmac(), Some(&TokenSettings::default())).unwrap();
    let no_key = TokenError::Invalid("no key is configured for its algorithm");
    assert_eq!(without_keys.verify_subscription(&signed(r#"{"channel":"a"}"#), NOW), Err(no_key));
}
