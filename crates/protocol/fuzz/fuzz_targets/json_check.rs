//! Any bytes as a payload: `check` agrees with a parser that builds the value, and all of them can be sent as one line:
//! what it takes as JSON, the rest in Base64.
#![no_main]

use fanwire_protocol::centrifuge::{Encoding, PushMessage, encode};
use fanwire_protocol::json::{self, NotJson};
use fanwire_protocol::reply::Push;
use fanwire_protocol::{Publication, TopicName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let checked = json::check(payload);
    let parsed = serde_json::from_slice::<serde_json::Value>(payload);
    match (&checked, &parsed) {
        (Ok(()), Ok(value)) => assert_eq!(json::is_object(payload), value.is_object()),
        // Building a value is stricter in three ways: half a surrogate pair and numbers beyond a double are wrong to
        // it, and its own depth is one less.
        (Ok(()), Err(error)) => {
            let error = error.to_string();
            assert!(
                ["surrogate", "hex escape", "number out of range", "recursion limit"]
                    .iter()
                    .any(|why| error.contains(why)),
                "{error}"
            );
        }
        (Err(NotJson::Malformed), Ok(_)) => panic!("refused what is JSON"),
        (Err(NotJson::TooDeep), Ok(_)) => panic!("the parser goes less deep"),
        (Err(_), Err(_)) => {}
    }

    let topic = TopicName::new("t").expect("the name is not empty");
    let publication = Publication { data: payload.to_owned().into(), ..Publication::default() };
    let push = Push::Publication { topic, publication: publication.into(), epoch: None, shows_time: false };
    let mut to = Vec::new();
    encode(Encoding::Json, &PushMessage::from(&push).into(), &mut to);
    assert!(!to.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
    // The payload is three levels down in its reply, which is the receiver's matter.
    assert!(matches!(json::check(&to), Ok(()) | Err(NotJson::TooDeep)));
    let begin = b"{\"push\":{\"channel\":\"t\",\"pub\":{\"data\":null,\"b64data\":\"";
    assert_eq!(to.starts_with(begin), checked.is_err() && !payload.is_empty());
});
