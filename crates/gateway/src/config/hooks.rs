//! `[[hooks]]`: the application's backends, and which of them is asked about what.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use fanwire_hub::hook_settings::{HookSlot, RpcHooks};
use fanwire_hub::kept::KeptRules;
use fanwire_server::BackendTls;
use fanwire_server::settings::{HookSettings, StatusMeaning};
use serde::{Deserialize, Serialize};

use super::backend::{BackendKeys, header_name};
use super::checks::Checks;
use super::defaults;
use super::section::section;
use super::values::{Period, Secret, Size};

section! {
    /// A backend that is asked about what clients do, by HTTP POST with JSON, as Centrifugo's proxy does. Repeat for each
    /// backend. [client.hooks], [rpc] and namespaces name the one that is asked.
    Hook {
        /// The name by which other sections name it, in logs and metrics too.
        name: String = String::new(),
        /// The backend's address, such as "https://backend.example/centrifugo/connect".
        url: String = String::new(),
        /// Time allowed for a request, from its connection to the last byte of the answer.
        timeout: Period = defaults::HOOK_TIMEOUT,
        /// Maximum number of requests under way on this node.
        requests_max: usize = defaults::HOOK_REQUESTS_MAX,
        /// Maximum number of calls that wait for one of those, and 32 MiB; more fail at once.
        waiting_max: usize = defaults::HOOK_WAITING_MAX,
        /// Time for which a call waits; then it fails.
        wait_max: Period = defaults::HOOK_WAIT_MAX,
        /// Time for which a connection is kept between two requests. Keep it below the backend's own: 5 s in Node.
        idle_timeout: Period = defaults::HOOK_IDLE_TIMEOUT,
        /// Maximum bytes of an answer; a longer one fails.
        answer_bytes_max: Size = defaults::HOOK_ANSWER_BYTES_MAX,
        /// Headers that are sent along from the request that opened the client's connection.
        http_headers: Vec<String> = Vec::new(),
        /// Headers that are sent along from the client's connect command. A client may claim anything there.
        emulated_headers: Vec<String> = Vec::new(),
        /// Cookies that are sent along, by their names. With "Cookie" in http_headers all are.
        cookies: Vec<String> = Vec::new(),
        /// Headers that are always sent, as in { "Authorization" = "Bearer …" }.
        static_headers: BTreeMap<String, Secret> = BTreeMap::new(),
        /// Sends data in Base64, as "b64data".
        binary_encoding: bool = false,
        /// Sends the metadata that a token, or the connect or the refresh hook, gave the connection.
        include_connection_meta: bool = false,
        /// Signs each request: the header "Fanwire-Signature: t=SECONDS,v1=HEX" has the HMAC-SHA256 of the seconds, a dot and
        /// the body. Not set: requests are not signed. `openssl rand -hex 32` makes one.
        signature_secret: Option<Secret> = None,
        /// The secret before signature_secret: while it is replaced, requests have a "v1" for each.
        signature_previous_secret: Option<Secret> = None,
        /// Stops calling a backend that fails: once half of 20 calls or more in 10 s have, calls fail at once for 1 s, then one
        /// call tries again, after pauses that double up to 30 s.
        breaker: bool = true,
        /// The authorities whose certificates are trusted, in PEM. Not set: those of the system.
        ca_file: Option<PathBuf> = None,
        /// The certificate by which this node is known to the backend, in PEM; needs key_file.
        certificate_file: Option<PathBuf> = None,
        /// The certificate's private key in PEM, without a passphrase.
        key_file: Option<PathBuf> = None,
        /// The name in the backend's certificate. Not set: the one in url.
        server_name: Option<String> = None,
        /// Statuses other than 200 that tell the client something:
        /// { status = 404, error = { code = 404, message = "not found", temporary = false } }, or
        /// disconnect = { code = 4404, reason = "not found" } to close it. Other statuses are failures.
        status_transforms: Vec<StatusTransform> = Vec::new(),
    }
}

section! {
    /// Methods that clients call (RPC), for a backend. Off unless a hook is named.
    Rpc {
        /// The hook for methods without a namespace.
        hook: String = String::new(),
        /// Ends the namespace in a method's name, as in `users:get`. Empty: methods have no namespace.
        namespace_boundary: String = defaults::NAMESPACE_BOUNDARY.into(),
        sections {
            /// Methods whose name begins with the namespace's name, as in `users:get`. Repeat for each namespace.
            namespaces: Vec<RpcNamespace>,
        }
    }
}

section! {
    /// The methods in a namespace.
    RpcNamespace {
        /// The part of a name before the boundary.
        name: String = String::new(),
        /// Their hook. Empty: they are answered error 108.
        hook: String = String::new(),
    }
}

/// The meaning of a status for clients.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusTransform {
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<ToError>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disconnect: Option<ToDisconnect>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ToError {
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    temporary: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ToDisconnect {
    code: u32,
    #[serde(default)]
    reason: String,
}

/// The hooks of a configuration, while sections that name them are read.
#[derive(Debug)]
pub(super) struct HookNames<'c> {
    hooks: &'c [Hook],
    /// Those that are named: by connect, by anything else.
    used: Vec<[bool; 2]>,
}

/// The event that a section names a hook for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookUse {
    Connect,
    Other,
}

impl<'c> HookNames<'c> {
    pub(super) fn new(hooks: &'c [Hook]) -> Self {
        Self { hooks, used: vec![[false; 2]; hooks.len()] }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// Finds the hook that a key names; an empty name is none.
    pub(super) fn find(
        &mut self,
        key: &str,
        name: &str,
        used_by: HookUse,
        checks: &mut Checks,
    ) -> Option<HookSlot> {
        if name.is_empty() {
            return None;
        }
        let Some(place) = self.hooks.iter().position(|hook| hook.name == name) else {
            let likeness = |hook: &&Hook| strsim::jaro_winkler(name, &hook.name);
            let nearest = self.hooks.iter().max_by(|left, right| likeness(left).total_cmp(&likeness(right)));
            let hint = match nearest {
                Some(hook) if likeness(&hook) > 0.8 => format!("; did you mean \"{}\"?", hook.name),
                _ => String::new(),
            };
            checks.error(key, format!("\"{name}\" is not the name of a hook in [[hooks]]{hint}"));
            return None;
        };
        self.used[place][usize::from(used_by == HookUse::Other)] = true;
        u16::try_from(place).ok().map(HookSlot::new)
    }

    /// Returns the longest time that the answer of any hook may take.
    pub(super) fn patience(&self) -> Duration {
        /// What is swept or scheduled late.
        const SLACK: Duration = Duration::from_secs(1);
        let longest = self.hooks.iter().map(|hook| hook.timeout.0.saturating_add(hook.wait_max.0)).max();
        longest.map_or(Duration::ZERO, |longest| longest.saturating_add(SLACK))
    }

    /// Returns the headers and metadata that hooks are sent. Call it once all sections have named their hooks.
    pub(super) fn kept(&self, bytes_max: usize, checks: &mut Checks) -> KeptRules {
        const NAMES_MAX: usize = 64;
        let union = |list: fn(&Hook) -> &[String]| {
            let names = self.hooks.iter().flat_map(list).map(|name| name.to_ascii_lowercase());
            names.collect::<BTreeSet<_>>()
        };
        let (mut headers, emulated) =
            (union(|hook| &hook.http_headers), union(|hook| &hook.emulated_headers));
        let whole = headers.contains("cookie");
        let cookies: BTreeSet<_> =
            self.hooks.iter().flat_map(|hook| &hook.cookies).map(|name| name.as_str().into()).collect();
        if !cookies.is_empty() {
            headers.insert("cookie".to_owned());
        }
        for (name, list) in [("http_headers", &headers), ("emulated_headers", &emulated)] {
            if list.len() > NAMES_MAX {
                checks.error(
                    format!("hooks.0.{name}"),
                    format!("of all hooks has more than {NAMES_MAX} names"),
                );
            }
        }
        let used = || self.hooks.iter().zip(&self.used);
        KeptRules {
            outlasts_connect: used().any(|(hook, [_, by_others])| *by_others && hook.wants_headers()),
            has_meta: used().any(|(hook, _)| hook.include_connection_meta),
            headers: headers.into_iter().map(String::into_boxed_str).collect(),
            emulated: emulated.into_iter().map(String::into_boxed_str).collect(),
            cookies: (!whole).then(|| cookies.into_iter().collect()),
            bytes_max,
        }
    }

    pub(super) fn settings(&self, checks: &mut Checks) -> Vec<HookSettings> {
        let mut all: Vec<HookSettings> = Vec::new();
        for (index, hook) in self.hooks.iter().enumerate() {
            if hook.name.is_empty() {
                checks.error(format!("hooks.{index}.name"), "is empty");
            } else if self.hooks[..index].iter().any(|earlier| earlier.name == hook.name) {
                checks.error(
                    format!("hooks.{index}.name"),
                    format!("\"{}\" is the name of two hooks", hook.name),
                );
            } else if self.used[index] == [false; 2] {
                checks.warn(
                    format!("hooks.{index}.name"),
                    format!("no section names \"{}\", so it is never called", hook.name),
                );
            }
            all.extend(hook.settings(index, checks));
        }
        all
    }
}

impl Rpc {
    pub(super) fn settings(&self, hooks: &mut HookNames<'_>, checks: &mut Checks) -> RpcHooks {
        let mut namespaces = HashMap::new();
        for (index, RpcNamespace { name, hook }) in self.namespaces.iter().enumerate() {
            let key = format!("rpc.namespaces.{index}");
            let hook = hooks.find(&format!("{key}.hook"), hook, HookUse::Other, checks);
            if name.is_empty() {
                checks.error(format!("{key}.name"), "is empty");
            } else if namespaces.insert(name.clone(), hook).is_some() {
                checks.error(format!("{key}.name"), format!("\"{name}\" is the name of two namespaces"));
            }
        }
        RpcHooks {
            default: hooks.find("rpc.hook", &self.hook, HookUse::Other, checks),
            namespace_boundary: self.namespace_boundary.clone(),
            namespaces,
        }
    }
}

impl Hook {
    fn wants_headers(&self) -> bool {
        !(self.http_headers.is_empty() && self.emulated_headers.is_empty() && self.cookies.is_empty())
    }

    fn settings(&self, index: usize, checks: &mut Checks) -> Option<HookSettings> {
        let at = |name: &str| format!("hooks.{index}.{name}");
        checks.within(&at("timeout"), self.timeout, Period::from_millis(1), Period::from_secs(60));
        checks.within(&at("wait_max"), self.wait_max, Period::OFF, Period::from_secs(60));
        let section = format!("hooks.{index}");
        let backend = BackendKeys {
            section: &section,
            url: &self.url,
            static_headers: &self.static_headers,
            signature_secret: self.signature_secret.as_ref(),
            signature_previous_secret: self.signature_previous_secret.as_ref(),
            ca_file: self.ca_file.as_ref(),
            certificate_file: self.certificate_file.as_ref(),
            key_file: self.key_file.as_ref(),
            server_name: self.server_name.as_ref(),
        };
        let tls = backend.tls(checks);
        let names = |name: &str, names: &[String], checks: &mut Checks| {
            let parsed = names.iter().filter_map(|header| header_name(&at(name), header, checks));
            parsed.collect::<Vec<_>>()
        };
        let static_headers = backend.static_headers(checks);
        for cookie in &self.cookies {
            if cookie.is_empty()
                || cookie.bytes().any(|byte| !byte.is_ascii_graphic() || b"=;,\"".contains(&byte))
            {
                checks.error(at("cookies"), format!("\"{cookie}\" cannot be the name of a cookie"));
            }
        }
        let url = backend.url(checks);
        let mut status_meanings = Vec::new();
        for transform in &self.status_transforms {
            match transform.meaning() {
                Ok(meaning) => status_meanings.push((transform.status, meaning)),
                Err(problem) => {
                    checks.error(at("status_transforms"), format!("status {}: {problem}", transform.status))
                }
            }
        }
        let http_headers = names("http_headers", &self.http_headers, checks);
        let emulated_headers = names("emulated_headers", &self.emulated_headers, checks);
        let signature_secrets = backend.signature_secrets(checks);
        let requests_max = checks.at_least_one(&at("requests_max"), self.requests_max);
        let waiting_max = checks.at_least_one(&at("waiting_max"), self.waiting_max);
        let answer_bytes_max = checks.at_least_one(&at("answer_bytes_max"), self.answer_bytes_max.0);
        Some(HookSettings {
            name: self.name.clone(),
            url: url?,
            tls,
            timeout: self.timeout.0,
            requests_max,
            waiting_max,
            wait_max: self.wait_max.0,
            idle_timeout: self.idle_timeout.0,
            answer_bytes_max,
            http_headers,
            emulated_headers,
            cookies: self.cookies.clone(),
            static_headers,
            binary_encoding: self.binary_encoding,
            include_connection_meta: self.include_connection_meta,
            signature_secrets,
            breaker: self.breaker,
            status_meanings,
        })
    }
}

impl StatusTransform {
    fn meaning(&self) -> Result<StatusMeaning, &'static str> {
        match (self.status, &self.error, &self.disconnect) {
            (200, ..) => Err("is the one whose body is read"),
            (0..100 | 600.., ..) => Err("is no status of HTTP"),
            (_, Some(error), None) if (1..=65535).contains(&error.code) => {
                Ok(StatusMeaning::error(error.code, error.message.clone(), error.temporary))
            }
            (_, Some(_), None) => Err("error.code must be 1 to 65535"),
            (_, None, Some(close)) => match u16::try_from(close.code) {
                Ok(code @ 3000..=4999) => Ok(StatusMeaning::close(code, close.reason.clone())),
                _ => Err("disconnect.code must be 3000 to 4999"),
            },
            (_, _, _) => Err("needs error or disconnect, and not both"),
        }
    }
}

/// Reads the files of hooks to check that a node can start with them.
pub(super) fn check_files(hooks: &[HookSettings], checks: &mut Checks) {
    for (index, hook) in hooks.iter().enumerate().filter(|(_, hook)| hook.url.is_https()) {
        if let Err(error) = BackendTls::new(&hook.tls, hook.url.host()) {
            checks.error(format!("hooks.{index}.{}", error.setting), error.problem.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::judge;
    use super::*;

    /// Returns the problems and warnings of a file.
    fn judged(text: &str) -> (Vec<String>, Vec<String>) {
        let (problems, warnings) = judge(toml::from_str(text).unwrap(), "a.toml".into());
        (problems.iter().map(ToString::to_string).collect(), warnings)
    }

    #[track_caller]
    fn check(found: Vec<String>, expected: &[&str]) {
        for expected in expected {
            assert!(found.iter().any(|line| line.starts_with(expected)), "{expected}\nnot in {found:#?}");
        }
        assert_eq!(found.len(), expected.len(), "{found:#?}");
    }

    #[test]
    fn a_sound_hook_is_taken_as_it_is() {
        let (problems, warnings) = judged(
            "[[hooks]]\nname = 'chat'\nurl = 'https://backend.example/hook?key=1'\nhttp_headers = ['X-Request-Id']\n\
             emulated_headers = ['Authorization']\ncookies = ['sid']\nstatic_headers = { Authorization = 'Bearer a' }\n\
             certificate_file = '/tls.crt'\nkey_file = '/tls.key'\nwait_max = '0s'\nidle_timeout = '0s'\n\
             signature_secret = '0123456789abcdef0123456789abcdef'\nsignature_previous_secret = '0123456789abcdef0123456789abcdee'\n\
             status_transforms = [{ status = 404, error = { code = 404 } }, { status = 403, disconnect = { code = 4403, reason = 'no' } }]\n\
             [client.hooks]\nconnect = 'chat'\n[rpc]\nhook = 'chat'\n[[rpc.namespaces]]\nname = 'off'\n",
        );
        assert_eq!((problems, warnings), (Vec::new(), Vec::new()));
    }

    #[test]
    fn mistakes_are_all_named() {
        let (problems, warnings) = judged(
            "[[hooks]]\nname = 'chat'\nurl = 'grpc://backend:1'\nhttp_headers = ['Host', 'a b']\nemulated_headers = ['Content-Type']\n\
             cookies = ['a=b']\nstatic_headers = { 'x-a' = \"a\\nb\", 'Fanwire-Signature' = 'x' }\ntimeout = '0s'\nwait_max = '2m'\n\
             requests_max = 0\nwaiting_max = 0\nanswer_bytes_max = 0\ncertificate_file = 'a'\nsignature_secret = ''\n\
             status_transforms = [{ status = 200 }, { status = 404 }, { status = 500, error = { code = 0 } }, { status = 99 }, \
             { status = 501, disconnect = { code = 1000 } }, { status = 502, error = { code = 1 }, disconnect = { code = 4000 } }]\n\
             [[hooks]]\nname = 'chat'\nkey_file = 'a'\nsignature_previous_secret = 'a'\n[[hooks]]\nurl = 'http://a@b/'\n\
             [client.hooks]\nconnect = 'chaat'\nrefresh = 'nothing'\n[rpc]\nhook = 'x'\n\
             [[rpc.namespaces]]\nname = 'a'\n[[rpc.namespaces]]\nname = 'a'\nhook = 'y'\n[[rpc.namespaces]]\n\
             [topics.default]\npublish_hook = 'z'\n",
        );
        check(
            problems,
            &[
                "a.toml: hooks[0].url: gRPC hooks come later; use http or https",
                "a.toml: hooks[0].http_headers: \"Host\" is set by the gateway itself",
                "a.toml: hooks[0].http_headers: \"a b\" cannot be the name of a header",
                "a.toml: hooks[0].emulated_headers: \"Content-Type\" is set by the gateway",
                "a.toml: hooks[0].cookies: \"a=b\" cannot be the name of a cookie",
                "a.toml: hooks[0].static_headers: the value of \"x-a\" cannot be in a header",
                "a.toml: hooks[0].static_headers: \"Fanwire-Signature\" is set by the gateway",
                "a.toml: hooks[0].timeout: must be 1ms to 1m",
                "a.toml: hooks[0].wait_max: must be 0s to 1m",
                "a.toml: hooks[0].requests_max: must be at least 1",
                "a.toml: hooks[0].waiting_max: must be at least 1",
                "a.toml: hooks[0].answer_bytes_max: must be at least 1",
                "a.toml: hooks[0].certificate_file: needs key_file as well",
                "a.toml: hooks[0].signature_secret: the secret is empty",
                "a.toml: hooks[0].status_transforms: status 200: is the one whose body is read",
                "a.toml: hooks[0].status_transforms: status 404: needs error or disconnect",
                "a.toml: hooks[0].status_transforms: status 500: error.code must be 1 to 65535",
                "a.toml: hooks[0].status_transforms: status 99: is no status",
                "a.toml: hooks[0].status_transforms: status 501: disconnect.code must be 3000 to 4999",
                "a.toml: hooks[0].status_transforms: status 502: needs error or disconnect, and not both",
                "a.toml: hooks[1].name: \"chat\" is the name of two hooks",
                "hooks[1].url: is empty; set the backend's address",
                "a.toml: hooks[1].key_file: needs certificate_file as well",
                "a.toml: hooks[1].signature_previous_secret: needs signature_secret as well",
                "hooks[2].name: is empty",
                "a.toml: hooks[2].url: holds a user or password",
                "a.toml: client.hooks.connect: \"chaat\" is not the name of a hook in [[hooks]]; did you mean \"chat\"?",
                "a.toml: client.hooks.refresh: \"nothing\" is not the name of a hook",
                "a.toml: rpc.hook: \"x\" is not the name",
                "a.toml: rpc.namespaces[1].hook: \"y\" is not the name",
                "a.toml: rpc.namespaces[1].name: \"a\" is the name of two namespaces",
                "rpc.namespaces[2].name: is empty",
                "a.toml: topics.default.publish_hook: \"z\" is not the name",
            ],
        );
        check(warnings, &["a.toml: hooks[0].name: no section names \"chat\", so it is never called"]);
    }

    #[test]
    fn doubtful_choices_are_told() {
        let (problems, warnings) = judged(
            "[[hooks]]\nname = 'chat'\nurl = 'http://backend/'\ncookies = ['sid']\nca_file = '/ca.pem'\nsignature_secret = 'short'\n\
             [[hooks]]\nname = 'local'\nurl = 'http://127.0.0.1:3000/'\nhttp_headers = ['Cookie']\nsignature_secret = '0123456789abcdef0123456789abcdef'\n\
             [[hooks]]\nname = 'far'\nurl = 'http://10.0.0.1/'\nsignature_secret = '0123456789abcdef0123456789abcdef'\n\
             [client.hooks]\nconnect = 'local'\nrefresh = 'far'\n\
             [topics.default]\nsubscribe_hook = 'chat'\npublish_hook = 'chat'\nallow_subscribe_for_client = true\nallow_publish_for_subscriber = true\n",
        );
        assert_eq!(problems, [""; 0]);
        check(
            warnings,
            &[
                "a.toml: hooks[0].url: is http, and what cookies sends can be read on the way",
                "a.toml: hooks[0].ca_file: has no effect: url begins with http://",
                "a.toml: hooks[2].url: is http: calls are signed, but they can be read",
                "a.toml: hooks[0].signature_secret: has 5 bytes and can be guessed; use 32",
                "a.toml: topics.default.allow_subscribe_for_client: has no effect: subscribe_hook decides",
                "a.toml: topics.default.allow_publish_for_subscriber: has no effect: publish_hook decides",
            ],
        );
    }

    #[test]
    fn a_refresh_of_what_never_ends_is_told() {
        let hook = "[[hooks]]\nname = 'a'\nurl = 'http://localhost/'\n";
        let alone = format!("{hook}[[topics.namespaces]]\nname = 'room'\nsub_refresh_hook = 'a'\n");
        let warning =
            "a.toml: topics.namespaces[0].sub_refresh_hook: is asked only about subscriptions of the API's";
        check(judged(&alone).1, &[warning]);
        let default = format!("{hook}[topics.default]\nsub_refresh_hook = 'a'\n");
        check(judged(&default).1, &["a.toml: topics.default.sub_refresh_hook: is asked only about"]);
        for with in [
            "subscribe_hook = 'a'\n",
            "[client.token]\nhmac_secret = '0123456789abcdef0123456789abcdef'\n",
            "[client.subscription_token]\nenabled = true\nhmac_secret = '0123456789abcdef0123456789abcdef'\n",
            "[client.token]\njwks_url = 'https://id.example/keys'\n",
        ] {
            check(judged(&format!("{alone}{with}")).1, &[]);
        }
    }

    #[test]
    fn headers_are_kept_for_the_hooks_that_get_them() {
        let hook = |name: &str, http: &[&str], emulated: &[&str], cookies: &[&str]| Hook {
            name: name.into(),
            http_headers: http.iter().map(|&name| name.into()).collect(),
            emulated_headers: emulated.iter().map(|&name| name.into()).collect(),
            cookies: cookies.iter().map(|&name| name.into()).collect(),
            ..Hook::default()
        };
        let kept = |hooks: &[Hook], others: &[&str]| {
            let mut checks = Checks::default();
            let mut names = HookNames::new(hooks);
            names.find("a", "connect", HookUse::Connect, &mut checks).unwrap();
            for other in others {
                names.find("a", other, HookUse::Other, &mut checks).unwrap();
            }
            names.kept(7, &mut checks)
        };
        let names = |names: &[Box<str>]| names.join(",");
        let hooks = [hook("connect", &["X-A"], &["X-B"], &["sid"]), hook("other", &[], &[], &[])];
        let rules = kept(&hooks, &["other"]);
        assert_eq!([names(&rules.headers), names(&rules.emulated)], ["cookie,x-a", "x-b"]);
        assert_eq!(rules.cookies.as_deref().map(names).as_deref(), Some("sid"));
        assert!(!rules.outlasts_connect && !rules.has_meta);
        assert!(kept(&hooks, &["connect"]).outlasts_connect);
        let hooks = [hook("connect", &["Cookie"], &[], &["sid"])];
        assert_eq!(kept(&hooks, &[]).cookies, None);
    }
}
