//! `FANWIRE_` variables: each is a layer of its own, so that a mistake names its variable.
//!
//! A variable's value is text, and stays text where the setting takes text: a secret of `0012` or `true` is kept as it
//! is. Only if the setting refuses the text is it read as a number, truth value, list or table.

use std::collections::BTreeMap;
use std::ffi::OsString;

use figment::value::{Dict, Value};

use super::checks::{ConfigSource, Problem};
use super::layer::{Layer, is_known};

const PREFIX: &str = "FANWIRE_";
const FILE_SUFFIX: &str = "_FILE";

/// The layers, problems and warnings of the environment.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) layers: Vec<Layer>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

impl Environment {
    pub(super) fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut found = Self::default();
        let mut ours = Vec::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            match value.into_string() {
                Ok(value) => ours.push((name.to_owned(), value)),
                Err(_) => found.refuse(name, "its value is not UTF-8"),
            }
        }
        ours.sort();
        for (name, value) in &ours {
            let plain = name.strip_suffix(FILE_SUFFIX).unwrap_or(name);
            if is_service_link(name, value) {
                found.warnings.push(format!(
                    "{name} is ignored: Kubernetes sets it for a Service of this name (enableServiceLinks: false stops that)"
                ));
            } else if plain != name && is_known(&path_of(plain)) && !is_known(&path_of(name)) {
                if ours.iter().any(|(other, _)| other == plain) {
                    found.refuse(name, &format!("is set beside {plain}; choose one"));
                } else {
                    found.read_file(name, plain, value);
                }
            } else {
                found.read_value(name, name, value);
            }
        }
        found
    }

    fn read_file(&mut self, name: &str, plain: &str, file: &str) {
        match std::fs::read_to_string(file) {
            Ok(text) => self.read_value(name, plain, text.trim_end_matches(['\n', '\r'])),
            Err(error) => self.refuse(name, &format!("cannot read {file}: {error}")),
        }
    }

    /// Reads the value of the key that `plain` names; problems name the variable `name`.
    fn read_value(&mut self, name: &str, plain: &str, text: &str) {
        let path = path_of(plain);
        if path.iter().any(String::is_empty) {
            let example = "FANWIRE_CLIENT__PING_INTERVAL";
            self.refuse(
                name,
                &format!(
                    "has an empty part; sections and keys are joined by two underscores, as in {example}"
                ),
            );
            return;
        }
        let mut told = Vec::new();
        for reading in readings(text, &path) {
            let mut layer = Layer {
                source: ConfigSource::Variable(name.to_owned()),
                values: nested(&path, reading.value),
            };
            let problems = layer.clean();
            if problems.is_empty() {
                self.layers.push(layer);
                return;
            }
            if reading.likely {
                told = problems;
            }
        }
        self.problems.append(&mut told);
    }

    fn refuse(&mut self, name: &str, text: &str) {
        let source = Some(ConfigSource::Variable(name.to_owned()));
        self.problems.push(Problem { source, key: String::new(), text: text.to_owned() });
    }
}

/// `FANWIRE_CLIENT__PING_INTERVAL` is `client.ping_interval`.
fn path_of(name: &str) -> Vec<String> {
    name[PREFIX.len()..].split("__").map(str::to_lowercase).collect()
}

fn nested(path: &[String], value: Value) -> Dict {
    let mut parts = path.iter().rev();
    let last = parts.next().map(String::as_str).unwrap_or_default();
    parts.fold(Dict::from([(last.to_owned(), value)]), |inner, part| {
        Dict::from([(part.clone(), Value::from(inner))])
    })
}

struct Reading {
    value: Value,
    /// Problems with this reading are reported, unless a later likely reading has some, too.
    likely: bool,
}

/// Returns the possible readings of a text in the order of trial: the text itself, JSON or TOML, a list.
fn readings(text: &str, path: &[String]) -> Vec<Reading> {
    let toml = || toml::from_str::<BTreeMap<String, Value>>(&format!("value = {text}")).ok()?.remove("value");
    let parsed: Option<Value> = serde_json::from_str(text).ok().or_else(toml);
    let list = Value::from(items(text, path).into_iter().map(Value::from).collect::<Vec<_>>());
    let mut all = vec![Reading { value: Value::from(text), likely: true }];
    let parsed = parsed.filter(|value| !matches!(value, Value::String(..)));
    all.extend(parsed.map(|value| Reading { value, likely: true }));
    all.push(Reading { value: list, likely: false });
    all
}

/// Splits a list at commas, blanks and line breaks. Each item may be in quotes, and all in brackets. Keys of the API
/// may contain blanks and single quotes.
fn items<'t>(text: &'t str, path: &[String]) -> Vec<&'t str> {
    let are_keys = path.join(".") == "api.keys";
    let ends = |letter: char| match are_keys {
        true => matches!(letter, ',' | '\n' | '\r'),
        false => letter == ',' || letter.is_whitespace(),
    };
    let is_quote = |letter: char| letter == '"' || (letter == '\'' && !are_keys);
    let text = text.trim();
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let items = text.split(ends).map(|item| item.trim().trim_matches(is_quote));
    items.filter(|item| !item.is_empty()).collect()
}

/// Returns true for variables that Kubernetes sets in every container for a Service called `fanwire` or `fanwire-…`.
fn is_service_link(name: &str, value: &str) -> bool {
    const SCHEMES: [&str; 3] = ["tcp://", "udp://", "sctp://"];
    if name.contains("__") {
        return false;
    }
    let is_port_of_protocol = || {
        let Some((_, rest)) = name.split_once("_PORT_") else { return false };
        let Some((port, protocol)) = rest.split_once('_') else { return false };
        let protocol = protocol.split('_').next().unwrap_or_default();
        port.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].contains(&protocol)
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && SCHEMES.iter().any(|scheme| value.starts_with(scheme)))
        || is_port_of_protocol()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        Environment::read(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn value(variables: &[(&str, &str)], section: &str, key: &str) -> Value {
        let found = read(variables);
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        figment::Figment::from(found.layers[0].clone()).find_value(&format!("{section}.{key}")).unwrap()
    }

    #[test]
    fn secrets_keep_their_text() {
        for text in ["12345", "true", "0012", "[1, 2]", "{a=1}", "1e3", "\"quoted\"", " padded "] {
            let value = value(&[("FANWIRE_CLIENT__TOKEN__HMAC_SECRET", text)], "client.token", "hmac_secret");
            assert_eq!(value.as_str(), Some(text));
        }
        for text in ["12345", "0012", "[0012]", "[\"0012\"]"] {
            let value = value(&[("FANWIRE_API__KEYS", text)], "api", "keys");
            let item = value.as_array().unwrap()[0].as_str().unwrap();
            assert_eq!(item, text.trim_matches(['[', ']', '"']));
        }
    }

    #[test]
    fn other_settings_are_read_as_they_need() {
        assert_eq!(value(&[("FANWIRE_SERVER__PORT", "81")], "server", "port").to_u128(), Some(81));
        assert_eq!(
            value(&[("FANWIRE_CLIENT__INSECURE", "true")], "client", "insecure").to_bool(),
            Some(true)
        );
        let json = r#"[{"name":"chat","history_size":5,"history_ttl":"1m"}]"#;
        let namespaces = value(&[("FANWIRE_TOPICS__NAMESPACES", json)], "topics", "namespaces");
        assert!(namespaces.as_array().unwrap()[0].as_dict().is_some());
    }

    #[test]
    fn lists_are_split_at_commas_blanks_and_line_breaks() {
        let list = |variable, text, section, key| {
            let value = value(&[(variable, text)], section, key);
            let items: Vec<String> =
                value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect();
            items
        };
        for text in [
            "https://a.example,https://b.example",
            "https://a.example https://b.example",
            "https://a.example\nhttps://b.example\n",
            " https://a.example ,\r\n\thttps://b.example, ",
            r#"["https://a.example", "https://b.example"]"#,
            "['https://a.example', 'https://b.example']",
            "[https://a.example https://b.example]",
            r#""https://a.example" 'https://b.example'"#,
            r#""https://a.example https://b.example""#,
            "'https://a.example,https://b.example'",
        ] {
            let items = list("FANWIRE_CLIENT__ALLOWED_ORIGINS", text, "client", "allowed_origins");
            assert_eq!(items, ["https://a.example", "https://b.example"], "{text}");
        }
        let items =
            list("FANWIRE_CLIENT__ALLOWED_ORIGINS", "http://[::1] http://[::1]", "client", "allowed_origins");
        assert_eq!(items, ["http://[::1]"; 2]);
        let keys = list("FANWIRE_API__KEYS", "one key,another\r\n a third ", "api", "keys");
        assert_eq!(keys, ["one key", "another", "a third"]);
    }

    #[test]
    fn mistakes_name_the_variable() {
        let found = read(&[
            ("FANWIRE_CLIENT__PING_INTERVALL", "5s"),
            ("FANWIRE_CLIENT__PONG_TIMEOUT", "8"),
            ("FANWIRE_NONSENSE", "1"),
            ("FANWIRE_REDIS__", "1"),
            ("FANWIRE_SERVER__PORT", "many"),
            ("FANWIRE_API__KEYS_FILE", "/no/such/file"),
            ("FANWIRE_CLIENT__TOKEN__HMAC_SECRET", "a"),
            ("FANWIRE_CLIENT__TOKEN__HMAC_SECRET_FILE", "b"),
            ("OTHER", "1"),
        ]);
        let lines: Vec<String> = found.problems.iter().map(Problem::to_string).collect();
        for expected in [
            "FANWIRE_CLIENT__PING_INTERVALL (client.ping_intervall): unknown key; did you mean `ping_interval`?",
            "FANWIRE_CLIENT__PONG_TIMEOUT (client.pong_timeout): 8 has no unit",
            "FANWIRE_NONSENSE (nonsense): unknown key",
            "FANWIRE_REDIS__: has an empty part",
            "FANWIRE_SERVER__PORT (server.port): expected a whole number from 0 to 65535, found text",
            "FANWIRE_API__KEYS_FILE: cannot read /no/such/file",
            "FANWIRE_CLIENT__TOKEN__HMAC_SECRET_FILE: is set beside FANWIRE_CLIENT__TOKEN__HMAC_SECRET; choose one",
        ] {
            assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected}\nnot in {lines:#?}");
        }
        assert_eq!(lines.len(), 7, "{lines:#?}");
    }

    #[test]
    fn service_links_are_dropped_with_a_warning() {
        let links = [
            ("FANWIRE_PORT", "tcp://10.0.0.1:8000"),
            ("FANWIRE_SERVICE_HOST", "10.0.0.1"),
            ("FANWIRE_SERVICE_PORT", "8000"),
            ("FANWIRE_SERVICE_PORT_HTTP", "8000"),
            ("FANWIRE_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("FANWIRE_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("FANWIRE_PORT_80_TCP_PROTO", "tcp"),
            ("FANWIRE_CLIENT_SERVICE_HOST", "10.0.0.1"),
            ("FANWIRE_CLIENT_PORT", "tcp://10.0.0.1:80"),
            ("FANWIRE_INTERNAL_PORT_9000_TCP_PORT", "9000"),
        ];
        let found = read(&links);
        assert!(found.problems.is_empty() && found.layers.is_empty(), "{found:?}");
        assert_eq!(found.warnings.len(), links.len());
        assert_eq!(read(&[("FANWIRE_SERVER__PORT", "tcp://10.0.0.1:80")]).problems.len(), 1);
    }

    #[test]
    fn files_lose_their_last_newline_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " 0012 \n").unwrap();
        let path = file.path().to_str().unwrap();
        let secret =
            value(&[("FANWIRE_CLIENT__TOKEN__HMAC_SECRET_FILE", path)], "client.token", "hmac_secret");
        assert_eq!(secret.as_str(), Some(" 0012 "));
    }
}
