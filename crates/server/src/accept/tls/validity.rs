//! The time in which a certificate is valid, read from its DER form. Clients judge the rest of it.
//!
//! It is read by hand: rustls' family does not tell it, and `x509-parser` adds 18 crates and 13 s on two cores to the first
//! build, for two dates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time in which clients take a certificate, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: i64,
    pub until: i64,
}

impl Validity {
    /// `None` if this is no certificate.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = element(certificate, SEQUENCE)?;
        let (mut fields, _) = element(certificate, SEQUENCE)?;
        // The version may be left out; then come serial number, signature algorithm, issuer and validity
        // (RFC 5280 section 4.1).
        if let Some((_, rest)) = element(fields, VERSION) {
            fields = rest;
        }
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            (_, fields) = element(fields, tag)?;
        }
        let (times, _) = element(fields, SEQUENCE)?;
        let (from, times) = time(times)?;
        let (until, _) = time(times)?;
        Some(Self { from, until })
    }

    /// The end of the validity, no earlier than 1970.
    pub fn until(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(self.until).unwrap_or(0))
    }

    /// Whole days until it ends; below 0 when it has.
    pub fn days_left(&self) -> i64 {
        (self.until - now()).div_euclid(24 * 3600)
    }

    /// The reason for which clients refuse the certificate now, if there is one.
    pub fn fault(&self) -> Option<&'static str> {
        match now() {
            now if now > self.until => Some("the certificate has expired"),
            now if now < self.from => Some("the certificate is not valid yet"),
            _ => None,
        }
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The content of the element at the start, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [first, length, rest @ ..] = bytes else { return None };
    if *first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7F => (usize::from(*length), rest),
        // The length's own length; four bytes are more than any file has.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(length & 0x7F))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A time, and what follows it. Certificates give times to the second and in UTC (RFC 5280 section 4.1.2.5).
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (year_digits, (text, rest)) = match bytes.first()? {
        &UTC_TIME => (2, element(bytes, UTC_TIME)?),
        _ => (4, element(bytes, GENERALIZED_TIME)?),
    };
    let (year, text) = text.split_at_checked(year_digits)?;
    let year = match (year_digits, number(year)?) {
        (2, year @ 0..50) => 2000 + year,
        (2, year) => 1900 + year,
        (_, year) => year,
    };
    let (digits, b"Z") = text.split_at_checked(10)? else { return None };
    let mut parts = digits.chunks(2).map(number);
    let mut part = |range: std::ops::RangeInclusive<i64>| parts.next()?.filter(|part| range.contains(part));
    let (month, day) = (part(1..=12)?, part(1..=31)?);
    let (hour, minute, second) = (part(0..=23)?, part(0..=59)?, part(0..=60)?);
    Some((((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second, rest))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// Days from 1970 to a date. Years are counted from March, so that the day that some have more is their last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_BEFORE_1970: i64 = 719_468;
    let year = if month > 2 { year } else { year - 1 };
    let months_since_march = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (months_since_march * 153 + 2) / 5 + day - 1 - DAYS_BEFORE_1970
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn validity(from: (i32, u8, u8), until: (i32, u8, u8)) -> Option<Validity> {
        let mut params = CertificateParams::new(["test".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Validity::of(certificate.der())
    }

    #[test]
    fn both_forms_of_time_are_read() {
        // Up to 2049 in the short form, later ones in the long form.
        for ((from, until), seconds) in [
            (((1970, 1, 1), (2049, 12, 31)), (0, 2_524_521_600)),
            (((2000, 2, 29), (2050, 1, 1)), (951_782_400, 2_524_608_000)),
            (((2024, 3, 1), (2100, 2, 28)), (1_709_251_200, 4_107_456_000)),
            (((1999, 12, 31), (2400, 2, 29)), (946_598_400, 13_574_563_200)),
        ] {
            let expected = Validity { from: seconds.0, until: seconds.1 };
            assert_eq!(validity(from, until), Some(expected), "{from:?} to {until:?}");
        }
    }

    #[test]
    fn what_is_over_and_what_is_to_come_is_known() {
        assert_eq!(
            validity((2000, 1, 1), (2001, 1, 1)).unwrap().fault(),
            Some("the certificate has expired")
        );
        assert_eq!(
            validity((2400, 1, 1), (2500, 1, 1)).unwrap().fault(),
            Some("the certificate is not valid yet")
        );
        assert_eq!(validity((2000, 1, 1), (2500, 1, 1)).unwrap().fault(), None);
    }

    #[test]
    fn every_cut_and_many_changes_do_no_harm() {
        let params = CertificateParams::new(["test".to_owned()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let whole = certificate.der();
        for end in 0..whole.len() {
            assert_eq!(Validity::of(&whole[..end]), None, "cut at {end}");
        }
        for place in 0..whole.len() {
            for byte in [0, 0x7F, 0x80, 0x84, 0x85, 0xFF] {
                let mut changed = whole.to_vec();
                changed[place] = byte;
                // Some changes leave a certificate, with other times perhaps.
                let _ = Validity::of(&changed);
            }
        }
    }
}
