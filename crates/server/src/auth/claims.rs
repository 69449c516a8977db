//! A token's claims, from JSON to what the session uses.
//!
//! Every claim stays raw until it is asked for, so one that does not concern the token's kind is never read, and
//! an error says which claim is wrong. A claim that is `null` counts as absent, but for the user's: a backend
//! that lost its user must not get an anonymous client.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use bytes::Bytes;
use fanwire_hub::{Expiry, GrantOptions, Overrides, TokenError, TopicGrant};
use fanwire_protocol::json::payload::from_base64;
use fanwire_protocol::json::{Object, object};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::overrides::OverrideOptions;

/// The claims that either kind of token may have.
#[derive(Deserialize)]
pub(super) struct Claims<'a> {
    #[serde(borrow, default, deserialize_with = "even_null")]
    sub: Option<&'a RawValue>,
    #[serde(borrow)]
    aud: Option<&'a RawValue>,
    #[serde(borrow)]
    iss: Option<&'a RawValue>,
    #[serde(borrow)]
    exp: Option<&'a RawValue>,
    #[serde(borrow)]
    nbf: Option<&'a RawValue>,
    #[serde(borrow)]
    jti: Option<&'a RawValue>,
    #[serde(borrow)]
    expire_at: Option<&'a RawValue>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    #[serde(borrow)]
    subs: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    client: Option<&'a RawValue>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    b64info: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<&'a RawValue>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
    #[serde(borrow, rename = "override")]
    overrides: Option<&'a RawValue>,
}

impl<'a> Claims<'a> {
    pub(super) fn parse(payload: &'a str) -> Result<Self, TokenError> {
        serde_json::from_str(payload)
            .map(|Object(claims)| claims)
            .map_err(|_| TokenError::Invalid("its claims are not one JSON object with each claim once"))
    }

    /// Empty when there is none.
    pub(super) fn subject(&self) -> Result<Box<str>, TokenError> {
        Ok(read(self.sub, "its claim `sub` is not a string")?.unwrap_or_default())
    }

    /// The name of the token; empty when it has none. What is no string names none.
    pub(super) fn id(&self) -> Box<str> {
        read(self.jti, "").ok().flatten().unwrap_or_default()
    }

    pub(super) fn issuer(&self) -> Result<Option<String>, TokenError> {
        read(self.iss, "its claim `iss` is not a string")
    }

    /// RFC 7519, section 4.1.3: one string, or any number of them.
    pub(super) fn audience(&self) -> Result<Vec<String>, TokenError> {
        const NOT_TEXT: &str = "its claim `aud` is neither a string nor an array of strings";
        if self.aud.is_some_and(|raw| raw.get().starts_with('[')) {
            Ok(read(self.aud, NOT_TEXT)?.unwrap_or_default())
        } else {
            Ok(read(self.aud, NOT_TEXT)?.into_iter().collect())
        }
    }

    /// Fails outside the time that the token is good for. Fractions of a second narrow it, they never widen it.
    pub(super) fn check_window(&self, now: i64) -> Result<(), TokenError> {
        let ended = self.token_end()?.is_some_and(|end| end <= now);
        let start: Option<f64> = read(self.nbf, "its claim `nbf` is not a number")?;
        let early = start.is_some_and(|start| start.ceil() as i64 > now);
        if ended || early { Err(TokenError::Expired) } else { Ok(()) }
    }

    /// The end of the grant: `expire_at` if it is there, where 0 means never, or else `exp`.
    pub(super) fn expiry(&self) -> Result<Expiry, TokenError> {
        let expire_at: Option<f64> = read(self.expire_at, "its claim `expire_at` is not a number")?;
        Ok(match expire_at {
            Some(0.0) => Expiry::Never,
            Some(seconds) => Expiry::At(seconds.floor() as i64),
            None => self.token_end()?.map_or(Expiry::Never, Expiry::At),
        })
    }

    pub(super) fn info(&self) -> Result<Bytes, TokenError> {
        payload(self.info, self.b64info, "its claim `b64info` is not a base64 string")
    }

    /// Empty when there is none. What is no object is none.
    pub(super) fn meta(&self) -> Bytes {
        let meta = self.meta.map(RawValue::get).filter(|meta| meta.starts_with('{'));
        meta.map_or_else(Bytes::new, |meta| Bytes::copy_from_slice(meta.as_bytes()))
    }

    /// The topic that a subscription token is for; empty when there is none.
    pub(super) fn topic(&self) -> Result<Box<str>, TokenError> {
        Ok(read(self.channel, "its claim `channel` is not a string")?.unwrap_or_default())
    }

    pub(super) fn client(&self) -> Result<Box<str>, TokenError> {
        Ok(read(self.client, "its claim `client` is not a string")?.unwrap_or_default())
    }

    /// The grant of a subscription token.
    pub(super) fn options(&self) -> Result<GrantOptions, TokenError> {
        let overrides: Option<Object<OverrideOptions>> =
            read(self.overrides, "its claim `override` is not an object of options with values")?;
        Ok(GrantOptions {
            info: self.info()?,
            data: payload(self.data, self.b64data, "its claim `b64data` is not a base64 string")?,
            overrides: overrides.map(|Object(options)| options.into()).unwrap_or_default(),
        })
    }

    /// The topics that a connection token subscribes to. A topic in `subs` has its options from there, also if it is
    /// elsewhere too.
    pub(super) fn topics(&self) -> Result<Vec<TopicGrant>, TokenError> {
        let channels: Vec<Box<str>> =
            read(self.channels, "its claim `channels` is not an array of strings")?.unwrap_or_default();
        let subs: SubsClaim<'_> =
            read(self.subs, "its claim `subs` is not an object of topics with options")?.unwrap_or_default();
        let mut grants: Vec<TopicGrant> = Vec::with_capacity(channels.len() + subs.0.len());
        let mut places: HashMap<Box<str>, usize> = HashMap::with_capacity(grants.capacity());
        let plain = channels.into_iter().map(|topic| Ok((topic, GrantOptions::default())));
        let with_options = subs.0.into_iter().map(|(topic, claims)| Ok((topic, claims.options()?)));
        for grant in plain.chain(with_options) {
            let (topic, options) = grant?;
            match places.entry(topic) {
                Entry::Occupied(place) => grants[*place.get()].options = options,
                Entry::Vacant(place) => {
                    grants.push(TopicGrant { topic: place.key().clone(), options });
                    place.insert(grants.len() - 1);
                }
            }
        }
        Ok(grants)
    }

    fn token_end(&self) -> Result<Option<i64>, TokenError> {
        let end: Option<f64> = read(self.exp, "its claim `exp` is not a number")?;
        Ok(end.map(|end| end.floor() as i64))
    }
}

/// The user from a claim that is not `sub`. It may be a whole number too, as ids in databases often are.
pub(super) fn user_from(payload: &str, name: &str) -> Result<Box<str>, TokenError> {
    const NOT_A_USER: TokenError =
        TokenError::Invalid("its claim for the user (`user_claim`) is neither a string nor a whole number");
    let claims: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(payload).map_err(|_| NOT_A_USER)?;
    let Some(user) = claims.get(name).map(|raw| raw.get()) else { return Ok(Box::default()) };
    if user.starts_with('"') {
        return serde_json::from_str(user).map_err(|_| NOT_A_USER);
    }
    let digits = user.strip_prefix('-').unwrap_or(user);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { Ok(user.into()) } else { Err(NOT_A_USER) }
}

/// One topic of `subs`.
#[derive(Default, Deserialize)]
struct SubClaims<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    b64info: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<&'a RawValue>,
    #[serde(default, rename = "override", deserialize_with = "object")]
    overrides: Option<OverrideOptions>,
}

impl SubClaims<'_> {
    fn options(&self) -> Result<GrantOptions, TokenError> {
        Ok(GrantOptions {
            info: payload(
                self.info,
                self.b64info,
                "in its claim `subs`, a `b64info` is not a base64 string",
            )?,
            data: payload(
                self.data,
                self.b64data,
                "in its claim `subs`, a `b64data` is not a base64 string",
            )?,
            overrides: self.overrides.map(Overrides::from).unwrap_or_default(),
        })
    }
}

/// The claim `subs` in the order in which it is written.
#[derive(Default)]
struct SubsClaim<'a>(Vec<(Box<str>, SubClaims<'a>)>);

impl<'de> Deserialize<'de> for SubsClaim<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = SubsClaim<'de>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object of topics with options")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut subs = Vec::new();
                while let Some((topic, claims)) = map.next_entry::<_, Option<Object<SubClaims<'de>>>>()? {
                    subs.push((topic, claims.map(|Object(claims)| claims).unwrap_or_default()));
                }
                Ok(SubsClaim(subs))
            }
        }

        from.deserialize_map(InOrder)
    }
}

fn read<'a, T: Deserialize<'a>>(
    claim: Option<&'a RawValue>,
    otherwise: &'static str,
) -> Result<Option<T>, TokenError> {
    claim.map(|raw| serde_json::from_str(raw.get()).map_err(|_| TokenError::Invalid(otherwise))).transpose()
}

/// JSON as it was written, or the bytes behind base64, which win when both are given.
fn payload(
    json: Option<&RawValue>,
    base64: Option<&RawValue>,
    otherwise: &'static str,
) -> Result<Bytes, TokenError> {
    let text: String = read(base64, otherwise)?.unwrap_or_default();
    if text.is_empty() {
        return Ok(json.map_or_else(Bytes::new, |raw| Bytes::copy_from_slice(raw.get().as_bytes())));
    }
    from_base64(&text).ok_or(TokenError::Invalid(otherwise))
}

fn even_null<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}
