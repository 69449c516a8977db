//! The `fanwire` program: arguments, configuration, logs, signals and exit codes; the node itself is
//! `fanwire_server`.

mod cli;
mod commands;
mod config;
mod failure;
mod import;
mod output;
mod pages;
mod printable;

use std::process::ExitCode;

use clap::Parser;

use cli::{Arguments, CliCommand};
use commands::{check, config as config_command, serve, token};

fn main() -> ExitCode {
    let _at_end = output::FlushAtEnd;
    let arguments = Arguments::parse();
    let result = match arguments.command {
        None => serve::run(arguments.serve),
        Some(CliCommand::Serve(serve)) => serve::run(serve),
        Some(CliCommand::Check(files)) => check::run(files),
        Some(CliCommand::Token { command }) => token::run(command),
        Some(CliCommand::Config { command }) => config_command::run(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output::report(&failure),
    }
}
