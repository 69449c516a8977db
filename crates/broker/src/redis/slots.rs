//! The hash slots of Redis Cluster. Outboxes are named by a short text of their slot, so that a script can write an event
//! beside the members of the event's topic.

use std::sync::LazyLock;

/// The number of slots.
pub(super) const SLOTS: usize = 16_384;

/// For each slot the lowest number whose text, in hexadecimal, is in the slot.
static TAGS: LazyLock<Box<[u32]>> = LazyLock::new(find_tags);

/// Returns the slot of a hash tag: of the text between the braces of a key.
pub(super) fn slot_of(tag: &str) -> u16 {
    crc16(tag.as_bytes()) % SLOTS as u16
}

/// Returns the slot that the text names.
pub(super) fn named(text: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(text).ok()?;
    let slot = slot_of(text);
    (tag(slot) == text).then_some(slot)
}

/// Returns the text that names the slot. The first call takes some milliseconds.
pub(super) fn tag(slot: u16) -> String {
    format!("{:x}", TAGS[usize::from(slot) % SLOTS])
}

fn find_tags() -> Box<[u32]> {
    const NONE: u32 = u32::MAX;
    let mut tags = vec![NONE; SLOTS].into_boxed_slice();
    let mut missing = SLOTS;
    for number in 0.. {
        let found = &mut tags[usize::from(slot_of(&format!("{number:x}")))];
        if *found == NONE {
            *found = number;
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    tags
}

/// CRC-16/XMODEM, as Redis Cluster computes it.
fn crc16(bytes: &[u8]) -> u16 {
    let shift = |crc: u16| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
    bytes.iter().fold(0, |crc, byte| (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| shift(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As CLUSTER KEYSLOT answers.
        for (tag, slot) in [("123456789", 12739), ("foo", 12182), ("bar", 5061), ("", 0)] {
            assert_eq!(slot_of(tag), slot, "{tag}");
        }
    }

    #[test]
    fn every_slot_has_a_short_name_of_its_own() {
        for slot in 0..SLOTS as u16 {
            let tag = tag(slot);
            assert_eq!(slot_of(&tag), slot);
            assert!(tag.len() <= 5, "{tag}");
            assert_eq!(named(tag.as_bytes()), Some(slot));
        }
        // Not the lowest of its slot, and none.
        for text in ["", "!", "123456789abcdef", "\u{fc}"] {
            assert_eq!(named(text.as_bytes()), None, "{text}");
        }
    }
}
