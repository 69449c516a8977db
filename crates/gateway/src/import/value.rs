//! Converts values of a Centrifugo configuration, read as leniently as Centrifugo reads them.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use figment::value::{Num, Value};

use super::rules::How;
use crate::config::{Period, Size};

/// Converts a value. `None` stands for the default: an empty text, or zero where it means something else here.
pub(super) fn convert(value: &Value, how: How, folder: &Path) -> Result<Option<toml::Value>, String> {
    if matches!(value, Value::Empty(..)) || value.as_str() == Some("") {
        return Ok(None);
    }
    match how {
        How::Flag => value.to_bool_lossy().map(toml::Value::from).ok_or("is neither true nor false"),
        How::Number => whole(value).map(toml::Value::from).ok_or("is not a whole number"),
        How::Text => text(value).map(toml::Value::from).ok_or("is not a text"),
        How::OneOf => text(value).map(|text| vec![text].into()).ok_or("is not a text"),
        How::Texts => texts(value).map(toml::Value::from).ok_or("is not a list of texts"),
        How::Duration => duration(value).map(|period| period.to_string().into()).ok_or("is not a duration"),
        How::Bytes => whole(value)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .map(|bytes| Size(bytes).to_string().into())
            .ok_or("is not a number of bytes"),
        How::Pem => text(value)
            .and_then(|text| pem(text, folder))
            .map(toml::Value::from)
            .ok_or("is neither a PEM key, nor one in base64, nor the path of one"),
        How::Path => match text(value) {
            Some(text) if is_pem(&text) => {
                Err("is the PEM itself; write it to a file and set the path of that file")
            }
            Some(text) => Ok(folder.join(text).to_string_lossy().into_owned().into()),
            None => Err("is not a path"),
        },
        How::Words(words) => text(value)
            .map(|text| {
                words
                    .iter()
                    .find(|(theirs, _)| *theirs == text)
                    .map_or(text.clone(), |(_, ours)| (*ours).into())
            })
            .map(toml::Value::from)
            .ok_or("is not a text"),
    }
    .map(Some)
    .map_err(str::to_owned)
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Num(_, number) => integer(*number)?.try_into().ok(),
        _ => value.as_str()?.trim().parse().ok(),
    }
}

/// Reads a whole number, which figment keeps as signed or unsigned.
fn integer(number: Num) -> Option<i128> {
    number.to_i128().or_else(|| number.to_u128()?.try_into().ok())
}

/// Reads a text. YAML reads some texts as numbers, and Centrifugo turns these back into texts.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(_, value) => Some(value.to_string()),
        Value::Num(_, number) => {
            integer(*number).map(|number| number.to_string()).or_else(|| Some(number.to_f64()?.to_string()))
        }
        _ => value.as_str().map(str::to_owned).or_else(|| value.to_char().map(String::from)),
    }
}

pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(_, items) => items.iter().map(text).collect(),
        _ => Some(
            text(value)?
                .split(|letter: char| letter == ',' || letter.is_whitespace())
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect(),
        ),
    }
}

/// Reads a duration: a text as Go writes it, or nanoseconds. A negative one turns a setting off.
fn duration(value: &Value) -> Option<Period> {
    let Some(text) = value.as_str() else {
        return whole(value).map(|nanos| Period(Duration::from_nanos(nanos.max(0).unsigned_abs())));
    };
    if text.starts_with('-') || text == "0" {
        return Some(Period::OFF);
    }
    let mut rest = text.trim_start_matches('+');
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number_end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end =
            after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        seconds += number.parse::<f64>().ok()?
            * match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok().map(Period)
}

const PEM_MARK: &str = "-----BEGIN ";

fn pem(text: String, folder: &Path) -> Option<String> {
    if text.contains(PEM_MARK) {
        return Some(text);
    }
    let read = || std::fs::read_to_string(folder.join(&text)).ok();
    decoded_pem(&text).or_else(|| read().filter(|text| text.contains(PEM_MARK)))
}

fn is_pem(text: &str) -> bool {
    text.contains(PEM_MARK) || decoded_pem(text).is_some()
}

fn decoded_pem(text: &str) -> Option<String> {
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.filter(|text| text.contains(PEM_MARK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go_are_read() {
        for (theirs, ours) in [
            (Value::from("1h30m"), Some("90m")),
            (Value::from("1.5s"), Some("1500ms")),
            (Value::from("1000ms"), Some("1s")),
            (Value::from("-1s"), Some("0s")),
            (Value::from("0"), Some("0s")),
            (Value::from(25_000_000_000_i64), Some("25s")),
            (Value::from("25"), None),
            (Value::from("1 day"), None),
        ] {
            assert_eq!(duration(&theirs).map(|period| period.to_string()).as_deref(), ours, "{theirs:?}");
        }
    }

    #[test]
    fn keys_are_taken_in_all_three_forms() {
        const KEY: &str = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key.pem"), KEY).unwrap();
        for text in [KEY.to_owned(), STANDARD.encode(KEY), "key.pem".to_owned()] {
            assert_eq!(pem(text, folder.path()).as_deref(), Some(KEY));
        }
        assert_eq!(pem("other.pem".into(), folder.path()), None);
    }
}
