//! The formats of payloads that applications send through topics. Payloads are checked once, where they come in.

use fanwire_protocol::json::{self, NotJson};

/// The format that the data of a topic's publications must have.
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

/// The reasons for which a payload is refused, each with what its sender can do.
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
