//! permessage-deflate (RFC 7692) as a handshake agrees on it: a client's offers in, the server's answer out.
//!
//! Neither side may refer back from one message to the one before it. So nothing is kept for a connection between two
//! messages, and a message that goes to many is compressed once.

use std::num::NonZeroU8;

/// The compression agreed with one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The reach of the client's window, as a power of two.
    window_bits: NonZeroU8,
}

/// An offer that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    pub deflate: Deflate,
    /// The value of `Sec-WebSocket-Extensions` in the response.
    pub response: String,
}

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The bits of a window unless something else is agreed, and the most it can have.
const WINDOW_BITS_MAX: NonZeroU8 = NonZeroU8::new(15).expect("15 is not 0");
const WINDOW_BITS_MIN: u8 = 8;

impl Deflate {
    /// Takes the first offer of this extension that keeps its rules; the values are those of all
    /// `Sec-WebSocket-Extensions` headers of the request. `None`: the connection goes on without it.
    pub fn negotiate<'h>(headers: impl IntoIterator<Item = &'h str>) -> Option<Agreement> {
        headers.into_iter().flat_map(|header| split(header, ',')).find_map(judge)
    }

    /// Returns true if a message that was this long before compression can be sent compressed. Longer ones may refer
    /// back further than the client's window reaches, and are sent as they are, which is always allowed.
    pub fn takes(self, payload_bytes: usize) -> bool {
        self.window_bits == WINDOW_BITS_MAX || payload_bytes <= 1 << self.window_bits.get()
    }
}

/// RFC 7692 section 7.1: an offer with a parameter that is unknown, there twice, or has a wrong value is declined.
fn judge(offer: &str) -> Option<Agreement> {
    let mut parts = split(offer, ';');
    if parts.next()? != NAME {
        return None;
    }
    let mut seen = Vec::new();
    let mut server_window_bits = None;
    for parameter in parts {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim())?)),
            None => (parameter, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            (SERVER_NO_CONTEXT_TAKEOVER | CLIENT_NO_CONTEXT_TAKEOVER | CLIENT_MAX_WINDOW_BITS, None) => {}
            (SERVER_MAX_WINDOW_BITS, Some(bits)) => server_window_bits = Some(window_bits(bits)?),
            // The client may use less than our window, which it does without being asked.
            (CLIENT_MAX_WINDOW_BITS, Some(bits)) => {
                window_bits(bits)?;
            }
            _ => return None,
        }
    }
    // Both may be in the answer when they were not in the offer (sections 7.1.1.1 and 7.1.1.2).
    let mut response = format!("{NAME}; {SERVER_NO_CONTEXT_TAKEOVER}; {CLIENT_NO_CONTEXT_TAKEOVER}");
    if let Some(bits) = server_window_bits {
        response.push_str(&format!("; {SERVER_MAX_WINDOW_BITS}={bits}"));
    }
    let deflate = Deflate { window_bits: server_window_bits.unwrap_or(WINDOW_BITS_MAX) };
    Some(Agreement { deflate, response })
}

/// The trimmed pieces of a text between separators that do not stand inside quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let pieces = text.split(move |character| {
        is_quoted ^= character == '"';
        character == separator && !is_quoted
    });
    pieces.map(str::trim)
}

/// A value that may stand in quotes (RFC 6455 section 9.1).
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(value),
    }
}

/// RFC 7692 section 7.1.2.1: 8 to 15, without leading zeros.
fn window_bits(value: &str) -> Option<NonZeroU8> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    let bits = value.parse().ok().filter(|bits: &NonZeroU8| is_plain && bits.get() >= WINDOW_BITS_MIN)?;
    (bits <= WINDOW_BITS_MAX).then_some(bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[track_caller]
    fn check(headers: &[&str], response: Option<&str>) {
        let agreement = Deflate::negotiate(headers.iter().copied());
        assert_eq!(agreement.as_ref().map(|agreement| &*agreement.response), response, "{headers:?}");
    }

    #[test]
    fn what_clients_offer() {
        check(&["permessage-deflate"], Some(PLAIN));
        // Chromium, Node's ws and Python's websockets; Firefox sends the name alone.
        check(&["permessage-deflate; client_max_window_bits"], Some(PLAIN));
        let small = format!("{PLAIN}; server_max_window_bits=12");
        check(&["permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"], Some(&small));
        check(&[PLAIN], Some(PLAIN));
    }

    #[test]
    fn the_first_offer_that_fits_is_taken() {
        let nine = format!("{PLAIN}; server_max_window_bits=9");
        for headers in [
            &["x, permessage-deflate;server_max_window_bits=\"9\" , permessage-deflate"][..],
            &["permessage-deflate; better", "permessage-deflate; server_max_window_bits=9"],
            &[
                "",
                "x-webkit-deflate-frame; a=\"b,permessage-deflate;c\"",
                "permessage-deflate;server_max_window_bits = 9",
            ],
        ] {
            check(headers, Some(&nine));
        }
    }

    #[test]
    fn offers_that_break_a_rule_are_declined() {
        check(&[], None);
        for parameters in [
            "unknown",
            "",
            "server_no_context_takeover=1",
            "client_no_context_takeover=\"\"",
            "server_no_context_takeover; server_no_context_takeover",
            "client_max_window_bits; client_max_window_bits=10",
            "server_max_window_bits=10; server_max_window_bits=10",
            "server_max_window_bits",
            "server_max_window_bits=",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=+9",
            "server_max_window_bits=-9",
            "server_max_window_bits=9.0",
            "server_max_window_bits=265",
            "server_max_window_bits=\"9",
            "server_max_window_bits=9\"",
            "server_max_window_bits=9=9",
            "client_max_window_bits=7",
            "client_max_window_bits=016",
        ] {
            check(&[&format!("permessage-deflate; {parameters}")], None);
        }
        check(&["permessage-deflates"], None);
        check(&["permessage"], None);
    }

    #[test]
    fn a_small_window_takes_short_messages() {
        let taken = |offer: &str| Deflate::negotiate([offer]).unwrap().deflate;
        let small = taken("permessage-deflate; server_max_window_bits=9");
        assert!(small.takes(512) && !small.takes(513));
        let full = taken("permessage-deflate; server_max_window_bits=15");
        assert!(full.takes(usize::MAX));
        assert_eq!(full, taken("permessage-deflate"));
        assert_eq!(size_of::<Option<Deflate>>(), 1);
    }

    proptest! {
        #[test]
        fn whatever_is_offered_the_answer_is_one_of_ours(header in r#"(permessage-deflate|server_max_window_bits|client_max_window_bits|[;=," 0-9]){0,12}"#) {
            if let Some(agreement) = Deflate::negotiate([&*header]) {
                prop_assert!(agreement.response.starts_with(PLAIN));
                prop_assert!(header.contains(NAME));
            }
        }
    }
}
