//! One file for each command.

pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod serve;
pub(crate) mod token;
