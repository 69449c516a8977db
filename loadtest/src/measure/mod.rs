//! Measurements: processes, times, messages and their order.

pub(crate) mod histogram;
pub(crate) mod meter;
pub(crate) mod pace;
pub(crate) mod payload;
pub(crate) mod process;
pub(crate) mod sequence;
