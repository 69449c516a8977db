//! Sets of keys, and what becomes of tokens while they are fetched. Time is an argument.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::sign;
use serde_json::{Value, json};

use super::key_set::NoKeySet;
use super::*;

const P256: &str = include_str!("../testdata/p256_public.pem");
const P256_PRIVATE: &[u8] = include_bytes!("../testdata/p256_private.pem");
const ED25519: &str = include_str!("../testdata/ed25519_public.pem");
const ED25519_PRIVATE: &[u8] = include_bytes!("../testdata/ed25519_private.pem");
const RSA: &str = include_str!("../testdata/rsa_public.pem");
const RSA_PRIVATE: &[u8] = include_bytes!("../testdata/rsa_private.pem");
const MESSAGE: &[u8] = b"header.claims";

const REFRESH_MIN: Duration = Duration::from_secs(5);
const STALE_MAX: Duration = Duration::from_secs(3600);
const URL: &str = "http://127.0.0.1/keys";

/// The end of a public key in DER, which is the point of a curve, in base64url.
fn point(pem: &str, from_end: usize, bytes: usize) -> String {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body).unwrap();
    let start = der.len() - from_end;
    URL_SAFE_NO_PAD.encode(&der[start..start + bytes])
}

fn p256(kid: &str) -> Value {
    let (x, y) = (point(P256, 64, 32), point(P256, 32, 32));
    json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": kid, "x": x, "y": y})
}

fn ed25519(kid: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": point(ED25519, 32, 32)})
}

/// An RSA key of 2048 bits: in DER, the modulus stands before three bytes of exponent and their head.
fn rsa(kid: &str) -> Value {
    json!({"kty": "RSA", "use": "sig", "kid": kid, "n": point(RSA, 5 + 256, 256), "e": "AQAB"})
}

fn with(mut key: Value, field: &str, value: &str) -> Value {
    key[field] = value.into();
    key
}

fn without(mut key: Value, field: &str) -> Value {
    key.as_object_mut().unwrap().remove(field);
    key
}

fn parse(keys: Value) -> (KeySet, usize) {
    KeySet::parse(json!({"keys": keys, "other": 1}).to_string().as_bytes()).unwrap()
}

fn signature(algorithm: Algorithm) -> Vec<u8> {
    let key = match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(P256_PRIVATE),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED25519_PRIVATE),
        _ => EncodingKey::from_rsa_pem(RSA_PRIVATE),
    };
    URL_SAFE_NO_PAD.decode(sign(MESSAGE, &key.unwrap(), algorithm).unwrap()).unwrap()
}

#[test]
fn each_key_verifies_what_it_signed_by_the_algorithms_that_it_is_for() {
    use Algorithm::{ES256, EdDSA, HS256, RS256, RS384, RS512};
    let keys = json!([rsa("r"), p256("p"), ed25519("e"), with(rsa("only"), "alg", "RS384")]);
    let (set, unused) = parse(keys);
    assert_eq!(unused, 0);
    for (kid, taken) in [
        ("r", &[RS256, RS384, RS512][..]),
        ("p", &[ES256]),
        ("e", &[EdDSA]),
        ("only", &[RS384]),
        ("none", &[]),
    ] {
        for algorithm in [RS256, RS384, RS512, ES256, EdDSA] {
            let is_taken = set.verifies(kid, algorithm, MESSAGE, &signature(algorithm));
            assert_eq!(is_taken, taken.contains(&algorithm), "{kid} {algorithm:?}");
            assert!(!set.verifies(kid, algorithm, b"header.forged", &signature(algorithm)));
        }
        // A public key is no secret.
        assert!(!set.verifies(kid, HS256, MESSAGE, &signature(RS256)));
    }
}

#[test]
fn keys_that_cannot_be_used_leave_the_others() {
    let long = URL_SAFE_NO_PAD.encode([0xff; 1025]);
    let strange = [
        without(rsa("a"), "kid"),
        without(rsa("a"), "use"),
        with(rsa("a"), "use", "enc"),
        with(rsa("a"), "alg", "RSA-OAEP"),
        with(rsa("a"), "alg", "PS256"),
        with(rsa("a"), "alg", "ES256"),
        with(rsa("a"), "n", "AQAB"),
        with(rsa("a"), "n", "!"),
        with(rsa("a"), "n", &long),
        without(rsa("a"), "e"),
        with(p256("a"), "crv", "P-521"),
        with(p256("a"), "crv", "P-384"),
        with(p256("a"), "x", "AQAB"),
        without(p256("a"), "y"),
        with(ed25519("a"), "crv", "Ed448"),
        with(ed25519("a"), "x", "AQAB"),
        with(rsa("a"), "kty", "oct"),
        json!({"kty": "oct", "use": "sig", "kid": "a", "k": "c2VjcmV0"}),
        json!(7),
        json!(null),
        json!({"kty": 7, "use": "sig", "kid": "a"}),
    ];
    for key in strange {
        let (set, unused) = parse(json!([key, p256("good")]));
        assert_eq!((set.has("a"), set.has("good"), unused), (false, true, 1), "{key}");
    }
    for body in ["", "[]", "{}", r#"{"keys":7}"#, r#"{"keys":[]"#, "<html>"] {
        assert_eq!(KeySet::parse(body.as_bytes()).map(|_| ()), Err(NoKeySet), "{body}");
    }
}

#[test]
fn the_first_of_two_keys_of_a_name_counts_and_many_are_not_read() {
    let (set, unused) = parse(json!([p256("a"), ed25519("a")]));
    assert!(set.verifies("a", Algorithm::ES256, MESSAGE, &signature(Algorithm::ES256)));
    assert_eq!(unused, 1);
    let many: Vec<Value> = (0..300).map(|number| ed25519(&number.to_string())).collect();
    let (set, unused) = parse(json!(many));
    assert_eq!((set.has("99"), set.has("100"), unused), (true, false, 200));
}

fn sets(url: &str, patterns: &[&Regex]) -> KeySets {
    let settings = KeySetSettings {
        url: url.into(),
        ttl: Duration::from_secs(600),
        refresh_min: REFRESH_MIN,
        stale_max: STALE_MAX,
        timeout: Duration::from_secs(1),
        tls: Default::default(),
    };
    KeySets::new(&settings, patterns).unwrap()
}

/// One set, and a clock.
struct Provider {
    sets: KeySets,
    now: Instant,
}

impl Provider {
    fn new() -> Self {
        Self { sets: sets(URL, &[]), now: Instant::now() }
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn find(&self, kid: &str) -> Result<(), TokenError> {
        self.sets.find_set(URL, kid, self.now).map(|_| ())
    }

    fn is_wanted(&self) -> bool {
        self.sets.read()[URL].is_wanted
    }

    fn begins(&self) -> &Self {
        assert!(self.is_wanted());
        self.sets.write().get_mut(URL).unwrap().begin_fetch(self.now);
        self
    }

    fn brings(&self, kids: &[&str]) {
        let keys: Vec<Value> = kids.iter().map(|kid| ed25519(kid)).collect();
        self.sets.write().get_mut(URL).unwrap().fetched(Some(parse(json!(keys)).0), self.now);
    }

    fn fails(&self) {
        self.sets.write().get_mut(URL).unwrap().fetched(None, self.now);
    }
}

const ABSENT: Result<(), TokenError> =
    Err(TokenError::Invalid("the provider has no key of its name (`kid`)"));
const LATER: Result<(), TokenError> = Err(TokenError::Unavailable);

#[test]
fn a_set_is_fetched_at_start_and_a_new_key_when_it_is_asked_for() {
    let mut provider = Provider::new();
    assert_eq!(provider.find("one"), LATER);
    provider.begins().brings(&["one"]);
    assert_eq!(provider.find("one"), Ok(()));
    assert_eq!((provider.find("two"), provider.is_wanted()), (LATER, false), "it was fetched just now");
    provider.after(REFRESH_MIN);
    assert_eq!((provider.find("two"), provider.is_wanted()), (LATER, true));
    assert_eq!(provider.find("one"), Ok(()), "the set serves meanwhile");
    provider.begins().brings(&["two"]);
    assert_eq!((provider.find("one"), provider.find("two")), (LATER, Ok(())), "the old key is gone");
}

#[test]
fn only_a_fetch_that_may_bring_the_key_is_waited_for() {
    let mut provider = Provider::new();
    let awaited = |provider: &Provider, kid| provider.sets.await_set(URL, kid, provider.now);
    let fetch = awaited(&provider, "one").expect("the first fetch is to begin");
    assert_eq!(awaited(provider.begins(), "one"), Some(fetch), "it is under way");
    provider.brings(&["one"]);
    assert_eq!((awaited(&provider, "one"), awaited(&provider, "two")), (None, None), "it was just fetched");
    provider.after(REFRESH_MIN);
    assert_eq!((awaited(&provider, "one"), awaited(&provider, "two")), (None, Some(fetch)));
    provider.begins().brings(&["one"]);
    assert_eq!(awaited(&provider, "two"), None, "it is not there");
    assert_eq!(provider.find("two"), ABSENT);
    let other = Provider::new();
    assert_ne!(awaited(&other, "one"), Some(fetch));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_is_waited_for_until_it_ends_and_not_for_ever() {
    let provider = Provider::new();
    let fetch = provider.sets.await_set(URL, "one", provider.now).unwrap();
    let began = tokio::time::Instant::now();
    let patience = Duration::from_secs(5);
    provider.sets.wait_for(fetch, began + patience).await;
    assert!((patience..patience * 2).contains(&began.elapsed()));
    provider.begins();
    let deadline = tokio::time::Instant::now() + patience;
    let (_, told) =
        tokio::join!(provider.sets.wait_for(fetch, deadline), async { provider.sets.fetched(URL, None) });
    assert_eq!(told, Some(fetch));
    assert!(tokio::time::Instant::now() < deadline);
}

#[test]
fn an_invented_name_costs_one_fetch_and_is_refused_for_good_until_the_next() {
    let mut provider = Provider::new();
    assert_eq!(provider.find("forged"), LATER);
    provider.begins().brings(&["one"]);
    for _ in 0..3 {
        assert_eq!((provider.find("forged"), provider.is_wanted()), (ABSENT, false));
    }
    assert_eq!(provider.after(REFRESH_MIN).find("forged"), LATER);
    provider.begins();
    assert_eq!(provider.find("late"), LATER);
    provider.brings(&["one"]);
    assert_eq!(provider.find("forged"), ABSENT);
    assert_eq!(provider.find("late"), LATER, "it was asked for after the fetch had begun");
    for number in 0..2 * NAMES_MAX {
        let _ = provider.after(REFRESH_MIN).find(&number.to_string());
    }
    assert_eq!(provider.sets.read()[URL].sought.len(), NAMES_MAX);
}

#[test]
fn keys_serve_while_the_provider_is_down_but_not_for_ever() {
    let mut provider = Provider::new();
    assert_eq!(provider.find("one"), LATER);
    provider.begins().fails();
    assert_eq!((provider.find("one"), provider.is_wanted()), (LATER, false));
    provider.after(REFRESH_MIN);
    assert_eq!((provider.find("one"), provider.is_wanted()), (LATER, true));
    provider.begins().brings(&["one"]);
    provider.after(STALE_MAX - Duration::from_secs(1));
    assert_eq!((provider.find("two"), provider.is_wanted()), (LATER, true));
    provider.begins().fails();
    assert_eq!(provider.find("one"), Ok(()));
    assert_eq!(
        (provider.find("two"), provider.is_wanted()),
        (LATER, false),
        "nothing says that it is absent"
    );
    assert_eq!(provider.after(Duration::from_secs(1)).find("one"), LATER);
}

#[test]
fn a_set_is_due_again_before_its_time_is_over() {
    let provider = Provider::new();
    assert_eq!(provider.find("one"), LATER);
    provider.begins().brings(&["one"]);
    let due = provider.sets.read()[URL].due(&provider.sets.settings).unwrap();
    assert_eq!(due - provider.now, Duration::from_secs(450));
}

#[test]
fn addresses_that_tokens_name_are_bounded_and_those_with_keys_stay() {
    let pattern = Regex::new("^(?P<tenant>.*)$").unwrap();
    let sets = sets("http://127.0.0.1/{{tenant}}", &[&pattern]);
    let now = Instant::now();
    let ask = |tenant: usize, now| {
        let mut groups = Groups::default();
        groups.add(&pattern, &[tenant.to_string()]);
        let url = sets.template.fill(&groups).unwrap();
        let _ = sets.find_set(&url, "kid", now);
        url
    };
    let first = ask(0, now);
    sets.write().get_mut(&*first).unwrap().fetched(Some(KeySet::default()), now);
    (1..200).for_each(|tenant| drop(ask(tenant, now)));
    assert_eq!(sets.read().len(), URLS_MAX);
    for (url, source) in sets.write().iter_mut().filter(|(url, _)| ***url != *first) {
        assert!(source.is_wanted, "{url}");
        source.begin_fetch(now);
        source.fetched(None, now);
    }
    let next = ask(200, now + REFRESH_MIN);
    assert_eq!(sets.read().len(), URLS_MAX);
    assert!(sets.read().contains_key(&*next) && sets.read().contains_key(&*first));
}

#[test]
fn names_are_needed_and_short() {
    let sets = sets(URL, &[]);
    for kid in [None, Some("x".repeat(KID_BYTES_MAX + 1))] {
        let found = sets.find(&Groups::default(), kid.as_deref()).map(|_| ());
        assert_eq!(found, Err(TokenError::Invalid("its header names no key (`kid`)")));
    }
}
