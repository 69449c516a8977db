//! Parses the answers of commands and scripts. Unexpected answers are refused.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::{Epoch, Position, Publication};
use redis::Value;

use super::frame::{FrameContent, parse_offset};

/// The answer of a read script.
pub(super) struct Page {
    pub(super) top: Position,
    pub(super) completeness: Completeness,
    pub(super) publications: Vec<Arc<Publication>>,
}

/// The completeness of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completeness {
    /// The page is not complete, or the given position is of another epoch.
    No,
    Yes,
    /// The page ended at the limit's bytes.
    TooLong,
}

/// Parses a position from one text: epoch and offset.
pub(super) fn position(value: &Value) -> Option<Position> {
    let Value::BulkString(text) = value else { return None };
    let (epoch, offset) = text.split_at_checked(Epoch::LENGTH)?;
    Some(Position { epoch: Epoch::parse(epoch)?, offset: parse_offset(offset)? })
}

/// Parses the answer to a publish that may be suppressed: the suppression, and the position if there is one.
pub(super) fn suppressible(value: &Value) -> Option<(bool, Option<Position>)> {
    let Value::Array(values) = value else { return None };
    let [Value::Int(suppressed), first] = values.as_slice() else { return None };
    let position = match first {
        Value::BulkString(text) if text.is_empty() => None,
        first => Some(position(first)?),
    };
    Some((*suppressed != 0, position))
}

/// Parses a page with its top. One unreadable entry makes the page unreadable, so that no gap goes unnoticed.
pub(super) fn page(value: Value) -> Option<Page> {
    let Value::Array(values) = value else { return None };
    let [epoch, top, Value::Int(flag), Value::Array(entries)] = <[Value; 4]>::try_from(values).ok()? else {
        return None;
    };
    let (Value::BulkString(epoch), Value::BulkString(top)) = (epoch, top) else { return None };
    let top = Position { epoch: Epoch::parse(&epoch)?, offset: parse_offset(&top)? };
    let mut publications = Vec::with_capacity(entries.len() / 2);
    let mut entries = entries.into_iter();
    while let Some(offset) = entries.next() {
        let (Value::BulkString(offset), Value::BulkString(body)) = (offset, entries.next()?) else {
            return None;
        };
        let Ok(FrameContent::Publication(publication)) =
            FrameContent::parse(Bytes::from(body), parse_offset(&offset)?)
        else {
            return None;
        };
        publications.push(Arc::new(publication));
    }
    let completeness = match flag {
        0 => Completeness::No,
        1 => Completeness::Yes,
        2 => Completeness::TooLong,
        _ => return None,
    };
    Some(Page { top, completeness, publications })
}

/// The answer of `members.lua`.
#[derive(Debug, PartialEq)]
pub(super) enum MembersPage {
    /// The members exceed the limit.
    TooLong,
    /// A page: the number of nodes that are done, the cursor in the next one, and bodies of members.
    Page { done: usize, next: Vec<u8>, bodies: Vec<Bytes> },
}

/// Parses a page of members.
pub(super) fn members(value: Value) -> Option<MembersPage> {
    let Value::Array(values) = value else { return None };
    let [Value::Int(done), Value::BulkString(next), Value::Array(entries)] =
        <[Value; 3]>::try_from(values).ok()?
    else {
        return None;
    };
    if done == -1 {
        return Some(MembersPage::TooLong);
    }
    let mut bodies = Vec::with_capacity(entries.len() / 2);
    let mut entries = entries.into_iter();
    while let Some(client) = entries.next() {
        let (Value::BulkString(_), Value::BulkString(body)) = (client, entries.next()?) else { return None };
        bodies.push(Bytes::from(body));
    }
    Some(MembersPage::Page { done: usize::try_from(done).ok()?, next, bodies })
}

/// Parses the pairs of a hash.
pub(super) fn pairs(value: Value) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let bytes = |value| match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    };
    match value {
        Value::Map(pairs) => {
            pairs.into_iter().map(|(field, value)| Some((bytes(field)?, bytes(value)?))).collect()
        }
        Value::Array(values) if values.is_empty() => Some(Vec::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn positions_are_read_or_refused() {
        let read = position(&text("abcdefgh12")).unwrap();
        assert_eq!((read.epoch.as_str(), read.offset), ("abcdefgh", 12));
        for bad in ["", "abc", "abcdefgh", "abcdefgh-1", "abcd-fgh1", "abcdefgh99999999999999999999"] {
            assert_eq!(position(&text(bad)), None, "{bad}");
        }
        assert_eq!(position(&Value::Nil), None);
    }

    #[test]
    fn pages_of_members_of_another_shape_are_refused() {
        let with =
            |done, entries| members(Value::Array(vec![Value::Int(done), text("0"), Value::Array(entries)]));
        let page = MembersPage::Page { done: 1, next: b"0".to_vec(), bodies: vec!["body".into()] };
        assert_eq!(with(1, vec![text("client"), text("body")]), Some(page));
        assert_eq!(with(-1, vec![]), Some(MembersPage::TooLong));
        assert!(with(0, vec![]).is_some());
        assert!(with(-2, vec![]).is_none());
        assert!(with(0, vec![text("client")]).is_none());
        assert!(with(0, vec![text("client"), Value::Int(1)]).is_none());
        assert!(members(Value::Array(vec![Value::Int(0), text("0")])).is_none());
        assert!(members(Value::Okay).is_none());
    }

    #[test]
    fn pages_of_another_shape_are_refused() {
        let with = |entries| {
            page(Value::Array(vec![text("abcdefgh"), text("5"), Value::Int(1), Value::Array(entries)]))
        };
        assert!(with(vec![]).is_some());
        assert!(with(vec![text("5")]).is_none());
        assert!(with(vec![text("5"), text("no body")]).is_none());
        assert!(with(vec![text("5"), text("\x01\x04\0")]).is_none());
        assert!(with(vec![text("5"), text("\x01\x01\0data")]).is_some());
        assert!(page(Value::Array(vec![text("abcdefgh"), text("5")])).is_none());
        assert!(page(Value::Okay).is_none());
    }
}
