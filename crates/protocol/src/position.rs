//! The position of a topic's stream: an epoch (which stream) and an offset (how far).

use std::fmt;

/// Names one life of a topic's stream. Lost history means a new epoch, so an offset of the old life can never
/// be mistaken for one of the new. Eight letters and digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; 8]);

impl Epoch {
    pub const LENGTH: usize = 8;
    const NUMBERS: u64 = 62_u64.pow(Self::LENGTH as u32);
    const ALPHABET: &'static [u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    /// Turns random bits into an epoch.
    pub fn from_random(mut bits: u64) -> Self {
        let mut letters = [0; Self::LENGTH];
        for letter in &mut letters {
            *letter = Self::ALPHABET[(bits % 62) as usize];
            bits /= 62;
        }
        Self(letters)
    }

    /// Returns the number of the epoch, which takes six bytes.
    pub fn number(&self) -> u64 {
        let digit = |letter: u8| match letter {
            b'0'..=b'9' => letter - b'0',
            b'A'..=b'Z' => letter - b'A' + 10,
            _ => letter.wrapping_sub(b'a') + 36,
        };
        self.0.iter().rev().fold(0, |number, letter| number * 62 + u64::from(digit(*letter)))
    }

    /// Returns the epoch of a number; `None` if there is none.
    pub fn from_number(number: u64) -> Option<Self> {
        (number < Self::NUMBERS).then(|| Self::from_random(number))
    }

    /// Reads one back from storage; `None` unless it is eight letters and digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let letters: [u8; Self::LENGTH] = text.try_into().ok()?;
        letters.iter().all(u8::is_ascii_alphanumeric).then_some(Self(letters))
    }

    pub fn as_str(&self) -> &str {
        // Only letters and digits are ever stored, so this never falls back.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

/// A place in a stream: everything up to and including `offset` has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub epoch: Epoch,
    pub offset: u64,
}
