//! Filters of publications by their tags: a tree of tests, kept as steps in postfix order, so that no filter recurses
//! where publications are delivered.

use std::cmp::Ordering;

use crate::Tags;

/// The depth of a filter, its tests and operators, and the bytes of its texts.
pub const DEPTH_MAX: usize = 16;
pub const NODES_MAX: usize = 100;
pub const TEXT_BYTES_MAX: usize = 4096;

/// Equal filters take the same publications.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter(Box<[Step]>);

/// A step: a test pushes its result, an operator replaces the last results by one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Test(Box<str>, Test),
    All(usize),
    Any(usize),
    Not,
}

/// A filter that cannot be, with the remedy, by the names that clients use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("op is unknown; send \"and\", \"or\", \"not\", or leave it out for a test of a tag")]
    Operator,
    #[error("cmp is unknown; send eq, neq, in, nin, ex, nex, sw, ew, ct, lt, lte, gt or gte")]
    Comparison,
    #[error("a test has no key; send the name of a tag")]
    NoKey,
    #[error("this cmp needs val, and no vals")]
    Value,
    #[error("in and nin need vals, and no val")]
    Values,
    #[error("ex and nex take neither val nor vals")]
    NoValue,
    #[error("and, or need nodes; not needs exactly one")]
    Nodes,
    #[error("has more than {DEPTH_MAX} levels; nest less")]
    Depth,
    #[error("has more than {NODES_MAX} nodes; send fewer")]
    Count,
    #[error("has more than {TEXT_BYTES_MAX} bytes of texts; send less")]
    Length,
}

/// A test of one tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    Is(Box<str>),
    IsNot(Box<str>),
    /// A missing tag counts as empty.
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
    Exists,
    Missing,
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    /// Compares numbers. What is no number fails; `None` is none.
    Compared(Comparison, Option<Decimal>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Filter {
    /// `steps` are in postfix order: they leave one result. The number of them is at most [`NODES_MAX`].
    pub(crate) fn new(steps: Vec<Step>) -> Self {
        Self(steps.into())
    }

    /// Returns the number of steps that it takes for a publication.
    pub fn steps(&self) -> usize {
        self.0.len()
    }

    /// Returns the bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        let text = |step: &Step| match step {
            Step::Test(key, test) => key.len() + test.text_bytes(),
            _ => 0,
        };
        size_of_val(&*self.0) + self.0.iter().map(text).sum::<usize>()
    }

    /// Returns true if a publication with these tags is to be delivered.
    pub fn takes(&self, tags: Option<&Tags>) -> bool {
        // The results so far, the last one lowest.
        let mut results: u128 = 0;
        for step in &self.0 {
            match step {
                Step::Test(key, test) => {
                    let tag = tags.and_then(|tags| tags.get(&**key)).map(String::as_str);
                    results = results << 1 | u128::from(test.passes(tag));
                }
                Step::All(count) => {
                    let all = (1 << count) - 1;
                    results = results >> count << 1 | u128::from(results & all == all);
                }
                Step::Any(count) => {
                    let all = (1 << count) - 1;
                    results = results >> count << 1 | u128::from(results & all != 0);
                }
                Step::Not => results ^= 1,
            }
        }
        results & 1 == 1
    }
}

impl Test {
    fn text_bytes(&self) -> usize {
        match self {
            Self::Is(value) | Self::IsNot(value) => value.len(),
            Self::StartsWith(value) | Self::EndsWith(value) | Self::Contains(value) => value.len(),
            Self::In(values) | Self::NotIn(values) => {
                values.iter().map(|value| size_of_val(value) + value.len()).sum()
            }
            Self::Compared(_, value) => value.as_ref().map_or(0, |value| value.digits.len()),
            Self::Exists | Self::Missing => 0,
        }
    }

    fn passes(&self, tag: Option<&str>) -> bool {
        let is_in = |values: &[Box<str>]| values.iter().any(|value| **value == *tag.unwrap_or_default());
        match self {
            Self::Is(value) => tag == Some(value),
            Self::IsNot(value) => tag != Some(value),
            Self::In(values) => is_in(values),
            Self::NotIn(values) => !is_in(values),
            Self::Exists => tag.is_some(),
            Self::Missing => tag.is_none(),
            Self::StartsWith(value) => tag.is_some_and(|tag| tag.starts_with(&**value)),
            Self::EndsWith(value) => tag.is_some_and(|tag| tag.ends_with(&**value)),
            Self::Contains(value) => tag.is_some_and(|tag| tag.contains(&**value)),
            Self::Compared(comparison, value) => {
                let ordered = value.as_ref().zip(tag.and_then(Decimal::parse));
                ordered.is_some_and(|(value, tag)| comparison.holds(tag.cmp(value)))
            }
        }
    }
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
        }
    }
}

/// A number of any size and precision, as it is written: `0.DIGITS * 10^EXPONENT`, without zeros around the digits. Zero has
/// none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    is_negative: bool,
    exponent: i64,
    digits: Box<[u8]>,
}

impl Decimal {
    /// Reads a number such as `-12.50` or `1e6`.
    pub fn parse(text: &str) -> Option<Self> {
        let (is_negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, power) = match unsigned.split_once(['e', 'E']) {
            // More digits than a number that anybody means has.
            Some((mantissa, power)) if power.len() < 10 => (mantissa, power.parse::<i64>().ok()?),
            Some(_) => return None,
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        let digits = [whole.as_bytes(), fraction.as_bytes()].concat();
        let Some(first) = digits.iter().position(|digit| *digit != b'0') else {
            return Some(Self { is_negative: false, exponent: 0, digits: Box::default() });
        };
        let last = digits.iter().rposition(|digit| *digit != b'0')?;
        let exponent = whole.len() as i64 - first as i64 + power;
        Some(Self { is_negative, exponent, digits: digits[first..=last].into() })
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.is_negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sizes = || (self.exponent, &self.digits).cmp(&(other.exponent, &other.digits));
        self.sign()
            .cmp(&other.sign())
            .then_with(|| if self.is_negative { sizes().reverse() } else { sizes() })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn numbers_are_compared_exactly() {
        let rising = [
            "-1e9",
            "-100.5",
            "-100.49",
            "-1",
            "-0.5",
            "-1e-9",
            "0",
            "1e-9",
            "0.1",
            "0.10000000000000000000001",
            ".5",
            "1",
            "1.5",
            "2",
            "10",
            "99",
            "1e2",
            "100.00000000000000000001",
            "12345678901234567890123",
            "1e23",
        ];
        for (place, one) in rising.iter().enumerate() {
            for (other_place, other) in rising.iter().enumerate() {
                assert_eq!(number(one).cmp(&number(other)), place.cmp(&other_place), "{one} {other}");
            }
        }
        for (one, other) in
            [("1", "1.0"), ("1", "+01."), ("100", "1e2"), ("1e-2", ".01"), ("0", "-0.0"), ("0", "0e9")]
        {
            assert_eq!(number(one), number(other), "{one} {other}");
        }
        for text in [
            "",
            "-",
            ".",
            "e5",
            "1e",
            "1e5.5",
            "1 ",
            " 1",
            "one",
            "0x10",
            "1_000",
            "--1",
            "1e9999999999",
            "٣",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_are_compared_as_machines_do(one: i64, other: i64, power in 0..5usize) {
            let written = |value: i64| format!("{value}{}", "0".repeat(power));
            prop_assert_eq!(number(&written(one)).cmp(&number(&written(other))), one.cmp(&other));
            prop_assert_eq!(number(&format!("{one}e-{power}")).cmp(&number(&format!("{other}e-{power}"))), one.cmp(&other));
        }

        #[test]
        fn any_text_may_be_a_number_or_not(text: String) {
            if let Some(number) = Decimal::parse(&text) {
                prop_assert_eq!(number.cmp(&number), Ordering::Equal);
            }
        }
    }
}
