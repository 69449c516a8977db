//! Something that goes to every subscriber of a topic, encoded at most once for each body that its wires have, and
//! compressed at most once for each wire.

use std::sync::OnceLock;

use bytes::Bytes;
use fanwire_protocol::reply::Push;
use fanwire_protocol::wire::{Encoded, Wire};

/// A publication, a join or a leave on its way to the subscribers of one topic.
///
/// It has a form for each wire that some shard asked for. Most have one or two, and the first lies in place, so its cost
/// does not grow with the number of wires that there are.
#[derive(Debug)]
pub struct Delivery {
    pub push: Push,
    first: OnceLock<EncodedForm>,
}

/// The bytes for one wire.
#[derive(Debug)]
struct EncodedForm {
    wire: Wire,
    encoded: Encoded,
    /// `None` where it would not be shorter.
    compressed: OnceLock<Option<Bytes>>,
    /// Another wire in use.
    next: OnceLock<Box<EncodedForm>>,
}

impl EncodedForm {
    fn new(wire: Wire, push: &Push, kin: Option<&Self>) -> Self {
        let encoded = wire.encode(push, kin.map(|kin| (kin.wire, &kin.encoded)));
        Self { wire, encoded, compressed: OnceLock::new(), next: OnceLock::new() }
    }
}

impl Delivery {
    pub fn new(push: Push) -> Self {
        Self { push, first: OnceLock::new() }
    }

    /// Returns the bytes of the publication's data.
    pub fn data_bytes(&self) -> usize {
        match &self.push {
            Push::Publication { publication, .. } => publication.data.len(),
            _ => 0,
        }
    }

    /// Returns the bytes for a wire; empty where it has no form for them. The first shard that asks encodes, all share.
    pub fn bytes(&self, wire: Wire) -> &Bytes {
        &self.form(wire).encoded.bytes
    }

    /// The same with the place of what other connections of the wire share.
    pub fn encoded(&self, wire: Wire) -> &Encoded {
        &self.form(wire).encoded
    }

    /// The bytes for connections that are compressed. `compress` returns nothing for bytes that would not get shorter.
    pub fn compressed(&self, wire: Wire, compress: impl FnOnce(&Bytes) -> Option<Bytes>) -> &Bytes {
        let EncodedForm { encoded: Encoded { bytes: plain, .. }, compressed, .. } = self.form(wire);
        let compressed =
            compressed.get_or_init(|| if wire.is_compressible() { compress(plain) } else { None });
        compressed.as_ref().unwrap_or(plain)
    }

    /// Finds the form for a wire, or makes it.
    fn form(&self, wire: Wire) -> &EncodedForm {
        let first = self.first.get_or_init(|| EncodedForm::new(wire, &self.push, None));
        if first.wire == wire { first } else { self.form_behind(first, wire) }
    }

    /// Makes it of a kindred wire's form, if there is one. Who loses a race for a place goes on to the next.
    #[inline(never)]
    fn form_behind<'d>(&'d self, first: &'d EncodedForm, wire: Wire) -> &'d EncodedForm {
        let (mut form, mut kin) = (first, None);
        while form.wire != wire {
            if wire.is_kin(form.wire) {
                kin = kin.or(Some(form));
            }
            form = form.next.get_or_init(|| Box::new(EncodedForm::new(wire, &self.push, kin)));
        }
        form
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanwire_protocol::websocket::Deflater;
    use fanwire_protocol::{ClientInfo, Epoch, Publication, TopicName};

    use super::*;

    fn news() -> TopicName {
        TopicName::new("news").unwrap()
    }

    fn publication(data: &'static [u8], offset: u64) -> Push {
        let publication = Publication { data: Bytes::from_static(data), offset, ..Publication::default() };
        let epoch = (offset == 1).then(|| Epoch::parse(b"abcdefgh").unwrap());
        Push::Publication { topic: news(), publication: Arc::new(publication), epoch, shows_time: false }
    }

    fn info() -> Arc<ClientInfo> {
        let client = fanwire_protocol::ClientId::parse("00000000-0000-4000-8000-000000000001").unwrap();
        Arc::new(ClientInfo {
            user: "42".into(),
            client,
            connection: Bytes::new(),
            subscription: Bytes::new(),
        })
    }

    fn json_frame(text: &str) -> Bytes {
        assert!(text.len() < 126);
        [&[0x81, text.len() as u8], text.as_bytes()].concat().into()
    }

    #[test]
    fn each_wire_has_its_form_and_shares_it() {
        for (push, json) in [
            (publication(b"1", 2), r#"{"push":{"channel":"news","pub":{"data":1,"offset":2}}}"#),
            // The first publication of a stream says which stream it is.
            (
                publication(b"1", 1),
                r#"{"push":{"channel":"news","pub":{"data":1,"offset":1,"epoch":"abcdefgh"}}}"#,
            ),
        ] {
            let delivery = Delivery::new(push);
            assert_eq!(delivery.bytes(Wire::CentrifugeJson), &json_frame(json));
            for wire in Wire::ALL.into_iter().filter(|wire| wire.connects()) {
                let bytes = delivery.bytes(wire);
                assert!(!bytes.is_empty());
                assert_eq!(bytes.as_ptr(), delivery.bytes(wire).as_ptr());
            }
        }
    }

    #[test]
    fn joins_and_leaves_have_no_form_as_events() {
        for (push, is) in [
            (Push::Join { topic: news(), info: info() }, "join"),
            (Push::Leave { topic: news(), info: info() }, "leave"),
        ] {
            assert!(push.is_join_or_leave());
            let delivery = Delivery::new(push);
            let client = r#"{"user":"42","client":"00000000-0000-4000-8000-000000000001"}"#;
            let json = format!(r#"{{"push":{{"channel":"news","{is}":{{"info":{client}}}}}}}"#);
            assert_eq!(delivery.bytes(Wire::CentrifugeJson), &json_frame(&json));
            assert!(!delivery.bytes(Wire::CentrifugeProtobuf).is_empty());
            assert_eq!(delivery.bytes(Wire::Events), &Bytes::new());
        }
    }

    #[test]
    fn it_is_compressed_once_and_left_as_it_is_when_that_gains_nothing() {
        let delivery = Delivery::new(publication(br#"{"a":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}"#, 2));
        let (mut one, mut other) = (Deflater::new(1, 1), Deflater::new(9, 1));
        for wire in [Wire::CentrifugeJson, Wire::CentrifugeProtobuf] {
            let plain = delivery.bytes(wire);
            let compressed = delivery.compressed(wire, |plain| one.frame(plain));
            assert!(compressed.len() < plain.len());
            assert_eq!(compressed[0], plain[0] | 0x40);
            assert_eq!(compressed.as_ptr(), delivery.compressed(wire, |plain| other.frame(plain)).as_ptr());
        }
        assert_eq!(other.bytes(), (0, 0));
        assert_eq!(delivery.compressed(Wire::Events, |plain| one.frame(plain)), delivery.bytes(Wire::Events));

        let short = Delivery::new(publication(b"1", 2));
        let mut picky = Deflater::new(1, 1000);
        let plain = short.bytes(Wire::CentrifugeJson).as_ptr();
        assert_eq!(short.compressed(Wire::CentrifugeJson, |plain| picky.frame(plain)).as_ptr(), plain);
    }

    #[test]
    fn bytes_that_are_not_json_go_to_json_clients_in_base64() {
        let delivery = Delivery::new(publication(b"\xff", 7));
        let json = r#"{"push":{"channel":"news","pub":{"data":null,"b64data":"/w==","offset":7}}}"#;
        assert_eq!(delivery.bytes(Wire::CentrifugeJson), &json_frame(json));
        let event = "data: {\"topic\":\"news\",\"data\":null,\"b64data\":\"/w==\",\"offset\":7}\n\n";
        assert_eq!(delivery.bytes(Wire::Events), event);
        assert!(delivery.bytes(Wire::CentrifugeProtobuf).contains(&0xFF));
    }

    #[test]
    fn shards_that_ask_at_once_share_one_form_of_each_wire() {
        for _ in 0..200 {
            let delivery = Delivery::new(publication(b"1", 2));
            let asked: Vec<Vec<usize>> = std::thread::scope(|scope| {
                let ask = |turn| {
                    let delivery = &delivery;
                    move || {
                        let mut places = [0; Wire::COUNT];
                        for place in 0..Wire::COUNT {
                            let wire = (place + turn) % Wire::COUNT;
                            places[wire] = delivery.bytes(Wire::ALL[wire]).as_ptr() as usize;
                        }
                        places.to_vec()
                    }
                };
                let threads: Vec<_> = (0..4).map(|turn| scope.spawn(ask(turn))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(asked.iter().all(|places| *places == asked[0]), "{asked:?}");
        }
    }
}
