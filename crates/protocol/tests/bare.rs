//! Texts that clients publish without a protocol around them.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::Tags;
use fanwire_protocol::json;
use fanwire_protocol::plain::bare::data;
use proptest::prelude::*;

fn tagged(name: &str) -> Option<Arc<Tags>> {
    Some(Arc::new(Tags::from([(name.to_owned(), "true".to_owned())])))
}

#[test]
fn json_is_published_as_it_is_and_any_other_text_as_a_string() {
    for text in [r#"{"a": [1, 2]}"#, "1", "null", "true", r#""quoted""#, " 1 ", r#""\ud800""#] {
        assert_eq!(data(text), (Bytes::copy_from_slice(text.as_bytes()), None), "{text}");
    }
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    for (text, string) in [
        ("hello", r#""hello""#.to_owned()),
        ("", r#""""#.to_owned()),
        ("01", r#""01""#.to_owned()),
        ("a\n\"b\"\u{1}", r#""a\n\"b\"\u0001""#.to_owned()),
        (&deep, format!("\"{deep}\"")),
    ] {
        let (data, tags) = data(text);
        assert_eq!(data, string);
        assert_eq!(tags, tagged("text"));
    }
}

proptest! {
    #[test]
    fn any_text_becomes_json(text in ".*") {
        prop_assert_eq!(json::check(&data(&text).0), Ok(()));
    }
}
