//! The answers of backends: from JSON to the words of sessions. Fields that are not known are passed over; one of a wrong
//! type makes the answer unusable, and the log names it. Nothing that was sent is repeated there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use fanwire_hub::hook::{
    HookClaims, HookDenial, HookEvent, HookResult, PublishChange, PublishOptions, Renewal, SubscribeGrant,
};
use fanwire_hub::{ConnectionClaims, Expiry, GrantOptions, Overrides, TopicGrant};
use fanwire_protocol::Tags;
use fanwire_protocol::json::fields::{FieldError, nested, object};
use fanwire_protocol::json::{null_is_default, payload};
use fanwire_protocol::reason::{Close, Refused};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::overrides::OverrideOptions;

/// Codes that may close a connection.
const CLOSE_CODES: std::ops::RangeInclusive<u32> = 3000..=4999;

/// Codes of errors.
const ERROR_CODES: std::ops::RangeInclusive<u32> = 1..=65535;

/// An answer that cannot be used, for the log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{0}")]
    Answer(FieldError),
    #[error("{part}: {error}")]
    Part { part: &'static str, error: FieldError },
    #[error("{0} is not Base64 with padding")]
    NotBase64(&'static str),
    #[error("error.code is {0}; it has to be 1 to 65535, and 400 to 1999 are the application's")]
    ErrorCode(u32),
    #[error("disconnect.code is {0}; it has to be 3000 to 4999, and 4000 to 4999 are the application's")]
    CloseCode(u32),
}

/// The whole answer.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    disconnect: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorFields {
    #[serde(deserialize_with = "null_is_default")]
    code: u32,
    #[serde(deserialize_with = "null_is_default")]
    message: String,
    #[serde(deserialize_with = "null_is_default")]
    temporary: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DisconnectFields {
    #[serde(deserialize_with = "null_is_default")]
    code: u32,
    #[serde(deserialize_with = "null_is_default")]
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConnectFields<'a> {
    #[serde(deserialize_with = "null_is_default")]
    user: Box<str>,
    #[serde(deserialize_with = "null_is_default")]
    expire_at: i64,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(deserialize_with = "null_is_default")]
    b64info: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(deserialize_with = "null_is_default")]
    b64data: String,
    #[serde(deserialize_with = "null_is_default")]
    channels: Vec<Box<str>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    subs: InOrder<SubscribeFields<'a>>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

/// The result of a subscribe, and of each topic of a connect.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SubscribeFields<'a> {
    #[serde(deserialize_with = "null_is_default")]
    expire_at: i64,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(deserialize_with = "null_is_default")]
    b64info: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(deserialize_with = "null_is_default")]
    b64data: String,
    #[serde(rename = "override", deserialize_with = "nested")]
    overrides: Option<OverrideOptions>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RefreshFields<'a> {
    #[serde(deserialize_with = "null_is_default")]
    expired: bool,
    #[serde(deserialize_with = "null_is_default")]
    expire_at: i64,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(deserialize_with = "null_is_default")]
    b64info: String,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PublishFields<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(deserialize_with = "null_is_default")]
    b64data: String,
    #[serde(deserialize_with = "null_is_default")]
    skip_history: bool,
    #[serde(deserialize_with = "null_is_default")]
    tags: Tags,
    #[serde(deserialize_with = "null_is_default")]
    idempotency_key: String,
    #[serde(deserialize_with = "null_is_default")]
    version: u64,
    #[serde(deserialize_with = "null_is_default")]
    version_epoch: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CallFields<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(deserialize_with = "null_is_default")]
    b64data: String,
}

/// Reads the body of an answer with status 200.
pub(super) fn read(event: &HookEvent, body: &[u8]) -> Result<Result<HookResult, HookDenial>, Unusable> {
    if matches!(event, HookEvent::Send { .. }) {
        // Nobody waits for more than the status.
        return Ok(Ok(HookResult::Sent));
    }
    let text = String::from_utf8_lossy(body);
    let Answer { result, error, disconnect } = object(&text).map_err(Unusable::Answer)?;
    if let Some(disconnect) = disconnect {
        let DisconnectFields { code, reason } = part("disconnect", disconnect)?;
        return close(code, reason).map(|close| Err(HookDenial::Close(close)));
    }
    if let Some(error) = error {
        let ErrorFields { code, message, temporary } = part("error", error)?;
        return refused(code, message, temporary).map(|refused| Err(HookDenial::Error(refused)));
    }
    let result = match event {
        HookEvent::Connect { .. } => HookResult::Connect(result.map(connect).transpose()?.map(Box::new)),
        HookEvent::Refresh | HookEvent::SubRefresh { .. } => HookResult::Refresh(refresh(result)?),
        HookEvent::Subscribe { .. } => {
            HookResult::Subscribe(Box::new(subscribe(fields(result)?, "result.b64info or b64data")?))
        }
        HookEvent::Publish { .. } => HookResult::Publish(Box::new(publish(fields(result)?)?)),
        HookEvent::Call { .. } => {
            let CallFields { data, b64data } = fields(result)?;
            HookResult::Called(bytes(data, &b64data, "result.b64data")?)
        }
        HookEvent::Send { .. } => HookResult::Sent,
    };
    Ok(Ok(result))
}

/// Makes the end of a connection that an application asks for.
pub(super) fn close(code: u32, reason: String) -> Result<Close, Unusable> {
    let number = u16::try_from(code).ok().filter(|_| CLOSE_CODES.contains(&code));
    Ok(Close::by_application(number.ok_or(Unusable::CloseCode(code))?, reason))
}

/// Makes the error that an application answers.
pub(super) fn refused(code: u32, text: String, is_temporary: bool) -> Result<Refused, Unusable> {
    if !ERROR_CODES.contains(&code) {
        return Err(Unusable::ErrorCode(code));
    }
    Ok(Refused::by_application(code, text, is_temporary))
}

fn connect(result: &RawValue) -> Result<HookClaims, Unusable> {
    let fields: ConnectFields<'_> = part("result", result)?;
    let mut topics: Vec<TopicGrant> = Vec::with_capacity(fields.channels.len() + fields.subs.0.len());
    let mut places = HashMap::with_capacity(topics.capacity());
    let plain = fields.channels.into_iter().map(|topic| Ok((topic, GrantOptions::default())));
    let with_options = fields.subs.0.into_iter().map(|(topic, fields)| {
        subscribe(fields, "a b64info or b64data in result.subs").map(|grant| (topic, grant.options))
    });
    for grant in plain.chain(with_options) {
        let (topic, options) = grant?;
        match places.entry(topic) {
            Entry::Occupied(place) => {
                let place: usize = *place.get();
                topics[place].options = options;
            }
            Entry::Vacant(place) => {
                topics.push(TopicGrant { topic: place.key().clone(), options });
                place.insert(topics.len() - 1);
            }
        }
    }
    Ok(HookClaims {
        claims: ConnectionClaims {
            user: fields.user,
            expiry: expiry(fields.expire_at),
            info: bytes(fields.info, &fields.b64info, "result.b64info")?,
            topics,
            extras: None,
        },
        data: bytes(fields.data, &fields.b64data, "result.b64data")?,
        meta: json(fields.meta),
    })
}

fn refresh(result: Option<&RawValue>) -> Result<Renewal, Unusable> {
    let Some(result) = result else { return Ok(Renewal::Expired) };
    let fields: RefreshFields<'_> = part("result", result)?;
    if fields.expired {
        return Ok(Renewal::Expired);
    }
    let some = |bytes: Bytes| (!bytes.is_empty()).then_some(bytes);
    Ok(Renewal::Until {
        expiry: expiry(fields.expire_at),
        info: some(bytes(fields.info, &fields.b64info, "result.b64info")?),
        meta: some(json(fields.meta)),
    })
}

/// `place` names what is in Base64.
fn subscribe(fields: SubscribeFields<'_>, place: &'static str) -> Result<SubscribeGrant, Unusable> {
    let options = GrantOptions {
        info: bytes(fields.info, &fields.b64info, place)?,
        data: bytes(fields.data, &fields.b64data, place)?,
        overrides: fields.overrides.map(Overrides::from).unwrap_or_default(),
    };
    Ok(SubscribeGrant { options, expiry: expiry(fields.expire_at) })
}

fn publish(fields: PublishFields<'_>) -> Result<PublishChange, Unusable> {
    let data = bytes(fields.data, &fields.b64data, "result.b64data")?;
    Ok(PublishChange {
        data: (!data.is_empty()).then_some(data),
        tags: (!fields.tags.is_empty()).then(|| fields.tags.into()),
        options: PublishOptions {
            skip_history: fields.skip_history,
            idempotency_key: (!fields.idempotency_key.is_empty()).then(|| fields.idempotency_key.into()),
            version: fields.version,
            version_epoch: fields.version_epoch,
        },
    })
}

/// Reads an object inside the answer.
fn part<'a, T: Deserialize<'a>>(part: &'static str, raw: &'a RawValue) -> Result<T, Unusable> {
    object(raw.get()).map_err(|error| Unusable::Part { part, error })
}

/// Reads a result, or takes its defaults where there is none.
fn fields<'a, T: Default + Deserialize<'a>>(result: Option<&'a RawValue>) -> Result<T, Unusable> {
    result.map_or_else(|| Ok(T::default()), |result| part("result", result))
}

/// JSON as it was written, or the bytes behind Base64, which win when both are given. `null` is nothing.
fn bytes(raw: Option<&RawValue>, base64: &str, field: &'static str) -> Result<Bytes, Unusable> {
    if base64.is_empty() {
        return Ok(json(raw));
    }
    payload::from_base64(base64).ok_or(Unusable::NotBase64(field))
}

fn json(raw: Option<&RawValue>) -> Bytes {
    raw.map_or_else(Bytes::new, |raw| Bytes::copy_from_slice(raw.get().as_bytes()))
}

fn expiry(expire_at: i64) -> Expiry {
    if expire_at == 0 { Expiry::Never } else { Expiry::At(expire_at) }
}

/// The entries of an object in the order in which they are written.
struct InOrder<T>(Vec<(Box<str>, T)>);

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for InOrder<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Default + Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = InOrder<T>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object of channels with options")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key()? {
                    let Nested(fields) = map.next_value()?;
                    entries.push((name, fields));
                }
                Ok(InOrder(entries))
            }
        }

        /// An object or `null`.
        struct Nested<T>(T);

        impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Nested<T> {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Ok(Self(nested(from)?.unwrap_or_default()))
            }
        }

        from.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use fanwire_protocol::TopicName;
    use fanwire_protocol::reason::CloseReason;
    use proptest::prelude::*;

    use super::*;

    fn connect() -> HookEvent {
        let (name, version) = Default::default();
        HookEvent::Connect { data: Bytes::new(), name, version, topics: Vec::new() }
    }

    fn subscribe() -> HookEvent {
        HookEvent::Subscribe { topic: TopicName::new("a").unwrap(), data: Bytes::new() }
    }

    fn publish() -> HookEvent {
        HookEvent::Publish { topic: TopicName::new("a").unwrap(), data: Bytes::new(), tags: None }
    }

    fn call() -> HookEvent {
        HookEvent::Call { method: "a".into(), data: Bytes::new() }
    }

    /// Returns the outcome in few words.
    fn said(event: &HookEvent, body: &str) -> String {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let until = |expiry| match expiry {
            Expiry::Never => "never".to_owned(),
            Expiry::At(unix) => unix.to_string(),
        };
        let options = |GrantOptions { info, data, overrides }: &GrantOptions| {
            let turned = overrides.presence.map_or(String::new(), |on| format!(" presence {on}"));
            format!("{}/{}{turned}", text(info), text(data))
        };
        match read(event, body.as_bytes()) {
            Err(error) => error.to_string(),
            Ok(Err(denial)) => format!("{denial:?}"),
            Ok(Ok(HookResult::Connect(None))) => "nobody".to_owned(),
            Ok(Ok(HookResult::Connect(Some(found)))) => {
                let HookClaims { claims, data, meta } = &*found;
                let topics = claims.topics.iter();
                let topics: Vec<_> =
                    topics.map(|grant| format!("{} {}", grant.topic, options(&grant.options))).collect();
                let [info, data, meta] = [&claims.info, data, meta].map(text);
                format!("{} {} {info}/{data}/{meta} {topics:?}", claims.user, until(claims.expiry))
            }
            Ok(Ok(HookResult::Refresh(Renewal::Expired))) => "expired".to_owned(),
            Ok(Ok(HookResult::Refresh(Renewal::Until { expiry, info, meta }))) => {
                let [info, meta] = [&info, &meta].map(|part| part.as_ref().map(text));
                format!("{} {info:?} {meta:?}", until(expiry))
            }
            Ok(Ok(HookResult::Subscribe(grant))) => {
                format!("{} {}", until(grant.expiry), options(&grant.options))
            }
            Ok(Ok(HookResult::Publish(change))) => format!("{change:?}"),
            Ok(Ok(HookResult::Called(data))) => format!("called {}", text(&data)),
            Ok(Ok(HookResult::Sent)) => "sent".to_owned(),
        }
    }

    #[test]
    fn results_are_read_with_their_defaults() {
        let refresh = HookEvent::Refresh;
        let unchanged = format!("{:?}", PublishChange::default());
        for (event, body, expected) in [
            (&connect(), r#"{"result":{"user":"56"}}"#, "56 never // []"),
            (&connect(), r#"{"result":{}}"#, " never // []"),
            (&connect(), r#"{}"#, "nobody"),
            (&connect(), r#"{"result":null,"error":null}"#, "nobody"),
            (
                &connect(),
                r#"{"Result":{"User":"a","expire_at":7,"info":{"b": 1},"data":[2],"meta":{"c":3},"other":1,
                    "channels":["x","y"],"subs":{"z":null,"x":{"b64info":"MQ==","data":2,"override":{"presence":{"value":true}}}}}}"#,
                r#"a 7 {"b": 1}/[2]/{"c":3} ["x 1/2 presence true", "y /", "z /"]"#,
            ),
            (
                &connect(),
                r#"{"result":{"user":null,"subs":null,"channels":null,"b64data":"AA=="}}"#,
                " never /\0/ []",
            ),
            (&refresh, r#"{}"#, "expired"),
            (&refresh, r#"{"result":{"expired":true,"expire_at":7}}"#, "expired"),
            (&refresh, r#"{"result":{}}"#, "never None None"),
            (&refresh, r#"{"result":{"expire_at":7,"info":1,"meta":{}}}"#, r#"7 Some("1") Some("{}")"#),
            (&subscribe(), r#"{}"#, "never /"),
            (&subscribe(), r#"{"result":{"expire_at":7,"info":1,"b64data":"Mg=="}}"#, "7 1/2"),
            (&publish(), r#"{}"#, &*unchanged),
            (&publish(), r#"{"result":{"delta":true}}"#, &*unchanged),
            (&call(), r#"{"result":{"data":{"a": 1}}}"#, r#"called {"a": 1}"#),
            (&call(), r#"{"result":{"b64data":"MQ=="}}"#, "called 1"),
            (&call(), r#"{"result":{"data":null}}"#, "called "),
            (&HookEvent::Send { method: None, data: Bytes::new() }, "anything", "sent"),
        ] {
            assert_eq!(said(event, body), expected, "{body}");
        }
        let body = r#"{"result":{"data":1,"tags":{"a":"b"},"skip_history":true,"idempotency_key":"k","version":3,"version_epoch":"e"}}"#;
        let Ok(Ok(HookResult::Publish(change))) = read(&publish(), body.as_bytes()) else { panic!() };
        assert_eq!((change.data.as_deref(), change.tags.unwrap()["a"].as_str()), (Some(&b"1"[..]), "b"));
        let options = PublishOptions {
            skip_history: true,
            idempotency_key: Some("k".into()),
            version: 3,
            version_epoch: "e".into(),
        };
        assert_eq!(change.options, options);
    }

    #[test]
    fn errors_and_ends_are_the_applications() {
        let denial = |body: &str| match read(&call(), body.as_bytes()) {
            Ok(Err(denial)) => denial,
            other => panic!("{other:?} for {body}"),
        };
        let error = HookDenial::Error(Refused::by_application(1000, "busy".into(), true));
        assert_eq!(denial(r#"{"error":{"code":1000,"message":"busy","temporary":true}}"#), error);
        let HookDenial::Close(close) =
            denial(r#"{"result":{},"error":{"code":1000},"disconnect":{"code":4500,"reason":"bye"}}"#)
        else {
            panic!("no close")
        };
        assert_eq!(close.reason, CloseReason::ByApplication(4500));
        // Words end with a character: at 1,024 bytes, and at the 123 of a close frame.
        let long = format!(r#"{{"error":{{"code":400,"message":"a{}"}}}}"#, "ä".repeat(10_000));
        let error = Refused::by_application(400, format!("a{}", "ä".repeat(511)), false);
        assert_eq!(denial(&long), HookDenial::Error(error));
        let long = format!(r#"{{"disconnect":{{"code":4001,"reason":"{}"}}}}"#, "€".repeat(10_000));
        let close = Close::by_application(4001, "€".repeat(41));
        assert_eq!(denial(&long), HookDenial::Close(close));
    }

    #[test]
    fn what_cannot_be_used_is_named_and_not_repeated() {
        for (event, body, expected) in [
            (&connect(), "", "this is not JSON"),
            (&connect(), "secret", "this is not JSON"),
            (&connect(), "[]", "this is not a JSON object"),
            (&connect(), r#"{"result":["secret"]}"#, "result: this is not a JSON object"),
            (
                &connect(),
                r#"{"result":{"user":12345}}"#,
                r#"result: the field "user" has a wrong type: expected a string"#,
            ),
            (
                &connect(),
                r#"{"result":{"expire_at":"secret"}}"#,
                r#"result: the field "expire_at" has a wrong type: expected i64"#,
            ),
            (
                &connect(),
                r#"{"result":{"channels":"secret"}}"#,
                r#"result: the field "channels" has a wrong type: expected a sequence"#,
            ),
            (&connect(), r#"{"result":{"subs":{"a":7}}}"#, r#"result: the field "subs" has a wrong type"#),
            (&connect(), r#"{"result":{"b64info":"secret!"}}"#, "result.b64info is not Base64"),
            (&connect(), r#"{"result":{"user":"a","user":"b"}}"#, r#"result: the field "user" is doubled"#),
            (
                &subscribe(),
                r#"{"result":{"override":{"presence":true}}}"#,
                r#"result: the field "override" has a wrong type"#,
            ),
            (
                &publish(),
                r#"{"result":{"tags":["secret"]}}"#,
                r#"result: the field "tags" has a wrong type: expected a map"#,
            ),
            (
                &publish(),
                r#"{"result":{"version":-1}}"#,
                r#"result: the field "version" has a wrong type: expected u64"#,
            ),
            (&call(), r#"{"error":"secret"}"#, "error: this is not a JSON object"),
            (&call(), r#"{"error":{"message":"secret"}}"#, "error.code is 0"),
            (&call(), r#"{"error":{"code":65536}}"#, "error.code is 65536"),
            (&call(), r#"{"disconnect":{"code":1000}}"#, "disconnect.code is 1000"),
            (&call(), r#"{"disconnect":{"code":69536}}"#, "disconnect.code is 69536"),
        ] {
            let said = said(event, body);
            assert!(said.starts_with(expected), "{said} for {body}");
            assert!(!said.contains("secret") && !said.contains("12345"), "{said}");
        }
    }

    proptest! {
        /// Whatever comes is read or refused.
        #[test]
        fn nothing_panics(body in "\\PC{0,40}|(\\{\"(result|error|disconnect)\":)?[{}\\[\\]:,\"a1\\\\ ]{0,20}") {
            for event in [connect(), HookEvent::Refresh, subscribe(), publish(), call()] {
                let _ = read(&event, body.as_bytes());
            }
        }
    }
}
