//! The secret name of a session whose requests come over other connections than its own. It leads to the session from
//! any node, and nobody but the session's node can make one.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanwire_hub::effect::ConnectionKey;
use fanwire_protocol::ClientId;
use uuid::Uuid;

/// The bytes that say where a session is: node, shard, slot and generation.
const ADDRESS_BYTES: usize = 16 + 2 + 4 + 4;
const MAC_BYTES: usize = 16;
/// A whole key.
const KEY_BYTES: usize = ADDRESS_BYTES + MAC_BYTES;
/// Its text.
const TEXT_BYTES: usize = 56;
// All bits of the text count, so a key has one spelling.
const _: () = assert!(KEY_BYTES.is_multiple_of(3) && KEY_BYTES / 3 * 4 == TEXT_BYTES);

/// Names a session on any node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionKey {
    pub node: Uuid,
    pub shard: u16,
    pub connection: ConnectionKey,
    mac: [u8; MAC_BYTES],
}

impl SessionKey {
    /// Reads a key, which may be anybody's invention: see [`SessionSigner::verifies`].
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() != TEXT_BYTES {
            return None;
        }
        Self::from_bytes(&URL_SAFE_NO_PAD.decode(text).ok()?)
    }

    /// Reads the key as nodes tell it to each other.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; KEY_BYTES] = bytes.try_into().ok()?;
        let (node, rest) = bytes.split_first_chunk()?;
        let (shard, rest) = rest.split_first_chunk()?;
        let (slot, rest) = rest.split_first_chunk()?;
        let (generation, mac) = rest.split_first_chunk()?;
        Some(Self {
            node: Uuid::from_bytes(*node),
            shard: u16::from_be_bytes(*shard),
            connection: ConnectionKey {
                slot: u32::from_be_bytes(*slot),
                generation: u32::from_be_bytes(*generation),
            },
            mac: mac.try_into().ok()?,
        })
    }

    pub(crate) fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[..ADDRESS_BYTES].copy_from_slice(&address(self.node, self.shard, self.connection));
        bytes[ADDRESS_BYTES..].copy_from_slice(&self.mac);
        bytes
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.to_bytes()))
    }
}

/// Without the secret part, so that no log has it.
impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKey")
            .field("node", &self.node)
            .field("shard", &self.shard)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// Signs the keys of this node's sessions, with a secret of this run: no key outlives its node.
#[derive(Debug)]
pub(crate) struct SessionSigner(hmac::Key);

impl SessionSigner {
    pub(crate) fn new() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()))
    }

    pub(crate) fn sign(
        &self,
        node: Uuid,
        shard: u16,
        connection: ConnectionKey,
        client: ClientId,
    ) -> SessionKey {
        SessionKey { node, shard, connection, mac: self.mac(node, shard, connection, client) }
    }

    /// Returns true if this signer made the key, for this client.
    pub(crate) fn verifies(&self, key: &SessionKey, client: ClientId) -> bool {
        let mac = self.mac(key.node, key.shard, key.connection, client);
        verify_slices_are_equal(&mac, &key.mac).is_ok()
    }

    fn mac(&self, node: Uuid, shard: u16, connection: ConnectionKey, client: ClientId) -> [u8; MAC_BYTES] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&address(node, shard, connection));
        context.update(client.0.as_bytes());
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&context.sign().as_ref()[..MAC_BYTES]);
        mac
    }
}

fn address(node: Uuid, shard: u16, connection: ConnectionKey) -> [u8; ADDRESS_BYTES] {
    let mut bytes = [0; ADDRESS_BYTES];
    bytes[..16].copy_from_slice(node.as_bytes());
    bytes[16..18].copy_from_slice(&shard.to_be_bytes());
    bytes[18..22].copy_from_slice(&connection.slot.to_be_bytes());
    bytes[22..].copy_from_slice(&connection.generation.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE: Uuid = Uuid::from_u128(7);
    const CLIENT: ClientId = ClientId(Uuid::from_u128(8));
    const CONNECTION: ConnectionKey = ConnectionKey { slot: 5, generation: 9 };

    #[test]
    fn a_key_is_good_for_its_session_alone() {
        let signer = SessionSigner::new();
        let key = signer.sign(NODE, 3, CONNECTION, CLIENT);
        let read = SessionKey::parse(&key.to_string()).unwrap();
        assert_eq!((read, read.node, read.shard, read.connection), (key, NODE, 3, CONNECTION));
        assert!(signer.verifies(&read, CLIENT));
        assert!(!signer.verifies(&read, ClientId(Uuid::from_u128(9))));
        assert!(!SessionSigner::new().verifies(&read, CLIENT), "a node that was started again");
        for other in [
            SessionKey { node: Uuid::from_u128(6), ..key },
            SessionKey { shard: 2, ..key },
            SessionKey { connection: ConnectionKey { slot: 4, ..CONNECTION }, ..key },
            SessionKey { connection: ConnectionKey { generation: 10, ..CONNECTION }, ..key },
        ] {
            assert!(!signer.verifies(&other, CLIENT), "{other:?}");
        }
    }

    #[test]
    fn no_bit_can_be_forged() {
        let signer = SessionSigner::new();
        let bytes = signer.sign(NODE, 3, CONNECTION, CLIENT).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!signer.verifies(&SessionKey::from_bytes(&forged).unwrap(), CLIENT), "bit {bit}");
        }
    }

    #[test]
    fn what_is_written_for_people_has_no_secret() {
        let key = SessionSigner::new().sign(NODE, 3, CONNECTION, CLIENT);
        let written = format!("{key:?}");
        assert!(written.contains("shard: 3") && !written.contains("mac"), "{written}");
    }

    proptest! {
        #[test]
        fn a_key_has_one_spelling(bytes in prop::collection::vec(any::<u8>(), KEY_BYTES), text in ".{0,60}") {
            let key = SessionKey::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&key.to_bytes()[..], &bytes[..]);
            let spelling = key.to_string();
            prop_assert_eq!(SessionKey::parse(&spelling), Some(key));
            prop_assert_eq!(SessionKey::parse(&spelling[1..]), None);
            let padded = format!("{spelling}=");
            prop_assert_eq!(SessionKey::parse(&padded), None);
            if let Some(read) = SessionKey::parse(&text) {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }
}
