//! Rules for JSON from peers, and for payloads that travel inside JSON as values of their own.
//!
//! Whatever passes these functions is one JSON value, nested at most `JSON_DEPTH_MAX` deep where a peer chose the
//! depth, and holds no line break once written, since a line break ends a message.

pub mod fields;
pub mod payload;

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The depth to which arrays and objects from a peer may nest, the outermost counted. Clients parse recursively, so what
/// is passed on must not be able to exhaust their stacks.
pub const JSON_DEPTH_MAX: usize = 128;

/// The reasons for which a payload is refused where JSON is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJson {
    #[error("not one JSON value")]
    Malformed,
    #[error("JSON nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
}

/// Checks that a payload is one JSON value in UTF-8 that may be passed on. Space around it is allowed.
pub fn check(payload: &[u8]) -> Result<(), NotJson> {
    if is_too_deep(payload) {
        return Err(NotJson::TooDeep);
    }
    // Skipping a value does not look at the encoding of its strings, hence as text.
    let text = std::str::from_utf8(payload).map_err(|_| NotJson::Malformed)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| NotJson::Malformed)?;
    Ok(())
}

/// Returns true if a payload that passed `check` is an object.
pub fn is_object(payload: &[u8]) -> bool {
    payload.trim_ascii_start().first() == Some(&b'{')
}

/// Returns true if arrays and objects nest deeper than `JSON_DEPTH_MAX`. Right for any JSON up to its first syntax
/// error, where a parser stops too; to be asked before parsing, since skipping a value takes memory with its depth.
pub fn is_too_deep(json: &[u8]) -> bool {
    // Few messages hold so many brackets at all, and counting them is many times faster than following them.
    if json.len() <= JSON_DEPTH_MAX || opening_brackets(json) <= JSON_DEPTH_MAX {
        return false;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn opening_brackets(json: &[u8]) -> usize {
    // The count of a chunk fits in a byte, so the compiler compares and adds many bytes at a time.
    let in_chunk =
        |chunk: &[u8]| chunk.iter().fold(0_u8, |n, byte| n + u8::from(matches!(byte, b'{' | b'[')));
    json.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(in_chunk(chunk))).sum()
}

/// Appends a value of our own as JSON.
pub(crate) fn write(value: &impl Serialize, to: &mut Vec<u8>) {
    serde_json::to_writer(to, value).expect("messages are text, numbers and payloads, which all have a form");
}

/// For `skip_serializing_if`: zero values are left out of JSON.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads `null` like an absent field, as clients of the protocol do.
pub fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A struct that is read from an object alone; what serde derives would take an array of its fields in order, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }

        from.deserialize_map(Fields(PhantomData))
    }
}

/// Reads a field that is an object or `null`; see [`Object`].
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(from)?.map(|Object(fields)| fields))
}

/// Reads an object, or `null`, of objects.
pub(crate) fn objects<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<HashMap<String, T>, D::Error> {
    let objects = Option::<HashMap<String, Option<Object<T>>>>::deserialize(from)?.unwrap_or_default();
    let fields = |object: Option<Object<T>>| object.map(|Object(fields)| fields).unwrap_or_default();
    Ok(objects.into_iter().map(|(name, object)| (name, fields(object))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(open: &str, close: &str, depth: usize) -> String {
        open.repeat(depth) + &close.repeat(depth)
    }

    #[test]
    fn one_value_of_any_kind_is_json() {
        for payload in
            ["{}", "[]", "null", "true", "-1.5e3", r#""text""#, " {\n\"a\" : [1, \"}\"] }\r\n", r#""\ud800""#]
        {
            assert_eq!(check(payload.as_bytes()), Ok(()), "{payload}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        let wrong: [&[u8]; 14] = [
            b"",
            b" ",
            b"{",
            b"}",
            b"{}{}",
            b"1 2",
            b"1\n2",
            b"{a:1}",
            b"[1,]",
            b"nul",
            b"01",
            b"\"a\nb\"",
            b"\"\xff\"",
            b"\xef\xbb\xbf{}",
        ];
        for payload in wrong {
            assert_eq!(check(payload), Err(NotJson::Malformed), "{payload:?}");
        }
    }

    #[test]
    fn depth_is_limited_outside_strings() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let inner = |depth| nested(open, close, depth).replace(":}", ":0}");
            assert_eq!(check(inner(JSON_DEPTH_MAX).as_bytes()), Ok(()));
            assert_eq!(check(inner(JSON_DEPTH_MAX + 1).as_bytes()), Err(NotJson::TooDeep));
        }
        assert_eq!(check(nested("[", "]", 1_000_000).as_bytes()), Err(NotJson::TooDeep));

        // Brackets side by side, or within strings, are not depth, whatever quotes and backslashes stand around them.
        let wide = format!("[{}[]]", "[],".repeat(1000));
        assert_eq!(check(wide.as_bytes()), Ok(()));
        let text = format!(r#"["\\", "\"{}\\"]"#, "[".repeat(1000));
        assert_eq!(check(text.as_bytes()), Ok(()));
        let text_then_deep = format!(r#"["\\",{}]"#, nested("[", "]", JSON_DEPTH_MAX));
        assert_eq!(check(text_then_deep.as_bytes()), Err(NotJson::TooDeep));
    }

    #[test]
    fn objects_are_told_by_their_first_byte() {
        assert!(is_object(b" \r\n\t{\"a\":1}"));
        assert!(!is_object(b"[{}]"));
        assert!(!is_object(b""));
    }

    #[test]
    fn objects_are_no_arrays() {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Fields {
            a: u32,
        }
        let read = |text| serde_json::from_str::<Object<Fields>>(text).map(|Object(fields)| fields.a).ok();
        assert_eq!(read(r#"{"a":7,"b":[]}"#), Some(7));
        assert_eq!(read("{}"), Some(0));
        for wrong in ["[]", "[7]", "null", "7", "\"a\"", ""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
