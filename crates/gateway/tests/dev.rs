//! Requests that a foreign web page makes a browser send are refused by `--dev` and by an API that needs no key.
//! Programs, probes and pages of this machine are served.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod node;

use std::process::{Command, Stdio};

use node::{Node, request};

const SECRET: &str = "the configured secret of thirty-two bytes";

/// Returns the status line of the response to a request with these headers.
fn ask(port: u16, line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let bytes =
        format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    request(port, &bytes).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn publish(port: u16, headers: &str) -> String {
    ask(port, "POST /api/publish", headers, r#"{"channel":"chat:lobby","data":1}"#)
}

/// Headers of foreign pages. `HOST` is the node's own.
const FOREIGN: [&str; 6] = [
    "Host: HOST\r\nOrigin: https://evil.example\r\nContent-Type: text/plain\r\n",
    "Host: HOST\r\nOrigin: null\r\nContent-Type: text/plain\r\n",
    "Host: HOST\r\nOrigin: http://localhost.evil.example\r\n",
    "Host: HOST\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
    "Host: evil.example:8000\r\nOrigin: http://evil.example:8000\r\nSec-Fetch-Site: same-origin\r\n",
    "Host: evil.example\r\n",
];

/// Headers of programs and of pages of this machine.
const OWN: [&str; 5] = [
    "Host: HOST\r\n",
    "Host: localhost\r\n",
    "Host: HOST\r\nOrigin: http://localhost:3000\r\nSec-Fetch-Site: cross-site\r\n",
    "Host: [::1]:8000\r\nOrigin: https://[::1]:8000\r\nSec-Fetch-Site: same-origin\r\n",
    "Host: HOST\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n",
];

fn with_host(headers: &str, port: u16) -> String {
    headers.replace("HOST", &format!("127.0.0.1:{port}"))
}

#[test]
fn development_answers_no_foreign_page() {
    let secret = ("FANWIRE_CLIENT__TOKEN__HMAC_SECRET", SECRET);
    let node = Node::start(&["serve", "--dev"], &[secret], Stdio::null(), Stdio::inherit());
    node.wait_until_alive();
    for headers in FOREIGN {
        for port in [node.port, node.internal_port] {
            let answer = publish(port, &with_host(headers, port));
            assert_eq!(status(&answer), "403", "{headers} {answer}");
        }
        let headers = with_host(headers, node.port);
        let answer = ask(node.port, "GET /dev/token?user=1", &headers, "");
        assert_eq!(status(&answer), "403", "{headers} {answer}");
        assert!(!answer.contains("eyJ"), "{answer}");
        let answer = ask(node.port, "GET /subscribe?topic=chat:lobby", &headers, "");
        assert_eq!(status(&answer), "403", "{headers} {answer}");
    }
    for headers in OWN {
        for port in [node.port, node.internal_port] {
            let answer = publish(port, &with_host(headers, port));
            assert_eq!(status(&answer), "200", "{headers} {answer}");
        }
        let answer = ask(node.port, "GET /dev/token?user=1", &with_host(headers, node.port), "");
        assert_eq!(status(&answer), "200", "{headers} {answer}");
    }
    // Also a WebSocket.
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    for headers in FOREIGN.iter().filter(|headers| !headers.contains("no-cors")) {
        let head =
            format!("GET /connection/websocket HTTP/1.1\r\n{}{upgrade}\r\n", with_host(headers, node.port));
        assert_eq!(status(&node.first_line(&head)), "403", "{headers}");
    }
    let head = format!("GET /connection/websocket HTTP/1.1\r\n{}{upgrade}\r\n", with_host(OWN[2], node.port));
    assert_eq!(status(&node.first_line(&head)), "101");
    // A link to the page may be anywhere, but the page has no foreign name.
    let link = format!(
        "Host: 127.0.0.1:{}\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n",
        node.port
    );
    assert_eq!(status(&ask(node.port, "GET /", &link, "")), "200");
    assert_eq!(status(&ask(node.port, "GET /", FOREIGN[5], "")), "403");
    // Probes use whatever name or address they like.
    for path in ["GET /livez", "GET /readyz", "GET /metrics"] {
        assert_eq!(status(&ask(node.internal_port, path, "Host: 10.0.3.4:9000\r\n", "")), "200");
        assert_eq!(status(&ask(node.internal_port, path, FOREIGN[0], "")), "200");
    }
}

#[test]
fn development_signs_with_a_secret_of_its_own() {
    let secret = ("FANWIRE_CLIENT__TOKEN__HMAC_SECRET", SECRET);
    let node = Node::start(&["serve", "--dev"], &[secret], Stdio::null(), Stdio::inherit());
    node.wait_until_alive();
    let answer = ask(node.port, "GET /dev/token?user=1", "Host: localhost\r\n", "");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let token = body["token"].as_str().unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_fanwire"))
        .args(["token", "check", token, "--secret", SECRET])
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(said.starts_with("invalid: its signature"), "{said}");
    // The node itself takes both.
    let mine = Command::new(env!("CARGO_BIN_EXE_fanwire"))
        .args(["token", "connection", "--user", "1", "--secret", SECRET])
        .env_clear()
        .output()
        .unwrap();
    let mine = String::from_utf8(mine.stdout).unwrap();
    for token in [token, mine.trim()] {
        let head = format!(
            "GET /subscribe?topic=chat:lobby&as=sse&token={token} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        );
        assert_eq!(status(&node.first_line(&head)), "200", "{head}");
    }
}

#[test]
fn an_api_without_a_key_answers_no_foreign_page_and_one_with_a_key_asks_for_it() {
    let open = ("FANWIRE_API__INSECURE", "true");
    let node = Node::start(&["serve"], &[open], Stdio::null(), Stdio::inherit());
    node.wait_until_alive();
    for port in [node.port, node.internal_port] {
        for headers in FOREIGN {
            let answer = publish(port, &with_host(headers, port));
            assert_eq!(status(&answer), "403", "{headers} {answer}");
        }
        for headers in OWN.into_iter().chain(["Host: fanwire:9000\r\n", "Host: fanwire.realtime.svc\r\n"]) {
            let answer = publish(port, &with_host(headers, port));
            assert_eq!(status(&answer), "200", "{headers} {answer}");
        }
    }
    assert_eq!(status(&ask(node.internal_port, "GET /livez", FOREIGN[5], "")), "200");
    drop(node);

    let key = "an API key of more than thirty-two bytes";
    let node = Node::start(&["serve"], &[("FANWIRE_API__KEYS", key)], Stdio::null(), Stdio::inherit());
    node.wait_until_alive();
    let keyed = format!("{}X-API-Key: {key}\r\n", FOREIGN[4]);
    assert_eq!(status(&publish(node.port, &keyed)), "200");
    assert_eq!(status(&publish(node.port, FOREIGN[4])), "401");
}
