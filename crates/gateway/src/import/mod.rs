//! `fanwire config import centrifugo`: translates a Centrifugo v6 configuration.
//!
//! Every key of the original is either in the translation or in the list of omitted keys, with the reason.

mod hooks;
mod redis;
mod rules;
mod value;

use std::collections::BTreeSet;
use std::path::Path;

use figment::value::{Dict, Value};

use crate::config::{judge, write_file};
use hooks::NAMESPACE_HOOKS;
use rules::{NAMESPACE_LEFT_OUT, NAMESPACE_RULES, Rule, reason_of, rule_of};
use value::convert;

pub(crate) use rules::name_here;

/// The result of a translation.
#[derive(Debug)]
pub(crate) struct Translation {
    /// The translated configuration, in TOML.
    pub(crate) text: String,
    /// Omitted keys, each with its reason.
    pub(crate) left_out: Vec<LeftOut>,
    /// Remaining mistakes; empty unless the original contradicts itself.
    pub(crate) problems: Vec<String>,
    /// Settings that are valid and doubtful.
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) key: String,
    pub(crate) reason: String,
}

const REDIS_ADDRESS: &str = "engine.redis.address";
const PUBLICATION_FORMAT: &str = "topics.publication_format";
const TLS: &str = "http_server.tls";
const TLS_SWITCH: &str = "http_server.tls.enabled";
/// Centrifugo's default port for clients.
const PORT_THERE: i64 = 8000;
const UNKNOWN: &str = "not a setting of Centrifugo v6";
const UNKNOWN_AT_TOP: &str =
    "not a setting of Centrifugo v6; files of older versions are converted to version 6 first";

/// Translates a configuration. Relative paths of key files begin at `folder`.
pub(crate) fn translate(values: &Dict, folder: &Path) -> Translation {
    let proxies = hooks::named_proxies(values);
    let mut translator = Translator { folder, proxies, ours: toml::Table::new(), left_out: Vec::new() };
    translator.children("", values);
    translator.hooks(values);
    translator.redis_address(values);
    translator.internal_port(values);
    translator.encryption(values);
    translator.skipped_signatures();
    let (problems, warnings) = translator.without_refused_keys();
    translator.publication_format();
    Translation { text: write_file(&translator.ours), left_out: translator.left_out, problems, warnings }
}

struct Translator<'a> {
    folder: &'a Path,
    /// The names of proxies that the original lists.
    proxies: BTreeSet<String>,
    ours: toml::Table,
    left_out: Vec<LeftOut>,
}

impl Translator<'_> {
    fn children(&mut self, section: &str, values: &Dict) {
        for (name, value) in values {
            let name = name.to_lowercase();
            self.visit(&if section.is_empty() { name } else { format!("{section}.{name}") }, value);
        }
    }

    fn visit(&mut self, key: &str, value: &Value) {
        if let Some((rule, ours)) = rule_of(key) {
            if let Some(value) = self.carried(key, value, rule) {
                set(&mut self.ours, &ours, value);
            }
            return;
        }
        match (key, value) {
            // Translated later, or with their section.
            ("http_api.external" | REDIS_ADDRESS | TLS_SWITCH, _) | (_, Value::Empty(..)) => {}
            ("proxies" | "client.proxy" | "channel.proxy", _) => {}
            ("rpc.proxy" | "rpc.namespaces" | "rpc.without_namespace", _) => {}
            // The default of every text setting.
            (_, Value::String(_, text)) if text.is_empty() => {}
            (TLS, Value::Dict(_, keys)) if !is_on(keys) => self.leave_out(key, "is turned off there"),
            ("channel.without_namespace", Value::Dict(_, options)) => {
                let namespace = self.namespace(key, options);
                set(&mut self.ours, "topics.default", namespace.into());
            }
            ("channel.namespaces", Value::Array(_, list)) => {
                let mut namespaces = Vec::new();
                for (index, item) in list.iter().enumerate() {
                    let Some(options) = item.as_dict() else {
                        self.leave_out(&format!("{key}.{index}"), "is not a section");
                        continue;
                    };
                    let name = options.get("name").and_then(Value::as_str).map(str::to_owned);
                    let key = format!("{key}.{}", name.unwrap_or_else(|| index.to_string()));
                    namespaces.push(toml::Value::Table(self.namespace(&key, options)));
                }
                set(&mut self.ours, "topics.namespaces", namespaces.into());
            }
            _ => match (reason_of(key), value) {
                (Some(reason), _) => self.leave_out(key, reason),
                (None, Value::Dict(_, inner)) => self.children(key, inner),
                (None, _) => self.leave_out(key, if key.contains('.') { UNKNOWN } else { UNKNOWN_AT_TOP }),
            },
        }
    }

    fn namespace(&mut self, theirs: &str, options: &Dict) -> toml::Table {
        let mut namespace = toml::Table::new();
        for (name, value) in options {
            let name = name.to_lowercase();
            let key = format!("{theirs}.{name}");
            if let Some(rule) = NAMESPACE_RULES.iter().find(|rule| rule.theirs == name) {
                if let Some(value) = self.carried(&key, value, rule) {
                    namespace.insert(rule.ours.to_owned(), value);
                }
            } else if matches!(value, Value::Empty(..)) || value.as_str() == Some("") {
                // The default, as in `visit`.
            } else if is_hook_option(&name) {
                // Translated below, together.
            } else if name == "subscription_type" && value.as_str() == Some("stream") {
                // The only kind that Fanwire has.
            } else {
                let reason = NAMESPACE_LEFT_OUT.iter().find(|(left, _)| *left == name);
                self.leave_out(&key, reason.map_or(UNKNOWN, |(_, reason)| reason));
            }
        }
        self.namespace_hooks(options, &mut namespace);
        namespace
    }

    /// Returns the converted value, or `None` if the setting keeps its default or is omitted.
    fn carried(&mut self, key: &str, value: &Value, rule: &Rule) -> Option<toml::Value> {
        match convert(value, rule.how, self.folder) {
            Ok(carried) => carried,
            Err(reason) => {
                self.leave_out(key, &reason);
                None
            }
        }
    }

    /// Translates the address of Redis. A user, password and database in it win over the keys for these.
    fn redis_address(&mut self, values: &Dict) {
        let inside = |values: &Dict, name: &str| values.get(name).and_then(Value::as_dict).cloned();
        let redis = inside(values, "engine").and_then(|engine| inside(&engine, "redis"));
        let Some(address) = redis.as_ref().and_then(|redis| redis.get("address")) else { return };
        match redis::server(address) {
            Ok(keys) => {
                for (key, value) in keys {
                    set(&mut self.ours, &format!("engine.redis.{key}"), value);
                }
            }
            Err(reason) => self.leave_out(REDIS_ADDRESS, reason),
        }
    }

    /// Translates the internal port. In Centrifugo, an internal port other than the clients' listens on the clients'
    /// address by default, and serves the API unless that is `external`.
    fn internal_port(&mut self, values: &Dict) {
        let clients = get(&self.ours, "server.port").and_then(toml::Value::as_integer).unwrap_or(PORT_THERE);
        match get(&self.ours, "internal.port").and_then(toml::Value::as_integer) {
            Some(port) if port != clients => {}
            _ => return,
        }
        if get(&self.ours, "internal.address").is_none() {
            let address = get(&self.ours, "server.address").cloned();
            set(&mut self.ours, "internal.address", address.unwrap_or_else(|| "0.0.0.0".into()));
        }
        let is_external = values
            .get("http_api")
            .and_then(Value::as_dict)
            .and_then(|api| api.get("external"))
            .is_some_and(|external| external.to_bool_lossy() == Some(true));
        set(&mut self.ours, "api.on", if is_external { "client" } else { "internal" }.into());
    }

    /// Reports TLS without files, which Centrifugo supports.
    fn encryption(&mut self, values: &Dict) {
        let section = |values: &Dict, name: &str| values.get(name).and_then(Value::as_dict).cloned();
        let tls = section(values, "http_server").and_then(|server| section(&server, "tls"));
        if tls.is_some_and(|tls| is_on(&tls)) && get(&self.ours, "server.tls").is_none() {
            self.leave_out(
                TLS_SWITCH,
                "TLS needs files: server.tls.certificate_file and server.tls.key_file",
            );
        }
    }

    /// Copies the switch to subscription tokens: Centrifugo has one for both kinds of token.
    fn skipped_signatures(&mut self) {
        let skip = get(&self.ours, "client.token.insecure_skip_signature").cloned();
        if let Some(skip) = skip.filter(|_| get(&self.ours, "client.subscription_token").is_some()) {
            set(&mut self.ours, "client.subscription_token.insecure_skip_signature", skip);
        }
    }

    /// Sets Centrifugo's default format of publications, which is any bytes; Fanwire's is JSON.
    fn publication_format(&mut self) {
        if get(&self.ours, PUBLICATION_FORMAT).is_none() {
            set(&mut self.ours, PUBLICATION_FORMAT, "not_empty".into());
        }
    }

    /// Removes keys that the check refuses, one by one, so that the result can be used. Returns the remaining problems
    /// and warnings.
    fn without_refused_keys(&mut self) -> (Vec<String>, Vec<String>) {
        loop {
            let values = Value::serialize(&self.ours).ok().and_then(Value::into_dict).unwrap_or_default();
            let (problems, warnings) = judge(values, "the translation".into());
            let removed = problems.iter().find(|problem| remove(&mut self.ours, &problem.key));
            let Some(problem) = removed else {
                return (problems.iter().map(ToString::to_string).collect(), warnings);
            };
            self.leave_out(&problem.key, &format!("refused here: {}", problem.text));
        }
    }

    fn leave_out(&mut self, key: &str, reason: &str) {
        self.left_out.push(LeftOut { key: key.to_owned(), reason: reason.to_owned() });
    }
}

fn is_hook_option(name: &str) -> bool {
    let events = NAMESPACE_HOOKS.iter().map(|(_, event)| event);
    events
        .flat_map(|event| ["_proxy_enabled", "_proxy_name"].map(|end| (event, end)))
        .any(|(event, end)| name.strip_prefix(event).is_some_and(|rest| rest == end))
}

/// Returns true if a section is enabled.
fn is_on(section: &Dict) -> bool {
    section.get("enabled").and_then(Value::to_bool_lossy) == Some(true)
}

fn set(table: &mut toml::Table, path: &str, value: toml::Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| toml::Table::new().into());
            if let toml::Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

fn get<'t>(table: &'t toml::Table, path: &str) -> Option<&'t toml::Value> {
    let mut parts = path.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// Removes the value at a path such as `topics.namespaces[1].history_ttl` or `client.allowed_origins[2]`. Removing a
/// namespace's name removes the namespace.
fn remove(table: &mut toml::Table, path: &str) -> bool {
    let indexed = |part: &str| {
        let (list, index) = part.strip_suffix(']')?.split_once('[')?;
        Some((list.to_owned(), index.parse::<usize>().ok()?))
    };
    let Some((section, rest)) = path.split_once('.') else {
        return match indexed(path).map(|(list, index)| (table.get_mut(&list), index)) {
            Some((Some(toml::Value::Array(items)), index)) if index < items.len() => {
                items.remove(index);
                true
            }
            _ => table.remove(path).is_some(),
        };
    };
    let Some((list, index)) = indexed(section) else {
        return match table.get_mut(section) {
            Some(toml::Value::Table(inner)) => remove(inner, rest),
            _ => false,
        };
    };
    let Some(toml::Value::Array(items)) = table.get_mut(&list) else { return false };
    match items.get_mut(index) {
        Some(_) if rest == "name" => {
            items.remove(index);
            true
        }
        Some(toml::Value::Table(inner)) => remove(inner, rest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use figment::providers::{Format, Yaml};

    use super::hooks::HOOK_RULES;
    use super::rules::{RULES, TOKEN_RULES};
    use super::*;

    fn check(theirs: &str, ours: &str, left_out: &[&str]) {
        let values: Dict = Yaml::from_str(theirs).unwrap();
        let translation = translate(&values, Path::new("."));
        // What every translation says unless it says another format.
        let (table, format) = ("[topics]\n", "publication_format = \"not_empty\"\n");
        let text = translation.text.replacen(format, "", 1);
        let text = text.replacen(&format!("{table}\n"), "", 1);
        let text = text.strip_suffix(table).unwrap_or(&text);
        assert_eq!(text.trim(), ours.trim());
        let told: Vec<String> =
            translation.left_out.iter().map(|left| format!("{}: {}", left.key, left.reason)).collect();
        assert_eq!(told.len(), left_out.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(left_out) {
            assert!(told.starts_with(expected), "{told} is not {expected}");
        }
        assert_eq!(translation.problems, [""; 0]);
    }

    #[test]
    fn an_origin_that_matches_no_page_is_left_out_alone() {
        check(
            "client: {allowed_origins: ['https://a.example', 'https://b.example/app', 'https://c.example']}",
            "[client]\nallowed_origins = [\"https://a.example\", \"https://c.example\"]",
            &["client.allowed_origins[1]: refused here: \"https://b.example/app\" has a path"],
        );
    }

    #[test]
    fn values_change_their_names_units_and_shapes() {
        check(
            "http_server: {port: '8001', internal_port: '9001'}\n\
             http_api: {key: 0012, external: true}\n\
             client: {ping_interval: 1m30s, pong_timeout: -1s, queue_max_size: 1048576, allowed_origins: 'https://a, https://b'}\n\
             log: {level: fatal}\n",
            "[server]\nport = 8001\n\n[internal]\naddress = \"0.0.0.0\"\nport = 9001\n\n[log]\nlevel = \"error\"\n\n\
             [client]\nallowed_origins = [\"https://a\", \"https://b\"]\nping_interval = \"90s\"\npong_timeout = \"0s\"\nqueue_bytes_max = \"1MiB\"\n\n\
             [api]\non = \"client\"\nkeys = [\"0012\"]",
            &[],
        );
    }

    #[test]
    fn topics_take_what_they_took() {
        for (theirs, ours) in [
            ("channel: {}", "not_empty"),
            ("channel: {publication_data_format: ''}", "not_empty"),
            ("channel: {publication_data_format: json}", "json"),
            ("channel: {publication_data_format: binary}", "binary"),
            ("channel: {publication_data_format: nonsense}", "not_empty"),
        ] {
            let translation = translate(&Yaml::from_str::<Dict>(theirs).unwrap(), Path::new("."));
            assert_eq!(
                translation.text.trim(),
                format!("[topics]\npublication_format = \"{ours}\""),
                "{theirs}"
            );
        }
    }

    #[test]
    fn what_has_no_counterpart_is_told_once_with_its_reason() {
        check(
            "engine: {redis: {tls: {enabled: true}, sentinel_address: ['a:1'], presence_ttl: 30s}}\n\
             broker: {enabled: true, type: nats}\n\
             client: {token: {insecure_skip_jwks_endpoint_safety_check: true}, proxy: {connect: {enabled: true, endpoint: 'grpc://x'}}}\n\
             token_hmac_secret_key: x\n\
             channel: {without_namespace: {allowed_delta_types: [fossil], subscription_type: stream, map: },\n\
             max_lenght: 1, namespaces: [chat]}\n",
            "",
            &[
                "broker: one engine",
                "channel.max_lenght: not a setting",
                "channel.namespaces.0: is not a section",
                "channel.without_namespace.allowed_delta_types: publications are always sent whole",
                "client.token.insecure_skip_jwks_endpoint_safety_check: jwks_url takes no groups",
                "engine.redis.presence_ttl: presence lasts as long",
                "engine.redis.sentinel_address: Redis is one server",
                "engine.redis.tls: connections to Redis",
                "token_hmac_secret_key: not a setting of Centrifugo v6; files of older versions",
                "client.proxy.connect: gRPC hooks come later",
            ],
        );
    }

    #[test]
    fn proxies_become_hooks() {
        check(
            "client: {proxy: {connect: {enabled: true, endpoint: 'http://b/connect', timeout: 2s, http_headers: [Cookie, Origin],\n\
               http: {static_headers: {X-Key: 7}, status_to_code_transforms: [{status_code: 404, to_error: {code: 404, message: gone, temporary: true}},\n\
               {status_code: 403, to_error: {code: 0}, to_disconnect: {code: 4403, reason: no}}]}},\n\
               refresh: {enabled: false, endpoint: 'http://b/refresh'}}}\n\
             channel: {proxy: {subscribe: {endpoint: 'https://b/subscribe', binary_encoding: true, include_connection_meta: true,\n\
               http: {tls: {enabled: true, server_ca_pem_file: /ca.pem, cert_pem: /a.pem, key_pem_file: /b.pem, server_name: b, insecure_skip_verify: true}}},\n\
               publish: {endpoint: 'http://b/publish'}, sub_refresh: {endpoint: ''}},\n\
               without_namespace: {publish_proxy_enabled: true, publish_proxy_name: other},\n\
               namespaces: [{name: chat, subscribe_proxy_enabled: true, subscribe_proxy_name: default, publish_proxy_enabled: false, sub_refresh_proxy_enabled: true}]}\n\
             rpc: {proxy: {endpoint: 'http://b/rpc', emulated_headers: Authorization}, without_namespace: {proxy_enabled: true}, namespace_boundary: '/',\n\
               namespaces: [{name: users, proxy_enabled: true, proxy_name: other}, {name: off}]}\n\
             proxies: [{name: other, endpoint: 'http://b/other', grpc_metadata: [a]}, {name: late, endpoint: 'b:50051'}]\n",
            "[client.hooks]\nconnect = \"connect\"\n\n\
             [[hooks]]\nname = \"other\"\nurl = \"http://b/other\"\n\n\
             [[hooks]]\nname = \"connect\"\nurl = \"http://b/connect\"\ntimeout = \"2s\"\nhttp_headers = [\"Cookie\", \"Origin\"]\nstatic_headers = { X-Key = \"7\" }\n\
             status_transforms = [{ error = { code = 404, message = \"gone\", temporary = true }, status = 404 }, { disconnect = { code = 4403, reason = \"no\" }, status = 403 }]\n\n\
             [[hooks]]\nname = \"rpc\"\nurl = \"http://b/rpc\"\nemulated_headers = [\"Authorization\"]\n\n\
             [[hooks]]\nname = \"subscribe\"\nurl = \"https://b/subscribe\"\nbinary_encoding = true\ninclude_connection_meta = true\nca_file = \"/ca.pem\"\n\
             certificate_file = \"/a.pem\"\nkey_file = \"/b.pem\"\nserver_name = \"b\"\n\n\
             [rpc]\nhook = \"rpc\"\nnamespace_boundary = \"/\"\n\n\
             [[rpc.namespaces]]\nname = \"users\"\nhook = \"other\"\n\n[[rpc.namespaces]]\nname = \"off\"\n\n\
             [topics.default]\npublish_hook = \"other\"\n\n\
             [[topics.namespaces]]\nname = \"chat\"\nsubscribe_hook = \"subscribe\"",
            &[
                "proxies.other.grpc_metadata: gRPC hooks come later",
                "proxies.late: gRPC hooks come later",
                "client.proxy.refresh: is turned off there",
                "channel.proxy.subscribe.http.tls.insecure_skip_verify: certificates are always verified",
                "channel.proxy.publish: no namespace there uses it",
                "channel.proxy.sub_refresh: has no endpoint",
                "topics.namespaces[0].sub_refresh_hook: refused here: \"sub_refresh\" is not the name of a hook",
            ],
        );
    }

    #[test]
    fn certificates_are_taken_from_files() {
        let pem = "\"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n\"";
        check(
            "http_server: {tls: {enabled: true, cert_pem: /etc/tls.crt, key_pem: /etc/tls.key, client_ca_pem: x}}",
            "[server.tls]\ncertificate_file = \"/etc/tls.crt\"\nkey_file = \"/etc/tls.key\"",
            &["http_server.tls.client_ca_pem: clients authenticate with tokens"],
        );
        check(
            "http_server: {tls: {enabled: false, cert_pem: /etc/tls.crt, key_pem: /etc/tls.key}}",
            "",
            &["http_server.tls: is turned off there"],
        );
        check(
            &format!("http_server: {{tls: {{enabled: true, cert_pem: {pem}, key_pem: /etc/tls.key}}}}"),
            "",
            &[
                "http_server.tls.cert_pem: is the PEM itself",
                "server.tls.key_file: refused here: needs server.tls.certificate_file as well",
            ],
        );
        check("http_server: {tls: {enabled: 'true'}}", "", &["http_server.tls.enabled: TLS needs files"]);
    }

    #[test]
    fn the_address_of_redis_wins_over_its_keys() {
        check(
            "engine: {type: redis, redis: {address: ['redis://:in-url@redis:6380/2'], user: ann, password: in-key,\n\
             db: 1, prefix: chat, connect_timeout: 1500ms}}\n",
            "[engine]\ntype = \"redis\"\n\n[engine.redis]\naddress = \"redis:6380\"\nusername = \"ann\"\n\
             password = \"in-url\"\ndatabase = 2\nprefix = \"chat\"\nconnect_timeout = \"1500ms\"",
            &[],
        );
        check(
            "engine: {type: nats, redis: {address: 'redis://redis', password: 0012}}\n",
            "[engine.redis]\npassword = \"0012\"",
            &["engine.redis.address: refused here: has no port", "engine.type: refused here: \"nats\""],
        );
    }

    #[test]
    fn what_our_check_refuses_is_left_out() {
        check(
            "channel: {namespaces: [{name: chat, allow_recovery: true, presence: true}, {name: x}]}\n",
            "[[topics.namespaces]]\nname = \"chat\"\npresence = true",
            &[
                "topics.namespaces[0].allow_recovery: refused here: needs history",
                "topics.namespaces[1].name: refused here: \"x\" must be",
            ],
        );
    }

    #[test]
    fn an_internal_port_that_is_the_clients_port_is_none() {
        check(
            "http_server: {internal_port: 8000}\n",
            "",
            &["internal.port: refused here: is server.port too (8000)"],
        );
    }

    #[test]
    fn names_of_centrifugo_are_recognised() {
        for (theirs, ours) in [
            ("client.channel_limit", Some("client.subscriptions_max")),
            ("client.token.hmac_secret_key", Some("client.token.hmac_secret")),
            ("channel", Some("topics")),
            ("topics.namespaces[0].channel_regex", Some("topic_regex")),
            ("client.ping_interval", None),
            ("nonsense", None),
        ] {
            assert_eq!(name_here(theirs).as_deref(), ours);
        }
    }

    #[test]
    fn every_rule_leads_to_a_key() {
        let keys: Vec<String> = crate::config::outline().iter().map(|item| item.path()).collect();
        let targets = RULES.iter().map(|rule| rule.ours.to_owned());
        let tokens = TOKEN_RULES.iter().map(|rule| format!("client.subscription_token.{}", rule.ours));
        let namespaces = NAMESPACE_RULES.iter().map(|rule| format!("topics.namespaces.{}", rule.ours));
        let hooks = HOOK_RULES.iter().map(|rule| format!("hooks.{}", rule.ours));
        let hook_options = NAMESPACE_HOOKS.iter().map(|(key, _)| format!("topics.namespaces.{key}"));
        for key in targets.chain(tokens).chain(namespaces).chain(hooks).chain(hook_options) {
            assert!(keys.contains(&key), "{key}");
        }
    }
}
