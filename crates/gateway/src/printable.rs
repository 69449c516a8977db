//! Escapes text so that it cannot control a terminal or forge a line. Logs and messages contain names, tokens and
//! errors from peers.

use std::borrow::Cow;
use std::fmt::Write;

/// Escapes characters that are not printable, as in JSON: `\n`, `\u001b`. Applied to JSON, it changes no value, since
/// such characters occur in strings only.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Like `one_line`, but keeps line breaks.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character == '\n')
}

/// Like `one_line`, but keeps the escape character, for the colours of a formatter that escapes it in values.
pub(crate) fn coloured_line(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character == '\x1b')
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_escaped = |character: char| steers(character) && !stays(character);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' if is_escaped(character) => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a string does not fail. All of these characters have four digits.
            _ if is_escaped(character) => drop(write!(out, "\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// Returns true for control characters (C0, DEL, C1), Unicode's line breaks, and marks that reorder text.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_is_escaped_and_the_rest_stays() {
        assert_eq!(one_line("plain, ünï 日本 🚀"), "plain, ünï 日本 🚀");
        assert_eq!(one_line("a\nb\r\tc\0"), r"a\nb\r\tc\u0000");
        assert_eq!(one_line("\x1b[31m\x7f\u{9b}2J"), r"\u001b[31m\u007f\u009b2J");
        assert_eq!(one_line("x\u{202e}y\u{2028}z\u{2066}\u{61c}"), r"x\u202ey\u2028z\u2066\u061c");
        assert_eq!(lines("a\nb\r\n"), "a\nb\\r\n");
        assert_eq!(coloured_line("\x1b[2mtime\x1b[0m a\nb\u{85}"), "\x1b[2mtime\x1b[0m a\\nb\\u0085");
    }

    #[test]
    fn json_keeps_its_values() {
        let value = serde_json::json!({"user": "a\n\u{9b}\u{7f}\u{202e}\u{2029}"});
        let text = value.to_string();
        assert_ne!(one_line(&text), text);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&one_line(&text)).unwrap(), value);
    }
}
