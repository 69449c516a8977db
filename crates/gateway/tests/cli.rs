//! The built executable as a person meets it: help, checks of configuration, tokens, translations, exit codes.
//!
//! Every command runs without the environment of the test, so that only what a test says is there.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use figment::providers::{Format, Yaml};
use serde_json::json;
use tempfile::TempDir;

/// One run of the program: its exit code and what it wrote.
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, expected: &str) -> Self {
        assert!(self.out.contains(expected), "{expected}\nnot in\n{}", self.out);
        self
    }

    #[track_caller]
    fn complains(self, expected: &str) -> Self {
        assert!(self.err.contains(expected), "{expected}\nnot in\n{}", self.err);
        self
    }
}

fn fanwire(arguments: &[&str]) -> Run {
    fanwire_with(arguments, &[])
}

fn fanwire_with(arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanwire"));
    Run::new(command.args(arguments).env_clear().envs(environment.iter().copied()).output().unwrap())
}

/// A folder that goes with the test, and files in it.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// A certificate and its key, in PEM.
fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let files = Files::new();
    check_file(&files.write("fanwire.toml", text), expected);
}

#[track_caller]
fn check_file(file: &str, expected: &[&str]) {
    let run = fanwire(&["check", file]).exits(1);
    for line in expected {
        assert!(run.err.contains(&format!("error: {file}: {line}")), "{line}\nnot in\n{}", run.err);
    }
}

#[test]
fn help_tells_what_one_needs() {
    let run = fanwire(&["--help"]).exits(0);
    for expected in
        ["Usage: fanwire", "serve --dev", "Exit codes:", "FANWIRE_CLIENT__PING_INTERVAL", "--internal-port"]
    {
        assert!(run.out.contains(expected), "{expected}\nnot in\n{}", run.out);
    }
    fanwire(&["--version"]).exits(0).says(concat!("fanwire ", env!("CARGO_PKG_VERSION")));
    fanwire(&["serve", "--help"]).exits(0).says("A later source wins");
    fanwire(&["check", "--help"]).exits(0).says("Exits with 0 when all is fine");
    fanwire(&["token", "connection", "--help"]).exits(0).says("--private-key");
    fanwire(&["config", "import", "centrifugo", "--help"]).exits(0).says("one line for each key");
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    fanwire(&["sevre"]).exits(2).complains("serve");
    fanwire(&["serve", "--prot", "1"]).exits(2).complains("--port");
    fanwire(&["serve", "--port", "70000"]).exits(2);
    fanwire(&["serve", "--shards", "many"]).exits(2).complains("--shards (server.shards): `many` is neither");
    fanwire(&["serve", "--log-level", "loud"]).exits(2).complains("--log-level (log.level): must be one of");
    fanwire(&["--dev", "--address", "0.0.0.0"])
        .exits(2)
        .complains("--address (server.address): must be 127.0.0.1");
    fanwire(&["serve", "--config", "/no/such.toml"]).exits(2).complains("/no/such.toml: cannot be read");
}

#[test]
fn good_files_of_all_kinds_pass() {
    let files = Files::new();
    let toml = files.write("a.toml", "[server]\nport = 8001\n[api]\nkeys = ['0123456789abcdef']\n");
    let yaml = files.write(
        "b.yaml",
        "client:\n  ping_interval: 20s\n  token:\n    hmac_secret: 0123456789abcdef0123456789abcdef\n",
    );
    let json = files.write("c.json", r#"{"topics": {"namespaces": [{"name": "chat", "presence": true}]}}"#);
    fanwire(&["check", &toml, &yaml, &json])
        .exits(0)
        .says("The configuration is fine")
        .says("0.0.0.0:8001")
        .says("HS256/384/512")
        .says("1 key")
        .says("namespaces  chat");
    fanwire(&["check"])
        .exits(0)
        .says("engine      memory")
        .says("clients cannot connect without keys in [client.token]");
}

#[test]
fn redis_is_set_by_file_and_environment() {
    let files = Files::new();
    let config = files.write("a.toml", "[engine]\ntype = 'redis'\n[engine.redis]\naddress = '[::1]:6380'\n");
    let password = files.write("password", "0012\n");
    let environment = [
        ("FANWIRE_ENGINE__REDIS__PASSWORD_FILE", password.as_str()),
        ("FANWIRE_ENGINE__REDIS__USERNAME", "12345"),
        ("FANWIRE_ENGINE__REDIS__PREFIX", "chat"),
    ];
    let run = fanwire_with(&["check", &config], &environment).exits(0);
    assert_eq!(run.err, "");
    run.says("engine      redis at [::1]:6380, prefix chat");
    fanwire_with(&["check"], &environment).exits(0).says("engine      memory").complains(
        "FANWIRE_ENGINE__REDIS__PREFIX (engine.redis.prefix): is not used: engine.type is \"memory\"",
    );
    check(
        "[engine]\ntype = 'redis'\n[engine.redis]\nlease = '1s'\nprefix = ''\nadress = 'x'\n",
        &[
            "engine.redis.lease: must be 3s to 1h",
            "engine.redis.prefix: must have 1 to 64 bytes",
            "engine.redis.adress: unknown key; did you mean `address`?",
        ],
    );
}

#[test]
fn every_kind_of_mistake_is_told_with_file_and_key() {
    check(
        "[client]\nping_intervall = '5s'\n",
        &["client.ping_intervall: unknown key; did you mean `ping_interval`?"],
    );
    check("[server]\nport = 'x'\n", &["server.port: expected a whole number from 0 to 65535, found text"]);
    check(
        "[client]\nping_interval = 25\n",
        &["client.ping_interval: 25 has no unit; units are ms, s, m, h and d"],
    );
    check("[engine]\ntype = 'nats'\n", &["engine.type: \"nats\" is not one of \"memory\", \"redis\""]);
    check("[server]\naddress = 'localhost'\n", &["server.address: invalid IP address syntax"]);
    check("[server\n", &["line 1: "]);
    check(
        "[client]\nping_interval = '5s'\n[topics.default]\nhistory_size = 3\n[[topics.namespaces]]\nname = '?'\n",
        &[
            "topics.default.history_size: needs history_ttl as well",
            "topics.namespaces[0].name: \"?\" must be two or more letters",
        ],
    );
    let run = fanwire(&["check", "/no/such.toml", "/nor/this.ini"]).exits(1);
    run.complains("/no/such.toml: cannot be read")
        .complains("/nor/this.ini: cannot be read")
        .complains("2 errors");
}

#[test]
fn secrets_are_never_printed() {
    let files = Files::new();
    let file = files.write("a.toml", "[client.token]\nhmac_secret = hunter2\n");
    let run = fanwire(&["check", &file]).exits(1);
    assert!(!run.err.contains("hunter2"), "{}", run.err);
    let file = files.write("a.toml", "[client]\ntoken = 'hunter2'\n[api]\nkeys = 'hunter2'\n");
    let run = fanwire(&["check", &file]).exits(1);
    assert!(!run.err.contains("hunter2"), "{}", run.err);
    let run = fanwire_with(&["check"], &[("FANWIRE_CLIENT__TOKEN", "hunter2")]).exits(1);
    assert!(!run.err.contains("hunter2"), "{}", run.err);
    let address = [("FANWIRE_ENGINE__REDIS__ADDRESS", "redis://ann:hunter2@redis:6379")];
    for command in ["check", "serve"] {
        let run = fanwire_with(&[command], &address)
            .complains("FANWIRE_ENGINE__REDIS__ADDRESS (engine.redis.address): must be host:port")
            .complains("username, password, database");
        assert!(!run.err.contains("hunter2") && !run.out.contains("hunter2"), "{}", run.err);
    }
}

#[test]
fn the_environment_has_no_traps() {
    let files = Files::new();
    let secret = files.write("secret", "0012\n");
    for (name, value) in [
        ("FANWIRE_CLIENT__TOKEN__HMAC_SECRET", "0012"),
        ("FANWIRE_CLIENT__TOKEN__HMAC_SECRET_FILE", secret.as_str()),
    ] {
        let made = fanwire_with(&["token", "connection", "--user", "42"], &[(name, value)]).exits(0);
        fanwire(&["token", "check", made.out.trim(), "--secret", "0012"]).exits(0);
    }
    for value in ["12345", "true"] {
        fanwire_with(&["check"], &[("FANWIRE_CLIENT__TOKEN__HMAC_SECRET", value)]).exits(0).says("HS256");
    }
    let links = [
        ("FANWIRE_PORT", "tcp://10.0.0.1:8000"),
        ("FANWIRE_SERVICE_HOST", "10.0.0.1"),
        ("FANWIRE_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("FANWIRE_CLIENT_SERVICE_HOST", "10.0.0.1"),
    ];
    let run = fanwire_with(&["check"], &links).exits(0);
    assert_eq!(run.err.matches("is ignored: Kubernetes").count(), links.len(), "{}", run.err);

    let wrong = [
        ("FANWIRE_REDIS__", "1"),
        ("FANWIRE_CLIENT__PING_INTERVALL", "1s"),
        ("FANWIRE_SERVER__PORT", "70000"),
        ("FANWIRE_API__KEYS", "a"),
        ("FANWIRE_API__KEYS_FILE", "b"),
    ];
    fanwire_with(&["check"], &wrong)
        .exits(1)
        .complains("FANWIRE_REDIS__: has an empty part")
        .complains("FANWIRE_CLIENT__PING_INTERVALL (client.ping_intervall): unknown key; did you mean `ping_interval`?")
        .complains("FANWIRE_SERVER__PORT (server.port): expected a whole number from 0 to 65535; this number is out of range")
        .complains("FANWIRE_API__KEYS_FILE: is set beside FANWIRE_API__KEYS; choose one")
        .complains("4 errors");
}

#[test]
fn tokens_are_made_and_checked() {
    let files = Files::new();
    let config = files.write(
        "a.toml",
        "[client.token]\nhmac_secret = 'first'\naudience = 'app'\nuser_claim = 'uid'\n\
         [client.subscription_token]\nenabled = true\nhmac_secret = 'second'\n",
    );
    let connection = fanwire(&[
        "token",
        "connection",
        "--user",
        "42",
        "--topic",
        "a",
        "--topic",
        "b",
        "--info",
        r#"{"name":"Ada"}"#,
        "--ttl",
        "5m",
        "--config",
        &config,
    ])
    .exits(0);
    fanwire(&["token", "check", connection.out.trim(), "--config", &config])
        .exits(0)
        .says("valid: a connection token of user \"42\", until 20")
        .says("\"name\": \"Ada\"")
        .says("\"aud\": \"app\"");
    let subscription =
        fanwire(&["token", "subscription", "--user", "42", "--topic", "news", "--ttl", "0s", "-c", &config])
            .exits(0);
    fanwire(&["token", "check", subscription.out.trim(), "--config", &config])
        .exits(0)
        .says("valid: a subscription token of user \"42\", without end");
    let run =
        fanwire(&["token", "check", subscription.out.trim(), "--secret", "wrong"]).exits(1).says("invalid: ");
    assert!(!run.out.contains("wrong") && !run.out.contains("second"));
    fanwire(&["token", "check", "nonsense", "--secret", "x"]).exits(1).says("invalid: ");
    let key = jsonwebtoken::EncodingKey::from_secret(b"x");
    for (claims, why) in [
        (
            json!({"sub": "42", "b64info": "/w=="}),
            "refused: a connection token that is valid, but info is not JSON",
        ),
        (json!({"subs": {"a": {"b64data": "/w=="}}}), "data in subs is not JSON"),
        (
            json!({"sub": "42", "channel": "a", "b64info": "/w=="}),
            "refused: a subscription token that is valid, but",
        ),
    ] {
        let unfit = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        fanwire(&["token", "check", &unfit, "--secret", "x"]).exits(1).says(why);
    }
    fanwire(&["token", "connection", "--user", "1"]).exits(2).complains("no key to sign with");
    fanwire(&["token", "connection", "--info", "{"]).exits(2).complains("not JSON");
    fanwire(&["token", "connection", "--ttl", "5"]).exits(2).complains("has no unit");
    fanwire(&["token", "connection", "--algorithm", "ES256", "--secret", "x"])
        .exits(2)
        .complains("ES256 signs with --private-key");

    let expired = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI0MiIsImV4cCI6MX0.OgVhr9d2iIHg_BMnJFoCd84sTSBT0PCdrUCKWcgrkMk";
    fanwire(&["token", "check", expired, "--secret", "x"]).exits(1);
}

#[test]
fn private_keys_sign_for_their_public_half() {
    let key_pairs = [
        (
            "RS256",
            "rsa_public_key",
            &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..],
        ),
        (
            "ES256",
            "ecdsa_public_key",
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ),
        (
            "ES384",
            "ecdsa_public_key",
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        ),
        ("EdDSA", "ed25519_public_key", &["genpkey", "-algorithm", "ed25519"]),
    ];
    for (algorithm, setting, arguments) in key_pairs {
        let files = Files::new();
        let private = files.write("private.pem", "");
        let generated = Command::new("openssl").args(arguments).args(["-out", &private]).output().unwrap();
        assert!(generated.status.success());
        let public = Command::new("openssl").args(["pkey", "-in", &private, "-pubout"]).output().unwrap();
        let public = String::from_utf8(public.stdout).unwrap();
        let config = files.write("a.toml", &format!("[client.token]\n{setting} = '''\n{public}'''\n"));
        let made = fanwire(&[
            "token",
            "connection",
            "-u",
            "42",
            "--private-key",
            &private,
            "--algorithm",
            algorithm,
        ])
        .exits(0);
        fanwire(&["token", "check", made.out.trim(), "-c", &config])
            .exits(0)
            .says("valid: a connection token");
        fanwire(&["token", "connection", "--private-key", &config, "--algorithm", algorithm])
            .exits(2)
            .complains("not a private key");
    }
}

#[test]
fn the_default_file_passes_and_is_the_documented_one() {
    let files = Files::new();
    let default = fanwire(&["config", "default"]).exits(0).out;
    let file = files.write("fanwire.toml", &default);
    fanwire(&["check", &file]).exits(0);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let documented = fs::read_to_string(page).unwrap();
    assert!(
        documented.contains(&format!("```toml\n{default}```\n")),
        "docs/configuration.md is not what `fanwire config default` prints; put its output into the fenced block"
    );
}

/// The fixture's text with real keys, in a folder with the key files that it names.
fn centrifugo(files: &Files) -> (String, String) {
    let server_keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/src/auth/testdata");
    let mut expected = fs::read_to_string(data("translated.toml")).unwrap();
    for (place, source, copy) in [("RSA", "rsa_public.pem", "rsa.pem"), ("EC", "p256_public.pem", "ec.pem")] {
        let key = fs::read_to_string(server_keys.join(source)).unwrap();
        files.write(copy, &key);
        expected = expected.replace(&format!("= {place}\n"), &format!("= \"\"\"\n{key}\"\"\"\n"));
    }
    let (certificate, key) = certificate();
    for (name, pem) in [("tls.crt", certificate), ("tls.key", key)] {
        let path = files.write(name, &pem);
        expected = expected.replace(&format!("\"FOLDER/{name}\""), &format!("\"{path}\""));
    }
    (fs::read_to_string(data("centrifugo.yaml")).unwrap(), expected)
}

#[test]
fn a_configuration_of_centrifugo_is_translated_from_all_three_formats() {
    let files = Files::new();
    let (yaml, expected) = centrifugo(&files);
    let value: toml::Value = Yaml::from_str(&yaml).unwrap();
    let json = serde_json::to_string_pretty(&value).unwrap();
    for (name, text) in [
        ("centrifugo.yaml", yaml.clone()),
        ("centrifugo.json", json),
        ("centrifugo.toml", toml::to_string(&value).unwrap()),
    ] {
        let file = files.write(name, &text);
        let run = fanwire(&["config", "import", "centrifugo", &file]).exits(0);
        assert_eq!(run.out, expected.replace("centrifugo.yaml", name));
        let (warnings, left): (Vec<_>, Vec<_>) = run.err.lines().partition(|line| line.contains("warning: "));
        assert_eq!(warnings.len(), 6);
        let mut left: Vec<&str> = left.into_iter().filter_map(|line| line.split(": ").next()).collect();
        left.sort_unstable();
        let expected_left = [
            "channel.namespaces.chat.allowed_delta_types",
            "channel.namespaces.chat.delta_publish",
            "channel.namespaces.chat.subscribe_proxy_enabled",
            "client.concurrency",
            "client.presence_update_interval",
            "client.proxy",
            "client.user_id_http_header",
            "engine.redis.io_timeout",
            "engine.redis.presence_ttl",
            "log.file",
            "prometheus",
            "proxies",
            "sse",
            "websocket.decompressed_message_size_limit",
        ];
        assert_eq!(left, expected_left);
        let translated = files.write("fanwire.toml", &run.out);
        fanwire(&["check", &translated]).exits(0).says("namespaces  chat, personal");
    }
    fanwire(&["config", "import", "centrifugo", "/no/such.json"]).exits(2).complains("cannot be read");
}

#[test]
fn serve_says_what_it_opened_and_ends_on_a_signal() {
    use rustix::process::{Pid, Signal, kill_process};

    let mut node = Command::new(env!("CARGO_BIN_EXE_fanwire"))
        .args(["--dev", "--port", "0", "--internal-port", "0"])
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines().map(Result::unwrap);
    let banner: Vec<String> =
        lines.by_ref().take_while(|line| !line.contains("curl http://127.0.0.1:")).collect();
    for expected in
        ["for development", "Page         http://127.0.0.1:", "clients need no token", "the API needs no key"]
    {
        assert!(banner.iter().any(|line| line.contains(expected)), "{expected} not in {banner:#?}");
    }
    kill_process(Pid::from_child(&node), Signal::TERM).unwrap();
    assert!(lines.any(|line| line.contains("SIGTERM")));
    assert_eq!(node.wait().unwrap().code(), Some(0));
}

#[test]
fn a_certificate_is_checked_and_reloaded_on_a_signal() {
    use rustix::process::{Pid, Signal, kill_process};

    let files = Files::new();
    let (certificate, key) = self::certificate();
    let (certificate_file, key_file) = (files.write("tls.crt", &certificate), files.write("tls.key", &key));
    let config = files.write(
        "fanwire.toml",
        &format!("[server.tls]\ncertificate_file = '{certificate_file}'\nkey_file = '{key_file}'\nreload_interval = '0s'\n"),
    );
    fanwire(&["check", &config]).exits(0).says("0.0.0.0:8000, TLS until 4096-01-01T00:00:00Z");
    files.write("tls.key", &self::certificate().1);
    check_file(&config, &[&format!("server.tls.key_file: {key_file}: is not the key of the certificate")]);
    fanwire(&["serve", "--config", &config]).exits(2).complains("server.tls.key_file");
    files.write("tls.key", &key);

    let mut node = Command::new(env!("CARGO_BIN_EXE_fanwire"))
        .args(["serve", "--config", &config, "--address", "127.0.0.1", "--port", "0", "--internal-port", "0"])
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"ready\"")));
    for (content, said) in [("", "was not reloaded"), (&*key, "was reloaded")] {
        files.write("tls.key", content);
        kill_process(Pid::from_child(&node), Signal::HUP).unwrap();
        assert!(lines.any(|line| line.contains(said)));
    }
    kill_process(Pid::from_child(&node), Signal::TERM).unwrap();
    assert!(lines.any(|line| line.contains("SIGTERM")));
    assert_eq!(node.wait().unwrap().code(), Some(0));
}

#[test]
fn a_port_that_is_taken_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    fanwire(&["serve", "--address", "127.0.0.1", "--port", &port, "--internal-port", "0"])
        .exits(1)
        .complains("in use");
    fanwire_with(&["serve"], &[("FANWIRE_SERVER__CONNECTIONS_MAX", "999999999999")])
        .exits(2)
        .complains("server.connections_max");
}
