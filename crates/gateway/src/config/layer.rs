//! One source of values, read alone: values that are unknown or of the wrong kind are removed and reported before
//! layers are merged, so that each problem names its source.

use figment::error::{Actual, Kind};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use serde::Deserialize;

use super::checks::{ConfigSource, Problem};
use super::{Config, WITHOUT_MEANING, outline};

/// The values of one source. Later layers win over earlier ones.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) source: ConfigSource,
    pub(super) values: Dict,
}

impl Layer {
    /// Returns true if this layer sets `key`, or something inside of it.
    pub(super) fn sets(&self, key: &str) -> bool {
        let mut path = key.split('.');
        let Some(value) = path.next().and_then(|first| self.values.get(first)) else { return false };
        find(value, path).is_some()
    }

    /// Removes values that do not fit, and returns the problems.
    pub(super) fn clean(&mut self) -> Vec<Problem> {
        without_empty(&mut self.values);
        let mut problems = Vec::new();
        for key in WITHOUT_MEANING {
            if self.sets(key) {
                let path: Vec<String> = key.split('.').map(str::to_owned).collect();
                problems.push(self.problem(&path, format!("unknown key{}", elsewhere(&path))));
                remove(&mut self.values, &path);
            }
        }
        // serde stops at the first mistake: report it, remove it, try again.
        while let Err(error) = Config::deserialize(&Value::from(self.values.clone())) {
            problems.push(self.problem(&error.path, describe(&error)));
            if !remove(&mut self.values, &error.path) {
                break;
            }
        }
        problems
    }

    fn problem(&self, path: &[String], text: String) -> Problem {
        Problem { source: Some(self.source.clone()), key: shown(path), text }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// Returns a path as text, as in `topics.namespaces[0].name`.
pub(super) fn shown(path: &[String]) -> String {
    let mut text = String::new();
    for part in path {
        if part.parse::<usize>().is_ok() {
            text.push_str(&format!("[{part}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(part);
        }
    }
    text
}

/// Returns true if `path` without its indexes is a key or a section.
pub(super) fn is_known(path: &[String]) -> bool {
    let names: Vec<&str> =
        path.iter().map(String::as_str).filter(|part| part.parse::<usize>().is_err()).collect();
    let wanted = names.join(".");
    outline().iter().any(|item| item.path() == wanted)
}

fn describe(error: &figment::Error) -> String {
    match &error.kind {
        Kind::UnknownField(name, known) => format!("unknown key{}", hint(name, known, &error.path)),
        Kind::InvalidType(actual, expected) => {
            format!("expected {}, found {}", in_words(expected), kind_of(actual))
        }
        Kind::InvalidValue(_, expected) => {
            format!("expected {}; this number is out of range", in_words(expected))
        }
        Kind::UnknownVariant(name, known) => {
            format!(
                "\"{name}\" is not one of {}",
                known.iter().map(|k| format!("\"{k}\"")).collect::<Vec<_>>().join(", ")
            )
        }
        Kind::Message(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Suggests the nearest known key, or the sections that have a key of this name.
fn hint(name: &str, known: &[&str], path: &[String]) -> String {
    if let Some(ours) = crate::import::name_here(&shown(path)) {
        return format!("; that is Centrifugo's name, here it is `{ours}`");
    }
    let nearest = known
        .iter()
        .map(|key| (strsim::jaro_winkler(name, key), *key))
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .filter(|(likeness, _)| *likeness > 0.8);
    match nearest {
        Some((_, key)) => format!("; did you mean `{key}`?"),
        None => {
            let place = elsewhere(path);
            if place.is_empty() { format!("; known here: {}", known.join(", ")) } else { place }
        }
    }
}

fn elsewhere(path: &[String]) -> String {
    let Some(name) = path.last() else { return String::new() };
    let suffix = format!(".{name}");
    let places: Vec<String> =
        outline().iter().map(super::Item::path).filter(|known| known.ends_with(&suffix)).collect();
    if places.is_empty() { String::new() } else { format!("; there is {}", places.join(" and ")) }
}

/// Translates serde's names of types for people who write configuration files.
fn in_words(expected: &str) -> &str {
    match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "usize" | "u64" => "a whole number, not negative",
        "i64" => "a whole number",
        "a boolean" => "true or false",
        "a string" => "text in quotes",
        "a sequence" => "a list",
        struct_name if struct_name.starts_with("struct ") => "a section",
        other => other,
    }
}

/// Names the kind alone, since the value may be a secret in the wrong place.
fn kind_of(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) => "a number",
        Actual::Float(_) => "a number with a fraction",
        Actual::Char(_) | Actual::Str(_) => "text",
        Actual::Seq => "a list",
        Actual::Map => "a section",
        Actual::Unit | Actual::Option => "nothing",
        _ => "something else",
    }
}

/// Removes YAML's `key:` and JSON's `null`, which leave the default.
fn without_empty(values: &mut Dict) {
    values.retain(|_, value| !matches!(value, Value::Empty(..)));
    for value in values.values_mut() {
        without_empty_inside(value);
    }
}

fn without_empty_inside(value: &mut Value) {
    match value {
        Value::Dict(_, inner) => without_empty(inner),
        Value::Array(_, items) => items.iter_mut().for_each(without_empty_inside),
        _ => {}
    }
}

fn find<'v, 'p>(value: &'v Value, mut path: impl Iterator<Item = &'p str>) -> Option<&'v Value> {
    path.try_fold(value, |value, part| match value {
        Value::Dict(_, inner) => inner.get(part),
        Value::Array(_, items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Removes the value at `path`. For an item of a list it removes the whole list, so that no item changes its index.
fn remove(values: &mut Dict, path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else { return false };
    let inside = match (values.get_mut(name), rest) {
        (None, _) => return false,
        (Some(_), []) => false,
        (Some(Value::Dict(_, inner)), _) => remove(inner, rest),
        (Some(Value::Array(_, items)), [index, key @ ..]) => {
            match index.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                Some(Value::Dict(_, inner)) => remove(inner, key),
                _ => false,
            }
        }
        (Some(_), _) => false,
    };
    inside || values.remove(name).is_some()
}

#[cfg(test)]
mod tests {
    use figment::providers::{Format, Toml};

    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let mut data = Toml::string(text).data().unwrap();
        let values = data.remove(&Profile::Default).unwrap_or_default();
        let mut layer = Layer { source: ConfigSource::File("a.toml".into()), values };
        let found = layer.clean().iter().map(Problem::to_string).collect();
        assert!(layer.clean().is_empty());
        found
    }

    #[test]
    fn all_mistakes_are_found_at_once() {
        let text = "prot = 1\n[server]\nport = 70000\nshards = -1\n[client]\nping_intervall = '5s'\npong_timeout = 8\n\
                    [client.token]\nhmac_secret = 12345\nenabled = true\n\
                    [[topics.namespaces]]\nname = 'ok'\n[[topics.namespaces]]\nname = 'chat'\nhistory_sise = 1\n";
        let found = problems(text);
        for expected in [
            "a.toml: prot: unknown key",
            "a.toml: server.port: expected a whole number from 0 to 65535; this number is out of range",
            "a.toml: server.shards: a number of shards is not negative",
            "a.toml: client.ping_intervall: unknown key; did you mean `ping_interval`?",
            "a.toml: client.pong_timeout: 8 has no unit; units are ms, s, m, h and d",
            "a.toml: client.token.hmac_secret: expected text in quotes, found a number",
            "a.toml: client.token.enabled: unknown key; there is client.subscription_token.enabled",
            "a.toml: topics.namespaces[1].history_sise: unknown key; did you mean `history_size`?",
        ] {
            assert!(found.iter().any(|line| line.starts_with(expected)), "{expected}\nnot in {found:#?}");
        }
        assert_eq!(found.len(), 8, "{found:#?}");
        assert!(!found.concat().contains("12345"));
    }

    #[test]
    fn keys_of_other_sections_and_other_servers_are_recognised() {
        let found = problems("[server]\nhistory_page_max = 3\n[client]\nchannel_limit = 5\n");
        assert!(found.iter().any(|line| line.contains("there is client.history_page_max")), "{found:#?}");
        assert!(
            found.iter().any(|line| line.contains("here it is `client.subscriptions_max`")),
            "{found:#?}"
        );
    }

    #[test]
    fn lists_and_sections_of_the_wrong_kind_are_named() {
        let found = problems("client = 3\n[api]\nkeys = ['a', 2]\non = 'everywhere'\n");
        for expected in [
            "a.toml: client: expected a section, found a number",
            "a.toml: api.keys[1]: expected text in quotes, found a number",
            "a.toml: api.on: \"everywhere\" is not one of \"client\", \"internal\", \"both\"",
        ] {
            assert!(found.iter().any(|line| line == expected), "{expected}\nnot in {found:#?}");
        }
    }
}
