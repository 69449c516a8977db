//! A poll of topics: what there is for the client as one JSON object, or what comes first within the time that it waits.

use std::borrow::Cow;

use bytes::Bytes;
use fanwire_protocol::Cursor;
use fanwire_protocol::cursor::Parsed;
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::wire::{Pings, TransportMode, Wire};
use hyper::header::{HeaderMap, IF_NONE_MATCH};

use super::query::StreamQuery;
use super::refusal::{StreamRefusal, refuse, refused};
use crate::accept::admission::ClientNetwork;
use crate::message::{PollAsk, Requester};
use crate::response::HttpResponse;
use crate::session_key::SessionKey;
use crate::transport::no_answer::NoAnswer;
use crate::transport::poll::{AnswerForm, Look, Poll, PollOf, Polled, look, read_session_name, wait};
use crate::transport::{Arrival, Gate, Head, Opening, Responses, Routed, WireState};

/// The longest name of a function that a script calls.
const CALLBACK_BYTES_MAX: usize = 64;

/// Answers a poll, or has it wait. `cors` holds lines for the head of the answer.
pub(super) async fn open(
    gate: &Gate,
    network: ClientNetwork,
    headers: &HeaderMap,
    mut query: StreamQuery<'_>,
    cors: Vec<u8>,
) -> Result<Routed, Box<HttpResponse>> {
    let settings = &gate.node.settings.subscribe.polls;
    let callback = callback(query.asked.callback.as_deref(), settings.jsonp).map_err(refuse)?;
    let wait = wait(query.asked.wait.as_deref(), settings.wait_max).map_err(|why| refuse(bad(why)))?;
    let topics = fingerprint(&query.asked.topics);
    let mut form = AnswerForm { headers: cors.into(), callback, known: None, is_lines: false };
    let named = named_session(query.asked.session.as_deref()).map_err(refuse)?;
    if let Some((key, number)) = named {
        let ask = PollAsk::new(number, wait, topics);
        match look(gate, network, key, ask, &form).await? {
            Look::Answered(response) => return Ok(Routed::Response(response)),
            Look::Waits => {
                let of = PollOf::Session(key, ask);
                return Ok(Routed::Arrival(Arrival::Poll(Poll { of, wait, form, network })));
            }
            Look::OtherTopics => {
                return Err(refuse(bad("session: it has other topics; leave it out to open another")));
            }
            // The cursor leads on.
            Look::Gone => {}
        }
    }
    // One that does not wait only looks, and leaves nothing behind.
    let lasts = !wait.is_zero();
    if !lasts {
        let requester = Requester { user: "".into(), network };
        let counted = gate.node.count_request(gate.shard, requester).await;
        counted.map_err(|_| form.refusal(&NoAnswer::TOO_OFTEN))?;
        form.known = known(headers);
        if let Some(known) = form.known.as_deref().filter(|_| query.asked.cursor.is_empty()) {
            query.asked.cursor = known.to_owned().into();
        }
    }
    let resume = match query.resume().map_err(refuse)? {
        // Without a cursor, what it missed since its session is not known.
        None if named.is_some() => Some(Parsed::OtherVersion),
        resume => resume,
    };
    let place = if lasts { Some(gate.admit_poller(network)?) } else { None };
    let kept = gate.kept_headers(headers)?;
    let permit = gate.admit(network)?;
    let names = query.asked.topics.iter().map(|topic| topic.to_string()).collect();
    let first = query.into_requests(resume.as_ref(), !lasts);
    let headers = form.headers.clone();
    let responses = Responses { accepted: Bytes::new(), refused, headers, topics: names, resume };
    let opening = Opening {
        mode: TransportMode { wire: Wire::Poll, pings: Pings::Keepalive },
        first,
        head: Head::ByAnswers(Box::new(responses)),
        state: Some(WireState::Polled(Polled::new(topics, network, place, None))),
        deflate: None,
        permit,
        kept,
    };
    let of = PollOf::Opening(Box::new(opening));
    Ok(Routed::Arrival(Arrival::Poll(Poll { of, wait, form, network })))
}

fn bad(why: &str) -> StreamRefusal {
    StreamRefusal::new(RequestError::BadRequest, why)
}

/// Returns the session that a poll names, and the number of its last answer. A shell sends an empty one with its first poll.
fn named_session(name: Option<&str>) -> Result<Option<(SessionKey, u32)>, StreamRefusal> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    read_session_name(name)
        .map(Some)
        .ok_or_else(|| bad("session: this is none; send that of the last answer, or leave it out"))
}

/// Returns the function that a script is to call. Its name is part of the script, so it is nothing but a name.
fn callback(name: Option<&str>, is_served: bool) -> Result<Option<Box<str>>, StreamRefusal> {
    let Some(name) = name else { return Ok(None) };
    if !is_served {
        return Err(bad(
            "callback: scripts are not served here; set subscribe.jsonp = true, or leave it out",
        ));
    }
    let is_begin = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$');
    let is_name = name.len() <= CALLBACK_BYTES_MAX
        && name.bytes().next().is_some_and(is_begin)
        && name.bytes().all(|byte| is_begin(byte) || byte.is_ascii_digit() || byte == b'.');
    match is_name {
        true => Ok(Some(name.into())),
        false => Err(bad(
            "callback: say a name of up to 64 letters, digits and any of _ $ . that begins with no digit or dot",
        )),
    }
}

/// Returns the cursor that the client has, if it asks only for something newer.
fn known(headers: &HeaderMap) -> Option<Box<str>> {
    let tag = headers.get(IF_NONE_MATCH)?.to_str().ok()?.trim();
    // Proxies that compress an answer mark its tag as weak.
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let cursor = tag.strip_prefix('"')?.strip_suffix('"')?;
    (!cursor.is_empty() && Cursor::parse(cursor).is_ok()).then(|| cursor.into())
}

/// Tells topics apart, in whatever order they are asked for (FNV-1a). All nodes agree on it.
fn fingerprint(topics: &[Cow<'_, str>]) -> u64 {
    let mut topics: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
    topics.sort_unstable();
    // No name has a byte of 0.
    let bytes = topics.iter().flat_map(|topic| topic.bytes().chain([0]));
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is no name may be code.
        #[test]
        fn any_callback_is_refused_or_can_be_called(name in "(?s).{0,70}|[a-zA-Z0-9_$.(;]{0,70}") {
            match callback(Some(&name), true) {
                Ok(taken) => {
                    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_$.".contains(&byte);
                    prop_assert!(!name.is_empty() && name.bytes().all(is_of_name), "{name}");
                    prop_assert_eq!(taken.as_deref(), Some(&*name));
                }
                Err(refusal) => prop_assert!(refusal.body().contains("callback: ")),
            }
        }
    }

    #[test]
    fn a_callback_is_a_name_and_nothing_else() {
        let long = "a".repeat(CALLBACK_BYTES_MAX);
        for name in ["a", "_", "$", "jQuery1_2", "a.b.c", long.as_str()] {
            assert_eq!(callback(Some(name), true).ok().flatten().as_deref(), Some(name));
            assert!(callback(Some(name), false).is_err());
        }
        assert!(matches!(callback(None, false), Ok(None)));
        for name in [
            "",
            "1a",
            ".a",
            "a(",
            "a;b",
            "a b",
            "alert(1)//",
            "ä",
            "a\n",
            "a<",
            "a-b",
            (long.clone() + "a").as_str(),
        ] {
            assert!(callback(Some(name), true).is_err(), "{name}");
        }
    }

    #[test]
    fn only_a_cursor_is_known() {
        let cursor = Cursor::default().text();
        let known = |tag: &str| {
            let tag = HeaderValue::try_from(tag).unwrap();
            known(&HeaderMap::from_iter([(IF_NONE_MATCH, tag)]))
        };
        assert_eq!(known(&format!("\"{cursor}\"")).as_deref(), Some(&*cursor));
        assert_eq!(known(&format!("W/\"{cursor}\"")).as_deref(), Some(&*cursor));
        for tag in ["*", "\"\"", "\"", &cursor, "\"something\""] {
            assert_eq!(known(tag), None, "{tag}");
        }
    }

    #[test]
    fn the_order_of_topics_does_not_matter() {
        let of = |topics: &[&'static str]| {
            fingerprint(&topics.iter().map(|topic| (*topic).into()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["a", "b"]), of(&["b", "a"]));
        let all = [of(&[]), of(&["a"]), of(&["b"]), of(&["a", "b"]), of(&["ab"]), of(&["a", "b", "c"])];
        for (place, one) in all.iter().enumerate() {
            assert!(!all[..place].contains(one), "{place}");
        }
    }
}
