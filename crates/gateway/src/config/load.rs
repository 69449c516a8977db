//! Reads all sources into settings: defaults < `--dev` < files < environment < flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fanwire_server::Settings;
use figment::Figment;
use figment::providers::{Format, Json, Toml, Yaml};
use figment::value::{Dict, Value};

use super::checks::{Checks, ConfigSource, Problem};
use super::environment::Environment;
use super::layer::{Layer, shown};
use super::section::Item;
use super::{Config, dev, events, hooks, outline, risks, tls};

/// The sources of values, the weakest first.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) dev: bool,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) flags: Vec<Flag>,
}

/// A flag of the command line that sets a key.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) section: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: Value,
}

/// A configuration without mistakes.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
}

/// Reads all sources. Warnings are returned on success and on failure.
pub(crate) fn load(sources: Sources) -> (Result<Loaded, Vec<Problem>>, Vec<String>) {
    let mut layers = Vec::new();
    let mut problems = Vec::new();
    if sources.dev {
        layers.push(dev::layer());
    }
    for file in sources.files {
        match read_file(&file) {
            Ok(values) => layers.push(Layer { source: ConfigSource::File(file), values }),
            Err(text) => {
                problems.push(Problem { source: Some(ConfigSource::File(file)), key: String::new(), text })
            }
        }
    }
    let mut environment = Environment::read(sources.environment);
    layers.append(&mut environment.layers);
    problems.append(&mut environment.problems);
    let mut warnings = environment.warnings;
    layers.extend(sources.flags.into_iter().map(|flag| Layer {
        source: ConfigSource::Flag(flag.name),
        values: Dict::from([(flag.section.into(), Dict::from([(flag.key.into(), flag.value)]).into())]),
    }));
    let result = build(layers, problems, sources.dev, ConfigFiles::Read, &mut warnings);
    (result, warnings)
}

/// Reads the values of a file in TOML, YAML or JSON.
pub(crate) fn read_file(file: &Path) -> Result<Dict, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    let value = match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => Toml::from_str::<Value>(&text).map_err(|error| {
            // The error's full text quotes the line, which may hold a secret.
            let place =
                error.span().map_or(String::new(), |span| format!("line {}: ", line_of(&text, span.start)));
            format!("{place}{}", error.message().trim().replace('\n', "; "))
        }),
        Some("yaml" | "yml") => Yaml::from_str::<Value>(&text).map_err(|error| error.to_string()),
        Some("json") => Json::from_str::<Value>(&text).map_err(|error| error.to_string()),
        _ => return Err("is of an unknown kind: its name must end in .toml, .yaml, .yml or .json".into()),
    }?;
    match value {
        Value::Dict(_, values) => Ok(values),
        Value::Empty(..) => Ok(Dict::new()),
        _ => Err("does not hold sections".into()),
    }
}

/// Returns the problems and warnings of a file alone, without any other source. Files that it names need not exist.
pub(crate) fn judge(values: Dict, file: PathBuf) -> (Vec<Problem>, Vec<String>) {
    let layer = Layer { source: ConfigSource::File(file), values };
    let mut warnings = Vec::new();
    let built = build(vec![layer], Vec::new(), false, ConfigFiles::Named, &mut warnings);
    (built.err().unwrap_or_default(), warnings)
}

/// The treatment of files that the configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConfigFiles {
    Read,
    Named,
}

fn build(
    mut layers: Vec<Layer>,
    mut problems: Vec<Problem>,
    dev: bool,
    files: ConfigFiles,
    warnings: &mut Vec<String>,
) -> Result<Loaded, Vec<Problem>> {
    for layer in &mut layers {
        problems.append(&mut layer.clean());
    }
    let merged = layers.iter().fold(Figment::new(), |merged, layer| merged.merge(layer.clone()));
    let mut config: Config = match merged.extract() {
        Ok(config) => config,
        Err(error) => {
            problems.extend(error.into_iter().map(|error| Problem {
                source: None,
                key: shown(&error.path),
                text: error.kind.to_string(),
            }));
            return Err(problems);
        }
    };
    let mut checks = Checks::default();
    let dev = dev.then(|| dev::complete(&mut config, &mut checks));
    let mut settings = config.settings(&mut checks);
    settings.connection_tokens.dev_secret = dev.as_ref().map(|dev| dev.token_secret.clone());
    settings.dev = dev;
    if let Some(settings) = settings.tls.as_ref().filter(|_| files == ConfigFiles::Read) {
        tls::check_files(settings, &mut checks);
    }
    if files == ConfigFiles::Read {
        hooks::check_files(&settings.hooks, &mut checks);
        settings.webhook.iter().for_each(|webhook| events::check_files(webhook, &mut checks));
    }
    risks::warn(&settings, settings.dev.is_some(), &mut checks);
    if settings.dev.is_none() && !config.client.takes_tokens() {
        config.topics.warn_of_refresh_without_end(&mut checks);
    }
    warn_of_unused_engine(&config, &layers, &mut checks);

    let located = |(key, text): (String, String)| {
        let source = layers.iter().rev().find(|layer| layer.sets(&key)).map(|layer| layer.source.clone());
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        Problem { source, key: shown(&path), text }
    };
    problems.extend(checks.errors.into_iter().map(located));
    warnings.extend(checks.warnings.into_iter().map(|warning| located(warning).to_string()));
    if problems.is_empty() { Ok(Loaded { config, settings }) } else { Err(problems) }
}

/// Warns of keys of the engine that is not chosen: they are valid and have no effect.
fn warn_of_unused_engine(config: &Config, layers: &[Layer], checks: &mut Checks) {
    let (section, used) = config.engine.unused_section();
    for item in outline() {
        if let Item::Key { section: of, .. } = &item
            && of == section
            && layers.iter().any(|layer| layer.sets(&item.path()))
        {
            checks.warn(item.path(), format!("is not used: engine.type is \"{used}\""));
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn problems(name: &str, text: &str) -> String {
        let (_folder, path) = file(name, text);
        let (result, _) = load(Sources { files: vec![path], ..Sources::default() });
        let problems = result.map(|_| Vec::new()).unwrap_or_else(|problems| problems);
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn later_sources_win() {
        let (_one, first) = file("a.toml", "[server]\nport = 1\nbacklog = 11\nname = 'file'\n");
        let (_two, second) = file("b.yaml", "server:\n  port: 2\n  shards: 3\nclient:\n");
        let sources = Sources {
            files: vec![first, second],
            environment: vec![
                ("FANWIRE_SERVER__PORT".into(), "3".into()),
                ("FANWIRE_SERVER__SHARDS".into(), "5".into()),
            ],
            flags: vec![Flag { name: "--port", section: "server", key: "port", value: Value::from(4u16) }],
            ..Sources::default()
        };
        let settings = load(sources).0.unwrap().settings;
        assert_eq!(settings.client_address.port(), 4);
        assert_eq!(settings.shards, 5);
        assert_eq!(settings.admission.backlog, 11);
        assert_eq!(settings.name, "file");
    }

    #[test]
    fn files_that_cannot_be_parsed_say_where_but_not_what() {
        let found = problems("a.toml", "[client.token]\nhmac_secret = hunter2\n");
        assert!(found.contains("line 2"), "{found}");
        assert!(!found.contains("hunter2"), "{found}");
        assert!(problems("a.json", "{").contains("line 1"));
        assert!(problems("a.yaml", "a: [").contains("a.yaml"));
        assert!(problems("a.ini", "").contains("must end in .toml"));
        assert!(problems("a.json", "3").contains("does not hold sections"));
        assert_eq!(problems("a.yaml", ""), "");
    }

    #[test]
    fn keys_of_the_engine_that_is_not_used_are_told() {
        fn warnings(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
            let (_folder, path) = file("a.toml", text);
            let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
            load(Sources { files: vec![path], environment, ..Sources::default() }).1
        }
        let password = ("FANWIRE_ENGINE__REDIS__PASSWORD", "0012");
        let told = warnings("[engine.redis]\naddress = '127.0.0.1:6379'\n[engine.memory]\n", &[password]);
        assert_eq!(told.len(), 2, "{told:#?}");
        assert!(told[0].ends_with("a.toml: engine.redis.address: is not used: engine.type is \"memory\""));
        assert!(told[1].starts_with("FANWIRE_ENGINE__REDIS__PASSWORD (engine.redis.password): is not used"));
        let text = "[engine]\ntype = 'redis'\n[engine.memory]\nhistory_bytes_max = '1MiB'\n";
        let told = warnings(text, &[password]);
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(told[0].contains("engine.memory.history_bytes_max: is not used: engine.type is \"redis\""));
    }

    #[test]
    fn files_that_are_named_need_not_be_there_for_a_translation() {
        let (_folder, path) =
            file("a.toml", "[server.tls]\ncertificate_file = '/no/such.crt'\nkey_file = '/no/such.key'\n");
        let (result, _) = load(Sources { files: vec![path.clone()], ..Sources::default() });
        let problem = result.unwrap_err()[0].to_string();
        let expected = "a.toml: server.tls.certificate_file: /no/such.crt: cannot be read";
        assert!(problem.contains(expected), "{problem}");
        assert_eq!(judge(read_file(&path).unwrap(), path).0, []);
    }

    #[test]
    fn settings_that_contradict_each_other_are_all_named() {
        let found = problems(
            "a.toml",
            "[server]\nport = 9000\nshards = 0\nhttp_connections_max = 9223372036854775807\n\
             trusted_proxies = ['10.0.0.0/40', '::/0', '10.1.2.3/8', '192.0.2.1']\n\
             [server.tls]\nkey_file = 'key.pem'\nreload_interval = '10ms'\n[client]\nping_interval = '5s'\nstale_close_delay = '0s'\n\
             [client.token]\nhmac_secret = ''\nrsa_public_key = 'x'\naudience = 'a'\naudience_regex = 'b'\n\
             [client.personal_topic]\nenabled = true\nnamespace = 'none'\n\
             [shutdown]\npropagation = '25h'\nwindow = '2d'\ntimeout = '30d'\n\
             [subscribe]\npath = '/api/subscribe'\ntoken_cookie = 'a b'\nsubprotocols = ['a b', 'centrifuge-json']\n\
             heartbeats = ['ping', '=x', 'a=b', 'a=c']\n[publish]\nbody_bytes_max = 0\n[probe]\npath = '/connection/websocket'\n[sse]\npath = '/api/subscribe'\n[log]\nlevel = 'loud'\n[api]\npath = 'api/'\nkeys = ['']\n\
             [topics]\nuser_boundary = ':'\nhistory_meta_ttl = '1m'\n\
             [topics.default]\nhistory_size = 3\nauto_cache_recover = true\n\
             [[topics.namespaces]]\nname = 'x'\ntopic_regex = '('\n\
             [[topics.namespaces]]\nname = 'chat'\nhistory_size = 1\nhistory_ttl = '1500ms'\n\
             [[topics.namespaces]]\nname = 'chat'\nforce_recovery = true\n\
             [[topics.namespaces]]\nname = 'long'\nhistory_size = 1\nhistory_ttl = '1h'\n",
        );
        for expected in [
            "internal.port: is server.port too (9000)",
            "server.shards: must be \"auto\" or 1 to 1024",
            "server.http_connections_max: must be 1 to 1073741824",
            "server.trusted_proxies: \"10.0.0.0/40\" is neither a network nor an address",
            "server.trusted_proxies: \"::/0\" trusts every client",
            "server.tls.key_file: needs server.tls.certificate_file as well",
            "server.tls.reload_interval: must be 1s to 24h",
            "client.pong_timeout: must be less than client.ping_interval (8s is not less than 5s)",
            "client.stale_close_delay: must be longer than 0s",
            "client.token.hmac_secret: the secret is empty",
            "client.token.rsa_public_key: this is not PEM",
            "client.token.audience_regex: is set beside audience",
            "client.personal_topic.namespace: \"none\" is not the name",
            "shutdown.propagation: must be 0s to 24h",
            "shutdown.window: must be 0s to 24h",
            "shutdown.timeout: must be 0s to 24h",
            "subscribe.token_cookie: must be a cookie's name",
            "subscribe.subprotocols: \"a b\" cannot be a sub-protocol",
            "subscribe.subprotocols: \"centrifuge-json\" is the Centrifuge protocol, which websocket.path speaks",
            "subscribe.heartbeats: \"ping\" must be a text and its answer",
            "subscribe.heartbeats: \"=x\" must be a text and its answer",
            "subscribe.heartbeats: \"a\" is there twice",
            "publish.body_bytes_max: must be at least 1",
            "log.level: must be one of",
            "api.path: must be a path",
            "probe.path: \"/connection/websocket\" is taken by websocket.path",
            "sse.path: \"/api/subscribe\" is taken by subscribe.path; [subscribe] is what [sse] was",
            "api.keys: has an empty key",
            "topics.user_boundary: is the same as topics.namespace_boundary",
            "topics.default.history_size: needs history_ttl as well",
            "topics.default.auto_cache_recover: needs force_recovery",
            "topics.namespaces[0].name: \"x\" must be two or more",
            "topics.namespaces[0].topic_regex: is not a regular expression: unclosed group",
            "topics.namespaces[1].history_ttl: must be whole seconds",
            "topics.namespaces[2].name: \"chat\" is the name of two namespaces",
            "topics.namespaces[2].force_recovery: needs history",
            "topics.namespaces[3].history_meta_ttl: must be at least history_ttl (1m is less than 1h)",
        ] {
            assert!(found.contains(expected), "{expected}\nnot in\n{found}");
        }
    }
}
