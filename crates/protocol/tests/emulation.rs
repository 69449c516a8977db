//! The body of a request that carries commands beside the stream with the replies.

use bytes::Bytes;
use fanwire_protocol::centrifuge::{EmulationRequest, Encoding};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::json;

fn read(encoding: Encoding, body: impl Into<Bytes>) -> Result<EmulationRequest, String> {
    EmulationRequest::decode_body(encoding, &body.into()).map_err(|malformed| malformed.reason().to_owned())
}

fn request(node: &str, session: &str, data: &str) -> EmulationRequest {
    EmulationRequest {
        node: node.to_owned(),
        session: session.to_owned(),
        data: Bytes::copy_from_slice(data.as_bytes()),
    }
}

#[test]
fn a_body_in_both_encodings() {
    let expected = request("n", "s", "{\"id\":1}\n{}");
    let json = r#" {"session":"s","node":"n","data":"{\"id\":1}\n{}","more":[1]}"#;
    assert_eq!(read(Encoding::Json, json), Ok(expected.clone()));
    let protobuf = b"\x0a\x01n\x12\x01s\x1a\x0b{\"id\":1}\n{}";
    assert_eq!(read(Encoding::Protobuf, &protobuf[..]), Ok(expected));
}

#[test]
fn a_mistake_is_named() {
    for (body, expected) in [
        ("", "not JSON at line 1 column 0"),
        ("{", "not JSON at line 1 column 1"),
        ("{} {}", "not JSON at line 1 column 4"),
        (r#"["n","s","d"]"#, "no object, or a field of a wrong type at line 1 column 0"),
        (r#"{"data":{}}"#, "no object, or a field of a wrong type at line 1 column 8"),
        (r#"{"node":7}"#, "no object, or a field of a wrong type at line 1 column 9"),
        (r#"{"session":"s","data":"d"}"#, "the field \"node\" is missing"),
        (r#"{"node":"n","session":null,"data":"d"}"#, "the field \"session\" is missing"),
        (r#"{"node":"n","session":"s","data":""}"#, "the field \"data\" is missing"),
    ] {
        assert_eq!(read(Encoding::Json, body), Err(expected.to_owned()), "{body}");
    }
    for (body, expected) in [(&b""[..], "node"), (b"\x0a\x01n", "session"), (b"\x0a\x01n\x12\x01s", "data")] {
        assert_eq!(read(Encoding::Protobuf, body), Err(format!("the field \"{expected}\" is missing")));
    }
    for body in [&b"\x0a\x05n"[..], b"\xff", b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
        assert!(read(Encoding::Protobuf, body).is_err(), "{body:?}");
    }
}

proptest! {
    #[test]
    fn a_body_is_read_as_it_was_written(node in ".{1,40}", session in ".{1,60}", data in ".{1,200}") {
        let expected = request(&node, &session, &data);
        prop_assert_eq!(read(Encoding::Protobuf, expected.encode_to_vec()), Ok(expected.clone()));
        let json = json!({"session": session, "node": node, "data": data}).to_string();
        prop_assert_eq!(read(Encoding::Json, json), Ok(expected));
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            if let Ok(request) = read(encoding, body.clone()) {
                let is_whole = !request.node.is_empty() && !request.session.is_empty() && !request.data.is_empty();
                prop_assert!(is_whole);
            }
        }
    }
}
