//! The names by which tokens are revoked.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use super::claims::Claims;
use super::revoked::Revoked;
use super::unverified_payload;

/// The name of a token: its claim `jti`; without one, a hash of what is signed. The signature is no part of it: a token may
/// have several that are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenName {
    Id(Box<str>),
    Hash(Box<str>),
}

impl TokenName {
    pub(super) fn new(token: &str, claims: &Claims<'_>) -> Self {
        let id = claims.id();
        if !id.is_empty() {
            return Self::Id(id);
        }
        let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
        let mut hash = String::new();
        for byte in digest(&SHA256, signed.as_bytes()).as_ref() {
            // Writing to a text cannot fail.
            let _ = write!(hash, "{byte:02x}");
        }
        Self::Hash(hash.into())
    }

    /// Returns the name of a token. Nothing is verified. `None`: it is no token.
    pub(crate) fn of(token: &str) -> Option<Self> {
        Some(Self::new(token, &Claims::parse(&unverified_payload(token)?).ok()?))
    }

    pub(crate) fn revoked(&self) -> Revoked<'_> {
        match self {
            Self::Id(id) => Revoked::Token(id),
            Self::Hash(hash) => Revoked::Signed(hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use fanwire_hub::TokenError;

    use super::super::tests::{NOW, signed, with_hmac};
    use super::super::{TOKEN_BYTES_MAX, Tokens};
    use super::*;
    use crate::settings::TokenSettings;

    #[test]
    fn a_token_has_the_name_of_its_claim_or_of_what_is_signed() {
        let name = |claims: &str| TokenName::of(&signed(claims)).unwrap();
        assert_eq!(name(r#"{"jti":"one","sub":"ann"}"#), TokenName::Id("one".into()));
        let [ann, bob] = [r#"{"sub":"ann"}"#, r#"{"sub":"bob"}"#].map(name);
        assert!(ann != bob && matches!(&ann, TokenName::Hash(hash) if hash.len() == 64));
        assert_eq!(name(r#"{"sub":"ann","jti":""}"#).revoked().to_string()[..2], *"s:");
        let token = signed(r#"{"sub":"ann"}"#);
        let (message, _) = token.rsplit_once('.').unwrap();
        assert_eq!(TokenName::of(&format!("{message}.AAAA")), Some(ann));
        for text in ["", "a", "a.b", "a.b.c", ".e30.", "a.W10.c"] {
            assert_eq!(TokenName::of(text).is_some(), text == ".e30.", "{text}");
        }
        assert_eq!(TokenName::of(&format!("a.e30.{}", "c".repeat(TOKEN_BYTES_MAX))), None);
    }
    #[test]
    fn tokens_are_revoked_and_their_connections_found_by_these_names() {
        let tokens = Tokens::new(&TokenSettings { is_revocable: true, ..with_hmac() }, None).unwrap();
        let claims = [r#"{"jti":"one"}"#, r#"{"jti":"one","sub":"ann"}"#, r#"{"sub":"ann"}"#, "{}"];
        let [one, also_one, ann, nobody] = claims.map(signed);
        let print =
            |token: &str| tokens.verify_connection(token, NOW).unwrap().extras.unwrap().print.unwrap();
        assert_eq!(print(&one), print(&also_one));
        assert!(print(&one) != print(&ann) && print(&ann) != print(&nobody));
        let revoked = TokenName::of(&ann).unwrap();
        assert_eq!(tokens.revocations().print(revoked.revoked()), print(&ann));
        tokens.revocations().put(revoked.revoked(), 0, NOW).unwrap();
        let why = TokenError::Invalid("it is revoked (`revoke_token`)");
        assert_eq!(tokens.verify_connection(&ann, NOW), Err(why));
        assert!(tokens.verify_connection(&nobody, NOW).is_ok());
    }
}
