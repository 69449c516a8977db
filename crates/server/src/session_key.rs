//! The secret name of a session whose requests come over other connections than its own. It leads to the session from
//! any node. The session's node makes it, and the other nodes can check it, so a guess goes no further than the node that it is
//! sent to.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanwire_hub::effect::ConnectionKey;
use fanwire_protocol::ClientId;
use uuid::Uuid;

/// The bytes that name a session: node, shard, slot and generation, and the client.
const NAME_BYTES: usize = 16 + 2 + 4 + 4 + 16;
const MAC_BYTES: usize = 18;
/// A whole key.
const KEY_BYTES: usize = NAME_BYTES + MAC_BYTES;
/// Its text.
const TEXT_BYTES: usize = 80;

/// A node's secret.
pub(crate) const SECRET_BYTES: usize = 32;
// All bits of the text count, so a key has one spelling.
const _: () = assert!(KEY_BYTES.is_multiple_of(3) && KEY_BYTES / 3 * 4 == TEXT_BYTES);

/// Names a session on any node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionKey {
    pub node: Uuid,
    pub shard: u16,
    pub connection: ConnectionKey,
    client: ClientId,
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
        let (generation, rest) = rest.split_first_chunk()?;
        let (client, mac) = rest.split_first_chunk()?;
        Some(Self {
            node: Uuid::from_bytes(*node),
            shard: u16::from_be_bytes(*shard),
            connection: ConnectionKey {
                slot: u32::from_be_bytes(*slot),
                generation: u32::from_be_bytes(*generation),
            },
            client: ClientId(Uuid::from_bytes(*client)),
            mac: mac.try_into().ok()?,
        })
    }

    pub(crate) fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[..NAME_BYTES].copy_from_slice(&self.name());
        bytes[NAME_BYTES..].copy_from_slice(&self.mac);
        bytes
    }

    /// Returns what is signed.
    fn name(&self) -> [u8; NAME_BYTES] {
        let mut bytes = [0; NAME_BYTES];
        bytes[..16].copy_from_slice(self.node.as_bytes());
        bytes[16..18].copy_from_slice(&self.shard.to_be_bytes());
        bytes[18..22].copy_from_slice(&self.connection.slot.to_be_bytes());
        bytes[22..26].copy_from_slice(&self.connection.generation.to_be_bytes());
        bytes[26..].copy_from_slice(self.client.0.as_bytes());
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

/// Signs the keys of a node's sessions, with a secret of its run: no key outlives its node. Other nodes have it too, to
/// check keys.
pub(crate) struct SessionSigner {
    key: hmac::Key,
    secret: [u8; SECRET_BYTES],
}

impl SessionSigner {
    /// A signer with a secret of its own.
    pub(crate) fn new() -> Self {
        Self::of(rand::random())
    }

    /// The signer of the node that has this secret.
    pub(crate) fn of(secret: [u8; SECRET_BYTES]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), secret }
    }

    /// Returns the secret, for the other nodes of the cluster.
    pub(crate) fn secret(&self) -> [u8; SECRET_BYTES] {
        self.secret
    }

    pub(crate) fn sign(
        &self,
        node: Uuid,
        shard: u16,
        connection: ConnectionKey,
        client: ClientId,
    ) -> SessionKey {
        let key = SessionKey { node, shard, connection, client, mac: [0; MAC_BYTES] };
        SessionKey { mac: self.mac(&key), ..key }
    }

    /// Returns true if this signer made the key.
    pub(crate) fn made(&self, key: &SessionKey) -> bool {
        verify_slices_are_equal(&self.mac(key), &key.mac).is_ok()
    }

    /// Returns true if this signer made the key, for this client.
    pub(crate) fn verifies(&self, key: &SessionKey, client: ClientId) -> bool {
        key.client == client && self.made(key)
    }

    fn mac(&self, key: &SessionKey) -> [u8; MAC_BYTES] {
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&hmac::sign(&self.key, &key.name()).as_ref()[..MAC_BYTES]);
        mac
    }
}

/// Without the secret, so that no log has it.
impl fmt::Debug for SessionSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSigner").finish_non_exhaustive()
    }
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
        assert!(SessionSigner::of(signer.secret()).made(&read), "another node");
        assert!(!SessionSigner::new().made(&read), "a node that was started again");
        for other in [
            SessionKey { node: Uuid::from_u128(6), ..key },
            SessionKey { shard: 2, ..key },
            SessionKey { connection: ConnectionKey { slot: 4, ..CONNECTION }, ..key },
            SessionKey { connection: ConnectionKey { generation: 10, ..CONNECTION }, ..key },
            SessionKey { client: ClientId(Uuid::from_u128(9)), ..key },
        ] {
            assert!(!signer.made(&other), "{other:?}");
            assert!(!signer.verifies(&other, other.client), "{other:?}");
        }
    }

    #[test]
    fn no_bit_can_be_forged() {
        let signer = SessionSigner::new();
        let bytes = signer.sign(NODE, 3, CONNECTION, CLIENT).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!signer.made(&SessionKey::from_bytes(&forged).unwrap()), "bit {bit}");
        }
    }

    #[test]
    fn what_is_written_for_people_has_no_secret() {
        let key = SessionSigner::new().sign(NODE, 3, CONNECTION, CLIENT);
        let written = format!("{key:?}");
        assert!(written.contains("shard: 3") && !written.contains("mac"), "{written}");
        assert_eq!(format!("{:?}", SessionSigner::new()), "SessionSigner { .. }");
    }

    proptest! {
        #[test]
        fn a_key_has_one_spelling(bytes in prop::collection::vec(any::<u8>(), KEY_BYTES), text in ".{0,90}") {
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
