//! Masking (RFC 6455 section 5.3): the same XOR masks and unmasks.

/// Bytes that are masked at once: two registers of 16 bytes.
const BLOCK: usize = 32;

/// Masks or unmasks a payload whose first byte belongs to the first byte of the key.
pub fn mask(payload: &mut [u8], key: [u8; 4]) {
    let wide: [u8; BLOCK] = std::array::from_fn(|place| key[place % 4]);
    let (blocks, rest) = payload.as_chunks_mut::<BLOCK>();
    for block in blocks {
        for (byte, key) in block.iter_mut().zip(wide) {
            *byte ^= key;
        }
    }
    let (words, rest) = rest.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(key)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_at_any_place_in_memory_is_masked_byte_by_byte() {
        let key = [0x11, 0x22, 0x44, 0x88];
        let bytes: Vec<u8> = (0..=255).collect();
        for start in 0..16 {
            for length in 0..100 {
                let plain = &bytes[start..start + length];
                let expected: Vec<u8> =
                    plain.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
                let mut whole = bytes.clone();
                mask(&mut whole[start..start + length], key);
                assert_eq!(whole[start..start + length], expected, "{start} {length}");
                assert_eq!(whole[..start], bytes[..start]);
                assert_eq!(whole[start + length..], bytes[start + length..]);
            }
        }
    }
}
