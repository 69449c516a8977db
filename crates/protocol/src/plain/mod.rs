//! Data as it is, for clients without a library: publications and nothing of a protocol around them.

pub mod bare;
pub mod event;
pub mod query;
