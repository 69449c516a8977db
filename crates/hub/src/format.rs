//! What applications may send through topics. Payloads are checked once, where they come in.

use fanwire_protocol::json::{self, NotJson};

use crate::{ConnectionClaims, GrantOptions, Namespaces, SubscriptionClaims, TopicGrant};

/// What the data of a topic's publications has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublicationFormat {
    /// Any bytes but none.
    NotEmpty,
    #[default]
    Json,
    JsonObject,
    /// Any bytes, none included.
    Binary,
}

/// Why a payload is refused, and what its sender can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("is empty; send data, or set publication_format to \"binary\"")]
    Empty,
    #[error("is not JSON in UTF-8; send JSON, or set publication_format to \"not_empty\"")]
    NotJson,
    #[error(
        "nests deeper than {} levels; send flatter JSON, or set publication_format to \"not_empty\"",
        json::JSON_DEPTH_MAX
    )]
    TooDeep,
    #[error("is not a JSON object; send one, or set publication_format to \"json\"")]
    NotObject,
}

/// A payload that is refused, by the name of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {unfit}")]
pub struct UnfitField {
    pub field: &'static str,
    pub unfit: Unfit,
}

impl Unfit {
    pub fn of(self, field: &'static str) -> UnfitField {
        UnfitField { field, unfit: self }
    }
}

impl PublicationFormat {
    /// Checks the data of a publication.
    pub fn check(self, data: &[u8]) -> Result<(), Unfit> {
        match self {
            Self::Binary => Ok(()),
            _ if data.is_empty() => Err(Unfit::Empty),
            Self::NotEmpty => Ok(()),
            Self::Json | Self::JsonObject => {
                json::check(data).map_err(|error| match error {
                    NotJson::Malformed => Unfit::NotJson,
                    NotJson::TooDeep => Unfit::TooDeep,
                })?;
                if self == Self::JsonObject && !json::is_object(data) {
                    return Err(Unfit::NotObject);
                }
                Ok(())
            }
        }
    }

    /// Checks what credentials say of a client or hand to it. It may be absent, and any JSON value will do.
    pub fn check_info(self, info: &[u8]) -> Result<(), Unfit> {
        match self {
            Self::Json | Self::JsonObject if !info.is_empty() => Self::Json.check(info),
            _ => Ok(()),
        }
    }
}

impl ConnectionClaims {
    /// Checks everything in the token that clients are sent. Topics without a namespace are passed over.
    pub fn check(&self, info_format: PublicationFormat, topics: &Namespaces) -> Result<(), UnfitField> {
        info_format.check_info(&self.info).map_err(|unfit| unfit.of("info"))?;
        for TopicGrant { topic, options } in &self.topics {
            if let Ok(namespace) = topics.of(topic) {
                options.check(namespace.publication_format, ["info in subs", "data in subs"])?;
            }
        }
        Ok(())
    }
}

impl SubscriptionClaims {
    /// The same for a subscription token.
    pub fn check(&self, topics: &Namespaces) -> Result<(), UnfitField> {
        match topics.of(&self.topic) {
            Ok(namespace) => self.options.check(namespace.publication_format, ["info", "data"]),
            Err(_) => Ok(()),
        }
    }
}

impl GrantOptions {
    /// Checks info and data for a topic whose publications have this format. `fields` are their names in the error.
    pub fn check(&self, format: PublicationFormat, fields: [&'static str; 2]) -> Result<(), UnfitField> {
        let [info, data] = fields;
        format.check_info(&self.info).map_err(|unfit| unfit.of(info))?;
        format.check_info(&self.data).map_err(|unfit| unfit.of(data))
    }
}
