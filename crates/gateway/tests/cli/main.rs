//! The command line of the built executable: help, checks of configuration, tokens, translations, exit codes.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod run;

mod check;
mod import;
mod serve;
mod token;

use run::fanwire;

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
    fanwire(&["check", "--help"]).exits(0).says("Exits with 0 if the configuration is valid");
    fanwire(&["token", "connection", "--help"]).exits(0).says("--private-key");
    fanwire(&["config", "import", "centrifugo", "--help"]).exits(0).says("one a line with the reason");
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
