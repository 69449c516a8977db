//! Types of values: durations, sizes, shard counts, secrets.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

/// A duration with its unit: `25s`, `5m`, `720h`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Period(pub(crate) Duration);

impl Period {
    pub(crate) const OFF: Self = Self::from_secs(0);

    /// A hundred years: longer than any node runs, and short enough that no clock overflows by adding it.
    const MAX: Self = Self::from_secs(100 * 365 * 24 * 3600);

    pub(crate) const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Returns `None` for "0s", which turns a setting off.
    pub(crate) fn unless_off(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }

    pub(crate) fn is_whole_seconds(self) -> bool {
        self.0.subsec_nanos() == 0
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 => f.write_str("0s"),
            _ if !millis.is_multiple_of(1000) => write!(f, "{millis}ms"),
            _ if !millis.is_multiple_of(60_000) => write!(f, "{}s", millis / 1000),
            _ if !millis.is_multiple_of(3_600_000) => write!(f, "{}m", millis / 60_000),
            _ => write!(f, "{}h", millis / 3_600_000),
        }
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().parse::<f64>().is_ok() {
            return Err(format!("{text} has no unit; {PERIOD_UNITS}"));
        }
        match humantime::parse_duration(text) {
            Ok(duration) if duration > Self::MAX.0 => Err(format!("`{text}` is longer than {}", Self::MAX)),
            Ok(duration) => Ok(Self(duration)),
            Err(_) => Err(format!("`{text}` is not a duration; {PERIOD_UNITS}")),
        }
    }
}

const PERIOD_UNITS: &str = "units are ms, s, m, h and d, as in \"500ms\", \"25s\", \"5m\", \"720h\"";

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number of bytes: `64KiB`, `1MB`, `4MiB`; a bare number counts bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if bytes > 0 && bytes.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", bytes >> shift);
            }
        }
        write!(f, "{bytes}B")
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('-') {
            return Err("a size is not negative".to_owned());
        }
        let bytes: Result<bytesize::ByteSize, _> = text.parse();
        bytes.ok().and_then(|size| usize::try_from(size.as_u64()).ok()).map(Self).ok_or_else(|| {
            format!("`{text}` is not a size; units are B, KB, KiB, MB, MiB, GB and GiB, as in \"64KiB\"")
        })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The number of threads that own connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shards {
    /// One for each core that the process may use.
    Auto,
    Count(usize),
}

impl FromStr for Shards {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(count) => Ok(Self::Count(count)),
            Err(_) if text.parse::<i64>().is_ok() => Err("a number of shards is not negative".to_owned()),
            Err(_) => Err(format!("`{text}` is neither \"auto\" nor a number")),
        }
    }
}

impl Serialize for Shards {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(count) => count.serialize(serializer),
        }
    }
}

/// A value that is read from its text, or from a whole number as if it were text.
trait FromText: FromStr<Err = String> {
    /// For the error when neither is there.
    const EXPECTED: &'static str;
}

impl FromText for Period {
    const EXPECTED: &'static str = "a duration such as \"25s\", \"5m\" or \"500ms\"";
}

impl FromText for Size {
    const EXPECTED: &'static str = "a size such as \"64KiB\" or \"1MB\"";
}

impl FromText for Shards {
    const EXPECTED: &'static str = "\"auto\" or a number";
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromText> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Shards {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

/// Text that neither `Debug` nor serde prints.
#[derive(Clone, Debug)]
pub(crate) struct Secret(SecretString);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(text.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.expose_secret().is_empty()
    }

    pub(crate) fn to_settings(&self) -> SecretString {
        self.0.clone()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_need_a_unit_and_print_in_the_largest_that_fits() {
        for (text, shown) in [
            ("25s", "25s"),
            ("300s", "5m"),
            ("720h", "720h"),
            ("30d", "720h"),
            ("500ms", "500ms"),
            ("0s", "0s"),
        ] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), shown);
        }
        for text in ["25", "0", "1.5", ""] {
            let error = text.parse::<Period>().unwrap_err();
            assert!(error.contains("units are ms, s, m, h and d"), "{error}");
        }
    }

    #[test]
    fn periods_do_not_overflow_clocks() {
        assert_eq!("36500d".parse(), Ok(Period::MAX));
        for text in ["36501d", "500000000000y"] {
            assert_eq!(text.parse::<Period>(), Err(format!("`{text}` is longer than 876000h")));
        }
    }

    #[test]
    fn sizes_take_decimal_and_binary_units() {
        for (text, bytes) in [("64KiB", 65536), ("1MB", 1_000_000), ("1MiB", 1 << 20), ("17", 17), ("0B", 0)]
        {
            assert_eq!(text.parse::<Size>().unwrap(), Size(bytes));
        }
        assert!("64 kilometres".parse::<Size>().is_err());
        assert_eq!(Size(4 << 20).to_string(), "4MiB");
        assert_eq!(Size(1000).to_string(), "1000B");
    }

    #[test]
    fn numbers_are_read_as_their_text() {
        fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
            serde_json::from_str(text).map_err(|error: serde_json::Error| error.to_string())
        }
        assert_eq!(read("18446744073709551615"), Ok(Size(usize::MAX)));
        assert_eq!(read("3"), Ok(Shards::Count(3)));
        for (found, expected) in [
            (read::<Period>("8").map(drop), "8 has no unit"),
            (read::<Period>("1.5").map(drop), "expected a duration such as"),
            (read::<Size>("-1").map(drop), "a size is not negative"),
            (read::<Size>("1.5").map(drop), "expected a size such as"),
            (read::<Shards>("-1").map(drop), "a number of shards is not negative"),
            (read::<Shards>("true").map(drop), "expected \"auto\" or a number"),
        ] {
            let error = found.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = Secret::new("hunter2".into());
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert_eq!(toml::Value::try_from(&secret).unwrap().as_str(), Some("(hidden)"));
    }
}
