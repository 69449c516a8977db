//! The declaration of sections: one macro makes the type that serde reads, its defaults and its part of the outline, so
//! that every key has a description and a default.

/// One line of the outline, in the order of the reference page.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Section { path: String, about: &'static [&'static str], repeated: bool },
    Key { section: String, name: &'static str, about: &'static [&'static str], default: Option<toml::Value> },
}

impl Item {
    /// Returns the path of a key, such as `client.ping_interval`, or of a section.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Section { path, .. } => path.clone(),
            Self::Key { section, name, .. } => join(section, name),
        }
    }
}

/// A section of the configuration, which lists its keys.
pub(crate) trait Section {
    fn outline(&self, path: &str, about: &'static [&'static str], items: &mut Vec<Item>);
}

/// A repeated table such as `[[topics.namespaces]]`, outlined once with the defaults of an entry.
impl<T: Section + Default> Section for Vec<T> {
    fn outline(&self, path: &str, about: &'static [&'static str], items: &mut Vec<Item>) {
        let place = items.len();
        T::default().outline(path, about, items);
        if let Some(Item::Section { repeated, .. }) = items.get_mut(place) {
            *repeated = true;
        }
    }
}

pub(crate) fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// Declares a section: its keys with description, type and default, then the sections inside it.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        $name:ident {
            $( $(#[doc = $key_doc:literal])+ $key:ident: $key_type:ty = $default:expr, )*
            $( sections { $( $(#[doc = $inner_doc:literal])+ $inner:ident: $inner_type:ty, )+ } )?
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(crate) struct $name {
            $( $(#[doc = $key_doc])+ pub(crate) $key: $key_type, )*
            $( $( $(#[doc = $inner_doc])+ pub(crate) $inner: $inner_type, )+ )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $key: $default, )*
                    $( $( $inner: Default::default(), )+ )?
                }
            }
        }

        impl $crate::config::section::Section for $name {
            fn outline(
                &self,
                path: &str,
                about: &'static [&'static str],
                items: &mut Vec<$crate::config::section::Item>,
            ) {
                use $crate::config::section::Item;
                if !path.is_empty() {
                    items.push(Item::Section { path: path.to_owned(), about, repeated: false });
                }
                $( items.push(Item::Key {
                    section: path.to_owned(),
                    name: stringify!($key).trim_start_matches("r#"),
                    about: &[$($key_doc),+],
                    default: toml::Value::try_from(&self.$key).ok(),
                }); )*
                $( $( self.$inner.outline(&$crate::config::section::join(path, stringify!($inner)), &[$($inner_doc),+], items); )+ )?
            }
        }
    };
}

/// Declares a closed set of words. serde's derive would also accept a variant's number.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])+
        $name:ident { $( $variant:ident = $word:literal, )+ }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $( $variant, )+
        }

        impl $name {
            pub(crate) const WORDS: &'static [&'static str] = &[$( $word ),+];
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match String::deserialize(deserializer)?.as_str() {
                    $( $word => Ok(Self::$variant), )+
                    other => Err(serde::de::Error::unknown_variant(other, Self::WORDS)),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(match self {
                    $( Self::$variant => $word, )+
                })
            }
        }
    };
}
pub(crate) use {choice, section};
