//! Finds request heads that have both `Content-Length` and `Transfer-Encoding`. One server may read such a request as
//! one and another as two (RFC 9112, section 6.3), and hyper removes the length before the node sees it.
//!
//! It reads all bytes of a connection, from head to head, and keeps only the beginning of a line. It checks nothing
//! else: a request that hyper refuses ends the connection.

/// Longer than the name of either header, and than any length.
const LINE_BYTES_KEPT: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct RequestFraming {
    state: FramingState,
    /// The beginning of the line that is being read, without blanks in a value and zeros before a number.
    line: Vec<u8>,
    has_colon: bool,
    length: Option<u64>,
    is_chunked: bool,
    heads: u64,
    ambiguous: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FramingState {
    #[default]
    RequestLine,
    Header,
    /// The number of its bytes that are left.
    Body(u64),
    ChunkSize,
    /// With its line break.
    Chunk(u64),
    Trailer,
}

impl RequestFraming {
    /// Returns the number of the first request that has both headers, counted from 1.
    pub(crate) fn ambiguous(&self) -> Option<u64> {
        self.ambiguous
    }

    /// Reads the next bytes of the connection.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                FramingState::Body(left) => {
                    let left = skip(&mut bytes, left);
                    self.state = if left == 0 { FramingState::RequestLine } else { FramingState::Body(left) };
                }
                FramingState::Chunk(left) => {
                    let left = skip(&mut bytes, left);
                    self.state = if left == 0 { FramingState::ChunkSize } else { FramingState::Chunk(left) };
                }
                FramingState::RequestLine
                | FramingState::Header
                | FramingState::ChunkSize
                | FramingState::Trailer => {
                    let end = memchr::memchr(b'\n', bytes);
                    let part = &bytes[..end.unwrap_or(bytes.len())];
                    self.keep(part);
                    let Some(end) = end else { return };
                    bytes = &bytes[end + 1..];
                    self.state = self.after_line();
                    self.line.clear();
                    self.has_colon = false;
                }
            }
        }
    }

    /// Keeps the beginning of a line, in which blanks and zeros may take any room.
    fn keep(&mut self, part: &[u8]) {
        for &byte in part {
            if self.line.len() == LINE_BYTES_KEPT {
                return;
            }
            let says_nothing = match self.state {
                FramingState::Header if self.has_colon => {
                    matches!(byte, b' ' | b'\t') || byte == b'0' && self.line.last() == Some(&b':')
                }
                FramingState::ChunkSize => byte == b'0' && self.line.is_empty(),
                _ => false,
            };
            if !says_nothing {
                self.has_colon |= byte == b':';
                self.line.push(byte);
            }
        }
    }

    fn after_line(&mut self) -> FramingState {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        match self.state {
            // Empty lines before a request are skipped (RFC 9112, section 2.2).
            FramingState::RequestLine if line.is_empty() => FramingState::RequestLine,
            FramingState::RequestLine => {
                self.length = None;
                self.is_chunked = false;
                FramingState::Header
            }
            FramingState::Header if line.is_empty() => self.after_head(),
            FramingState::Header => {
                let mut parts = line.splitn(2, |byte| *byte == b':');
                let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                if name.eq_ignore_ascii_case(b"transfer-encoding") {
                    self.is_chunked = true;
                } else if name.eq_ignore_ascii_case(b"content-length") {
                    // Zeros were left out. hyper refuses what is no number, and nothing comes behind it.
                    let value = std::str::from_utf8(value).unwrap_or_default();
                    self.length = Some(if value.is_empty() { 0 } else { value.parse().unwrap_or(u64::MAX) });
                }
                FramingState::Header
            }
            FramingState::ChunkSize => {
                let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                // Without zeros nothing is left of 0.
                let size = match std::str::from_utf8(&line[..digits]) {
                    Ok("") => Some(0),
                    Ok(size) => u64::from_str_radix(size, 16).ok(),
                    Err(_) => None,
                };
                match size.unwrap_or(u64::MAX) {
                    0 => FramingState::Trailer,
                    size => FramingState::Chunk(size.saturating_add(2)),
                }
            }
            FramingState::Trailer if line.is_empty() => FramingState::RequestLine,
            state => state,
        }
    }

    fn after_head(&mut self) -> FramingState {
        self.heads += 1;
        if self.is_chunked && self.length.is_some() {
            self.ambiguous.get_or_insert(self.heads);
        }
        match self.length {
            _ if self.is_chunked => FramingState::ChunkSize,
            Some(length) if length > 0 => FramingState::Body(length),
            _ => FramingState::RequestLine,
        }
    }
}

/// Takes up to `left` bytes from the front and returns how many are left to take.
fn skip(bytes: &mut &[u8], left: u64) -> u64 {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    *bytes = &bytes[taken..];
    left - taken as u64
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn ambiguous(requests: &[&str]) -> Option<u64> {
        let mut framing = RequestFraming::default();
        framing.read(requests.concat().as_bytes());
        framing.ambiguous()
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    /// Its body looks like a head with both.
    const POST: &str = "POST / HTTP/1.1\r\nContent-Length: 58\r\n\r\n\r\n\r\nX\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n..";
    const CHUNKED: &str = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\
                           19;a=b\r\n\r\nContent-Length: 3\r\n\r\n..\r\n1\r\n\n\r\n0\r\nContent-Length: 1\r\n\r\n";
    const BOTH: &str = "POST / HTTP/1.1\r\nCONTENT-LENGTH: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    const BOTH_TURNED: &str = "POST / HTTP/1.1\nTransfer-Encoding:chunked\nContent-Length:  5 \n\n0\r\n\r\n";

    #[test]
    fn requests_with_both_are_found_by_their_number() {
        assert_eq!(ambiguous(&[GET, POST, CHUNKED, GET]), None);
        assert_eq!(ambiguous(&[BOTH]), Some(1));
        assert_eq!(ambiguous(&[BOTH_TURNED, BOTH]), Some(1));
        assert_eq!(ambiguous(&["\r\n\r\n", POST, CHUNKED, POST, BOTH]), Some(4));
        let padded = BOTH_TURNED.replace("  5", &format!("{}5", " ".repeat(100)));
        assert_eq!(ambiguous(&[GET, &padded]), Some(2));
        // Blanks and zeros in a length before it hide nothing.
        for filler in [" ".repeat(100), "0".repeat(100)] {
            let long = POST.replace(" 58", &format!(" {filler}58"));
            let chunked = CHUNKED.replace("19;", &format!("{}19;", "0".repeat(100)));
            assert_eq!(ambiguous(&[&long, &chunked, BOTH]), Some(3));
        }
    }

    proptest! {
        #[test]
        fn requests_may_come_in_any_parts(
            requests in vec(select(vec![GET, POST, CHUNKED, BOTH, BOTH_TURNED, "\r\n"]), 0..8),
            cuts in vec(1..40usize, 1..20),
        ) {
            let text = requests.concat();
            let mut framing = RequestFraming::default();
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                let (part, after) = rest.split_at(rest.len().min(*cut));
                framing.read(part);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            let heads = requests.iter().filter(|request| **request != "\r\n");
            let expected = heads.clone().position(|request| [BOTH, BOTH_TURNED].contains(request));
            prop_assert_eq!(framing.ambiguous(), expected.map(|index| index as u64 + 1));
            prop_assert_eq!(framing.heads, heads.count() as u64);
            prop_assert_eq!(framing.state, FramingState::RequestLine);
        }

        #[test]
        fn random_bytes_never_panic(parts: Vec<Vec<u8>>) {
            let mut framing = RequestFraming::default();
            framing.read(b"POST / HTTP/1.1\r\n");
            parts.iter().for_each(|part| framing.read(part));
            prop_assert!(framing.line.len() <= LINE_BYTES_KEPT);
        }
    }
}
