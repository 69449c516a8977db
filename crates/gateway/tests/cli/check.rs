//! `check`: valid configurations, and the report of each mistake.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use crate::run::{Files, certificate, check, fanwire, fanwire_with};

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
fn backends_are_reached_if_that_is_asked_for() {
    let files = Files::new();
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = backend.local_addr().unwrap().port();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone_port = gone.local_addr().unwrap().port();
    drop(gone);
    let hook =
        |name: &str, url: &str| format!("[[hooks]]\nname = '{name}'\nurl = '{url}'\ntimeout = '20s'\n");
    let names = "[client.hooks]\nconnect = 'chat'\n";
    let good = hook("chat", &format!("http://127.0.0.1:{port}/connect?key=secret"));
    let config = files.write("good.toml", &format!("{good}{names}"));
    let run = fanwire(&["check", "--connect", &config]).exits(0);
    let run = run.says(&format!("hook        chat: http://127.0.0.1:{port}/connect can be reached"));
    assert!(!run.out.contains("secret"), "{}", run.out);
    // Each is connected to, and sent nothing.
    let (mut stream, _) = backend.accept().unwrap();
    assert_eq!(std::io::Read::read(&mut stream, &mut [0]).unwrap(), 0);

    let [refused, unknown] =
        [format!("http://127.0.0.1:{gone_port}/"), "https://backend.invalid/x".to_owned()];
    let ca_file = files.write("ca.pem", &certificate().0);
    let bad = [
        hook("refused", &refused),
        hook("unknown", &unknown) + &format!("ca_file = '{ca_file}'\n"),
        hook("plain", &format!("https://localhost:{gone_port}/")) + &format!("ca_file = '{ca_file}'\n"),
    ];
    let config = files.write("bad.toml", &format!("{good}{}{names}", bad.concat()));
    fanwire(&["check", &config]).exits(0);
    fanwire(&["check", "--connect", &config])
        .exits(1)
        .says("hook        chat: http://")
        .complains(&format!("error: hooks.1.url: {refused}: no connection: Connection refused"))
        .complains(&format!("error: hooks.2.url: {unknown}: no connection: "))
        .complains(&format!("error: hooks.3.url: https://localhost:{gone_port}/: no connection: "))
        .complains("3 errors");
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
