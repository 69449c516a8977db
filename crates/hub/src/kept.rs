//! The headers and the metadata of a client that hooks are sent, kept as long as a later hook may need them. Few
//! clients have any.

use std::fmt;

use bytes::Bytes;

/// The headers and the metadata that are kept: those that any hook is to be sent.
#[derive(Clone, Debug, Default)]
pub struct KeptRules {
    /// Names of headers of the request that opens a connection, in lower case. At most 64.
    pub headers: Box<[Box<str>]>,
    /// The same of headers by the client's own word, which come with connect. At most 64.
    pub emulated: Box<[Box<str>]>,
    /// The cookies that are kept of the header `cookie`, where that is among the headers; `None`: all.
    pub cookies: Option<Box<[Box<str>]>>,
    /// Hooks other than connect are sent headers.
    pub outlasts_connect: bool,
    /// Some hook is sent the metadata.
    pub has_meta: bool,
    /// Bytes of all that is kept of one client.
    pub bytes_max: usize,
}

/// A header: the place of its name in the rules, and its value.
type Header = (u8, Box<str>);

#[derive(Clone, Default, PartialEq, Eq)]
pub struct Kept {
    headers: Box<[Header]>,
    emulated: Box<[Header]>,
    /// A JSON object; empty: none.
    meta: Bytes,
}

/// More than may be kept of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Says that there is no room for the metadata of a token or of an answer.
pub(crate) const META_TOO_LONG: &str = "meta is longer than client.hooks.kept_bytes_max leaves room for";

impl Kept {
    /// Keeps headers of the request that opens a connection. `value` gives the value of a header by its name.
    pub fn new(rules: &KeptRules, value: impl Fn(&str) -> Option<String>) -> Result<Self, TooLong> {
        let headers = rules.headers.iter().zip(0..).filter_map(|(name, place)| {
            let mut value = value(name)?;
            if let Some(cookies) = rules.cookies.as_deref().filter(|_| **name == *"cookie") {
                value = cookies_of(&value, |name| cookies.iter().any(|kept| **kept == *name));
            }
            (!value.is_empty()).then(|| (place, value.into_boxed_str()))
        });
        Self { headers: headers.collect(), ..Self::default() }.within(rules)
    }

    /// Keeps the headers of the client's own word as well. Of those with the same name, the last counts.
    pub fn with_emulated(self, rules: &KeptRules, headers: Vec<(String, String)>) -> Result<Self, TooLong> {
        let mut kept: Vec<Header> = Vec::new();
        for (name, value) in headers {
            let place = rules.emulated.iter().position(|kept| kept.eq_ignore_ascii_case(&name));
            if let Some(place) = place.and_then(|place| u8::try_from(place).ok()) {
                kept.retain(|(before, _)| *before != place);
                kept.push((place, value.into()));
            }
        }
        Self { emulated: kept.into(), ..self }.within(rules)
    }

    /// Keeps this metadata; empty: none.
    pub fn with_meta(self, rules: &KeptRules, meta: Bytes) -> Result<Self, TooLong> {
        let meta = if rules.has_meta { meta } else { Bytes::new() };
        Self { meta, ..self }.within(rules)
    }

    /// Keeps no header.
    pub fn without_headers(self) -> Self {
        Self { meta: self.meta, ..Self::default() }
    }

    fn within(self, rules: &KeptRules) -> Result<Self, TooLong> {
        if self.bytes() <= rules.bytes_max { Ok(self) } else { Err(TooLong) }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the headers of the request that opened the connection, with their names in lower case.
    pub fn headers<'k>(&'k self, rules: &'k KeptRules) -> impl Iterator<Item = (&'k str, &'k str)> {
        named(&self.headers, &rules.headers)
    }

    /// Returns the headers of the client's own word, with their names in lower case.
    pub fn emulated<'k>(&'k self, rules: &'k KeptRules) -> impl Iterator<Item = (&'k str, &'k str)> {
        named(&self.emulated, &rules.emulated)
    }

    /// Returns a JSON object, or nothing.
    pub fn meta(&self) -> &Bytes {
        &self.meta
    }

    /// Returns the bytes of all that is kept.
    pub fn bytes(&self) -> usize {
        let values = self.headers.iter().chain(&self.emulated).map(|(_, value)| value.len());
        values.sum::<usize>() + self.meta.len()
    }
}

fn named<'k>(headers: &'k [Header], names: &'k [Box<str>]) -> impl Iterator<Item = (&'k str, &'k str)> {
    headers.iter().filter_map(|(place, value)| Some((&**names.get(usize::from(*place))?, &**value)))
}

/// Without any value: they may be secrets.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// Returns the pairs of a `Cookie` header whose names are taken, as such a header.
pub fn cookies_of(header: &str, takes: impl Fn(&str) -> bool) -> String {
    let pairs = header.split(';').map(str::trim);
    let taken = pairs.filter(|pair| takes(pair.split_once('=').map_or(*pair, |(name, _)| name.trim())));
    taken.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Box<[Box<str>]> {
        names.iter().map(|&name| name.into()).collect()
    }

    fn rules() -> KeptRules {
        KeptRules {
            headers: names(&["authorization", "cookie"]),
            emulated: names(&["x-room", "x-user"]),
            cookies: Some(names(&["sid"])),
            outlasts_connect: true,
            has_meta: true,
            bytes_max: 30,
        }
    }

    fn request(name: &str) -> Option<String> {
        Some(match name {
            "cookie" => "a=1; sid=2;b=3 ; sid = 4".to_owned(),
            "authorization" => "secret".to_owned(),
            _ => return None,
        })
    }

    #[test]
    fn what_is_listed_is_kept_within_its_bound() {
        let rules = rules();
        let kept = Kept::new(&rules, request).unwrap();
        let headers: Vec<_> = kept.headers(&rules).collect();
        assert_eq!(headers, [("authorization", "secret"), ("cookie", "sid=2; sid = 4")]);
        assert!(!format!("{kept:?}").contains("secret"));

        let said = [("X-User", "41"), ("other", "1"), ("x-user", "42")];
        let said = said.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let kept = kept.with_emulated(&rules, said).unwrap();
        assert_eq!(kept.emulated(&rules).collect::<Vec<_>>(), [("x-user", "42")]);
        let kept = kept.with_meta(&rules, Bytes::from_static(b"{}")).unwrap();
        assert_eq!((kept.meta().as_ref(), kept.bytes()), (&b"{}"[..], 24));
        assert_eq!(kept.clone().with_meta(&rules, Bytes::from_static(b"123456789")), Err(TooLong));

        let meta = kept.without_headers();
        assert_eq!((meta.meta().as_ref(), meta.bytes()), (&b"{}"[..], 2));
        assert!(!meta.is_empty() && meta.with_meta(&rules, Bytes::new()).unwrap().is_empty());
    }

    #[test]
    fn without_rules_nothing_is_kept() {
        let rules = KeptRules::default();
        let kept = Kept::new(&rules, request).unwrap();
        let kept = kept.with_emulated(&rules, vec![("x-user".into(), "42".into())]).unwrap();
        assert!(kept.with_meta(&rules, Bytes::from_static(b"{}")).unwrap().is_empty());
    }

    #[test]
    fn a_cookie_header_is_cut_by_names() {
        let only = |header: &str| cookies_of(header, |name| name == "sid");
        for (header, kept) in [
            ("", ""),
            ("sid=1", "sid=1"),
            ("sidx=1; sid=a=b; asid=2", "sid=a=b"),
            ("sid; a", "sid"),
            (";; sid=1;", "sid=1"),
        ] {
            assert_eq!(only(header), kept, "{header:?}");
        }
    }
}
