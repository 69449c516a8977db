//! Reads JSON objects of backends as Go's decoder does: the names of fields in any case, as .NET writes them. An error
//! names the field.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{BorrowedStrDeserializer, CowStrDeserializer, MapAccessDeserializer};
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A text that is not the object that was asked for. Nothing that was sent is repeated but names of known fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}, at line {line} column {column}")]
pub struct FieldError {
    pub why: Why,
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("this is not JSON")]
    NotJson,
    #[error("this is not a JSON object")]
    NotAnObject,
    #[error("the field \"{field}\" has a wrong type{expected}")]
    WrongType {
        field: String,
        /// `: expected a string`, where it is known.
        expected: String,
    },
    #[error("the field \"{0}\" is doubled: send it once, under one name in one spelling")]
    Doubled(String),
}

/// Reads a text that is one object.
pub fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, FieldError> {
    let place = FieldPlace::default();
    let mut from = serde_json::Deserializer::from_str(text);
    let read = from.deserialize_map(Fields { place: &place, is: PhantomData });
    read.and_then(|fields| from.end().map(|()| fields)).map_err(|error| place.error(&error))
}

/// Reads a field that is an object or `null`.
pub fn nested<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    struct Nested<T>(T);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Nested<T> {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_map(Fields { place: &FieldPlace::default(), is: PhantomData }).map(Self)
        }
    }

    Ok(Option::<Nested<T>>::deserialize(from)?.map(|Nested(fields)| fields))
}

/// The place that a reader has reached in an object.
#[derive(Default)]
struct FieldPlace<'de> {
    field: RefCell<Option<Cow<'de, str>>>,
    /// The field's name was accepted.
    is_in_value: Cell<bool>,
}

impl FieldPlace<'_> {
    fn error(self, error: &serde_json::Error) -> FieldError {
        let why = match self.field.into_inner() {
            _ if !error.is_data() => Why::NotJson,
            None => Why::NotAnObject,
            Some(field) if self.is_in_value.get() => {
                let text = error.to_string();
                // What follows is the reader's own text; what was sent stands before it.
                let expected = text.rsplit_once(", expected ").map(|(_, expected)| expected);
                let expected = expected.and_then(|expected| expected.split(" at line ").next());
                let expected = expected.map(|expected| format!(": expected {expected}")).unwrap_or_default();
                Why::WrongType { field: field.into_owned(), expected }
            }
            Some(field) => Why::Doubled(field.into_owned()),
        };
        FieldError { why, line: error.line(), column: error.column() }
    }
}

/// Reads an object, and notes the place in it.
struct Fields<'p, 'de, T> {
    place: &'p FieldPlace<'de>,
    is: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<'_, 'de, T> {
    type Value = T;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(InAnyCase { map, place: self.place }))
    }
}

/// The fields of an object with their names in lower case.
struct InAnyCase<'p, 'de, A> {
    map: A,
    place: &'p FieldPlace<'de>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for InAnyCase<'_, 'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(Name(mut name)) = self.map.next_key()? else {
            self.place.field.take();
            return Ok(None);
        };
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            name.to_mut().make_ascii_lowercase();
        }
        self.place.is_in_value.set(false);
        self.place.field.replace(Some(name.clone()));
        match name {
            Cow::Borrowed(name) => seed.deserialize(BorrowedStrDeserializer::new(name)),
            Cow::Owned(_) => seed.deserialize(CowStrDeserializer::new(name)),
        }
        .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.place.is_in_value.set(true);
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Request<'a> {
        #[serde(alias = "topic")]
        channel: String,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
        skip_history: bool,
        #[serde(deserialize_with = "nested")]
        since: Option<Since>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Since {
        offset: u64,
    }

    fn read(text: &str) -> Result<Request<'_>, String> {
        object(text).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_empty(text: &str) {
        assert_eq!(format!("{:?}", read(text).unwrap()), format!("{:?}", Request::default()));
    }

    #[test]
    fn names_come_in_any_case() {
        for text in [
            r#"{"channel":"a","data":{"Key":1},"skip_history":true,"since":{"offset":7}}"#,
            r#"{"Channel":"a","Data":{"Key":1},"Skip_History":true,"Since":{"Offset":7}}"#,
            r#" {"TOPIC":"a","dat\u0061":{"Key":1},"SKIP_HISTORY":true,"SINCE":{"OFFSET":7,"Other":[]},"Other":1} "#,
        ] {
            let request = read(text).unwrap();
            assert_eq!((&*request.channel, request.skip_history), ("a", true), "{text}");
            assert_eq!(request.data.map(RawValue::get), Some(r#"{"Key":1}"#), "{text}");
            assert_eq!(request.since, Some(Since { offset: 7 }), "{text}");
        }
        check_empty(r#"{"since":null}"#);
        // Words are not told by their capitals: what lacks the underscore is another field.
        check_empty(r#"{"SkipHistory":true,"ſince":{},"chänneL":1}"#);
    }

    #[test]
    fn errors_name_the_field() {
        for (text, error) in [
            ("", "this is not JSON, at line 1 column 0"),
            ("{", "this is not JSON, at line 1 column 1"),
            (r#"{"channel":"a"} {}"#, "this is not JSON, at line 1 column 17"),
            ("[]", "this is not a JSON object, at line 1 column 0"),
            ("null", "this is not a JSON object, at line 1 column 4"),
            (
                r#"{"Channel":["secret"]}"#,
                r#"the field "channel" has a wrong type: expected a string, at line 1 column 11"#,
            ),
            (
                r#"{"skip_history":", expected secret at line 1"}"#,
                r#"the field "skip_history" has a wrong type: expected a boolean, at line 1 column 45"#,
            ),
            (
                r#"{"since":{"offset":-1}}"#,
                r#"the field "since" has a wrong type: expected u64, at line 1 column 21"#,
            ),
            (
                r#"{"since":[7]}"#,
                r#"the field "since" has a wrong type: expected an object, at line 1 column 9"#,
            ),
            (
                r#"{"channel":"a","channel":"a"}"#,
                r#"the field "channel" is doubled: send it once, under one name in one spelling, at line 1 column 24"#,
            ),
            (
                r#"{"channel":"a","Channel":"a"}"#,
                r#"the field "channel" is doubled: send it once, under one name in one spelling, at line 1 column 24"#,
            ),
            (
                r#"{"channel":"a","topic":"a"}"#,
                r#"the field "topic" is doubled: send it once, under one name in one spelling, at line 1 column 22"#,
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), error, "{text}");
        }
        // Fields that nobody reads may be there any number of times.
        check_empty(r#"{"other":1,"Other":"2"}"#);
    }

    proptest! {
        /// Whatever comes is read or refused, and what serde reads is read the same.
        #[test]
        fn it_reads_all_that_exact_names_mean(text in "[{}\\[\\]:,\" a]{0,4}(\\{\"(channel|data|since|x)\":(\"a\"|1|null|\\{\\})(,\"(channel|data|since)\":(\"b\"|\\{\\}))?\\})?[} ]{0,2}") {
            let exact = serde_json::from_str::<crate::json::Object<Request<'_>>>(&text);
            match (read(&text), exact) {
                (Ok(request), Ok(exact)) => prop_assert_eq!(format!("{request:?}"), format!("{:?}", exact.0)),
                (Err(_), Err(_)) => {}
                (read, exact) => prop_assert!(false, "{read:?} {exact:?}"),
            }
        }
    }
}
