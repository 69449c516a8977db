//! The `override` of tokens and of API calls: options of a namespace, turned on or off for one subscription.

use fanwire_hub::Overrides;
use fanwire_protocol::json::null_is_default;
use serde::Deserialize;

use fanwire_protocol::json::fields::nested;

/// An option that is not named stays as in the namespace.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OverrideOptions {
    #[serde(deserialize_with = "nested")]
    presence: Option<OverrideValue>,
    #[serde(deserialize_with = "nested")]
    join_leave: Option<OverrideValue>,
    #[serde(deserialize_with = "nested")]
    force_push_join_leave: Option<OverrideValue>,
    #[serde(deserialize_with = "nested")]
    force_positioning: Option<OverrideValue>,
    #[serde(deserialize_with = "nested")]
    force_recovery: Option<OverrideValue>,
}

/// Without `value` it turns the option off: backends that leave out zero values write `false` so.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct OverrideValue {
    #[serde(deserialize_with = "null_is_default")]
    value: bool,
}

impl From<OverrideOptions> for Overrides {
    fn from(options: OverrideOptions) -> Self {
        let value = |option: Option<OverrideValue>| option.map(|option| option.value);
        Self {
            presence: value(options.presence),
            join_leave: value(options.join_leave),
            force_push_join_leave: value(options.force_push_join_leave),
            force_positioning: value(options.force_positioning),
            force_recovery: value(options.force_recovery),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_turned_on_and_off() {
        let options: OverrideOptions = serde_json::from_str(
            r#"{"presence":{"value":true},"join_leave":{"value":false},"force_push_join_leave":{"value":null},
                "force_recovery":{},"force_positioning":null,"other":1}"#,
        )
        .unwrap();
        let expected = Overrides {
            presence: Some(true),
            join_leave: Some(false),
            force_push_join_leave: Some(false),
            force_positioning: None,
            force_recovery: Some(false),
        };
        assert_eq!(Overrides::from(options), expected);
        for wrong in [r#"{"presence":true}"#, r#"{"presence":{"value":1}}"#, r#"{"presence":[true]}"#] {
            assert!(serde_json::from_str::<OverrideOptions>(wrong).is_err(), "{wrong}");
        }
    }
}
