//! Text that arrives in pieces. Wrong UTF-8 is seen with its first wrong byte, and nothing is validated twice but
//! a piece that ends inside a character.

/// The bytes so far: whole characters, and the beginning of one that the last piece cut.
#[derive(Debug, Default)]
pub(super) struct TextInPieces {
    text: String,
    cut: [u8; 4],
    cut_length: usize,
}

/// The bytes are not, and cannot become, UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

impl TextInPieces {
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Result<(), NotUtf8> {
        while self.cut_length > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            // An incomplete character has at most three bytes, so there is room for one more.
            self.cut[self.cut_length] = byte;
            self.cut_length += 1;
            match std::str::from_utf8(&self.cut[..self.cut_length]) {
                Ok(character) => {
                    self.text.push_str(character);
                    self.cut_length = 0;
                }
                Err(error) if error.error_len().is_some() => return Err(NotUtf8),
                Err(_) => {}
            }
        }

        match std::str::from_utf8(piece) {
            Ok(text) => self.text.push_str(text),
            Err(error) if error.error_len().is_some() => return Err(NotUtf8),
            Err(error) => {
                let (whole, cut) = piece.split_at(error.valid_up_to());
                self.text.push_str(std::str::from_utf8(whole).map_err(|_| NotUtf8)?);
                self.cut[..cut.len()].copy_from_slice(cut);
                self.cut_length = cut.len();
            }
        }
        Ok(())
    }

    /// The whole text, unless it ends inside a character.
    pub(super) fn finish(&self) -> Result<&str, NotUtf8> {
        if self.cut_length == 0 { Ok(&self.text) } else { Err(NotUtf8) }
    }

    /// Bytes received.
    pub(super) fn len(&self) -> usize {
        self.text.len() + self.cut_length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]], expected: Result<&str, NotUtf8>) {
        let mut text = TextInPieces::default();
        let outcome = pieces.iter().try_for_each(|piece| text.push(piece)).and_then(|()| text.finish());
        assert_eq!(outcome, expected, "{pieces:?}");
    }

    #[test]
    fn characters_may_be_cut_anywhere() {
        let text = "aß€😀z";
        let bytes = text.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                check(&[&bytes[..first], &bytes[first..second], &bytes[second..]], Ok(text));
            }
        }
    }

    #[test]
    fn a_wrong_byte_is_seen_at_once() {
        // Surrogates, values above U+10FFFF, overlong forms and stray continuation bytes, byte by byte: each fails
        // at the byte that makes it hopeless.
        for wrong in
            [&b"\xed\xa0"[..], b"\xf4\x90", b"\xe0\x80", b"\xf0\x80", b"\x80", b"\xc0", b"\xf5", b"\xe2\x28"]
        {
            let mut text = TextInPieces::default();
            let failed_at = wrong.iter().position(|byte| text.push(&[*byte]).is_err());
            assert_eq!(failed_at, Some(wrong.len() - 1), "{wrong:?}");
        }
    }

    #[test]
    fn a_text_may_not_end_inside_a_character() {
        check(&[b"a\xe2\x82"], Err(NotUtf8));
        check(&[b"a\xe2", b"\x82"], Err(NotUtf8));
        check(&[], Ok(""));
    }
}
