//! The requests to backends: a question of a session as JSON, with the headers that the hook is to be sent.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanwire_hub::hook::{HookEvent, HookQuestion};
use fanwire_hub::kept::{KeptRules, cookies_of};
use fanwire_protocol::json;
use fanwire_protocol::wire::Wire;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Hook;
use crate::backend::post;
use crate::settings::HookSettings;

/// A question in the words of Centrifugo's proxy. What is not there is left out.
#[derive(Serialize)]
struct Body<'a> {
    client: String,
    transport: &'a str,
    protocol: &'a str,
    encoding: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    channels: &'a [Box<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

/// Makes the request for a question that is sent at this second since 1970.
pub(super) fn make(hook: &Hook, question: &HookQuestion, unix: i64) -> Request<Full<Bytes>> {
    let body = body(question, hook.settings.binary_encoding, hook.settings.include_connection_meta);
    let headers = headers(&hook.settings, &hook.rules, question);
    post(&hook.settings.url, headers, hook.signer.as_ref(), body.into(), unix)
}

/// Returns the headers in the order in which later ones win: the hook's own, those of the client's word, those of the
/// request that opened the connection.
fn headers(settings: &HookSettings, rules: &KeptRules, question: &HookQuestion) -> HeaderMap {
    let mut headers: HeaderMap = settings.static_headers.iter().cloned().collect();
    let Some(kept) = &question.kept else { return headers };
    let is_listed = |list: &[HeaderName], name: &str| list.iter().any(|listed| listed == name);
    let emulated = kept.emulated(rules).filter(|(name, _)| is_listed(&settings.emulated_headers, name));
    let said = emulated.map(|(name, value)| (name, value.to_owned()));
    let of_request = kept.headers(rules).filter_map(|(name, value)| {
        if is_listed(&settings.http_headers, name) {
            return Some((name, value.to_owned()));
        }
        let is_kept = |cookie: &str| settings.cookies.iter().any(|name| name == cookie);
        let cookies = (name == COOKIE.as_str()).then(|| cookies_of(value, is_kept));
        cookies.filter(|cookies| !cookies.is_empty()).map(|cookies| (name, cookies))
    });
    for (name, value) in said.chain(of_request) {
        // A value by the client's word may hold anything.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers
}

fn body(question: &HookQuestion, is_binary: bool, has_meta: bool) -> Vec<u8> {
    let HookQuestion { client, user, wire, event, kept, .. } = question;
    let (transport, protocol) = wire.map_or(("publish", "json"), Wire::labels);
    let data: &[u8] = match event {
        HookEvent::Connect { data, .. }
        | HookEvent::Subscribe { data, .. }
        | HookEvent::Publish { data, .. }
        | HookEvent::Call { data, .. }
        | HookEvent::Send { data, .. } => data,
        HookEvent::Refresh | HookEvent::SubRefresh { .. } => &[],
    };
    // Only a client that speaks Protobuf can send data that is not JSON.
    let raw = if is_binary { None } else { as_json(data) };
    let is_base64 = !data.is_empty() && raw.is_none();
    let mut body = Body {
        client: client.to_string(),
        transport,
        protocol: if protocol == "protobuf" { protocol } else { "json" },
        encoding: if is_binary || is_base64 { "binary" } else { "json" },
        user: Some(user),
        channel: None,
        method: None,
        data: raw,
        b64data: is_base64.then(|| STANDARD.encode(data)),
        tags: None,
        name: "",
        version: "",
        channels: &[],
        meta: kept.as_ref().filter(|_| has_meta).and_then(|kept| as_json(kept.meta())),
    };
    match event {
        HookEvent::Connect { name, version, topics, .. } => {
            (body.user, body.name, body.version, body.channels) = (None, name, version, topics);
        }
        HookEvent::Subscribe { topic, .. } | HookEvent::SubRefresh { topic } => {
            body.channel = Some(topic.as_str());
        }
        HookEvent::Publish { topic, tags, .. } => {
            (body.channel, body.tags) = (Some(topic.as_str()), tags.as_deref());
        }
        HookEvent::Call { method, .. } => body.method = Some(method),
        HookEvent::Send { method, .. } => body.method = method.as_deref(),
        HookEvent::Refresh => {}
    }
    serde_json::to_vec(&body).unwrap_or_default()
}

/// Returns the data if it is one JSON value.
fn as_json(data: &[u8]) -> Option<&RawValue> {
    json::check(data).ok()?;
    serde_json::from_slice(data).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanwire_hub::kept::Kept;
    use fanwire_protocol::TopicName;

    use super::super::tests::{question, settings};
    use super::*;

    fn topic() -> TopicName {
        TopicName::new("chat:index").unwrap()
    }

    #[track_caller]
    fn check(question: &HookQuestion, is_binary: bool, has_meta: bool, expected: &str) {
        assert_eq!(String::from_utf8(body(question, is_binary, has_meta)).unwrap(), expected);
    }

    /// The bodies of Centrifugo's documentation, but for blanks.
    #[test]
    fn bodies_are_those_of_centrifugo() {
        let data = |text: &'static str| Bytes::from_static(text.as_bytes());
        let connect = |data, name: &str, version: &str, topics: &[&str]| HookEvent::Connect {
            data,
            name: name.into(),
            version: version.into(),
            topics: topics.iter().map(|&topic| topic.into()).collect(),
        };
        let tags = BTreeMap::from([("room".to_owned(), "1".to_owned())]);
        for (event, rest) in [
            (connect(Bytes::new(), "", "", &[]), r#"}"#),
            (
                connect(data(r#"{"a": 1}"#), "js", "1.0", &["news", "chat:index"]),
                r#","data":{"a": 1},"name":"js","version":"1.0","channels":["news","chat:index"]}"#,
            ),
            (HookEvent::Refresh, r#","user":"56"}"#),
            (
                HookEvent::Call {
                    method: "getCurrentPrice".into(),
                    data: data(r#"{"params": {"object_id": 12}}"#),
                },
                r#","user":"56","method":"getCurrentPrice","data":{"params": {"object_id": 12}}}"#,
            ),
            (
                HookEvent::Subscribe { topic: topic(), data: Bytes::new() },
                r#","user":"56","channel":"chat:index"}"#,
            ),
            (
                HookEvent::Subscribe { topic: topic(), data: data("[1]") },
                r#","user":"56","channel":"chat:index","data":[1]}"#,
            ),
            (HookEvent::SubRefresh { topic: topic() }, r#","user":"56","channel":"chat:index"}"#),
            (
                HookEvent::Publish { topic: topic(), data: data(r#"{"input":"hello"}"#), tags: None },
                r#","user":"56","channel":"chat:index","data":{"input":"hello"}}"#,
            ),
            (
                HookEvent::Publish { topic: topic(), data: data("1"), tags: Some(Arc::new(tags)) },
                r#","user":"56","channel":"chat:index","data":1,"tags":{"room":"1"}}"#,
            ),
            (HookEvent::Send { method: None, data: data("null") }, r#","user":"56","data":null}"#),
            (
                HookEvent::Send { method: Some("typing".into()), data: Bytes::new() },
                r#","user":"56","method":"typing"}"#,
            ),
        ] {
            let head = r#"{"client":"9336a229-2400-4ebc-8c50-0a643d22e8a0","transport":"websocket","protocol":"json","encoding":"json""#;
            check(&question(1, event), false, false, &format!("{head}{rest}"));
        }
    }

    #[test]
    fn an_anonymous_user_is_named_too() {
        let mut question = question(1, HookEvent::Refresh);
        (question.user, question.wire) = ("".into(), Some(Wire::CentrifugeStream));
        let expected = r#"{"client":"9336a229-2400-4ebc-8c50-0a643d22e8a0","transport":"http_stream","protocol":"protobuf","encoding":"json","user":""}"#;
        check(&question, false, false, expected);
    }

    #[test]
    fn data_that_is_not_json_or_is_to_be_binary_is_in_base64() {
        let publish = |data: &'static [u8]| {
            let event = HookEvent::Publish { topic: topic(), data: Bytes::from_static(data), tags: None };
            question(1, event)
        };
        let body = |encoding: &str, data: &str| {
            let client = "9336a229-2400-4ebc-8c50-0a643d22e8a0";
            format!(
                r#"{{"client":"{client}","transport":"websocket","protocol":"json","encoding":"{encoding}","user":"56","channel":"chat:index"{data}}}"#
            )
        };
        check(&publish(b"1"), false, false, &body("json", r#","data":1"#));
        check(&publish(b"1"), true, false, &body("binary", r#","b64data":"MQ==""#));
        check(&publish(b""), true, false, &body("binary", ""));
        // Nothing of a client's closes a field and opens another.
        for data in [&b"\xff"[..], b"1,\"user\":\"admin\"", b"{} {}"] {
            let expected = body("binary", &format!(r#","b64data":"{}""#, STANDARD.encode(data)));
            check(&publish(data), false, false, &expected);
        }
    }

    fn names(names: &[&str]) -> Vec<HeaderName> {
        names.iter().map(|name| HeaderName::try_from(*name).unwrap()).collect()
    }

    #[test]
    fn headers_are_those_that_the_hook_lists_and_later_ones_win() {
        let boxed = |names: &[&str]| names.iter().map(|&name| name.into()).collect::<Box<[Box<str>]>>();
        let rules = KeptRules {
            headers: boxed(&["authorization", "cookie", "x-a", "x-other"]),
            emulated: boxed(&["x-a", "x-b", "x-bad", "x-other"]),
            cookies: None,
            outlasts_connect: true,
            has_meta: true,
            bytes_max: 4096,
        };
        let of_request = |name: &str| {
            Some(match name {
                "authorization" => "secret".to_owned(),
                "cookie" => "sid=1; lang=de; theme=dark".to_owned(),
                "x-a" => "request".to_owned(),
                _ => "other".to_owned(),
            })
        };
        let said = [("X-A", "said"), ("x-b", "said"), ("x-bad", "a\r\nx-evil: 1"), ("x-other", "said")];
        let said = said.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let kept = Kept::new(&rules, of_request).unwrap().with_emulated(&rules, said).unwrap();
        let kept = kept.with_meta(&rules, Bytes::from_static(br#"{"a":1}"#)).unwrap();
        let mut settings = settings("http://backend/");
        settings.static_headers = ["x-a", "x-b", "x-key"]
            .map(|name| (HeaderName::try_from(name).unwrap(), HeaderValue::from_static("static")))
            .to_vec();
        settings.emulated_headers = names(&["x-a", "x-b", "x-bad"]);
        settings.http_headers = names(&["authorization", "x-a"]);
        settings.cookies = vec!["sid".into(), "theme".into()];
        let mut question = question(1, HookEvent::Refresh);
        question.kept = Some(Arc::new(kept));
        let shown = |settings: &HookSettings, question: &HookQuestion| {
            let headers = headers(settings, &rules, question);
            let mut shown: Vec<String> =
                headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            shown.sort();
            shown
        };
        let expected = [
            "authorization: secret",
            "cookie: sid=1; theme=dark",
            "x-a: request",
            "x-b: said",
            "x-key: static",
        ];
        assert_eq!(shown(&settings, &question), expected);
        settings.http_headers = names(&["cookie"]);
        let all = "cookie: sid=1; lang=de; theme=dark";
        assert_eq!(shown(&settings, &question), [all, "x-a: said", "x-b: said", "x-key: static"]);
        let body = |has_meta| String::from_utf8(body(&question, false, has_meta)).unwrap();
        assert!(body(true).ends_with(r#","user":"56","meta":{"a":1}}"#) && !body(false).contains("meta"));
    }
}
