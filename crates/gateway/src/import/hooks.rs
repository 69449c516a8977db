//! The proxies of Centrifugo, which are hooks here: its default ones get the names of their events.

use std::collections::BTreeSet;

use figment::value::{Dict, Value};

use super::rules::How::{Duration, Flag, Number, Path, Text, Texts};
use super::rules::{Rule, rule};
use super::value::{convert, text};
use super::{Translator, UNKNOWN, get, is_on, set};

const GRPC: &str = "gRPC hooks come later; use http";
const NO_ENDPOINT: &str = "has no endpoint to call";
const OFF: &str = "is turned off there";
const UNVERIFIED: &str = "certificates are always verified: set ca_file or server_name";
const NOT_A_SERVER: &str = "a hook is a client: it verifies the backend by ca_file";
const STREAMS: &str = "subscriptions are not streams of a backend";
const KINDS: &str = "map and shared-poll topics are not there yet";

/// The name by which Centrifugo's namespaces name the default proxy.
const DEFAULT: &str = "default";

/// Inside each proxy.
pub(super) const HOOK_RULES: &[Rule] = &[
    rule("endpoint", "url", Text),
    rule("timeout", "timeout", Duration),
    rule("http_headers", "http_headers", Texts),
    rule("emulated_headers", "emulated_headers", Texts),
    rule("binary_encoding", "binary_encoding", Flag),
    rule("include_connection_meta", "include_connection_meta", Flag),
    rule("http.tls.cert_pem", "certificate_file", Path),
    rule("http.tls.cert_pem_file", "certificate_file", Path),
    rule("http.tls.key_pem", "key_file", Path),
    rule("http.tls.key_pem_file", "key_file", Path),
    rule("http.tls.server_ca_pem", "ca_file", Path),
    rule("http.tls.server_ca_pem_file", "ca_file", Path),
    rule("http.tls.server_name", "server_name", Text),
];

/// Options of a namespace, each with the event of its proxy.
pub(super) const NAMESPACE_HOOKS: [(&str, &str); 3] =
    [("subscribe_hook", "subscribe"), ("publish_hook", "publish"), ("sub_refresh_hook", "sub_refresh")];

impl Translator<'_> {
    /// Sets the hooks of a namespace. `theirs` is its key there.
    pub(super) fn namespace_hooks(&mut self, options: &Dict, namespace: &mut toml::Table) {
        for (ours, event) in NAMESPACE_HOOKS {
            let name = options.get(&format!("{event}_proxy_name"));
            if flag(options, &format!("{event}_proxy_enabled")) {
                namespace.insert(ours.to_owned(), self.hook_named(name, event).into());
            }
        }
    }

    /// Translates all proxies, and the sections that name them. Namespaces have named theirs.
    pub(super) fn hooks(&mut self, values: &Dict) {
        self.rpc(values);
        let mut hooks = Vec::new();
        for (index, proxy) in listed(values, "proxies").enumerate() {
            let name = proxy.get("name").and_then(text).unwrap_or_default();
            let key = if name.is_empty() { format!("proxies.{index}") } else { format!("proxies.{name}") };
            hooks.extend(self.hook(&key, &name, proxy));
        }
        for event in ["connect", "refresh"] {
            let Some(proxy) = inside(values, &["client", "proxy", event]) else { continue };
            let key = format!("client.proxy.{event}");
            if is_on(&proxy) {
                let name = self.hook_named(None, event);
                if let Some(hook) = self.hook(&key, &name, &proxy) {
                    set(&mut self.ours, &format!("client.hooks.{event}"), name.into());
                    hooks.push(hook);
                }
            } else if has_endpoint(&proxy) {
                self.leave_out(&key, OFF);
            }
        }
        let mut defaults = vec![("rpc".to_owned(), "rpc", inside(values, &["rpc", "proxy"]))];
        for (_, event) in NAMESPACE_HOOKS {
            let proxy = inside(values, &["channel", "proxy", event]);
            defaults.push((format!("channel.proxy.{event}"), event, proxy));
        }
        let used = self.named_hooks();
        for (key, event, proxy) in defaults {
            let Some(proxy) = proxy else { continue };
            let name = self.hook_named(None, event);
            if used.contains(&name) {
                hooks.extend(self.hook(&key, &name, &proxy));
            } else if has_endpoint(&proxy) {
                self.leave_out(&key, "no namespace there uses it");
            }
        }
        for (name, reason) in [
            ("subscribe_stream", STREAMS),
            ("map_publish", KINDS),
            ("map_remove", KINDS),
            ("shared_poll_refresh", KINDS),
        ] {
            if inside(values, &["channel", "proxy", name]).is_some_and(|proxy| has_endpoint(&proxy)) {
                self.leave_out(&format!("channel.proxy.{name}"), reason);
            }
        }
        if !hooks.is_empty() {
            let hooks: Vec<toml::Value> = hooks.into_iter().map(toml::Value::Table).collect();
            set(&mut self.ours, "hooks", hooks.into());
        }
    }

    fn rpc(&mut self, values: &Dict) {
        if let Some(options) = inside(values, &["rpc", "without_namespace"])
            && let Some(hook) = self.rpc_hook(&options)
        {
            set(&mut self.ours, "rpc.hook", hook.into());
        }
        let rpc = inside(values, &["rpc"]).unwrap_or_default();
        let mut namespaces = Vec::new();
        for options in listed(&rpc, "namespaces") {
            let mut namespace = toml::Table::new();
            let name = options.get("name").and_then(text).unwrap_or_default();
            namespace.insert("name".to_owned(), name.into());
            if let Some(hook) = self.rpc_hook(options) {
                namespace.insert("hook".to_owned(), hook.into());
            }
            namespaces.push(toml::Value::Table(namespace));
        }
        if !namespaces.is_empty() {
            set(&mut self.ours, "rpc.namespaces", namespaces.into());
        }
    }

    fn rpc_hook(&self, options: &Dict) -> Option<String> {
        flag(options, "proxy_enabled").then(|| self.hook_named(options.get("proxy_name"), "rpc"))
    }

    /// Returns the name of a hook: the given one, or that of the event's default proxy.
    fn hook_named(&self, name: Option<&Value>, event: &str) -> String {
        match name.and_then(text) {
            Some(name) if !name.is_empty() && name != DEFAULT => name,
            _ if self.proxies.contains(event) => format!("{event}_default"),
            _ => event.to_owned(),
        }
    }

    /// Returns the names of the hooks that namespaces name.
    fn named_hooks(&self) -> BTreeSet<String> {
        let tables = |path| get(&self.ours, path).and_then(toml::Value::as_array).into_iter().flatten();
        let topics = get(&self.ours, "topics.default").into_iter().chain(tables("topics.namespaces"));
        let of_topics = topics.flat_map(|table| NAMESPACE_HOOKS.map(|(key, _)| table.get(key)));
        let of_rpc = tables("rpc.namespaces").map(|table| table.get("hook"));
        let names = of_topics.chain(of_rpc).chain([get(&self.ours, "rpc.hook")]).flatten();
        names.filter_map(toml::Value::as_str).map(str::to_owned).collect()
    }

    /// Translates one proxy; `None` if it cannot be called here.
    fn hook(&mut self, key: &str, name: &str, proxy: &Dict) -> Option<toml::Table> {
        let endpoint = proxy.get("endpoint").and_then(text).unwrap_or_default();
        if endpoint.is_empty() {
            self.leave_out(key, NO_ENDPOINT);
            return None;
        }
        if !(endpoint.starts_with("http://") || endpoint.starts_with("https://")) {
            self.leave_out(key, GRPC);
            return None;
        }
        let mut hook = toml::Table::new();
        hook.insert("name".to_owned(), name.into());
        self.hook_keys(key, "", proxy, &mut hook);
        Some(hook)
    }

    fn hook_keys(&mut self, key: &str, section: &str, values: &Dict, hook: &mut toml::Table) {
        for (name, value) in values {
            let inner = if section.is_empty() { name.to_lowercase() } else { format!("{section}.{name}") };
            let theirs = format!("{key}.{inner}");
            if let Some(rule) = HOOK_RULES.iter().find(|rule| rule.theirs == inner) {
                if let Some(value) = self.carried(&theirs, value, rule) {
                    hook.insert(rule.ours.to_owned(), value);
                }
                continue;
            }
            match (&*inner, value) {
                ("name" | "enabled" | "http.tls.enabled", _) | (_, Value::Empty(..)) => {}
                (_, Value::String(_, text)) if text.is_empty() => {}
                ("http.tls", Value::Dict(_, tls)) if !is_on(tls) => {
                    if !tls.is_empty() {
                        self.leave_out(&theirs, OFF);
                    }
                }
                ("http.static_headers", Value::Dict(_, headers)) => {
                    let headers =
                        headers.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?.into())));
                    let headers: toml::Table = headers.collect();
                    if !headers.is_empty() {
                        hook.insert("static_headers".to_owned(), headers.into());
                    }
                }
                ("http.status_to_code_transforms", Value::Array(_, transforms)) => {
                    let transforms: Vec<_> = transforms.iter().filter_map(transform).collect();
                    if !transforms.is_empty() {
                        hook.insert("status_transforms".to_owned(), transforms.into());
                    }
                }
                ("http" | "http.tls", Value::Dict(_, inside)) => {
                    self.hook_keys(key, &inner, inside, hook);
                }
                ("http.tls.insecure_skip_verify", value) if value.to_bool_lossy() == Some(false) => {}
                ("http.tls.insecure_skip_verify", _) => self.leave_out(&theirs, UNVERIFIED),
                ("http.tls.client_ca_pem" | "http.tls.client_ca_pem_file", _) => {
                    self.leave_out(&theirs, NOT_A_SERVER);
                }
                ("grpc" | "grpc_metadata", _) => self.leave_out(&theirs, GRPC),
                _ => self.leave_out(&theirs, UNKNOWN),
            }
        }
    }
}

/// Translates the meaning of a status.
fn transform(value: &Value) -> Option<toml::Value> {
    let from = value.as_dict()?;
    let number = |values: &Dict, name: &str| {
        let value = convert(values.get(name)?, Number, std::path::Path::new("")).ok()??;
        value.as_integer().filter(|number| *number != 0)
    };
    let mut to = toml::Table::from_iter([("status".to_owned(), number(from, "status_code")?.into())]);
    for (theirs, ours, words) in [("to_error", "error", "message"), ("to_disconnect", "disconnect", "reason")]
    {
        let Some(meaning) = from.get(theirs).and_then(Value::as_dict) else { continue };
        let Some(code) = number(meaning, "code") else { continue };
        let mut said = toml::Table::from_iter([("code".to_owned(), code.into())]);
        if let Some(text) = meaning.get(words).and_then(text).filter(|text| !text.is_empty()) {
            said.insert(words.to_owned(), text.into());
        }
        if flag(meaning, "temporary") {
            said.insert("temporary".to_owned(), true.into());
        }
        to.insert(ours.to_owned(), said.into());
    }
    Some(to.into())
}

/// Returns the names of the proxies that are listed.
pub(super) fn named_proxies(values: &Dict) -> BTreeSet<String> {
    listed(values, "proxies").filter_map(|proxy| proxy.get("name").and_then(text)).collect()
}

fn listed<'v>(values: &'v Dict, name: &str) -> impl Iterator<Item = &'v Dict> + use<'v> {
    let items = match values.get(name) {
        Some(Value::Array(_, items)) => items.as_slice(),
        _ => &[],
    };
    items.iter().filter_map(Value::as_dict)
}

fn flag(values: &Dict, name: &str) -> bool {
    values.get(name).and_then(Value::to_bool_lossy) == Some(true)
}

fn has_endpoint(proxy: &Dict) -> bool {
    proxy.get("endpoint").and_then(text).is_some_and(|endpoint| !endpoint.is_empty())
}

fn inside(values: &Dict, path: &[&str]) -> Option<Dict> {
    let (first, rest) = path.split_first()?;
    let inner = values.get(*first)?.as_dict()?;
    if rest.is_empty() { Some(inner.clone()) } else { inside(inner, rest) }
}
