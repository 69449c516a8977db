//! The session's rules against the protocol's tables: an input and the time go in, exact effects come out.

mod harness;

mod commands;
mod bad_requests;
mod connect;
mod prepare;
mod timing;
mod refresh;
mod keys;
mod subscribe;
mod options;
mod recovery;
mod cursor;
mod permissions;
mod names;
mod operations;
mod ordering;
mod rate;
mod hooks;
mod server_side;
mod model;
