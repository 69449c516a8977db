//! The entries of streams that hold events.

use fanwire_protocol::{ClientId, TopicName};
use redis::{Cmd, Value};

use crate::outbox::{DeadLetter, EventId, EventKind, LetterId, Refusal, StoredEvent};

/// Reads an entry of an outbox, which `event.lua` has written.
pub(super) fn read_entry(slot: u16, entry: &Value) -> Option<StoredEvent> {
    let (id, fields) = parts(entry)?;
    let LetterId { millis, sequence } = LetterId::parse(id)?;
    read_event(EventId { slot, millis, sequence }, fields)
}

/// Reads an entry that [`write_letter`] has written.
pub(super) fn read_letter(entry: &Value) -> Option<DeadLetter> {
    let (id, fields) = parts(entry)?;
    let (slot, within) = field(fields, "i")?.split_once('-')?;
    let LetterId { millis, sequence } = LetterId::parse(within)?;
    let number = |name| field(fields, name)?.parse::<u32>().ok();
    Some(DeadLetter {
        id: LetterId::parse(id)?,
        event: read_event(EventId { slot: slot.parse().ok()?, millis, sequence }, fields)?,
        refusal: Refusal { status: number("s")?.try_into().ok()?, attempts: number("n")? },
    })
}

/// Adds the fields of a dead letter to a command: those of its event, and what became of it.
pub(super) fn write_letter(command: &mut Cmd, event: &StoredEvent, refusal: Refusal) {
    let StoredEvent { id, kind, time, topic, user, client, reason } = event;
    command.arg("i").arg(id.to_string()).arg("e").arg(kind.as_str()).arg("m").arg(time);
    if let Some(topic) = topic {
        command.arg("t").arg(topic.as_str());
    }
    if let Some(user) = user {
        command.arg("u").arg(&**user);
    }
    if let Some(client) = client {
        command.arg("c").arg(client.to_string());
    }
    if let Some((code, text)) = reason {
        command.arg("r").arg(code).arg("x").arg(&**text);
    }
    command.arg("s").arg(refusal.status).arg("n").arg(refusal.attempts);
}

/// Returns the time in the id of the first of some entries: milliseconds since 1970.
pub(super) fn time_of(entries: &Value) -> Option<u64> {
    let Value::Array(entries) = entries else { return None };
    Some(LetterId::parse(parts(entries.first()?)?.0)?.millis)
}

pub(super) fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(text) => Some(text),
        _ => None,
    }
}

/// Returns the id and the fields of an entry.
fn parts(entry: &Value) -> Option<(&str, &[Value])> {
    let Value::Array(entry) = entry else { return None };
    let [id, Value::Array(fields)] = entry.as_slice() else { return None };
    Some((std::str::from_utf8(text(id)?).ok()?, fields))
}

fn field<'a>(fields: &'a [Value], name: &str) -> Option<&'a str> {
    let mut pairs = fields.chunks_exact(2);
    let pair = pairs.find(|pair| text(&pair[0]) == Some(name.as_bytes()))?;
    std::str::from_utf8(text(&pair[1])?).ok()
}

fn read_event(id: EventId, fields: &[Value]) -> Option<StoredEvent> {
    let field = |name| field(fields, name);
    let kind = field("e")?;
    Some(StoredEvent {
        id,
        kind: EventKind::ALL.into_iter().find(|known| known.as_str() == kind)?,
        time: field("m")?.parse().ok()?,
        topic: field("t").and_then(TopicName::new),
        user: field("u").map(Box::from),
        client: field("c").and_then(ClientId::parse),
        reason: field("r").and_then(|code| Some((code.parse().ok()?, field("x")?.into()))),
    })
}
