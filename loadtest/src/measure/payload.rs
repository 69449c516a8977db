//! The measured message: a JSON object of an exact size with its sequence number, its stream, the time it was sent, the time
//! it was due, and words.
//!
//! A stream is the messages of one publisher to one topic; its numbers are consecutive, so each stream is checked alone. The
//! writer and the reader agree on the bytes, so the reader looks for a marker and never parses JSON.

use std::io::Write as _;
use std::sync::LazyLock;

use memchr::memmem;

/// Room for the longest numbers; a shorter `--payload` is refused.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 100;
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

const MARKER: &str = r#"{"n":"#;
const STREAM_FIELD: &[u8] = br#","k":"#;
const TIME_FIELD: &[u8] = br#","t":"#;
const DUE_FIELD: &[u8] = br#","d":"#;
const WORDS_FIELD: &[u8] = br#","x":""#;
const END: &[u8] = b"\"}";

/// The numbers of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) stream: u32,
    pub(crate) sequence: u64,
    /// Nanoseconds of the monotonic clock, like `due`.
    pub(crate) sent_at: u64,
    /// The time at which it was due.
    pub(crate) due: u64,
}

/// Appends `{"n":SEQUENCE,"k":STREAM,"t":SENT_AT,"d":DUE,"x":"words"}`, exactly `bytes` long.
pub(crate) fn write(out: &mut Vec<u8>, numbers: &Numbers, bytes: usize) {
    debug_assert!(
        (PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&bytes),
        "the numbers and the words must fit"
    );
    let Numbers { stream, sequence, sent_at, due } = numbers;
    let start = out.len();
    write!(out, r#"{MARKER}{sequence},"k":{stream},"t":{sent_at},"d":{due},"x":""#)
        .expect("a vector takes all that is written");
    let words = bytes - END.len() - (out.len() - start);
    out.extend_from_slice(&WORDS.as_bytes()[..words]);
    out.extend_from_slice(END);
}

/// The filling of messages: words in a fixed pseudo-random order, since a repeated letter would compress to nothing.
static WORDS: LazyLock<String> = LazyLock::new(|| {
    let mut random: u64 = 0x2545_f491_4f6c_dd1d;
    let mut text = String::with_capacity(PAYLOAD_BYTES_MAX + 16);
    while text.len() < PAYLOAD_BYTES_MAX {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        text.push_str(VOCABULARY[(random % VOCABULARY.len() as u64) as usize]);
        text.push(' ');
    }
    text
});

/// Enough words that messages of a few hundred bytes compress to about a half, as JSON of applications does.
const VOCABULARY: [&str; 24] = [
    "the", "of", "and", "to", "in", "is", "was", "for", "order", "price", "player", "minute", "message",
    "from", "update", "open", "user", "room", "station", "arrives", "sensor", "value", "position", "again",
];

/// A measured message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured<'a> {
    pub(crate) sequence: u64,
    pub(crate) stream: u32,
    /// The message from its first byte on; parts of the server's envelope may follow.
    whole: &'a [u8],
    /// The bytes after the two numbers.
    behind: &'a [u8],
}

/// Times that only clients of the sample read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) sent_at: u64,
    pub(crate) due: u64,
}

/// Finds the measured message in a server's envelope.
#[derive(Debug)]
pub(crate) struct PayloadReader {
    marker: memmem::Finder<'static>,
}

impl PayloadReader {
    pub(crate) fn new() -> Self {
        Self { marker: memmem::Finder::new(MARKER) }
    }

    /// Returns `None` if this is not a measured message.
    pub(crate) fn read<'a>(&self, message: &'a [u8]) -> Option<Measured<'a>> {
        let whole = &message[self.marker.find(message)?..];
        let (sequence, rest) = leading_number(&whole[MARKER.len()..])?;
        let (stream, behind) = leading_number(rest.strip_prefix(STREAM_FIELD)?)?;
        Some(Measured { sequence, stream: u32::try_from(stream).ok()?, whole, behind })
    }
}

impl<'a> Measured<'a> {
    /// Returns what follows its numbers, in which other messages may be.
    pub(crate) fn behind(&self) -> &'a [u8] {
        self.behind
    }

    /// Returns the times at which the message was sent and due, if all of its `bytes` are as written.
    pub(crate) fn intact(&self, bytes: usize) -> Option<Times> {
        let (sent_at, rest) = leading_number(self.behind.strip_prefix(TIME_FIELD)?)?;
        let (due, rest) = leading_number(rest.strip_prefix(DUE_FIELD)?)?;
        let words = rest.strip_prefix(WORDS_FIELD)?;
        let read = self.whole.len() - words.len();
        let (words, end) = words.split_at_checked(bytes.checked_sub(read + END.len())?)?;
        let is_intact = WORDS.as_bytes().starts_with(words) && end.starts_with(END);
        is_intact.then_some(Times { sent_at, due })
    }
}

fn leading_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    let mut digits = 0;
    while let Some(digit) = bytes.get(digits).filter(|byte| byte.is_ascii_digit()) {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        digits += 1;
    }
    (digits > 0).then(|| (value, &bytes[digits..]))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    fn numbers(stream: u32, sequence: u64, sent_at: u64, due: u64) -> Numbers {
        Numbers { stream, sequence, sent_at, due }
    }

    #[test]
    fn a_payload_has_its_exact_size_and_is_json() {
        for (numbers, bytes) in [
            (numbers(0, 0, 0, 0), PAYLOAD_BYTES_MIN),
            (numbers(u32::MAX, u64::MAX, u64::MAX, u64::MAX), PAYLOAD_BYTES_MIN),
            (numbers(1, 7, 123, 120), 512),
            (numbers(1, 7, 123, 120), PAYLOAD_BYTES_MAX),
        ] {
            let mut out = b"before".to_vec();
            write(&mut out, &numbers, bytes);
            assert_eq!(out.len(), 6 + bytes);
            let json: serde_json::Value = serde_json::from_slice(&out[6..]).unwrap();
            let Numbers { stream, sequence, sent_at, due } = numbers;
            assert_eq!((&json["n"], &json["k"]), (&sequence.into(), &stream.into()));
            assert_eq!((&json["t"], &json["d"]), (&sent_at.into(), &due.into()));
        }
    }

    #[test]
    fn it_compresses_about_as_well_as_text_does() {
        let mut message = Vec::new();
        write(&mut message, &numbers(0, 1234, 27_123_456_789_012, 27_123_456_000_000), 512);
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&message).unwrap();
        let ratio = message.len() as f64 / encoder.finish().unwrap().len() as f64;
        assert!((1.6..2.4).contains(&ratio), "{ratio}");
    }

    fn wrapped() -> Vec<u8> {
        let mut message = br#"{"push":{"channel":"load:topic-0","pub":{"data":"#.to_vec();
        write(&mut message, &numbers(3, 42, 99, 95), 128);
        message.extend_from_slice(br#","offset":3}}}"#);
        message
    }

    #[test]
    fn numbers_are_found_inside_an_envelope() {
        let message = wrapped();
        let measured = PayloadReader::new().read(&message).unwrap();
        assert_eq!((measured.sequence, measured.stream), (42, 3));
        assert_eq!(measured.intact(128), Some(Times { sent_at: 99, due: 95 }));
    }

    #[test]
    fn a_message_that_is_not_as_it_was_written_is_not_intact() {
        let message = wrapped();
        let intact = |message: &[u8], bytes| PayloadReader::new().read(message).unwrap().intact(bytes);
        assert_eq!(intact(&message, 127), None);
        assert_eq!(intact(&message, 129), None);
        assert_eq!(intact(&message, PAYLOAD_BYTES_MAX), None);
        let word = memmem::find(&message, WORDS_FIELD).unwrap() + 20;
        let mut changed = message.clone();
        changed[word] ^= 1;
        assert_eq!(intact(&changed, 128), None);
        let mut cut = message;
        cut.remove(word);
        assert_eq!(intact(&cut, 128), None);
    }

    #[test]
    fn other_messages_are_none() {
        let reader = PayloadReader::new();
        for message in [
            "{}",
            r#"{"n":"#,
            r#"{"n":"a"}"#,
            r#"{"n":7}"#,
            r#"{"n":7,"k":99999999999,"t":1}"#,
            r#"{"n":99999999999999999999,"k":1}"#,
            r#"{"id":2,"subscribe":{}}"#,
        ] {
            assert_eq!(reader.read(message.as_bytes()), None, "{message}");
        }
    }
}
