//! `config import centrifugo`: translations from all formats.

use std::fs;
use std::path::Path;

use figment::providers::{Format, Yaml};

use crate::run::{Files, certificate, data, fanwire};

/// Writes the fixture with real keys into a folder, with the key files that it names.
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
        assert_eq!(warnings.len(), 7);
        let mut left: Vec<&str> = left.into_iter().filter_map(|line| line.split(": ").next()).collect();
        left.sort_unstable();
        let expected_left = [
            "channel.namespaces.chat.allowed_delta_types",
            "channel.namespaces.chat.delta_publish",
            "client.concurrency",
            "client.presence_update_interval",
            "client.user_id_http_header",
            "engine.redis.io_timeout",
            "engine.redis.presence_ttl",
            "log.file",
            "prometheus",
            "topics.namespaces[0].subscribe_hook",
            "uni_websocket.disable_closing_handshake",
            "uni_websocket.message_size_limit",
            "websocket.decompressed_message_size_limit",
        ];
        assert_eq!(left, expected_left);
        let translated = files.write("fanwire.toml", &run.out);
        fanwire(&["check", &translated]).exits(0).says("namespaces  chat, personal");
    }
    fanwire(&["config", "import", "centrifugo", "/no/such.json"]).exits(2).complains("cannot be read");
}
