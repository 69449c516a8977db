//! Effects as lines of text, one each, with everything in them that matters.
//!
//! A reply is its JSON, with the client's id written as `client-N`. A request to a topic's owner begins with the
//! topic's name. Moved places have no line: they are the shard's own business.

use fanwire_hub::effect::{Effect, Membership, RecoveryRequest, TopicRequest};
use fanwire_hub::hook::{HookEvent, HookQuestion};
use fanwire_protocol::ClientInfo;
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::{CloseReason, RefusalDetail, RequestError};
use fanwire_protocol::request::StreamPosition;
use fanwire_protocol::websocket::REASON_BYTES_MAX;
use fanwire_protocol::wire::{Form, Wire};

use super::Outcome;

/// The id of the client of this number.
pub(super) fn client_id(number: u32) -> String {
    format!("{ID}{number:04}")
}

const ID: &str = "00000000-0000-4000-8000-00000000";

pub(super) fn line(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Reply(reply) => {
            if let Err(refused) = &reply.result {
                let is_bad = refused.error == RequestError::BadRequest;
                let is_told = matches!(refused.detail.as_deref(), Some(RefusalDetail::Mistake(_)));
                assert_eq!(is_bad, is_told, "a bad request is told why");
            }
            json(Wire::CentrifugeJson.reply(reply))
        }
        Effect::Push(push) => json(Wire::CentrifugeJson.push(push)),
        Effect::Open(reply) => format!("open {}", json(Wire::CentrifugeJson.reply(reply))),
        Effect::Ping => "ping".into(),
        Effect::Close(why) => {
            let (number, text) = codes::close(why);
            assert!(text.len() <= REASON_BYTES_MAX, "{why:?} is cut");
            assert_ne!(why, &CloseReason::BadRequest.into(), "a bad request is told why");
            format!("close {number} {text}")
        }
        Effect::AwaitKeys { number, keys } => format!("await keys {} {number}", keys.0),
        Effect::Token(print) => format!("token {}", print.0),
        Effect::RegisterAddress => "register address".into(),
        Effect::Register { user, single } => {
            format!("register {user}{}", if *single { " alone" } else { "" })
        }
        Effect::Unregister { user, .. } => format!("unregister {user}"),
        Effect::Topic(topic, request) => format!("{topic}: {}", request_line(request)),
        Effect::Hook(question) => format!("hook {}: {}", question.number, question_line(question)),
        Effect::UnfitAnswer(_, why) => format!("unfit {why}"),
        Effect::Moved(_) => return None,
    })
}

/// Returns the outcome that the lines come to.
pub(super) fn outcome(lines: &[String]) -> Outcome {
    let last = lines.last().expect("every command leads to something");
    if let Some(code) = last.strip_prefix("close ") {
        return Outcome::Close(number(code));
    }
    assert_eq!(lines.len(), 1, "{lines:?}");
    match last.split_once(r#""error":{"code":"#) {
        Some((_, code)) => Outcome::Error(number(code)),
        None if last.starts_with('{') => Outcome::Done,
        None => Outcome::Asks,
    }
}

fn number<N: std::str::FromStr>(text: &str) -> N {
    let digits = text.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().ok().expect("a code follows")
}

fn json(form: Form) -> String {
    let Form::Bytes(frame) = form else { panic!("{form:?} are no bytes") };
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let text = String::from_utf8(frame[header..].to_vec()).expect("JSON is UTF-8");
    let mut parts = text.split(ID);
    let mut named = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_at(4);
        named += &format!("client-{}{rest}", number.trim_start_matches('0'));
    }
    named
}

fn question_line(question: &HookQuestion) -> String {
    let words = match &question.event {
        HookEvent::Connect { data, name, version, topics } => {
            vec![text(data), name.to_string(), version.to_string(), topics.join(",")]
        }
        HookEvent::Refresh => Vec::new(),
        HookEvent::Subscribe { topic, data } => vec![topic.to_string(), text(data)],
        HookEvent::SubRefresh { topic } => vec![topic.to_string()],
        HookEvent::Publish { topic, data, tags } => {
            let tags = tags.iter().flat_map(|tags| &**tags).map(|(name, value)| format!("{name}={value}"));
            [topic.to_string(), text(data)].into_iter().chain(tags).collect()
        }
        HookEvent::Call { method, data } => vec![method.to_string(), text(data)],
        HookEvent::Send { method, data } => {
            vec![method.as_deref().unwrap_or_default().to_owned(), text(data)]
        }
    };
    let user = if question.user.is_empty() { "nobody" } else { &question.user };
    let words = words.into_iter().filter(|word| !word.is_empty()).map(|word| format!(" {word}"));
    format!("{}{} by {user}", question.event.name(), words.collect::<String>())
}

fn request_line(request: &TopicRequest) -> String {
    match request {
        TopicRequest::Subscribe { membership, wanted } => {
            let wanted = match wanted {
                RecoveryRequest::Nothing => String::new(),
                RecoveryRequest::Position => ", wants the position".into(),
                RecoveryRequest::Since { known, or_refuse: false } => {
                    format!(", wants what came after {}", at(known))
                }
                RecoveryRequest::Since { known, or_refuse: true } => {
                    format!(", wants what came after {} or nothing", at(known))
                }
                RecoveryRequest::Newest(known) => format!(", wants the newest, has {}", at(known)),
            };
            format!("subscribe{}{wanted}", member(membership))
        }
        TopicRequest::Unsubscribe { membership, .. } => format!("unsubscribe{}", member(membership)),
        TopicRequest::UpdatePresence { info, .. } => format!("update_presence of {}", who(info)),
        TopicRequest::Publish { id, data, tags: _, info, options } => {
            let options = options.as_ref().map(|options| format!(" {options:?}")).unwrap_or_default();
            format!("publish #{id} {} by {}{options}", text(data), who(info))
        }
        TopicRequest::Presence { id } => format!("presence #{id}"),
        TopicRequest::PresenceStats { id } => format!("presence_stats #{id}"),
        TopicRequest::History { id, limit, since, reverse } => {
            let since = since.as_ref().map(|since| format!(" since {}", at(since))).unwrap_or_default();
            format!("history #{id} limit {limit}{since}{}", if *reverse { " reverse" } else { "" })
        }
    }
}

fn member(membership: &Membership) -> String {
    let presence = if membership.presence { " +presence" } else { "" };
    let join_leave = if membership.join_leave { " +join_leave" } else { "" };
    format!(" {}{presence}{join_leave}", who(&membership.info))
}

fn who(info: &ClientInfo) -> String {
    let user = if info.user.is_empty() { "nobody" } else { &info.user };
    let connection =
        if info.connection.is_empty() { String::new() } else { format!(" {}", text(&info.connection)) };
    let subscription = if info.subscription.is_empty() {
        String::new()
    } else {
        format!(" here {}", text(&info.subscription))
    };
    format!("{user}{connection}{subscription}")
}

fn at(known: &StreamPosition) -> String {
    format!("{}@{}", known.offset, known.epoch)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
